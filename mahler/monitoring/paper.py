"""The paper ledger as what is watched: sessions in a row, the trades opened in them, and what is odd about either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mahler.data import calendar
from mahler.monitoring.bands import History
from mahler.paper import account as accounts
from mahler.paper.filled import filled
from mahler.schema import MULTIPLIER, Exit, Table

TABLES = ("account", "tickets", "orders", "fills", "quotes", "marks", "cash", "scans", "scanned", "decisions", "stages", "exits")
"""The tables of the paper ledger that are watched."""

PAIRS = 4                # prices of the same legs on two sessions, before their not moving is odd
CENT = 0.005


@dataclass(frozen=True)
class Watched:
    """An account from the session `start` on, up to and with the session `end`.

    equity is (n_sessions,), dollars, carried over a session of which nothing is recorded; index is what a dollar of
    the session before `start` is worth, (n_sessions,), money that was transferred being no gain. `trades` has a row per
    position opened since `start`, in order: position, date, ticker, regime, contracts, asked, credit and modelled
    (dollars per share), max_loss (dollars per contract), reason and exit_date ("" and NaT where it is open), pnl
    (dollars, NaN where it is open), late (sessions that its exit came, or is due, after its rule fired) and early
    (closed by a rule that had not fired). `fills` has the columns of schema.FILLED, of opens and closes. `unchanged`
    is the share of prices that are what they were the session before, NaN where fewer than PAIRS can be compared.
    """

    start: np.datetime64
    end: np.datetime64
    sessions: np.ndarray
    equity: np.ndarray
    index: np.ndarray
    history: History
    trades: Table
    fills: Table
    scanned: Table               # schema.SCANNED, since `start`
    decisions: Table             # schema.DECIDED, since `start`
    missing: np.ndarray          # sessions that were not scanned
    unchanged: np.ndarray        # (n_sessions,)
    oldest_mark: int             # sessions since both legs of an open position had a usable quote

    @property
    def settled(self) -> Table:
        """The trades before the first that is still open: what closes soon is not what all of them come to."""
        still_open = np.flatnonzero(self.trades["reason"] == "")
        return _rows(self.trades, slice(0, still_open[0] if len(still_open) else None))


def watched(tables: Mapping[str, Table], start: np.datetime64, end: np.datetime64) -> Watched:
    """The account of a paper ledger's TABLES from `start` to `end`, two dates."""
    sessions = calendar.sessions(start, end)
    until = {name: _until(table, end) for name, table in tables.items()}
    account = accounts.account(until, end + 1)
    equity, before = _carried(account.history, account.initial_equity, sessions)
    moved = np.array([until["cash"]["amount"][(until["cash"]["date"] == day) & (until["cash"]["kind"] == "transfer")].sum()
                      for day in sessions])
    fills = filled(until["tickets"], until["fills"], until["quotes"])
    fills = _rows(fills, (fills["date"] >= start) & (fills["date"] <= end))
    trades = _trades(until, fills, sessions)
    multiplier = trades.pop("size_multiplier")
    day = np.minimum(np.searchsorted(sessions, trades["date"]), max(len(sessions) - 1, 0))
    by_rule = np.isin(trades["reason"], [reason.name.lower() for reason in Exit])
    n_settled = int(np.argmax(trades["reason"] == "")) if (trades["reason"] == "").any() else len(day)
    says = by_rule & (np.arange(len(day)) < n_settled)
    scale = multiplier[-1] if len(multiplier) else 1.0
    growth = np.log((equity - moved) / before)
    history = History(growth / scale, np.bincount(day, minlength=len(sessions)).astype(float), {
        "day": day, "regime": trades["regime"], "contracts": trades["contracts"],
        "max_loss": MULTIPLIER * trades.pop("max_loss_per_share"), "equity": before[day], "size_multiplier": multiplier,
        "reason": np.where(says, trades["reason"], ""),
        "pnl": np.where(says, trades["pnl"] / trades["contracts"], np.nan)})
    scanned, decisions = (_rows(until[name], until[name]["date"] >= start) for name in ("scanned", "decisions"))
    open_marks = np.isin(until["marks"]["position"].astype(str), account.positions["position"].astype(str))
    last = until["marks"]["date"] == (sessions[-1] if len(sessions) else end)
    return Watched(start, end, sessions, equity, np.exp(np.cumsum(growth)), history, trades, fills, scanned, decisions,
                   np.setdiff1d(sessions, until["scans"]["date"]), _unchanged(sessions, until["marks"], scanned),
                   int(until["marks"]["age"][open_marks & last].max(initial=0)))


def _rows(table: Table, rows: np.ndarray | slice) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _until(table: Table, end: np.datetime64) -> Table:
    """The rows up to the session `end`; all of a table that has no date."""
    return _rows(table, table["date"] <= end) if "date" in table else table


def _carried(history: Table, initial: float, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equity at the end of each session and of the one before it, (n_sessions,) each, dollars."""
    known = np.concatenate(([initial], history["equity"]))
    return (known[np.searchsorted(history["date"], sessions, side="right")],
            known[np.searchsorted(history["date"], sessions, side="left")])


def _trades(tables: Mapping[str, Table], fills: Table, sessions: np.ndarray) -> Table:
    """A row per position opened by `fills`, in the order of their sessions; see Watched."""
    tickets, exits = tables["tickets"], tables["exits"]
    ticket_of = {name: i for i, name in enumerate(tickets["ticket_id"].tolist())}
    exit_of = {name: i for i, name in enumerate(exits["position"].tolist())}
    opened = np.flatnonzero(fills["action"] == "open")
    opened = opened[np.argsort(fills["date"][opened], kind="stable")]
    t = np.array([ticket_of[name] for name in fills["ticket_id"][opened].tolist()], int)
    e = np.array([exit_of.get(name, -1) for name in fills["ticket_id"][opened].tolist()], int)
    closed, credit = e >= 0, fills["price"][opened]
    left = _padded(exits, e)
    trades = {
        "position": fills["ticket_id"][opened], "date": fills["date"][opened], "ticker": fills["ticker"][opened],
        "regime": tickets["regime"][t], "contracts": fills["contracts"][opened], "asked": fills["asked"][opened],
        "credit": credit, "modelled": fills["modelled"][opened], "max_loss": tickets["max_loss"][t],
        "max_loss_per_share": tickets["width"][t] - credit, "size_multiplier": tickets["size_multiplier"][t],
        "reason": np.where(closed, left["reason"], ""), "pnl": np.where(closed, left["pnl"], np.nan),
        "exit_date": np.where(closed, left["date"], np.datetime64("NaT"))}
    scale = credit / tickets["fill"][t]                        # both levels are multiples of the credit received
    due = np.array([_due(tables["marks"], trades["position"][k], trades["date"][k], scale[k] * tickets["target_cost"][i],
                         scale[k] * tickets["stop_cost"][i], tickets["time_exit"][i])
                    for k, i in enumerate(t)], "datetime64[D]")
    until = np.where(closed, trades["exit_date"], sessions[-1] if len(sessions) else np.datetime64("NaT"))
    known = ~np.isnat(due)
    late = np.searchsorted(sessions, until) - np.searchsorted(sessions, due)
    at_expiry = np.isin(trades["reason"], ["expiry", "assigned", "manual"])
    return trades | {"late": np.where(known & ~at_expiry, np.maximum(late, 0), 0),
                     "early": closed & ~at_expiry & (~known | (due > until))}


def _padded(table: Table, rows: np.ndarray) -> Table:
    """Rows of a table; anything where the row is -1."""
    if not len(table["position"]):
        return {name: np.zeros(len(rows), column.dtype) for name, column in table.items()}
    return _rows(table, rows)


def _due(marks: Table, position: str, entry: np.datetime64, target: float, stop: float,
         time_exit: np.datetime64) -> np.datetime64:
    """The first session after `entry` on which a rule fires by the marks of a position; NaT where none has yet.

    A level that is NaN never fires.
    """
    own = (marks["position"] == position) & (marks["date"] > entry)
    day, mid = marks["date"][own], marks["mid"][own]
    fires = (marks["age"][own] == 0) & ((mid <= target + 1e-9) | (mid >= stop - 1e-9)) | (day >= time_exit)
    return day[fires].min() if fires.any() else np.datetime64("NaT")


def _unchanged(sessions: np.ndarray, marks: Table, scanned: Table) -> np.ndarray:
    """Share of the prices of a session that are those of the session before: see Watched."""
    legs = zip(*(scanned[name].tolist() for name in ("ticker", "side", "expiration", "short_strike", "long_strike")),
               strict=True)
    fresh = marks["age"] == 0
    prices = {(day, name): price for day, name, price in zip(
        np.searchsorted(sessions, np.concatenate([marks["date"][fresh], scanned["date"]])).tolist(),
        [*marks["position"][fresh].tolist(), *legs],
        np.concatenate([marks["mid"][fresh], scanned["credit"]]).tolist(), strict=True)}
    pairs, same = np.zeros(len(sessions) + 1), np.zeros(len(sessions) + 1)
    for (day, name), price in prices.items():
        before = prices.get((day - 1, name))
        if before is not None:
            pairs[day] += 1
            same[day] += abs(price - before) < CENT / 50
    return np.divide(same, pairs, out=np.full(len(pairs), np.nan), where=pairs >= PAIRS)[:len(sessions)]
