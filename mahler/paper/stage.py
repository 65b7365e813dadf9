"""The stages of an account: paper, half size, full size. What each asks for, and in which one the account is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mahler import schema
from mahler.schema import ConfigError, Table, number

FIRST = "paper"
"""The stage of an account that was never moved."""


@dataclass
class Stage:
    """What a stage scales, what it takes to leave it, and what ends it. The numbers are those of conf/stage/."""

    size_multiplier: float = number("a share of the promoted size", 0, 1, open_low=True)
    up: str | None = field()
    sessions: int = number("sessions", 1, 1000)
    trades: int = number("closed trades", 1, 10_000)
    fills: int = number("fills whose share of the bid-ask is known", 1, 10_000)
    parity: float = number("a share of decisions", 0, 1, open_low=True)
    down: str = field()
    halt_drawdown: float = number("a fraction of the peak of the stage", 0, 1, open_low=True)
    halt_profit_factor: float = number("dollars won over dollars lost", 0, 10)
    halt_trades: int = number("closed trades", 1, 10_000)
    halt_loss: float = number("multiples of a trade's maximum loss", 1, 100)

    def __post_init__(self) -> None:
        schema.check_bounds(self, "stage")


def check(stages: Mapping[str, Stage]) -> None:
    """Raise ConfigError unless the stages have the first one and lead to each other only."""
    if FIRST not in stages:
        raise ConfigError(f"stages lacks {FIRST}, where every account begins; it has {', '.join(stages)}")
    for name, stage in stages.items():
        for way, there in (("up", stage.up), ("down", stage.down)):
            if there is not None and there not in stages:
                raise ConfigError(f"stages.{name}.{way} is one of {', '.join(stages)}, got {there!r}")


def current(moves: Table, started: np.datetime64, day: np.datetime64) -> tuple[str, np.datetime64]:
    """The stage of the account on `day`, and its first day.

    `moves` has the columns of schema.STAGE_MOVE; the day of a move is the last of the stage before. `started` is the
    first session of the account.
    """
    made = np.flatnonzero(moves["moved_at"].astype("datetime64[D]") < day)
    if not len(made):
        return FIRST, started
    last = made[np.argmax(moves["moved_at"][made])]
    return str(moves["stage"][last]), moves["moved_at"][last].astype("datetime64[D]") + 1
