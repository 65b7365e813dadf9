"""The regime by a Gaussian mixture that is refitted every month on all days before that month."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from mahler import cache, workers
from mahler.panel import Panel
from mahler.schema import Bound, Regime, Table

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

N_COMPONENTS = 4
N_LOW_VOL = 2                           # clusters, by mean realised volatility, that are low-vol
FEATURES = ("realized_vol", "momentum", "trend", "atm_iv", "iv_rv_spread")
REALIZED_VOL, TREND = FEATURES.index("realized_vol"), FEATURES.index("trend")
MAX_ITER = 1000                         # EM steps; a fit takes 5 to 50
WORTH_A_PROCESS = 50                    # new starts: fewer are made sooner than scikit-learn is imported once more
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

    features = [np.column_stack([getattr(panel, name)[:, i] for name in FEATURES]) for i in range(len(panel.tickers))]
    histories = [_history(of_ticker, panel.dates, (seed, n_init, min_days)) for of_ticker in features]
    labels = np.empty((len(panel.dates), len(panel.tickers)), np.int8)
    # Matrices of 5 columns gain nothing from threads, and sums in one order are the same on every machine's count.
    with threadpool_limits(limits=1):
        if workers.allowed() == 1:             # other processes may want the same: whoever comes first fits a ticker
            for i in cache.in_turn(history.key for history in histories):
                history = _history(features[i], panel.dates, (seed, n_init, min_days))
                labels[:, i] = _labels(history, map(_fresh, _new_starts(history, seed, n_init)), seed)
            return labels
        new = sum(len(history.months) - history.fitted for history in histories)
        starts = (start for history in histories for start in _new_starts(history, seed, n_init))
        with workers.in_order(_fresh, starts, _one_thread, new // WORTH_A_PROCESS) as fits:
            for i, history in enumerate(histories):
                labels[:, i] = _labels(history, fits, seed)
    return labels


def _one_thread() -> None:
    import sklearn.mixture  # noqa: F401  as above
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)


@dataclass(frozen=True)
class _Model:
    """A mixture in standardised units, and the mean and scale of the days that it was fitted on (5,)."""

    mean: np.ndarray
    scale: np.ndarray
    mixture: GaussianMixture


@dataclass(frozen=True)
class _History:
    """One ticker's features (n_days, 5), the days that lack none (n_days,), and the months to be labelled.

    A month is its sessions [start, end); it has min_days complete days before it. The first `fitted` months were
    fitted before: they end with `model`, and the days before the last of them have their `labels` (n_days,).
    """

    features: np.ndarray
    complete: np.ndarray
    months: list[tuple[int, int]]
    fitted: int
    labels: np.ndarray
    model: _Model | None
    key: str                     # of what is remembered of it

    def known(self, start: int) -> np.ndarray:
        """The complete days strictly before a session: (n, 5)."""
        return self.features[:start][self.complete[:start]]


def _new_starts(history: _History, seed: int, n_init: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """What `_fresh` is asked for each month that was not fitted before: they depend on no other month."""
    for k in range(history.fitted, len(history.months)):
        yield history.known(history.months[k][0]), seed + k, 1 if k else n_init


def _labels(history: _History, fits: Iterator[_Model], seed: int) -> np.ndarray:
    """Labels (n_days,) of one ticker; `fits` are those of its new starts, and then of other tickers'."""
    labels, model = history.labels.copy(), history.model
    for k in range(max(history.fitted - 1, 0), len(history.months)):
        start, end = history.months[k]
        if k >= history.fitted:
            model = _better(next(fits), model, history.known(start), seed + k)
        days = start + np.flatnonzero(history.complete[start:end])
        if len(days):
            clusters = model.mixture.predict((history.features[days] - model.mean) / model.scale)
            labels[days] = _regime_of_clusters(model)[clusters]
    if len(history.months) > history.fitted:
        cache.remember(history.key, _to_arrays(model) | {"labels": labels[:history.months[-1][0]]})
    return labels


# ---- where the month before left off -----------------------------------------------------------------------------------

RECALLED = 3        # months back at which a fit is looked for


def _history(features: np.ndarray, dates: np.ndarray, numbers: tuple[int, int, int]) -> _History:
    """The months of one ticker, and the last fit that was made before on just its days; numbers end with min_days."""
    complete = np.isfinite(features).all(axis=1)
    before = np.concatenate(([0], np.cumsum(complete)))
    month = dates.astype("datetime64[M]")
    starts = np.append(np.flatnonzero(month[1:] != month[:-1]) + 1, len(dates)).tolist()
    months = [(start, end) for start, end in zip(starts[:-1], starts[1:]) if before[start] >= numbers[-1]]
    labels = np.full(len(dates), Regime.NONE, dtype=np.int8)
    keys = [_key(features, dates, start, numbers) for start, _ in months[-RECALLED:]]
    for back, key in enumerate(reversed(keys)):
        arrays = cache.recall(key)
        if arrays is not None:
            fitted = len(months) - back
            labels[:months[fitted - 1][0]] = arrays["labels"]
            return _History(features, complete, months, fitted, labels, _from_arrays(arrays), keys[-1])
    return _History(features, complete, months, 0, labels, None, keys[-1] if keys else "")


def _key(features: np.ndarray, dates: np.ndarray, start: int, numbers: tuple[int, ...]) -> str:
    """What a fit at session `start` depends on: the days before it, to the bit, the numbers and the code."""
    digest = hashlib.sha256(np.ascontiguousarray(features[:start]).tobytes())
    digest.update(np.ascontiguousarray(dates[:start + 1].astype("datetime64[D]").astype(np.int64)).tobytes())
    return cache.fingerprint("gmm", cache.code_version(__name__), numbers, digest.hexdigest())


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

def _fresh(start: tuple[np.ndarray, int, int]) -> _Model:
    """The best of some new starts on the days `known` (n, 5): of (known, seed, n_init)."""
    from sklearn.mixture import GaussianMixture

    known, seed, n_init = start
    mean, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)             # a feature that never moved tells clusters nothing
    # iv_rv_spread is atm_iv - realized_vol, so the covariance is singular in one direction; reg_covar gives all
    # components the same variance in it, which cancels between them.
    return _Model(mean, scale, GaussianMixture(N_COMPONENTS, covariance_type="full", max_iter=MAX_ITER, random_state=seed,
                                               n_init=n_init).fit((known - mean) / scale))


def _better(fresh: _Model, previous: _Model | None, known: np.ndarray, seed: int) -> _Model:
    """The likelier of `fresh` and of a fit on the same days `known` (n, 5) that starts from the month before."""
    from sklearn.mixture import GaussianMixture

    if previous is None:
        return fresh
    warm = GaussianMixture(N_COMPONENTS, covariance_type="full", max_iter=MAX_ITER, random_state=seed,
                           **_start_from(previous, fresh.mean, fresh.scale)).fit((known - fresh.mean) / fresh.scale)
    return _Model(fresh.mean, fresh.scale, warm) if warm.lower_bound_ >= fresh.mixture.lower_bound_ else fresh


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
