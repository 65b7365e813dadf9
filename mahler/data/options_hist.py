"""options-dataset-hist: Parquet by year of SPY and IWM (2008-2025) and QQQ (2011-2025), one row per option and day.

    parquet_spy/options_2008.parquet, ..., parquet_spy/underlying_prices.parquet

MIT, on GitHub, philippdubach/options-dataset-hist; the files are in Git LFS. What is to be known of them:
- many an `implied_volatility` is no measurement: it lies on a lattice of steps of a whole vol point, 0.01488 + k x
  0.00976, which is where a bisection of [0.01, 10] stands after ten halvings (the least and the greatest IV of the
  archive's own report, 0.015 and 9.995, are its ends). Such IVs, and the greeks beside them, are placeholders: they
  are computed again from the quotes (mahler.implied) and flagged; where they cannot be, they are missing.
- quotes are of the close, and the options carry no underlying: it is the unadjusted `close` in
  underlying_prices.parquet beside them, and what the quotes imply where that has none.
- expirations are dated Saturday until February 2015, and a few rows are of days without a session.
- `date` and `expiration` are text in some files and timestamps in others. `last`, `mark`, `rho` and `in_the_money`
  (which is wrong) are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from mahler.data import contracts, files, store
from mahler.data.calendar import is_session
from mahler.data.files import DROPPED, DayFile, Ingested, Progress, Reading
from mahler.implied import GREEKS
from mahler.schema import ConfigError, Table, shown

STORE = "options_hist"
SYNTHETIC = False

NUMBERS = {"strike": "strike", "bid": "bid", "ask": "ask", "volume": "volume", "open_interest": "open_interest",
           "iv": "implied_volatility", **{name: name for name in GREEKS}}      # ours: theirs
DATES = {"date": "date", "expiry": "expiration"}
CALL, PUT = "call", "put"
PRICES = "underlying_prices.parquet"

# First IV and step of the lattice: of the bisection, and as both are when they are rounded before they are multiplied.
LATTICES = ((0.01 + 9.99 / 2048, 9.99 / 1024), (0.01488, 0.00976))
DECIMALS = 1e-5                             # to which IVs are rounded

_NAME = re.compile(r"options_(?P<year>\d{4})\.parquet")


def ingest(root: Path, progress: Progress, *, path: Path | None, tickers: Sequence[str], start: date | None,
           end: date | None, max_dte: Annotated[int | None, files.MAX_DTE], rate: Annotated[float, contracts.RATE],
           workers: Annotated[int, files.WORKERS]) -> Ingested:
    """Read yearly files into the store `root`/options_hist.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    path : Path
        A file, a folder (searched recursively) or a glob of options_YYYY.parquet, each with the
        underlying_prices.parquet of its ticker beside it.
    start, end : date or None
        First and last trade date; None is open.
    max_dte : int or None
        Rows up to this many calendar days to expiration are kept; None keeps all.
    rate : float
        Continuously compounded, a year; discounts options for IVs and greeks.

    Raises
    ------
    ConfigError
        One line that names file and column where a file is not what it should be.
    """
    found = [_file(p) for p in files.find(path, (".parquet",)) if p.name != PRICES]
    wanted = files.of_tickers(found, tickers, path)
    read = partial(read_file, start=start, end=end, max_dte=max_dte, rate=rate)
    return files.ingest(root, wanted, read, tickers, source=STORE, start=start, end=end, max_dte=max_dte,
                        progress=progress, workers=workers)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


def read_file(file: DayFile, *, start: date | None, end: date | None, max_dte: int | None, rate: float
              ) -> list[Reading]:
    """The chains of the days from `start` to `end` in one file."""
    options, far = _options(file, np.datetime64(start or "1900-01-01"), np.datetime64(end or "2200-01-01"), max_dte)
    close = _closes(file.path.with_name(PRICES))
    return contracts.readings(file.ticker, (
        _day(of_day, beyond, close.get(day.astype(object), np.nan), max_dte, rate)
        for day, of_day, beyond in contracts.days_of(options, far)))


def _file(path: Path) -> DayFile:
    """The file with the first day of the year in its name and the ticker in its rows."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ConfigError(f"{path}: the name must be like options_2024.parquet")
    first = next((batch["symbol"] for batch in store.read_foreign(path, texts=["symbol"])), ())
    if not len(first):
        raise ConfigError(f"{path} has no row")
    if not first[0]:
        raise ConfigError(f"{path}: row 1 column symbol must be a ticker, it is missing")
    year = np.datetime64(match["year"])
    return files.spanning(year, year, path, first[0])


# ---------------------------------------------------------------------------------------------- Parquet


def _options(file: DayFile, first: np.datetime64, last: np.datetime64, max_dte: int | None) -> tuple[Table, Counter]:
    """The options quoted from `first` to `last` by our names, and how many of each day are beyond `max_dte`."""
    parts, far, at = [], Counter(), 0
    for batch in store.read_foreign(file.path, numbers=list(NUMBERS.values()), dates=list(DATES.values()),
                                    texts=["symbol", "type"]):
        _check(file, batch, at)
        part = {ours: batch[theirs] for ours, theirs in (NUMBERS | DATES).items()} | {"is_call": batch["type"] == CALL}
        inside = (part["date"] >= first) & (part["date"] <= last)
        near, beyond = contracts.within({name: column[inside] for name, column in part.items()}, max_dte)
        parts.append(near)
        far += beyond
        at += len(inside)
    if not parts:
        raise ConfigError(f"{file.path} has no row")
    return contracts.stacked(parts), far


def _check(file: DayFile, batch: Table, at: int) -> None:
    """Raise ConfigError at the first row, of those from `at` on, that cannot be of this file."""
    year = file.day.astype("datetime64[Y]")
    for column, wrong, valid in (
            ("symbol", batch["symbol"] != file.ticker, f"{file.ticker} as in the first row"),
            ("type", (batch["type"] != CALL) & (batch["type"] != PUT), f"{CALL} or {PUT}"),
            ("date", batch["date"].astype("datetime64[Y]") != year, f"a date of {year} as in the file's name"),
            ("expiration", np.isnat(batch["expiration"]), "a date")):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ConfigError(f"{file.path}: row {at + row + 1} column {column} must be {valid}, "
                              f"got {shown(batch[column][row])}")


def _closes(path: Path) -> dict[date, float]:
    """The unadjusted close of each day in `path`, dollars; empty where there is no such file."""
    if not path.exists():
        return {}
    closes: dict[date, float] = {}
    for batch in store.read_foreign(path, numbers=["close"], dates=["date"]):
        closes |= dict(zip(batch["date"].astype(object), batch["close"].tolist(), strict=True))
    return closes


# ---------------------------------------------------------------------------------------------- rows


def _day(options: Table, beyond: dict[str, int], close: float, max_dte: int | None, rate: float
         ) -> tuple[Table | None, dict[str, int]]:
    """schema.CHAIN of one day, None where nothing of it can be kept, and what became of its options."""
    n = len(options["strike"])
    if not is_session(options["date"][:1])[0]:
        n += beyond["read"]
        return None, {"read": n, "kept": 0, f"{DROPPED}not_a_session": n}
    options["underlying"] = np.full(n, close)
    options, counts = contracts.usable(options, ("expiry", "strike", "is_call"), ("bid", "ask"), max_dte, beyond)
    if not counts["kept"]:
        return None, counts
    placeholder = on_lattice(options["iv"])
    options |= {name: np.where(placeholder, np.nan, options[name]) for name in ("iv", *GREEKS)}
    counts["placeholder_iv"] = int(np.count_nonzero(placeholder))
    rows = contracts.join(options)
    table, mended = contracts.chain(rows, rate)
    return table, counts | {"strikes": len(rows["strike"])} | mended


def on_lattice(iv: np.ndarray) -> np.ndarray:
    """Whether each IV (n,) is one of those at which the vendor's bisection may stop, bool (n,).

    One genuine IV in 250 is there by chance, and is computed again like the others.
    """
    found = np.zeros(len(iv), bool)
    for first, step in LATTICES:
        k = np.round((iv - first) / step)
        with np.errstate(invalid="ignore"):
            found |= (k >= 0) & (np.abs(iv - first - k * step) <= DECIMALS)
    return found
