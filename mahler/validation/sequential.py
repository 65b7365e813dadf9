"""Watching a sequence that grows: what may be looked at every day without crying wolf.

A CUSUM and its run lengths, a confidence sequence for a mean that holds at every peek, and bands that a whole path
stays inside of, with one false-alarm rate for all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_BET = 0.9           # of what can be lost at once, by the confidence sequence
GRID = 501               # means that a confidence sequence examines


# ---- CUSUM -----------------------------------------------------------------------------------------------------------

def cusum(z: np.ndarray, k: float) -> np.ndarray:
    """The one-sided CUSUM of standardised values, up being bad: S_i = max(0, S_(i-1) + z_i - k) along the last axis.

    References
    ----------
    Page (1954), Continuous Inspection Schemes.
    """
    total = np.cumsum(z - k, axis=-1)
    return total - np.minimum(np.minimum.accumulate(total, axis=-1), 0.0)


def run_length(k: float, h: float, shift: float = 0.0, *, two_sided: bool = False, states: int = 400) -> float:
    """Mean number of independent standard normal values, moved up by `shift`, until a CUSUM passes h.

    The chain of Brook & Evans on `states` intervals; (k, h) = (0.5, 4) gives 335 one-sided, 168 two-sided.

    References
    ----------
    Brook & Evans (1972), An approach to the probability distribution of CUSUM run length.
    """
    if two_sided:
        return 1.0 / (1.0 / run_length(k, h, shift, states=states) + 1.0 / run_length(k, h, -shift, states=states))
    from scipy.stats import norm

    wide = 2.0 * h / (2 * states - 1)                          # the first interval is half as wide, around zero
    middle = wide * np.arange(states)
    edges = np.concatenate(([-np.inf], wide * (np.arange(states) + 0.5)))
    moves = np.diff(norm.cdf(edges[None, :] - middle[:, None] + k - shift), axis=1)      # (from, to)
    return float(np.linalg.solve(np.eye(states) - moves, np.ones(states))[0])


# ---- a mean, at every peek -------------------------------------------------------------------------------------------

def log_capital(x: np.ndarray, mean: np.ndarray | float, alpha: float) -> np.ndarray:
    """Log of what a bettor against `mean` owns after each value of x (..., n), each in [0, 1]: the same shape.

    It starts at 0, and where every value has the conditional mean `mean`, it is ever above log(1 / alpha) with a
    probability of at most alpha. `mean` broadcasts against x.
    """
    n = x.shape[-1]
    t = np.arange(1, n + 1)
    guess = (0.5 + np.cumsum(x, axis=-1)) / (t + 1)
    seen = (0.25 + np.cumsum((x - guess) ** 2, axis=-1)) / (t + 1)
    before = np.concatenate((np.full((*x.shape[:-1], 1), 0.25), seen[..., :-1]), axis=-1)
    bet = np.sqrt(2.0 * np.log(2.0 / alpha) / (before * t * np.log1p(t)))
    with np.errstate(divide="ignore"):
        up, down = np.minimum(bet, MOST_BET / mean), np.minimum(bet, MOST_BET / (1.0 - mean))
    ends = [np.cumsum(np.log1p(sign * stake * (x - mean)), axis=-1) for sign, stake in ((1.0, up), (-1.0, down))]
    return np.maximum(*ends) + np.log(0.5)                     # half of the capital on each side


def confidence_sequence(x: np.ndarray, alpha: float) -> tuple[float, float]:
    """Interval for the mean of x (n,), each in [0, 1], as it stands after the last value; (0, 1) of nothing.

    The probability that any of the intervals of a growing x misses the mean is at most alpha, if each value has that
    mean given those before it: clusters that share their luck go in as one value.

    References
    ----------
    Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting: the hedged capital with
    predictable plug-in bets.
    """
    if not len(x):
        return 0.0, 1.0
    if not ((x >= 0.0) & (x <= 1.0)).all():
        raise ValueError("a confidence sequence is of values in [0, 1]")
    means = np.linspace(0.0, 1.0, GRID)
    owned = log_capital(np.broadcast_to(x, (GRID, len(x))), means[:, None], alpha)[:, -1]
    kept = np.flatnonzero(owned < np.log(1.0 / alpha))
    step = 1.0 / (GRID - 1)                                    # the ends lie between two means of the grid
    return float(max(means[kept[0]] - step, 0.0)), float(min(means[kept[-1]] + step, 1.0))


# ---- paths, and bands for the whole of them --------------------------------------------------------------------------

POINTWISE = 0.95         # of the paths lie within a Spread at each step


def stretches(n: int, length: int, block_length: float, replications: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of stretches of `length` observations, in blocks out of n that go round: int64 (replications, length).

    Blocks are of random, geometric lengths with the mean `block_length`; see bootstrap.resamples for as many as n.
    """
    step = np.arange(length)
    begins = rng.random((replications, length)) < 1.0 / block_length
    begins[:, 0] = True
    since = np.maximum.accumulate(np.where(begins, step, 0), axis=1)             # step at which the block began
    first = rng.integers(0, n, (replications, length))
    return (np.take_along_axis(first, since, axis=1) + step - since) % n


def running_means(values: np.ndarray) -> np.ndarray:
    """The mean of the first 1, 2, ... values of each row of (b, n); NaN where a row, padded by NaN, has ended."""
    return np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)


@dataclass(frozen=True)
class Spread:
    """Where paths lie at each step, (n,) each: their mean, and how far below and above it 95 % of them lie.

    Two distances and not one deviation, because what a seller of options makes is skewed.
    """

    centre: np.ndarray
    below: np.ndarray
    above: np.ndarray


def spread(paths: np.ndarray, centre: float | None = None) -> Spread:
    """The Spread of paths (b, n), around their mean at each step or one `centre`; NaN marks where one has ended."""
    centre = np.nanmean(paths, axis=0) if centre is None else np.full(paths.shape[1], centre)
    low, high = np.nanquantile(paths, [0.5 - POINTWISE / 2, 0.5 + POINTWISE / 2], axis=0)
    return Spread(centre, np.maximum(centre - low, 0.0), np.maximum(high - centre, 0.0))


def extremes(paths: np.ndarray, around: Spread, first: int) -> np.ndarray:
    """How far each path of (b, n) ever is below and above the centre from step `first` on: (b, 2), in units of `around`.

    0 for a path that has ended before; a step at which the paths do not differ is no step.
    """
    away = (paths - around.centre)[:, first - 1:]
    worst = []
    for sign, unit in ((-1.0, around.below[first - 1:]), (1.0, around.above[first - 1:])):
        z = np.divide(sign * away, unit, out=np.zeros_like(away), where=unit > 0)
        worst.append(np.where(np.isnan(z), 0.0, z).max(axis=1, initial=0.0))
    return np.stack(worst, axis=1)


def multipliers(worst: np.ndarray, rate: float) -> np.ndarray:
    """What is exceeded by the share `rate` of the rows of each column of (b, m): (m,).

    With the two columns of `extremes` and half of the rate each, a simultaneous cone: 2.8 deviations for 42 steps of
    a random walk at 5 %, where a band for each step alone has 1.96 and is left by three paths in ten.
    """
    return np.quantile(worst, 1.0 - rate, axis=0)


def shared_rate(worst: np.ndarray, rate: float) -> float:
    """The rate at which each column of (b, m) is to be exceeded, so that any of them is in the share `rate` of rows.

    The single-step minimum p-value: columns that move together cost less than Bonferroni's rate / m.

    References
    ----------
    Westfall & Young (1993), Resampling-Based Multiple Testing.
    """
    b, m = worst.shape
    order = np.sort(worst, axis=0)
    p = np.stack([(b - np.searchsorted(order[:, j], worst[:, j], side="left")) / b for j in range(m)], axis=1)
    return float(max(np.quantile(p.min(axis=1), rate), 1.0 / b))
