"""A paper account rehearsed: worlds that are the model, and worlds in which one thing is wrong.

Every world scans, fills, exits and is monitored, session by session, by the very functions that a paper account is
scanned and monitored by; only what is wrong in it is not theirs. LOUD says within how many sessions of its beginning
each fault is to be told, by a watch or a stop; a world without one is to be quiet.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mahler.data.chain import QUOTES, Chain
from mahler.data.store import Chains
from mahler.exits import Costs
from mahler.fills.travel import travel
from mahler.monitoring.bands import Bands
from mahler.monitoring.checks import SEVERITY, Check, Verdict, checks, worst
from mahler.monitoring.paper import TABLES, watched
from mahler.monitoring.replay import Parity, Scanner, difference
from mahler.paper import modelled, records
from mahler.paper.stage import FIRST, Stage
from mahler.scan import Scan, record
from mahler.schema import FILL, Table, empty

NOISE = 0.08             # standard deviation of the share of the bid-ask that a ticket travels
DELAY = 4                # sessions by which exits are late in the world where they are

LOUD = {"slippage doubled": 40, "wrong multiplier": 10, "stale feed": 2, "sizing bug": 10, "exits late": 25}
"""Sessions from the beginning of each fault, 60 sessions being rehearsed, until it is told."""

QUIET = ("as modelled", "better fills")


@dataclass(frozen=True)
class World:
    """What trades. `scanner` is what the desk scans by; `right` what the promoted config would say on the same data."""

    name: str
    scanner: Scanner
    right: Scanner
    share: float                 # of the bid-ask that a ticket travels in the mean
    delay: int = 0               # sessions by which a close waits
    begins: int = 0              # session, from 0, of the fault


@dataclass(frozen=True)
class Course:
    """How a world went: the checks after each of its sessions. It ends with its first stop."""

    world: World
    found: tuple[list[Check], ...]

    def first(self, at_least: Verdict) -> tuple[int, Check] | None:
        """The session, from 1 at the beginning of the fault, of the first check as bad as that; and which."""
        for day, found in enumerate(self.found):
            bad = [check for check in found if SEVERITY.index(check.verdict) >= SEVERITY.index(at_least)]
            if bad and day >= self.world.begins:
                return day - self.world.begins + 1, bad[0]
        return None

    @property
    def as_promised(self) -> bool:
        """Quiet where it is to be quiet, loud in time where it is not."""
        told = self.first(Verdict.WATCH)
        return told is None if self.world.name in QUIET else told is not None and told[0] <= LOUD[self.world.name]


def worlds(right: Scanner, wrong_multiplier: Scanner, wrong_size: Scanner, stale: Scanner, share: float,
           stale_from: int) -> list[World]:
    """The worlds, given scanners of the promoted config and of what is wrong; `share` is of the fill model.

    A config that is filled at the mid has no slippage that could be less or more: no world of other fills.
    """
    other_fills = [World("better fills", right, right, 0.5 + 0.5 * (share - 0.5)),
                   World("slippage doubled", right, right, 0.5 + 2.0 * (share - 0.5))]
    return [
        World("as modelled", right, right, share),
        *(other_fills if share > 0.5 else []),
        World("wrong multiplier", wrong_multiplier, right, share),
        World("stale feed", stale, stale, share, begins=stale_from),
        World("sizing bug", wrong_size, right, share),
        World("exits late", right, right, share, delay=DELAY)]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the ledgers of a rehearsal, gone afterwards: in memory where the system has a place for that.

    What is thrown away need not wait for a disk, and a ledger waits for it at every write.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def run(world: World, folder: Path, account: Table, dates: np.ndarray, first_day: int, n_sessions: int, promised: Bands,
        stage: Stage, costs: Costs, rng: np.random.Generator) -> Course:
    """Trade up to `n_sessions` sessions from `first_day` on, in a paper ledger of its own in `folder`.

    `account` is its row of schema.PAPER_ACCOUNT, `dates` are the sessions of the chains.
    """
    found, different = [], []
    records.write(folder, {"account": account})
    tables = records.read_all(folder, *TABLES)
    for n, day in enumerate(range(first_day, first_day + n_sessions), start=1):
        told = world.scanner(day, tables=tables, stage=FIRST, size_multiplier=stage.size_multiplier)
        record(folder, told, account, {"data_digest": "", "code_version": "", "config": "", "stage": FIRST,
                                       "recorded_at": dates[day].astype("datetime64[s]")})
        if world.scanner is not world.right:
            right = world.right(day, tables=tables, stage=FIRST, size_multiplier=stage.size_multiplier)
            words = difference(right, told.tickets, told.scanned)
            different += [words] if words else []
        records.write(folder, {"fills": _fills(world, told, tables["tickets"], costs, rng)})
        tables = records.read_all(folder, *TABLES)
        seen = watched(tables, dates[first_day], dates[day])
        found.append(checks(seen, seen, promised, Parity(n, n - len(different), tuple(different)), stage))
        if worst(found[-1]) is Verdict.STOP:
            break
    return Course(world, tuple(found))


def lines(courses: Sequence[Course]) -> list[dict[str, str]]:
    """A line per world: what told, when, and whether that is as promised."""
    def told(found: tuple[int, Check] | None) -> str:
        return f"{found[0]}: {found[1].label}" if found else "-"

    return [{"world": course.world.name, "watch, session": told(course.first(Verdict.WATCH)),
             "stop, session": told(course.first(Verdict.STOP)),
             "promised": "quiet" if course.world.name in QUIET else f"within {LOUD[course.world.name]}",
             "": "as promised" if course.as_promised else "NOT AS PROMISED"} for course in courses]


def _fills(world: World, told: Scan, before: Table, costs: Costs, rng: np.random.Generator) -> Table:
    """Fills of the tickets of a session, each at a share of the bid-ask of its own; a close that waits has none."""
    made = [empty(FILL)]
    for k in range(len(told.tickets["ticket_id"])):
        ticket = {name: column[k:k + 1] for name, column in told.tickets.items()}
        asked = (before["position"] == ticket["position"][0]) & (before["action"] == "close")
        waits = ticket["action"][0] == "close" and ticket["reason"][0] not in modelled.SETTLED
        if waits and asked.sum() < world.delay:
            continue
        share = float(np.clip(world.share + NOISE * rng.standard_normal(), 0.0, 1.0))
        made.append(modelled.fills(ticket, told.quotes, partial(travel, travel=share), commission=costs.commission,
                                   assignment_fee=costs.assignment_fee))
    return {name: np.concatenate([one[name] for one in made]) for name in FILL.names}


def frozen(chains: Chains, day: int) -> Chains:
    """The chains of a feed that repeats the quotes of session `day` on every later one, under the later dates."""
    return replace(chains, fingerprint=f"{chains.fingerprint} frozen at {day}",
                   _loaded={ticker: _frozen(chains[ticker], day) for ticker in chains.tickers})


def _frozen(chain: Chain, day: int) -> Chain:
    """A contract that was not listed on `day` is not quoted after it."""
    row = np.arange(len(chain.day))
    first = np.repeat(chain.contract_start[:-1], np.diff(chain.contract_start))
    last = np.maximum.accumulate(np.where(chain.day <= day, row, first - 1))   # rows of a contract follow each other
    listed = last >= first
    def of_day(column: np.ndarray) -> np.ndarray:
        return np.where(listed, column[np.maximum(last, 0)], 0).astype(column.dtype)

    quotes = {name: of_day(getattr(chain, name)) for name in QUOTES}
    spot = chain.spot.copy()
    spot[day + 1:] = spot[day]
    return replace(chain, **quotes, activity={name: of_day(column) for name, column in chain.activity.items()}, spot=spot)
