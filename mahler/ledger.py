"""The ledger of a run: its trades, its rejections, its daily account. Read, write, conservation check, export."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mahler.data import store
from mahler.schema import ACCOUNT, FUNNEL, REJECTED, TRADE, ConfigError, Rejection, Table, check_columns, empty

CENT = 0.01
"""Dollars. What `check` calls equal differs by less than half of it."""

TABLES = {"trades": TRADE, "rejections": REJECTED, "account": ACCOUNT, "funnel": FUNNEL}
"""The tables of a ledger, each a Parquet file of its name, and their columns."""


@dataclass(frozen=True)
class Ledger:
    """What a simulation did, and what it did not do.

    trades (n_trades,) has the columns of schema.TRADE, rejections (n_rejected,) those of schema.REJECTED (Deferred
    where they are many) and account (n_days,), a row per session, those of schema.ACCOUNT. `initial_equity` is
    dollars of cash before the first session. `counts` holds what was counted on the way (stale_marks,
    unreachable_stops, unlabelled_days, ...), the rejections of each reason among it as `rejected.<reason>`; they
    become metrics under their own names. funnel (n_days x n_tickers,), by session and then ticker, has the columns of
    schema.FUNNEL; it has no row where the screen's counts were not kept.
    """

    trades: Table
    rejections: Table | Deferred
    account: Table
    initial_equity: float
    counts: dict[str, float]
    funnel: Table | Deferred = field(default_factory=lambda: empty(FUNNEL))


def check(ledger: Ledger) -> None:
    """Raise ValueError, naming the first row and the dollars, unless the ledger conserves money and rejections.

    cash + marks = equity and heat x equity = open maximum loss on every row of the account (heat means nothing, and
    is not looked at, where equity is not positive), sessions ascend, the P&L of all trades is the final less the
    initial equity, to the cent, and the counted rejections are the rows of their table and, where it has rows, of the
    funnel, in which every candidate is a trade or a rejection. A missing number is a violation.
    """
    check_columns(ledger.trades, TRADE, "the ledger's trades")
    check_columns(ledger.rejections, REJECTED, "the ledger's rejections")
    check_columns(ledger.account, ACCOUNT, "the ledger's account")
    account = ledger.account
    dates, equity = account["date"], account["equity"]
    if len(dates) == 0:
        raise ValueError("the ledger's account has no rows")

    unordered = np.flatnonzero(~(np.diff(dates) > np.timedelta64(0, "D")))
    if len(unordered):
        i = int(unordered[0]) + 1
        raise ValueError(f"account row {i} ({dates[i]}) does not come after row {i - 1} ({dates[i - 1]})")
    _first_gap("cash + marks - equity", dates, account["cash"] + account["marks"] - equity)
    solvent = equity > 0
    _first_gap("heat x equity - open_max_loss", dates,
               np.where(solvent, np.where(solvent, account["heat"], 0.0) * equity - account["open_max_loss"], 0.0))

    booked = math.fsum(ledger.trades["pnl"].tolist())
    earned = float(equity[-1]) - ledger.initial_equity
    if not abs(booked - earned) < CENT / 2:
        raise ValueError(f"the trades' P&L is {booked:.2f} dollars, but the account went from "
                         f"{ledger.initial_equity:.2f} to {equity[-1]:.2f} on {dates[-1]}: {earned:.2f} dollars")

    rejected = Counter(f"rejected.{reason}" for reason in ledger.rejections["reason"].tolist())
    counted = {name: n for name, n in ledger.counts.items() if name.startswith("rejected.") and n}
    if dict(rejected) != counted:
        raise ValueError(f"the rejections are {dict(rejected)}, but the counts say {counted}")
    check_columns(ledger.funnel, FUNNEL, "the ledger's funnel")
    if len(ledger.funnel["date"]):
        _check_funnel(ledger, counted)


def _check_funnel(ledger: Ledger, rejected: dict[str, float]) -> None:
    """Every candidate is admitted or rejected, on each row; the columns sum to the trades and to the counts."""
    funnel, reasons = ledger.funnel, [reason.name.lower() for reason in Rejection]
    lost = np.flatnonzero(funnel["ranked"] != sum(funnel[reason] for reason in reasons))
    if len(lost):
        i = int(lost[0])
        raise ValueError(f"funnel row {i} ({funnel['ticker'][i]} on {funnel['date'][i]}) has {funnel['ranked'][i]} "
                         f"candidates, but {sum(funnel[reason][i] for reason in reasons)} were admitted or rejected")
    counted = {"rejected.admitted": len(ledger.trades["pnl"]), **rejected}
    for reason in reasons:
        total = int(funnel[reason].sum())
        if total != counted.get(f"rejected.{reason}", 0):
            raise ValueError(f"the funnel has {total} candidates {reason}, the ledger "
                             f"{counted.get(f'rejected.{reason}', 0):.0f}")


def difference(ours: Ledger, theirs: Ledger) -> str | None:
    """Where the second ledger first differs from the first, in a few words; None where they are equal to the bit."""
    for what, dtype in TABLES.items():
        one, other = getattr(ours, what), getattr(theirs, what)
        if len(one[dtype.names[0]]) != len(other[dtype.names[0]]):
            return f"{what} has {len(one[dtype.names[0]])} rows, not {len(other[dtype.names[0]])}"
        for name in dtype.names:
            equal = (one[name] == other[name]) | ((one[name] != one[name]) & (other[name] != other[name]))   # NaN too
            if not equal.all():
                row = int(np.argmin(equal))
                return f"{what} row {row} ({one['date'][row]}): {name} is {one[name][row]}, not {other[name][row]}"
    if ours.initial_equity != theirs.initial_equity:
        return f"initial_equity is {ours.initial_equity}, not {theirs.initial_equity}"
    return None


def _first_gap(what: str, dates: np.ndarray, gap: np.ndarray) -> None:
    wrong = np.flatnonzero(~(np.abs(gap) < CENT / 2))      # "not smaller", so that NaN is found too
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(f"account row {i} ({dates[i]}): {what} is {gap[i]:.4f} dollars, not 0")


def write(ledger: Ledger, folder: Path) -> None:
    """Write trades, rejections, account, funnel (.parquet), trades.json and ledger.json (the rest) into `folder`.

    The same ledger gives the same bytes. `folder` is made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        store.write_table(folder / f"{name}.parquet", getattr(ledger, name))
    write_export(ledger, folder / "trades.json")
    rest = {"initial_equity": float(ledger.initial_equity),
            "counts": {name: float(value) for name, value in ledger.counts.items()}}
    _write_text(folder / "ledger.json", json.dumps(rest, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read(folder: Path) -> Ledger:
    """The ledger that `write` put into `folder`. Raises ConfigError, naming the file, where one is missing."""
    path = folder / "ledger.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: {folder} does not hold a whole ledger")
    rest = json.loads(path.read_text(encoding="utf-8"))
    tables = {name: _read_table(folder / f"{name}.parquet", dtype) for name, dtype in TABLES.items()}
    return Ledger(**tables, initial_equity=rest["initial_equity"], counts=rest["counts"])


def _read_table(path: Path, dtype: np.dtype) -> Table:
    if not path.is_file():
        raise ConfigError(f"{path} is missing: {path.parent} does not hold a whole ledger")
    table = store.read_table(path)
    check_columns(table, dtype, str(path))
    return {name: np.asarray(table[name]).astype(dtype[name], copy=False) for name in dtype.names}


def export(ledger: Ledger) -> list[dict[str, Any]]:
    """The trades as plain records, in the names and units that the LLM layer reads (JSON types only).

    credit and max_loss are dollars per share, pnl is dollars per contract net of costs, delta is the short leg's
    absolute delta, iv_percentile percent points from 0 to 100 (the only place where Mahler writes percent), hold_days
    calendar days, outcome `profit` where the net P&L is above zero, else `loss`. A missing number is None.
    """
    t = ledger.trades
    columns = {
        "date": np.datetime_as_string(t["date"], unit="D").tolist(),
        "ticker": t["ticker"].tolist(),
        "short_strike": _numbers(t["short_strike"]),
        "long_strike": _numbers(t["long_strike"]),
        "expiration": np.datetime_as_string(t["expiration"], unit="D").tolist(),
        "credit": _numbers(t["credit"]),
        "max_loss": _numbers(t["max_loss"]),
        "delta": _numbers(t["delta"]),
        "dte": t["dte"].tolist(),
        "iv_percentile": _numbers(np.round(100.0 * t["iv_percentile"], 10)),   # 0.29 is 29.0, not 28.999999999999996
        "vix": _numbers(t["vix"]),
        "underlying_price": _numbers(t["underlying_price"]),
        "outcome": np.where(t["pnl"] > 0, "profit", "loss").tolist(),
        "pnl": _numbers(t["pnl_per_contract"]),
        "exit_reason": t["exit_reason"].tolist(),
        "hold_days": t["hold_days"].tolist(),
        "side": t["side"].tolist(),
        "contracts": t["contracts"].tolist(),
        "regime": t["regime"].tolist(),
        "width": _numbers(t["width"]),
        "entry_score": _numbers(t["entry_score"]),
        "trade_id": t["trade_id"].tolist(),
    }
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _numbers(column: np.ndarray) -> list[float | None]:
    """Floats, with None for what is not finite: strict JSON has no NaN."""
    if np.isfinite(column).all():
        return column.tolist()
    return [x if math.isfinite(x) else None for x in column.tolist()]


def write_export(ledger: Ledger, path: Path) -> None:
    """Write `export` to `path` as a strict JSON array, a trade a line; its folder is made where it does not exist.

    Raises ConfigError where `path` cannot be written.
    """
    encode = json.JSONEncoder(allow_nan=False).encode
    rows = ",\n".join(map(encode, export(ledger)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_text(path, f"[\n{rows}\n]\n" if rows else "[]\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
