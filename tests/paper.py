"""A paper ledger by hand: a ticket, its fills, its marks."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mahler import schema
from mahler.paper import occ, records
from mahler.schema import Side, Table

POSITION = "2024-03-04-open-SPY-P-20240419-480-475"
LEGS = (occ.symbol("SPY", date(2024, 4, 19), Side.PUT, 480.0), occ.symbol("SPY", date(2024, 4, 19), Side.PUT, 475.0))


def table(dtype: np.dtype, *rows: dict[str, Any]) -> Table:
    """Rows of `dtype`; what is not given is missing: NaN, NaT, "" or 0."""
    missing = {"f": np.nan, "M": np.datetime64("NaT"), "O": ""}
    return {name: np.array([row.get(name, missing.get(dtype[name].kind, 0)) for row in rows], dtype[name])
            for name in dtype.names}


def account(**changed: Any) -> Table:
    row = {"started": "2024-03-04", "initial_equity": 100_000.0, "source": "synthetic", "synthetic": True,
           "commission": 1.0, "assignment_fee": 0.0}
    return table(schema.PAPER_ACCOUNT, row | changed)


def opened(**changed: Any) -> Table:
    """An open ticket of two SPY 480/475 puts, 0.40 at the mid and 0.36 as modelled."""
    row = {"ticket_id": POSITION, "date": "2024-03-04", "action": "open", "position": POSITION, "ticker": "SPY",
           "side": "put", "expiration": "2024-04-19", "short_strike": 480.0, "long_strike": 475.0, "width": 5.0,
           "contracts": 2, "mid": 0.40, "fill": 0.36, "max_loss": 468.0, "target_cost": 0.126, "stop_cost": 0.81,
           "time_exit": "2024-03-29", "stage": "paper", "size_multiplier": 1.0}
    return table(schema.TICKET, row | changed)


def closing(reason: str = "profit_target", day: str = "2024-03-14") -> Table:
    """The ticket that closes them."""
    return opened(ticket_id=f"{day}-close-SPY-P-20240419-480-475", date=day, action="close", reason=reason, mid=0.12,
                  fill=0.14)


def fills(ticket: Table, contracts: int, short: float, long: float, *, day: str, tag: str = "", fees: float = 2.0,
          **changed: Any) -> Table:
    """Both legs of a ticket filled on `day` at prices of the short and the long leg, dollars per share."""
    sign = 1 if ticket["action"][0] == "close" else -1
    shared = {"ticket_id": ticket["ticket_id"][0], "position": ticket["position"][0], "at": f"{day}T19:46:00",
              "date": day, "kind": "trade", "fees": fees / 2, "reason": ticket["reason"][0], "source": "test"} | changed
    return table(schema.FILL, *(
        shared | {"fill_id": f"{shared['ticket_id']}-{leg}{tag}", "leg": leg, "symbol": symbol, "price": price,
                  "quantity": way * sign * contracts}
        for leg, symbol, price, way in (("short", LEGS[0], short, 1), ("long", LEGS[1], long, -1))))


def marked(day: str, mid: float, age: int = 0) -> Table:
    return table(schema.MARK, {"position": POSITION, "date": day, "mid": mid, "age": age})


def write(folder: Path, *tables: tuple[str, Table]) -> None:
    for name, rows in tables:
        records.write(folder, {name: rows})
