"""What so many trades could show, before anything is asked or paid.

A verdict of "no evidence" means something only where evidence could have been seen. Overlap costs trades: n trades
whose outcomes and decisions come in runs are worth n / inflation of independent ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from mahler.llm import trades as judged
from mahler.validation.sharpe import POWER, SIZE

AUROC = 0.59
"""The skill that is asked for: what a useful forecast of a spread's outcome is thought to have."""


@dataclass(frozen=True)
class Power:
    """What n trades can show at one-sided 5 %: `gap` (of win rates) with 80 % power, and AUROC 0.59 with `power`."""

    n: int
    win_rate: float
    rejection: float             # share of trades rejected
    inflation: float             # variance over that of independent trades
    gap: float
    power: float


def before(records: Sequence[Mapping[str, Any]], *, rejection: float, tests: int) -> Power:
    """The power of a filter that rejects a share `rejection` of these trades, before it is asked.

    The decisions are taken to come in runs as long as the outcomes do, and the level of one test to be shared by
    `tests` of them (Bonferroni): tests of much the same filter share less, and have more power.
    """
    trades, _ = judged.in_order(records)
    trades = trades[trades.closed]
    return of(len(trades.won), float(trades.won.mean()) if len(trades.won) else np.nan, rejection,
              inflation(trades.won, trades.overlap), float(ndtri(1.0 - SIZE / tests)))


def of(n: int, win_rate: float, rejection: float, inflation: float, critical: float = ndtri(1.0 - SIZE)) -> Power:
    """The power at so many trades; `critical` is the standard score that a gap has to exceed."""
    return Power(n, win_rate, rejection, inflation, detectable_gap(n, win_rate, rejection, inflation, critical),
                 auroc_power(n, AUROC, win_rate, rejection, inflation, critical))


def inflation(won: np.ndarray, overlap: int) -> float:
    """1 + 2 sum_k (1 - k/n) rho_k^2 over the lags within the longest overlap; at least 1.

    The variance of a gap of two groups' means over that of independent trades, where the grouping has the outcomes'
    own autocorrelation rho. 1 where the outcomes never vary.
    """
    n = len(won)
    d = won - won.mean() if n else won
    if n < 3 or not (d != 0.0).any():
        return 1.0
    lags = np.arange(1, min(overlap, n - 2) + 1)
    rho = np.array([d[k:] @ d[:-k] for k in lags]) / (d @ d)
    return float(max(1.0 + 2.0 * ((1.0 - lags / n) @ rho ** 2), 1.0))


def standard_error(n: int, win_rate: float, rejection: float, inflation: float) -> float:
    """Of the gap between the win rates of kept and rejected; NaN where either is empty, or only one outcome occurs."""
    if not (0.0 < win_rate < 1.0 and 0.0 < rejection < 1.0 and n > 0):
        return np.nan
    return float(np.sqrt(inflation * win_rate * (1.0 - win_rate) / (n * rejection * (1.0 - rejection))))


def detectable_gap(n: int, win_rate: float, rejection: float, inflation: float,
                   critical: float = ndtri(1.0 - SIZE), power: float = POWER) -> float:
    """The smallest gap between win rates that is found with that power."""
    return (critical + float(ndtri(power))) * standard_error(n, win_rate, rejection, inflation)


def auroc_power(n: int, auroc: float, win_rate: float, rejection: float, inflation: float,
                critical: float = ndtri(1.0 - SIZE)) -> float:
    """The probability of finding a filter that rejects the lowest share of a score with that AUROC (binormal)."""
    error = standard_error(n, win_rate, rejection, inflation)
    return float(ndtr(gap_of(auroc, win_rate, rejection) / error - critical)) if error == error else np.nan


def gap_of(auroc: float, win_rate: float, rejection: float) -> float:
    """Win rate of the kept less that of the rejected, the lowest share of a score of equal variances."""
    apart = np.sqrt(2.0) * ndtri(auroc)

    def below(cut: float) -> float:
        return win_rate * ndtr(cut - apart) + (1.0 - win_rate) * ndtr(cut)

    cut = brentq(lambda x: below(x) - rejection, -12.0, 12.0 + apart)
    lost = win_rate * ndtr(cut - apart)
    return float((win_rate - lost) / (1.0 - rejection) - lost / rejection)
