"""What the ORATS Data API answers: checked, kept one file a day, and read as chains.

    <folder>/SPY/dte=90/2024-01-03.parquet      the rows of a day up to 90 calendar days to expiration
    <folder>/SPY/dte=90/2024-01-04.none         the vendor has nothing of that day

A file holds numbers and dates only, under the vendor's names and as the vendor sent them: no text of an answer,
which might repeat the token, gets to the disk. The `dte` of an answer is calendar days plus one and only compared.
`stockPrice` is the stock's price, for an index a forward per expiry, and then `spotPrice` is the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mahler.data import orats, store
from mahler.data.files import DTE_MISMATCH, DayFile, Reading
from mahler.data.orats_client import CallFailed
from mahler.schema import Table

REQUIRED = {  # ours: theirs
    "strike": "strike", "underlying": "stockPrice",
    "call_bid": "callBidPrice", "call_ask": "callAskPrice", "put_bid": "putBidPrice", "put_ask": "putAskPrice",
}
OPTIONAL = {
    "call_volume": "callVolume", "call_open_interest": "callOpenInterest",
    "put_volume": "putVolume", "put_open_interest": "putOpenInterest",
    "call_iv": "callMidIv", "put_iv": "putMidIv", "smooth_iv": "smvVol",
    "delta": "delta", "gamma": "gamma", "theta": "theta", "vega": "vega",
}
ASIDE = ("spotPrice", "dte")
FIELDS = ",".join(["ticker", "tradeDate", "expirDate", *ASIDE, *REQUIRED.values(), *OPTIONAL.values()])
"""What is asked for: `fields` of hist/strikes."""

ROWS, NOTHING = ".parquet", ".none"


# ---------------------------------------------------------------------------------------------- kept


@dataclass(frozen=True)
class Shelf:
    """The days that are kept, complete up to `max_dte` calendar days to expiration (None: all)."""

    folder: Path
    max_dte: int | None

    def days(self, name: str) -> dict[str, Path]:
        """By day (ISO), what is kept of the ticker `name`: a file of rows, or the mark that there is nothing."""
        found = {}
        # The narrowest that is wide enough comes last, and stays.
        for path in sorted((self.folder / name).glob("dte=*"), key=_width, reverse=True):
            if _width(path) >= _limit(self.max_dte):
                found |= {p.stem: p for p in path.iterdir() if p.suffix in (ROWS, NOTHING) and p.name[0] != "."}
        return found

    def put(self, name: str, day: str, table: Table | None) -> Path:
        """Keep the rows of a day, whole or not at all; None is the mark that there is nothing."""
        path = self.folder / name / f"dte={'all' if self.max_dte is None else self.max_dte}" / day
        if table is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path = path.with_name(day + NOTHING)
            path.touch()
        else:
            path = path.with_name(day + ROWS)
            store.write_table(path, table)
        return path


def _width(path: Path) -> float:
    text = path.name.removeprefix("dte=")
    return _limit(int(text) if text.isdecimal() else None)


def _limit(max_dte: int | None) -> float:
    return np.inf if max_dte is None else max_dte


def read_day(file: DayFile, *, max_dte: int | None) -> list[Reading]:
    """The chain in a file of rows: none, or one Reading. An old name of the ticker is counted."""
    theirs = store.read_table(file.path)
    n, name = len(theirs["strike"]), file.path.parent.parent.name
    raw = {ours: theirs[column] for ours, column in REQUIRED.items()}
    absent = [ours for ours, column in OPTIONAL.items() if column not in theirs]
    raw |= {ours: theirs.get(column, np.full(n, np.nan)) for ours, column in OPTIONAL.items()}
    raw |= {"expirDate": theirs["expirDate"], "trade_date": np.full(n, file.day)}
    if "spotPrice" in theirs and np.ptp(raw["underlying"]) > 0:
        raw["index_spot"] = theirs["spotPrice"]
    noted = {f"without_{ours}": n for ours in absent}
    noted |= {DTE_MISMATCH: _mismatches(theirs, file.day), f"filed_as_{name}": n if name != file.ticker else 0}
    table, counts = orats.chain(raw, max_dte)
    counts |= {reason: count for reason, count in noted.items() if count}
    return [Reading(file.ticker, table, counts)] if counts["kept"] else []


def _mismatches(theirs: Table, day: np.datetime64) -> int:
    """Rows whose `dte` is not their calendar days to expiration plus one."""
    said = theirs.get("dte", np.full(len(theirs["strike"]), np.nan))
    return int(np.count_nonzero(~np.isnan(said) & (said != (theirs["expirDate"] - day).astype(int) + 1)))


# ---------------------------------------------------------------------------------------------- answers


def strikes(call: str, rows: Sequence[Any], name: str, day: str) -> Table:
    """The rows of hist/strikes as columns, by the vendor's names; a field that no row has is left out.

    Raises CallFailed, naming the row, where one is not of this ticker and day, lacks a field that every row must
    have, or holds something else than a number.
    """
    _check_same(call, rows, "ticker", name)
    _check_same(call, rows, "tradeDate", day)
    table = {"expirDate": _dates(call, rows, "expirDate")}
    table |= {field: _numbers(call, rows, field, required=True) for field in REQUIRED.values()}
    for field in (*ASIDE, *OPTIONAL.values()):
        if any(field in row for row in rows):
            table[field] = _numbers(call, rows, field)
    return table


def closes(call: str, rows: Sequence[Any], name: str) -> Table:
    """The official closes in hist/dailies, by date, under the name that data/daily/ has for them.

    `clsPx` is adjusted for splits; strikes are not, so it is `unadjClsPx` that options settle on.
    """
    _check_same(call, rows, "ticker", name)
    day, close = _dates(call, rows, "tradeDate"), _numbers(call, rows, "unadjClsPx", required=True)
    day, close = day[close > 0], close[close > 0]
    return _by_date(call, {"date": day, f"{name}_close": close})


def splits(call: str, rows: Sequence[Any], name: str) -> Table:
    """The splits in hist/splits by date: a raw price before it is divided by `divisor`."""
    if not rows:
        return {"date": np.empty(0, "datetime64[D]"), "divisor": np.empty(0)}
    _check_same(call, rows, "ticker", name)
    divisor = _numbers(call, rows, "divisor", required=True)
    if not (divisor > 0).all():
        raise CallFailed(f"{call}: row {int(np.argmin(divisor > 0)) + 1} has a divisor that is not above 0")
    return _by_date(call, {"date": _dates(call, rows, "splitDate"), "divisor": divisor})


def _by_date(call: str, table: Table) -> Table:
    order = np.argsort(table["date"], kind="stable")
    table = {name: column[order] for name, column in table.items()}
    twice = table["date"][1:] == table["date"][:-1]
    if twice.any():
        raise CallFailed(f"{call}: {table['date'][int(np.argmax(twice))]} occurs twice")
    return table


def _check_same(call: str, rows: Sequence[Any], field: str, value: str) -> None:
    for at, row in enumerate(rows, 1):
        if not isinstance(row, dict) or row.get(field) != value:
            raise CallFailed(f"{call}: row {at} of {len(rows)} is not of {field} {value}")


_ABSENT = object()


def _numbers(call: str, rows: Sequence[dict], field: str, required: bool = False) -> np.ndarray:
    """float64 (n,); null is NaN, and so is a field that is not there unless it is required."""
    values = [row.get(field, _ABSENT if required else None) for row in rows]
    if not set(map(type, values)) <= {int, float, type(None)}:
        at, value = next((at, v) for at, v in enumerate(values, 1) if type(v) not in (int, float, type(None)))
        fault = f"has no {field}" if value is _ABSENT else f"has a {type(value).__name__} for the number {field}"
        raise CallFailed(f"{call}: row {at} of {len(rows)} {fault}")
    try:
        return np.array(values, dtype=float)
    except OverflowError:
        raise CallFailed(f"{call}: a number of {field} is too large to be one") from None


def _dates(call: str, rows: Sequence[dict], field: str) -> np.ndarray:
    """datetime64[D] (n,) of ISO dates."""
    texts = [text if isinstance(text := row.get(field), str) else "" for row in rows]
    days = {text: _date(text) for text in set(texts)}
    for at, text in enumerate(texts, 1):
        if days[text] is None:
            raise CallFailed(f"{call}: row {at} of {len(rows)} has no date YYYY-MM-DD as {field}")
    return np.array([days[text] for text in texts], dtype="datetime64[D]")


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == len("2024-01-03") else None
    except ValueError:
        return None
