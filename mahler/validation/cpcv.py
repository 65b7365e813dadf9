"""Combinatorial purged cross-validation: which blocks of time are tested together, and which trades may train.

The sessions are cut into groups; each way of holding out some of them is a split, and the held-out groups of all
splits can be put together into several whole out-of-sample paths instead of walk-forward's one.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np


def n_splits(n_groups: int, n_test: int) -> int:
    """Ways of holding out `n_test` of `n_groups` groups: C(N, k)."""
    _check(n_groups, n_test)
    return comb(n_groups, n_test)


def n_paths(n_groups: int, n_test: int) -> int:
    """Whole out-of-sample paths that the splits make: k / N C(N, k), the times that each group is held out."""
    _check(n_groups, n_test)
    return comb(n_groups - 1, n_test - 1)


def splits(n_groups: int, n_test: int) -> np.ndarray:
    """The groups held out in each split, ascending, in lexicographic order: int (n_splits, n_test).

    References
    ----------
    Lopez de Prado (2018), Advances in Financial Machine Learning, chapter 12.
    """
    _check(n_groups, n_test)
    return np.array(list(combinations(range(n_groups), n_test)))


def paths(n_groups: int, n_test: int) -> np.ndarray:
    """The split that tests each group on each path: int (n_paths, n_groups).

    Path p takes, for each group, the p-th split that holds it out; every (split, group) is on exactly one path.
    """
    held_out = splits(n_groups, n_test)
    return np.stack([np.flatnonzero((held_out == group).any(axis=1)) for group in range(n_groups)], axis=1)


def groups(n_days: int, n_groups: int) -> np.ndarray:
    """Offsets (n_groups + 1,) of consecutive groups of sessions, whose lengths differ by one at most."""
    if n_days < n_groups:
        raise ValueError(f"{n_groups} groups need as many sessions, got {n_days}")
    return np.arange(n_groups + 1) * n_days // n_groups


def may_train(entry_day: np.ndarray, exit_day: np.ndarray, offsets: np.ndarray, held_out: np.ndarray,
              *, embargo: int) -> np.ndarray:
    """Which trades may train in a split, purged by event time: bool (n_trades,).

    A trade is out if any session of its life, entry and exit included, lies in a group that is held out, or if it
    was entered within `embargo` sessions after one.

    Parameters
    ----------
    entry_day, exit_day : ndarray (n_trades,)
        Sessions, as indices, first and last of each trade's life.
    offsets : ndarray (n_groups + 1,)
        Of `groups`.
    held_out : ndarray (n_test,)
        A row of `splits`.
    """
    allowed = np.ones(len(entry_day), bool)
    for group in held_out:
        allowed &= ~overlaps(entry_day, exit_day, offsets[group], offsets[group + 1], embargo=embargo)
    return allowed


def overlaps(entry_day: np.ndarray, exit_day: np.ndarray, first: int, last: int, *, embargo: int) -> np.ndarray:
    """Whether a trade's life touches the sessions [first, last), or begins less than `embargo` after: (n_trades,)."""
    return (exit_day >= first) & (entry_day < last + embargo)


def _check(n_groups: int, n_test: int) -> None:
    if not 1 <= n_test < n_groups:
        raise ValueError(f"n_test is a count of groups in [1, {n_groups - 1}] of {n_groups}, got {n_test}")
