"""The paper account: what the records come to. Open positions, cash, and equity session by session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mahler import schema
from mahler.paper import records
from mahler.schema import MULTIPLIER, ConfigError, Table, empty

OF_AN_ACCOUNT = ("account", "tickets", "fills", "marks", "cash", "exits")
"""The tables that an account is made of."""


@dataclass(frozen=True)
class Account:
    """The account at the start of a session, or at the end of all that is recorded.

    positions (n,) has the columns of schema.POSITION, history (n_sessions,) those of schema.ACCOUNT, for the sessions
    before, on which something was filled or marked; where a session is not there, nothing is known to have changed.
    """

    initial_equity: float
    source: str                  # the store that is scanned
    synthetic: bool
    cash: float                  # dollars
    positions: Table
    history: Table

    @property
    def marks(self) -> float:
        """What is open at its last marks, dollars, negative when owed."""
        return float(-(MULTIPLIER * self.positions["contracts"] * self.positions["mark"]).sum())

    @property
    def equity(self) -> float:
        """Cash and marks, dollars."""
        return self.cash + self.marks

    @property
    def open_max_loss(self) -> float:
        """Dollars."""
        return float((self.positions["contracts"] * self.positions["max_loss"]).sum())

    @property
    def yesterday(self) -> float:
        """Equity at the end of the last session before, dollars."""
        return self._last(np.ones(len(self.history["date"]), bool))

    @property
    def peak(self) -> float:
        """The highest equity at the end of a session before, dollars."""
        return max([self.initial_equity, *self.history["equity"].tolist()])

    def last_week(self, day: np.datetime64) -> float:
        """Equity at the end of the last session before the calendar week, Monday to Sunday, of `day`, dollars."""
        monday = day - (day.astype("datetime64[D]").astype(int) + 3) % 7
        return self._last(self.history["date"] < monday)

    def _last(self, rows: np.ndarray) -> float:
        return float(self.history["equity"][rows][-1]) if rows.any() else self.initial_equity


def load(folder: Path, day: np.datetime64 | None = None) -> Account:
    """The account of the ledger in `folder`; see `account`. Raises ConfigError where there is no account yet."""
    return account(records.read_all(folder, *OF_AN_ACCOUNT), day)


def account(tables: dict[str, Table], day: np.datetime64 | None = None) -> Account:
    """The account before anything of session `day` happened; with None, after everything that is recorded.

    `tables` are those of OF_AN_ACCOUNT. What was filled on `day` counts only where its ticket is of a day before.

    Raises
    ------
    ConfigError
        Where the ledger has no account, or a position has other than as many long as short contracts.
    """
    if not len(tables["account"]["started"]):
        raise ConfigError("the paper ledger has no account yet: mahler scan scan.record=true opens it")
    of = {name: column[0].item() if hasattr(column[0], "item") else column[0] for name, column in
          tables["account"].items()}
    fills, cash, marks, exits = tables["fills"], tables["cash"], tables["marks"], tables["exits"]
    if day is not None:
        fills = _rows(fills, happened_before(fills, tables["tickets"], day))
        cash, marks, exits = (_rows(table, table["date"] < day) for table in (cash, marks, exits))
    history = _history(of["initial_equity"], of["commission"], tables["tickets"], fills, marks, cash, exits, day)
    return Account(of["initial_equity"], of["source"], of["synthetic"],
                   of["initial_equity"] + float(dollars(fills).sum() + cash["amount"].sum()),
                   positions(tables["tickets"], fills, marks, of["commission"]), history)


def dollars(fills: Table) -> np.ndarray:
    """What each fill brought into cash, fees paid, float64 (n,)."""
    shares = np.where(fills["leg"] == "shares", 1, MULTIPLIER)
    return -shares * fills["quantity"] * fills["price"] - fills["fees"]


def happened_before(fills: Table, tickets: Table, day: np.datetime64) -> np.ndarray:
    """Which fills had happened when session `day` was scanned: bool (n,).

    Those of earlier sessions, and those of `day` that an earlier ticket was traded by.
    """
    ticketed = dict(zip(tickets["ticket_id"].tolist(), tickets["date"], strict=True))
    earlier = np.array([kind == "trade" and ticketed.get(ticket, day) < day
                        for kind, ticket in zip(fills["kind"], fills["ticket_id"], strict=True)], bool)
    return (fills["date"] < day) | ((fills["date"] == day) & earlier)


def positions(tickets: Table, fills: Table, marks: Table, commission: float) -> Table:
    """What the fills leave open, by position: schema.POSITION. The mark is the last one, else the mid of the ticket.

    `commission` is in dollars per contract and leg. Raises ConfigError, naming it, for a position of unequal legs.
    """
    row_of = {ticket: i for i, ticket in enumerate(tickets["ticket_id"].tolist())}
    names = [name for name in dict.fromkeys(fills["position"].tolist()) if _left(fills, name).any()]
    found = empty(schema.POSITION, len(names))
    for k, name in enumerate(names):
        short, long, shares = _left(fills, name)
        if short >= 0 or short + long or shares:
            raise ConfigError(f"position {name} has {short} short and {long} long contracts and {shares} shares: a "
                              "fill is not imported yet, or a leg is still to be closed by hand")
        t, credit = row_of[name], _credit(fills, name)
        own = np.flatnonzero(marks["position"] == name)
        last = own[np.argmax(marks["date"][own])] if len(own) else None
        scale = credit / tickets["fill"][t]            # both levels are multiples of the credit received
        row = {column: tickets[column][t] for column in
               ("ticker", "side", "expiration", "short_strike", "long_strike", "width", "time_exit")} | {
            "position": name, "date": fills["date"][fills["position"] == name].min(), "contracts": -short,
            "credit": credit, "max_loss": MULTIPLIER * (tickets["width"][t] - credit) + 4.0 * commission,
            "mark": tickets["mid"][t] if last is None else marks["mid"][last],
            "mark_date": tickets["date"][t] if last is None else marks["date"][last],
            "target_cost": scale * tickets["target_cost"][t], "stop_cost": scale * tickets["stop_cost"][t]}
        for column in schema.POSITION.names:
            found[column][k] = row[column]
    return found


def _left(fills: Table, position: str) -> np.ndarray:
    """Contracts of the short and the long leg and shares that a position still has, bought less sold: int64 (3,)."""
    own = fills["position"] == position
    return np.array([fills["quantity"][own & (fills["leg"] == leg)].sum() for leg in ("short", "long", "shares")])


def _credit(fills: Table, position: str) -> float:
    """Dollars per share that a position was opened for, over all of its contracts."""
    opening = (fills["position"] == position) & (fills["reason"] == "")
    contracts = -fills["quantity"][opening & (fills["leg"] == "short")].sum()
    return float(-(fills["quantity"] * fills["price"])[opening].sum() / contracts)


def _history(initial_equity: float, commission: float, tickets: Table, fills: Table, marks: Table, cash: Table,
             exits: Table, day: np.datetime64 | None) -> Table:
    """The account at the end of each session that has a fill, a mark or a movement of cash: schema.ACCOUNT."""
    dates = np.unique(np.concatenate([fills["date"], marks["date"], cash["date"]]))
    dates = dates if day is None else dates[dates < day]
    names, of_fill = np.unique(fills["position"].astype(str), return_inverse=True)
    row_of = {ticket: i for i, ticket in enumerate(tickets["ticket_id"].tolist())}
    ticket = np.array([row_of[name] for name in names.tolist()], int)
    at = np.searchsorted(dates, fills["date"])

    def so_far(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums of `values` over `rows` of the fills, by position and up to each session: (n_positions, n_sessions)."""
        rows, sums = rows & (at < len(dates)), np.zeros((len(names), len(dates)))
        np.add.at(sums, (of_fill[rows], at[rows]), values[rows])
        return sums.cumsum(axis=1)

    short, opening = fills["leg"] == "short", fills["reason"] == ""
    contracts, opened = (-so_far(rows, fills["quantity"]) for rows in (short, short & opening))
    received = -so_far(opening, fills["quantity"] * fills["price"])
    credit = np.divide(received, opened, out=np.zeros_like(received), where=opened > 0)
    max_loss = MULTIPLIER * (tickets["width"][ticket][:, None] - credit) + 4.0 * commission
    marks_of_day = -(MULTIPLIER * contracts * _marks(names, tickets["mid"][ticket], marks, dates)).sum(axis=0)
    flow = so_far(np.ones(len(at), bool), dollars(fills)).sum(axis=0)
    in_cash = initial_equity + flow + np.array([cash["amount"][cash["date"] <= date].sum() for date in dates])
    equity, at_risk = in_cash + marks_of_day, (contracts * max_loss).sum(axis=0)
    first = np.diff(opened > 0, axis=1, prepend=False)
    return {
        "date": dates, "cash": in_cash, "marks": marks_of_day, "equity": equity, "open_max_loss": at_risk,
        "heat": at_risk / equity, "positions": (contracts > 0).sum(axis=0).astype(np.int32),
        "entries": first.sum(axis=0).astype(np.int32),
        "exits": np.array([(exits["date"] == date).sum() for date in dates], np.int32)}


def _marks(names: np.ndarray, entry_mid: np.ndarray, marks: Table, dates: np.ndarray) -> np.ndarray:
    """The last mark of each position up to each session, the mid at entry before the first: (n_positions, n_sessions)."""
    last = np.tile(entry_mid[:, None], (1, len(dates)))
    known = np.isin(marks["position"].astype(str), names)
    at = np.searchsorted(dates, marks["date"])
    for k in np.flatnonzero(known)[np.argsort(marks["date"][known], kind="stable")]:
        last[np.searchsorted(names, str(marks["position"][k])), at[k]:] = marks["mid"][k]
    return last


def _rows(table: Table, rows: np.ndarray) -> Table:
    return {name: column[rows] for name, column in table.items()}
