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

from mahler.data import files
from mahler.data.calendar import is_session, last_session_on_or_before
from mahler.data.files import DROPPED, DayFile, Ingested, Progress, Reading
from mahler.implied import complete
from mahler.schema import CHAIN, Bound, ConfigError, Table, empty, one_line, shown

STORE = "yahoo"
SYNTHETIC = False

NUMBERS = ("strike", "bid", "ask", "volume", "openInterest", "spot")
TEXT = ("contractSymbol", "expiry", "type", "lastTradeDate", "session")
SIDES = {"C": "call", "P": "put"}
MAX_BYTES = 16 << 20    # a file of SPY up to 90 days has 1 MiB
MIN_STRIKE, MAX_STRIKE = 0.01, 1e6      # dollars per share
MAX_QUOTE = 10.0        # times the larger of spot and strike: no option is worth a tenth of that
MAX_LAG = 5             # calendar days by which quotes may be newer than their session: over a long weekend

RATE = Bound("a continuously compounded rate a year", -0.1, 0.5)

_NAME = re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})-(?P<ticker>[A-Z][A-Z0-9.]*)\.csv\.gz")
_NEW_YORK = ZoneInfo("America/New_York")


def ingest(root: Path, progress: Progress, *, path: Path | None, tickers: Sequence[str], start: date | None,
           end: date | None, max_dte: Annotated[int | None, files.MAX_DTE], rate: Annotated[float, RATE],
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
        found.append(DayFile(files.day_of(p, match, "2026-08-12-SPY.csv.gz"), p, match["ticker"]))
    wanted = [file for file in found if file.ticker in tickers]
    if not wanted:
        there = ", ".join(sorted({file.ticker for file in found}))
        raise ConfigError(f"data.path: {path} has no file of {', '.join(tickers)} (there: {there})")
    read = partial(read_file, max_dte=max_dte, rate=rate)
    return files.ingest(root, wanted, read, tickers, source=STORE, start=start, end=end, max_dte=max_dte,
                        progress=progress, workers=workers, lag=MAX_LAG)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


def read_file(file: DayFile, *, max_dte: int | None, rate: float) -> list[Reading]:
    """The chain in one file, a row per expiry and strike."""
    raw = _parse(file.path, _bytes(file.path))
    _check_names(file, raw)
    day = _quote_day(file, raw["lastTradeDate"])
    contracts, counts = _usable(raw, day, max_dte)
    if not counts["kept"]:
        return []
    # An empty volume is a contract that has not traded; it is never written as 0.
    contracts["volume"], counts["volume_missing"] = files.whole(np.nan_to_num(contracts["volume"]))
    contracts["openInterest"], counts["open_interest_missing"] = files.whole(contracts["openInterest"])
    table = _joined(contracts, day)
    counts["strikes"] = len(table["strike"])
    table = complete(table, rate)
    if not np.isfinite(table["underlying"]).any():
        raise ConfigError(f"{file.path}: no expiry has two-sided quotes of call and put at enough strikes to imply "
                          f"the underlying")
    counts["without_greeks"] = int(np.count_nonzero(np.isnan(table["delta"])))
    counts["quotes_newer_than_session"] = len(raw["strike"]) if day > file.day else 0
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
            ("type", ~np.isin(raw["type"].astype(str), list(SIDES)), ["C or P"]),
            ("contractSymbol", raw["contractSymbol"] != np.array(spelled, dtype=object), spelled)):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ConfigError(f"{file.path}: row {row + 2} column {column} must be {valid[row % len(valid)]}, "
                              f"got {shown(raw[column][row])}")


def _quote_day(file: DayFile, last_trade: np.ndarray) -> np.datetime64:
    """The session of the quotes: that of the newest trade, in New York, and never before the one in the name."""
    newest = max(_time(file.path, row, text) for row, text in enumerate(last_trade, 2))
    day = max(np.datetime64(newest.astimezone(_NEW_YORK).date(), "D"), file.day)
    if (day - file.day).astype(int) > MAX_LAG or not is_session(np.array([day]))[0]:
        raise ConfigError(f"{file.path}: its newest trade is of {day}, expected a session at most {MAX_LAG} calendar "
                          f"days after {file.day}")
    return day


def _time(path: Path, row: int, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise ConfigError(f"{path}: row {row} column lastTradeDate must be an ISO time with its offset from UTC, "
                          f"got {shown(text)}")
    return time


def _usable(raw: dict[str, np.ndarray], day: np.datetime64, max_dte: int | None
            ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Contracts that can be in the store, and how many were left out by the first reason that applies."""
    expiry = last_session_on_or_before(raw["expiry"])
    strike, bid, ask = raw["strike"], raw["bid"], raw["ask"]
    dte = (expiry - day).astype(int)
    quotes = np.array([bid, ask])                               # (2, n)
    reasons = {
        "expired": dte < 0,
        "beyond_max_dte": np.zeros(len(dte), bool) if max_dte is None else dte > max_dte,
        "bad_strike": ~((strike >= MIN_STRIKE) & (strike < MAX_STRIKE)),
        "bad_price": ((quotes < 0) | (quotes > MAX_QUOTE * np.maximum(strike, raw["spot"]))).any(axis=0),
    }
    left, counts = np.ones(len(dte), bool), {"read": len(dte)}
    for reason, bad in reasons.items():
        counts[f"{DROPPED}{reason}"] = int(np.count_nonzero(left & bad))
        left &= ~bad
    counts[files.EXPIRY_MOVED] = int(np.count_nonzero(left & (expiry != raw["expiry"])))
    columns = {name: raw[name][left] for name in ("type", "strike", "bid", "ask", "volume", "openInterest")}
    contracts, repeated = files.unique(columns | {"expiry": expiry[left]}, ("expiry", "strike", "type"))
    counts["kept"] = len(contracts["strike"])
    return contracts, counts | {f"{DROPPED}{reason}": n for reason, n in repeated.items()}


def _joined(contracts: dict[str, np.ndarray], day: np.datetime64) -> Table:
    """schema.CHAIN with the call and the put of a strike on one row; underlying, IVs and greeks still missing."""
    key = np.empty(len(contracts["strike"]), [("expiry", "datetime64[D]"), ("strike", "f8")])
    key["expiry"], key["strike"] = contracts["expiry"], contracts["strike"]
    keys, row = np.unique(key, return_inverse=True)
    table = empty(CHAIN, len(keys))
    for name in CHAIN.names:
        if CHAIN[name].kind == "f":
            table[name][:] = np.nan
    table["date"][:], table["expiry"], table["strike"] = day, keys["expiry"].copy(), keys["strike"].copy()
    for letter, side in SIDES.items():
        mine = contracts["type"] == letter
        at = row[mine]
        table[f"{side}_bid"][at], table[f"{side}_ask"][at] = contracts["bid"][mine], contracts["ask"][mine]
        for ours, theirs in (("volume", "volume"), ("open_interest", "openInterest")):
            table[f"{side}_{ours}"][:] = -1
            table[f"{side}_{ours}"][at] = contracts[theirs][mine]
    return table
