"""Orders and account activities of Alpaca, as its API gives them and as alpaca-py's models dump to JSON.

A file holds orders, activities, or an object with both, {"orders": [...], "activities": [...]}. Orders are listed with
their legs (`nested=true`); a leg of a multi-leg order (order_class mleg) has an id of its own, by which its activities
name it. Numbers come as text or as numbers, times in UTC. Where an order has no FILL activities, its legs' average prices
stand for them, once it is done.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import numpy as np

from mahler.paper import alpaca_client, occ
from mahler.paper.importers import ASSIGNED, EXERCISED, EXPIRED, TRADE, Cash, Event, Imported, Leg, Order
from mahler.schema import Bound, ConfigError, shown

SOURCE = "alpaca"
EXCHANGE = ZoneInfo("America/New_York")
DONE = {"filled", "canceled", "expired", "rejected", "replaced"}
EVENTS = {"OPEXP": EXPIRED, "OPASN": ASSIGNED, "OPEXC": EXERCISED}
IMPLIED = "OPTRD"        # the shares of an assignment or exercise: these follow from it, at its strike
CASH = {"FEE": "fee", "CFEE": "fee", "INT": "interest", "DIV": "dividend", "CSD": "transfer", "CSW": "transfer",
        "JNLC": "transfer", "TRANS": "transfer"}


def read(started: np.datetime64, *, path: Path | None, base_url: str | None,
         timeout: Annotated[float, Bound("seconds for one answer", 0, 3600, open_low=True)]) -> Imported:
    """What is in a file or a folder of *.json or, where `base_url` is given, what the account of the API did.

    Money that was transferred on `started` or before is the account's initial equity, and is left out, like all that was
    done before it. The API's keys come from the environment (alpaca_client.KEYS).

    Raises
    ------
    ConfigError
        Where neither or both of path and base_url are given, a file is no JSON of orders and activities, or one of them
        lacks what it must have, naming it.
    """
    if (path is None) == (base_url is None):
        raise ConfigError("source.path is a file of Alpaca's JSON, or source.base_url an address of its API "
                          "(https://paper-api.alpaca.markets): give one of the two")
    objects = [*_of_files(path)] if path else alpaca_client.history(base_url, started, timeout)
    orders, events, cash, left_out = {}, {}, {}, Counter()
    for where, found in objects:
        try:
            if "activity_type" not in found:
                order = _order(found)
                orders[order.order_id] = order
            elif found.get("status") == "canceled":
                left_out["canceled activities"] += 1
            elif found["activity_type"] == "FILL":
                event = _fill(found)
                events[event.event_id] = event
            elif found["activity_type"] in EVENTS:
                event = _event(found)
                events[event.event_id] = event
            elif found["activity_type"] in CASH:
                row = Cash(f"{SOURCE}-{found['id']}", np.datetime64(found["date"], "D"), CASH[found["activity_type"]],
                           _number(found, "net_amount"), str(found.get("description") or ""))
                cash[row.cash_id] = row
            elif found["activity_type"] != IMPLIED:
                left_out[f"activities {shown(found['activity_type'])}"] += 1
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"has {error}"
            raise ConfigError(f"{where}: the object with id {shown(found.get('id'))} {what}") from error
    kept = [row for row in cash.values() if row.date > started]
    left_out["cash up to the start of the account"] += len(cash) - len(kept)
    of_account = [event for event in events.values() if event.date >= started]
    left_out["fills before the account"] += len(events) - len(of_account)
    of_orders = [order for order in orders.values() if order.submitted_at.astype("M8[D]") >= started]
    left_out["orders before the account"] += len(orders) - len(of_orders)
    return Imported(SOURCE, of_orders, of_account, kept, +left_out)


def _of_files(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The orders and activities of a file, or of the files of a folder, each with where it is from."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"source.path={path} has no *.json")
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no JSON"
            raise ConfigError(f"source.path={file} cannot be read: {why}") from error
        lists = [content.get(name, []) for name in ("orders", "activities")] if isinstance(content, dict) and (
            {"orders", "activities"} & set(content)) else [content if isinstance(content, list) else [content]]
        for found in (found for listed in lists for found in listed):
            if not isinstance(found, dict) or not {"activity_type", "client_order_id"} & set(found):
                raise ConfigError(f"{file} holds something that is neither an order nor an activity: {shown(found)}")
            yield str(file), found


def _order(found: dict[str, Any]) -> Order:
    mleg = found.get("order_class") == "mleg"
    if mleg and not found.get("legs"):
        raise ValueError("no legs, though its order_class is mleg: list orders with nested=true")
    legs = tuple(_leg(leg) for leg in (found["legs"] if mleg else [found]))
    contracts = _whole(found, "qty")
    uneven = [leg.symbol for leg in legs if abs(leg.quantity) != contracts]
    if uneven:
        raise ValueError(f"the leg {uneven[0]} in another ratio than 1")
    return Order(
        order_id=found["id"], client_id=str(found.get("client_order_id") or ""),
        submitted_at=_time(found.get("submitted_at") or found["created_at"])[0], status=str(found["status"]),
        done=found["status"] in DONE, contracts=contracts, filled=_whole(found, "filled_qty", 0),
        limit_price=abs(_number(found, "limit_price", np.nan)), legs=legs,          # of a spread a credit is negative
        filled_price=abs(_number(found, "filled_avg_price", np.nan)))


def _leg(found: dict[str, Any]) -> Leg:
    sign, filled = _sign(found), _whole(found, "filled_qty", 0)
    at = found.get("filled_at") or found.get("updated_at") if filled else None
    return Leg(found["id"], found["symbol"], sign * _whole(found, "qty"), sign * filled,
               _number(found, "filled_avg_price", np.nan), _time(at)[0] if at else np.datetime64("NaT", "s"))


def _fill(found: dict[str, Any]) -> Event:
    at, date = _time(found["transaction_time"])
    return Event(f"{SOURCE}-{found['id']}", at, date, TRADE, found["symbol"], _sign(found) * _whole(found, "qty"),
                 _number(found, "price"), order_id=str(found.get("order_id") or ""))


def _event(found: dict[str, Any]) -> Event:
    """An expiration, assignment or exercise. Its quantity closes: positive of what was short, negative of what was long."""
    kind, n = EVENTS[found["activity_type"]], _whole(found, "qty")
    date = np.datetime64(found["date"], "D")
    quantity = {ASSIGNED: abs(n), EXERCISED: -abs(n)}.get(kind, n)
    if not occ.is_option(found["symbol"]):
        raise ValueError(f"the symbol {shown(found['symbol'])}, which is no option")
    # An id may be shared with the shares of the same assignment; after the close, so after every trade of the day.
    return Event(f"{SOURCE}-{found['id']}-{found['activity_type']}-{found['symbol']}",
                 date.astype("M8[s]") + np.timedelta64(1, "D") - np.timedelta64(1, "s"), date, kind, found["symbol"],
                 quantity, 0.0)


def _sign(found: dict[str, Any]) -> int:
    side = str(found["side"])
    if side not in ("buy", "sell", "sell_short"):
        raise ValueError(f"the side {shown(side)}")
    return 1 if side == "buy" else -1


def _number(found: dict[str, Any], name: str, default: float | None = None) -> float:
    """A number that may come as text; missing is `default`, and an error where there is none."""
    value = found.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or not np.isfinite(float(value)):
        raise ValueError(f"{name} {shown(value)}, which is no number")
    return float(value)


def _whole(found: dict[str, Any], name: str, default: float | None = None) -> int:
    number = _number(found, name, default)
    if number != int(number):
        raise ValueError(f"{name} {number:g}, which is no whole number of contracts")
    return int(number)


def _time(text: Any) -> tuple[np.datetime64, np.datetime64]:
    """UTC to the second, and the date in New York, of an RFC 3339 time, which may have nanoseconds."""
    when = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(text)))
    if when.tzinfo is None:
        raise ValueError(f"the time {shown(text)} without an offset")
    utc = when.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    return np.datetime64(utc, "s"), np.datetime64(when.astimezone(EXCHANGE).date())
