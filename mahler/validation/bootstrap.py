"""Stationary-bootstrap intervals of what an account did, and of paired differences.

Days of an options book are not independent: positions live for weeks, so blocks of days are resampled, of random
lengths that are geometric around a mean. Percentile intervals, and never the nested studentised ones, which cost two
minutes and differ in the second decimal of a Sharpe ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 250_000
"""Resampled observations that are held at a time: 2 MB an array, whatever the number of replications."""

ROUNDING = 1e-9
"""A standard deviation below so much of the mean may be that of a constant, whose sum was rounded."""


@dataclass(frozen=True)
class Interval:
    """A value with its equal-tailed interval."""

    value: float
    low: float
    high: float
    level: float


def optimal_block_length(returns: np.ndarray) -> float:
    """Mean block length of the stationary bootstrap of a series (n,), observations, at least 1.

    1 for a series that never moves.

    References
    ----------
    Politis & White (2004), with the correction of Patton, Politis & White (2009); arch.
    """
    from arch.bootstrap import optimal_block_length as optimal

    if returns.min() == returns.max():
        return 1.0
    return max(float(optimal(returns)["stationary"].iloc[0]), 1.0)


def resamples(n: int, block_length: float, replications: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of `replications` stationary-bootstrap samples of n observations, in pieces: int64 (b, n) each.

    References
    ----------
    Politis & Romano (1994), The Stationary Bootstrap; arch.
    """
    from arch.bootstrap import StationaryBootstrap

    source = StationaryBootstrap(block_length, np.empty(n), seed=rng)
    size = max(CHUNK // n, 1)
    for done in range(0, replications, size):
        yield np.stack([source.update_indices() for _ in range(min(size, replications - done))])


def account_intervals(returns: np.ndarray, *, rng: np.random.Generator, replications: int, level: float,
                      periods: float, block_length: float | None = None) -> dict[str, Interval]:
    """Intervals of `cagr`, `sharpe` (annualised) and `max_drawdown` (a positive fraction) of one account.

    Parameters
    ----------
    returns : ndarray (n,)
        Simple returns of consecutive sessions, above -1.
    level : float
        Coverage of the equal-tailed percentile interval, as 0.95.
    periods : float
        Sessions of a year.
    block_length : float, optional
        Mean block, sessions; the optimal one where it is not given.

    Raises
    ------
    ValueError
        Below two observations, or for a return of -1 or worse, after which there is no account.
    """
    if len(returns) < 2 or not (returns > -1.0).all():
        raise ValueError("intervals need two or more returns, each above -1")
    length = optimal_block_length(returns) if block_length is None else block_length
    logs = np.log1p(returns)
    draws = [_statistics(returns[at], logs[at], periods) for at in resamples(len(returns), length, replications, rng)]
    observed = _statistics(returns[None, :], logs[None, :], periods)[:, 0]
    return {name: percentile_interval(float(value), sample, level) for name, value, sample in
            zip(("cagr", "sharpe", "max_drawdown"), observed, np.concatenate(draws, axis=1))}


def sharpe_difference_intervals(returns: np.ndarray, control: np.ndarray, *, rng: np.random.Generator,
                                replications: int, level: float, periods: float,
                                block_length: float | None = None) -> list[Interval]:
    """Intervals of the annualised Sharpe ratio of each account less that of the control, on the same resampled days.

    `returns` (n, n_configs) and `control` (n,) are of the same sessions. The block is by default the longest of the
    optimal ones of the daily differences. A config that is the control has the interval 0 to 0; a sample in which an
    account never moves counts its Sharpe ratio as 0.
    """
    if block_length is None:
        block_length = max(optimal_block_length(column - control) for column in returns.T)
    draws, columns = [], np.ascontiguousarray(returns.T)      # equal series have equal sums only if they lie alike
    for at in resamples(len(control), block_length, replications, rng):
        base = sharpes(control[at], periods)
        draws.append(np.stack([sharpes(column[at], periods) - base for column in columns]))
    observed = sharpes(columns, periods) - sharpes(np.ascontiguousarray(control)[None, :], periods)
    return [percentile_interval(float(value), sample, level)
            for value, sample in zip(observed, np.concatenate(draws, axis=1))]


def percentile_interval(value: float, draws: np.ndarray, level: float) -> Interval:
    """`value` with the equal-tailed percentiles of its draws (n,)."""
    low, high = np.quantile(draws, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(value, float(low), float(high), level)


def sharpes(returns: np.ndarray, periods: float) -> np.ndarray:
    """Annualised Sharpe ratio of each row of (b, n); 0 for a row that never moves."""
    mean, deviation = returns.mean(axis=1), returns.std(axis=1, ddof=1)
    moves = deviation > ROUNDING * np.abs(mean)
    for row in np.flatnonzero(~moves):        # what little there is may be all of rounding
        moves[row] = returns[row].min() < returns[row].max()
    return np.divide(mean, deviation, out=np.zeros(len(returns)), where=moves) * np.sqrt(periods)


def _statistics(returns: np.ndarray, logs: np.ndarray, periods: float) -> np.ndarray:
    """CAGR, Sharpe ratio and maximum drawdown of each row of (b, n), and of log1p of it, which is lost: (3, b)."""
    wealth = np.cumsum(logs, axis=1, out=logs)               # log of equity over the initial one
    growth = np.expm1(wealth[:, -1] * (periods / returns.shape[1]))
    peak = np.maximum.accumulate(wealth, axis=1)
    np.subtract(wealth, np.maximum(peak, 0.0, out=peak), out=wealth)
    return np.stack([growth, sharpes(returns, periods), -np.expm1(wealth.min(axis=1))])
