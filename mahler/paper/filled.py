"""Fills and quotes -> what each ticket was filled at, and how much of the bid-ask was travelled for it."""

from __future__ import annotations

import numpy as np

from mahler import schema
from mahler.schema import Table, empty


def filled(tickets: Table, fills: Table, quotes: Table) -> Table:
    """One row per ticket with a trade of both legs: schema.FILLED.

    The travel is p of the fill models: 0.5 at the mid, 1 where the spread is crossed, of the quotes at the fill where
    the records have them, else of those that the scan saw. It is NaN where a leg has no quote, or no bid-ask.
    """
    rows = [row for t in range(len(tickets["ticket_id"])) if (row := _row(tickets, t, fills, quotes)) is not None]
    table = empty(schema.FILLED, len(rows))
    for k, row in enumerate(rows):
        for name in schema.FILLED.names:
            table[name][k] = row[name]
    return table


def _row(tickets: Table, t: int, fills: Table, quotes: Table) -> dict | None:
    ticket, opens = tickets["ticket_id"][t], tickets["action"][t] == "open"
    own = (fills["ticket_id"] == ticket) & (fills["kind"] == "trade") & (fills["leg"] != "shares")
    short, long = (own & (fills["leg"] == leg) for leg in ("short", "long"))
    contracts = abs(int(fills["quantity"][short].sum()))
    if contracts == 0 or contracts != abs(int(fills["quantity"][long].sum())):
        return None
    sign = 1.0 if opens else -1.0                            # a credit is received, a cost is paid
    price = sign * float(-(fills["quantity"] * fills["price"])[own].sum()) / contracts
    symbols = [fills["symbol"][leg][0] for leg in (short, long)]
    at = fills["at"][own].max()
    scanned = [_quote(quotes, ticket, symbol, None) for symbol in symbols]
    mid, natural = _spread([_quote(quotes, ticket, symbol, at) for symbol in symbols], opens)
    return {
        "ticket_id": ticket, "action": tickets["action"][t], "date": fills["date"][own].max(),
        "ticker": tickets["ticker"][t], "contracts": contracts, "asked": tickets["contracts"][t], "price": price,
        "modelled": tickets["fill"][t], "ticket_mid": tickets["mid"][t], "mid": mid, "natural": natural,
        "travel": travel(price, mid, natural), "modelled_travel": travel(tickets["fill"][t], *_spread(scanned, opens)),
        "fees": float(fills["fees"][own].sum())}


def travel(price: float, mid: float, natural: float) -> float:
    """The share of the bid-ask that was travelled to `price`; all in dollars per share of the spread."""
    return 0.5 + 0.5 * (price - mid) / (natural - mid) if abs(natural - mid) > 1e-9 else np.nan


def _quote(quotes: Table, ticket: str, symbol: str, at: np.datetime64 | None) -> tuple[float, float]:
    """Bid and ask of a leg: the last up to the fill at `at`, or, with None, what the scan saw; NaN where there is none."""
    own = (quotes["ticket_id"] == ticket) & (quotes["symbol"] == symbol)
    chain = own & (quotes["source"] == "chain")
    at_fill = own & (quotes["source"] != "chain") & (quotes["at"] <= at) if at is not None else chain
    rows = np.flatnonzero(at_fill if at_fill.any() else chain)
    if not len(rows):
        return np.nan, np.nan
    last = rows[np.argmax(quotes["at"][rows])]
    return float(quotes["bid"][last]), float(quotes["ask"][last])


def _spread(legs: list[tuple[float, float]], opens: bool) -> tuple[float, float]:
    """Mid and natural price of a spread from bid and ask of its short and its long leg, dollars per share."""
    (short_bid, short_ask), (long_bid, long_ask) = legs
    mid = 0.5 * (short_bid + short_ask) - 0.5 * (long_bid + long_ask)
    return mid, (short_bid - long_ask) if opens else (short_ask - long_bid)
