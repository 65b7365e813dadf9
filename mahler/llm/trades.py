"""The judged trades as arrays: what each earned, whether it won, and which of them were open together.

A trade that the end of the period closed was closed by no rule: it neither won nor lost, and no measure of a decision
looks at it. It stays in every P&L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mahler.schema import Exit, Table


@dataclass(frozen=True)
class Trades:
    """One element per trade, (n,), in the order of entry.

    `pnl` is dollars per contract net of costs, `market` the probability of a profit that the short leg's delta gives
    (that it expires out of the money; NaN where the delta is missing), `closed` whether a rule closed the trade.
    """

    entry: np.ndarray            # datetime64[D]
    exit: np.ndarray             # datetime64[D]
    won: np.ndarray              # 0.0 or 1.0
    pnl: np.ndarray
    contracts: np.ndarray
    market: np.ndarray
    closed: np.ndarray           # bool

    @property
    def dollars(self) -> np.ndarray:
        """P&L of the whole position, (n,)."""
        return self.pnl * self.contracts

    @cached_property
    def overlap(self) -> int:
        """How many later trades the longest chain of one trade's life reaches: the most that were entered in it."""
        if not len(self.entry):
            return 0
        return int((np.searchsorted(self.entry, self.exit, side="right") - 1 - np.arange(len(self.entry))).max())

    def __getitem__(self, keep: np.ndarray) -> Trades:
        """The trades of a mask or of indices that ascend."""
        return Trades(self.entry[keep], self.exit[keep], self.won[keep], self.pnl[keep], self.contracts[keep],
                      self.market[keep], self.closed[keep])


def in_order(records: Sequence[Mapping[str, Any]], *decisions: Table) -> tuple[Trades, list[Table]]:
    """The records of `ledger.export` as Trades, by entry, and the decisions on them (schema.DECISION) in that order.

    Raises ValueError where a table does not have exactly one row of each record.
    """
    entry = np.array([record["date"] for record in records], "datetime64[D]")
    order = np.argsort(entry, kind="stable")
    found = []
    for table in decisions:
        rows = np.argsort(table["trade_id"], kind="stable")
        if not np.array_equal(table["trade_id"][rows], np.arange(len(records))):
            raise ValueError(f"decisions are one of each of the {len(records)} records, got {len(rows)} of the ids "
                             f"{table['trade_id'].min(initial=0)} to {table['trade_id'].max(initial=0)}")
        found.append({name: column[rows][order] for name, column in table.items()})
    return of(records)[order], found


def of(records: Sequence[Mapping[str, Any]]) -> Trades:
    """The records as they come; their order of entry is the caller's.

    A record made by hand may lack what an export has: it is then of one contract, and closed by a rule.
    """
    def column(name: str, dtype: str) -> np.ndarray:
        return np.array([record.get(name) for record in records], dtype)

    entry = column("date", "datetime64[D]")
    return Trades(entry, entry + column("hold_days", "i8"), (column("outcome", "O") == "profit").astype(float),
                  column("pnl", "f8"), np.array([record.get("contracts", 1) for record in records], "i8"),
                  1.0 - column("delta", "f8"),
                  column("exit_reason", "O") != Exit.END_OF_PERIOD.name.lower())


def decided(trades: Trades, decisions: Table) -> np.ndarray:
    """Which trades a measure of decisions looks at, bool (n,): there is a decision, and a rule closed the trade."""
    return (decisions["status"] == "decision") & trades.closed
