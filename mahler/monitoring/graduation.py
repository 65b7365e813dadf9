"""When an account may go to its next stage, and when it must go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mahler.monitoring.checks import Check, Verdict
from mahler.monitoring.paper import Watched
from mahler.monitoring.replay import Parity
from mahler.paper.stage import Stage

MUST_BE_FINE = {"data": "data", "size": "sizes", "exits": "exits", "fills": "fill quality", "credit": "credit",
                "trades": "frequency", "mix": "mix of exits"}


@dataclass(frozen=True)
class Criterion:
    """What is asked for, what there is, and whether that is enough."""

    name: str
    there: str
    asked: str
    met: bool


def criteria(seen: Watched, parity: Parity, found: Sequence[Check], stage: Stage) -> list[Criterion]:
    """What it takes to leave a stage upwards.

    `seen` and `parity` are of the whole stage, `found` are its checks as they stand.
    """
    closed = int(np.isfinite(seen.trades["pnl"]).sum())
    fills = int(np.isfinite(seen.fills["travel"]).sum())
    share = parity.agreed / parity.sessions if parity.sessions else 0.0
    counted = [Criterion(name, f"{there}", f"{asked}", there >= asked) for name, there, asked in (
        ("sessions", len(seen.sessions), stage.sessions), ("closed trades", closed, stage.trades),
        ("fills", fills, stage.fills))]
    verdicts = {check.name: check.verdict for check in found}
    return [*counted, Criterion("decision parity", f"{share:.1%}", f"{stage.parity:.1%}", share >= stage.parity),
            *(Criterion(label, verdicts[name].value, "ok", verdicts[name] is Verdict.OK)
              for name, label in MUST_BE_FINE.items()),
            Criterion("halts", ", ".join(halted(found)) or "none", "none", not halted(found))]


def halted(found: Sequence[Check]) -> list[str]:
    """The halts that have fired, in words."""
    return [f"{check.label} {check.shown}, beyond {check.band}" for check in found
            if check.often == "halt" and check.verdict is Verdict.STOP]
