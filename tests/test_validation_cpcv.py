"""Combinatorial purged cross-validation: counts against the reference and skfolio, paths, purge by event time."""

from __future__ import annotations

import numpy as np
import pytest
from skfolio.model_selection import CombinatorialPurgedCV

from mahler.validation import cpcv


@pytest.mark.parametrize(("n_groups", "n_test", "n_splits", "n_paths"), [(6, 2, 15, 5), (10, 2, 45, 9)])
def test_the_counts_of_the_reference_table(n_groups, n_test, n_splits, n_paths):
    assert cpcv.n_splits(n_groups, n_test) == len(cpcv.splits(n_groups, n_test)) == n_splits
    assert cpcv.n_paths(n_groups, n_test) == len(cpcv.paths(n_groups, n_test)) == n_paths


@pytest.mark.parametrize(("n_groups", "n_test"), [(4, 2), (6, 2), (6, 3), (10, 2), (8, 5)])
def test_counts_equal_skfolios(n_groups, n_test):
    oracle = CombinatorialPurgedCV(n_folds=n_groups, n_test_folds=n_test)
    assert cpcv.n_splits(n_groups, n_test) == oracle.n_splits
    assert cpcv.n_paths(n_groups, n_test) == oracle.n_test_paths
    assert sorted(map(tuple, cpcv.splits(n_groups, n_test))) == sorted(map(tuple, oracle.test_set_index))


@pytest.mark.parametrize(("n_groups", "n_test"), [(6, 2), (7, 3)])
def test_every_held_out_group_is_on_one_path_and_every_path_covers_every_group(n_groups, n_test):
    splits, paths = cpcv.splits(n_groups, n_test), cpcv.paths(n_groups, n_test)
    used = [(int(split), group) for path in paths for group, split in enumerate(path)]
    assert sorted(used) == [(i, int(g)) for i, held_out in enumerate(splits) for g in held_out]


def test_groups_are_whole_and_nearly_equal():
    assert cpcv.groups(10, 3).tolist() == [0, 3, 6, 10]
    with pytest.raises(ValueError, match="4 groups need as many sessions, got 3"):
        cpcv.groups(3, 4)
    with pytest.raises(ValueError, match=r"n_test is a count of groups in \[1, 5\] of 6, got 6"):
        cpcv.splits(6, 6)


def test_a_trade_trains_only_if_its_life_and_the_embargo_leave_the_held_out_group_alone():
    offsets = np.array([0, 10, 20, 30])
    #                 before, ends on eve, ends in, spans, begins in, begins right after, after the embargo
    entry = np.array([0, 5, 5, 5, 15, 20, 22])
    leave = np.array([4, 9, 10, 25, 18, 24, 28])
    trains = cpcv.may_train(entry, leave, offsets, np.array([1]), embargo=2)
    assert trains.tolist() == [True, True, False, False, False, False, True]
    assert cpcv.may_train(entry, leave, offsets, np.array([1]), embargo=0).tolist() == [
        True, True, False, False, False, True, True]
