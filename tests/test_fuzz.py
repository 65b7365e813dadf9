"""Whatever a file holds, its reader refuses it in one line, or reads it and counts what it left out; it never lies.

10,000 mutations of a sound ORATS day, each from its own seed: cells, rows, columns, bytes, containers. What is read
is held against a slow, literal reading of the very same bytes, and the rows that were not touched against the sound
day. Yahoo's files get a lighter pass. What a file may take of memory is measured in a process of its own.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mahler.data import files, options_hist, optionsdx, orats, quality, store, yahoo
from mahler.data.calendar import last_session_on_or_before, sessions
from mahler.data.files import DROPPED, DayFile, Ingested, Reading
from mahler.schema import CHAIN, ConfigError
from tests import test_yahoo
from tests.test_orats import COLUMNS_39, csv_text, ingest, silent
from tests.test_quality import thresholds

DAY = np.datetime64("2024-01-03")
TICKERS = ("SPY", "QQQ")
ROWS = [{"ticker": ticker, "expirDate": expiry, "strike": f"{strike}", "cBidPx": f"{475 - strike + k / 100:.2f}",
         "cAskPx": f"{475.5 - strike + k / 100:.2f}", "delta": f"{0.9 - (strike - 440) / 100:.4f}"}
        for ticker in ("AAPL", "QQQ", "SPY", "TSLA") for k, expiry in enumerate(("1/5/2024", "2/16/2024"))
        for strike in (440, 450, 460)]
BASE = {(row["ticker"], str(orats._date(row["expirDate"])), float(row["strike"])): row
        for row in csv.DictReader(csv_text(ROWS).splitlines())}
SOUND = csv_text(ROWS).rstrip("\n").split("\n")

# What people, spreadsheets and broken pipes put into a cell.
TEXTS = ("", " ", "nan", "NaN", "inf", "-inf", "null", "N/A", "#REF!", "-", "0", "-0", "-1", "1e15", "1e400", "1e-400",
         "9.999999", "1_000", "1,5", "\"1.5\"", "\"", "1.5\"", " 1.5 ", "+1.5", "1.5f", "0x10", "１２", "٣", "1e", "1e5",
         "99999999999999999999", "TRUE", "\x00", "1\x002", "1\r2", "\r", "\t7", "é", "\ufeff1", "😀", "x" * 70_000,
         "2/30/2024", "2/16/24", "16/2/2024", "2024-02-16", "0000-01-01", "1/1/0000", "2024-2-16", "20240216",
         "2/16/2024 00:00", "1/1/0001", "12/31/9999", "2/17/2024", "SPY", "QQQ", "spy", "450", "468.79", "=1+1", "0.5",
         "1.0000001", "-0.001", "5e-324")
RAW = tuple(text.encode() for text in TEXTS) + (b"\xff", b"1\xe92", b"\xc3", b"\xf0\x9f", b"\xed\xa0\x80")


class Mutant(NamedTuple):
    """A file made from the sound day: its bytes and name, and the lines (from 0) of the sound day that it changed."""

    content: bytes
    touched: set[int]
    kind: str
    name: str = "ORATS_SMV_Strikes_20240103.csv"


def joined(lines: list[bytes], end: bytes = b"\n") -> bytes:
    return end.join(lines) + end


def lines() -> list[bytes]:
    return [line.encode() for line in SOUND]


def a_row(rng: np.random.Generator) -> int:
    return int(rng.integers(1, len(SOUND)))


# ---------------------------------------------------------------------------------------------- mutations


def cells(rng: np.random.Generator) -> Mutant:
    """One to three cells hold something else."""
    out, touched = lines(), set()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = a_row(rng)
        row = out[at].split(b",")
        row[rng.integers(len(row))] = RAW[rng.integers(len(RAW))]
        out[at] = b",".join(row)
        touched.add(at)
    return Mutant(joined(out), touched, "cell")


def numbers(rng: np.random.Generator) -> Mutant:
    """A cell that is read is any number: of any size, sign and spelling."""
    out, at = lines(), a_row(rng)
    row, names = out[at].split(b","), [*orats.NAMES.values(), *orats.OPTIONAL.values()]
    value = rng.choice([-1, 1]) * 10.0 ** rng.uniform(-320, 308) if rng.random() < 0.5 else rng.normal() * 100
    text = str(rng.choice([repr(value), f"{value:.3g}", f"{value:.0f}", f"{value:+e}"]))
    row[COLUMNS_39.index(names[rng.integers(len(names))])] = text.encode()
    out[at] = b",".join(row)
    return Mutant(joined(out), {at}, "number")


def rows(rng: np.random.Generator) -> Mutant:
    """Rows are cut, glued, repeated, contradicted, moved, left empty."""
    out, at, other = lines(), a_row(rng), a_row(rng)
    cut = int(rng.integers(len(out[at])))
    kind = rng.integers(10)
    touched = {at}
    if kind == 0:
        out[at] = out[at][:cut]
    elif kind == 1:
        out[at] = out[at][:cut] + b"\n" + out[at][cut:]
    elif kind == 2:
        out[at] += b",7"
    elif kind == 3:
        out.insert(other, out[at])
    elif kind == 4:
        row = out[at].split(b",")
        row[COLUMNS_39.index("pBidPx")] = b"1.99"
        out.insert(other, b",".join(row))
    elif kind == 5:
        out[1:] = [out[i] for i in 1 + rng.permutation(len(out) - 1)]
        touched = set()
    elif kind == 6:
        out.insert(at, RAW[rng.integers(len(RAW))])
        touched = set()
    elif kind == 7:
        out[at] += out.pop(at + 1) if at + 1 < len(out) else b""
        touched = {at, at + 1}
    elif kind == 8:
        out[at], touched = b"", {at}
    else:
        for k, place in ((at, b"\"%s"), (other, b"%s\"")):      # a quote that opens here and closes there
            row = out[k].split(b",")
            where = COLUMNS_39.index("extVol")
            row[where] = place % row[where]
            out[k] = b",".join(row)
        touched = {at, other}
    return Mutant(joined(out), touched, "row")


def columns(rng: np.random.Generator) -> Mutant:
    """Columns are renamed, missing, repeated, in another order, or not where the header says."""
    table = [line.split(b",") for line in lines()]
    at, other, kind = *rng.choice(len(COLUMNS_39), 2, replace=False).tolist(), rng.integers(8)
    touched = set(range(1, len(table))) if kind in (0, 7) else set()
    if kind == 0:
        table[0][at] = RAW[rng.integers(len(RAW))]
    elif kind == 1:
        table[0][at] = table[0][at].upper()
    elif kind == 2:
        table = [row[:at] + row[at + 1:] for row in table]
    elif kind == 3:
        table = [row + [row[at]] for row in table]
    elif kind == 4:
        order = rng.permutation(len(COLUMNS_39))
        table = [[row[i] for i in order] for row in table]
    elif kind == 5:
        table[0] = [b" " + name + b" " for name in table[0]]
    elif kind == 6:
        table[0] = [b'"' + name + b'"' for name in table[0]]
    else:
        table[0][at], table[0][other] = table[0][other], table[0][at]
    return Mutant(joined([b",".join(row) for row in table]), touched, "column")


def bytes_(rng: np.random.Generator) -> Mutant:
    """Other encodings, line ends and separators; flipped, lost and added bytes."""
    out, text = joined(lines()), joined(lines()).decode()
    everything = set(range(1, len(SOUND)))
    kind = rng.integers(10)
    if kind < 5:
        data, at = bytearray(out), rng.integers(len(out), size=rng.integers(1, 4))
        for place in at.tolist():
            data[place] ^= 1 << int(rng.integers(8))
        first = out[:at.min()].count(b"\n")
        return Mutant(bytes(data), set(range(max(first - 1, 0), out[:at.max()].count(b"\n") + 2)), "bytes")
    encoded = {5: text.encode("utf-16"), 6: text.encode("utf-8-sig"), 7: out.replace(b"\n", b"\r\n"),
               8: out[:int(rng.integers(len(out)))], 9: out.replace(b",", rng.choice([b";", b"\t", b", "]))}
    cut = encoded[8].count(b"\n")
    return Mutant(encoded[int(kind)], {6: set(), 7: set(), 8: set(range(cut, len(SOUND)))}.get(int(kind), everything),
                  "bytes")


def containers(rng: np.random.Generator) -> Mutant:
    """Zips that are cut, flipped, mislabelled, nested, or hold something else."""
    content, kind = joined(lines()), rng.integers(8)
    methods = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    method = methods[rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])]
    name = "ORATS_SMV_Strikes_20240103.csv"
    if kind == 0:
        name = str(rng.choice(["a.txt", "../../evil.csv", "/etc/x.csv", "a/", "é.csv", "__MACOSX/a.csv", "A.CSV"]))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
        if kind == 1:
            archive.writestr("more.csv", content)
    data = bytearray(buffer.getvalue())
    if kind == 2:
        data = data[:int(rng.integers(len(data)))]
    elif kind in (3, 4):
        for place in rng.integers(len(data), size=rng.integers(1, 6)).tolist():
            data[place] ^= 1 << int(rng.integers(8))
    elif kind in (5, 6):                                    # the directory at the end, where sizes and offsets are
        for place in rng.integers(data.rindex(b"PK\x01\x02"), len(data), size=rng.integers(1, 4)).tolist():
            data[place] = int(rng.integers(256))
    elif kind == 7:
        data = bytearray(gzip.compress(content) if rng.random() < 0.5 else rng.bytes(int(rng.integers(400))))
    return Mutant(bytes(data), set(), "container", "ORATS_SMV_Strikes_20240103.zip")


MUTATIONS = ((cells, 2000), (numbers, 1000), (rows, 800), (columns, 700), (bytes_, 1000), (containers, 800))


# ---------------------------------------------------------------------------------------------- the literal reading


def number(text: str) -> float:
    """A cell as a number; NaN where it is empty or none."""
    try:
        return float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return np.nan


def literal(mutant: Mutant) -> dict[tuple, list[dict[str, str]]]:
    """Every line of the file as text by column, under (ticker, expiry, strike); as slow and plain as it gets."""
    header, *body = re.split("\r\n|\n", mutant.content.decode("utf-8-sig", errors="replace"))
    names = [name.strip().strip('"') for name in header.split(",")]
    found: dict[tuple, list[dict[str, str]]] = {}
    for line in body:
        row = dict(zip(names, line.split(",")))
        expiry = orats._date(row.get("expirDate", ""))
        if line.count(",") == len(names) - 1 and not np.isnat(expiry):
            key = (row["ticker"], str(session_of(row["expirDate"])), number(row["strike"]))
            found.setdefault(key, []).append(row)
    return found


PRICES = {"call_bid": "cBidPx", "call_ask": "cAskPx", "put_bid": "pBidPx", "put_ask": "pAskPx"}
GREEKS = {"call_iv": "cMidIv", "put_iv": "pMidIv", "smooth_iv": "smoothSmvVol", "delta": "delta", "gamma": "gamma",
          "theta": "theta", "vega": "vega"}
CONTRACTS = {"call_volume": "cVolu", "call_open_interest": "cOi", "put_volume": "pVolu", "put_open_interest": "pOi"}


def says(row: dict[str, object], cells: dict[str, str]) -> bool:
    """Whether a row of schema.CHAIN is what the cells say: each number a cell's, missing, or clamped by a hair."""
    index, stock = number(cells.get("spot_px", "")), number(cells["stkPx"])
    sound = row["underlying"] == (index if index > 0 else stock)
    for ours, theirs in PRICES.items():
        sound &= np.array_equal(row[ours], number(cells[theirs]), equal_nan=True)
    for ours, theirs in GREEKS.items():
        if theirs in cells:
            with np.errstate(over="ignore"):
                said = np.float32(number(cells[theirs]))
            sound &= bool(np.isnan(row[ours]) or row[ours] == said or abs(row[ours] - said) <= orats.ROUNDING)
    for ours, theirs in CONTRACTS.items():
        sound &= bool(row[ours] == -1 or row[ours] == number(cells[theirs]))
    return bool(sound)


def rows_of(readings: list[Reading]) -> dict[tuple, dict[str, object]]:
    out = {}
    for reading in readings:
        for k in range(len(reading.table["strike"])):
            row = {name: reading.table[name][k] for name in CHAIN.names}
            key = (reading.ticker, str(row["expiry"]), float(row["strike"]))
            assert key not in out, f"{key} twice"
            out[key] = row
    return out


def read(path: Path) -> list[Reading]:
    return orats.read_file(DayFile(DAY, path), tickers=TICKERS, max_dte=None, aliases={})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, dict[str, object]]:
    path = tmp_path_factory.mktemp("sound") / "ORATS_SMV_Strikes_20240103.csv"
    path.write_bytes(joined(lines()))
    return rows_of(read(path))


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    return all(a[name] == b[name] or (a[name] != a[name] and b[name] != b[name]) for name in CHAIN.names)


def one_line(message: str) -> bool:
    """A line that a terminal shows as one and that a person can read."""
    return len(message) < 1000 and message.isprintable()


def check_refusal(message: str, path: Path, mutant: Mutant) -> None:
    assert one_line(message) and str(path) in message, message[:300]
    if mutant.kind in ("cell", "number", "row"):
        named = re.search(r": row (\d+) (?:column (\w+) must|has \d+ columns)", message)
        assert named or "has a line of more than" in message, message


def check_reading(readings: list[Reading], mutant: Mutant, sound: dict[tuple, dict[str, object]]) -> None:
    said = literal(mutant) if mutant.kind != "container" else literal(Mutant(joined(lines()), set(), ""))
    for reading in readings:
        left_out = sum(n for name, n in reading.counts.items() if name.startswith(DROPPED))
        assert reading.counts["read"] == reading.counts["kept"] + left_out
        assert reading.counts["kept"] == len(reading.table["strike"])
    found = rows_of(readings)
    for key, row in found.items():
        if key in sound and same(row, sound[key]) and BASE[key] in said.get(key, []):
            continue
        assert str(row["date"]) == "2024-01-03"
        assert any(says(row, cells) for cells in said.get(key, [])), f"{key}: the file does not say {row}"
    untouched = {index: (row["ticker"], row["expirDate"], row["strike"]) for index, row in enumerate(ROWS, 1)
                 if index not in mutant.touched and row["ticker"] in TICKERS}
    for ticker, printed, strike in untouched.values():
        key = (ticker, str(orats._date(printed)), float(strike))
        if len(said.get(key, [])) == 1:                     # else it is contradicted by a touched row
            assert key in found and same(found[key], sound[key]), f"{key} was not touched, and is lost or changed"


@pytest.mark.parametrize("mutation, n", MUTATIONS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_mutated_day_is_refused_in_one_line_or_read_without_a_lie(mutation: Callable, n: int, sound, tmp_path):
    outcomes: Counter = Counter()
    for seed in range(n):
        mutant = mutation(np.random.default_rng([n, seed]))
        path = tmp_path / mutant.name
        path.write_bytes(mutant.content)
        try:
            readings = read(path)
        except ConfigError as error:
            check_refusal(str(error), path, mutant)
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{mutation.__name__} {seed}: {type(error).__name__}: {error}") from error
        else:
            try:
                check_reading(readings, mutant, sound)
            except AssertionError as error:
                raise AssertionError(f"{mutation.__name__} {seed}: {error}") from error
            outcomes["read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > n // 20, outcomes


def mutants(n: int) -> list[Mutant]:
    """A few of every mutation."""
    return [mutation(np.random.default_rng([of, seed])) for mutation, of in MUTATIONS for seed in range(n)]


def test_a_mutated_day_reaches_the_store_as_it_was_read_or_not_at_all(sound, tmp_path) -> None:
    """With a sound day beside it, which stays as it is."""
    root, before, counted = tmp_path / "store", tmp_path / "20240102.csv", Counter()
    before.write_bytes(joined(lines()).replace(b"1/3/2024", b"1/2/2024"))
    for at, mutant in enumerate(mutants(20)):
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / mutant.name
        path.write_bytes(mutant.content)
        ingest(before, root, tickers=list(TICKERS))
        kept = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
        try:
            done = ingest(path, root, tickers=list(TICKERS))
        except ConfigError as error:
            assert one_line(str(error))
            assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == kept, "refused, and yet written"
            counted["refused"] += 1
            continue
        expected = rows_of(read(path))
        parts = quality.partitions(done.root, [info.ticker for info in done.partitions])
        judged = quality.report(parts, thresholds(), None, silent)
        assert judged.years["rows"].sum() == sum(info.rows for info in done.partitions)
        for info in done.partitions:
            table = store.read_partition(info.path)
            today = table["date"] == DAY
            own = {key: row for key, row in expected.items() if key[0] == info.ticker}
            found = rows_of([Reading(info.ticker, {name: column[today] for name, column in table.items()}, {})])
            assert found.keys() == own.keys()
            assert all(same(found[key], row | {"flags": found[key]["flags"]}) for key, row in own.items())
            old = rows_of([Reading(info.ticker, {name: column[~today] for name, column in table.items()}, {})])
            assert all(same(old[k], sound[k] | {"date": np.datetime64("2024-01-02")}) for k in old) and len(old) == 6
        counted["stored"] += 1
        for p in root.rglob("*.parquet"):
            p.unlink()
    assert min(counted["refused"], counted["stored"]) > 20, counted


# ---------------------------------------------------------------------------------------------- the other readers


class Source(NamedTuple):
    """A reader of text, a sound file of it, and what its rows say of (expiry, strike): quotes by our names."""

    module: ModuleType
    name: str
    text: str
    pack: Callable[[bytes], bytes]
    quotes: Callable[[dict[str, str]], dict[str, str]]
    options: dict[str, object]


def of_yahoo() -> Source:
    names = test_yahoo.COLUMNS
    text = "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in test_yahoo.LADDER)]) + "\n"

    def quotes(row: dict[str, str]) -> dict[str, str]:
        side = {"C": "call", "P": "put"}.get(row["type"], "none")
        return {"expiry": row["expiry"], "strike": row["strike"], f"{side}_bid": row["bid"], f"{side}_ask": row["ask"]}

    return Source(yahoo, "2026-08-12-SPY.csv.gz", text, partial(gzip.compress, compresslevel=1, mtime=0), quotes, {})


def of_optionsdx() -> Source:
    """What test_yahoo's ladder would be in OptionsDX's text."""
    names = [*optionsdx.DATES.values(), "QUOTE_READTIME", *optionsdx.NUMBERS.values()]
    rows = []
    for call, put in zip(test_yahoo.LADDER[::2], test_yahoo.LADDER[1::2], strict=True):
        cells = dict.fromkeys(names, "") | {"QUOTE_DATE": "2026-08-13", "EXPIRE_DATE": call["expiry"], "DTE": "36",
                 "UNDERLYING_LAST": "100", "STRIKE": call["strike"], "QUOTE_READTIME": "2026-08-13 16:00"}
        for letter, row in (("C", call), ("P", put)):
            cells |= {f"{letter}_BID": row["bid"], f"{letter}_ASK": row["ask"], f"{letter}_IV": "0.2",
                      f"{letter}_VOLUME": "5.0"}
        rows.append(", ".join(cells.values()))
    text = "\n".join([", ".join(f"[{name}]" for name in names), *rows]) + "\n"

    def quotes(row: dict[str, str]) -> dict[str, str]:
        row = {name.strip(" []"): cell.strip(" ") for name, cell in row.items()}
        return {"expiry": row["EXPIRE_DATE"], "strike": row["STRIKE"], "call_bid": row["C_BID"],
                "call_ask": row["C_ASK"], "put_bid": row["P_BID"], "put_ask": row["P_ASK"]}

    return Source(optionsdx, "spy_eod_202608.txt", text, bytes, quotes, {})


def mutated(text: str, rng: np.random.Generator) -> bytes:
    """A text with one to three cells, rows or bytes that are something else, or cut off."""
    out = text.encode().rstrip(b"\n").split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        at, kind = int(rng.integers(1, len(out))), rng.integers(10)
        row = out[at].split(b",")
        if kind < 6:
            row[rng.integers(len(row))] = RAW[rng.integers(len(RAW))]
            out[at] = b",".join(row)
        elif kind == 6:
            out.insert(int(rng.integers(1, len(out))), out[at])
        elif kind == 7:
            out[at] = out[at][:int(rng.integers(len(out[at])))]
        elif kind == 8:
            out[0] = out[0].replace(*[(b",", b";"), (b"i", b"j"), (b",", b",,")][rng.integers(3)], 1)
        else:
            data = bytearray(out[at])
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            out[at] = bytes(data)
    whole = joined(out)
    return whole[:int(rng.integers(len(whole)))] if rng.random() < 0.05 else whole


def ingest_from(source: ModuleType, path: Path, root: Path, **options: object) -> Ingested:
    return source.ingest(root, lambda *_: None, path=path, tickers=["SPY"], start=None, end=None, max_dte=None,
                         workers=1, rate=0.04, **options)


def session_of(expiry: str) -> np.datetime64:
    return last_session_on_or_before(np.array([orats._date(expiry)]))[0]


def check_store(done: Ingested, content: bytes, source: Source) -> None:
    """Every quote in the store stands in the file, in a row of its expiry and strike."""
    text = content.decode("utf-8-sig", errors="replace")
    said = [source.quotes(row) for row in csv.DictReader(re.split("\r\n|\n", text), quoting=csv.QUOTE_NONE)
            if None not in row and None not in row.values()]
    dropped = any(n for name, n in done.counts["SPY"].items() if name.startswith(DROPPED))
    for info in done.partitions:
        table = store.read_partition(info.path)
        for k in range(len(table["strike"])):
            mine = [cells for cells in said if number(cells["strike"]) == table["strike"][k]
                    and session_of(cells["expiry"]) == table["expiry"][k]]
            for name in PRICES:
                cells = [number(row[name]) for row in mine if name in row]
                value = table[name][k]
                gone = not cells or np.isnan(cells).any() or dropped    # an option that was left out leaves its side
                assert value in cells or (np.isnan(value) and gone), (name, value, mine)


@pytest.mark.parametrize("source", [of_yahoo(), of_optionsdx()], ids=lambda source: source.module.STORE)
def test_a_mutated_file_of_another_vendor_is_refused_in_one_line_or_stored_without_a_lie(source, tmp_path) -> None:
    outcomes: Counter = Counter()
    for seed in range(600):
        content, path = mutated(source.text, np.random.default_rng([600, seed])), tmp_path / source.name
        data = source.pack(content)
        if seed % 20 == 0:                                  # the container, where there is one
            data = data[:len(data) // 2]
        path.write_bytes(data)
        root = tmp_path / str(seed)
        try:
            done = ingest_from(source.module, path, root, **source.options)
        except ConfigError as error:
            message = str(error)
            named = str(path) in message or "none of 1" in message
            assert one_line(message) and named, f"{seed}: {message[:300]}"
            assert not list(root.rglob("*.parquet")), f"{seed}: refused, and yet written"
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{seed}: {type(error).__name__}: {error}") from error
        else:
            if seed % 20:
                check_store(done, content, source)
            outcomes["stored"] += 1
    assert min(outcomes["refused"], outcomes["stored"]) > 60, outcomes


def parquet_of(rng: np.random.Generator, sound: bytes) -> bytes:
    """The ladder as options-dataset-hist has it, with another type in a column, or bytes flipped, or cut off."""
    table = hist_table()
    if rng.random() < 0.3:
        name = str(rng.choice([*table]))
        odd = ([None], [1.5], ["x"], [b"\xff"], [True], [[1]], [[]], [10 ** 30], ["2026-13-01"])
        table[name] = odd[rng.integers(len(odd))] * len(table[name])
        if rng.random() < 0.2:
            del table[name]
        return written(table)
    data = bytearray(sound)
    metadata = len(sound) - int.from_bytes(sound[-8:-4], "little") - 8
    for place in rng.integers(rng.choice([0, metadata]), len(sound), size=rng.integers(1, 4)).tolist():
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data[:int(rng.integers(len(data)))] if rng.random() < 0.1 else data)


def hist_table() -> dict[str, list]:
    rows = test_yahoo.LADDER
    numbers = {name: [float(row[name]) for row in rows] for name in ("strike", "bid", "ask", "volume")}
    same = {"symbol": "SPY", "date": "2026-08-13", "open_interest": 7, "implied_volatility": 0.2, "delta": 0.5,
            "gamma": 0.1, "theta": -0.1, "vega": 0.2}
    return numbers | {name: [value] * len(rows) for name, value in same.items()} | {
        "expiration": [row["expiry"] for row in rows], "type": [{"C": "call", "P": "put"}[row["type"]] for row in rows]}


def written(table: dict[str, list]) -> bytes:
    buffer = BytesIO()
    parquet.write_table(pa.table({
        name: pa.array(column, pa.decimal128(38)) if column[0] == 10 ** 30 else pa.array(column)
        for name, column in table.items()}), buffer)
    return buffer.getvalue()


def test_a_mutated_parquet_file_is_refused_in_one_line_or_stored(tmp_path) -> None:
    """A flipped bit in a page without a checksum cannot be told: what is held to is the refusal."""
    sound, outcomes, path = written(hist_table()), Counter(), tmp_path / "options_2026.parquet"
    for seed in range(400):
        path.write_bytes(parquet_of(np.random.default_rng([400, seed]), sound))
        root = tmp_path / str(seed)
        try:
            ingest_from(options_hist, path, root)
        except ConfigError as error:
            assert one_line(str(error)) and (str(path) in str(error) or "none of 1" in str(error)), f"{seed}: {error}"
            assert not list(root.rglob("*.parquet")), f"{seed}: refused, and yet written"
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{seed}: {type(error).__name__}: {error}") from error
        else:
            outcomes["stored"] += 1
    assert min(outcomes["refused"], outcomes["stored"]) > 60, outcomes


# ---------------------------------------------------------------------------------------------- memory


BOUND = 600 * 2 ** 20
"""Bytes that a process may have resident at most while it reads one file, whatever the file."""

CHILD = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from mahler.data import orats, yahoo
    from mahler.data.files import DayFile
    from mahler.schema import ConfigError

    for name in sys.argv[1:]:
        Path("/proc/self/clear_refs").write_text("5")           # forget the peak of the file before
        try:
            if name.endswith(".gz"):
                yahoo.read_file(DayFile(np.datetime64("2026-08-12"), Path(name), "SPY"), max_dte=None, rate=0.04)
            else:
                orats.read_file(DayFile(np.datetime64("2024-01-03"), Path(name)), tickers=("SPY", "QQQ"), max_dte=None,
                                aliases={})
            said = "read"
        except ConfigError as error:
            said = str(error)
        peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(json.dumps([said, int(peak) * 1024]))
    """
MIB = 1 << 20
HEADER = (",".join(COLUMNS_39) + "\n").encode()
LINES = (SOUND[-1] + "\n").encode() * 2000
WANTED = LINES.replace(b"TSLA", b"SPY")


def of_size(block: bytes, size: int) -> Iterator[bytes]:
    return itertools.repeat(block, size // len(block))


def zip_of(path: Path, method: int, *pieces: Iterable[bytes]) -> Path:
    with (zipfile.ZipFile(path, "w", method, compresslevel=1) as archive,
          archive.open("ORATS_SMV_Strikes_20240103.csv", "w", force_zip64=True) as member):
        for piece in itertools.chain(*pieces):
            member.write(piece)
    return path


def gzip_of(path: Path, *pieces: Iterable[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for piece in itertools.chain(*pieces):
            stream.write(piece)
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
def test_no_file_takes_more_than_the_bound_of_memory(tmp_path) -> None:
    """Bombs are refused, and what is large but sound is read."""
    deflate = zipfile.ZIP_DEFLATED
    yahoo_header = (",".join(test_yahoo.COLUMNS) + "\n").encode()
    bombs = {
        zip_of(tmp_path / "wanted.zip", deflate, [HEADER], of_size(WANTED, 64 * MIB)): "has more than 33,554,432 bytes",
        zip_of(tmp_path / "nearly.zip", deflate, [HEADER], of_size(WANTED, 31 * MIB)): "read",
        zip_of(tmp_path / "others.zip", deflate, [HEADER], of_size(LINES, 256 * MIB)): "read",
        zip_of(tmp_path / "line.zip", deflate, [HEADER], of_size(b"7" * MIB, 128 * MIB)): "has a line of more than",
        zip_of(tmp_path / "header.zip", deflate, of_size(b"a," * MIB, 128 * MIB)): "lacks the columns",
        zip_of(tmp_path / "bz2.zip", zipfile.ZIP_BZIP2, [HEADER], of_size(bytes(MIB), 64 * MIB)): "valid is deflate",
        gzip_of(tmp_path / "zeros.csv.gz", of_size(bytes(MIB), 256 * MIB)): "is larger than",
        gzip_of(tmp_path / "empty.csv.gz", [yahoo_header], of_size(b",,,,,,,,,,,,,\n" * 999, yahoo.MAX_BYTES)): "row 2",
    }
    done = subprocess.run([sys.executable, "-c", dedent(CHILD), *map(str, bombs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (path, words), line in zip(bombs.items(), done.stdout.splitlines(), strict=True):
        said, peak = json.loads(line)
        assert words in said, f"{path.name}: {said}"
        assert peak < BOUND, f"{path.name} took {peak / MIB:.0f} MiB"


INGEST = """
    import sys
    from pathlib import Path
    from mahler.data import orats

    def peak(years: int) -> int:
        Path("/proc/self/clear_refs").write_text("5")
        orats.ingest(Path(sys.argv[2]) / str(years), lambda *_: None, path=Path(sys.argv[1]), tickers=["SPY"],
                     start=None, end=f"{2006 + years}-12-31", max_dte=None, aliases={}, workers=1)
        return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

    print(peak(1), peak(10), peak(20))
    """


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_years(tmp_path) -> None:
    """A year is in memory at a time: twenty years of days of 2,000 rows take what the first ten take."""
    raw = tmp_path / "raw"
    raw.mkdir()
    row = dict(zip(COLUMNS_39, SOUND[-1].split(","), strict=True)) | {"ticker": "SPY"}
    for year in range(2007, 2027):
        for day in ("01-03", "02-01", "03-01", "06-01"):
            date = sessions(f"{year}-{day}", f"{year}-12-31")[0].astype(object)
            text = csv_text([row | {"trade_date": f"{date.month}/{date.day}/{date.year}", "strike": f"{k}",
                                    "expirDate": f"{date.month}/{date.day}/{date.year + 1}"} for k in (1, 2)])
            head, one, two = text.rstrip("\n").split("\n")
            lines = [line.replace(",1,", f",{k},", 1) for k, line in enumerate([one] * 2000, 3)]
            (raw / f"{date:%Y%m%d}.csv").write_text("\n".join([head, two, *lines]) + "\n")
    done = subprocess.run([sys.executable, "-c", dedent(INGEST), str(raw), str(tmp_path)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    _, half, whole = map(int, done.stdout.split())
    assert whole < 1.05 * half, done.stdout


def test_processes_are_started_once_for_all_years(tmp_path, monkeypatch) -> None:
    """Starting them takes longer than reading a hundred small files, so it must be worth it."""
    started = []
    monkeypatch.setattr(files, "workers_pool", lambda n, *_: started.append(n) or ThreadPoolExecutor(n))
    for year in range(2017, 2025):
        date = sessions(f"{year}-01-01", f"{year}-12-31")[0].astype(object)
        text = csv_text([{"trade_date": f"{date.month}/{date.day}/{date.year}", "expirDate": f"3/1/{year}"}])
        (tmp_path / f"{date:%Y%m%d}.csv").write_text(text)
    assert len(ingest(tmp_path, tmp_path / "small", workers=2).partitions) == 8
    assert started == []
    monkeypatch.setattr(files, "WORTH_A_POOL", 0.0)
    assert len(ingest(tmp_path, tmp_path / "large", workers=2).partitions) == 8
    assert started == [2]
