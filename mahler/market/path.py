"""The path of a market: closes, volatility indices and rates of every session, simulated or real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.data.calendar import sessions
from mahler.market.surface import term_structure
from mahler.market.turning_points import (DIVIDEND_YIELDS, RATE_DATES, RATES, TICKERS, VXN_DATES, VXN_RATIOS, between)

HORIZON = np.timedelta64(270, "D")
"""How far beyond the path expiries are listed and the null market's volatility is known."""

IWM, QQQ, SPY = (TICKERS.index(ticker) for ticker in ("IWM", "QQQ", "SPY"))

IWM_RATIO = 1.25                # implied volatility over SPY's in the long run: 0.5 x + 0.625 = x
IWM_WINDOW = 126                # sessions


@dataclass(frozen=True)
class Path:
    """The market at the close of each session; nothing in it depends on which chains are made of it."""

    sessions: np.ndarray        # datetime64[D] (n,)
    closes: np.ndarray          # (n, 3) dollars, in cents
    tenors: np.ndarray          # (n, 4) VIX9D, VIX, VIX3M, VIX6M in points
    ratios: np.ndarray          # (n, 3) implied volatility over SPY's
    rates: np.ndarray           # (n,) decimals a year
    dividend_yields: np.ndarray  # (3,) decimals a year
    calendar: np.ndarray        # datetime64[D] (m,) the sessions and those of the HORIZON after them
    premium: float              # share of the surface, against `variance`, in the price of an option
    variance: np.ndarray        # (m, 3) of ln(close) up to and with a session, known beforehand; read if premium < 1


def anchored(days: np.ndarray, closes: np.ndarray, tenors: np.ndarray, vxn: np.ndarray, bill: np.ndarray) -> Path:
    """The path of real series.

    Parameters
    ----------
    days : datetime64[D] (n,)
        Consecutive sessions of XNYS.
    closes : ndarray (n, 3)
        Dollars, in the order of TICKERS.
    tenors : ndarray (n, 4)
        VIX9D, VIX, VIX3M, VIX6M in points; where one but VIX is NaN, the usual ratio to VIX stands in.
    vxn, bill : ndarray (n,)
        Points and percent a year; where NaN, the ratio to VIX and the rate that are publicly known stand in.
    """
    calendar = sessions(days[0], days[-1] + HORIZON)
    tenors = np.where(np.isnan(tenors), term_structure(tenors[:, 1]), tenors)
    ratios = implied_ratios(days, closes)
    ratios[:, QQQ] = np.where(np.isnan(vxn), ratios[:, QQQ], vxn / tenors[:, 1])
    rates = np.where(np.isnan(bill), between(days, RATE_DATES, RATES), bill / 100.0)
    unknown = np.full((len(calendar), 3), np.nan)
    return Path(days, closes, tenors, ratios, rates, DIVIDEND_YIELDS, calendar, 1.0, unknown)


def base_ratios(dates: np.ndarray) -> np.ndarray:
    """Implied volatility over SPY's that is known beforehand, (n, 3)."""
    ratios = np.ones((len(dates), 3))
    ratios[:, IWM] = IWM_RATIO
    ratios[:, QQQ] = between(dates, VXN_DATES, VXN_RATIOS)
    return ratios


def implied_ratios(days: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Implied volatility over SPY's, (n, 3); IWM's follows what both moved in the last 126 sessions."""
    ratios = base_ratios(days)
    squares = np.vstack([np.zeros(3), np.cumsum(np.diff(np.log(closes), axis=0) ** 2, axis=0)])   # (n, 3)
    moved = squares[IWM_WINDOW:] - squares[:-IWM_WINDOW]
    ratios[IWM_WINDOW:, IWM] = np.clip(0.5 * np.sqrt(moved[:, IWM] / moved[:, SPY]) + 0.625, 1.05, 1.60)
    return ratios
