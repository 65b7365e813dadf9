"""From an option's value to a bid and an ask: tick sizes, widths, rounding."""

from __future__ import annotations

import numpy as np

WIDTH = {"IWM": 2.6, "QQQ": 2.2, "SPY": 1.0}
"""Quoted width over SPY's."""

CALL_WIDTH = 1.2                # a call's quoted width over a put's
WIDTH_NOISE = 0.56              # standard deviation of the logarithm of a width

# ticker: from this date, the tick in cents below 3 dollars and from 3 dollars on
_TICKS = {
    "IWM": (("1970-01-01", 5, 10), ("2007-01-26", 1, 5), ("2010-02-01", 1, 1)),
    "QQQ": (("1970-01-01", 5, 10), ("2007-01-26", 1, 1)),
    "SPY": (("1970-01-01", 5, 10), ("2007-09-28", 1, 5), ("2010-02-01", 1, 1)),
}


def ticks(ticker: str, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest price step in cents on each date (n,), below 3 dollars and from 3 dollars on: the penny pilot."""
    steps = _TICKS[ticker]
    regime = np.searchsorted(np.array([step[0] for step in steps], dtype="datetime64[D]"), dates, side="right") - 1
    return (np.array([float(step[1]) for step in steps])[regime], np.array([float(step[2]) for step in steps])[regime])


def width_scale(ticker: str, vix: np.ndarray, dte: np.ndarray, year: np.ndarray) -> np.ndarray:
    """Width of a put worth a dollar, in dollars, (n,), before noise: by VIX in points, calendar days and year."""
    market = 0.37 * np.log(vix / 18.0) - 0.22 * np.log(dte / 30.0) - 0.044 * (year - 2016.0)
    return WIDTH[ticker] * np.exp(-3.83 + market)


def quote(value: np.ndarray, width: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bid and ask in dollars, on the tick, around `value`; `width` dollars is rounded up, ticks are in cents.

    The mid is `value` rounded to half a tick, at least half a tick: a function of `value` that never falls, so that
    mids are monotone in strike as values are. Where half the width is more than the mid, nobody bids, and the ask is
    twice the mid.
    """
    tick = np.where(value < 3.0, fine, coarse)
    half = np.maximum(np.rint(200.0 * value / tick), 1.0)               # the mid, in half ticks
    both = half * tick                                                  # bid + ask, in cents
    steps = np.maximum(np.ceil(100.0 * width / tick), 1.0)
    steps += (steps + half) % 2.0                                       # odd around half a tick, even around a tick
    ask = np.minimum(0.5 * (half + steps) * tick, both)
    # The mid is below 3 dollars, the ask above: it is on the coarse tick too, and the bid as far on the other side.
    over = (value < 3.0) & (ask > 300.0)
    ask = np.where(over, np.minimum(np.ceil(ask / coarse), np.floor(both / coarse)) * coarse, ask)
    return (both - ask) / 100.0, ask / 100.0
