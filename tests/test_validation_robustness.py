"""What a difference must survive: a year, five trades, the neighbours, the fill, equal heat."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from mahler import metrics
from mahler.validation import robustness
from mahler.validation.walkforward import Walk

DATES = np.arange(np.datetime64("2017-01-02"), np.datetime64("2020-12-31"))
DATES = DATES[np.is_busday(DATES)]
N = len(DATES)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5e-3, N)


# ---- years -----------------------------------------------------------------------------------------------------------

def test_an_edge_of_one_year_does_not_survive_without_it():
    control, returns = noise(0), noise(0)
    returns[DATES < np.datetime64("2018-01-01")] += 2e-3
    gain = robustness.leave_one_year_out(DATES, returns, control, periods=252)
    assert list(gain) == [2017, 2018, 2019, 2020]
    assert gain[2017] == min(gain.values()) == 0.0
    assert all(gain[year] > 0.5 for year in (2018, 2019, 2020))


def test_an_edge_of_every_year_survives_without_any():
    control = noise(0)
    gain = robustness.leave_one_year_out(DATES, control + 1e-3, control, periods=252)
    assert min(gain.values()) > 2


def test_one_year_cannot_be_left_out():
    assert robustness.leave_one_year_out(DATES[:100], noise(0)[:100], noise(1)[:100], periods=252) == {}


def test_a_difference_is_of_the_metrics_sharpe_ratios_and_a_flat_account_has_none():
    a, b = noise(0), noise(1)
    assert robustness.difference(a, b, periods=252) == approx(metrics.sharpe(a, 0.0) - metrics.sharpe(b, 0.0))
    assert robustness.difference(a, np.zeros(N), periods=252) == approx(metrics.sharpe(a, 0.0))


# ---- trades ----------------------------------------------------------------------------------------------------------

def walk(first: int, equity: list[float], trades: list[tuple[int, int, float]]) -> Walk:
    """An account of 1,000 dollars, with trades of (entry, exit, P&L)."""
    entry, leave, pnl = (np.array(column) for column in zip(*trades))
    n = len(equity)
    return Walk(first, 1000.0, np.array(equity), np.zeros(n), np.zeros(n), entry, leave, pnl)


def test_a_trade_is_taken_out_evenly_over_its_life():
    one = walk(10, [1000.0, 1020.0, 1040.0, 1040.0], [(11, 12, 40.0)])
    assert robustness.without_best_trades([one], 1).tolist() == approx([0.0, 0.0, 0.0, 0.0])
    assert robustness.without_best_trades([one], 0).tolist() == approx([0.0, 0.02, 20 / 1020, 0.0])


def test_the_best_trades_of_all_walks_go_and_losers_never_do():
    walks = [walk(0, [1000.0, 1050.0, 1040.0], [(1, 1, 50.0), (2, 2, -10.0)]),
             walk(3, [1030.0, 1100.0], [(3, 3, 30.0), (4, 4, 70.0)])]
    without = robustness.without_best_trades(walks, 2)                     # 70 and 50 go
    assert without.tolist() == approx([0.0, 0.0, -0.01, 0.03, 0.0])
    every = robustness.without_best_trades(walks, 9)
    assert every.tolist() == approx([0.0, 0.0, -0.01, 0.0, 0.0])           # the loss stays


def test_a_trade_that_is_still_open_at_the_end_is_taken_out_up_to_there():
    one = walk(0, [1000.0, 1010.0, 1020.0], [(1, 40, 20.0)])
    assert robustness.without_best_trades([one], 5).tolist() == approx([0.0, 0.0, 0.0])


def test_a_walk_without_a_trade_stays_as_it_is():
    none = np.zeros(0, int)
    flat = Walk(0, 1000.0, np.full(3, 1000.0), np.zeros(3), np.zeros(3), none, none, np.zeros(0))
    assert robustness.without_best_trades([flat]).tolist() == [0.0, 0.0, 0.0]


# ---- neighbours ------------------------------------------------------------------------------------------------------

def test_neighbours_are_one_step_away_on_the_axes_that_have_an_order():
    shape = (3, 4, 2)
    middle = int(np.ravel_multi_index((1, 0, 1), shape))
    around = robustness.neighbours(middle, shape, (True, True, False))
    assert sorted(tuple(map(int, np.unravel_index(k, shape))) for k in around) == [(0, 0, 1), (1, 1, 1), (2, 0, 1)]
    assert robustness.neighbours(middle, shape, (False, False, False)) == ()


def test_a_peak_among_losers_is_not_stable_and_a_plateau_is():
    peak, plateau = np.array([0.5, 0.4, 2.0, 0.3, 0.2]), np.array([0.5, 1.8, 2.0, 1.9, 0.2])
    alone = robustness.stability(peak, 0, 2, (5,), (True,))
    assert (alone.trials, alone.share_better, alone.worst) == ((1, 3), 0.0, approx(-0.2))
    shared = robustness.stability(plateau, 0, 2, (5,), (True,))
    assert (shared.share_better, shared.median) == (1.0, approx(1.35))


def test_a_neighbour_without_a_trade_counts_as_nothing_and_the_control_is_no_neighbour():
    values = np.array([0.5, 2.0, np.nan])
    assert robustness.stability(values, 0, 1, (3,), (True,)).median == approx(-0.5)
    assert robustness.stability(values[:2], 0, 1, (2,), (True,)) is None


# ---- heat ------------------------------------------------------------------------------------------------------------

def test_the_scale_of_equal_heat_is_found_up_and_down():
    for per_scale in (0.02, 0.3):
        found = robustness.match_heat(lambda scale: per_scale * scale, 0.10)
        assert found.reached and found.scale == approx(0.10 / per_scale, rel=0.02)
        assert found.heat == approx(0.10, rel=0.01)


def test_a_match_needs_no_second_walk():
    asked = []
    robustness.match_heat(lambda scale: asked.append(scale) or 0.10, 0.10)
    assert asked == [1.0]


def test_heat_that_a_limit_holds_down_is_reported_and_not_pretended():
    found = robustness.match_heat(lambda scale: min(0.05 * scale, 0.08), 0.10)
    assert not found.reached and found.heat == approx(0.08)


def test_whole_contracts_make_steps_and_the_nearest_is_taken():
    found = robustness.match_heat(lambda scale: 0.03 * np.floor(scale * 1.5), 0.10)
    assert found.heat == approx(0.09) and not found.reached


def test_a_control_without_heat_cannot_be_matched():
    with pytest.raises(ValueError, match="positive fraction of equity, got 0.0"):
        robustness.match_heat(lambda scale: scale, 0.0)
