"""Daily series that the user brings: official closes, dividends, volatility indices, the bill rate.

Any number of CSV (also .csv.gz) and Parquet files in data/daily/, with a `date` (or DATE, or FRED's observation_date)
column and any of

    <TICKER>_close      official close, dollars
    <TICKER>_div        dividend on its ex-date, dollars per share; 0 on other days
    VIX VIX9D VIX3M VIX6M VXN   official close, percentage points (20 is 20 %)
    DTB3                3-month bill, percent a year

and, as they are downloaded, the files of two vendors that do not say inside what they hold, so that their name does:

    VIX_History.csv     Cboe's: DATE, OPEN, HIGH, LOW, CLOSE; likewise VIX9D_History.csv and so on
    SPY.csv, ^VIX.csv   Yahoo's: Date, Open, High, Low, Close, Adj Close, Volume, and where it is there Dividends

Of Yahoo's the close is read, which is not adjusted for dividends (for splits it is, and what was split is refused
where it meets the chain). Without an `Adj Close` beside it a close may be one that yfinance has adjusted: refused.

The names of dates and of Yahoo's columns may be written in capitals or not. Other columns are ignored. Dates are
YYYY-MM-DD, with a time of midnight or without, or M/D/YYYY; blank, `.` and `nan` are missing. splits.csv
(mahler.data.splits) lies there too.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from mahler.data import splits as splits_
from mahler.data.files import is_number
from mahler.data.splits import Splits
from mahler.schema import Bound, ConfigError, Table

INDICES = ("VIX", "VIX9D", "VIX3M", "VIX6M", "VXN")

BOUNDS = {"close": Bound("dollars", 0, open_low=True), "div": Bound("dollars per share", 0),
          # No volatility index of a broad market ever closed below 5: 0.2 is a decimal by mistake.
          "index": Bound("percentage points", 1, 500),
          "DTB3": Bound("percent a year", -5, 50)}

DATES = ("date", "observation_date")
"""Names of the column of dates, in capitals or not; the second is the Federal Reserve's (FRED)."""

SAME = 1e-6             # of a value: single precision, which Yahoo's prices have, tells no more (141.369995 is 141.37)

MISSING = frozenset(("", ".", "nan", "NaN", "NA", "null", "None"))

_TICKER_COLUMN = re.compile(r"[A-Z][A-Z0-9.]*_(close|div)")
_YAHOO_FILE = re.compile(r"\^?([A-Z][A-Z0-9.]{0,7}?)\.(csv(\.gz)?|parquet)", re.IGNORECASE)
_CBOE_FILE = re.compile(r"(\w+)_History\.csv(\.gz)?", re.IGNORECASE)
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_MIDNIGHT = re.compile(r"[ T]00:00(:00)?([+-]\d\d:\d\d)?$")


@dataclass(frozen=True)
class Daily:
    """Daily series on the union of their dates."""

    dates: np.ndarray       # datetime64[D] (n,), ascending
    columns: Table          # float64 (n,) each, by the names above; NaN is missing
    fingerprint: str        # SHA-256 of the content, whatever the files are called and however they are split
    splits: Splits = field(default_factory=dict)    # of shares, by ticker

    def on(self, column: str, dates: np.ndarray) -> np.ndarray:
        """Values of `column` on `dates` (m,), float64; NaN where there is none."""
        out = np.full(len(dates), np.nan)
        if column in self.columns and len(self.dates):
            at = np.minimum(np.searchsorted(self.dates, dates), len(self.dates) - 1)
            there = self.dates[at] == dates
            out[there] = self.columns[column][at[there]]
        return out

    def latest(self, column: str, dates: np.ndarray, max_age: int) -> np.ndarray:
        """Last value of `column` published on or before each of `dates` (m,), at most `max_age` calendar days ago.

        NaN where there is none. For series with holidays of their own, such as the bill rate.
        """
        out = np.full(len(dates), np.nan)
        if column in self.columns:
            known = np.isfinite(self.columns[column])
            days, values = self.dates[known], self.columns[column][known]
            at = np.searchsorted(days, dates, side="right") - 1
            there = at >= 0
            there[there] = dates[there] - days[at[there]] <= np.timedelta64(max_age, "D")
            out[there] = values[at[there]]
        return out

    def dividends(self, ticker: str) -> tuple[np.ndarray, np.ndarray]:
        """Ex-dates, datetime64[D] ascending, and dollars per share; empty where none is known."""
        amounts = self.columns.get(f"{ticker}_div", np.full(len(self.dates), np.nan))
        paid = amounts > 0
        return self.dates[paid], amounts[paid]


def from_table(table: Table) -> Daily:
    """Series that are in memory: `date` and float64 columns by the names above, by ascending date."""
    columns = {name: column for name, column in table.items() if name != "date"}
    return Daily(table["date"], columns, _fingerprint(table["date"], columns))


def load(directory: Path) -> Daily | None:
    """The series of all CSV, CSV.gz and Parquet files in `directory`, and the splits; None where there is no such file.

    Raises
    ------
    ConfigError
        Where a file cannot be read, has no date or no column that Mahler knows, where a value is not a number
        or out of its range, and where two rows give one series two values on a date: file, row and column.
    """
    paths = sorted(path for path in Path(directory).glob("*") if not path.name.startswith(".")
                   and path.name != splits_.FILE and path.name.lower().endswith((".csv", ".csv.gz", ".parquet")))
    splits = splits_.load(directory)
    if not paths and not splits:
        return None
    files = [read_file(path) for path in paths]
    dates = np.unique(np.concatenate([np.empty(0, "datetime64[D]"), *(file.dates for file in files)]))
    names = sorted({name for file in files for name in file.columns})
    columns = {name: _merge(name, [file for file in files if name in file.columns], dates) for name in names}
    return Daily(dates, columns, _fingerprint(dates, columns, splits), splits)


@dataclass(frozen=True)
class _File:
    """The known columns of one file, in its order of rows."""

    name: str
    rows: np.ndarray        # int64 (n,), where each row is, for messages: line of the text, or number of the row
    dates: np.ndarray       # datetime64[D] (n,)
    columns: Table          # float64 (n,) each


def read_file(path: Path) -> _File:
    cells, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    date_names = [name for name in cells if name.lower() in DATES]
    if len(date_names) != 1:
        raise ConfigError(f"{path} needs one column date, got the columns {', '.join(cells)}")
    columns = {series: _numbers(path, name, cells[name], rows) for name, series in _series(path, cells).items()}
    if not columns:
        raise ConfigError(f"{path} has no column that Mahler knows (<TICKER>_close, <TICKER>_div, {', '.join(INDICES)}, "
                          f"DTB3, or Cboe's VIX_History.csv, or Yahoo's SPY.csv), got {', '.join(cells)}")
    for series, values in columns.items():
        _check_range(path, series, values, rows)
    return _File(path.name, rows, _dates(path, cells[date_names[0]], rows), columns)


def _series(path: Path, names: Iterable[str]) -> dict[str, str]:
    """By column of this file the series that it holds; columns that Mahler does not know are left out.

    Raises ConfigError where it looks like Yahoo's, but its name is no ticker or its closes may be adjusted.
    """
    known = {name: name for name in names
             if name in INDICES or name == "DTB3" or _TICKER_COLUMN.fullmatch(name)}
    cboe = _CBOE_FILE.fullmatch(path.name)
    if "CLOSE" in names and cboe and cboe[1].upper() in INDICES:
        return known | {"CLOSE": cboe[1].upper()}
    theirs = {name.lower().replace("_", " "): name for name in names}
    if known or "close" not in theirs:
        return known
    named = _YAHOO_FILE.fullmatch(path.name)
    if not named:
        raise ConfigError(f"{path} has the column {theirs['close']} and a name that does not say of what, valid is one "
                          f"like SPY.csv (Yahoo's) or VIX_History.csv (Cboe's)")
    ticker = named[1].upper()
    if ticker in INDICES:
        return {theirs["close"]: ticker}
    if "adj close" not in theirs:
        raise ConfigError(f"{path} has the column {theirs['close']} without an Adj Close, so it may be adjusted for "
                          f"dividends (yfinance: auto_adjust=False); if it is not, name it {ticker}_close")
    return {theirs[name]: f"{ticker}_{ours}" for name, ours in (("close", "close"), ("dividends", "div"))
            if name in theirs}


def _read_csv(path: Path) -> tuple[dict[str, Iterable[str]], np.ndarray]:
    """Stripped cells by column, and the line of each row."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text)
            header = [name.strip() for name in next(reader, [])]
            lines, rows = [], []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ConfigError(f"{path} row {reader.line_num}: {len(cells)} cells under {len(header)} columns")
                lines.append(cells)
                rows.append(reader.line_num)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV (truncated, damaged or foreign): {error}") from error
    if len(set(header)) != len(header):
        raise ConfigError(f"{path} names a column twice: {', '.join(header)}")
    columns = zip(*lines) if lines else [()] * len(header)
    return dict(zip(header, columns)), np.array(rows, dtype=np.int64)


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from mahler.data.store import read_table

    table = read_table(path)
    return table, np.arange(1, 1 + len(next(iter(table.values()), ())))


def _numbers(path: Path, name: str, cells: Iterable, rows: np.ndarray) -> np.ndarray:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu":
        return cells.astype(np.float64)
    out = np.empty(len(rows))
    for i, cell in enumerate(cells):
        text = str(cell).strip()
        if text not in MISSING and not is_number(text):
            raise ConfigError(f"{path} row {rows[i]}: {name} is a number, got {text!r}")
        out[i] = math.nan if text in MISSING else float(text)
    return out


def _dates(path: Path, cells: Iterable, rows: np.ndarray) -> np.ndarray:
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        out = cells.astype("datetime64[D]")
    else:
        out = np.array([_date(path, str(cell).strip(), row) for cell, row in zip(cells, rows)], dtype="datetime64[D]")
    if np.isnat(out).any():
        raise ConfigError(f"{path} row {rows[np.isnat(out)][0]}: date is missing")
    return out


def _date(path: Path, text: str, row: int) -> date:
    american, text = _US_DATE.fullmatch(text), _MIDNIGHT.sub("", text)
    try:
        if american:
            month, day, year = map(int, american.groups())
            return date(year, month, day)
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{path} row {row}: date is YYYY-MM-DD or M/D/YYYY, got {text!r}") from None


def _check_range(path: Path, series: str, values: np.ndarray, rows: np.ndarray) -> None:
    bound = BOUNDS["index" if series in INDICES else series.rpartition("_")[2]]
    above = values > bound.low if bound.open_low else values >= bound.low
    bad = ~np.isnan(values) & ~(above & (values <= bound.high) & np.isfinite(values))
    if bad.any():
        at = int(np.argmax(bad))
        raise ConfigError(f"{path} row {rows[at]}: {series} is {bound}, got {values[at]:g}")


def _merge(series: str, files: list[_File], dates: np.ndarray) -> np.ndarray:
    """One series of several files on `dates`; rows that say the same are one, rows that do not are refused.

    Of values that differ by no more than single precision the one nearest to whole cents is taken.
    """
    days = np.concatenate([file.dates for file in files])
    values = np.concatenate([file.columns[series] for file in files])
    wheres = [(file.name, row) for file in files for row in file.rows]
    order = np.lexsort((values, np.abs(values - np.round(values, 2)), days))
    order = order[np.isfinite(values[order])]
    days, values = days[order], values[order]
    again = np.append(False, days[1:] == days[:-1])
    clash = again[1:] & (np.abs(np.diff(values)) > SAME * np.abs(values[1:]))
    if clash.any():
        at = int(np.argmax(clash))
        (name, row), (other, other_row) = wheres[order[at + 1]], wheres[order[at]]
        raise ConfigError(f"{name} row {row}: {series} on {days[at]} is {values[at + 1]:.10g}, "
                          f"but {values[at]:.10g} in {other} row {other_row}")
    out = np.full(len(dates), np.nan)
    out[np.searchsorted(dates, days[~again])] = values[~again]
    return out


def _fingerprint(dates: np.ndarray, columns: Table, splits: Splits | None = None) -> str:
    sha = hashlib.sha256(dates.astype("datetime64[D]").tobytes())
    for name in sorted(columns):
        sha.update(f"{name};".encode())
        sha.update(columns[name].tobytes())     # one NaN: `_merge` puts every missing value there itself
    for ticker, (days, divisors) in sorted((splits or {}).items()):
        sha.update(f"split {ticker};".encode() + days.tobytes() + divisors.tobytes())
    return sha.hexdigest()
