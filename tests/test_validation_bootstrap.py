"""Stationary-bootstrap intervals: the reference block lengths, blocks that are blocks, coverage, speed by design."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from mahler import metrics
from mahler.core import resampling
from mahler.validation import bootstrap
from tests.test_validation_sharpe import ar1


def intervals(returns: np.ndarray, seed: int, **options) -> dict[str, bootstrap.Interval]:
    options = {"replications": 500, "level": 0.9, "periods": 252} | options
    return bootstrap.account_intervals(returns, rng=np.random.default_rng(seed), **options)


def test_the_optimal_block_lengths_of_the_reference_series():
    e = np.random.RandomState(0).standard_normal(10_100)
    for i in range(1, len(e)):
        e[i] += 0.3 * e[i - 1]
    assert bootstrap.optimal_block_length(e[100:]) == approx(13.635665, rel=1e-7)
    # arch's own pair: the circular bootstrap's optimum is the stationary one's times the cube root of 3/2.
    assert bootstrap.optimal_block_length(e[100:]) * 1.5 ** (1 / 3) == approx(15.60894, rel=1e-6)


def test_a_series_that_never_moves_has_blocks_of_one():
    assert bootstrap.optimal_block_length(np.zeros(100)) == 1.0


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_a_few_days_have_blocks_of_one_and_intervals(n):
    returns = np.random.default_rng(0).normal(0.0, 0.01, n)
    assert bootstrap.optimal_block_length(returns) == 1.0
    found = intervals(returns, 0)
    assert all(x.low <= x.high for x in found.values()) and found["cagr"].value == approx(np.prod(1 + returns) ** (252 / n) - 1)
    one, = bootstrap.sharpe_difference_intervals(2.0 * returns[:, None], returns, rng=np.random.default_rng(0),
                                                 replications=50, level=0.9, periods=252)
    assert one.value == approx(0.0, abs=1e-9)


def test_a_column_of_a_table_has_the_intervals_of_its_copy():
    table = np.random.default_rng(0).normal(5e-4, 8e-3, (200, 3))
    assert intervals(table[:, 1], 1) == intervals(table[:, 1].copy(), 1)


def test_resampled_days_come_in_blocks_of_the_mean_length_and_wrap_around():
    [at] = bootstrap.resamples(2000, 20.0, 50, np.random.default_rng(0))
    assert at.shape == (50, 2000)
    follows = (at[:, 1:] == (at[:, :-1] + 1) % 2000).mean()
    assert follows == approx(1 - 1 / 20, abs=0.01)
    assert np.bincount(at.ravel(), minlength=2000).min() > 0


def test_pieces_are_small_and_add_up():
    pieces = list(bootstrap.resamples(80_000, 5.0, 7, np.random.default_rng(0)))
    assert [len(piece) for piece in pieces] == [3, 3, 1]


def test_statistics_of_samples_are_those_of_numpy_on_the_copies():
    rng = np.random.default_rng(3)
    series, at = rng.normal(3e-4, 6e-3, (4, 300)), rng.integers(0, 300, (50, 300))
    series[1], series[2, 7] = 0.1 * 3, np.nan                       # one never moves, one was ruined
    copies = series[:, at]                                         # (4, 50, 300)
    expected = copies.mean(axis=2) / copies.std(axis=2, ddof=1)
    lacks = np.isnan(copies).any(axis=2)
    expected[1] = 0.0
    assert 10 < lacks.sum() < 50 and np.isnan(expected[lacks]).all()
    assert resampling.ratios(series, at) == approx(expected, rel=1e-10, nan_ok=True)
    sums = np.cumsum(copies[0], axis=1)
    peaks = np.maximum(np.maximum.accumulate(sums, axis=1), 0.0)
    last, lowest = resampling.wealth(series[0], at)
    assert last == approx(sums[:, -1], rel=1e-10) and lowest == approx((sums - peaks).min(axis=1), rel=1e-10)


def test_the_values_are_those_of_the_metrics():
    returns = np.random.default_rng(0).normal(5e-4, 8e-3, 700)
    equity, found = np.cumprod(1 + returns), intervals(returns, 1, replications=20)
    assert found["cagr"].value == approx(metrics.cagr(equity, 1.0), rel=1e-9)
    assert found["sharpe"].value == approx(metrics.sharpe(returns, 0.0), rel=1e-9)
    assert found["max_drawdown"].value == approx(-metrics.drawdowns(equity, 1.0).min(), rel=1e-9)


def test_a_drawdown_begins_at_the_initial_equity():
    assert intervals(np.array([-0.10, -0.10]), 0)["max_drawdown"].value == approx(0.19)


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    returns = np.random.default_rng(0).normal(5e-4, 8e-3, 300)
    assert intervals(returns, 1) == intervals(returns, 1) != intervals(returns, 2)


def test_more_money_at_the_same_returns_changes_nothing_but_leverage_moves_all_but_sharpe():
    returns = np.random.default_rng(0).normal(5e-4, 4e-3, 500)
    one, two = intervals(returns, 1, block_length=5.0), intervals(2 * returns, 1, block_length=5.0)
    assert two["sharpe"].low == approx(one["sharpe"].low) and two["sharpe"].high == approx(one["sharpe"].high)
    assert two["max_drawdown"].low > 1.5 * one["max_drawdown"].low


def test_intervals_of_an_autocorrelated_account_cover_where_single_days_would_not():
    rng, covered, naive = np.random.default_rng(5), 0, 0
    true = 1e-3 / (5e-3 / np.sqrt(1 - 0.5 ** 2)) * np.sqrt(252)
    for seed in range(120):
        returns = 1e-3 + 5e-3 * ar1(rng, 600, 0.5)
        for length, counts in ((None, "block"), (1.0, "day")):
            found = intervals(returns, seed, replications=200, block_length=length)["sharpe"]
            hit = found.low <= true <= found.high
            covered, naive = covered + (hit and counts == "block"), naive + (hit and counts == "day")
    assert covered >= 94 and naive <= 88 and covered > naive + 10          # of 120, at 90 %


def test_the_difference_from_oneself_is_nothing_and_pairing_narrows():
    rng = np.random.default_rng(0)
    control = rng.normal(5e-4, 5e-3, 1000)
    near, far = control + rng.normal(0, 5e-4, 1000), rng.normal(5e-4, 5e-3, 1000)
    same, close, apart = bootstrap.sharpe_difference_intervals(
        np.stack([control, near, far], axis=1), control, rng=np.random.default_rng(1), replications=400, level=0.95,
        periods=252)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert close.value == approx(metrics.sharpe(near, 0.0) - metrics.sharpe(control, 0.0), rel=1e-9)
    assert close.high - close.low < 0.2 * (apart.high - apart.low)
    assert close.low <= close.value <= close.high


def test_beside_a_ruined_account_another_has_the_interval_that_it_has_alone():
    rng = np.random.default_rng(0)
    control, other = rng.normal(5e-4, 5e-3, 500), rng.normal(5e-4, 5e-3, 500)
    ruined = np.where(np.arange(500) > 300, np.nan, other)
    options = {"replications": 200, "level": 0.95, "periods": 252}
    alone, = bootstrap.sharpe_difference_intervals(other[:, None], control, rng=np.random.default_rng(1), **options)
    lost, beside = bootstrap.sharpe_difference_intervals(np.stack([ruined, other], axis=1), control,
                                                         rng=np.random.default_rng(1), **options)
    assert beside == alone and np.isnan([lost.value, lost.low, lost.high]).all()


def test_a_ruined_account_has_no_intervals():
    with pytest.raises(ValueError, match="each above -1"):
        intervals(np.array([0.1, -1.0, 0.2]), 0)


def test_an_account_that_never_moves_has_the_interval_of_nothing():
    found = intervals(np.zeros(50), 0)
    assert all((x.value, x.low, x.high) == (0.0, 0.0, 0.0) for x in found.values())
    assert "-0.0" not in str(found["max_drawdown"])                # a drawdown of nothing is not below nothing
