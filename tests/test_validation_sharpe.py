"""Sharpe ratios after many trials: the reference values, skfolio as an oracle, and what must hold whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pytest import approx
from skfolio import measures as oracle

from mahler import metrics
from mahler.validation import sharpe

YEARS_19, YEARS_5 = 4_750, 1_260        # sessions, at 250 and 252 of them a year


def ar1(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """An autoregressive series of unit innovations."""
    x = rng.standard_normal(n + 100)
    for i in range(1, len(x)):
        x[i] += rho * x[i - 1]
    return x[100:]


# ---- the reference table ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "value"), [(10, 1.57459830134575), (45, 2.2356401777664), (100, 2.5306028932016846)])
def test_the_approximate_expected_maximum_is_the_published_one(n, value):
    assert sharpe.expected_max_approximation(n) == approx(value, rel=1e-9)


@pytest.mark.parametrize(("n", "value"), [(2, 0.5642), (5, 1.1630), (6, 1.2672), (10, 1.5388), (45, 2.2077),
                                          (100, 2.5076)])
def test_the_exact_expected_maximum_is_the_mean_of_the_largest_order_statistic(n, value):
    assert sharpe.expected_max_exact(n) == approx(value, abs=5e-5)


def test_the_expected_maximum_of_two_is_one_over_the_root_of_pi():
    assert sharpe.expected_max_exact(2) == approx(1 / np.sqrt(np.pi), rel=1e-12)


def test_the_expected_maximum_is_exact_below_fifty_trials_and_nothing_for_one():
    assert sharpe.expected_max_sharpe(1) == sharpe.expected_max_approximation(1) == approx(0.0, abs=1e-12)
    assert sharpe.expected_max_sharpe(49) == sharpe.expected_max_exact(49)
    assert sharpe.expected_max_sharpe(50) == sharpe.expected_max_approximation(50)
    with pytest.raises(ValueError, match="n_trials is a count of 1 or more, got 0"):
        sharpe.expected_max_sharpe(0)


def test_the_deflated_sharpe_ratio_of_the_papers_example():
    per_day, variance = 2.5 / np.sqrt(250), 0.5 / 250
    assert sharpe.deflated_benchmark(100, variance) == approx(0.11317200186513214, rel=1e-9)
    assert sharpe.deflated_sharpe(per_day, 100, variance, 1250, -3.0, 10.0) == approx(0.9003968344493903, rel=1e-9)


def test_the_probabilistic_sharpe_ratio_is_that_of_2012():
    monthly = 1.585 / np.sqrt(12)
    assert sharpe.probabilistic_sharpe(monthly, 0.0, 24, -2.448, 10.164) == approx(0.9132343068848602, rel=1e-9)
    assert sharpe.probabilistic_sharpe(monthly, 0.0, 24, 0.0, 3.0) == approx(0.9815912360834967, rel=1e-9)


@pytest.mark.parametrize(("periods", "years"), [(250, 2.731187801728176), (52, 2.828833586945237),
                                                (12, 3.239800696444647)])
def test_the_minimum_track_record_of_two_against_one(periods, years):
    n = sharpe.min_track_record(2 / np.sqrt(periods), 1 / np.sqrt(periods), 0.0, 3.0)
    assert n / periods == approx(years, rel=1e-9)


@pytest.mark.parametrize(("n", "years"), [(7, 1.9231), (10, 2.4794), (100, 6.4040)])
def test_the_minimum_backtest_length_of_a_sharpe_ratio_of_one(n, years):
    assert sharpe.min_backtest_length(1.0, n) == approx(years, abs=5e-5)


@pytest.mark.parametrize(("rho", "value"), [(0.2, 2.8788), (-0.2, 4.1708)])
def test_los_annualisation_of_an_autoregressive_series(rho, value):
    assert sharpe.annualisation(12, rho ** np.arange(1, 12)) == approx(value, abs=5e-5)


def test_annualisation_without_autocorrelation_is_the_root_of_the_periods():
    assert sharpe.annualisation(252, np.zeros(5)) == approx(np.sqrt(252))


@pytest.mark.parametrize(("correlation", "difference"), [(0.99, 0.08), (0.95, 0.18), (0.90, 0.26), (0.80, 0.36),
                                                         (0.50, 0.57)])
def test_the_difference_that_nineteen_years_can_tell_apart(correlation, difference):
    daily = 1.0 / np.sqrt(252)
    found = sharpe.detectable_difference(daily, daily, correlation, YEARS_19, periods=252)
    assert found == approx(difference, abs=0.005)
    five = sharpe.detectable_difference(daily, daily, correlation, YEARS_5, periods=252)
    assert five / found == approx(1.94, abs=0.005)


def test_the_jobson_korkie_memmel_variance():
    variance = (2 - 2 * 0.9 + (0.1 ** 2 + 0.05 ** 2 - 2 * 0.1 * 0.05 * 0.9 ** 2) / 2) / 500
    assert sharpe.difference_variance(0.1, 0.05, 0.9, 500) == approx(variance, rel=1e-12)


def test_the_variance_across_trials_is_per_session_and_leaves_out_those_that_never_traded():
    assert sharpe.trial_variance(np.array([0.0, np.nan, 1.0, 2.0]), periods=250) == approx(1 / 250)
    assert np.isnan(sharpe.trial_variance(np.array([1.0, np.nan]), periods=250))


# ---- skfolio as an oracle --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(5))
def test_probabilistic_and_deflated_sharpe_ratios_equal_skfolios(seed):
    rng = np.random.default_rng(seed)
    returns = 0.0005 + 0.01 * rng.standard_t(4, 800)
    trials = rng.normal(0.0, 0.03, 60)
    one = sharpe.sample(returns)
    assert one.sharpe == approx(oracle.mean(returns) / oracle.standard_deviation(returns), rel=1e-12)
    assert sharpe.probabilistic_sharpe(one.sharpe, 0.01, one.n, one.skew, one.kurtosis) == approx(
        oracle.probabilistic_sharpe_ratio(returns, 0.01), rel=1e-9)
    assert sharpe.deflated_sharpe(one.sharpe, 60, trials.var(ddof=1), one.n, one.skew, one.kurtosis) == approx(
        oracle.deflated_sharpe_ratio(returns, trials), rel=1e-9)
    assert sharpe.expected_max_approximation(60) == approx(oracle.expected_max_sharpe_ratio(60, 1.0), rel=1e-12)


# ---- what must hold --------------------------------------------------------------------------------------------------

def test_a_sample_is_the_metrics_sharpe_ratio_per_session():
    returns = np.random.default_rng(0).normal(1e-3, 1e-2, 300)
    assert sharpe.sample(returns, 0.03).sharpe * np.sqrt(252) == approx(metrics.sharpe(returns, 0.03), rel=1e-12)


def test_a_flat_account_has_no_sharpe_ratio():
    with pytest.raises(ValueError, match="needs returns that differ"):
        sharpe.sample(np.full(100, 1e-4))
    with pytest.raises(ValueError, match="never moves"):
        sharpe.sharpe_difference(np.arange(9.0), np.zeros(9), periods=1)


def test_moments_that_no_distribution_has_are_refused():
    with pytest.raises(ValueError, match="no distribution has skew"):
        sharpe.sharpe_variance(1.0, 5.0, 3.0)


@given(st.floats(0.0, 0.2), st.integers(1, 49), st.integers(100, 5000))
@settings(max_examples=50, deadline=None)
def test_more_trials_never_raise_the_deflated_sharpe_ratio(per_day, n_trials, n):
    variance = 0.02 ** 2
    fewer = sharpe.deflated_sharpe(per_day, n_trials, variance, n, -1.0, 6.0)
    assert sharpe.deflated_sharpe(per_day, n_trials + 1, variance, n, -1.0, 6.0) <= fewer
    assert fewer <= sharpe.probabilistic_sharpe(per_day, 0.0, n, -1.0, 6.0) + 1e-12


def test_a_track_record_that_is_not_above_its_benchmark_is_never_long_enough():
    assert sharpe.min_track_record(0.05, 0.05, 0.0, 3.0) == np.inf


def test_the_minimum_track_record_is_where_the_probability_reaches_its_confidence():
    n = sharpe.min_track_record(0.1, 0.02, -0.5, 5.0, confidence=0.9)
    assert sharpe.probabilistic_sharpe(0.1, 0.02, n, -0.5, 5.0) == approx(0.9, rel=1e-9)


def test_a_difference_past_deflation_passes_it_and_a_smaller_one_does_not():
    day, n, configs = np.sqrt(252), 3392, 6
    for annual, trials in ((-0.7, 6), (0.0, 6), (0.5, 45), (-0.7, 12)):
        found = sharpe.difference_past_deflation(annual / day, trials, (0.07 / day) ** 2, configs, n, -1.0, 10.0)
        assert 0 < found < np.inf

        def passes(x):
            """The DSR, at a Sharpe ratio as unlucky as one study in five, of a config that is x above the other five."""
            moved = np.sqrt((0.07 / day) ** 2 + x ** 2 / configs)
            error = np.sqrt(sharpe.sharpe_variance(2.486 / np.sqrt(n), -1.0, 10.0) / (n - 1))
            luckless = annual / day + x - 0.841621 * error
            return luckless - moved * sharpe.expected_max_sharpe(trials) >= 1.644854 * error

        assert passes(found * 1.0001) and not passes(found * 0.9999)


def test_no_difference_passes_deflation_where_being_better_raises_the_bar_by_more():
    day = np.sqrt(252)
    assert sharpe.difference_past_deflation(-0.7 / day, 250, (0.07 / day) ** 2, 6, 3392, -1.0, 10.0) == np.inf
    assert sharpe.difference_past_deflation(2.0 / day, 250, (0.07 / day) ** 2, 6, 3392, -1.0, 10.0) == 0.0


# ---- paired differences ----------------------------------------------------------------------------------------------

def test_equal_series_differ_by_nothing_for_certain():
    returns = np.random.default_rng(0).normal(0, 0.01, 500)
    assert sharpe.sharpe_difference(returns, returns.copy(), periods=252).p_value == 1.0
    doubled = sharpe.sharpe_difference(2.0 * returns, returns, periods=252)      # leverage is not skill
    assert (doubled.difference, doubled.low, doubled.high, doubled.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert sharpe.detectable_by(returns, returns.copy(), periods=252) == 0.0


def test_on_independent_normal_days_the_robust_error_is_jobson_korkie_memmels():
    rng = np.random.default_rng(1)
    control = rng.normal(5e-4, 5e-3, 20_000)
    returns = control + rng.normal(0, 2e-3, 20_000)
    found = sharpe.sharpe_difference(returns, control, periods=252)
    a, b = sharpe.sample(returns), sharpe.sample(control)
    plain = np.sqrt(252 * sharpe.difference_variance(a.sharpe, b.sharpe, np.corrcoef(returns, control)[0, 1], 20_000))
    assert found.standard_error == approx(plain, rel=0.02)
    assert found.difference == approx((a.sharpe - b.sharpe) * np.sqrt(252), rel=1e-9)
    assert found.high - found.low == approx(2 * 1.959964 * found.standard_error, rel=1e-6)
    assert sharpe.detectable_by(returns, control, periods=252) == approx((1.644854 + 0.841621) * plain, rel=1e-6)


def test_the_influence_is_the_derivative_of_the_sharpe_ratio():
    returns, step = np.random.default_rng(2).normal(1e-3, 1e-2, 50), 1e-6
    influence = sharpe._influence(returns)

    def ratio(weights):
        mean = weights @ returns
        return mean / np.sqrt(weights @ returns ** 2 - mean ** 2)

    equal = np.full(50, 1 / 50)
    for i in (0, 17, 49):      # a little more weight on day i moves the ratio by that day's influence
        tilted = (1 - step) * equal + step * (np.arange(50) == i)
        assert (ratio(tilted) - ratio(equal)) / step == approx(influence[i], rel=1e-3)


def test_the_long_run_variance_of_an_autoregressive_series_is_known():
    rng = np.random.default_rng(3)
    for rho in (-0.4, 0.0, 0.5, 0.8):
        found = np.mean([sharpe.long_run_variance(ar1(rng, 3000, rho)) for _ in range(20)])
        assert found == approx(1 / (1 - rho) ** 2, rel=0.1)


def test_under_the_null_with_autocorrelated_days_the_test_rejects_about_as_often_as_it_says():
    rng, rejected = np.random.default_rng(4), 0
    for _ in range(400):
        common = ar1(rng, 600, 0.4)
        pair = [1e-4 + 5e-3 * (common + 0.4 * ar1(rng, 600, 0.4)) for _ in range(2)]
        rejected += sharpe.sharpe_difference(*pair, periods=252).p_value < 0.05
    assert 8 <= rejected <= 36          # 20 expected; 5 % and 0.1 % binomial, and a little for the estimate
