"""Which expiries and strikes are listed on a day. What is listed once stays listed until it expires.

Expiries: third-Friday monthlies and quarter ends; Friday weeklies from June 2010; on SPY Wednesdays from September
2016 and Mondays from February 2018; every day on SPY and QQQ from 14 November 2022. An expiry on a holiday is the
session before. Strikes: every dollar near the money, every 5 dollars in the wings, over what the spot has seen since
the expiry was listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.data.calendar import last_session_on_or_before

LONGEST_LEAD = 90
"""Calendar days before expiry at which monthlies and quarter ends are listed: no chain is longer."""

MON, TUE, WED, THU, FRI = range(5)
DAILY = "2022-11-14"            # the first expiry of the daily cycle

# weekday, tickers, first and last nominal expiry, calendar days of listing before it
_WEEKLIES = (
    (FRI, ("IWM", "QQQ", "SPY"), "2010-06-04", "2012-06-29", 8),
    (FRI, ("IWM", "QQQ", "SPY"), "2012-07-06", "2015-12-31", 36),
    (FRI, ("IWM", "QQQ", "SPY"), "2016-01-01", "2099-12-31", 46),
    (WED, ("SPY",), "2016-09-07", "2022-11-11", 11),
    (MON, ("SPY",), "2018-02-05", "2022-11-11", 11),
    *((weekday, ("QQQ", "SPY"), DAILY, "2099-12-31", 11) for weekday in (MON, TUE, WED, THU)),
)

# How far strikes go, in standard deviations of the index's volatility to expiry: puts are dearer, so further down.
WING_DOWN, WING_UP = 4.2, 2.3   # every 5 dollars: to a |delta| of about 0.003
NEAR_DOWN, NEAR_UP = 2.3, 1.3   # every dollar: to a |delta| of about 0.05, and
NEAR_MORE = 5.0                 # so many dollars further, so that a 5-wide spread has its long leg
SHORTEST, LONGEST = 7.0, 45.0   # calendar days, between which the range depends on time


@dataclass(frozen=True)
class Expiries:
    """The expiries of a ticker, ascending."""

    session: np.ndarray         # int (k,) index into the calendar: the last day of trading
    listed: np.ndarray          # int (k,) index into the calendar: the first


def expiries(ticker: str, calendar: np.ndarray) -> Expiries:
    """Every expiry of `ticker` within the sessions `calendar`, datetime64[D] (m,)."""
    nominal, lead = _nominal(ticker, calendar[0], calendar[-1])
    session = np.searchsorted(calendar, last_session_on_or_before(nominal))
    listed = np.searchsorted(calendar, nominal - lead)
    order = np.lexsort((listed, session))
    session, listed = session[order], listed[order]
    first = np.r_[True, session[1:] != session[:-1]]        # of one expiry by two rules, the one listed first
    return Expiries(session[first], listed[first])


def _nominal(ticker: str, start: np.datetime64, end: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
    """Expiration dates before holidays are looked at, and days of listing before them."""
    months = np.arange(start.astype("datetime64[M]"), end.astype("datetime64[M]") + 1)
    monthly = np.busday_offset(months, 2, roll="forward", weekmask="Fri")
    quarter_ends = (months[months.astype(int) % 3 == 2] + 1).astype("datetime64[D]") - 1
    dates, leads = [monthly, quarter_ends], [LONGEST_LEAD, LONGEST_LEAD]
    every_day = np.arange(start, end + 1)
    weekday = (every_day.astype(int) + 3) % 7               # 1970-01-01 was a Thursday
    for day, tickers, first, last, lead in _WEEKLIES:
        if ticker in tickers:
            within = (every_day >= np.datetime64(first)) & (every_day <= np.datetime64(last))
            dates.append(every_day[within & (weekday == day)])
            leads.append(lead)
    nominal = np.concatenate(dates)
    lead = np.repeat(np.array(leads, "timedelta64[D]"), [len(d) for d in dates])
    known = (nominal >= start) & (nominal <= end)
    return nominal[known], lead[known]


def strikes(spot: np.ndarray, volatility: np.ndarray, dte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strikes of one expiry, and when each appears.

    Parameters
    ----------
    spot, volatility, dte : ndarray (d,)
        Of every session since the expiry was listed: dollars, decimals a year, calendar days to it.

    Returns
    -------
    strikes : ndarray of int (k,)
        Dollars, ascending.
    since : ndarray of int (k,)
        First of the `d` sessions on which the strike is listed; it is on all that follow.
    """
    reach = volatility * np.sqrt(np.clip(dte, SHORTEST, LONGEST) / 365.0)
    near_low = np.minimum.accumulate(np.floor(spot * np.exp(-NEAR_DOWN * reach) - NEAR_MORE))
    near_high = np.maximum.accumulate(np.ceil(spot * np.exp(NEAR_UP * reach) + NEAR_MORE))
    low = np.minimum(np.minimum.accumulate(np.floor(spot * np.exp(-WING_DOWN * reach))), near_low - 5.0)
    high = np.maximum(np.maximum.accumulate(np.ceil(spot * np.exp(WING_UP * reach))), near_high + 5.0)

    every = np.arange(max(1, int(low[-1])), int(high[-1]) + 1)
    near = np.maximum(_first_below(near_low, every), _first_below(-near_high, -every))
    wing = np.maximum(_first_below(low, every), _first_below(-high, -every))
    since = np.where(every % 5 == 0, np.minimum(near, wing), near)
    there = since < len(spot)
    return every[there], since[there]


def _first_below(bound: np.ndarray, strike: np.ndarray) -> np.ndarray:
    """First index at which the never-rising `bound` (d,) is at or below each strike (k,); d where it never is."""
    return np.searchsorted(-bound, -strike, side="left")
