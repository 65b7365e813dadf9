"""The probability of backtest overfitting, by combinatorially symmetric cross-validation.

Cut the sessions into S blocks; of every half of the blocks choose the config with the best Sharpe ratio, and look at
how it ranks in the other half. Where choosing is worth nothing, the chosen one lands anywhere: PBO is one half.

On a handful of configs PBO says little by itself (five equal ones give anything from 0.1 to 0.9), so `null_test` says
how often equal configs, correlated as these are, give a PBO as low.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from mahler.validation.bootstrap import optimal_block_length, resamples

BLOCKS = 16
"""S: 12,870 ways of choosing half of the blocks."""

TIE = 1e-12
"""Sharpe ratios per session that differ by less are equal: two configs that did the same trades."""

CELLS = 50_000
"""Sharpe ratios (combinations x configs) that are worked on at a time: what a processor's cache holds."""


@dataclass(frozen=True)
class BlockSums:
    """All that CSCV needs of the returns: their number (S,), sums and sums of squares (S, n_configs) in each block."""

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Overfitting:
    """What CSCV found.

    `pbo` is the share of combinations in which the best in sample is below the median out of sample, those exactly
    on it counted by half; `logits` (n_combinations,) are log(w / (1 - w)) of its relative rank w = rank / (N + 1).
    `degradation` is the slope of its Sharpe ratio out of sample on that in sample, NaN where the latter never
    differs, and `probability_of_loss` the share of combinations in which it lost out of sample.
    """

    pbo: float
    logits: np.ndarray
    degradation: float
    probability_of_loss: float
    n_configs: int


def blocks(n: int, count: int = BLOCKS) -> np.ndarray:
    """Offsets (count + 1,) of consecutive blocks of n sessions, whose lengths differ by one at most."""
    if n < 2 * count:
        raise ValueError(f"{count} blocks of two sessions need {2 * count}, got {n}")
    return np.arange(count + 1) * n // count


def block_sums(returns: np.ndarray, count: int = BLOCKS) -> BlockSums:
    """The block sums of returns (n, n_configs), or of one config's (n,), whose sums are then (count,)."""
    offsets = blocks(len(returns), count)
    return BlockSums(np.diff(offsets).astype(float), np.add.reduceat(returns, offsets[:-1], axis=0),
                     np.add.reduceat(returns * returns, offsets[:-1], axis=0))


def overfitting(returns: np.ndarray, count: int = BLOCKS) -> Overfitting:
    """CSCV of the returns (n, n_configs) of configs on the same sessions.

    Raises ValueError below two configs.

    References
    ----------
    Bailey, Borwein, Lopez de Prado & Zhu (2017), The Probability of Backtest Overfitting.
    """
    return overfitting_of_blocks(block_sums(returns, count))


def overfitting_of_blocks(sums: BlockSums) -> Overfitting:
    """`overfitting`, of block sums: ten thousand configs never need their returns in memory together."""
    from threadpoolctl import threadpool_limits

    # The matrices are small: with threads of their own they are ten times slower on a busy machine.
    with threadpool_limits(limits=1):
        return _overfitting(sums)


def _overfitting(sums: BlockSums) -> Overfitting:
    n_configs = sums.sums.shape[1]
    if n_configs < 2:
        raise ValueError(f"the probability of overfitting is of a choice between two or more configs, got {n_configs}")
    half = _halves(len(sums.counts))
    step = max(CELLS // n_configs, 1)
    parts = []
    for begin in range(0, len(half), step):
        inside = half[begin:begin + step]
        first, second = _sharpes(inside, sums), _sharpes(1.0 - inside, sums)
        parts += [_chosen(first, second), _chosen(second, first)]
    in_sample, out_of_sample, rank = np.concatenate(parts, axis=1)
    middle = (n_configs + 1) / 2.0
    logits = np.log(rank / (n_configs + 1 - rank))
    with np.errstate(invalid="ignore"):               # minus infinity where every config was ruined: no slope
        spread = in_sample - in_sample.mean()
    power = spread @ spread
    slope = float(spread @ out_of_sample / power) if power > TIE else np.nan
    return Overfitting(float(np.mean(rank < middle) + 0.5 * np.mean(rank == middle)), logits, slope,
                       float(np.mean(out_of_sample < 0.0)), n_configs)


@lru_cache
def _halves(count: int) -> np.ndarray:
    """The ways of choosing half of the blocks, one of each complementary pair: float64 0 or 1 (n, count)."""
    chosen = np.array(list(combinations(range(count), count // 2)))
    chosen = chosen[:len(chosen) // 2]           # in this order the complement of the i-th is the i-th from the end
    half = np.zeros((len(chosen), count))
    np.put_along_axis(half, chosen, 1.0, axis=1)
    return half


def _sharpes(inside: np.ndarray, sums: BlockSums) -> np.ndarray:
    """Sharpe ratio per session of each config on the blocks that are inside: (n_combinations, n_configs).

    0 for an account that does not move there: it is worse than one that gains and better than one that loses.
    -inf for an account that was ruined, there or elsewhere: after that its returns are NaN.
    """
    n = (inside @ sums.counts)[:, None]
    mean = inside @ sums.sums / n
    square = inside @ sums.squares / n
    variance = square - mean * mean
    moves = variance > TIE * square
    ratio = np.divide(mean, np.sqrt(np.where(moves, variance, 1.0)), out=np.zeros_like(mean), where=moves)
    ratio[np.isnan(mean)] = -np.inf
    return ratio


def _chosen(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Of the best config on each row of `seen`: its value there, its value and its rank in `unseen`: (3, n).

    The worst has rank 1, the best N; ties share the mean of their ranks.
    """
    rows, best = np.arange(len(seen)), np.argmax(seen, axis=1)
    value = unseen[rows, best]
    below = (unseen < value[:, None] - TIE).sum(axis=1)
    above = (unseen > value[:, None] + TIE).sum(axis=1)
    return np.stack([seen[rows, best], value, (below + 1 + unseen.shape[1] - above) / 2.0])


# ---- how surprising a low PBO is -------------------------------------------------------------------------------------

def equalised(returns: np.ndarray) -> np.ndarray:
    """The returns (n, n_configs) moved so that all have the same Sharpe ratio, the mean of theirs, and variance 1.

    A Sharpe ratio does not see the scale, and correlations stay. A config that never moves stays at zero.
    """
    d = returns - returns.mean(axis=0)
    moves = returns.min(axis=0) < returns.max(axis=0)
    deviation = np.where(moves, d.std(axis=0), 1.0)
    level = (returns.mean(axis=0) / deviation)[moves].mean() if moves.any() else 0.0
    return np.where(moves, d / deviation + level, 0.0)


def null_test(returns: np.ndarray, *, rng: np.random.Generator, replications: int, count: int = BLOCKS,
              block_length: float | None = None) -> tuple[float, np.ndarray]:
    """How often equal configs give a PBO as low as these: the p-value, and the PBO of each replication.

    Sessions of `equalised` configs are resampled in blocks, all configs together, so that a replication has their
    correlations and their luck, and no difference in worth. p = (1 + #{PBO* <= PBO}) / (1 + replications).

    Parameters
    ----------
    returns : ndarray (n, n_configs)
    block_length : float, optional
        Mean block, sessions; the longest of the optimal ones of each config's difference from their mean.
    """
    from threadpoolctl import threadpool_limits

    observed = overfitting(returns, count).pbo
    null = equalised(returns)
    if block_length is None:
        middle = null.mean(axis=1)
        block_length = max(optimal_block_length(column - middle) for column in null.T)
    with threadpool_limits(limits=1):
        draws = np.array([_overfitting(block_sums(null[at], count)).pbo
                          for chunk in resamples(len(null), block_length, replications, rng) for at in chunk])
    return float((1 + np.sum(draws <= observed + TIE)) / (1 + replications)), draws
