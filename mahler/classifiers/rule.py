"""The regime by two thresholds: the sign of the trend, and realised volatility against its own median."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mahler.panel import Panel
from mahler.schema import Regime

WINDOW = 252        # observed sessions of the trailing median, today's among them


def rule(panel: Panel) -> np.ndarray:
    """Label each day: bull where trend > 0, high where realised volatility is above its trailing 252-day median.

    Days without a trend or a realised volatility have no label, nor have days before 252 realised volatilities
    are known; the median is over the last 252 that are.

    Returns
    -------
    int8 (n_days, n_tickers) of schema.Regime.
    """
    labels = np.full(panel.trend.shape, Regime.NONE, dtype=np.int8)
    for i in range(len(panel.tickers)):
        observed = np.flatnonzero(np.isfinite(panel.realized_vol[:, i]))
        if len(observed) < WINDOW:
            continue
        volatility = panel.realized_vol[observed, i]
        median = np.median(sliding_window_view(volatility, WINDOW), axis=-1)
        day, high = observed[WINDOW - 1:], volatility[WINDOW - 1:] > median
        trend = panel.trend[day, i]
        label = np.where(trend > 0, np.where(high, Regime.BULL_HIGH_VOL, Regime.BULL_LOW_VOL),
                         np.where(high, Regime.BEAR_HIGH_VOL, Regime.BEAR_LOW_VOL))
        labels[day, i] = np.where(np.isnan(trend), Regime.NONE, label)
    return labels
