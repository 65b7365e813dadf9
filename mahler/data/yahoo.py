"""Chains as Yahoo Finance shows them: gzipped CSVs, YYYY-MM-DD-TICKER.csv.gz, one row per contract.

    contractSymbol, expiry, type, strike, lastPrice, bid, ask, volume, openInterest, impliedVolatility,
    inTheMoney, lastTradeDate, spot, session

What the columns are, rather than what they are called:
- `session` and `spot` are the last *complete* session and its close. The quotes are newer: those of the moment
  of download, often the next morning. Rows are therefore dated by the newest `lastTradeDate` (in New York), and
  the underlying is what the quotes imply, not `spot`.
- `lastPrice` may be weeks old and `impliedVolatility` has placeholders (0, 0.00001): neither is read. IVs and
  greeks are computed (mahler.implied) and flagged as such.
- an empty `volume` is a contract without a trade, which the vendor never writes as 0; an empty `openInterest` or
  `bid` is missing. Many strikes have a call without a put or the reverse: the absent side has no quote.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from datetime import date, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np

from mahler.data import contracts, files
from mahler.data.calendar import is_session
from mahler.data.files import DayFile, Ingested, Progress, Reading
from mahler.implied import GREEKS
from mahler.schema import ConfigError, Table, one_line, shown

STORE = "yahoo"
SYNTHETIC = False

NUMBERS = ("strike", "bid", "ask", "volume", "openInterest", "spot")
TEXT = ("contractSymbol", "expiry", "type", "lastTradeDate", "session")
CALL, PUT = "C", "P"
MAX_BYTES = 16 << 20    # a file of SPY up to 90 days has 1 MiB
MAX_LAG = 5             # calendar days by which quotes may be newer than their session: over a long weekend

_NAME = re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})-(?P<ticker>[A-Z][A-Z0-9.]*)\.csv\.gz")
_NEW_YORK = ZoneInfo("America/New_York")


def ingest(root: Path, progress: Progress, *, path: Path | None, tickers: Sequence[str], start: date | None,
           end: date | None, max_dte: Annotated[int | None, files.MAX_DTE], rate: Annotated[float, contracts.RATE],
           workers: Annotated[int, files.WORKERS]) -> Ingested:
    """Read files of the vendor's chains into the store `root`/yahoo.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    path : Path
        A file, a folder (searched recursively) or a glob of YYYY-MM-DD-TICKER.csv.gz.
    start, end : date or None
        First and last day of the quotes; None is open.
    max_dte : int or None
        Rows up to this many calendar days to expiration are kept; None keeps all.
    rate : float
        Continuously compounded, a year; discounts options for IVs and greeks.

    Raises
    ------
    ConfigError
        One line that names file, row and column where a file is not what it should be.
    """
    found = []
    for p in files.find(path, (".csv.gz",)):
        match = _NAME.fullmatch(p.name)
        found.append(DayFile(files.day_of(p, match, "2026-08-12-SPY.csv.gz"), p, match["ticker"],
                             days=1 + MAX_LAG))
    wanted = files.of_tickers(found, tickers, path)
    read = partial(read_file, max_dte=max_dte, rate=rate)
    return files.ingest(root, wanted, read, tickers, source=STORE, start=start, end=end, max_dte=max_dte,
                        progress=progress, workers=workers)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


def read_file(file: DayFile, *, max_dte: int | None, rate: float) -> list[Reading]:
    """The chain in one file, a row per expiry and strike."""
    raw = _parse(file.path, _bytes(file.path))
    _check_names(file, raw)
    day = _quote_day(file, raw["lastTradeDate"])
    options, counts = contracts.usable(_options(raw, day), ("expiry", "strike", "is_call"), ("bid", "ask"), max_dte, {})
    if not counts["kept"]:
        return []
    nothing = np.full(counts["kept"], np.nan)       # `spot` is of another day than the quotes
    rows = contracts.join(options | {name: nothing for name in ("underlying", "iv", *GREEKS)})
    table, mended = contracts.chain(rows, rate)
    if not np.isfinite(table["underlying"]).any():
        raise ConfigError(f"{file.path}: no expiry has two-sided quotes of call and put at enough strikes to imply "
                          f"the underlying")
    for name in ("underlying_implied", "iv_computed", "greeks_computed"):
        del mended[name]                            # of every row, by nature
    counts |= mended | {"strikes": len(table["strike"]),
                        "quotes_newer_than_session": len(raw["strike"]) if day > file.day else 0}
    return [Reading(file.ticker, table, {name: n for name, n in counts.items() if n or name in ("read", "kept")})]


def _bytes(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError, OSError) as error:
        raise ConfigError(f"{path} cannot be read (truncated or damaged): {error}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes, the most that is read")
    return data


def _parse(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """The columns that are used: NUMBERS as float64 with NaN where empty, TEXT as str objects, dates as dates."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {name: pa.string() for name in (*TEXT, *NUMBERS)}
    try:
        arrow = arrow_csv.read_csv(BytesIO(data), arrow_csv.ReadOptions(use_threads=False),
                                   arrow_csv.ParseOptions(quote_char=False),    # a stray one would swallow lines
                                   convert_options=arrow_csv.ConvertOptions(column_types=types))
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path} is not a CSV of chains: {one_line(error)}") from error
    missing = [name for name in (*TEXT, *NUMBERS) if name not in arrow.column_names]
    if missing:
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)}")
    if not arrow.num_rows:
        raise ConfigError(f"{path} has no row")
    raw = {name: arrow[name].to_numpy(zero_copy_only=False) for name in TEXT}
    raw |= {name: _numbers(path, name, arrow[name].to_pylist()) for name in NUMBERS}
    raw |= {name: _dates(path, name, raw[name]) for name in ("expiry", "session")}
    return raw


def _numbers(path: Path, name: str, texts: Sequence[str | None]) -> np.ndarray:
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        if not files.is_number(text or ""):
            raise ConfigError(f"{path}: row {row + 2} column {name} must be a number, got {shown(text)}")
        values[row] = float(text or "nan")
    return values


def _dates(path: Path, name: str, texts: np.ndarray) -> np.ndarray:
    """ISO dates, datetime64[D] (n,)."""
    unique, inverse = np.unique(texts.astype(str), return_inverse=True)
    out = np.empty(len(unique), "datetime64[D]")
    for i, text in enumerate(unique):
        try:
            if len(text) != 10 or not "1900" <= text < "2200":
                raise ValueError
            out[i] = np.datetime64(text, "D")
        except ValueError:
            row = int(np.flatnonzero(inverse == i)[0]) + 2
            raise ConfigError(f"{path}: row {row} column {name} must be a date, YYYY-MM-DD, "
                              f"got {shown(text)}") from None
    return out[inverse]


def _check_names(file: DayFile, raw: dict[str, np.ndarray]) -> None:
    """Raise ConfigError at the first row that is not of the file's day and ticker, or contradicts itself."""
    spelled = [f"{file.ticker}{expiry:%y%m%d}{side}{strike * 1000:08.0f}" for expiry, side, strike in
               zip(raw["expiry"].astype(object), raw["type"], raw["strike"], strict=True)]
    for column, wrong, valid in (
            ("session", raw["session"] != file.day, [f"{file.day} as in the file's name"]),
            ("type", ~np.isin(raw["type"].astype(str), [CALL, PUT]), ["C or P"]),
            ("contractSymbol", raw["contractSymbol"] != np.array(spelled, dtype=object), spelled)):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ConfigError(f"{file.path}: row {row + 2} column {column} must be {valid[row % len(valid)]}, "
                              f"got {shown(raw[column][row])}")


def _quote_day(file: DayFile, last_trade: np.ndarray) -> np.datetime64:
    """The session of the quotes: that of the newest trade, in New York, and never before the one in the name."""
    newest, row = max((_time(file.path, row, text), row) for row, text in enumerate(last_trade, 2))
    day = max(np.datetime64(newest.date(), "D"), file.day)
    if (day - file.day).astype(int) > MAX_LAG or not is_session(np.array([day]))[0]:
        raise ConfigError(f"{file.path}: row {row} column lastTradeDate is the newest trade, of {day}, expected a "
                          f"session at most {MAX_LAG} calendar days after {file.day}")
    return day


def _time(path: Path, row: int, text: str) -> datetime:
    """In New York."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(_NEW_YORK)
    except (TypeError, ValueError, OverflowError):      # the last is of the first and the last day that there is
        pass
    raise ConfigError(f"{path}: row {row} column lastTradeDate must be an ISO time with its offset from UTC, "
                      f"got {shown(text)}")


def _options(raw: dict[str, np.ndarray], day: np.datetime64) -> Table:
    """The columns of `raw` by our names, quoted on `day`; an empty volume, which the vendor never writes as 0, is 0."""
    return {"date": np.full(len(raw["strike"]), day), "expiry": raw["expiry"], "strike": raw["strike"],
            "underlying": raw["spot"], "is_call": raw["type"] == CALL, "bid": raw["bid"], "ask": raw["ask"],
            "volume": np.nan_to_num(raw["volume"]), "open_interest": raw["openInterest"]}
