"""Asking for more than an approval: what is left, and what it earned, as the threshold rises.

Two rules, `approve and value >= t` and, beside it, the plain `value >= t`, for the confidence in the decision and for
p_profit. Every cell is a chance to find something by luck, so all of them are one family of the same shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.llm.shifts import Family, family, weights
from mahler.llm.trades import Trades, decided
from mahler.schema import Table

THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
AND, PLAIN = "approve and value >= t", "value >= t"
VALUES = ("confidence", "p_profit")
TESTS = 1 + len(VALUES) * len((AND, PLAIN)) * len(THRESHOLDS)
"""Of one arm that gives both values: its own decision, and every cell."""
EVERYTHING = "take everything"
FEWEST_CLOSED = 30
"""Closed trades below which a fold has nothing to choose by, and takes everything."""


@dataclass(frozen=True)
class Cell:
    """A rule at a threshold, and which trades it keeps, (n,); a trade without a decision is not among them."""

    rule: str
    value: str
    threshold: float
    kept: np.ndarray

    @property
    def name(self) -> str:
        """In words: approve and p_profit >= 0.5."""
        return f"{self.rule.replace('value', self.value).replace('= t', f'= {self.threshold:g}')}"


def cells(decisions: Table) -> list[Cell]:
    """Every rule and threshold of the values that the arm gives. The first is its own decision (where it gives any)."""
    approve, known = decisions["approve"], decisions["status"] == "decision"
    found = []
    for value in VALUES:
        if np.isnan(decisions[value]).all():
            continue
        reaches = [decisions[value] >= t for t in THRESHOLDS]
        for rule, also in ((AND, approve), (PLAIN, True)):
            found += [Cell(rule, value, t, above & also & known) for t, above in zip(THRESHOLDS, reaches, strict=True)]
    return found


def tested(trades: Trades, decisions: Table, found: list[Cell]) -> Family:
    """The win-rate gaps of all cells as one family."""
    among = decided(trades, decisions)
    rows = [weights(cell.kept, among)[among] for cell in found]
    return family(np.reshape(rows, (len(found), int(among.sum()))), trades.won[among], trades[among].overlap)


def table(trades: Trades, decisions: Table) -> Table:
    """A row per cell: kept, win rate, mean and total P&L of the kept, its gap and p-values. In sample."""
    found, among = cells(decisions), decided(trades, decisions)
    test = tested(trades, decisions, found)
    kept = np.reshape([cell.kept & among for cell in found], (len(found), len(among)))
    n = kept.sum(axis=1)

    def mean(x: np.ndarray) -> np.ndarray:
        return np.divide(kept @ x, n, out=np.full(len(n), np.nan), where=n > 0)

    return {"rule": np.array([cell.rule for cell in found], object),
            "value": np.array([cell.value for cell in found], object),
            "threshold": np.array([cell.threshold for cell in found], float), "kept": n,
            "win_rate": mean(trades.won), "mean_pnl": mean(trades.pnl), "total_pnl": kept @ trades.dollars,
            "gap": test.gap, "p_value": test.p, "corrected": test.corrected, "holm": test.holm}


def walk_forward(trades: Trades, decisions: Table) -> Table:
    """A row per calendar year: the cell that earned most on the trades closed before it, and what it earned in it.

    Totals are dollars of the whole positions. "Take everything" is among the choices, and wins ties. A trade without
    a decision is taken or not as the arm's default says, whatever the cell.
    """
    found, known = cells(decisions), decisions["status"] == "decision"
    takes = [np.ones(len(known), bool), *(np.where(known, cell.kept, decisions["approve"]) for cell in found)]
    names = [EVERYTHING, *(cell.name for cell in found)]
    earned = np.array(takes) * trades.dollars                              # (1 + n_cells, n)
    years = trades.entry.astype("datetime64[Y]")
    rows = []
    for year in np.unique(years):
        past = trades.closed & (trades.exit < year.astype("datetime64[D]"))
        best = int(np.argmax(earned[:, past].sum(axis=1))) if past.sum() >= FEWEST_CLOSED else 0
        now = years == year
        rows.append((int(str(year)), names[best], int(now.sum()), int(takes[best][now].sum()),
                     float(earned[best, now].sum()), float(earned[0, now].sum())))
    columns = list(zip(*rows)) if rows else [()] * 6
    return {"year": np.array(columns[0], int), "chosen": np.array(columns[1], object),
            "trades": np.array(columns[2], int), "kept": np.array(columns[3], int),
            "pnl": np.array(columns[4], float), "everything": np.array(columns[5], float)}
