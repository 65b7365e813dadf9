"""Scores of probability forecasts, and tests of two classifiers on the same cases.

Outcomes are 0 or 1, (n,); probabilities and scores are of outcome 1, higher is likelier, (n,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, chdtrc, ndtr, ndtri

CLIP = 1e-3
"""Probabilities are kept this far from 0 and 1 in the log loss: one certain mistake does not decide a comparison."""


# ---- forecasts -------------------------------------------------------------------------------------------------------

def brier(outcomes: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared difference of probability and outcome; 0 is perfect, 0.25 is a coin's."""
    outcomes, probabilities = _forecast(outcomes, probabilities)
    return float(np.mean((probabilities - outcomes) ** 2))


def log_loss(outcomes: np.ndarray, probabilities: np.ndarray, clip: float = CLIP) -> float:
    """Mean of -log of the probability given to what happened, nats, with probabilities in [clip, 1 - clip]."""
    outcomes, probabilities = _forecast(outcomes, probabilities)
    p = np.clip(probabilities, clip, 1.0 - clip)
    return float(-np.mean(np.where(outcomes == 1, np.log(p), np.log(1.0 - p))))


@dataclass(frozen=True)
class Decomposition:
    """A Brier score taken apart: score = miscalibration - discrimination + uncertainty."""

    score: float
    miscalibration: float     # MCB: what recalibrating would gain; 0 is reliable
    discrimination: float     # DSC: what the recalibrated forecast gains on the base rate; 0 is no skill
    uncertainty: float        # UNC: the Brier score of the base rate


def corp(outcomes: np.ndarray, probabilities: np.ndarray) -> Decomposition:
    """The CORP decomposition of the Brier score: recalibration by isotonic regression, so without any bins.

    References
    ----------
    Dimitriadis, Gneiting & Jordan (2021), Stable reliability diagrams for probabilistic classifiers.
    """
    from sklearn.isotonic import IsotonicRegression

    outcomes, probabilities = _forecast(outcomes, probabilities)
    score = brier(outcomes, probabilities)
    recalibrated = brier(outcomes, IsotonicRegression().fit_transform(probabilities, outcomes))
    uncertainty = brier(outcomes, np.full(len(outcomes), outcomes.mean()))
    return Decomposition(score, score - recalibrated, uncertainty - recalibrated, uncertainty)


# ---- two classifiers on the same cases -------------------------------------------------------------------------------

@dataclass(frozen=True)
class DeLong:
    """Areas under two correlated ROC curves, their difference's standard error, z and two-sided p-value."""

    auc_a: float
    auc_b: float
    standard_error: float
    z: float
    p_value: float


def delong(outcomes: np.ndarray, a: np.ndarray, b: np.ndarray) -> DeLong:
    """Whether score `a` separates the outcomes better than score `b` on the same cases; ties count by half.

    z is 0 and p is 1 for two scores that order the cases alike. Raises ValueError with fewer than two cases of
    either outcome.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson (1988); by midranks, Sun & Xu (2014).
    """
    outcomes, a = _pair(outcomes, a)
    outcomes, b = _pair(outcomes, b)
    positive = outcomes == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise ValueError(f"DeLong's test needs two cases of each outcome, got {m} of 1 and {n} of 0")
    of_positives, of_negatives = zip(*(_placements(x[positive], x[~positive]) for x in (a, b)))
    auc_a, auc_b = (float(v.mean()) for v in of_positives)
    covariance = np.cov(np.stack(of_positives)) / m + np.cov(np.stack(of_negatives)) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    if error < 1e-12:
        return DeLong(auc_a, auc_b, 0.0, 0.0, 1.0)
    z = (auc_a - auc_b) / error
    return DeLong(auc_a, auc_b, error, z, float(2.0 * ndtr(-abs(z))))


def _placements(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, (m,); for each negative the share of positives above, (n,)."""
    m, n = len(positives), len(negatives)
    ranks = _midranks(np.concatenate([positives, negatives]))
    return (ranks[:m] - _midranks(positives)) / n, 1.0 - (ranks[m:] - _midranks(negatives)) / m


def _midranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean: (n,)."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]


@dataclass(frozen=True)
class McNemar:
    """The statistic, chi-squared of one degree of freedom, and its p-value."""

    statistic: float
    p_value: float


def mcnemar(b: int, c: int, *, continuity: bool) -> McNemar:
    """Whether two classifiers err alike: of the cases on which one is right, b are the first's and c the second's.

    (b - c)^2 / (b + c), or (|b - c| - 1)^2 / (b + c) with the continuity correction; 0 where they never differ.
    Below 25 differing cases ask `mcnemar_exact`.
    """
    if b + c == 0:
        return McNemar(0.0, 1.0)
    gap = max(abs(b - c) - 1, 0) if continuity else abs(b - c)
    statistic = gap ** 2 / (b + c)
    return McNemar(statistic, float(chdtrc(1, statistic)))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided binomial p-value of `mcnemar`'s question; 1 where they never differ."""
    return float(min(1.0, 2.0 * bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


# ---- many tests, one share -------------------------------------------------------------------------------------------

def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given: (n,).

    References
    ----------
    Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share; (0, 1) of nothing.

    References
    ----------
    Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
    """
    if n == 0:
        return 0.0, 1.0
    share, z = successes / n, float(ndtri(0.5 + level / 2.0))
    centre = (share + z * z / (2 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def _pair(outcomes: np.ndarray, forecasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (n,). Raises ValueError unless they are as long, outcomes are 0 or 1, and nothing is missing."""
    y, p = np.asarray(outcomes, float), np.asarray(forecasts, float)
    if y.shape != p.shape or y.ndim != 1 or len(y) == 0:
        raise ValueError(f"outcomes and forecasts are two series of one length, got shapes {y.shape} and {p.shape}")
    if not np.isin(y, (0.0, 1.0)).all() or not np.isfinite(p).all():
        raise ValueError("outcomes are 0 or 1, and no forecast is missing")
    return y, p


def _forecast(outcomes: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_pair` of probabilities, which lie in [0, 1]."""
    y, p = _pair(outcomes, probabilities)
    if p.min() < 0.0 or p.max() > 1.0:
        raise ValueError(f"probabilities lie in [0, 1], got {p.min()} to {p.max()}")
    return y, p
