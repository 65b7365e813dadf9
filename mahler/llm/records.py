"""The trades that are judged: the records of `ledger.export`, checked, and what of them was known at entry."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from mahler.schema import ConfigError, shown

Record = Mapping[str, Any]
"""A trade, as `ledger.export` writes it: credit in dollars per share, iv_percentile in percent points."""

ENTRY = ("date", "ticker", "side", "short_strike", "long_strike", "width", "expiration", "dte", "credit", "max_loss",
         "delta", "iv_percentile", "vix", "underlying_price", "regime", "entry_score")
"""What was known when the trade was opened, and all that an arm may look at."""

OUTCOME = ("outcome", "pnl", "exit_reason", "hold_days")
"""What was known only after it was closed."""

DATES, REQUIRED_NUMBERS = ("date", "expiration"), ("short_strike", "long_strike", "pnl", "hold_days")
LONGEST_HOLD, MOST_CONTRACTS = 3660, 1_000_000
NUMBERS = ("credit", "max_loss", "delta", "dte", "iv_percentile", "vix", "underlying_price")


def entry(record: Record) -> dict[str, Any]:
    """What of a trade was known at entry; a missing number is None."""
    return {name: record.get(name) for name in ENTRY}


def opened(record: Record) -> date:
    """The day of entry."""
    return date.fromisoformat(record["date"])


def closed(record: Record) -> date:
    """The day on which the trade was closed."""
    return opened(record) + timedelta(days=int(record["hold_days"]))


def digest(records: Sequence[Record]) -> str:
    """64 hex digits of all that is in the records."""
    return hashlib.sha256(json.dumps(list(records), sort_keys=True).encode("utf-8")).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """The trades of a JSON file, the export of a run or one made by hand, in the order of their dates.

    A record without `side` or `width` gets them from its strikes. Raises ConfigError where the file is no array of
    trades, or the first value of one is not what it should be.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"trades={path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"trades={path}: is no JSON file") from error
    if not isinstance(whole, list) or not whole or not all(isinstance(record, dict) for record in whole):
        raise ConfigError(f"trades={path}: is an array of one trade or more, each an object of the names of an export")
    checked = [_checked(record, f"trades={path}: trade {k}") for k, record in enumerate(whole)]
    return [{**record, "trade_id": k} for k, record in enumerate(sorted(checked, key=lambda record: record["date"]))]


def _checked(record: dict[str, Any], where: str) -> dict[str, Any]:
    missing = [name for name in (*DATES, "ticker", *REQUIRED_NUMBERS, *NUMBERS, "outcome") if name not in record]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    for name in DATES:
        _check_date(f"{where}.{name}", record[name])
    for name in (*REQUIRED_NUMBERS, *NUMBERS):
        value = record[name]
        if value is None and name in NUMBERS:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{where}.{name} is a number, got {shown(value)}")
    if not isinstance(record["ticker"], str):
        raise ConfigError(f"{where}.ticker is text, got {shown(record['ticker'])}")
    if record["outcome"] not in ("profit", "loss"):
        raise ConfigError(f"{where}.outcome is profit or loss, got {shown(record['outcome'])}")
    _check_life(record, where)
    side = "put" if record["short_strike"] > record["long_strike"] else "call"
    if record.setdefault("side", side) not in ("put", "call"):
        raise ConfigError(f"{where}.side is put or call, got {shown(record['side'])}")
    record.setdefault("width", abs(record["short_strike"] - record["long_strike"]))
    return record


def _check_life(record: dict[str, Any], where: str) -> None:
    """How long it was held, in days, and the fields of an export that a file made by hand may lack."""
    days, contracts = record["hold_days"], record.get("contracts", 1)
    if days != int(days) or not 0 <= days <= LONGEST_HOLD:
        raise ConfigError(f"{where}.hold_days is whole days from 0 to {LONGEST_HOLD}, got {shown(days)}")
    if isinstance(contracts, bool) or not isinstance(contracts, int) or not 1 <= contracts <= MOST_CONTRACTS:
        raise ConfigError(f"{where}.contracts is a whole number from 1 to {MOST_CONTRACTS:,}, got {shown(contracts)}")
    for name in ("exit_reason", "regime"):
        if not isinstance(record.get(name), (str, type(None))):
            raise ConfigError(f"{where}.{name} is text, got {shown(record[name])}")
    for name in ("width", "entry_score"):
        value = record.get(name, 0.0)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)):
            raise ConfigError(f"{where}.{name} is a number, got {shown(value)}")


def _check_date(where: str, value: Any) -> None:
    try:
        written = date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        written = None
    if written is None or written != value:
        raise ConfigError(f"{where} is a date YYYY-MM-DD, got {shown(value)}")
