"""Sessions of the New York Stock Exchange (XNYS).

The calendar is built on first use and kept: the library behind it takes a second to import.
"""

from __future__ import annotations

import warnings
from datetime import date
from importlib.metadata import version

import numpy as np

from mahler import cache, home

# Fixed, so that the same data give the same partition whatever the day on which they are ingested.
FIRST, LAST = "1990-01-01", "2049-12-31"


_built: list[np.ndarray] = []


def every() -> np.ndarray:
    """Every session from FIRST to LAST, datetime64[D] (n,)."""
    if not _built:
        adopt(_kept())
    return _built[0]


def adopt(days: np.ndarray) -> None:
    """Take `every()` of another process, which has built it already: for worker processes."""
    days.flags.writeable = False
    _built[:] = [days]


def _kept() -> np.ndarray:
    key = cache.fingerprint("calendar", version("exchange_calendars"), cache.code_version(__name__), FIRST, LAST)
    return cache.kept(home.cache_dir(), key, lambda: {"sessions": _build()})["sessions"]


def _build() -> np.ndarray:
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # its own use of pandas, which we cannot mend
        calendar = exchange_calendars.get_calendar("XNYS", start=FIRST, end=LAST)
    return calendar.sessions.to_numpy().astype("datetime64[D]")


def sessions(start: date | str | np.datetime64, end: date | str | np.datetime64) -> np.ndarray:
    """Sessions of XNYS from `start` to `end`, both included, datetime64[D] (n,)."""
    days = every()
    first = np.searchsorted(days, np.datetime64(start, "D"), side="left")
    last = np.searchsorted(days, np.datetime64(end, "D"), side="right")
    return days[first:last]


def stretches(days: np.ndarray, most_missing: int) -> list[np.ndarray]:
    """Ascending sessions (n,) in pieces: between two of them more than `most_missing` sessions in a row are not there."""
    place = np.searchsorted(every(), days)
    return np.split(days, np.flatnonzero(np.diff(place) > most_missing + 1) + 1)


def is_session(dates: np.ndarray) -> np.ndarray:
    """Whether each date, datetime64[D] (n,), is a session of XNYS; beyond the calendar, whether it is a weekday."""
    dates = np.asarray(dates, dtype="datetime64[D]")
    days = every()
    known = (dates >= days[0]) & (dates <= np.datetime64(LAST))
    at = np.minimum(np.searchsorted(days, dates), len(days) - 1)
    return np.where(known, days[at] == dates, np.is_busday(dates))


def last_session_on_or_before(dates: np.ndarray) -> np.ndarray:
    """The last session of XNYS on or before each date, datetime64[D] (n,).

    Beyond the calendar's horizon holidays are not known: a Saturday or Sunday becomes the Friday before.
    """
    dates = np.asarray(dates, dtype="datetime64[D]")
    days = every()
    known = (dates >= days[0]) & (dates <= np.datetime64(LAST))
    at = np.maximum(np.searchsorted(days, dates, side="right") - 1, 0)
    last = days[at]
    if not known.all():
        last = np.where(known, last, np.busday_offset(dates, 0, roll="backward"))
    return last
