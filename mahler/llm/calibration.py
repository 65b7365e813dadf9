"""Whether p_profit can be taken at its word: scores against what costs nothing, and reliability without bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.schema import Table
from mahler.validation.bootstrap import resamples
from mahler.validation.scores import Decomposition, brier, corp, log_loss

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Scores of p_profit on n trades; a skill is 1 - Brier / Brier of the reference, NaN where that is perfect.

    The base rate is that of the same trades, which nobody knew before: a hard reference. The market's probability is
    1 - |delta| of the short leg, that it expires out of the money: not quite the same question, and free. `ece` is
    never read alone: `perfect_ece` is what a perfectly calibrated forecaster with these probabilities gets from so
    few trades on average, `perfect_ece_high` in one case of twenty.
    """

    n: int
    base_rate: float
    brier: Decomposition
    skill: float                 # against the base rate
    market_brier: float
    market_skill: float          # against the market's probability
    log_loss: float              # probabilities clipped to [0.001, 0.999]
    ece: float
    perfect_ece: float
    perfect_ece_high: float


def measure(won: np.ndarray, p_profit: np.ndarray, market: np.ndarray, *, rng: np.random.Generator,
            replications: int) -> Calibration | None:
    """Score probabilities (n,) of outcomes (n,); trades without a p_profit are left out. None where none has one.

    The market is compared on those trades that have a delta.
    """
    keep = ~np.isnan(p_profit)
    won, p, market = won[keep], p_profit[keep], market[keep]
    if not len(won):
        return None
    parts = corp(won, p)
    quoted = ~np.isnan(market)
    theirs = brier(won[quoted], market[quoted]) if quoted.any() else np.nan
    ours = brier(won[quoted], p[quoted]) if quoted.any() else np.nan
    perfect = perfect_eces(p, rng=rng, replications=replications)
    return Calibration(len(won), float(won.mean()), parts, _skill(parts.score, parts.uncertainty), theirs,
                       _skill(ours, theirs), log_loss(won, p), ece(won, p), float(perfect.mean()),
                       float(np.quantile(perfect, 0.95)))


def _skill(ours: float, theirs: float) -> float:
    return 1.0 - ours / theirs if theirs > 0 else np.nan


def ece(won: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error: |mean outcome - mean probability| over ten equal bins, weighted by their trades."""
    return float(_eces(won[None], p)[0])


def perfect_eces(p: np.ndarray, *, rng: np.random.Generator, replications: int) -> np.ndarray:
    """The ECE of outcomes that really have the probabilities p (n,), drawn so often: (replications,)."""
    return _eces(rng.random((replications, len(p))) < p, p)


def _eces(won: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The ECE of each row of outcomes (b, n)."""
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    in_bin = (at[:, None] == np.arange(BINS)).astype(float)               # (n, bins)
    return np.abs((won - p) @ in_bin).sum(axis=1) / len(p)


def reliability(won: np.ndarray, p_profit: np.ndarray, *, rng: np.random.Generator, replications: int, level: float,
                block_length: float) -> Table:
    """The recalibrated probability at each distinct p_profit, with a block-bootstrap band: columns (k,).

    Isotonic regression of outcome on probability, the CORP reliability curve; `low` and `high` are pointwise, from
    resampled blocks of trades, so that overlap widens them.

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), Stable reliability diagrams for probabilistic classifiers.
    """
    from sklearn.isotonic import IsotonicRegression

    keep = ~np.isnan(p_profit)
    won, p = won[keep], p_profit[keep]
    at, n = np.unique(p, return_counts=True)
    if len(at) == 0:
        return {name: np.empty(0) for name in ("p_profit", "trades", "recalibrated", "low", "high")}

    def curve(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(at)

    draws = np.stack([curve(won[row], p[row]) for piece in resamples(len(p), block_length, replications, rng)
                      for row in piece])
    low, high = np.quantile(draws, [0.5 - level / 2.0, 0.5 + level / 2.0], axis=0)
    return {"p_profit": at, "trades": n, "recalibrated": curve(won, p), "low": low, "high": high}
