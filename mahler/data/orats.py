"""ORATS near-end-of-day files: ORATS_SMV_Strikes_YYYYMMDD.zip, one CSV with all tickers of a day.

A row is a strike of an expiry with its call and its put, one set of greeks (the call's) and the price of the
underlying about 14 minutes before the close. Files have 36, 37 or 39 columns by year: they are read by name.
The `ext` columns hold garbage at times and are not read, nor is `divRate` (always 0); `yte` is only compared.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import numpy as np

from mahler.data import files
from mahler.data.calendar import is_session, last_session_on_or_before
from mahler.data.files import DROPPED, DayFile, Ingested, Progress, Reading
from mahler.schema import CHAIN, ConfigError, Flag, Table, one_line, shown

if TYPE_CHECKING:
    import pyarrow as pa

STORE = "orats"
SYNTHETIC = False

NAMES = {  # ours: theirs
    "underlying": "stkPx", "strike": "strike",
    "call_bid": "cBidPx", "call_ask": "cAskPx", "put_bid": "pBidPx", "put_ask": "pAskPx",
    "call_volume": "cVolu", "call_open_interest": "cOi", "put_volume": "pVolu", "put_open_interest": "pOi",
    "call_bid_iv": "cBidIv", "call_ask_iv": "cAskIv", "put_bid_iv": "pBidIv", "put_ask_iv": "pAskIv",
    "smooth_iv": "smoothSmvVol", "delta": "delta", "gamma": "gamma", "theta": "theta", "vega": "vega",
}
OPTIONAL = {"call_iv": "cMidIv", "put_iv": "pMidIv", "index_spot": "spot_px"}
TEXT = ("ticker", "expirDate", "trade_date")
YTE = "yte"             # calendar days to expiration / 365, to five places; may be absent or garbage

# A day of all tickers is 213 MiB in 2024, one of SPX 9 MiB; what is larger than this is a bomb or another file.
MAX_BYTES = 1 << 30
MAX_TICKER_BYTES = 16 << 20     # on average of the tickers wanted
MAX_LINE = 1 << 16
CHUNK = 1 << 20

MAX_UNDERLYING = 1e6    # dollars per share
MAX_APART = 2.0         # times or parts of the day's median: forwards of an index differ by years of carry, not so much
MAX_IV = 9.999999       # ORATS's own cap
MAX_GREEK = 1e6
ROUNDING = 1e-2         # how far delta may lie outside [0, 1], gamma and vega below 0, and still be meant

_STEM_DAY = re.compile(r"(?<!\d)(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?!\d)")
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def ingest(root: Path, progress: Progress, *, path: Path | None, tickers: Sequence[str], start: date | None,
           end: date | None, max_dte: Annotated[int | None, files.MAX_DTE], aliases: Mapping[str, str],
           workers: Annotated[int, files.WORKERS]) -> Ingested:
    """Read near-EOD files into the store `root`/orats.

    Parameters
    ----------
    root : Path
        Where the stores of all sources lie.
    path : Path
        A file, a folder (searched recursively) or a glob of zips or CSVs, a day in each name (YYYYMMDD).
    start, end : date or None
        First and last trade date; None is open.
    max_dte : int or None
        Rows up to this many calendar days to expiration are kept; None keeps all.
    aliases : mapping
        Old ticker to ticker, {"QQQQ": "QQQ"}: taken on days that have no row of the ticker itself.
    workers : int
        Processes.

    Raises
    ------
    ConfigError
        One line that names file, row and column where a file is not what it should be.
    """
    found = [DayFile(files.day_of(p, _STEM_DAY.search(p.stem), "ORATS_SMV_Strikes_20240103.zip"), p)
             for p in files.find(path, (".zip", ".csv"))]
    read = partial(read_file, tickers=tuple(tickers), max_dte=max_dte, aliases=dict(aliases))
    return files.ingest(root, found, read, tickers, source=STORE, start=start, end=end, max_dte=max_dte,
                        progress=progress, workers=workers)


def store_name(**_: object) -> str:
    """The name of the store: one, whatever the options."""
    return STORE


def read_file(file: DayFile, *, tickers: Sequence[str], max_dte: int | None,
              aliases: Mapping[str, str]) -> list[Reading]:
    """The rows of `tickers` in one file, one Reading for each ticker that it has rows of."""
    names = [*tickers, *(old for old, new in aliases.items() if new in tickers)]
    with _opened(file.path) as stream:
        header, lines = _lines_of(file.path, stream, names)
    if not lines:
        return []
    raw = _parse(file.path, header, lines)
    _check_trade_date(file, raw["trade_date"], header, lines)
    ticker = raw.pop("ticker").astype(object)
    readings = []
    for name in tickers:
        own = ticker == name
        old = np.isin(ticker, [a for a, new in aliases.items() if new == name])
        mine = own if own.any() else old
        if mine.any():
            shadowed = int(np.count_nonzero(old)) if own.any() else 0
            table, counts = chain({key: column[mine] for key, column in raw.items()}, max_dte)
            readings.append(Reading(name, table, counts | ({"alias_rows_unused": shadowed} if shadowed else {})))
    return [reading for reading in readings if reading.counts["kept"]]


# ---------------------------------------------------------------------------------------------- bytes


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The CSV as a stream of bytes, out of its zip where it is in one; faults of the container are ConfigErrors."""
    try:
        if path.suffix.lower() != ".zip":
            with open(path, "rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(path) as archive, archive.open(_only_csv(path, archive)) as stream:
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, struct.error, ValueError) as error:
        raise ConfigError(f"{path} cannot be read (truncated or damaged): {one_line(error)}") from error


def _only_csv(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if m.filename.lower().endswith(".csv")
               and not m.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise ConfigError(f"{path} must hold one CSV, it holds {len(members)}")
    if members[0].flag_bits & 1:
        raise ConfigError(f"{path} is encrypted: unzip it first")
    if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Of the other methods zipfile decompresses as much as a chunk gives, which may be a thousand times its size.
        raise ConfigError(f"{path} is compressed by method {members[0].compress_type}, valid is deflate: "
                          f"unzip it first")
    if members[0].file_size > MAX_BYTES:
        raise ConfigError(f"{path}: {members[0].filename} says it is {members[0].file_size:,} bytes, "
                          f"at most {MAX_BYTES:,} are read")
    return members[0]


def _lines_of(path: Path, stream: BinaryIO, names: Sequence[str]) -> tuple[list[str], bytes]:
    """Header and the lines of `names`, unparsed; the rest of the day is never looked at but for its line ends."""
    header_line, rest = stream.readline(MAX_LINE), b""
    header = _header(path, header_line)
    starts = [f"{name},".encode() for name in names] if header[0] == "ticker" else [b""]
    kept, total, size, most = [], len(header_line), 0, MAX_TICKER_BYTES * len(names)
    while chunk := stream.read(CHUNK):
        total += len(chunk)
        if total > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes, the most that is read")
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest += chunk
        else:
            found = _matching(rest + chunk[:cut], starts)
            kept, size, rest = kept + found, size + sum(map(len, found)), chunk[cut:]
        if size > most:
            raise ConfigError(f"{path} has more than {most:,} bytes of {', '.join(names)}, the most that is read")
        if len(rest) > MAX_LINE:
            raise ConfigError(f"{path} has a line of more than {MAX_LINE:,} bytes: not a CSV of ORATS")
    kept += _matching(rest + b"\n", starts) if rest else []
    return header, b"".join(kept)


def _header(path: Path, line: bytes) -> list[str]:
    """Column names; ConfigError unless they are those of a near-EOD file, each once."""
    names = [name.strip().strip('"') for name in line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(",")]
    missing = [name for name in (*TEXT, *NAMES.values()) if name not in names]
    if missing:
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)}: not a near-EOD file of ORATS")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path} has the columns {', '.join(twice)} twice")
    return names


def _matching(block: bytes, starts: Sequence[bytes]) -> list[bytes]:
    """The runs of whole lines of `block` that begin with one of `starts`; `block` ends at a line end."""
    if starts == [b""]:
        return [block]
    found = []
    for start in starts:
        at = 0 if block.startswith(start) else _next_line(block, start, 0)
        while at < len(block):
            end = at
            while block.startswith(start, end):
                end = block.index(b"\n", end) + 1
            found.append(block[at:end])
            at = _next_line(block, start, end)
    return found


def _next_line(block: bytes, start: bytes, after: int) -> int:
    """Where the next line that begins with `start` begins, from the line end before `after` on, else the end."""
    at = block.find(b"\n" + start, max(after - 1, 0))
    return at + 1 if at >= 0 else len(block)


# ---------------------------------------------------------------------------------------------- text


def _parse(path: Path, header: list[str], lines: bytes) -> dict[str, np.ndarray]:
    """Columns of the lines by our names, float64 with NaN where empty; the TEXT columns as arrays of str."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    wanted = {ours: theirs for ours, theirs in (NAMES | OPTIONAL).items() if theirs in header}
    types = {theirs: pa.float64() for theirs in wanted.values()}
    said = [YTE] if YTE in header else []
    types |= {name: pa.dictionary(pa.int32(), pa.string() if name in TEXT else pa.binary()) for name in (*TEXT, *said)}
    try:
        arrow = arrow_csv.read_csv(
            BytesIO(lines), arrow_csv.ReadOptions(column_names=header, use_threads=False, block_size=len(lines)),
            # A stray quote would swallow the lines up to the next.
            arrow_csv.ParseOptions(quote_char=False),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=[*TEXT, *said, *wanted.values()], column_types=types, null_values=[""]))
    except pa.ArrowInvalid as error:
        raise _fault(path, header, lines, tuple(wanted.values()), str(error)) from error
    out = {ours: _to_numpy(arrow[theirs].combine_chunks(), np.float64, np.nan) for ours, theirs in wanted.items()}
    for name in (*TEXT, *said):
        texts = arrow[name].combine_chunks()
        values = np.array(["" if text is None else text for text in texts.dictionary.to_pylist()] + [""], dtype=object)
        codes = _to_numpy(texts.indices, np.int32, len(values) - 1)
        if name == YTE:
            cells = [text.decode("ascii", errors="replace") for text in values[:-1]] + [""]
            values = np.array([float(text) if text and files.is_number(text) else np.nan for text in cells])
        elif name != "ticker":
            values = np.array([_date(text) for text in values], dtype="datetime64[D]")
            bad = np.flatnonzero(np.isnat(values[codes]))
            if len(bad):
                raise _bad_cell(path, header, lines, int(bad[0]), name, "a date, M/D/YYYY or ISO")
        out[name] = values[codes]
    return out


def _to_numpy(column: pa.Array, dtype: type, missing: float) -> np.ndarray:
    """A column of numbers (n,), `missing` where it is null.

    Not by `column.to_numpy`, which imports pandas: that takes a worker longer than two days of 24 MB.
    """
    validity, data = column.buffers()
    here = slice(column.offset, column.offset + len(column))
    values = np.frombuffer(data, dtype)[here]
    if not column.null_count:
        return values
    return np.where(np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[here], values, missing)


def _date(text: str) -> np.datetime64:
    """M/D/YYYY, with or without padding, or ISO; NaT where it is neither."""
    match = _US_DATE.fullmatch(text)
    iso = f"{match[3]}-{int(match[1]):02}-{int(match[2]):02}" if match else text
    if not _ISO_DATE.fullmatch(iso):
        return np.datetime64("NaT", "D")
    try:
        return np.datetime64(iso, "D")
    except ValueError:
        return np.datetime64("NaT", "D")


def _fault(path: Path, header: list[str], lines: bytes, numbers: Sequence[str], reason: str) -> ConfigError:
    """The error that names the first line that cannot be parsed."""
    for at, line in enumerate(_rows(lines)):
        cells = line.decode("utf-8", errors="replace").split(",")
        if len(cells) != len(header):
            return ConfigError(f"{path}: row {_line_number(path, line)} has {len(cells)} columns, "
                               f"the header {len(header)}")
        for name in (*TEXT, *numbers):
            text = cells[header.index(name)]
            if name in TEXT and "\ufffd" in text:
                return _bad_cell(path, header, lines, at, name, "text in UTF-8")
            if name in numbers and not files.is_number(text):
                return _bad_cell(path, header, lines, at, name, "a number")
    return ConfigError(f"{path}: {one_line(reason)}")


def _rows(lines: bytes) -> list[bytes]:
    """The lines as Arrow counts them: ends are those of any system, and one that is empty is none."""
    return [line for line in lines.splitlines() if line]


def _bad_cell(path: Path, header: list[str], lines: bytes, at: int, column: str, valid: str) -> ConfigError:
    line = _rows(lines)[at]
    text = line.decode("utf-8", errors="replace").split(",")[header.index(column)]
    return ConfigError(f"{path}: row {_line_number(path, line)} column {column} must be {valid}, "
                       f"got {shown(text)}")


def _line_number(path: Path, line: bytes) -> int:
    """Where the first line like this stands in the file; the header is row 1. Reads the file again."""
    with _opened(path) as stream:
        return next(number for number, other in enumerate(stream, 1) if line in _rows(other))


def _check_trade_date(file: DayFile, trade_date: np.ndarray, header: list[str], lines: bytes) -> None:
    wrong = np.flatnonzero(trade_date != file.day)
    if len(wrong):
        raise _bad_cell(file.path, header, lines, int(wrong[0]), "trade_date", f"{file.day} as in the file's name")
    if not is_session(np.array([file.day]))[0]:
        raise ConfigError(f"{file.path}: {file.day} is not a session of XNYS")


# ---------------------------------------------------------------------------------------------- rows


def chain(raw: dict[str, np.ndarray], max_dte: int | None) -> tuple[Table, dict[str, int]]:
    """schema.CHAIN of one ticker and day, and what became of its rows: read, kept, dropped and mended.

    `raw` has float64 columns by the names of NAMES and, where known, OPTIONAL; `expirDate` and `trade_date` are dates.
    """
    counts = {"read": len(raw["strike"])}
    printed, raw["date"] = raw.pop("expirDate"), raw.pop("trade_date")
    raw["expiry"] = last_session_on_or_before(printed)
    raw["underlying"] = _underlying(raw)
    wrong = np.abs(raw.pop(YTE, np.nan) * 365 - (printed - raw["date"]).astype(int)) > 0.5
    raw, dropped = _usable(raw | {"moved": raw["expiry"] != printed}, max_dte)
    noted = {files.DTE_MISMATCH: int(np.count_nonzero(wrong)),
             files.EXPIRY_MOVED: int(np.count_nonzero(raw.pop("moved")))}
    table, mended = _mended(raw)
    table, repeated = files.unique(table, ("expiry", "strike"))
    counts["kept"] = len(table["strike"])
    counts |= {f"{DROPPED}{reason}": n for reason, n in (dropped | repeated).items() if n}
    return table, counts | {reason: n for reason, n in (mended | noted).items() if n}


def _underlying(raw: dict[str, np.ndarray]) -> np.ndarray:
    """Price at the quotes: `spot_px` is for indices, whose `stkPx` is a forward; it is blank or 0 for ETFs."""
    index = raw.pop("index_spot", np.zeros(len(raw["strike"])))
    return np.where(index > 0, index, raw["underlying"])


def _usable(raw: dict[str, np.ndarray], max_dte: int | None) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The rows that can be in the store, and how many were left out by the first reason that applies."""
    dte = (raw["expiry"] - raw["date"]).astype(int)
    price = np.array([raw[name] for name in ("call_bid", "call_ask", "put_bid", "put_ask")])    # (4, n)
    sound = (raw["underlying"] > 0) & (raw["underlying"] < MAX_UNDERLYING)
    underlying = np.where(sound, raw["underlying"], np.nan)
    bound = files.MAX_QUOTE * np.fmax(underlying, np.minimum(raw["strike"], MAX_UNDERLYING))
    left, dropped = files.first_reasons({
        "expired": dte < 0,
        "beyond_max_dte": np.zeros(len(dte), bool) if max_dte is None else dte > max_dte,
        "bad_strike": ~((raw["strike"] > 0) & (raw["strike"] < MAX_UNDERLYING)),
        "bad_underlying": ~sound | _apart(underlying),
        "bad_price": ((price < 0) | (price > bound)).any(axis=0),
    })
    return {name: column[left] for name, column in raw.items()}, dropped


def _apart(underlying: np.ndarray) -> np.ndarray:
    """Whether each price (n,), NaN where there is none, is not of its day: far from what most rows agree on."""
    known = np.isfinite(underlying)
    usual = np.median(underlying[known]) if known.any() else np.nan
    near = (underlying < MAX_APART * usual) & (usual < MAX_APART * underlying)
    return known & ~near & (2 * np.count_nonzero(near) > np.count_nonzero(known))


def _mended(raw: dict[str, np.ndarray]) -> tuple[Table, dict[str, int]]:
    """The columns of schema.CHAIN: what is out of reason is missing, what is off by rounding clamped, both counted."""
    n, counts = len(raw["strike"]), {}
    out = {name: raw[name] for name in ("date", "expiry", "strike", "call_bid", "call_ask", "put_bid", "put_ask",
                                        "underlying")}
    for side in ("call", "put"):
        mid = raw[f"{side}_iv"] if f"{side}_iv" in raw else _mean_iv(raw[f"{side}_bid_iv"], raw[f"{side}_ask_iv"])
        out[f"{side}_iv"], counts[f"{side}_iv_out_of_range"] = files.sound_iv(mid, MAX_IV)
    out["smooth_iv"], counts["smooth_iv_out_of_range"] = files.sound_iv(raw["smooth_iv"], MAX_IV)
    for name in ("call_volume", "call_open_interest", "put_volume", "put_open_interest"):
        out[name], counts[f"{name}_missing"] = files.whole(raw[name])
    bounds = {"delta": (0.0, 1.0), "gamma": (0.0, np.inf), "vega": (0.0, np.inf), "theta": (-np.inf, np.inf)}
    clamped = np.zeros(n, bool)
    for name, (low, high) in bounds.items():
        value = raw[name]
        absurd = (value < low - ROUNDING) | (value > high + ROUNDING) | (np.abs(value) > MAX_GREEK)
        counts[f"{name}_out_of_range"] = int(np.count_nonzero(absurd))
        out[name] = np.where(absurd, np.nan, np.clip(value, low, high))
        clamped |= ~absurd & (out[name] != value) & ~np.isnan(value)
    counts["greeks_clamped"] = int(np.count_nonzero(clamped))
    out["flags"] = np.where(clamped, Flag.GREEKS_CLAMPED, 0)
    return {name: np.asarray(out[name]).astype(CHAIN[name]) for name in CHAIN.names}, counts


def _mean_iv(bid_iv: np.ndarray, ask_iv: np.ndarray) -> np.ndarray:
    """The mid IV of files that have no column for it: a bid of zero has an IV of zero, which is no IV."""
    return np.where((bid_iv > 0) & (ask_iv > 0), (bid_iv + ask_iv) / 2, np.nan)
