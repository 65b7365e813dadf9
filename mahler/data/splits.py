"""Splits: since when a share has been several, and what a price from before is in today's shares.

The store is raw, as quoted. A series of prices is comparable across a split only after it is adjusted:

    adjusted = raw / product of the divisors of the splits dated strictly after the trade date

`data/daily/splits.csv` has the columns ticker, date, divisor: AAPL,2014-06-09,7 says that from that session on a share
is a seventh of what it was. Those that `data=orats_api` downloads lie in data/splits/ and count as well.
"""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import numpy as np

from mahler.data.calendar import last_session_on_or_before
from mahler.schema import Bound, ConfigError

FILE = "splits.csv"
COLUMNS = ("ticker", "date", "divisor")
DIVISOR = Bound("shares for one of before", 1e-4, 1e4)

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
"""By ticker: first sessions in new shares, datetime64[D] ascending (n,), and divisors, float64 (n,)."""

NONE = (np.empty(0, "datetime64[D]"), np.empty(0))


def load(daily: Path) -> Splits:
    """The splits in splits.csv of the folder of daily series, and of those that ORATS's API told, in its neighbour.

    Raises ConfigError, naming file and row, where a row is not a split or two give one day two divisors.
    """
    known: dict[str, dict[np.datetime64, float]] = {}
    rows = [*_csv(Path(daily) / FILE), *_parquet(Path(daily).parent / "splits")]
    for where, ticker, day, divisor in rows:
        DIVISOR.check(f"{where}: divisor", divisor)
        if known.setdefault(ticker, {}).setdefault(day, divisor) != divisor:
            raise ConfigError(f"{where}: divisor of {ticker} on {day} is {divisor:g}, but "
                              f"{known[ticker][day]:g} in another row")
    return {ticker: (np.array(sorted(known[ticker])), np.array([known[ticker][day] for day in sorted(known[ticker])]))
            for ticker in sorted(known)}


def _csv(path: Path) -> list[tuple[str, str, np.datetime64, float]]:
    """Where it stands, ticker, date and divisor of each row; none where there is no such file."""
    if not path.exists():
        return []
    found = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text, skipinitialspace=True)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise ConfigError(f"{path} needs the columns {', '.join(COLUMNS)}, got {rows.fieldnames}")
            for row in rows:
                found.append(_row(f"{path} row {rows.line_num}", *((row[name] or "").strip() for name in COLUMNS)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}") from error
    return found


def _row(where: str, ticker: str, day: str, divisor: str) -> tuple[str, str, np.datetime64, float]:
    try:
        when, value = date.fromisoformat(day), float(divisor)
    except ValueError:
        raise ConfigError(f"{where}: a split is a ticker, a date YYYY-MM-DD and a divisor, got "
                          f"{ticker!r}, {day!r}, {divisor!r}") from None
    if not ticker:
        raise ConfigError(f"{where}: ticker is missing")
    return where, ticker.upper(), np.datetime64(when, "D"), value


def _parquet(folder: Path) -> list[tuple[str, str, np.datetime64, float]]:
    from mahler.data.store import read_table

    found = []
    for path in sorted(folder.glob("*.parquet")):
        table = read_table(path, ["date", "divisor"])
        found += [(str(path), path.stem, day, float(divisor)) for day, divisor in zip(*table.values(), strict=True)]
    return found


def factor(dates: np.ndarray, splits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What a raw price of each date, datetime64[D] (n,), is divided by to be in the shares of the last split: (n,)."""
    days, divisors = splits
    remaining = np.append(np.cumprod(divisors[::-1])[::-1], 1.0)
    return remaining[np.searchsorted(days, dates, side="right")]


def eve(sessions: np.ndarray, day: np.ndarray, expiry: np.ndarray, splits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The last session before the first split in the life of each contract, int32 (n,); -1 where there is none.

    `sessions` are those of the run, `day` (n,) is an index into them, `expiry` datetime64[D] (n,). A split is in the
    life if it is dated after `day` and on or before the expiry. One dated after the last session counts if that is the
    session before it: whether a session is an eve does not depend on what comes later.
    """
    days, divisors = splits
    days = days[divisors != 1.0]
    if not len(days):
        return np.full(len(day), -1, np.int32)
    before = np.searchsorted(sessions, days) - 1
    beyond = days > sessions[-1]
    if beyond.any():
        before[beyond] = np.where(last_session_on_or_before(days[beyond] - 1) == sessions[-1], len(sessions) - 1, -1)
    first = np.searchsorted(days, sessions[day], side="right")
    inside = (first < len(days)) & (days[np.minimum(first, len(days) - 1)] <= expiry)
    return np.where(inside, before[np.minimum(first, len(days) - 1)], -1).astype(np.int32)
