"""What a model may know because it has read how it went on, and not because it judges.

A model that has read 2020 rejects the spreads of February 2020. So trades before the cutoff are an upper bound and
never count; the same question is asked without its labels (`blind`) or with moved ones (`shifted`); and a context
that is nothing but the date must tell it nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mahler.llm.shifts import family
from mahler.llm.trades import Trades
from mahler.schema import Table
from mahler.validation.bootstrap import Interval, percentile_interval, resamples
from mahler.validation.scores import DeLong, delong, mcnemar_exact

UPPER_BOUND = "contaminated: upper bound"
"""What stands beside every number of trades that a model may remember."""

GRACE = np.timedelta64(3, "M")
"""After the stated cutoff, because vendors' dates conflict and training goes on after them."""


def clean(entry: np.ndarray, cutoff: np.datetime64 | None, *, remembers: bool) -> np.ndarray:
    """Which trades were entered after anything that the arm can have read, bool (n,).

    An arm that does not remember (a regression, a coin) knows none of them. Of a model without a stated cutoff no
    trade is clean.
    """
    if not remembers:
        return np.ones(len(entry), bool)
    if cutoff is None:
        return np.zeros(len(entry), bool)
    return entry > after(cutoff)


def after(cutoff: np.datetime64) -> np.datetime64:
    """The last day that may be known: the cutoff plus GRACE, on the same day of the month or the month's last."""
    day = np.datetime64(cutoff, "D")
    month = day.astype("datetime64[M]")
    last = (month + GRACE + 1).astype("datetime64[D]") - 1
    return min((month + GRACE).astype("datetime64[D]") + (day - month.astype("datetime64[D]")), last)


@dataclass(frozen=True)
class Area:
    """An AUROC with its interval by DeLong (descriptive: iid), and its one-sided p-value by circular shifts."""

    auroc: float
    low: float
    high: float
    p_value: float


def area(trades: Trades, score: np.ndarray, among: np.ndarray, level: float) -> Area:
    """How well a score (n,) of profit orders the outcomes; NaN with fewer than two of either, or nothing to order."""
    keep = among & ~np.isnan(score)
    won, score = trades.won[keep], score[keep]
    if min(won.sum(), (1.0 - won).sum()) < 2:
        return Area(np.nan, np.nan, np.nan, np.nan)
    found: DeLong = delong(won, score, np.zeros(len(won)))
    z = float(ndtri(0.5 + level / 2.0))
    ranks = np.argsort(np.argsort(score, kind="stable"), kind="stable").astype(float)
    _, tied = np.unique(score, return_inverse=True)
    ranks = (np.bincount(tied, ranks) / np.bincount(tied))[tied]
    test = family((ranks - ranks.mean())[None], won, trades[keep].overlap)
    return Area(found.auc_a, max(found.auc_a - z * found.standard_error, 0.0),
                min(found.auc_a + z * found.standard_error, 1.0), float(test.p[0]))


@dataclass(frozen=True)
class Paired:
    """One context less another on the trades that both decided: win-rate gaps, agreement, McNemar's exact p."""

    gap: float
    other_gap: float
    difference: Interval
    agreement: float
    mcnemar: float


def paired(trades: Trades, approve: np.ndarray, other: np.ndarray, among: np.ndarray, *, rng: np.random.Generator,
           replications: int, level: float, block_length: float) -> Paired:
    """How much of a filter's gap hangs on what the other context leaves out; the interval is of a block bootstrap."""
    a, b, won = approve[among], other[among], trades.won[among]
    nan = Interval(np.nan, np.nan, np.nan, level)
    if len(won) < 2:
        return Paired(np.nan, np.nan, nan, np.nan, np.nan)
    gaps = gap(a[None], won[None]), gap(b[None], won[None])
    draws = np.concatenate([gap(a[at], won[at]) - gap(b[at], won[at])
                            for at in resamples(len(won), block_length, replications, rng)])
    value, known = float(gaps[0][0] - gaps[1][0]), draws[~np.isnan(draws)]
    interval = percentile_interval(value, known, level) if len(known) and value == value else nan
    right, right_too = a == (won == 1.0), b == (won == 1.0)
    return Paired(float(gaps[0][0]), float(gaps[1][0]), interval, float((a == b).mean()),
                  mcnemar_exact(int((right & ~right_too).sum()), int((~right & right_too).sum())))


def gap(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the kept less that of the rejected, by row of (b, n): (b,); NaN where a side is empty."""
    n_kept = kept.sum(axis=1)
    n_rejected = kept.shape[1] - n_kept
    both = (n_kept > 0) & (n_rejected > 0)
    total, of_kept = values.sum(axis=1), np.where(kept, values, 0.0).sum(axis=1)
    means = (np.divide(x, n, out=np.full(len(kept), np.nan), where=both)
             for x, n in ((of_kept, n_kept), (total - of_kept, n_rejected)))
    return np.subtract(*means)


def by_quarter(trades: Trades, p_profit: np.ndarray, among: np.ndarray) -> Table:
    """What a forecast knew of each quarter: trades, win rate, mean p_profit, and its skill over the base rate.

    The skill is 1 - Brier / Brier of the whole period's win rate, which a forecaster could not know: above zero in
    a quarter that went badly means that it expected that quarter to. NaN where the base rate is never wrong.
    """
    keep = among & ~np.isnan(p_profit)
    won, p = trades.won[keep], p_profit[keep]
    month = trades.entry[keep].astype("datetime64[M]").astype(int)
    quarters, at = np.unique(month // 3, return_inverse=True)
    n = np.bincount(at, minlength=len(quarters))
    base = won.mean() if len(won) else np.nan
    ours, theirs = (np.bincount(at, (f - won) ** 2, len(quarters)) for f in (p, base))
    skill = 1.0 - np.divide(ours, theirs, out=np.full(len(n), np.nan), where=theirs > 0)
    return {"quarter": (3 * quarters).astype("datetime64[M]").astype("datetime64[D]"), "trades": n,
            "win_rate": np.bincount(at, won, len(quarters)) / np.maximum(n, 1),
            "p_profit": np.bincount(at, p, len(quarters)) / np.maximum(n, 1), "skill": skill}
