"""The store: the only reader and writer of Parquet.

    <root>/<source>/ticker=SPY/year=2019.parquet

A partition holds the chain of a ticker in a calendar year of trade dates, sorted by (expiry, strike, date),
so that a contract's life is one run of rows. Its metadata say what is in it, so that a run is
fingerprinted without reading a row.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mahler.core.runs import place_runs
from mahler.data.calendar import last_session_on_or_before
from mahler.data.chain import ACTIVITY, QUOTES, Chain, day_index, first_of_runs, spot_of_days
from mahler.schema import CHAIN, SCHEMA_VERSION, ConfigError, Deferred, Flag, Table, check_columns, one_line

ROW_GROUP = 1 << 16
BATCH = 1 << 18         # rows of a foreign file that are decoded at a time
THREADS = 2
POOL = "jemalloc"       # of Arrow's: its default asks for huge pages, and to clear them may take as long as all the reading
SIDES = (("call", Flag.CALL_CROSSED, Flag.CALL_NO_ASK), ("put", Flag.PUT_CROSSED, Flag.PUT_NO_ASK))

if POOL in pa.supported_memory_backends() and "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
    pa.set_memory_pool(pa.jemalloc_memory_pool())

Day = date | str | np.datetime64
Counts = Mapping[str, Mapping[str, int]]
"""Rows read, kept, dropped by reason: {"2024-01-03": {"read": 3900, "expired": 2}}."""


# ---------------------------------------------------------------------------------------------- writing


def write_partition(root: Path, ticker: str, year: int, table: Table, *, source: str, max_dte: int | None,
                    start: Day, end: Day, counts: Counts | None = None) -> str:
    """Write one ticker's chain of one year, whole or not at all, and return the digest of its content.

    Parameters
    ----------
    root : Path
        The store of one source.
    table : Table
        Columns of schema.CHAIN, in any order of rows, trade dates within `year`. Expirations on days
        without a session are moved to the session before; CROSSED and NO_ASK flags are set here.
    max_dte : int or None
        Longest calendar days to expiration that was asked for; None is all.
    start, end : date
        The period that was asked for.
    counts : mapping, optional
        By session (ISO date), how many rows the source read, kept and dropped, by reason.

    Raises
    ------
    ConfigError
        Naming the row, where a trade date lies outside `year`, an expiry before its trade date, a price, strike
        or delta outside its range, or a (date, expiry, strike) occurs twice.
    """
    path = partition_path(root, ticker, year)
    chain = _normalised(table)
    moved = int(np.count_nonzero(chain["expiry"] != np.asarray(table["expiry"], dtype="datetime64[D]")))
    order = np.lexsort((chain["date"], chain["strike"], chain["expiry"]))
    chain = {name: column[order] for name, column in chain.items()}
    _check_rows(chain, year, f"{ticker} {year}")
    _flag(chain)

    digest = _digest(chain)
    days = np.unique(chain["date"])
    metadata = {
        "schema_version": SCHEMA_VERSION, "source": source, "ticker": ticker, "year": year, "digest": digest,
        "rows": len(chain["date"]), "max_dte": max_dte,
        "start": str(np.datetime64(start, "D")), "end": str(np.datetime64(end, "D")),
        "sessions": [str(day) for day in days],
        "quality": {"expiry_normalised": moved, **_flag_counts(chain["flags"])},
        "counts": {day: dict(counts[day]) for day in sorted(counts)} if counts else {},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_arrow(path, _to_arrow(chain), {"mahler": json.dumps(metadata)})
    return digest


def partition_path(root: Path, ticker: str, year: int) -> Path:
    """Where the partition of `ticker` and `year` lies in the store of one source."""
    return Path(root) / f"ticker={ticker}" / f"year={year}.parquet"


def _normalised(table: Table) -> Table:
    """A copy in CHAIN's dtypes, every expiry on a session, one NaN and one zero per dtype."""
    check_columns(table, CHAIN, "the chain")
    chain = {name: np.asarray(table[name]).astype(CHAIN[name]) for name in CHAIN.names}
    for name in ("date", "expiry"):
        if np.isnat(chain[name]).any():
            raise ConfigError(f"row {np.argmax(np.isnat(chain[name]))} of the chain has no {name}")
    chain["expiry"] = last_session_on_or_before(chain["expiry"])
    for column in chain.values():
        if column.dtype.kind == "f":
            column += 0.0                       # -0.0 becomes 0.0: equal content, equal digest
            column[np.isnan(column)] = np.nan
    return chain


def _check_rows(chain: Table, year: int, what: str) -> None:
    """Raise ConfigError at the first row of the sorted `chain` that no store may hold."""
    dates, expiry, strike = chain["date"], chain["expiry"], chain["strike"]
    if not len(dates):
        raise ConfigError(f"{what}: a partition without rows is not written")
    prices = np.array([chain[name] for name in ("call_bid", "call_ask", "put_bid", "put_ask")])   # (4, n)
    same = (dates[1:] == dates[:-1]) & (expiry[1:] == expiry[:-1]) & (strike[1:] == strike[:-1])
    faults = (
        ("date", dates.astype("datetime64[Y]") != np.datetime64(str(year), "Y"), f"a trade date of {year}"),
        ("expiry", expiry < dates, "on or after the trade date"),
        ("strike", ~(np.isfinite(strike) & (strike > 0)), "dollars above 0"),
        ("underlying", ~(np.isfinite(chain["underlying"]) & (chain["underlying"] > 0)), "dollars above 0"),
        ("delta", (chain["delta"] < 0) | (chain["delta"] > 1), "the call's, in [0, 1]"),
        ("quote", ((prices < 0) | np.isinf(prices)).any(axis=0), "dollars from 0, or missing (NaN)"),
        ("row", np.r_[False, same], "one row per date, expiry and strike"),
    )
    for column, bad, valid in faults:
        if bad.any():
            at = int(np.argmax(bad))
            row = f"{dates[at]} expiry {expiry[at]} strike {strike[at]:g}"
            value = {"row": "a duplicate", "quote": prices[:, at].tolist()}.get(column) or chain[column][at]
            raise ConfigError(f"{what}: {column} of row {row} must be {valid}, got {value}")


def _flag(chain: Table) -> None:
    """Set the flags that follow from the quotes, in place; a missing ask (NaN) is no ask."""
    flags = chain["flags"] & np.uint8(0xFF & ~sum(crossed | no_ask for _, crossed, no_ask in SIDES))
    for side, crossed, no_ask in SIDES:
        bid, ask = chain[f"{side}_bid"], chain[f"{side}_ask"]
        flags |= np.where(ask > 0, np.where(bid > ask, crossed, 0), no_ask).astype(np.uint8)
    chain["flags"] = flags


def _flag_counts(flags: np.ndarray) -> dict[str, int]:
    return {flag.name.lower(): int(np.count_nonzero(flags & flag)) for flag in Flag}


def _digest(chain: Table) -> str:
    """SHA-256 of the sorted content: independent of compression, row groups and time of writing."""
    sha = hashlib.sha256()
    for name in CHAIN.names:
        column = np.ascontiguousarray(chain[name], dtype=CHAIN[name])
        sha.update(f"{name}:{CHAIN[name].str}:{len(column)};".encode())
        sha.update(column.view(np.uint8))
    return sha.hexdigest()


# ---------------------------------------------------------------------------------------------- metadata


@dataclass(frozen=True)
class PartitionInfo:
    """What a partition says of itself, without its rows."""

    path: Path
    source: str
    ticker: str
    year: int
    digest: str
    rows: int
    max_dte: int | None
    start: np.datetime64
    end: np.datetime64
    sessions: np.ndarray = field(repr=False)        # datetime64[D] (n,)
    quality: dict[str, int] = field(repr=False)     # rows by flag, expirations moved to a session
    counts: dict[str, dict[str, int]] = field(repr=False)  # by session: rows read, kept, dropped by reason


def partition_info(path: Path) -> PartitionInfo:
    """The metadata of one partition.

    Raises ConfigError, naming the file, where it is truncated, not Mahler's or of another version.
    """
    return _info(Path(path), _open(Path(path)))


def _info(path: Path, parquet: pq.ParquetFile) -> PartitionInfo:
    raw = (parquet.metadata.metadata or {}).get(b"mahler")
    if raw is None:
        raise ConfigError(f"{path} is Parquet, but not a partition of the store: ingest writes those")
    said: dict[str, Any] = json.loads(raw)
    if said["schema_version"] != SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema version {said['schema_version']}, valid is {SCHEMA_VERSION}: "
                          f"ingest again")
    if (path.parent.name, path.name) != partition_path(Path(), said["ticker"], said["year"]).parts:
        raise ConfigError(f"{path} holds {said['ticker']} {said['year']}: it was moved or renamed")
    if said["rows"] != parquet.metadata.num_rows or said["rows"] == 0:
        raise ConfigError(f"{path} has {parquet.metadata.num_rows} rows, its metadata say {said['rows']}: ingest again")
    return PartitionInfo(
        path=path, source=said["source"], ticker=said["ticker"], year=said["year"], digest=said["digest"],
        rows=said["rows"], max_dte=said["max_dte"], start=np.datetime64(said["start"]), end=np.datetime64(said["end"]),
        sessions=np.array(said["sessions"], dtype="datetime64[D]"), quality=said["quality"], counts=said["counts"])


def partitions(root: Path, ticker: str) -> dict[int, Path]:
    """The partitions of `ticker` in the store of one source, by year, ascending."""
    found = Path(root).glob(f"ticker={ticker}/year=*.parquet")
    return dict(sorted((int(path.stem.removeprefix("year=")), path) for path in found))


def tickers_in(root: Path) -> list[str]:
    """Tickers that have a partition in the store of one source, in alphabetical order."""
    return sorted({path.parent.name.removeprefix("ticker=") for path in Path(root).glob("ticker=*/year=*.parquet")})


def read_partition(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Columns of schema.CHAIN (all by default) of one partition, in its order: expiry, strike, date."""
    path = Path(path)
    parquet = _open(path)
    _info(path, parquet)
    with _named(path):
        arrow = parquet.read(columns=list(columns or CHAIN.names), use_threads=False)
    return {name: _to_numpy(arrow[name]) for name in arrow.column_names}


def read_verified(info: PartitionInfo) -> Table:
    """All columns of a partition, whose rows have the digest that it carries, else ConfigError."""
    chain = read_partition(info.path)
    if _digest(chain) != info.digest:
        raise ConfigError(f"{info.path} does not have the content of its digest {info.digest[:12]}: ingest again")
    return chain


# ---------------------------------------------------------------------------------------------- reading


@dataclass
class Chains:
    """The chains of a universe over the sessions that all its tickers have; each is read on first use."""

    tickers: tuple[str, ...]                # in alphabetical order
    sessions: np.ndarray                    # datetime64[D] (n_days,)
    dropped: dict[str, int]                 # sessions that this ticker has and another has not
    years_missing: dict[str, tuple[int, ...]]   # years of the asked period without a partition
    fingerprint: str                        # SHA-256 of everything that can change a row
    source: str
    max_dte: int | None                     # calendar days up to which every chain is complete; None is all
    partitions: dict[str, list[PartitionInfo]] = field(repr=False)
    _loaded: dict[str, Chain] = field(default_factory=dict, repr=False)

    def __getitem__(self, ticker: str) -> Chain:
        if ticker not in self._loaded:
            self._loaded[ticker] = _load(ticker, self.partitions[ticker], self.sessions, self.max_dte)
        return self._loaded[ticker]


def scan(root: Path, tickers: Sequence[str], start: Day | None, end: Day | None, *,
         max_dte: int | None = None) -> Chains:
    """The chains of `tickers` on the sessions from `start` to `end` (None: all) that every one of them has.

    Parameters
    ----------
    root : Path
        The store of one source, such as data/chains/orats.
    max_dte : int or None
        Calendar days to expiration up to which rows are read; None is all that the store holds.

    Raises
    ------
    ConfigError
        Where a ticker, the period or rows up to `max_dte` are not in the store, or a partition is damaged.
    """
    first, last = (None if day is None else np.datetime64(day, "D") for day in (start, end))
    names = tuple(sorted(set(tickers)))
    if not names:
        raise ConfigError("universe.tickers is empty: name at least one ticker")
    parts = {ticker: _partitions_between(Path(root), ticker, first, last) for ticker in names}
    infos = [info for ticker in names for info in parts[ticker]]
    sources = sorted({info.source for info in infos})
    if len(sources) > 1:
        raise ConfigError(f"{root} mixes the sources {', '.join(sources)}: ingest each into its own store")

    own = {ticker: _sessions_between(parts[ticker], first, last) for ticker in names}
    shared = reduce(np.intersect1d, own.values())
    if not len(shared):
        spans = ", ".join(f"{ticker} {days[0]} to {days[-1]}" for ticker, days in own.items())
        raise ConfigError(f"{root}: no session is shared by all tickers ({spans})")
    complete = _complete_dte(infos, max_dte)
    years = {ticker: tuple(_years_missing(parts[ticker], first, last)) for ticker in names}
    parts = {ticker: [info for info in parts[ticker] if np.isin(info.sessions, shared).any()] for ticker in names}
    infos = [info for ticker in names for info in parts[ticker]]
    return Chains(tickers=names, sessions=shared, dropped={t: len(own[t]) - len(shared) for t in names},
                  years_missing=years, fingerprint=_fingerprint(infos, shared, complete), source=sources[0],
                  max_dte=complete, partitions=parts)


def _partitions_between(root: Path, ticker: str, first: np.datetime64 | None,
                        last: np.datetime64 | None) -> list[PartitionInfo]:
    """Partitions of `ticker` with a session in [first, last]; ConfigError if there is none."""
    paths = partitions(root, ticker)
    if not paths:
        there = ", ".join(tickers_in(root)) or "nothing"
        raise ConfigError(f"{ticker} is not in the store {root} (there: {there}): {_ingest_command(root, ticker)}")
    low = -np.inf if first is None else first.astype("datetime64[Y]").astype(int) + 1970
    high = np.inf if last is None else last.astype("datetime64[Y]").astype(int) + 1970
    infos = [partition_info(path) for year, path in paths.items() if low <= year <= high]
    infos = [info for info in infos if len(_sessions_between([info], first, last))]
    if not infos:
        there = f"{partition_info(paths[min(paths)]).sessions[0]} to {partition_info(paths[max(paths)]).sessions[-1]}"
        asked = " ".join(f"{word} {day}" for word, day in (("from", first), ("to", last)) if day is not None)
        raise ConfigError(f"{ticker} has no session {asked} in the store {root} (there: {there}): "
                          f"{_ingest_command(root, ticker)}")
    return infos


def _ingest_command(root: Path, ticker: str) -> str:
    return f"`mahler ingest data={root.name.split('-')[0]} 'data.tickers=[{ticker}]'`"


def _sessions_between(infos: list[PartitionInfo], first: np.datetime64 | None,
                      last: np.datetime64 | None) -> np.ndarray:
    days = np.concatenate([info.sessions for info in infos])
    keep = np.ones(len(days), bool)
    if first is not None:
        keep &= days >= first
    if last is not None:
        keep &= days <= last
    return days[keep]


def _years_missing(infos: list[PartitionInfo], first: np.datetime64 | None,
                   last: np.datetime64 | None) -> list[int]:
    there = {info.year for info in infos}
    low = min(there) if first is None else first.astype("datetime64[Y]").astype(int) + 1970
    high = max(there) if last is None else last.astype("datetime64[Y]").astype(int) + 1970
    return [year for year in range(int(low), int(high) + 1) if year not in there]


def _complete_dte(infos: list[PartitionInfo], asked: int | None) -> int | None:
    """Days to expiration up to which all partitions have every row, or `asked` where that is less."""
    for info in infos:
        if asked is not None and info.max_dte is not None and info.max_dte < asked:
            raise ConfigError(f"{info.path} holds rows up to {info.max_dte} dte, {asked} calendar days are needed: "
                              f"ingest again with data.max_dte={asked}")
    limits = [info.max_dte for info in infos if info.max_dte is not None]
    return min(limits, default=None) if asked is None else asked


def _fingerprint(infos: list[PartitionInfo], sessions: np.ndarray, max_dte: int | None) -> str:
    content = [SCHEMA_VERSION, [(info.ticker, info.year, info.digest) for info in infos],
               [str(day) for day in sessions], max_dte]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass
class _Part:
    """One partition on its way into a Chain: which of its rows stay, and where each run of them goes."""

    info: PartitionInfo
    groups: list[int]
    keep: np.ndarray | None         # bool (rows of groups,); None keeps all
    first: np.ndarray               # int64 (n_runs,), among the rows that stay
    length: np.ndarray              # int64 (n_runs,)


def _load(ticker: str, infos: list[PartitionInfo], sessions: np.ndarray, max_dte: int | None) -> Chain:
    """Read the rows of one ticker: first the keys, to know where each run of rows goes, then the rest in place."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts, keys = zip(*pool.map(lambda info: _read_keys(info, sessions, max_dte), infos))
    expiry, strike = (np.concatenate([key[name] for key in keys]) for name in ("expiry", "strike"))
    length = np.concatenate([part.length for part in parts])

    # Partitions are in order of time and the sort is stable: a contract's years stay in order.
    order = np.lexsort((strike, expiry))
    start = np.empty(len(order), np.int64)
    start[order] = np.cumsum(length[order]) - length[order]
    expiry, strike = expiry[order], strike[order]
    first_run = first_of_runs(expiry, strike)
    n_rows = int(length.sum())

    starts = np.split(start, np.cumsum([len(part.first) for part in parts])[:-1])
    day, spot = np.empty(n_rows, np.int32), np.full(len(sessions), np.nan)
    for part, key, at in zip(parts, keys, starts):
        _place(key["day"], day, part, at)
        np.copyto(spot, key["spot"], where=~np.isnan(key["spot"]))
    read = partial(_read_columns, parts=parts, starts=starts, n_rows=n_rows)
    return Chain(ticker, sessions, day, **read(QUOTES), activity=Deferred(partial(read, ACTIVITY)), spot=spot,
                 contract_start=np.append(start[order][first_run], n_rows),
                 contract_expiry=expiry[first_run].astype("datetime64[D]"), contract_strike=strike[first_run])


def _read_keys(info: PartitionInfo, sessions: np.ndarray, max_dte: int | None) -> tuple[_Part, Table]:
    """A partition with the `day` (n,) of its rows that stay, `expiry` and `strike` (n_runs,), and `spot` (n_days,)."""
    parquet = _open(info.path)
    groups = _row_groups(parquet, sessions)
    with _named(info.path):
        arrow = parquet.read_row_groups(groups, columns=["date", "expiry", "strike", "underlying"], use_threads=False)
        dates, expiry = (_view(arrow[name].combine_chunks().view(pa.int32())) for name in ("date", "expiry"))
        strike, underlying = (_view(arrow[name].combine_chunks()) for name in ("strike", "underlying"))
    day = day_index(dates, sessions)
    keep = day >= 0
    if max_dte is not None and (info.max_dte is None or max_dte < info.max_dte):
        keep &= expiry - dates <= max_dte
    everything = bool(keep.all())
    if not everything:
        day, expiry, strike, underlying = day[keep], expiry[keep], strike[keep], underlying[keep]
    first = first_of_runs(expiry, strike)
    part = _Part(info, groups, None if everything else keep, first, np.diff(np.append(first, len(day))))
    return part, {"day": day, "expiry": expiry[first], "strike": strike[first],
                  "spot": spot_of_days(day, underlying, len(sessions))}


def _row_groups(parquet: pq.ParquetFile, sessions: np.ndarray) -> list[int]:
    """Row groups that can hold a row of the sessions, by the statistics of the trade date."""
    first, last = sessions[0].astype(date), sessions[-1].astype(date)
    metadata, at = parquet.metadata, CHAIN.names.index("date")
    spans = [metadata.row_group(i).column(at).statistics for i in range(metadata.num_row_groups)]
    return [i for i, span in enumerate(spans) if span.max >= first and span.min <= last]


def _read_columns(names: Sequence[str], parts: Sequence[_Part], starts: Sequence[np.ndarray], n_rows: int) -> Table:
    """Columns of the whole chain (n_rows,), whose runs begin at `starts`, an array (n_runs,) a partition."""
    out = {name: np.empty(n_rows, CHAIN[name]) for name in names}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(_fill, out), parts, starts))
    return out


def _fill(out: Table, part: _Part, start: np.ndarray) -> None:
    """Put the rows of `part` where they belong in the columns of the whole chain: of the file that its keys were of."""
    path = part.info.path
    parquet = _open(path)
    if _info(path, parquet).digest != part.info.digest:
        raise ConfigError(f"{path} was ingested again while it was read: start again")
    with _named(path):
        arrow = parquet.read_row_groups(part.groups, columns=list(out), use_threads=False)
        for name in out:
            if part.keep is not None:
                _place(_view(arrow[name].combine_chunks())[part.keep], out[name], part, start)
                continue
            offset = 0
            for chunk in arrow[name].chunks:            # one a row group, and no copy of them all
                _place(_view(chunk), out[name], part, start, offset)
                offset += len(chunk)


def _view(numbers: pa.Array) -> np.ndarray:
    """The numbers of a column that lacks none, (n,). Arrow's own way to numpy imports pandas, which takes as long as a chain."""
    return np.from_dlpack(numbers)


def _place(column: np.ndarray, out: np.ndarray, part: _Part, start: np.ndarray, offset: int = 0) -> None:
    """Put rows of `part`, from `offset` on, where they belong in a column of the whole chain; its runs begin at `start`."""
    place_runs(column.view(np.uint8), out.view(np.uint8), out.itemsize, offset, part.first, part.length, start)


# ---------------------------------------------------------------------------------------------- Parquet


def write_table(path: Path, table: Table) -> None:
    """Write columns of equal length (numbers, booleans, dates, strings as objects) to Parquet, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _write_arrow(Path(path), _to_arrow(table), {})


def read_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """The columns (all by default) of a file of `write_table`: dates as datetime64[D], strings as objects.

    Raises ConfigError, naming the file, where it is truncated or lacks a column.
    """
    path = Path(path)
    parquet = _open(path)
    missing = [name for name in columns or () if name not in parquet.schema_arrow.names]
    if missing:
        there = ", ".join(parquet.schema_arrow.names)
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)} (there: {there})")
    with _named(path):
        arrow = parquet.read(columns=None if columns is None else list(columns))
    return {name: _to_numpy(arrow[name]) for name in arrow.column_names}


def read_foreign(path: Path, *, numbers: Sequence[str] = (), dates: Sequence[str] = (),
                 texts: Sequence[str] = ()) -> Iterator[Table]:
    """The named columns of somebody else's Parquet file, at most BATCH rows at a time, whatever their types in it.

    Numbers become float64 with NaN, dates (dates, timestamps, or text that begins with YYYY-MM-DD) datetime64[D] with
    NaT, texts objects with None. Neither row groups nor columns that are not named cost memory.

    Raises ConfigError, naming file and column, where one is missing or is not what it is read as.
    """
    path, wanted = Path(path), [*numbers, *dates, *texts]
    parquet = _open(path)
    missing = [name for name in wanted if name not in parquet.schema_arrow.names]
    if missing:
        there = ", ".join(parquet.schema_arrow.names)
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)} (there: {there})")
    with _named(path):
        for batch in parquet.iter_batches(BATCH, columns=wanted, use_threads=False):
            yield {name: _foreign(path, name, batch.column(name), kind) for kind, names in
                   (("a number", numbers), ("a date", dates), ("text", texts)) for name in names}


def _foreign(path: Path, name: str, column: pa.Array, kind: str) -> np.ndarray:
    """A column of a foreign file as numbers, dates or texts."""
    stored = column.type
    if pa.types.is_dictionary(stored):
        column = column.dictionary_decode()
    try:
        if kind == "a number":
            return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if kind == "text":
            coded = column.cast(pa.string()).dictionary_encode()
            words = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
            return words[coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_slice_codeunits(column, 0, 10)
        elif not pa.types.is_temporal(column.type):
            raise ConfigError(f"{path}: column {name} must be a date, it is {stored}")
        return column.cast(pa.date32(), safe=False).to_numpy(zero_copy_only=False).astype("datetime64[D]")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"{path}: column {name} must be {kind}, it is {stored}: {one_line(error)}") from error


def _to_arrow(table: Table) -> pa.Table:
    return pa.table({name: pa.array(column, pa.string()) if column.dtype == object else pa.array(column)
                     for name, column in ((name, np.asarray(column)) for name, column in table.items())})


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A writable array: float columns with nulls get NaN, strings None."""
    array = column.to_numpy()
    return array.copy() if not array.flags.writeable else array


def _write_arrow(path: Path, arrow: pa.Table, metadata: dict[str, str]) -> None:
    """Write beside `path`, force it to the disk, then rename: a reader sees the old file or the new one."""
    # Prices, dates and counts repeat; the mantissas of IVs and greeks do not, but their upper bytes do.
    noisy = [field.name for field in arrow.schema if field.type == pa.float32()]
    plain = [name for name in arrow.column_names if name not in noisy]
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            with pq.ParquetWriter(file, arrow.schema, compression="zstd", compression_level=3, use_dictionary=plain,
                                  column_encoding={name: "BYTE_STREAM_SPLIT" for name in noisy},
                                  store_schema=False, write_page_checksum=True) as writer:
                writer.write_table(arrow, row_group_size=ROW_GROUP)
                writer.add_key_value_metadata(metadata)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open(path: Path) -> pq.ParquetFile:
    with _named(path):
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)


@contextmanager
def _named(path: Path):
    """Turn what Parquet says of a missing, truncated or foreign file into one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet (truncated, damaged or foreign): {one_line(error)}"
                          ) from error
