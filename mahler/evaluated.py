"""The evaluations of a study, read from their runs and judged together: one family of tests, and memory across contexts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mahler import tracking
from mahler.data import store
from mahler.llm import evaluation, study as studies
from mahler.llm.study import Answers, Judgement, Study
from mahler.schema import ConfigError, Table

ORDER = ("model", "permuted", "baseline", "coin_flip", "approve_all")
SEED = 0                         # of the intervals between contexts, the only thing that is drawn here
TABLES = ("thresholds", "walk_forward", "reliability", "quarters", "trades", "curves")
WRITTEN = ("answers.json", "trades.json", "decisions.parquet")


@dataclass(frozen=True)
class Evaluated:
    """An evaluation's run, its answers, its tables, and the judgement on it among the others."""

    row: Mapping[str, Any]
    answers: Answers
    tables: Mapping[str, Table]
    judgement: Judgement


@dataclass(frozen=True)
class Together:
    """All evaluations of a study on the same trades; `left_out` runs are of other trades.

    `recalls` are the probes that asked for past prices: each run with its quarters, if it kept any.
    """

    found: tuple[Evaluated, ...]
    records: Sequence[Mapping[str, Any]]
    study: Study
    level: float
    left_out: int
    recalls: tuple[tuple[Mapping[str, Any], Table], ...]


def read(study: str) -> Together:
    """The newest evaluation of each arm, model, prompt and context, of those on the newest run's trades, judged.

    Raises ConfigError where an artifact is missing.
    """
    rows = sorted(tracking.runs(study, kind="evaluation"), key=lambda row: row["started"], reverse=True)
    texts = [_texts(row) for row in rows]
    trades = texts[0]["trades.json"]
    newest: dict[tuple, tuple[Mapping[str, Any], Answers]] = {}
    for row, text in zip(rows, texts):
        if text["trades.json"] == trades:
            one = evaluation.heard(text["answers.json"], store.read_table(row["artifacts"] / "decisions.parquet"))
            newest.setdefault((_place(one), one.model, one.prompt, one.context), (row, one))
    ordered = [newest[key] for key in sorted(newest)]
    records, settings = json.loads(trades), json.loads(texts[0]["answers.json"])
    judged = studies.judge(records, [one for _, one in ordered], baseline=_baseline(ordered),
                           rng=np.random.default_rng(SEED), replications=settings["replications"],
                           level=settings["level"])
    found = tuple(Evaluated(row, one, _tables(row["artifacts"]), judgement)
                  for (row, one), judgement in zip(ordered, judged.judgements, strict=True))
    return Together(found, records, judged, settings["level"], sum(text["trades.json"] != trades for text in texts),
                    _recalls(study))


def _recalls(study: str) -> tuple[tuple[Mapping[str, Any], Table], ...]:
    """The newest recall probe of each model and prompt that kept its quarters."""
    rows = sorted(tracking.runs(study, kind="recall"), key=lambda row: row["started"])
    newest = {(row["tags.model"], row["tags.prompt"]): row for row in rows
              if (row["artifacts"] / "quarters.parquet").is_file()}
    return tuple((row, store.read_table(row["artifacts"] / "quarters.parquet")) for _, row in sorted(newest.items()))


def _place(one: Answers) -> int:
    return ORDER.index(one.arm) if one.arm in ORDER else len(ORDER)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """answers.json and trades.json of an evaluation."""
    missing = [name for name in WRITTEN if not (row["artifacts"] / name).is_file()]
    if missing:
        raise ConfigError(f"evaluation {row['run_id'][:8]}: {row['artifacts'] / missing[0]} is missing; evaluate again")
    return {name: (row["artifacts"] / name).read_text(encoding="utf-8") for name in WRITTEN[:2]}


def _tables(folder: Path) -> dict[str, Table]:
    return {name: store.read_table(folder / f"{name}.parquet") for name in TABLES
            if (folder / f"{name}.parquet").is_file()}


def _baseline(ordered: Sequence[tuple[Mapping[str, Any], Answers]]) -> Table | None:
    """The decisions of the baseline arm: of its own run, or those that another evaluation was compared with."""
    own = [one.decisions for _, one in ordered if one.arm == "baseline"]
    beside = [row["artifacts"] / "baseline.parquet" for row, _ in ordered]
    return (own + [store.read_table(path) for path in beside if path.is_file()] or [None])[0]
