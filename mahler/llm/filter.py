"""A filter of trades as a classifier of profit: what it kept, what it rejected, and whether chance does as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.llm import memory
from mahler.llm.memory import Area
from mahler.llm.shifts import family, iid_variance, weights
from mahler.llm.trades import Trades, decided
from mahler.schema import Table
from mahler.validation.bootstrap import Interval, optimal_block_length, percentile_interval, resamples
from mahler.validation.scores import wilson
from scipy.special import ndtr

WORST = 0.05
"""Share of the trades that the worst are."""


@dataclass(frozen=True)
class Gap:
    """Kept less rejected, in the mean of some value, with a block-bootstrap interval and two one-sided p-values.

    `p_value` is of the circular shifts, `optimistic` of an iid permutation, which takes overlapping trades for
    independent ones. `inflation` is the ratio of the two variances. NaN where nothing was kept, or nothing rejected.
    """

    interval: Interval
    p_value: float
    optimistic: float
    inflation: float
    shifts: int


@dataclass(frozen=True)
class Filter:
    """What a filter did on the trades that it decided; money is dollars, per contract where it says so."""

    n: int                       # decided, and closed by a rule
    approval_rate: float
    win_rate: tuple[float, float]            # of the kept and of the rejected
    mean_pnl: tuple[float, float]            # the same, dollars per contract
    wins: Gap                    # of win rates
    pnl: Gap                     # of mean dollars per contract
    area: Area                   # of p_profit, or of the decision where the arm gives none
    worst_rejected: tuple[float, float, float]     # share of the worst 5 % rejected, Wilson's interval (iid)
    winners_cost: float          # dollars that the rejected winners made
    losers_saved: float          # dollars that the rejected losers lost


def measure(trades: Trades, decisions: Table, *, rng: np.random.Generator, replications: int, level: float) -> Filter:
    """Judge the decisions of one arm; trades without a decision, or that no rule closed, are left out."""
    among = decided(trades, decisions)
    t, kept = trades[among], decisions["approve"][among]
    score = np.where(np.isnan(decisions["p_profit"]), np.nan, decisions["p_profit"])[among]
    score = kept.astype(float) if np.isnan(score).all() else score
    rejected = ~kept
    worst = np.argsort(t.pnl, kind="stable")[:int(np.ceil(WORST * len(t.pnl)))]
    caught = int(rejected[worst].sum())
    dollars = t.dollars[rejected]
    return Filter(
        len(kept), _mean(kept), (_mean(t.won[kept]), _mean(t.won[rejected])),
        (_mean(t.pnl[kept]), _mean(t.pnl[rejected])),
        gap(t, kept, t.won, rng=rng, replications=replications, level=level),
        gap(t, kept, t.pnl, rng=rng, replications=replications, level=level),
        memory.area(t, score, np.ones(len(kept), bool), level),
        (caught / len(worst) if len(worst) else np.nan, *wilson(caught, len(worst), level)),
        float(dollars[dollars > 0].sum()), float(-dollars[dollars < 0].sum()))


def gap(trades: Trades, kept: np.ndarray, values: np.ndarray, *, rng: np.random.Generator, replications: int,
        level: float) -> Gap:
    """Kept less rejected in the mean of `values` (n,), tested and with its interval."""
    row = weights(kept, np.ones(len(kept), bool))
    if np.isnan(row).any() or len(row) < 2:
        return Gap(Interval(np.nan, np.nan, np.nan, level), np.nan, np.nan, np.nan, 0)
    test = family(row[None], values, trades.overlap)
    value = float(row @ values)
    spread = np.sqrt(iid_variance(row[None], values)[0])
    length = block_length(trades, kept, values)
    draws = np.concatenate([memory.gap(kept[at], values[at])
                            for at in resamples(len(kept), length, replications, rng)])
    return Gap(percentile_interval(value, draws[~np.isnan(draws)], level), float(test.p[0]),
               float(ndtr(-value / spread)) if spread > 0 else np.nan, float(test.inflation[0]), test.shifts)


def block_length(trades: Trades, kept: np.ndarray, values: np.ndarray) -> float:
    """Mean block, trades: the optimal one for what each adds to the gap, and no less than they overlap on average."""
    if not len(kept):
        return 1.0
    means = np.where(kept, _mean(values[kept]), _mean(values[~kept]))
    row = weights(kept, np.ones(len(kept), bool))
    together = np.searchsorted(trades.entry, trades.exit, side="right") - 1 - np.arange(len(kept))
    added = np.nan_to_num(len(kept) * row * (values - means))
    optimal = optimal_block_length(added)
    return float(min(max(optimal, together.mean(), 1.0), max(len(kept) / 3.0, 1.0)))


def _mean(x: np.ndarray) -> float:
    return float(x.mean()) if len(x) else np.nan
