"""The synthetic market of 2007-2025 as a source: the same store as everything else, without a download.

What it models is in mahler/market/. Results on it are labelled synthetic, and nothing found on it is promoted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import numpy as np

from mahler.data import calendar, daily, store
from mahler.data.calendar import sessions
from mahler.data.files import Ingested, Progress
from mahler.home import user_path
from mahler.market import chain, listings, path, simulation
from mahler.market.turning_points import TICKERS
from mahler.schema import Bound, ConfigError, Table
from mahler.workers import pool as workers_pool

SYNTHETIC = True
"""What is found on this source is labelled as found on a made-up market."""

MARKET_VERSION = 1
"""Raised when any number that the market makes changes: it is part of the store's name."""

SEED = Bound("a number of the random generator", 0)
MAX_DTE = Bound("calendar days to expiration", 1, listings.LONGEST_LEAD)
VARIANCE_PREMIUM = Bound("a share of the real variance premium", 0.0, 1.0)
DRIFT = Bound("a share of the way through the turning points", 0.0, 1.0)

PARAMETERS = ("seed", "max_dte", "variance_premium", "drift", "anchor")
TENOR_COLUMNS = ("VIX9D", "VIX", "VIX3M", "VIX6M")


def ingest(root: Path, progress: Progress, *, tickers: Sequence[str], start: date | None, end: date | None,
           seed: Annotated[int, SEED], max_dte: Annotated[int, MAX_DTE],
           variance_premium: Annotated[float, VARIANCE_PREMIUM], drift: Annotated[float, DRIFT],
           anchor: str | None, workers: Annotated[int, Bound("a number of processes", 1, 256)]) -> Ingested:
    """Make the partitions that `root`/`store_name` lacks; those that are there and whole are left alone.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    start, end : date or None
        First and last trade date; None is that of the market.
    seed : int
        Another seed is another market.
    max_dte : int
        Rows up to this many calendar days to expiration.
    variance_premium, drift : float
        1 is like the real market. 0 and 0 is the null market: every option has its fair price at the mid.
    anchor : str or None
        A daily CSV or Parquet file (date, IWM_close, QQQ_close, SPY_close, VIX, and where known VIX9D, VIX3M, VIX6M,
        VXN, DTB3) that takes the place of the simulated path; `variance_premium` and `drift` are then 1.

    Raises
    ------
    ConfigError
        For a ticker, a period or a number that the market does not have, or an anchor that is not a daily file.
    """
    params = dict(seed=seed, max_dte=max_dte, variance_premium=variance_premium, drift=drift, anchor=anchor)
    name = store_name(**params)
    wanted = [(ticker, year, *_period(start, end, year, _market(**params).sessions))
              for ticker, year in partitions(tickers, start, end, **params)]
    jobs = [job for job in (_extended(Path(root) / name, *item) for item in wanted) if job is not None]
    done = len(wanted) - len(jobs)
    progress(done, len(wanted), "already there" if done else "")
    written = []
    make = partial(_make, Path(root) / name, params)
    # The latest years are the largest: they come first, so that no process is left alone with one at the end.
    for info in _map(make, sorted(jobs, key=lambda job: -job[1]), workers):
        written.append(info)
        progress(done + len(written), len(wanted), f"{info.ticker} {info.year}")
    rows = {ticker: sum(info.rows for info in written if info.ticker == ticker) for ticker in tickers}
    return Ingested(root=Path(root) / name, source=name, files=0, files_outside=0, partitions=written,
                    counts={ticker: {"read": n, "kept": n} for ticker, n in rows.items()})


def partitions(tickers: Sequence[str], start: date | None, end: date | None, *, seed: int, max_dte: int,
               variance_premium: float, drift: float, anchor: str | None) -> list[tuple[str, int]]:
    """The (ticker, year) of the period, tickers in the order given, years ascending. Raises like `ingest`."""
    market = _market(seed=seed, max_dte=max_dte, variance_premium=variance_premium, drift=drift, anchor=anchor)
    _check_tickers(tickers)
    days = market.sessions[_inside(market.sessions, start, end)]
    years = np.unique(days.astype("datetime64[Y]").astype(int) + 1970)
    return [(ticker, int(year)) for ticker in tickers for year in years]


def closes(tickers: Sequence[str], *, seed: int, max_dte: int, variance_premium: float, drift: float,
           anchor: str | None) -> Table:
    """The market's daily series, whole: date, <TICKER>_close in dollars, VIX and its kin in points, DTB3 in percent.

    The names and units of the files under data/daily/. Raises like `ingest`.
    """
    market = _market(seed=seed, max_dte=max_dte, variance_premium=variance_premium, drift=drift, anchor=anchor)
    _check_tickers(tickers)
    table = {"date": market.sessions}
    table |= {f"{ticker}_close": market.closes[:, TICKERS.index(ticker)] for ticker in tickers}
    table |= {name: market.tenors[:, k] for k, name in enumerate(TENOR_COLUMNS)}
    table["VXN"] = np.round(table["VIX"] * market.ratios[:, path.QQQ], 2)
    table["DTB3"] = np.round(100.0 * market.rates, 2)
    return table


def series(**options: object) -> daily.Daily:
    """The daily series of the market that `ingest` makes with these options."""
    params = {name: options[name] for name in PARAMETERS}
    return daily.from_table(closes(TICKERS, **params))


def store_name(*, seed: int, max_dte: int, variance_premium: float, drift: float, anchor: str | None,
               **_: object) -> str:
    """The name of the store: "synthetic-" and eight hex digits of everything that can change a row."""
    content = json.dumps({
        "market": MARKET_VERSION, "seed": int(seed), "max_dte": int(max_dte), "drift": float(drift),
        "variance_premium": float(variance_premium), "anchor": None if anchor is None else _digest(anchor),
    }, sort_keys=True)
    return f"synthetic-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


# ---------------------------------------------------------------------------------------------- arguments


def _check_tickers(tickers: Sequence[str]) -> None:
    if not tickers:
        raise ConfigError("data.tickers is empty: name at least one ticker")
    for ticker in tickers:
        if ticker not in TICKERS:
            raise ConfigError(f"data.tickers: the synthetic market has {', '.join(TICKERS)}, got {ticker!r}")


def _inside(days: np.ndarray, start: date | None, end: date | None) -> np.ndarray:
    """Which of the market's sessions are in the period, bool (n,); ConfigError where it has others or none."""
    first = days[0] if start is None else np.datetime64(start, "D")
    last = days[-1] if end is None else np.datetime64(end, "D")
    if first > last:
        raise ConfigError(f"data.start is a date on or before data.end, got {first} and {last}")
    inside = (days >= first) & (days <= last)
    for key, day, beyond in (("data.start", first, sessions(first, days[0] - 1)),
                             ("data.end", last, sessions(days[-1] + 1, last))):
        if len(beyond):
            raise ConfigError(f"{key} is a date within {days[0]} to {days[-1]}, where the market is, got {day}")
    if not inside.any():
        raise ConfigError(f"data.start to data.end has no session of the exchange: {first} to {last}")
    return inside


def _period(start: date | None, end: date | None, year: int, days: np.ndarray) -> tuple[np.datetime64, np.datetime64]:
    """First and last day of the period in `year`: of a whole year, 1 January and 31 December."""
    first, last = np.datetime64(f"{year}-01-01"), np.datetime64(f"{year}-12-31")
    of_year = days[_inside(days, start, end) & (days >= first) & (days <= last)]
    whole = (days >= first) & (days <= last)
    return (first if of_year[0] == days[whole][0] else of_year[0],
            last if of_year[-1] == days[whole][-1] else of_year[-1])


# ---------------------------------------------------------------------------------------------- path


def _market(*, seed: int, max_dte: int, variance_premium: float, drift: float, anchor: str | None) -> path.Path:
    """The path of the parameters, made once per process; ConfigError where one is out of its range."""
    for key, bound, value in (("seed", SEED, seed), ("max_dte", MAX_DTE, max_dte), ("drift", DRIFT, drift),
                              ("variance_premium", VARIANCE_PREMIUM, variance_premium)):
        bound.check(f"data.{key}", value)
    if anchor is None:
        return _simulated(seed, variance_premium, drift)
    if variance_premium != 1.0 or drift != 1.0:
        raise ConfigError("data.anchor is a real path: data.variance_premium and data.drift must be 1, "
                          f"got {variance_premium} and {drift}")
    return _anchored(anchor, _digest(anchor))


@lru_cache(maxsize=4)
def _simulated(seed: int, variance_premium: float, drift: float) -> path.Path:
    return simulation.simulate(seed, premium=variance_premium, drift=drift)


def _digest(anchor: str) -> str:
    try:
        return hashlib.sha256(user_path(anchor).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"data.anchor is a daily CSV or Parquet file, {user_path(anchor)}: "
                          f"{error.strerror}") from error


@lru_cache(maxsize=2)
def _anchored(anchor: str, digest: str) -> path.Path:
    """The path of the file `anchor` with the content of `digest`."""
    file = daily.read_file(user_path(anchor))
    order = np.argsort(file.dates, kind="stable")
    days = file.dates[order]
    expected = sessions(days[0], days[-1]) if len(days) else days
    odd = np.setxor1d(days, expected)
    if not len(days) or len(odd) or len(days) != len(expected):
        raise ConfigError(f"data.anchor: {anchor} needs one row for every session of XNYS from its first to its last, "
                          f"got {len(days)} rows" + (f"; see {odd[0]}" if len(odd) else ""))
    columns = {name: column[order] for name, column in file.columns.items()}
    needed = [f"{ticker}_close" for ticker in TICKERS] + ["VIX"]
    for name in needed:
        if name not in columns:
            raise ConfigError(f"data.anchor: {anchor} lacks the column {name}; needed are {', '.join(needed)}")
        if np.isnan(columns[name]).any():
            raise ConfigError(f"data.anchor: {anchor} has no {name} on {days[np.isnan(columns[name])][0]}")
    nothing = np.full(len(days), np.nan)
    optional = [columns.get(name, nothing) for name in (*TENOR_COLUMNS, "VXN", "DTB3")]
    return path.anchored(days, np.column_stack([columns[name] for name in needed[:3]]),
                         np.column_stack(optional[:4]), *optional[4:])


# ---------------------------------------------------------------------------------------------- partitions


def _extended(root: Path, ticker: str, year: int, first: np.datetime64, last: np.datetime64) -> tuple | None:
    """The period to make of a partition, with what it holds already; None where it holds all of it."""
    where = store.partition_path(root, ticker, year)
    if not where.exists():
        return ticker, year, first, last
    try:
        there = store.partition_info(where)
    except ConfigError:         # truncated: nothing in it is lost by making it again
        return ticker, year, first, last
    if there.start <= first and last <= there.end:
        return None
    return ticker, year, min(first, there.start), max(last, there.end)


def _make(root: Path, params: dict, job: tuple[str, int, np.datetime64, np.datetime64]) -> store.PartitionInfo:
    """Make one partition and write it, in whatever process."""
    ticker, year, first, last = job
    market = _market(**params)
    inside = (market.sessions >= first) & (market.sessions <= last)
    table = chain.chain(market, params["seed"], ticker, np.flatnonzero(inside), params["max_dte"])
    store.write_partition(root, ticker, year, table, source=root.name, max_dte=params["max_dte"], start=first, end=last)
    return store.partition_info(store.partition_path(root, ticker, year))


def _map(make: Callable[[tuple], store.PartitionInfo], jobs: Sequence[tuple], workers: int):
    """What `make` returns for each job, in order; in processes of their own where there is more than one of both."""
    if min(workers, len(jobs)) <= 1:
        yield from map(make, jobs)
        return
    with workers_pool(min(workers, len(jobs)), calendar.adopt, calendar.every()) as pool:
        try:
            yield from pool.map(make, jobs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
