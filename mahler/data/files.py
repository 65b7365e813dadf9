"""From a vendor's daily files to partitions of the store: what every file-based source shares.

A source supplies a reader of one file; here files are found and dated, read by several processes a year at
a time, and merged into the partitions that exist. A partition is written whole or not at all, a day that is
read again replaces itself, and the same files twice leave the same bytes.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from itertools import groupby
from pathlib import Path

import numpy as np

from mahler.data import calendar, store
from mahler.home import user_path
from mahler.schema import CHAIN, Bound, ConfigError, Table
from mahler.workers import pool as workers_pool

Progress = Callable[[int, int, str], None]
"""Called with (files done, files in all, what was done last)."""

MAX_DTE = Bound("calendar days to expiration", 1)
WORKERS = Bound("a number of processes", 1, 256)
MAX_QUOTE = 10.0        # times the larger of underlying and strike: no option is worth a tenth of that
WORTH_A_POOL = 1.5      # seconds of reading; two processes save half of them and need 0.4 s to be there

DROPPED = "dropped_"
"""Prefix of the counts that explain the difference between the rows read and the rows kept."""
EXPIRY_MOVED, DTE_MISMATCH = "expiry_moved", "dte_mismatch"
"""Counts of rows whose expiration is on a day without a session; and whose days to it the vendor counts otherwise."""


@dataclass(frozen=True)
class DayFile:
    """A file of a vendor and the day in its name, the first where it holds several."""

    day: np.datetime64
    path: Path
    ticker: str | None = None       # where a file holds one ticker
    days: int = 1                   # calendar days, from `day` on, of which it may hold rows


@dataclass(frozen=True)
class Reading:
    """What one file holds of one ticker on one trade date."""

    ticker: str
    table: Table                    # schema.CHAIN
    counts: dict[str, int]          # read = kept + every dropped_<reason>; others count rows that were mended

    @property
    def day(self) -> np.datetime64:
        return self.table["date"][0]


@dataclass(frozen=True)
class Ingested:
    """What an ingest did."""

    root: Path                                  # the store of the source
    source: str
    files: int                                  # read
    files_outside: int                          # left alone: outside the period or of other tickers
    partitions: list[store.PartitionInfo]       # written
    counts: dict[str, dict[str, int]]           # by ticker: rows read, kept, dropped and mended, by reason
    files_without: dict[str, int] = field(default_factory=dict)   # by ticker: files that have no row of it
    notes: list[str] = field(default_factory=list)  # lines that the source has to say
    planned: bool = False                           # a dry run: the notes say what would be done


def find(path: Path | None, suffixes: Sequence[str], key: str = "data.path") -> list[Path]:
    """The files that `path` means, sorted: a file, a folder (recursively) or a glob; only those with a suffix.

    Raises ConfigError where it is None, does not exist or means no file.
    """
    wanted = " or ".join(f"*{suffix}" for suffix in suffixes)
    if path is None:
        raise ConfigError(f"{key} is required: a file, a folder or a glob of {wanted}")
    where = user_path(path)
    if where.is_dir():
        found = [p for p in where.rglob("*") if p.name.lower().endswith(tuple(suffixes)) and p.is_file()]
    elif where.is_file():
        found = [where]
    else:
        found = [Path(p) for p in glob(str(where), recursive=True) if Path(p).is_file()]
    unwanted = [p for p in found if not p.name.lower().endswith(tuple(suffixes))]
    if unwanted:
        raise ConfigError(f"{key}: {unwanted[0]} is not {wanted}")
    if not found:
        raise ConfigError(f"{key}: {where} has no {wanted}")
    return sorted(found)


def spanning(first: np.datetime64, last: np.datetime64, path: Path, ticker: str) -> DayFile:
    """The file of a ticker that holds the months, or the years, from `first` to `last`."""
    day = first.astype("datetime64[D]")
    return DayFile(day, path, ticker, days=int(((last + 1).astype("datetime64[D]") - day).astype(int)))


def of_tickers(found: Sequence[DayFile], tickers: Sequence[str], path: Path) -> list[DayFile]:
    """The files of `tickers`; ConfigError where none of those that were found in `path` is."""
    wanted = [file for file in found if file.ticker in tickers]
    if not wanted:
        there = ", ".join(sorted({str(file.ticker) for file in found})) or "nothing"
        raise ConfigError(f"data.path: {path} has no file of {', '.join(tickers)} (there: {there})")
    return wanted


def day_of(path: Path, match: re.Match | None, example: str) -> np.datetime64:
    """The day of a file whose name matched with the groups year, month, day; ConfigError if it did not."""
    if match is not None:
        try:
            return np.datetime64(f"{match['year']}-{match['month']}-{match['day']}", "D")
        except ValueError:
            pass
    raise ConfigError(f"{path} has no day in its name, expected one like {example}")


def ingest(root: Path, files: Sequence[DayFile], read: Callable[[DayFile], list[Reading]], tickers: Sequence[str], *,
           source: str, start: store.Day | None, end: store.Day | None, max_dte: int | None, progress: Progress,
           workers: int) -> Ingested:
    """Read `files` of the period and merge them into the store `root`/`source`.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    read : callable
        Reads one file; picklable. Called in `workers` processes where there are several files.
    start, end : date or None
        First and last trade date that is kept; None is open.
    max_dte : int or None
        Calendar days to expiration up to which `read` keeps rows; a note in the partitions.

    Raises
    ------
    ConfigError
        Where a file is not what its name says, two files hold the same day of a ticker, no row of any ticker
        is found, or a partition holds days that were ingested with another `max_dte`.
    """
    first, last = (None if day is None else np.datetime64(day, "D") for day in (start, end))
    inside = sorted((f for f in files if (first is None or f.day + f.days > first) and (last is None or f.day <= last)),
                    key=lambda f: (f.day, str(f.path)))
    if not inside:
        raise ConfigError(f"none of {len(files)} {source} files is of a day from {start} to {end}")
    home, done = Path(root) / source, 0
    written: dict[Path, store.PartitionInfo] = {}
    counts: dict[str, Counter] = {ticker: Counter() for ticker in tickers}
    origin: dict[tuple[str, np.datetime64], Path] = {}
    with _reader(read, len(inside), workers) as read_all:
        # A year at a time, whatever the number of files: no more than its readings are in memory.
        for _, of_year in groupby(inside, key=lambda f: f.day.astype("datetime64[Y]")):
            batch = list(of_year)
            readings = []
            for found, file in zip(read_all(batch), batch, strict=True):
                done += 1
                for reading in found:
                    other = origin.setdefault((reading.ticker, reading.day), file.path)
                    if other != file.path:
                        raise ConfigError(f"{other} and {file.path} both hold {reading.ticker} on {reading.day}: "
                                          f"keep one")
                readings += [reading for reading in found if _within(reading.day, first, last)]
                progress(done, len(inside), f"{source} {file.day}")
            for reading in readings:
                counts[reading.ticker].update(reading.counts)
            written |= {info.path: info for info in _write(home, source, readings, max_dte)}
    if not written:
        period = f" from {start} to {end}" if start or end else ""
        raise ConfigError(f"none of {len(inside)} {source} files has a row of {', '.join(tickers)}{period}")
    seen = Counter(ticker for ticker, _ in {(ticker, path) for (ticker, _), path in origin.items()})   # files
    without = {t: sum(f.ticker in (None, t) for f in inside) - seen[t] for t in tickers}
    return Ingested(root=home, source=source, files=len(inside), files_outside=len(files) - len(inside),
                    partitions=list(written.values()), counts={t: dict(c) for t, c in counts.items()},
                    files_without={t: n for t, n in without.items() if n or not seen[t]})


def _within(day: np.datetime64, first: np.datetime64 | None, last: np.datetime64 | None) -> bool:
    return bool((first is None or day >= first) and (last is None or day <= last))


@contextmanager
def _reader(read: Callable[[DayFile], list[Reading]], n_files: int, workers: int
            ) -> Iterator[Callable[[list[DayFile]], Iterator[list[Reading]]]]:
    """What `read` makes of each file of a list, in order; the lists have `n_files` together.

    In this process until the files that are left would take it more than WORTH_A_POOL, then in processes of their own.
    """
    pool, left, days = None, n_files, calendar.every()      # a second to build: here, and handed to the others

    def read_all(batch: list[DayFile]) -> Iterator[list[Reading]]:
        nonlocal pool, left
        for at, file in enumerate(batch):
            if pool is not None:
                yield from pool.map(read, batch[at:], chunksize=max(1, min(8, len(batch) // (4 * workers))))
                return
            begin = time.perf_counter()
            found = read(file)
            left -= 1
            if workers > 1 and left > 1 and (time.perf_counter() - begin) * left > WORTH_A_POOL:
                pool = workers_pool(min(workers, left), calendar.adopt, days)
            yield found

    try:
        yield read_all
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _write(root: Path, source: str, readings: list[Reading], max_dte: int | None) -> list[store.PartitionInfo]:
    """Merge the readings into their partitions: one for each ticker and year of trade dates."""
    def key(reading: Reading) -> tuple[str, int]:
        return reading.ticker, int(reading.day.astype("datetime64[Y]").astype(int)) + 1970

    infos = []
    for (ticker, year), group in groupby(sorted(readings, key=lambda r: (key(r), r.day)), key=key):
        mine = list(group)
        path = store.partition_path(root, ticker, year)
        table, counts, first, last = _merge(path, mine, max_dte)
        store.write_partition(root, ticker, year, table, source=source, max_dte=max_dte, start=first, end=last,
                              counts=counts)
        infos.append(store.partition_info(path))
    return infos


def _merge(path: Path, readings: list[Reading], max_dte: int | None
           ) -> tuple[Table, dict[str, dict[str, int]], np.datetime64, np.datetime64]:
    """Rows, counts and span of a partition after its days were replaced by, or joined with, `readings`."""
    tables = [reading.table for reading in readings]
    counts = {str(reading.day): reading.counts for reading in readings}
    days = np.array([reading.day for reading in readings])
    if not path.exists():
        return _concatenate(tables), counts, days.min(), days.max()
    info = store.partition_info(path)
    others = np.setdiff1d(info.sessions, days)
    if len(others):
        if info.max_dte != max_dte:
            raise ConfigError(f"{path} holds {len(others)} other days with data.max_dte={info.max_dte} calendar days, "
                              f"these files with {max_dte}: use the same number, or ingest the whole year again")
        old = store.read_partition(path)
        stay = np.isin(old["date"], others)
        tables.append({name: column[stay] for name, column in old.items()})
        counts |= {str(day): info.counts[str(day)] for day in others if str(day) in info.counts}
        days = np.concatenate([days, others])
    return _concatenate(tables), counts, days.min(), days.max()


def _concatenate(tables: Iterable[Table]) -> Table:
    tables = list(tables)
    return {name: np.concatenate([table[name] for table in tables]) for name in CHAIN.names}


def first_reasons(reasons: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows no reason, bool (n,), speaks against, and how many are left out by the first that does."""
    left, dropped = ~np.zeros_like(next(iter(reasons.values()))), {}
    for reason, bad in reasons.items():
        dropped[reason] = int(np.count_nonzero(left & bad))
        left &= ~bad
    return left, dropped


def unique(columns: Table, keys: Sequence[str]) -> tuple[Table, dict[str, int]]:
    """One row per key: of identical rows the first stays, of rows that contradict one another none.

    Returns the columns in the order of their first rows, and how many rows were left out by reason.
    """
    order = np.lexsort([columns[name] for name in reversed(keys)])
    rows = {name: column[order] for name, column in columns.items()}
    same = np.logical_and.reduce([_equals_last(rows[name]) for name in keys])
    if not same.any():
        return columns, {}
    equal = np.logical_and.reduce([_equals_last(column) for column in rows.values()])
    group = np.concatenate([[0], np.cumsum(~same)])
    contradicted = np.isin(group, group[1:][same & ~equal])
    repeated = np.concatenate([[False], equal]) & ~contradicted
    keep = np.sort(order[~contradicted & ~repeated])
    return ({name: column[keep] for name, column in columns.items()},
            {"duplicate": int(np.count_nonzero(repeated)), "contradictory": int(np.count_nonzero(contradicted))})


def _equals_last(column: np.ndarray) -> np.ndarray:
    """Whether each value but the first equals the one before it, bool (n - 1,); missing equals missing."""
    equal = column[1:] == column[:-1]
    return equal | (np.isnan(column[1:]) & np.isnan(column[:-1])) if column.dtype.kind == "f" else equal.astype(bool)


def is_number(text: str) -> bool:
    """Whether a cell is empty or a number to Arrow, which takes neither 1_000 nor the digits of other scripts."""
    try:
        float(text or "nan")
    except ValueError:
        return False
    return text.isascii() and "_" not in text and text.strip() == text.strip(" \t")


def sound_iv(value: np.ndarray, most: float) -> tuple[np.ndarray, int]:
    """IVs (n,) with NaN for none (missing or 0), and how many were neither none nor an IV, at most `most`."""
    sound = (value > 0) & (value <= most)
    return np.where(sound, value, np.nan), int(np.count_nonzero(~sound & ~np.isnan(value) & (value != 0)))


def whole(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of contracts as int32 (n,), -1 where one is missing or is none, and how many of those there are."""
    with np.errstate(invalid="ignore"):
        sound = (values >= 0) & (values <= np.iinfo(np.int32).max) & (values == np.floor(values))
    return np.where(sound, values, -1).astype(np.int32), int(np.count_nonzero(~sound))
