"""Importers, one a file: a function of keyword-only options that says what a broker did, as `Imported`.

Which ticket an order or a fill belongs to is not the importer's to find: `mahler.paper.joining` does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

TRADE, EXPIRED, ASSIGNED, EXERCISED = "trade", "expired", "assigned", "exercised"
KINDS = (TRADE, EXPIRED, ASSIGNED, EXERCISED)


@dataclass(frozen=True)
class Leg:
    """One leg of an order, which brokers number like an order of its own."""

    order_id: str
    symbol: str                  # OCC, or of a stock
    quantity: int                # contracts ordered; bought is positive, sold negative
    filled: int                  # of them, the same sign
    price: float                 # dollars per share, the average of what is filled; NaN where nothing is
    at: np.datetime64            # UTC, of the last fill; NaT where nothing is filled


@dataclass(frozen=True)
class Order:
    """An order of one leg or of several."""

    order_id: str
    client_id: str               # what the client called it: the ticket, where the client is a good one
    submitted_at: np.datetime64  # UTC
    status: str
    done: bool                   # nothing more will be filled
    contracts: int
    filled: int
    limit_price: float           # dollars per share, positive; NaN where there is none
    filled_price: float
    legs: tuple[Leg, ...]


@dataclass(frozen=True)
class Event:
    """What changed a holding: a trade, an expiration, an assignment or an exercise."""

    event_id: str
    at: np.datetime64            # UTC
    date: np.datetime64          # the session
    kind: str                    # of KINDS
    symbol: str
    quantity: int                # bought is positive, sold negative; contracts, or shares
    price: float                 # dollars per share; 0 of what is no trade
    fees: float = 0.0            # dollars
    order_id: str = ""           # of the order or of its leg; "" where it is not known
    ticket_id: str = ""
    reason: str = ""             # why it closes, where the source knows
    bid: float = float("nan")    # the quote at the fill, dollars per share
    ask: float = float("nan")


@dataclass(frozen=True)
class Cash:
    """Dollars that came or went without a fill."""

    cash_id: str
    date: np.datetime64
    kind: str                    # fee, interest, dividend, transfer
    amount: float                # dollars
    note: str


@dataclass(frozen=True)
class Imported:
    """What a broker, or a file, says was done."""

    source: str
    orders: list[Order] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    cash: list[Cash] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)      # by what it was


Importer = Callable[[np.datetime64], Imported]
"""Called with the first session of the account, before which nothing is of interest."""
