"""The circular-shift test: are these decisions better placed in time than the same ones, moved along?

Trades overlap, so outcomes come in runs, and so do the decisions of anyone who looks at the market. Shuffling breaks
both runs and calls chance skill; rotating the decisions against the outcomes keeps each exactly as it is. Every
shift beyond the longest overlap is a draw of the null, so there is nothing to sample: all of them are one FFT.

What is rotated is a row of weights, +1 / kept over the kept trades and -1 / rejected over the rejected, 0 where there
is no decision, so that weights @ outcomes is the win rate (or mean P&L) of the kept less that of the rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.validation.scores import holm
from mahler.validation.sharpe import SIZE

FEWEST = 19
"""Shifts below which no p-value can reach 0.05."""

SMALLEST_SIDE = 10
"""Trades that have to be kept, and rejected, for a test: the gap of a few is all tail, and the largest of any family."""


@dataclass(frozen=True)
class Family:
    """Many filters of the same trades, tested on the same shifts; arrays are (k,), NaN where a filter has
    no two sides, and all but the gap where one of them has fewer than SMALLEST_SIDE trades.

    `gap` is kept less rejected, `p` its one-sided p-value that it is larger than moved decisions show, `corrected`
    the same for the largest of all filters (max-statistic), `holm` the plain alternative, `harm` the corrected p of
    the opposite, `error` the standard deviation over the shifts, `inflation` its square in units of an iid
    permutation's variance. Filters that keep the same trades count once for Holm. `critical` is what the
    largest studentised gap has to exceed at the size of the test. `shifts` is 0, and everything but the gap NaN,
    where fewer than FEWEST shifts clear the longest overlap.
    """

    gap: np.ndarray
    z: np.ndarray
    p: np.ndarray
    corrected: np.ndarray
    holm: np.ndarray
    harm: np.ndarray
    error: np.ndarray
    inflation: np.ndarray
    critical: float
    shifts: int


def weights(kept: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Weights (n,) of kept less rejected, for the trades `among` which it was decided; NaN if a side is empty."""
    kept, rejected = kept & among, ~kept & among
    if not kept.any() or not rejected.any():
        return np.full(len(among), np.nan)
    return kept / kept.sum() - rejected / rejected.sum()


def rotated(weights: np.ndarray, values: np.ndarray, overlap: int) -> np.ndarray:
    """weights (k, n) @ values moved by every shift of more than `overlap` trades in either direction: (k, n_shifts)."""
    n = len(values)
    spectrum = np.conj(np.fft.rfft(weights, axis=1)) * np.fft.rfft(values)
    return np.fft.irfft(spectrum, n, axis=1)[:, overlap + 1:n - overlap]


def family(weights: np.ndarray, values: np.ndarray, overlap: int, *, size: float = SIZE) -> Family:
    """Test each row of weights (k, n) on values (n,), and all of them at once by the maximum over rows."""
    k, nan = len(weights), np.full(len(weights), np.nan)
    gap = weights @ values if len(values) else nan
    two_sided = np.minimum((weights > 0).sum(axis=1), (weights < 0).sum(axis=1)) >= SMALLEST_SIDE
    n_shifts = len(values) - 2 * overlap - 1
    if n_shifts < FEWEST or not two_sided.any():
        return Family(gap, nan, nan, nan, nan, nan, nan, nan, np.nan, 0)
    null = rotated(weights[two_sided], values, overlap)
    centre, spread = null.mean(axis=1), null.std(axis=1)
    spread = np.where(spread > 1e-12 * np.abs(values).max(initial=1.0), spread, np.inf)      # outcomes that never vary
    scores = (null - centre[:, None]) / spread[:, None]
    observed = (gap[two_sided] - centre) / spread
    columns = {
        "z": observed, "p": _tail(scores, observed), "corrected": _tail(scores.max(axis=0)[None], observed),
        "harm": _tail(-scores.min(axis=0)[None], -observed),
        "error": spread, "inflation": spread ** 2 / iid_variance(weights[two_sided], values)}
    _, first, which = np.unique(weights[two_sided], axis=0, return_index=True, return_inverse=True)
    columns["holm"] = holm(columns["p"][first])[which.ravel()]
    wide = {name: _spread_out(column, two_sided, k) for name, column in columns.items()}
    return Family(gap, critical=float(np.quantile(scores.max(axis=0), 1.0 - size)), shifts=n_shifts, **wide)


def _tail(null: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Share of each row's null, the observed included, that is as large as it; the FFT's rounding breaks no tie."""
    return (1.0 + (null >= observed[:, None] - 1e-9).sum(axis=1)) / (1.0 + null.shape[1])


def _spread_out(column: np.ndarray, where: np.ndarray, k: int) -> np.ndarray:
    wide = np.full(k, np.nan)
    wide[where] = column
    return wide


def iid_variance(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Variance of each row's weights @ values under a random permutation of the trades that it decides on: (k,)."""
    found = []
    for row in weights:
        decided = values[row != 0.0]
        found.append((row ** 2).sum() * decided.var(ddof=1) if len(decided) > 1 else np.nan)
    return np.array(found)
