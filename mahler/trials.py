"""The trial ledger: how many configurations were tried on a store, whoever tried them and wherever they are logged.

A line of `trials.jsonl` beside the chains for each backtest and each search. It is only ever appended to,
so deleting runs in the MLflow UI does not make a winner look less lucky.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from mahler.schema import ConfigError

FILE = "trials.jsonl"


@dataclass(frozen=True)
class Trial:
    """One backtest (n = 1), or one search of n configurations. Trials of one signature are one trial."""

    signature: str
    study: str
    kind: str                    # backtest, search
    universe: str
    n: int
    config: str = ""             # backtesting.identity of the one config; "" of a search, or of an old line
    start: str = ""              # first and last day of the period; "" of an old line
    end: str = ""

    def covers(self, start: str, end: str) -> bool:
        """Whether it saw a day of start .. end, YYYY-MM-DD; where that is not known, it did."""
        return not self.end or (self.start <= end and self.end >= start)


def record(root: Path, trials: Iterable[Trial]) -> None:
    """Append to the ledger of the store `root`; several processes may do so at once."""
    text = "".join(json.dumps(asdict(trial), sort_keys=True) + "\n" for trial in trials)
    with open(root / FILE, "a", encoding="utf-8") as file:
        flock(file, LOCK_EX)
        file.write(text)


def read(root: Path) -> list[Trial]:
    """All trials on the store `root`, each signature once, in the order in which they were made.

    Raises ConfigError, naming the line, where the ledger is damaged.
    """
    path = root / FILE
    if not path.is_file():
        return []
    found: dict[str, Trial] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            trial = Trial(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} line {number} is not a trial ({error}): mend or remove that line") from error
        found.setdefault(trial.signature, trial)
    return list(found.values())


def merged(ledger: list[Trial], logged: Iterable[Trial]) -> list[Trial]:
    """The ledger and the runs that MLflow has, each signature once."""
    found = {trial.signature: trial for trial in ledger}
    for trial in logged:
        found.setdefault(trial.signature, trial)
    return list(found.values())


def total(trials: Iterable[Trial]) -> int:
    """N: configurations tried, those abandoned included."""
    return sum(trial.n for trial in trials)


def by_study(trials: Iterable[Trial]) -> dict[str, int]:
    """Where N comes from: configurations by study, the largest first."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.study] = counts.get(trial.study, 0) + trial.n
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
