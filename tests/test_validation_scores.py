"""Scores of forecasts and paired tests: reference values, statsmodels and scikit-learn as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx
from scipy import stats
from sklearn import metrics as oracle
from statsmodels.stats import contingency_tables, multitest, proportion

from mahler.validation import scores

Y = np.array([1, 1, 0, 1, 0, 1, 1, 0])
A = np.array([.9, .8, .7, .6, .55, .75, .95, .65])
B = np.array([.6, .9, .8, .5, .4, .7, .65, .7])

# Aneurysmal subarachnoid haemorrhage, 113 patients: S100-beta in hundredths of ug/l by WFNS grade 1 to 5, of those with
# a good and with a poor outcome. Turck et al. (2010), Intensive Care Medicine 36; the example of R's pROC.
GOOD = """4 4 4 4 5 5 6 6 7 7 7 7 8 8 8 8 9 9 9 9 10 10 10 10 11 11 13 13 14 14 14 15 16 18 19 48 50
4 7 8 8 9 9 10 10 10 11 11 13 14 15 15 15 16 17 19 43
5 7 33
16 17 28 32 34 38 45 47
24 46 47 50"""
POOR = """7 8
7 7 9 9 10 10 11 14 25 30 41 58
13
13 16 23 26 27 48 71 96
3 12 22 32 33 35 44 44 49 52 56 70 71 74 77 82 86 207"""


def patients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome (1 poor), WFNS grade and S100-beta."""
    rows = [(outcome, grade, float(x)) for outcome, text in ((0, GOOD), (1, POOR))
            for grade, line in enumerate(text.splitlines(), 1) for x in line.split()]
    return tuple(np.array(column, float) for column in zip(*rows))


def test_delong_on_the_patients_of_proc():
    outcome, wfns, s100b = patients()
    assert len(outcome) == 113
    found = scores.delong(outcome, wfns, s100b)
    assert found.auc_a == approx(0.823678861788618, rel=1e-9)
    assert found.z == approx(2.20898359144091, rel=1e-9)
    assert found.p_value == approx(0.0271757822291882, rel=1e-9)
    assert scores.delong(outcome, s100b, wfns).z == approx(-found.z, rel=1e-9)


def test_delong_on_eight_cases():
    found = scores.delong(Y, A, B)
    assert (found.auc_a, found.auc_b) == (approx(0.866667, abs=5e-7), approx(0.5))
    assert found.z == approx(1.5254255396193805, rel=1e-9)


def test_an_area_under_the_curve_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    y, a, b = rng.integers(0, 2, 200), rng.integers(0, 9, 200), rng.normal(size=200)
    found = scores.delong(y, a, b)
    assert (found.auc_a, found.auc_b) == (approx(oracle.roc_auc_score(y, a)), approx(oracle.roc_auc_score(y, b)))


def test_delong_of_two_scores_that_order_alike_finds_nothing():
    assert scores.delong(Y, A, 10 * A - 3).p_value == 1.0
    with pytest.raises(ValueError, match="two cases of each outcome, got 3 of 1 and 1 of 0"):
        scores.delong([1, 1, 1, 0], [.1, .2, .3, .4], [.1, .2, .4, .3])


def test_the_scores_of_the_reference_table():
    assert scores.brier(Y, A) == approx(0.18625, rel=1e-9)
    assert scores.log_loss(Y, A) == approx(0.5288259603, rel=1e-9)
    parts = scores.corp(Y, A)
    assert (parts.miscalibration, parts.discrimination, parts.uncertainty) == (
        approx(0.1029167, abs=5e-8), approx(0.1510417, abs=5e-8), approx(0.234375, rel=1e-9))
    assert parts.score == approx(parts.miscalibration - parts.discrimination + parts.uncertainty, rel=1e-12)


def test_one_certain_mistake_costs_the_clip_and_no_more():
    assert scores.log_loss([1, 0], [0.0, 0.0]) == approx((-np.log(1e-3) - np.log(1 - 1e-3)) / 2)
    assert scores.log_loss(Y, A, clip=0.0) == approx(oracle.log_loss(Y, A))


def test_a_calibrated_forecast_is_not_miscalibrated_and_the_base_rate_has_no_skill():
    reliable = scores.corp([0, 0, 0, 1, 0, 1, 1, 1], [.25] * 4 + [.75] * 4)
    assert reliable.miscalibration == approx(0.0, abs=1e-12) and reliable.discrimination > 0
    assert scores.corp(Y, np.full(8, Y.mean())).discrimination == approx(0.0, abs=1e-12)


def test_mcnemar_of_the_reference_table():
    assert scores.mcnemar(121, 59, continuity=False).statistic == approx(21.3556, abs=5e-5)
    assert scores.mcnemar(121, 59, continuity=True).statistic == approx(20.6722, abs=5e-5)


@pytest.mark.parametrize(("b", "c"), [(121, 59), (7, 2), (3, 3), (0, 5)])
def test_mcnemar_is_statsmodels(b, c):
    table = [[10, b], [c, 10]]
    for continuity in (False, True):
        theirs = contingency_tables.mcnemar(table, exact=False, correction=continuity and b != c)
        assert scores.mcnemar(b, c, continuity=continuity).p_value == approx(theirs.pvalue, rel=1e-9)
    assert scores.mcnemar_exact(b, c) == approx(contingency_tables.mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_classifiers_that_never_differ_are_not_told_apart():
    assert scores.mcnemar(0, 0, continuity=True) == scores.McNemar(0.0, 1.0)
    assert scores.mcnemar_exact(0, 0) == 1.0


def test_holm_of_the_reference_table_and_of_statsmodels():
    assert scores.holm([.01, .04, .03]) == approx([.03, .06, .06])
    p = np.random.default_rng(0).uniform(0, 0.2, 30)
    assert scores.holm(p) == approx(multitest.multipletests(p, method="holm")[1])


def test_wilson_of_the_reference_table_and_of_statsmodels():
    assert scores.wilson(70, 100) == (approx(0.6042, abs=5e-5), approx(0.7811, abs=5e-5))
    for k, n in ((0, 5), (5, 5), (3, 40)):
        assert scores.wilson(k, n, 0.9) == approx(proportion.proportion_confint(k, n, 0.1, method="wilson"), abs=1e-12)
    assert scores.wilson(0, 0) == (0.0, 1.0)


def test_bad_forecasts_are_refused():
    with pytest.raises(ValueError, match=r"probabilities lie in \[0, 1\], got 0.2 to 1.5"):
        scores.brier([0, 1], [0.2, 1.5])
    with pytest.raises(ValueError, match="no forecast is missing"):
        scores.log_loss([0, 1], [0.2, np.nan])
    with pytest.raises(ValueError, match="outcomes are 0 or 1"):
        scores.corp([0, 2], [0.2, 0.4])
    with pytest.raises(ValueError, match="one length"):
        scores.brier([0, 1], [0.2])


def test_midranks_are_scipys():
    x = np.random.default_rng(1).integers(0, 5, 50).astype(float)
    assert scores._midranks(x) == approx(stats.rankdata(x))
