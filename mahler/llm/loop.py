"""Judging inside the simulation: a veto frees room for a trade that was never taken, and that trade is judged too.

Simulate; judge the admitted candidates that have no decision yet; veto; simulate again; until nothing new is
admitted. A decision is of a candidate and stays. The admissions before the first new decision do not change any more,
so every round makes a longer beginning final, and only what would really have been asked is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mahler import ledger as ledgers
from mahler.ledger import Ledger
from mahler.llm.layer import capped
from mahler.schema import DECISION, Table

Decide = Callable[[Sequence[dict[str, Any]]], Table]
"""Records of `ledger.export` -> schema.DECISION, a row for each."""


@dataclass(frozen=True)
class Loop:
    """The book with the vetoes, and all that was decided on the way to it."""

    ledger: Ledger
    candidates: Table            # as they were admitted: with the vetoes and the caps
    rows: np.ndarray             # of the candidates that were judged, in the order in which they were
    decisions: Table             # (n_judged,) schema.DECISION
    rounds: int                  # simulations after the first

    @property
    def vetoes(self) -> int:
        """Candidates that were rejected."""
        return int((~self.decisions["approve"]).sum())


def judge(candidates: Table, simulate: Callable[[Table], Ledger], decide: Decide) -> Loop:
    """Veto candidates (a risk fraction of 0) and cap them (max_contracts) until every admitted one has a decision.

    `candidates` are sized. A decision's contracts are a cap beside the rules' own: it never raises one.
    """
    judged = np.zeros(len(candidates["day"]), bool)
    risk, most = candidates["risk_fraction"].copy(), candidates["max_contracts"].copy()
    rows, decisions, rounds = [], [], 0
    while True:
        vetoed = candidates | {"risk_fraction": risk.copy(), "max_contracts": most.copy()}
        ledger = simulate(vetoed)
        admitted = ledger.trades["candidate"]
        new = np.flatnonzero(~judged[admitted])
        if not len(new):
            break
        book = ledgers.export(ledger)
        found, at = decide([book[k] for k in new]), admitted[new]
        judged[at] = True
        risk[at] = np.where(found["approve"], risk[at], 0.0)
        most[at] = capped(most[at], found["contracts"])
        rows.append(at)
        decisions.append(found)
        rounds += 1
    together = {name: np.concatenate([table[name] for table in decisions]) if decisions else np.zeros(0, DECISION[name])
                for name in DECISION.names}
    return Loop(ledger, vetoed, np.concatenate(rows) if rows else np.zeros(0, np.int64), together, rounds)
