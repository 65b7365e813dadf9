"""The regime by a Gaussian mixture that is refitted every month on all days before that month."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from mahler import cache
from mahler.panel import Panel
from mahler.schema import Bound, Regime, Table

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

N_COMPONENTS = 4
N_LOW_VOL = 2                           # clusters, by mean realised volatility, that are low-vol
FEATURES = ("realized_vol", "momentum", "trend", "atm_iv", "iv_rv_spread")
REALIZED_VOL, TREND = FEATURES.index("realized_vol"), FEATURES.index("trend")
MAX_ITER = 1000                         # EM steps; a fit takes 5 to 50
_FITTED = ("weights", "means", "covariances", "precisions", "precisions_cholesky", "lower_bound")   # of a GaussianMixture


def gmm(panel: Panel, *, seed: Annotated[int, Bound("a seed", 0, 2**31 - 1)],
        n_init: Annotated[int, Bound("starts of the first fit", 1, 100)],
        min_days: Annotated[int, Bound("complete days before the first label", 252)]) -> np.ndarray:
    """Label each day by the cluster that it belongs to in a 4-component full-covariance Gaussian mixture.

    At the first session of each calendar month, each ticker's mixture is fitted on the standardised FEATURES of
    all complete days before it, and labels the days of that month. A day is complete where no feature is NaN;
    other days have no label. The two clusters of lowest mean realised volatility are low-vol; a cluster whose
    mean trend is > 0 is bull.

    The first fit takes the best of n_init starts. Each later one takes the better, in likelihood, of a start
    from the month before and a new one. On 19 years of SPY and of IWM (closes, with the VIX for their IV) that
    fits better than five new starts a month, in a quarter of the time; starts from the month before alone fit
    worse than either.

    Returns
    -------
    int8 (n_days, n_tickers) of schema.Regime.
    """
    import sklearn.mixture  # noqa: F401  a second to import, and loaded before the thread pools are limited
    from threadpoolctl import threadpool_limits

    labels = np.full(panel.close.shape, Regime.NONE, dtype=np.int8)
    # Matrices of 5 columns gain nothing from threads, and sums in one order are the same on every machine's count.
    with threadpool_limits(limits=1):
        for i in range(len(panel.tickers)):
            features = np.column_stack([getattr(panel, name)[:, i] for name in FEATURES])   # (n_days, 5)
            labels[:, i] = _labels(features, panel.dates, seed, n_init, min_days)
    return labels


@dataclass(frozen=True)
class _Model:
    """A mixture in standardised units, and the mean and scale of the days that it was fitted on (5,)."""

    mean: np.ndarray
    scale: np.ndarray
    mixture: GaussianMixture


def _labels(features: np.ndarray, dates: np.ndarray, seed: int, n_init: int, min_days: int) -> np.ndarray:
    """Labels (n_days,) of one ticker's features (n_days, 5)."""
    labels = np.full(len(dates), Regime.NONE, dtype=np.int8)
    complete = np.isfinite(features).all(axis=1)
    month = dates.astype("datetime64[M]")
    starts = np.append(np.flatnonzero(month[1:] != month[:-1]) + 1, len(dates))
    spans = list(zip(starts[:-1].tolist(), starts[1:].tolist()))
    first, model, n_fits = _recalled(features, dates, spans, labels, (seed, n_init, min_days))
    fitted = first if model else None
    for k, (start, end) in enumerate(spans[first:], first):
        known = features[:start][complete[:start]]      # strictly before the days that are labelled
        if len(known) < min_days:
            continue
        if k != fitted:
            model = _fit(known, model, seed + n_fits, n_init)
            n_fits += 1
        days = start + np.flatnonzero(complete[start:end])
        if len(days):
            clusters = model.mixture.predict((features[days] - model.mean) / model.scale)
            labels[days] = _regime_of_clusters(model)[clusters]
    if model and len(spans) - 1 != fitted:
        cache.remember(_key(features, dates, spans[-1][0], (seed, n_init, min_days)),
                       _to_arrays(model) | {"labels": labels[:spans[-1][0]], "n_fits": np.array(n_fits)})
    return labels


# ---- where the month before left off -----------------------------------------------------------------------------------

RECALLED = 3        # months back at which a fit is looked for


def _recalled(features: np.ndarray, dates: np.ndarray, spans: list[tuple[int, int]], labels: np.ndarray,
              numbers: tuple[int, ...]) -> tuple[int, _Model | None, int]:
    """The last month that was fitted before on just these days, its model and the fits so far; fills in `labels`."""
    for k in range(len(spans) - 1, max(len(spans) - 1 - RECALLED, -1), -1):
        arrays = cache.recall(_key(features, dates, spans[k][0], numbers))
        if arrays is not None:
            labels[:spans[k][0]] = arrays["labels"]
            return k, _from_arrays(arrays), int(arrays["n_fits"])
    return 0, None, 0


def _key(features: np.ndarray, dates: np.ndarray, start: int, numbers: tuple[int, ...]) -> str:
    """What a fit at session `start` depends on: the days before it, to the bit, the numbers and the code."""
    digest = hashlib.sha256(np.ascontiguousarray(features[:start]).tobytes())
    digest.update(np.ascontiguousarray(dates[:start + 1].astype("datetime64[D]").astype(np.int64)).tobytes())
    return cache.fingerprint("gmm", cache.code_version(), numbers, digest.hexdigest())


def _to_arrays(model: _Model) -> Table:
    return {"mean": model.mean, "scale": model.scale} | {
        name: np.array(getattr(model.mixture, f"{name}_")) for name in _FITTED}


def _from_arrays(arrays: Table) -> _Model:
    """The model that `_to_arrays` took apart."""
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(N_COMPONENTS, covariance_type="full", max_iter=MAX_ITER)
    for name in _FITTED:
        setattr(mixture, f"{name}_", np.array(arrays[name])[()])
    mixture.n_features_in_ = len(FEATURES)
    return _Model(np.array(arrays["mean"]), np.array(arrays["scale"]), mixture)


# ---- a fit -------------------------------------------------------------------------------------------------------------

def _fit(known: np.ndarray, previous: _Model | None, seed: int, n_init: int) -> _Model:
    """Fit a mixture on the days `known` (n, 5)."""
    from sklearn.mixture import GaussianMixture

    mean, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)             # a feature that never moved tells clusters nothing
    standard = (known - mean) / scale
    # iv_rv_spread is atm_iv - realized_vol, so the covariance is singular in one direction; reg_covar gives all
    # components the same variance in it, which cancels between them.
    fresh = GaussianMixture(N_COMPONENTS, covariance_type="full", max_iter=MAX_ITER, random_state=seed,
                            n_init=1 if previous else n_init).fit(standard)
    if previous is None:
        return _Model(mean, scale, fresh)
    warm = GaussianMixture(N_COMPONENTS, covariance_type="full", max_iter=MAX_ITER, random_state=seed,
                           **_start_from(previous, mean, scale)).fit(standard)
    return _Model(mean, scale, warm if warm.lower_bound_ >= fresh.lower_bound_ else fresh)


def _start_from(previous: _Model, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    """The mixture `previous` in units of another mean and scale (5,), as the start of a fit."""
    old, ratio = previous.mixture, scale / previous.scale
    return {"weights_init": old.weights_,
            "means_init": (old.means_ * previous.scale + previous.mean - mean) / scale,
            "precisions_init": old.precisions_ * np.outer(ratio, ratio)}


def _regime_of_clusters(model: _Model) -> np.ndarray:
    """Regime of each cluster, int8 (4,)."""
    centre = model.mixture.means_ * model.scale + model.mean
    low = np.zeros(N_COMPONENTS, dtype=bool)
    low[np.argsort(centre[:, REALIZED_VOL], kind="stable")[:N_LOW_VOL]] = True
    bull = centre[:, TREND] > 0
    return np.where(bull, np.where(low, Regime.BULL_LOW_VOL, Regime.BULL_HIGH_VOL),
                    np.where(low, Regime.BEAR_LOW_VOL, Regime.BEAR_HIGH_VOL)).astype(np.int8)
