"""The rows of a chain before they have prices: which expiries and strikes are listed on which day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from mahler.market import listings
from mahler.market.path import Path
from mahler.market.turning_points import TICKERS

CHUNK = 1 << 15                 # rows worked on at a time: the columns of a chunk stay in the processor's cache

NOISE, POPULARITY = 1, 2        # streams of random numbers of a ticker; the path has stream 0

_OF_ROWS = ("strike", "popularity")


@dataclass(frozen=True)
class Groups:
    """What is listed: a group is an expiry on a day, and has a run of rows; sorted by day, expiry, strike."""

    day: np.ndarray             # int (g,) index into the path
    expiry: np.ndarray          # int (g,) index into the path's calendar
    age: np.ndarray             # int (g,) sessions since it was listed, and since then
    low: np.ndarray             # (g,) the lowest close, dollars
    high: np.ndarray            # (g,) the highest
    reach: np.ndarray           # (g,) one standard deviation of ln(spot) to expiry, on the day of listing
    count: np.ndarray           # int (g,) rows of the group
    strike: np.ndarray          # int (n,) dollars
    popularity: np.ndarray      # float32 (n, 2) of the contract's call and put: standard normal, for life


def listed(path: Path, seed: int, ticker: str, days: np.ndarray, max_dte: int) -> Groups | None:
    """What of `ticker` is listed on the ascending sessions `days`, indices into the path; None where nothing is."""
    column = TICKERS.index(ticker)
    spot, volatility = path.closes[:, column], path.tenors[:, 1] / 100.0 * path.ratios[:, column]
    dates = path.calendar.astype(np.int64)
    known = listings.expiries(ticker, path.calendar)
    parts = []
    for expiry, first in zip(known.session.tolist(), known.listed.tolist()):
        first_made = max(first, np.searchsorted(dates, dates[expiry] - max_dte))
        on = days[np.searchsorted(days, first_made):np.searchsorted(days, expiry)]
        if len(on):
            parts.append(_expiry(seed, column, path.calendar, expiry, first, on, spot, volatility))
    return _by_day(Groups(*(np.concatenate(column) for column in zip(*parts)))) if parts else None


def _expiry(seed: int, column: int, calendar: np.ndarray, expiry: int, first: int, on: np.ndarray,
            spot: np.ndarray, volatility: np.ndarray) -> tuple[np.ndarray, ...]:
    """The groups of one expiry on the ascending days `on`, in the order of the fields of Groups."""
    life = slice(first, on[-1] + 1)
    dte = (calendar[expiry] - calendar[life]).astype(float)
    strike, since = listings.strikes(spot[life], volatility[life], dte)
    age = on - first
    there = since <= age[:, None]                                       # (days, strikes)
    at = np.nonzero(there)[1]
    low, high = np.minimum.accumulate(spot[life])[age], np.maximum.accumulate(spot[life])[age]
    reach = np.full(len(on), volatility[first] * np.sqrt(dte[0] / 365.0))
    # Drawn from a strike of 0 dollars on: a strike's draw does not depend on which others there are.
    draw = generator(seed, POPULARITY, column, calendar[expiry]).standard_normal((strike[-1] + 1, 2), dtype=np.float32)
    return (on, np.full(len(on), expiry), age, low, high, reach, there.sum(axis=1), strike[at], draw[strike[at]])


def _by_day(groups: Groups) -> Groups:
    """The groups sorted by day, then expiry, each with its rows."""
    order = np.lexsort((groups.expiry, groups.day))
    count = groups.count[order]
    start = (np.cumsum(groups.count) - groups.count)[order]
    row = np.repeat(start - (np.cumsum(count) - count), count) + np.arange(count.sum())
    return _select(groups, order, row)


def _select(groups: Groups, which: np.ndarray | slice, rows: np.ndarray | slice) -> Groups:
    """The groups `which`, whose rows are `rows`."""
    return Groups(**{f.name: getattr(groups, f.name)[rows if f.name in _OF_ROWS else which] for f in fields(Groups)})


def chunks(groups: Groups) -> Iterator[Groups]:
    """The groups in parts of whole days, of about CHUNK rows."""
    first = np.flatnonzero(np.r_[True, np.diff(groups.day) > 0])        # of each day
    end = np.append(np.cumsum(groups.count), 0)                         # end[-1] is where the first group begins
    begins = first[np.r_[True, np.diff(end[first - 1] // CHUNK) > 0]]
    for a, b in zip(begins, np.append(begins[1:], len(groups.day))):
        yield _select(groups, slice(a, b), slice(end[a - 1], end[b - 1]))


def generator(seed: int, stream: int, column: int, day: np.datetime64 | int) -> np.random.Generator:
    """Random numbers of a ticker and a day that depend on nothing else, least of all on what was drawn before."""
    return np.random.default_rng(np.random.SeedSequence([seed, stream, column, int(np.int64(day))]))
