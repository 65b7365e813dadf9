"""How a study is validated: what conf/method/ may say. Apart from the study itself, which takes scipy to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from mahler import schema
from mahler.schema import ConfigError, choice, number

NOT_CHOSEN_BY = ("replications", "pbo_replications", "level", "seed", "workers")
"""What changes neither which trials are looked at nor which of them is chosen."""


@dataclass
class Method:
    """How a study is validated. The numbers are those of conf/method/."""

    train: int = number("months", 1, 600)
    test: int = number("months", 1, 600)
    step: int = number("months", 1, 600)
    anchored: bool = field()
    shifts: list[int] = number("sessions by which a staggered start begins later", 0, 250)
    embargo: int = number("sessions before a test window", 0, 250)
    objective: str = choice("sharpe", "sortino", "cagr", "calmar")
    replications: int = number("bootstrap samples", 100, 100_000)
    pbo_replications: int = number("bootstrap samples", 19, 10_000)
    level: float = number("coverage of an interval", 0.5, 0.999)
    seed: int = number("a seed", 0, 2**31 - 1)
    workers: int = number("processes", 1, 256)

    def __post_init__(self) -> None:
        schema.check_bounds(self, "method")
        if 0 not in self.shifts or len(set(self.shifts)) < len(self.shifts):
            raise ConfigError("method.shifts are sessions, each once, and 0 among them, the start that is scored; "
                              f"got {self.shifts!r}")
