"""Does a difference survive what should not matter: a year, five trades, a neighbouring cell, heat?

Differences are of annualised Sharpe ratios, config less control, on the same sessions; an account that never moves
has a Sharpe ratio of 0 here. One that was ruined has none, and no difference: NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mahler import metrics
from mahler.validation.bootstrap import sharpes
from mahler.validation.walkforward import Walk


def difference(returns: np.ndarray, control: np.ndarray, *, periods: float) -> float:
    """Annualised Sharpe ratio of returns (n,) less that of the control's (n,)."""
    pair = sharpes(np.stack([returns, control]), periods)
    return float(pair[0] - pair[1])


# ---- years -----------------------------------------------------------------------------------------------------------

def leave_one_year_out(dates: np.ndarray, returns: np.ndarray, control: np.ndarray, *,
                       periods: float) -> dict[int, float]:
    """The difference without each calendar year that the sessions touch; empty where there is only one.

    The smallest is the difference without the year that favours the config most: "dropping the best year".
    """
    years = dates.astype("datetime64[Y]").astype(int) + 1970
    different = np.unique(years)
    if len(different) < 2:
        return {}
    return {int(year): difference(returns[years != year], control[years != year], periods=periods)
            for year in different}


# ---- trades ----------------------------------------------------------------------------------------------------------

def without_best_trades(walks: Sequence[Walk], n: int = 5) -> np.ndarray:
    """Daily returns of an account, chained from walks, as if its n best trades had not been: (n_days,).

    Best is by P&L over the walk's initial equity, across all walks. A trade's P&L is taken out evenly over the
    sessions of its life in the walk; sizes and admissions stay as they were.
    """
    gains = [(trade_pnl / walk.initial_equity, i, k) for i, walk in enumerate(walks)
             for k, trade_pnl in enumerate(walk.pnl.tolist()) if trade_pnl > 0]
    equity = [walk.equity.copy() for walk in walks]
    for _, i, k in sorted(gains, key=lambda gain: (-gain[0], gain[1:]))[:n]:
        walk = walks[i]
        first, last = walk.entry_day[k] - walk.first_day, min(walk.exit_day[k] - walk.first_day, len(equity[i]) - 1)
        share = np.clip((np.arange(len(equity[i])) - first + 1) / (last - first + 1), 0.0, 1.0)
        equity[i] -= walk.pnl[k] * share
    return np.concatenate([metrics.simple_returns(e, walk.initial_equity) for e, walk in zip(equity, walks)])


# ---- neighbours ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Neighbours:
    """How the cells around a chosen one did: their trials, the share that beat the control, median and worst."""

    trials: tuple[int, ...]
    share_better: float
    median: float
    worst: float


def neighbours(trial: int, shape: Sequence[int], ordered: Sequence[bool]) -> tuple[int, ...]:
    """The trials one step away from `trial` along one axis of a grid of that shape, in C order.

    Only along axes whose options are in an order (a heat, a multiplier); named options have no neighbours.
    """
    cell = np.array(np.unravel_index(trial, tuple(shape)))
    around = []
    for axis, size in enumerate(shape):
        for step in (-1, 1):
            beside = cell.copy()
            beside[axis] += step
            if ordered[axis] and 0 <= beside[axis] < size:
                around.append(int(np.ravel_multi_index(tuple(beside), tuple(shape))))
    return tuple(around)


def stability(values: np.ndarray, control: int, trial: int, shape: Sequence[int],
              ordered: Sequence[bool]) -> Neighbours | None:
    """The neighbours' values (n_trials,) less the control's; None where the trial has no neighbour.

    A value that is NaN is that of an account which never moves, and counts as 0. The control is no neighbour.
    """
    around = tuple(k for k in neighbours(trial, shape, ordered) if k != control)
    if not around:
        return None
    known = np.nan_to_num(values, nan=0.0)
    gains = known[list(around)] - known[control]
    return Neighbours(around, float(np.mean(gains > 0)), float(np.median(gains)), float(gains.min()))


# ---- heat ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class HeatMatch:
    """The scale of a config's multipliers at which its mean heat is the control's, and the heat it then has."""

    scale: float
    heat: float
    reached: bool


def match_heat(heat: Callable[[float], float], target: float, *, low: float = 0.05, high: float = 20.0,
               tolerance: float = 0.01, steps: int = 40) -> HeatMatch:
    """The scale at which `heat(scale)` is `target`, by bisection on the scale's logarithm.

    Mean heat rises with the scale, but in steps, for contracts are whole, and only until a limit binds: where no
    scale in [low, high] comes within `tolerance` (a share of the target), the nearest that was met is returned and
    `reached` is False. Raises ValueError where the target is not positive: a control without a trade has no heat
    to be equal to.
    """
    if not target > 0:
        raise ValueError(f"the mean heat to match is a positive fraction of equity, got {target}")
    tried: list[tuple[float, float, float]] = []       # distance from the target, scale, heat

    def at(scale: float) -> float:
        found = heat(scale)
        tried.append((abs(found - target) / target, scale, found))
        return found

    low, high = (1.0, high) if at(1.0) < target else (low, 1.0)
    # The target lies between the heat at low and that at high, if it can be had at all.
    while min(tried)[0] > tolerance and len(tried) < steps:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if at(middle) < target else (low, middle)
    distance, scale, found = min(tried)
    return HeatMatch(scale, found, distance <= tolerance)
