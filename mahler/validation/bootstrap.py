"""Stationary-bootstrap intervals of what an account did, and of paired differences.

Days of an options book are not independent: positions live for weeks, so blocks of days are resampled, of random
lengths that are geometric around a mean. Percentile intervals, and never the nested studentised ones, which cost two
minutes and differ in the second decimal of a Sharpe ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mahler.core import resampling

CHUNK = 250_000
"""Resampled observations that are held at a time: 2 MB an array, whatever the number of replications."""

FEWEST = 11
"""Observations of which a block length can be estimated: its lags reach across all of fewer."""


@dataclass(frozen=True)
class Interval:
    """A value with its equal-tailed interval."""

    value: float
    low: float
    high: float
    level: float


def load() -> None:
    """Import arch, which takes seconds, where nobody waits for it: in a thread, while other processes have the work."""
    import arch.bootstrap  # noqa: F401


def optimal_block_length(returns: np.ndarray) -> float:
    """Mean block length of the stationary bootstrap of a series (n,), observations, at least 1.

    1 for a series that never moves, for one below FEWEST, and for one with a NaN, of which no sample is worth anything.

    References
    ----------
    Politis & White (2004), with the correction of Patton, Politis & White (2009); arch.
    """
    from arch.bootstrap import optimal_block_length as optimal

    if len(returns) < FEWEST or not returns.min() < returns.max():
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
    returns = np.ascontiguousarray(returns, float)
    length = optimal_block_length(returns) if block_length is None else block_length
    logs = np.log1p(returns)
    draws = [_statistics(returns, logs, at, periods) for at in resamples(len(returns), length, replications, rng)]
    observed = _statistics(returns, logs, np.arange(len(returns))[None, :], periods)[:, 0]
    return {name: percentile_interval(float(value), sample, level) for name, value, sample in
            zip(("cagr", "sharpe", "max_drawdown"), observed, np.concatenate(draws, axis=1))}


def sharpe_difference_intervals(returns: np.ndarray, control: np.ndarray, *, rng: np.random.Generator,
                                replications: int, level: float, periods: float,
                                block_length: float | None = None) -> list[Interval]:
    """Intervals of the annualised Sharpe ratio of each account less that of the control, on the same resampled days.

    `returns` (n, n_configs) and `control` (n,) are of the same sessions. The block is by default the longest of the
    optimal ones of the daily differences. A config that is the control has the interval 0 to 0; a sample in which an
    account never moves counts its Sharpe ratio as 0. All is NaN where an account or the control was ruined, and has
    sessions without a return.
    """
    if block_length is None:
        block_length = max(optimal_block_length(column - control) for column in returns.T)
    accounts = np.ascontiguousarray(np.vstack([control, returns.T]))
    draws = [_less_first(accounts, at, periods) for at in resamples(len(control), block_length, replications, rng)]
    observed = _less_first(accounts, np.arange(len(control))[None, :], periods)[:, 0]
    return [percentile_interval(float(value), sample, level)
            for value, sample in zip(observed, np.concatenate(draws, axis=1))]


def percentile_interval(value: float, draws: np.ndarray, level: float) -> Interval:
    """`value` with the equal-tailed percentiles of its draws (n,)."""
    low, high = np.quantile(draws, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(value, float(low), float(high), level)


def sharpes(returns: np.ndarray, periods: float) -> np.ndarray:
    """Annualised Sharpe ratio of each row of (b, n); 0 for a row that never moves, NaN for one with a NaN."""
    return resampling.ratios(np.ascontiguousarray(returns), np.arange(returns.shape[1])[None, :])[:, 0] * np.sqrt(periods)


def _less_first(accounts: np.ndarray, at: np.ndarray, periods: float) -> np.ndarray:
    """Annualised Sharpe ratios of all accounts (k, n) but the first, less the first's, on samples (b, n): (k - 1, b)."""
    found = resampling.ratios(accounts, at) * np.sqrt(periods)
    return found[1:] - found[0]


def _statistics(returns: np.ndarray, logs: np.ndarray, at: np.ndarray, periods: float) -> np.ndarray:
    """CAGR, Sharpe ratio and maximum drawdown of returns (n,), and of log1p of them, on samples (b, n): (3, b)."""
    last, lowest = resampling.wealth(logs, at)
    return np.stack([np.expm1(last * (periods / at.shape[1])), resampling.ratios(returns[None, :], at)[0] * np.sqrt(periods),
                     0.0 - np.expm1(lowest)])
