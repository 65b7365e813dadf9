"""Fills by hand or from another broker: a CSV file, a row per leg and fill.

    fill_id    unique; the same again is the same fill
    at         time of the fill with its offset from UTC (2024-03-04T14:46:00-05:00), or a date
    symbol     OCC, padded or not: QQQ240419P00425000; or a stock, of shares that an assignment left
    side       buy or sell
    contracts  a whole number; of shares their number
    price      dollars per share
    fees       dollars; optional
    kind       trade, expired, assigned or exercised; optional
    ticket_id, order_id, reason, bid, ask      optional; bid and ask are the quote at the fill

Columns are found by their name, in any order.
"""

from __future__ import annotations

import csv as reader
import math
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from mahler.paper.importers import KINDS, TRADE, Event, Imported
from mahler.schema import ConfigError, shown

SOURCE = "csv"
NEEDED = ("fill_id", "at", "symbol", "side", "contracts", "price")
OPTIONAL = ("fees", "kind", "ticket_id", "order_id", "reason", "bid", "ask")
EXCHANGE = ZoneInfo("America/New_York")


def read(started: np.datetime64, *, path: Path | None) -> Imported:
    """The fills of a file; those of sessions before `started` are left out.

    Raises ConfigError, naming the file, the line and the column, for what cannot be read.
    """
    if path is None:
        raise ConfigError("source.path is missing: a CSV file with a row per leg and fill; give it as source.path=...")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(reader.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, reader.Error) as error:
        raise ConfigError(f"source.path={path} cannot be read: {error}") from error
    names = set(rows[0]) if rows else set(NEEDED)
    missing, unknown = [name for name in NEEDED if name not in names], names - {*NEEDED, *OPTIONAL}
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has the unknown column {shown(sorted(map(str, unknown))[0])}"
        raise ConfigError(f"{path} {what}; the columns are {', '.join(NEEDED)} and may be {', '.join(OPTIONAL)}")
    events = [_event(row, f"{path} line {k}") for k, row in enumerate(rows, start=2)]
    kept = [event for event in events if event.date >= started]
    found = Imported(SOURCE, events=kept)
    if len(kept) < len(events):
        found.left_out[f"fills before {started}"] += len(events) - len(kept)
    return found


def _event(row: dict, where: str) -> Event:
    def number(name: str, default: float | None = None) -> float:
        text = (row.get(name) or "").strip()
        try:
            value = float(text) if text or default is None else default
        except ValueError:
            value = math.nan
        if text and not math.isfinite(value) or value < 0:
            raise ConfigError(f"{where}: {name} is a number >= 0, got {shown(text)}")
        return value

    side, kind = (row["side"] or "").strip().lower(), (row.get("kind") or "").strip().lower() or TRADE
    contracts = number("contracts")
    if side not in ("buy", "sell"):
        raise ConfigError(f"{where}: side is buy or sell, got {shown(row['side'])}")
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind is one of {', '.join(KINDS)}, got {shown(row['kind'])}")
    if contracts != int(contracts) or contracts == 0:
        raise ConfigError(f"{where}: contracts is a whole number above 0, got {shown(row['contracts'])}")
    if not (row["fill_id"] or "").strip():
        raise ConfigError(f"{where}: fill_id is missing, and tells a fill from another one")
    at, date = _time(row["at"], where)
    text = {name: (row.get(name) or "").strip() for name in ("ticket_id", "order_id", "reason")}
    return Event(
        event_id=f"{SOURCE}-{row['fill_id'].strip()}", at=at, date=date, kind=kind,
        symbol=(row["symbol"] or "").strip().replace(" ", ""), quantity=int(contracts) if side == "buy" else -int(contracts),
        price=number("price"), fees=number("fees", 0.0), bid=number("bid", math.nan), ask=number("ask", math.nan), **text)


def _time(text: str | None, where: str) -> tuple[np.datetime64, np.datetime64]:
    """UTC and the session of a time with its offset, or of a date."""
    try:
        when = datetime.fromisoformat((text or "").strip())
    except ValueError:
        when = None
    is_date = len((text or "").strip()) == 10
    if when is None or (when.tzinfo is None and not is_date):
        raise ConfigError(f"{where}: at is a date, or a time with its offset from UTC as 2024-03-04T14:46:00-05:00, got "
                          f"{shown(text)}")
    if is_date:
        return np.datetime64(when.date(), "s"), np.datetime64(when.date())
    utc = when.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    return np.datetime64(utc, "s"), np.datetime64(when.astimezone(EXCHANGE).date())
