"""Daily series that the user brings: official closes, dividends, volatility indices, the bill rate.

Any number of CSV (also .csv.gz) and Parquet files in data/daily/, with a `date` (or DATE) column and any of

    <TICKER>_close      official close, dollars
    <TICKER>_div        dividend on its ex-date, dollars per share; 0 on other days
    VIX VIX9D VIX3M VIX6M VXN   official close, percentage points (20 is 20 %)
    DTB3                3-month bill, percent a year

and Cboe's VIX_History.csv (DATE, OPEN, HIGH, LOW, CLOSE) as it is downloaded, likewise VIX9D_History.csv
and so on. Other columns are ignored. Dates are ISO or M/D/YYYY; blank, `.` and `nan` are missing. splits.csv
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
from mahler.data.splits import Splits
from mahler.schema import Bound, ConfigError, Table

INDICES = ("VIX", "VIX9D", "VIX3M", "VIX6M", "VXN")

BOUNDS = {"close": Bound("dollars", 0, open_low=True), "div": Bound("dollars per share", 0),
          # No volatility index of a broad market ever closed below 5: 0.2 is a decimal by mistake.
          "index": Bound("percentage points", 1, 500),
          "DTB3": Bound("percent a year", -5, 50)}

MISSING = frozenset(("", ".", "nan", "NaN", "NA", "null", "None"))

_TICKER_COLUMN = re.compile(r"[A-Z][A-Z0-9.]*_(close|div)")
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")


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
                   and path.name != splits_.FILE and path.name.endswith((".csv", ".csv.gz", ".parquet")))
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
    cells, rows = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    date_names = [name for name in cells if name in ("date", "DATE")]
    if len(date_names) != 1:
        raise ConfigError(f"{path} needs one column date or DATE, got the columns {', '.join(cells)}")
    known = {name: _series_name(path, name) for name in cells}
    columns = {series: _numbers(path, name, cells[name], rows) for name, series in known.items() if series}
    if not columns:
        raise ConfigError(f"{path} has no column that Mahler knows (<TICKER>_close, <TICKER>_div, "
                          f"{', '.join(INDICES)}, DTB3, or Cboe's VIX_History.csv), got {', '.join(cells)}")
    for series, values in columns.items():
        _check_range(path, series, values, rows)
    return _File(path.name, rows, _dates(path, cells[date_names[0]], rows), columns)


def _series_name(path: Path, column: str) -> str | None:
    """The series that a column of this file holds; None where Mahler does not know it."""
    if column in INDICES or column == "DTB3" or _TICKER_COLUMN.fullmatch(column):
        return column
    # Cboe's files do not say inside which index they hold, so only the name of the download decides.
    index = path.name.removesuffix(".gz").removesuffix("_History.csv")
    return index if column == "CLOSE" and index in INDICES else None


def _read_csv(path: Path) -> tuple[dict[str, Iterable[str]], np.ndarray]:
    """Stripped cells by column, and the line of each row."""
    opened = gzip.open if path.suffix == ".gz" else open
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
        try:
            out[i] = math.nan if text in MISSING else float(text)
        except ValueError:
            raise ConfigError(f"{path} row {rows[i]}: {name} is a number, got {text!r}") from None
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
    american = _US_DATE.fullmatch(text)
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
    """One series of several files on `dates`; rows that say the same are one, rows that do not are refused."""
    days = np.concatenate([file.dates for file in files])
    values = np.concatenate([file.columns[series] for file in files])
    wheres = [(file.name, row) for file in files for row in file.rows]
    order = np.argsort(days, kind="stable")
    order = order[np.isfinite(values[order])]
    days, values = days[order], values[order]
    clash = (days[1:] == days[:-1]) & (values[1:] != values[:-1])
    if clash.any():
        at = int(np.argmax(clash))
        (name, row), (other, other_row) = wheres[order[at + 1]], wheres[order[at]]
        raise ConfigError(f"{name} row {row}: {series} on {days[at]} is {values[at + 1]:g}, "
                          f"but {values[at]:g} in {other} row {other_row}")
    out = np.full(len(dates), np.nan)
    out[np.searchsorted(dates, days)] = values
    return out


def _fingerprint(dates: np.ndarray, columns: Table, splits: Splits | None = None) -> str:
    sha = hashlib.sha256(dates.astype("datetime64[D]").tobytes())
    for name in sorted(columns):
        sha.update(f"{name};".encode())
        sha.update(columns[name].tobytes())     # one NaN: `_merge` puts every missing value there itself
    for ticker, (days, divisors) in sorted((splits or {}).items()):
        sha.update(f"split {ticker};".encode() + days.tobytes() + divisors.tobytes())
    return sha.hexdigest()
