"""What a broker did -> rows of the paper ledger: each fill joined to its ticket and to its position.

An order is of the ticket whose name it carries (client_order_id, a further try of the same ticket with `_2` behind it),
else of the last ticket up to its day that has just its legs. A fill is of the ticket of its order; without an order, of
the last ticket that has its leg in its direction; else it closes by hand what is open of that leg. What is none of these
is refused by name: money that no ticket explains would spoil every comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mahler import schema
from mahler.data.calendar import last_session_on_or_before
from mahler.paper import occ
from mahler.paper.importers import ASSIGNED, EXERCISED, EXPIRED, TRADE, Event, Imported, Leg, Order
from mahler.schema import MULTIPLIER, ConfigError, Side, Table, empty

MANUAL = "manual"
SUMMED = "-order-"
"""In the id of a fill that is a leg of an order at its average price, between the source and the leg's own id."""

NEEDED = ("tickets", "orders", "fills", "cash")
"""The tables of the ledger that joining looks at."""


class Option(NamedTuple):
    """A contract by the session on which it expires, so that a Saturday and its Friday are one."""

    ticker: str
    side: Side
    expiry: np.datetime64
    strike: float


@dataclass
class Joined:
    """What is to be written, and what was there already."""

    rows: dict[str, Table]
    known: int                   # fills
    differing: list[str] = field(default_factory=list)       # orders whose fills are not all there


def join(imported: Imported, tables: Mapping[str, Table]) -> Joined:
    """Rows of orders, fills, quotes and cash; `tables` are NEEDED, of the ledger.

    Raises
    ------
    ConfigError
        For an order of legs, a fill or an event that is of no ticket and of no position, naming it; for a fill that is
        recorded with other content.
    """
    desk = _Desk(tables)
    for order in sorted(imported.orders, key=lambda o: (o.submitted_at, o.order_id)):
        desk.take_order(order, imported.source)
    events = [*imported.events, *desk.of_orders(imported)]
    for event in sorted(events, key=lambda e: (e.at, e.event_id)):
        desk.take_event(event, imported.source)
    cash = [vars(row) for row in imported.cash]
    rows = {"orders": _table(schema.ORDER, desk.orders), "fills": _table(schema.FILL, desk.fills),
            "quotes": _table(schema.QUOTE, desk.quotes), "cash": _table(schema.CASH, cash)}
    return Joined(rows, desk.known, desk.differing())


class _Desk:
    """Tickets, what of them is filled, and what is open, as one event after the other comes in."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tickets = {row["ticket_id"]: row for row in _records(tables["tickets"])}
        self.legs = {name: {"short": _option(row, row["short_strike"]), "long": _option(row, row["long_strike"])}
                     for name, row in self.tickets.items()}
        self.left: dict[tuple[str, str], int] = {}           # by position and leg; shares are a leg
        self.recorded: dict[str, list[dict]] = {}            # by the id of the event
        self.filled: dict[tuple[str, str], int] = {}         # by ticket and leg, contracts without their sign
        self.of_leg_order: dict[str, tuple[str, str]] = {}   # by the id of an order or of its leg: ticket, order
        self.of_order: dict[tuple[str, str], int] = {}       # by order and leg, contracts filled
        self.summed: set[str] = set()                        # orders of a leg whose fill is their average
        self.orders: list[dict] = []
        self.fills: list[dict] = []
        self.quotes: list[dict] = []
        self.known = 0
        self.asked: list[tuple[str, Leg]] = []
        for row in _records(tables["fills"]):
            self.recorded.setdefault(row["fill_id"].partition("#")[0], []).append(row)
            if SUMMED in row["fill_id"]:
                self.summed.add(row["fill_id"].partition(SUMMED)[2])
            self._count(row)
        for row in _records(tables["orders"]):
            for order_id in (row["order_id"], *row["legs"].split(",")):
                self.of_leg_order[order_id] = (row["ticket_id"], row["order_id"])

    # ---- orders

    def take_order(self, order: Order, source: str) -> None:
        """Find the ticket of an order and note it; an order of shares has none."""
        options = [leg for leg in order.legs if occ.is_option(leg.symbol)]
        if not options:
            return
        name = self._ticket_of(order, options)
        if name is None:
            if len(options) == 1 or order.filled == 0:       # a leg that is closed by hand, or nothing at all
                return
            legs = ", ".join(f"{leg.symbol} {'bought' if leg.quantity > 0 else 'sold'}" for leg in options)
            raise ConfigError(f"order {order.order_id} of {str(order.submitted_at)[:10]} ({legs}) is of no ticket of the "
                              "paper ledger")
        for leg in options:
            self._leg_of(name, leg.symbol, f"order {order.order_id}")
            self.of_leg_order[leg.order_id] = (name, order.order_id)
            self.asked.append((order.order_id, leg))
        self.of_leg_order[order.order_id] = (name, order.order_id)
        self.orders.append({
            "order_id": order.order_id, "ticket_id": name, "submitted_at": order.submitted_at, "status": order.status,
            "contracts": order.contracts, "filled": order.filled, "limit_price": order.limit_price,
            "filled_price": order.filled_price, "legs": ",".join(leg.order_id for leg in options), "source": source})

    def _ticket_of(self, order: Order, options: list[Leg]) -> str | None:
        named = order.client_id.rpartition("_")[0] if order.client_id not in self.tickets else order.client_id
        if named in self.tickets:
            return named
        wanted, day = {(_contract(leg.symbol), leg.quantity > 0) for leg in options}, order.submitted_at.astype("M8[D]")
        fits = [name for name, row in self.tickets.items() if row["date"] <= day and wanted == {
            (option, self._bought(name, leg)) for leg, option in self.legs[name].items()}]
        return max(fits, key=lambda name: self.tickets[name]["date"], default=None)

    def of_orders(self, imported: Imported) -> Iterator[Event]:
        """The fills of orders that are done and of which no fill is known one by one: a leg at its average price."""
        known = {event.order_id for event in imported.events} | {order_id for order_id, _ in self.of_order if order_id}
        for order in imported.orders:
            if not order.done or known & {order.order_id, *(leg.order_id for leg in order.legs)}:
                continue
            for leg in order.legs:
                if leg.filled:
                    yield Event(f"{imported.source}{SUMMED}{leg.order_id}", leg.at, leg.at.astype("M8[D]"), TRADE,
                                leg.symbol, leg.filled, leg.price, order_id=leg.order_id)

    def differing(self) -> list[str]:
        """Orders of which the ledger does not have all the fills that they speak of."""
        found = []
        for order_id, leg in self.asked:
            there = self.of_order.get((order_id, self._leg_of(self.of_leg_order[order_id][0], leg.symbol, "")), 0)
            if there != abs(leg.filled):
                found.append(f"order {order_id}: {leg.symbol} is filled {abs(leg.filled)}, the ledger has {there}")
        return found

    # ---- events

    def take_event(self, event: Event, source: str) -> None:
        """Join an event, or see that it is recorded as it is."""
        if event.event_id in self.recorded:
            _check_recorded(event, self.recorded[event.event_id])
        if event.event_id in self.recorded or event.order_id in self.summed:
            self.known += 1
            return
        parts = list(self._parts(event))
        for k, part in enumerate(parts):
            row = {"fill_id": event.event_id if len(parts) == 1 else f"{event.event_id}#{k}", "at": event.at,
                   "date": event.date, "kind": event.kind, "symbol": event.symbol, "price": event.price,
                   "fees": event.fees if k == 0 else 0.0, "order_id": event.order_id, "source": source} | part
            self.fills.append(row)
            self._count(row)
        if not (np.isnan(event.bid) or np.isnan(event.ask)):
            self.quotes.append({"ticket_id": parts[0]["ticket_id"], "symbol": event.symbol, "at": event.at,
                                "bid": event.bid, "ask": event.ask, "source": source})

    def _parts(self, event: Event) -> Iterable[dict[str, Any]]:
        """What of a fill is of the event's own: ticket, position, leg, quantity, reason; several where it is divided."""
        if not occ.is_option(event.symbol):
            return self._shared(event, [name for (name, leg) in self.left if leg == "shares"
                                        and self.tickets[name]["ticker"] == event.symbol], "shares", "assigned")
        if event.kind == TRADE:
            return self._trade(event)
        return self._event(event)

    def _trade(self, event: Event) -> list[dict[str, Any]]:
        name, order_id = self.of_leg_order.get(event.order_id, ("", event.order_id))
        name = event.ticket_id or name or self._ticket_with(event)
        if name and name not in self.tickets:
            raise ConfigError(f"{_words(event)} names the ticket {name}, which the paper ledger has not")
        if not name:
            held = [position for leg in ("short", "long") for position in self._holding(event.symbol, leg)]
            return self._shared(event, held, None, event.reason or MANUAL)
        leg = self._leg_of(name, event.symbol, _words(event))
        if (event.quantity > 0) != self._bought(name, leg):
            raise ConfigError(f"{_words(event)} is the other way round than its ticket {name}")
        ticket = self.tickets[name]
        reason = "" if ticket["action"] == "open" else event.reason or ticket["reason"]
        return [{"ticket_id": name, "position": ticket["position"], "leg": leg, "quantity": event.quantity,
                 "reason": reason, "order_id": order_id}]

    def _ticket_with(self, event: Event) -> str:
        """The last ticket up to its day that trades the leg of a fill in its direction; "" where there is none."""
        option = _contract(event.symbol)
        fits = [name for name, legs in self.legs.items() if self.tickets[name]["date"] <= event.date
                and any(one == option and self._bought(name, leg) == (event.quantity > 0) for leg, one in legs.items())]
        if not fits:
            return ""
        last = max(self.tickets[name]["date"] for name in fits)
        fits = [name for name in fits if self.tickets[name]["date"] == last]
        wanting = [name for name in fits if self.filled.get((name, self._leg_of(name, event.symbol, "")), 0)
                   < self.tickets[name]["contracts"]]
        if len(wanting or fits) > 1:
            raise ConfigError(f"{_words(event)} may be of {' or of '.join(sorted(wanting or fits))}: name its ticket_id or "
                              "its order")
        return (wanting or fits)[0]

    def _event(self, event: Event) -> list[dict[str, Any]]:
        """An expiration, assignment or exercise of what is open of a contract, and the shares that it leaves."""
        legs = {ASSIGNED: ("short",), EXERCISED: ("long",), EXPIRED: ("short", "long")}[event.kind]
        expires = _contract(event.symbol).expiry <= event.date
        parts = []
        for leg in legs:
            held = self._holding(event.symbol, leg)
            if event.kind == EXPIRED:                        # of all positions, though the broker nets them
                parts += [{"ticket_id": name, "position": name, "leg": leg, "quantity": -self.left[name, leg],
                           "reason": "expiry", "price": 0.0} for name in held]
            else:
                parts += self._shared(event, held, leg, "expiry" if expires else "assigned")
        if event.kind == EXPIRED and (not parts or sum(part["quantity"] for part in parts) != event.quantity):
            open_now = -sum(part["quantity"] for part in parts)
            raise ConfigError(f"{_words(event)}: the paper ledger has {open_now} contracts of it")
        return [row for part in parts for row in (part | {"price": 0.0}, *_shares(event, part))]

    def _shared(self, event: Event, held: list[str], leg: str | None, reason: str) -> list[dict[str, Any]]:
        """An event divided among the positions that it closes, the oldest first."""
        parts, left = [], event.quantity
        for name in sorted(dict.fromkeys(held)):
            own = leg or next(one for one, option in self.legs[name].items() if option == _contract(event.symbol))
            there = self.left.get((name, own), 0)
            if left and there * left < 0:
                n = int(np.sign(left)) * min(abs(left), abs(there))
                parts.append({"ticket_id": name, "position": name, "leg": own, "quantity": n, "reason": reason})
                left -= n
        if left:
            raise ConfigError(f"{_words(event)} is of no ticket of the paper ledger, and closes no position of it")
        return parts

    # ---- what is what

    def _holding(self, symbol: str, leg: str) -> list[str]:
        """Positions with something left of a contract as their short or long leg, the oldest first."""
        option = _contract(symbol)
        return sorted(name for (name, own), n in self.left.items() if own == leg and n and self.legs[name][leg] == option)

    def _leg_of(self, ticket: str, symbol: str, what: str) -> str:
        option = _contract(symbol)
        for leg, one in self.legs[ticket].items():
            if one == option:
                return leg
        raise ConfigError(f"{what}: {symbol} is no leg of its ticket {ticket}")

    def _bought(self, ticket: str, leg: str) -> bool:
        """Whether a ticket buys its short or long leg."""
        return (self.tickets[ticket]["action"] == "open") == (leg == "long")

    def _count(self, row: Mapping[str, Any]) -> None:
        key, n = (row["position"], row["leg"]), int(row["quantity"])
        self.left[key] = self.left.get(key, 0) + n
        if row["kind"] == TRADE:
            of_ticket = (row["ticket_id"], row["leg"])
            self.filled[of_ticket] = self.filled.get(of_ticket, 0) + abs(n)
            of_order = (row["order_id"], row["leg"])
            self.of_order[of_order] = self.of_order.get(of_order, 0) + abs(n)


def _shares(event: Event, part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The shares that an assignment or exercise of `part` brings at the strike; an expiration brings none."""
    if event.kind == EXPIRED:
        return []
    contract = occ.parse(event.symbol)
    # A call gives shares to who was long of it, a put takes them.
    sign = 1 if contract.side is Side.PUT else -1
    return [dict(part) | {"leg": "shares", "symbol": contract.ticker, "price": contract.strike,
                          "quantity": sign * MULTIPLIER * part["quantity"]}]


def _check_recorded(event: Event, rows: list[dict]) -> None:
    """Raise ConfigError where an event is recorded with another price or quantity of its own symbol."""
    own = [row for row in rows if row["symbol"] == event.symbol]
    quantity = sum(row["quantity"] for row in own)
    if quantity != event.quantity or any(row["price"] != event.price for row in own if event.kind == TRADE):
        was = ", ".join(f"{row['quantity']:+d} at {row['price']:g}" for row in own) or "another contract"
        raise ConfigError(f"{_words(event)} is recorded as {was}: what is recorded is not changed")


def _words(event: Event) -> str:
    done = {TRADE: "bought" if event.quantity > 0 else "sold"}.get(event.kind, event.kind)
    price = f" at {event.price:g}" if event.kind == TRADE else ""
    return f"{event.symbol} {done} {abs(event.quantity)}{price} on {event.date} ({event.event_id})"


def _contract(symbol: str) -> Option:
    contract = occ.parse(symbol)
    day = last_session_on_or_before(np.array([contract.expiration], "datetime64[D]"))[0]
    return Option(contract.ticker, contract.side, day, contract.strike)


def _option(ticket: Mapping[str, Any], strike: float) -> Option:
    return Option(ticket["ticker"], Side[ticket["side"].upper()], ticket["expiration"], float(strike))


def _records(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table, row)) for row in zip(*table.values())]


def _table(dtype: np.dtype, rows: list[dict[str, Any]]) -> Table:
    table = empty(dtype, len(rows))
    for k, row in enumerate(rows):
        for name in dtype.names:
            table[name][k] = row[name]
    return table
