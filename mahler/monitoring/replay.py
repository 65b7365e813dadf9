"""The promoted config on the sessions that were traded, made again: does it decide what was decided?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mahler.llm.arms.approve_all import approve_all
from mahler.llm.decided import recorded
from mahler.paper import stage as stages
from mahler.paper.account import OF_AN_ACCOUNT
from mahler.paper.stage import Stage
from mahler.scan import Scan
from mahler.schema import Table

Scanner = Callable[..., Scan]
"""`mahler.scan.scan` with everything bound but the session, the paper ledger, the stage and its size."""

LEGS = ("ticker", "side", "expiration", "short_strike", "long_strike")


@dataclass(frozen=True)
class Parity:
    """Sessions that were scanned again, on how many of them every decision is the same, and where one is not."""

    sessions: int
    agreed: int
    differences: tuple[str, ...]


def parity(scanner: Scanner, dates: np.ndarray, tables: Mapping[str, Table], among: Mapping[str, Stage],
           sessions: np.ndarray) -> Parity:
    """Scan again those of `sessions` that are recorded, with the stage that each had.

    `dates` (n_days,) are the sessions of the chains, `tables` those of monitoring.paper.TABLES. An LLM layer is not
    asked again: what it was not asked about, and is a ticket now, is a difference.
    """
    scans, started = tables["scans"], tables["account"]["started"]
    book = {name: tables[name] for name in OF_AN_ACCOUNT}
    scanned = scans["date"][np.isin(scans["date"], sessions)]
    decide = recorded(tables["decisions"], partial(approve_all, history=(), ask=None, rng=None))
    found = []
    for date in scanned:
        day = int(np.searchsorted(dates, date))
        if day == len(dates) or dates[day] != date:
            found.append(f"{date}: the chains have no such session any more")
            continue
        name, _ = stages.current(tables["stages"], started[0], date)
        again = scanner(day, tables=book, stage=name, size_multiplier=among[name].size_multiplier, decide=decide)
        found.append(difference(again, _of(tables["tickets"], date), _of(tables["scanned"], date)))
    different = tuple(words for words in found if words)
    return Parity(len(found), len(found) - len(different), different)


def _of(table: Table, date: np.datetime64) -> Table:
    return {name: column[table["date"] == date] for name, column in table.items()}


def difference(again: Scan, tickets: Table, scanned: Table) -> str:
    """The first decision of a session that is not what was recorded, in words; "" where all are the same."""
    for what, ours, theirs in (
            ("ticket", _decisions(again.tickets, ("action", *LEGS), ("contracts", "reason", "regime")),
             _decisions(tickets, ("action", *LEGS), ("contracts", "reason", "regime"))),
            ("candidate", _decisions(again.scanned, LEGS, ("contracts", "reason", "regime")),
             _decisions(scanned, LEGS, ("contracts", "reason", "regime")))):
        for key in [*theirs, *ours]:
            if ours.get(key) != theirs.get(key):
                return f"{again.date}: {what} {_spoken(key)} was {_words(theirs.get(key))}, and is {_words(ours.get(key))}"
    return ""


def _decisions(table: Table, key: Sequence[str], decided: Sequence[str]) -> dict[tuple, tuple]:
    rows = zip(*(table[name].tolist() for name in key), strict=True)
    return dict(zip(rows, zip(*(table[name].tolist() for name in decided), strict=True), strict=True))


def _spoken(key: tuple) -> str:
    return " ".join(str(part) for part in key)


def _words(decided: tuple | None) -> str:
    return "not there" if decided is None else f"{decided[0]} contracts ({decided[1] or 'opens'}, {decided[2]})"
