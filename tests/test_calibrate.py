"""The studies that `make calibrate` judges are what they are said to be, and the rule tells the two apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pytest import approx

from mahler.schema import SESSIONS_PER_YEAR
from mahler.validation.verdict import BETTER, NO_EVIDENCE
from tests import calibrate
from tests.calibrate import CONFIGS, CONTROL, EQUITY, EXPOSURES, PLANTED, Daily, Truth

METHOD = calibrate.method_of(100, 19)
NULL = Truth(sharpe=1.0, planted=0.0, correlation=0.9, exposed=False, seed=1)


def annual_sharpes(truth: Truth, n: int) -> np.ndarray:
    returns = calibrate.daily_returns(truth, n)
    return returns.mean(axis=0) / returns.std(axis=0) * np.sqrt(SESSIONS_PER_YEAR)


def test_returns_have_the_sharpe_ratios_and_the_correlation_that_they_are_said_to_have():
    truth = replace(NULL, planted=0.5)
    sharpes = annual_sharpes(truth, 1_000_000)                  # a standard error of 0.016
    assert sharpes == approx(np.where(np.arange(CONFIGS) == PLANTED, 1.5, 1.0), abs=0.06)
    assert np.corrcoef(calibrate.daily_returns(truth, 200_000).T)[0, 1] == approx(0.9, abs=0.01)


def test_returns_are_skew_fat_tailed_and_clustered():
    returns = calibrate.daily_returns(NULL, 200_000)[:, CONTROL]
    unit = (returns - returns.mean()) / returns.std()
    assert (unit ** 3).mean() < -0.5 and (unit ** 4).mean() > 6.0
    assert np.corrcoef(np.abs(unit[1:]), np.abs(unit[:-1]))[0, 1] > 0.1


def test_configs_that_differ_in_exposure_differ_in_nothing_else():
    assert calibrate.daily_returns(replace(NULL, exposed=True)) == approx(calibrate.daily_returns(NULL) * EXPOSURES)


@pytest.mark.parametrize("window", [(0, 250), (1_000, 1_253)])
def test_the_trades_of_a_walk_add_up_to_its_account_and_end_in_it(window):
    walk = Daily(calibrate.daily_returns(NULL), np.ones(CONFIGS))(PLANTED)(*window)
    assert walk.pnl.sum() == approx(walk.equity[-1] - EQUITY)
    assert walk.entry_day[0] == window[0] and walk.exit_day[-1] == window[1] - 1
    assert (walk.entry_day[1:] == walk.exit_day[:-1] + 1).all()


def test_a_large_difference_is_found_and_equal_configs_are_not_told_apart():
    planted = calibrate.examine(METHOD, replace(NULL, planted=1.5))
    null = calibrate.examine(METHOD, NULL)
    assert (planted.verdict, null.verdict) == (BETTER, NO_EVIDENCE)
    assert planted.chosen == 1.0 and planted.alone


def test_the_report_says_when_the_rule_is_not_honest():
    null, better = calibrate.examine(METHOD, NULL), calibrate.examine(METHOD, replace(NULL, planted=1.5))
    cells = [*calibrate.nulls(20), *calibrate.plants(2)]

    def outcomes(false_positives: int) -> dict:
        return {cell: [replace(better if cell.multiple or k < false_positives else null, truth=truth)
                       for k, truth in enumerate(cell.truths(METHOD, 0))] for cell in cells}

    honest, dishonest = outcomes(0), outcomes(2)
    assert "No row has more." in calibrate.report(honest, [null] * 3, METHOD, "a command")
    assert "not honest" in calibrate.report(dishonest, [null] * 3, METHOD, "a command")
