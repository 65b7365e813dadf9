"""Tickets filled as the backtest fills them: a paper account that no broker keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mahler import schema
from mahler.fills import Fill
from mahler.paper import occ
from mahler.schema import ConfigError, Side, Table, empty

SOURCE = "model"
SETTLED = ("expiry", "assigned")     # closed by settlement at the modelled cost, not by a trade


def fills(tickets: Table, quotes: Table, fill: Fill | None, *, commission: float, assignment_fee: float) -> Table:
    """Both legs of every ticket, filled whole on its own session: schema.FILL.

    Each leg trades at `fill` of the quotes that the scan saw. With None both trade together for the price that the
    ticket models: the long leg at its mid, and all that the fill is worse than the mid paid on the short leg. What
    expires or is assigned is settled, the whole of its cost on the short leg. `commission` is dollars per contract
    and leg, `assignment_fee` dollars per contract, as in conf/costs.

    Raises
    ------
    ConfigError
        Where a leg that trades was not quoted when it was scanned, naming it.
    """
    quoted = {(ticket, symbol): (bid, ask) for ticket, symbol, bid, ask, source in zip(
        *(quotes[name].tolist() for name in ("ticket_id", "symbol", "bid", "ask", "source")), strict=True)
        if source == "chain"}
    rows = []
    for k in range(len(tickets["ticket_id"])):
        rows += _legs({name: column[k] for name, column in tickets.items()}, quoted, fill, commission, assignment_fee)
    table = empty(schema.FILL, len(rows))
    for i, row in enumerate(rows):
        for name in schema.FILL.names:
            table[name][i] = row[name]
    return table


def _legs(ticket: Mapping, quoted: Mapping, fill: Fill | None, commission: float, assignment_fee: float) -> list[dict]:
    price, settled, opens = float(ticket["fill"]), ticket["reason"] in SETTLED, ticket["action"] == "open"
    fee = (0.0 if price == 0.0 else commission + assignment_fee / 2) if settled else commission
    symbols = [occ.symbol(ticket["ticker"], ticket["expiration"].item(), Side[ticket["side"].upper()], strike)
               for strike in (ticket["short_strike"], ticket["long_strike"])]
    if settled:
        short_price, long_price = price, 0.0
    else:
        short, long = (_quote(quoted, ticket["ticket_id"], symbol) for symbol in symbols)
        short_price, long_price = _prices(short, long, price, opens, fill)
    rows = []
    for leg, symbol, paid in (("short", symbols[0], short_price), ("long", symbols[1], long_price)):
        sold = opens == (leg == "short")
        rows.append({
            "fill_id": f"{SOURCE}-{ticket['ticket_id']}-{leg}", "order_id": f"{SOURCE}-{ticket['ticket_id']}",
            "ticket_id": ticket["ticket_id"], "position": ticket["position"],
            "at": ticket["date"].astype("datetime64[s]"), "date": ticket["date"],
            "kind": "settled" if settled else "trade", "leg": leg, "symbol": symbol,
            "quantity": -ticket["contracts"] if sold else ticket["contracts"], "price": paid,
            "fees": fee * ticket["contracts"], "reason": ticket["reason"], "source": SOURCE})
    return rows


def _prices(short: tuple[float, float], long: tuple[float, float], price: float, opens: bool,
            fill: Fill | None) -> tuple[float, float]:
    """What the short and the long leg trade at, dollars per share, from bid and ask of each."""
    if fill is None:
        mid = 0.5 * (long[0] + long[1])
        return price + mid, mid
    sold, bought = (short, long) if opens else (long, short)
    sell, buy = float(fill(*map(np.array, sold))[0]), float(fill(*map(np.array, bought))[1])
    return (sell, buy) if opens else (buy, sell)


def _quote(quoted: Mapping[tuple[str, str], tuple[float, float]], ticket: str, symbol: str) -> tuple[float, float]:
    if (ticket, symbol) not in quoted:
        raise ConfigError(f"ticket {ticket}: {symbol} was not quoted when it was scanned, so no fill can be modelled")
    return quoted[ticket, symbol]
