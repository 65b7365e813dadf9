"""OptionsDX end-of-day text: one row per strike of an expiry with its call and its put, quoted at 16:00 New York.

    [QUOTE_UNIXTIME], [QUOTE_READTIME], [QUOTE_DATE], ..., [UNDERLYING_LAST], [EXPIRE_DATE], ..., [C_DELTA], ...

A file holds a month (spy_eod_202303.txt), a year or several (spy_2020_2022.csv) of one ticker, which only its name
tells. What is to be known of the format:
- names stand in brackets, names and cells after a space; columns are read by name.
- there is no open interest: it is missing, and an entry rule with a floor for it finds nothing.
- the IV of an option deep in the money is often blank, and its greeks then are no greeks: a side without an IV has
  none of the vendor's. IVs and greeks that are missing are computed (mahler.implied) and flagged.
- `[DTE]` has fractions, of the hour that daylight saving moves: it is compared with the dates and not used.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from mahler.data import contracts, files
from mahler.data.calendar import is_session
from mahler.data.files import DROPPED, DayFile, Ingested, Progress, Reading
from mahler.schema import ConfigError, Table, one_line, shown

STORE = "optionsdx"
SYNTHETIC = False

NUMBERS = {  # ours: theirs
    "underlying": "UNDERLYING_LAST", "strike": "STRIKE", "dte": "DTE",
    **{f"{side}_{ours}": f"{letter}_{theirs}" for letter, side in (("C", "call"), ("P", "put"))
       for ours, theirs in (("bid", "BID"), ("ask", "ASK"), ("iv", "IV"), ("delta", "DELTA"), ("gamma", "GAMMA"),
                            ("theta", "THETA"), ("vega", "VEGA"), ("volume", "VOLUME"))},
}
DATES = {"date": "QUOTE_DATE", "expiry": "EXPIRE_DATE"}
QUOTES = ("call_bid", "call_ask", "put_bid", "put_ask")

BLOCK = 16 << 20        # bytes of text that are parsed at a time
MAX_HEADER = 1 << 16
_BLANK = ["", *(" " * n for n in range(1, 9))]
_NAME = re.compile(r"(?P<ticker>[a-z][a-z0-9.]*)(_eod)?_(?P<year>\d{4})(?P<month>\d{2})?(_(?P<last>\d{4}))?\.(txt|csv)",
                   re.IGNORECASE)


def ingest(root: Path, progress: Progress, *, path: Path | None, tickers: Sequence[str], start: date | None,
           end: date | None, max_dte: Annotated[int | None, files.MAX_DTE], rate: Annotated[float, contracts.RATE],
           workers: Annotated[int, files.WORKERS]) -> Ingested:
    """Read unpacked files into the store `root`/optionsdx.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    path : Path
        A file, a folder (searched recursively) or a glob of <ticker>_eod_YYYYMM.txt.
    start, end : date or None
        First and last trade date; None is open.
    max_dte : int or None
        Rows up to this many calendar days to expiration are kept; None keeps all.
    rate : float
        Continuously compounded, a year; discounts options where IVs and greeks are computed.

    Raises
    ------
    ConfigError
        One line that names file, row and column where a file is not what it should be.
    """
    wanted = files.of_tickers([_file(p) for p in files.find(path, (".txt", ".csv"))], tickers, path)
    read = partial(read_file, start=start, end=end, max_dte=max_dte, rate=rate)
    return files.ingest(root, wanted, read, tickers, source=STORE, start=start, end=end, max_dte=max_dte,
                        progress=progress, workers=workers)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


def read_file(file: DayFile, *, start: date | None, end: date | None, max_dte: int | None, rate: float
              ) -> list[Reading]:
    """The chains of the days from `start` to `end` in one file."""
    rows, far = _rows(file.path, np.datetime64(start or "1900-01-01"), np.datetime64(end or "2200-01-01"), max_dte)
    return contracts.readings(file.ticker, (
        _day(of_day, beyond, max_dte, rate) for _, of_day, beyond in contracts.days_of(rows, far)))


def _file(path: Path) -> DayFile:
    """The file with the ticker and the month, the year or the years in its name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ConfigError(f"{path}: the name must be like spy_eod_202303.txt: OptionsDX says the ticker nowhere else")
    month = match["month"] or "01"
    if not 1 <= int(month) <= 12:
        raise ConfigError(f"{path}: the name must be like spy_eod_202303.txt, got the month {month}")
    first = np.datetime64(f"{match['year']}-{month}" if match["month"] else match["year"])
    last = first if match["month"] else np.datetime64(match["last"] or match["year"])
    return files.spanning(first, last, path, match["ticker"].upper())


# ---------------------------------------------------------------------------------------------- text


def _rows(path: Path, first: np.datetime64, last: np.datetime64, max_dte: int | None) -> tuple[Table, Counter]:
    """The rows quoted from `first` to `last` by our names, and how many of each day are beyond `max_dte`."""
    parts, far, at = [], Counter(), 2
    for block in _parsed(path, _header(path)):
        for name, theirs in DATES.items():
            if np.isnat(block[name]).any():
                raise ConfigError(f"{path}: row {at + int(np.argmax(np.isnat(block[name])))} column {theirs} is blank")
        inside = (block["date"] >= first) & (block["date"] <= last)
        near, beyond = contracts.within({name: column[inside] for name, column in block.items()}, max_dte)
        parts.append(near)
        far += beyond
        at += len(inside)
    if not parts:
        raise ConfigError(f"{path} has no row")
    return contracts.stacked(parts), far


def _header(path: Path) -> list[str]:
    """Column names without brackets; ConfigError unless they are those of OptionsDX, each once."""
    try:
        with open(path, "rb") as stream:
            line = stream.readline(MAX_HEADER).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    names = [name.strip().strip('"').strip().strip("[]") for name in line.split(",")]
    missing = [name for name in (*DATES.values(), *NUMBERS.values()) if name not in names]
    if missing:
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)}: not a file of OptionsDX")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path} has the columns {', '.join(twice)} twice")
    return names


def _parsed(path: Path, header: list[str]) -> Iterator[Table]:
    """The columns that are used, a block of text at a time, so that memory does not grow with unread columns."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {theirs: pa.float64() for theirs in NUMBERS.values()} | {theirs: pa.date32() for theirs in DATES.values()}
    try:
        reader = arrow_csv.open_csv(
            path, arrow_csv.ReadOptions(column_names=header, skip_rows=1, use_threads=False, block_size=BLOCK),
            arrow_csv.ParseOptions(quote_char=False),       # a stray quote would swallow the lines up to the next
            arrow_csv.ConvertOptions(include_columns=list(types), column_types=types,
                                                     null_values=_BLANK))
        for batch in reader:
            yield {ours: batch.column(theirs).to_numpy(zero_copy_only=False).astype(kind)
                   for kind, names in (("f8", NUMBERS), ("M8[D]", DATES)) for ours, theirs in names.items()}
    except pa.ArrowInvalid as error:
        if str(error).startswith("Empty CSV"):
            return
        raise _fault(path, header, str(error)) from error


def _fault(path: Path, header: list[str], reason: str) -> ConfigError:
    """The error that names the first row that cannot be parsed."""
    with open(path, encoding="utf-8", errors="replace", newline="") as text:
        rows = csv.reader(text, quoting=csv.QUOTE_NONE)
        next(rows)
        for number, cells in enumerate(rows, 2):
            if not cells:
                continue
            if len(cells) != len(header):
                return ConfigError(f"{path}: row {number} has {len(cells)} columns, the header {len(header)}")
            row = dict(zip(header, map(str.strip, cells)))
            for column in NUMBERS.values():
                if not files.is_number(row[column]):
                    return ConfigError(f"{path}: row {number} column {column} must be a number, "
                                       f"got {shown(row[column])}")
            for column in DATES.values():
                if not _is_date(row[column]):
                    return ConfigError(f"{path}: row {number} column {column} must be a date, YYYY-MM-DD, "
                                       f"got {shown(row[column])}")
    return ConfigError(f"{path}: {one_line(reason)}")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == 10


# ---------------------------------------------------------------------------------------------- rows


def _day(rows: Table, beyond: dict[str, int], max_dte: int | None, rate: float
         ) -> tuple[Table | None, dict[str, int]]:
    """schema.CHAIN of one day, None where nothing of it can be kept, and what became of its rows."""
    if not is_session(rows["date"][:1])[0]:
        n = len(rows["strike"]) + beyond["read"]
        return None, {"read": n, "kept": 0, f"{DROPPED}not_a_session": n}
    known = rows["underlying"][rows["underlying"] > 0]
    usual = np.median(known) if len(known) else np.nan      # of quotes of one moment there is one
    mended = np.isfinite(usual) & (rows["underlying"] != usual)
    rows["underlying"] = np.full(len(mended), usual)
    apart = np.abs(rows.pop("dte") - (rows["expiry"] - rows["date"]).astype(int))
    rows, counts = contracts.usable(rows, ("expiry", "strike"), QUOTES, max_dte, beyond)
    counts |= {files.DTE_MISMATCH: int(np.count_nonzero(apart > 0.5)),
               "underlying_mended": int(np.count_nonzero(mended))}
    if not counts["kept"]:
        return None, counts
    nothing = np.full(counts["kept"], np.nan)
    table, mended = contracts.chain(rows | {f"{side}_open_interest": nothing for side in ("call", "put")}, rate)
    del mended["call_open_interest_missing"], mended["put_open_interest_missing"]       # of every row, by nature
    return table, counts | mended
