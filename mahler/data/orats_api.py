"""The ORATS Data API as a source: a call for each ticker and session, kept, and made into partitions year by year.

What was answered is kept in data/raw/orats_api/, one file a day, so an interrupted download goes on with the day that
it was at: nothing is asked for twice, and the store does not show that there was an interruption. Closes go to
data/daily/, splits to data/splits/. The token comes from the environment variable ORATS_TOKEN and goes nowhere else.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np

from mahler import home
from mahler.data import files, orats_answers, store
from mahler.data.calendar import sessions
from mahler.data.files import DayFile, Ingested, Progress
from mahler.data.orats_answers import NOTHING, ROWS, Shelf, read_day
from mahler.data.orats_client import TOKEN, Api, CallFailed, CallLog, Client, Stopped, token_from_environment
from mahler.schema import ConfigError

STORE = "orats_api"
SYNTHETIC = False

FIRST_DAY = date(2007, 1, 3)        # the vendor's
NOT_YET = timedelta(days=7)         # a day so young may be missing only because it is not there yet
SLACK = 2                           # calendar days: a Saturday's expiration counts as Friday's, before Good Friday's as
                                    # Thursday's, so rows of a longer dte than asked for may belong to it
GIVE_UP = 8                         # failed days after which the rest is not tried: it is not the days, it is the API
ANSWER_SECONDS = 1.0                # a guess, for the time that the dry run tells

_TICKER = re.compile(r"[A-Z][A-Z0-9.]{0,9}")


@dataclass(frozen=True)
class Alias:
    """What a ticker was called until a day, the last with the old name."""

    ticker: str
    until: date


def ingest(root: Path, progress: Progress, *, tickers: Sequence[str], start: date | None, end: date | None,
           max_dte: Annotated[int | None, files.MAX_DTE], aliases: Mapping[str, Alias], skip: Sequence[date],
           closes: bool, dry_run: bool, api: Api, workers: Annotated[int, files.WORKERS]) -> Ingested:
    """Download what is missing and bring the store `root`/orats_api up to date.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    start, end : date or None
        First and last trade date; None is 2007-01-03 and yesterday in New York, the latest that is asked for.
    max_dte : int or None
        Rows up to this many calendar days to expiration; None is all.
    aliases : mapping
        By old name the ticker that it became, and when: asked for on days on which the ticker has nothing.
    skip : sequence of date
        Days that are not asked for, because the vendor cannot deliver them.
    closes : bool
        Whether official closes and splits are downloaded too, two calls a ticker.
    dry_run : bool
        Say what would be asked for, and ask for nothing.
    api : Api
        Address and limits.
    workers : int
        Processes that make partitions.

    Raises
    ------
    ConfigError
        One line. What was answered until then is kept, and the years that are complete are in the store; the same
        command goes on from there.
    """
    folder = home.data_dir() / "raw" / STORE
    want = partial(_wanted, folder, tickers, start, end, max_dte, aliases, skip)
    log = CallLog(folder / "calls", api.calls_per_month)
    if dry_run:
        return Ingested(root=Path(root) / STORE, source=STORE, files=0, files_outside=0, partitions=[],
                        counts={}, planned=True, notes=_forecast(want(), closes, api, log))
    with _alone(folder):
        _sweep(folder, Path(root) / STORE, home.daily_dir(), _splits_dir())
        return _Download(want(), api, log, progress).run(Path(root), closes, workers)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


# ---------------------------------------------------------------------------------------------- what is wanted


@dataclass
class _Wanted:
    """Tickers and sessions, and what is kept of them."""

    tickers: list[str]
    days: list[str]                             # ISO
    aliases: Mapping[str, Alias]
    shelf: Shelf
    kept: dict[str, dict[str, Path]]            # by name, old names included, and day

    def names(self, ticker: str, day: str) -> list[str]:
        """Under what the ticker may be filed on a day, the ticker itself first."""
        return [ticker, *(old for old, alias in self.aliases.items()
                          if alias.ticker == ticker and day <= alias.until.isoformat())]

    def unknown(self, ticker: str, day: str) -> list[str]:
        """The names under which there may be something that is not kept yet; the first has to be asked for."""
        for at, name in enumerate(names := self.names(ticker, day)):
            path = self.kept[name].get(day)
            if path is None or path.suffix == ROWS:
                return names[at:] if path is None else []
        return []

    def rows(self, ticker: str, day: str) -> Path | None:
        """The file of rows of a day, under whichever name."""
        paths = (self.kept[name].get(day) for name in self.names(ticker, day))
        return next((path for path in paths if path is not None and path.suffix == ROWS), None)


def _wanted(folder: Path, tickers: Sequence[str], start: date | None, end: date | None, max_dte: int | None,
            aliases: Mapping[str, Alias], skip: Sequence[date]) -> _Wanted:
    tickers = list(dict.fromkeys(tickers))
    for name in (*tickers, *aliases):
        # Also what a folder and a column are called, and never two tickers in one call.
        if not _TICKER.fullmatch(name):
            raise ConfigError(f"data.tickers is a list, each a ticker such as SPY, got {name!r}")
    first, last = max(start or FIRST_DAY, FIRST_DAY), min(end or date.max, _yesterday())
    days = sessions(first, last).astype(str).tolist() if first <= last else []
    days = [day for day in days if day not in {d.isoformat() for d in skip}]
    if not tickers or not days:
        raise ConfigError(f"data.start={start}, data.end={end}: no session of {', '.join(tickers) or 'no ticker'} from "
                          f"{FIRST_DAY} to yesterday lies in it")
    shelf = Shelf(folder, max_dte)
    return _Wanted(tickers, days, aliases, shelf, {name: shelf.days(name) for name in (*tickers, *aliases)})


def _yesterday() -> date:
    """In New York: what is asked for on the day itself may not be whole yet, and would be kept like that."""
    return datetime.now(ZoneInfo("America/New_York")).date() - timedelta(days=1)


def _forecast(wanted: _Wanted, closes: bool, api: Api, log: CallLog) -> list[str]:
    """Lines of the dry run: calls, days, time, share of the month's calls."""
    lines, calls, more = [], 0, 0
    for ticker in wanted.tickers:
        unknown = [wanted.unknown(ticker, day) for day in wanted.days]
        asks = sum(bool(names) for names in unknown)
        calls, more = calls + asks, more + sum(len(names) - 1 for names in unknown if names)
        lines.append(f"{ticker}: {asks:,} of {len(wanted.days):,} sessions from {wanted.days[0]} to {wanted.days[-1]} "
                     f"to ask for, {len(wanted.days) - asks:,} are here")
    series = 2 * sum(_closes_needed(ticker, wanted.days[-1]) for ticker in wanted.tickers) if closes else 0
    old = f"; up to {more:,} more where a ticker is filed under its old name" if more else ""
    lines.append(f"{calls + series:,} calls: {calls:,} for chains, {series:,} for closes and splits{old}")
    seconds = max((calls + series) * 60 / api.calls_per_minute, (calls + series) * ANSWER_SECONDS / api.connections)
    lines.append(f"time: about {_duration(seconds)} (at most {api.calls_per_minute:,} calls a minute; "
                 f"{ANSWER_SECONDS:g} s an answer over {api.connections} connections)")
    month, used = log.used()
    left, share = api.calls_per_month - used, (calls + series) / api.calls_per_month
    lines.append(f"month: {share:.1%} of the {api.calls_per_month:,} calls a month; {used:,} are used in {month}, "
                 + (f"{left - calls - series:,} would be left" if calls + series <= left else
                    f"only {max(left, 0):,} are left: the download stops there and goes on next month"))
    there = "is set" if os.environ.get(TOKEN) else "is not set, and a download needs it"
    return [*lines, f"dry run: nothing was asked for; {TOKEN} {there}"]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else \
        f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------- the download


@dataclass
class _Download:
    """One run: what it wants, how it asks, what came of it."""

    wanted: _Wanted
    api: Api
    log: CallLog
    progress: Progress
    calls_before: int = 0
    client: Client | None = None                # made for the first call: what is complete needs no token
    believed: bool = False                      # whether the address ever gave data: see `_nothing`
    unproven: list[tuple[str, str]] = field(default_factory=list)
    not_yet: list[tuple[str, str]] = field(default_factory=list)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)    # by ticker and day, why
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, root: Path, closes: bool, workers: int) -> Ingested:
        """Everything, year by year: ask, then make the partitions of what is complete."""
        wanted, batches = self.wanted, []
        self.believed = self._addresses.exists() and self.api.base_url in self._addresses.read_text().splitlines()
        self.calls_before = self.log.used()[1]
        todo = [(ticker, day) for day in wanted.days for ticker in wanted.tickers if wanted.unknown(ticker, day)]
        done = 0
        try:
            if closes:
                self._series()
            for year, days in groupby(wanted.days, key=lambda day: day[:4]):
                asks = [(ticker, day) for ticker, day in todo if day[:4] == year]
                self._ask(asks, done, len(todo))
                done += len(asks)
                self._check_hopeless(closes, more=done < len(todo))
                batches += self._make(root, list(days), workers, done, len(todo))
        finally:
            if self.client is not None:
                self.client.close()
        if self.failed:
            raise ConfigError(self._failures())
        return self._ingested(root, batches)

    @property
    def _addresses(self) -> Path:
        return self.wanted.shelf.folder / "addresses"

    def _the_client(self) -> Client:
        if self.client is None:
            self.client = Client(self.api, token_from_environment(), self.log)
        return self.client

    def _ask(self, asks: list[tuple[str, str]], done: int, total: int) -> None:
        """Ask for the days, several at a time; a day that fails is noted, all else ends the download."""
        if not asks:
            return
        client = self._the_client()
        with ThreadPoolExecutor(self.api.connections) as pool:
            futures = {pool.submit(self._day, client, ticker, day): (ticker, day) for ticker, day in asks}
            try:
                for n, future in enumerate(as_completed(futures), done + 1):
                    ticker, day = futures[future]
                    try:
                        future.result()
                    except Stopped:
                        continue        # by another, whose reason is still to come
                    except CallFailed as failure:
                        self.failed[ticker, day] = str(failure)
                        if len(self.failed) >= GIVE_UP:
                            raise ConfigError(self._failures()) from None
                    self.progress(n, total, f"{ticker} {day}")
            except BaseException:
                client.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _day(self, client: Client, ticker: str, day: str) -> None:
        """Ask for one day, under the old name where the ticker has nothing, and keep the answer."""
        limit = self.wanted.shelf.max_dte
        # The API's dte is calendar days plus one.
        dte = {} if limit is None else {"dte": f"0,{limit + 1 + SLACK}"}
        for name in self.wanted.names(ticker, day):
            path = self.wanted.kept[name].get(day)
            if path is not None and path.suffix == ROWS:
                return
            if path is not None:
                continue
            rows = client.rows("hist/strikes", ticker=name, tradeDate=day, fields=orats_answers.FIELDS, **dte)
            if rows is not None:
                table = orats_answers.strikes(f"hist/strikes {name} {day}", rows, name, day)
                self.wanted.kept[name][day] = self.wanted.shelf.put(name, day, table)
                self._believe()
                return
            self._nothing(name, day)

    def _nothing(self, name: str, day: str) -> None:
        """Remember that the vendor has nothing: not of a day that may still come, nor before the address gave any data.

        A wrong one answers 404 to everything, and would otherwise be believed for ever.
        """
        if date.fromisoformat(day) > _yesterday() - NOT_YET:
            self.not_yet.append((name, day))
            return
        with self.lock:
            if not self.believed:
                self.unproven.append((name, day))
                return
        self.wanted.kept[name][day] = self.wanted.shelf.put(name, day, None)

    def _believe(self) -> None:
        """The address gave data, so what it does not have it really does not have; remembered for the next run."""
        with self.lock:
            if not self.believed:
                with open(self._addresses, "a", encoding="utf-8") as file:
                    file.write(f"{self.api.base_url}\n")
            self.believed, unproven, self.unproven = True, self.unproven, []
        for name, day in unproven:
            self.wanted.kept[name][day] = self.wanted.shelf.put(name, day, None)

    def _check_hopeless(self, closes: bool, more: bool) -> None:
        """Raise ConfigError where going on would only use up calls."""
        if self.unproven:
            name, day = self.unproven[0]
            raise ConfigError(f"{self.api.base_url} has nothing of all that was asked for ({name} {day} and "
                              f"{len(self.unproven) - 1} more, HTTP 404): check data.tickers, data.start and "
                              f"data.api.base_url")
        for ticker in self.wanted.tickers if closes and more else []:
            names = [ticker, *(old for old, alias in self.wanted.aliases.items() if alias.ticker == ticker)]
            paths = [path for name in names for path in self.wanted.kept[name].values()]
            if not _closes_path(ticker).exists() and paths and all(path.suffix == NOTHING for path in paths):
                raise ConfigError(f"ORATS has no close of {ticker} and no chain until {max(p.stem for p in paths)}: is "
                                  f"it a ticker? (data.closes=false goes on without its closes)")

    def _failures(self) -> str:
        """The line that says which days failed, and what follows from it."""
        (ticker, day), reason = min(self.failed.items(), key=lambda item: (item[0][1], item[0][0]))
        more = f" and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
        years = sorted({f"{ticker} {day[:4]}" for ticker, day in self.failed if day})
        lost = f"; {', '.join(years)} not written" if years else ""
        without = f"data.skip=[{day}] goes on without a day" if day else "data.closes=false goes on without closes"
        return f"{reason}{more}{lost}: the same command asks for what is missing only, {without} ({self._calls()})"

    # ------------------------------------------------------------------------------------------ partitions

    def _make(self, root: Path, days: list[str], workers: int, done: int, total: int) -> list[Ingested]:
        """The partitions of one year of those tickers of which no day failed; those that are up to date stay."""
        year, batch = int(days[0][:4]), []
        for ticker in self.wanted.tickers:
            paths = {day: path for day in days if (path := self.wanted.rows(ticker, day)) is not None}
            whole = not any(name == ticker and int(day[:4]) == year for name, day in self.failed if day)
            if paths and whole and not self._up_to_date(store.partition_path(root / STORE, ticker, year), paths):
                batch += [DayFile(np.datetime64(day), path, ticker) for day, path in paths.items()]
        if not batch:
            return []
        max_dte = self.wanted.shelf.max_dte
        return [files.ingest(
            root, batch, partial(read_day, max_dte=max_dte), sorted({file.ticker for file in batch}), source=STORE,
            start=None, end=None, max_dte=max_dte, workers=workers,
            progress=lambda n, of, _: self.progress(done, total, f"store {year} ({n} of {of})"))]

    def _up_to_date(self, partition: Path, paths: Mapping[str, Path]) -> bool:
        """Whether a partition has all these days, and none of them was kept later than it was written."""
        if not partition.exists():
            return False
        info = store.partition_info(partition)
        written = partition.stat().st_mtime_ns
        return (info.max_dte == self.wanted.shelf.max_dte and set(paths) <= set(info.sessions.astype(str))
                and all(path.stat().st_mtime_ns <= written for path in paths.values()))

    # ------------------------------------------------------------------------------------------ closes, splits

    def _series(self) -> None:
        """Closes and splits of the tickers whose closes end before the last session that is wanted."""
        for ticker in self.wanted.tickers:
            if _closes_needed(ticker, self.wanted.days[-1]):
                try:
                    self._closes_and_splits(ticker)
                except CallFailed as failure:
                    self.failed[ticker, ""] = str(failure)

    def _closes_and_splits(self, ticker: str) -> None:
        client = self._the_client()
        rows = client.rows("hist/splits", ticker=ticker)
        splits = orats_answers.splits(f"hist/splits {ticker}", rows or [], ticker)
        rows = client.rows("hist/dailies", ticker=ticker, fields="ticker,tradeDate,unadjClsPx")
        if rows is None:
            self.notes.append(f"{ticker}: ORATS has no closes (hist/dailies)")
            return
        closes = orats_answers.closes(f"hist/dailies {ticker}", rows, ticker)
        self._believe()
        store.write_table(_splits_dir() / f"{ticker}.parquet", splits)
        # The closes come last: it is they that say whether both are up to date.
        store.write_table(_closes_path(ticker), closes)
        self.notes.append(f"{ticker}: {len(closes['date']):,} closes in {_closes_path(ticker)}, "
                          f"{len(splits['date'])} splits")

    # ------------------------------------------------------------------------------------------ words

    def _ingested(self, root: Path, batches: list[Ingested]) -> Ingested:
        """All years as one; ConfigError where the store has nothing of any ticker even so."""
        if not any(store.partitions(root / STORE, ticker) for ticker in self.wanted.tickers):
            raise ConfigError("; ".join(self._missing()))
        counts = {ticker: Counter() for ticker in self.wanted.tickers}
        without = Counter()
        for batch in batches:
            for ticker, count in batch.counts.items():
                counts[ticker].update(count)
            without.update(batch.files_without)
        return Ingested(root=root / STORE, source=STORE, files=sum(batch.files for batch in batches), files_outside=0,
                        partitions=[info for batch in batches for info in batch.partitions],
                        counts={ticker: dict(count) for ticker, count in counts.items()},
                        files_without={ticker: n for ticker, n in without.items() if n},
                        notes=[*self.notes, *self._missing(), self._calls()])

    def _missing(self) -> Iterator[str]:
        """Lines: the sessions of each ticker that the vendor does not have."""
        wanted, young = self.wanted, defaultdict(set)
        for name, day in self.not_yet:
            young[name].add(day)
        for ticker in wanted.tickers:
            absent = [day for day in wanted.days if wanted.rows(ticker, day) is None and day not in young[ticker]]
            if absent:
                yield f"{ticker}: nothing of {len(absent):,} of {len(wanted.days):,} sessions: {_listed(absent)}"
            if young[ticker]:
                yield f"{ticker}: not there yet, asked for again next time: {_listed(sorted(young[ticker]))}"

    def _calls(self) -> str:
        """The line that says how many calls were made, now and this month."""
        month, used = self.log.used()
        repeated = self.client.repeated if self.client is not None else {}
        again = f" ({sum(repeated.values()):,} repeated: " + ", ".join(
            f"{n:,} x {reason}" for reason, n in sorted(repeated.items())) + ")" if repeated else ""
        made = max(used - self.calls_before, 0)
        return f"{made:,} calls{again}; {used:,} of {self.api.calls_per_month:,} are used in {month}"


def _listed(days: list[str], most: int = 5) -> str:
    return ", ".join(days[:most]) + (f" and {len(days) - most:,} more" if len(days) > most else "")


# ---------------------------------------------------------------------------------------------- files


def _closes_path(ticker: str) -> Path:
    return home.daily_dir() / f"{STORE}_{ticker}.parquet"


def _splits_dir() -> Path:
    return home.data_dir() / "splits"


def _closes_needed(ticker: str, last: str) -> bool:
    """Whether the closes that are kept end before the session `last`."""
    path = _closes_path(ticker)
    return not path.exists() or not (store.read_table(path, ["date"])["date"] >= np.datetime64(last)).any()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second download from asking for the same days; a killed one leaves no lock behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another download is running in {folder}: wait for it") from None
        yield


def _sweep(*folders: Path) -> None:
    """Remove what a killed download was writing; a file is written beside its place and then renamed."""
    for folder in folders:
        for path in folder.rglob(".*.tmp") if folder != home.daily_dir() else folder.glob(f".{STORE}_*.tmp"):
            path.unlink()
