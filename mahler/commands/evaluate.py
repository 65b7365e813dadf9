"""Put the trades of a run to a model, or to a control, and measure what its vetoes were worth."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig

from mahler import backtesting, config as configs, evaluation_figures, home, ledger as ledgers, tracking
from mahler.commands.explain import again, find, typed
from mahler.config import Evaluate
from mahler.ledger import Ledger
from mahler.llm import asking, evaluation, loop, memory, power, records as judged_records, thresholds, trades
from mahler.llm.client import Answer, Client, DryRun
from mahler.llm.context import claim
from mahler.llm.evaluation import Evaluation
from mahler.llm.layer import Judged
from mahler.llm.loop import Decide
from mahler.llm.replies import Replies
from mahler.llm.study import Answers
from mahler.schema import ConfigError, Table
from mahler.terminal import progress, say

NOT_THE_RESULT = ("study", "name", "force", "run", "trades")
HOW_IT_IS_ASKED = ("key", "concurrency", "requests_per_minute", "attempts", "timeout", "backoff", "max_wait", "max_failed",
                   "max_cost", "cache_only", "dry_run", "trace")
ASKING = ("model", "permuted")   # arms whose decisions are a model's
GUESSED_REJECTION = 0.25         # share of the trades, for the power before anything is asked


@dataclass(frozen=True)
class Subject:
    """The trades that are judged, and where they come from."""

    records: Sequence[dict[str, Any]]
    name: str                            # run 1234abcd, or the file
    tags: dict[str, str]
    row: dict[str, Any] | None           # of tracking.runs, and the run's ledger; None of a file
    ledger: Ledger | None

    @property
    def market(self) -> str:
        """In words, wherever a result is shown."""
        return {"synthetic": "SYNTHETIC market", "real": "real chains"}.get(self.tags["market"], "market not known")


@dataclass(frozen=True)
class Measured:
    """What an evaluation leaves: as tracking logs it, the verdict in words, and every answer of the model."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Table]
    files: Mapping[str, str]
    tags: Mapping[str, str]
    words: Sequence[str]
    asked: Sequence[Answer]


def run(config: Evaluate) -> float | None:
    """One evaluation: found, if it was made before, or asked, measured and logged. Returns its AUROC."""
    subject = _of_file(config.trades) if config.trades else _of_run(config)
    signature = tracking.signature(_identity(config), judged_records.digest(subject.records), tracking.code_version())
    name = config.name or _name()
    found = None if config.force or config.llm.dry_run else tracking.find(signature, config.study)
    if found and not found.get("failed"):
        say(f"{name}: found, run {found['run_id'][:8]} of {found['started'][:16]} (force=true evaluates again)")
        return found.get("auroc")
    _announce(config, subject, name)
    try:
        measured = _measure(config, subject)
    except DryRun as first:
        say(f"Nothing was asked. The first question would be:\n\n{first}")
        return None
    with tracking.run(study=config.study, name=name, signature=signature, params=configs.flatten(config),
                      tags=subject.tags | dict(measured.tags)) as active:
        tracking.log_tables(active, metrics=measured.metrics, tables=measured.tables,
                            files={**measured.files, "config.yaml": configs.to_yaml(config)})
        if config.llm.trace:
            tracking.trace(active, [_traced(answer) for answer in measured.asked])
    say(f"{name}, {subject.market}:")
    for line in measured.words:
        say(f"  {line}")
    say(f"  {active.artifacts}")
    return measured.metrics.get("auroc")


# ---- what is judged --------------------------------------------------------------------------------------------------


def _of_run(config: Evaluate) -> Subject:
    row = find("last" if config.run is None else typed(config.run))
    ledger = ledgers.read(row["artifacts"])
    tags = tracking.describe(
        kind="evaluation", data_source=row["tags.data_source"], data_digest=row["tags.data_digest"],
        synthetic=row["tags.market"] == "synthetic", universe=row["tags.universe"].split(","), overrides=_typed())
    return Subject(_some(ledgers.export(ledger), row["name"]), f"run {row['run_id'][:8]}",
                   tags | {"judged": row["run_id"]}, row, ledger)


def _of_file(path: Path) -> Subject:
    records = judged_records.read(path)
    tags = tracking.describe(kind="evaluation", data_source="file", data_digest=judged_records.digest(records),
                             synthetic=False, universe=sorted({record["ticker"] for record in records}),
                             overrides=_typed())
    return Subject(records, path.name, tags | {"judged": path.name, "market": "unknown"}, None, None)


def _some(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    if not records:
        raise ConfigError(f"run={name}: it has no trades to judge")
    return records


def _identity(config: Evaluate) -> dict[str, Any]:
    """What the result depends on, beside the trades and the code."""
    whole = {key: value for key, value in configs.plain(config).items() if key not in NOT_THE_RESULT}
    return whole | {"llm": {key: value for key, value in whole["llm"].items() if key not in HOW_IT_IS_ASKED},
                    "choices": _choices()}


def _typed() -> list[str]:
    return list(HydraConfig.get().overrides.task)


def _choices() -> dict[str, str]:
    """The options of the groups that an evaluation is named by."""
    return {group: HydraConfig.get().runtime.choices[group] for group in ("arm", "prompt", "context")}


def _name() -> str:
    changed = [o for o in _typed() if not o.startswith(("experiment=", "study=", "run=", "trades=", "force=", "llm."))]
    return ", ".join(changed) or f"arm={_choices()['arm']}"


def _announce(config: Evaluate, subject: Subject, name: str) -> None:
    """What is about to be done, and what so many trades can show at most."""
    say(f"{name}: {len(subject.records):,} trades of {subject.name}, {subject.market}")
    if _choices()["arm"] == "baseline":
        say("  the offline baseline decides: no model, no key, no network (arm=model asks llm=...)")
    say(f"  power, if one in four is rejected: {_seen(subject.records)}")
    say(f"  the verdict corrects for the {thresholds.TESTS} tests of each prompt and context: those that agree share less, and "
        "decisions in longer runs than the outcomes cost more")
    if _choices()["arm"] in ASKING:
        say(f"  {_clean(subject.records, config.llm.knowledge_cutoff)}")
        if config.in_loop and subject.row and config.context.asks == "outcome":
            say("  what it vetoes makes room in the book for other trades, which are asked about too: calls and dollars below "
                "are of the first round")


def _seen(records: Sequence[dict[str, Any]]) -> str:
    """What one test shows, and what is left of it when the level is shared by all that the verdict looks at."""
    one, every = (power.before(records, rejection=GUESSED_REJECTION, tests=n) for n in (1, thresholds.TESTS))
    if not one.gap > 0:
        return "none; every trade that a rule closed ended alike, so no decision can be told from another"
    return (f"one test sees {_points(one.gap)} in win rates 80 times in 100, and an AUROC of {power.AUROC} "
            f"{100 * one.power:.0f} times; shared by {thresholds.TESTS} tests it is {_points(every.gap)}, and "
            f"{100 * every.power:.0f} times")


def _points(gap: float) -> str:
    return f"a difference of {100 * gap:.1f} points" if gap < 1.0 else "no difference that there can be"


def _clean(records: Sequence[dict[str, Any]], cutoff: date | None) -> str:
    """What the trades can show that a model cannot have read about: nothing else counts for it, and it may be little."""
    if cutoff is None:
        return "llm.knowledge_cutoff is not known: the model may have read about all of them, and none can promote it"
    last = memory.after(np.datetime64(cutoff))
    clean = [record for record in records if np.datetime64(record["date"]) > last]
    begin = f"{len(clean):,} of them were entered after {last}, and only these can promote the model"
    return f"{begin}: {_seen(clean)}" if clean else begin


# ---- judging ---------------------------------------------------------------------------------------------------------


def _measure(config: Evaluate, subject: Subject) -> Measured:
    asked: list[Answer] = []
    rng = np.random.default_rng(config.seed)
    with Replies(home.replies_path()) as replies, progress("ask") as bar, \
            Client(config.llm, replies, say, random.Random(config.seed)) as client:
        ask = partial(asking.ask, client=client, prompt=config.prompt, context=config.context, known=subject.records,
                      progress=bar, asked=asked)

        def decide(records: Sequence[dict[str, Any]]) -> Table:
            return config.arm(records, subject.records, ask, rng)

        if config.context.asks == "price":
            found = _recalled(subject, decide(subject.records), config.level)
        else:
            against = None if _choices()["arm"] == "baseline" else config.against(subject.records, subject.records, ask, rng)
            found = _evaluated(config, subject, decide, against, rng)
    tags = _choices() | {"model": config.llm.model if asked else "none"} | dict(found.tags)
    spent = {"calls": float(client.calls), "spent": client.spent}
    return replace(found, metrics={**found.metrics, **spent}, tags=tags, asked=asked)


def _evaluated(config: Evaluate, subject: Subject, decide: Decide, against: Table | None, rng: np.random.Generator
               ) -> Measured:
    """The decisions on the trades that the rules alone admit, and, of a run, on those that vetoes make room for."""
    looped = _in_loop(subject, decide) if config.in_loop and subject.row else None
    if looped is None:
        decisions, judged, rounds, tables = decide(subject.records), None, {}, {}
    else:
        ended, judged = looped
        decisions = {name: column[:len(subject.records)] for name, column in ended.decisions.items()}
        rounds = {"loop.rounds": float(ended.rounds), "loop.vetoes": float(ended.vetoes),
                  "loop.judged": float(len(ended.rows))}
        tables = {"loop": {"row": ended.rows} | {name: ended.decisions[name] for name in ("approve", "contracts")}}
    of_model = bool(((decisions["model"] != "") | (decisions["status"] != "decision")).any())   # only a model fails
    choices, cutoff = _choices(), config.llm.knowledge_cutoff
    answers = Answers(choices["arm"], config.llm.model if of_model else "", choices["prompt"] if of_model else "",
                      choices["context"] if of_model else "", decisions, cutoff and np.datetime64(cutoff), of_model)
    found = evaluation.evaluate(subject.records, answers, baseline=against, judged=judged, rng=rng,
                                replications=config.replications, level=config.level, draws=config.draws)
    label = f"{answers.name}: {subject.market}"
    known = memory.after(answers.cutoff) if of_model and answers.cutoff is not None else None
    files = found.files | evaluation_figures.evaluation(found.tables, label, known)
    return Measured({**found.metrics, **rounds}, found.tables | tables, files, {"verdict": found.verdict},
                    _words(found, rounds), ())


def _in_loop(subject: Subject, decide: Decide) -> tuple[loop.Loop, Judged]:
    """The run's own book, with the vetoes, until nothing new is admitted."""
    with progress("book of"):
        told, prepared = again(subject.row, subject.ledger)
    book = backtesting.book(told, prepared)
    ended = loop.judge(book.candidates, partial(backtesting.walked, told, book), decide)
    return ended, Judged(book, ended.rows, ended.decisions)


def _recalled(subject: Subject, decisions: Table, level: float) -> Measured:
    """Of a probe that asks whether a price is the real one: by quarter, how often a model knew."""
    true = np.array([claim(record)[1] for record in subject.records])
    of_claims = replace(trades.of(subject.records), won=true.astype(np.float64))
    told = decisions["status"] == "decision"
    area = memory.area(of_claims, decisions["p_profit"], told, level)
    right = float((decisions["approve"][told] == true[told]).mean()) if told.any() else np.nan
    words = [f"recall: {right:.1%} of {told.sum():,} claims judged rightly (a coin: 50 %), AUROC {area.auroc:.2f} "
             f"({area.low:.2f} to {area.high:.2f})"]
    quarters = memory.by_quarter(of_claims, decisions["p_profit"], told)
    return Measured({"recall": right, "auroc": area.auroc, "auroc.low": area.low, "auroc.high": area.high},
                    {"decisions": decisions, "quarters": quarters}, {}, {"kind": "recall"}, words, ())


def _words(found: Evaluation, rounds: Mapping[str, float]) -> list[str]:
    """What came out, in lines."""
    m = found.metrics

    def value(name: str, form: str) -> str:
        return format(m[name], form) if name in m else "-"

    lines = [f"{value('judged', '.0f')} judged: {value('decided', '.0f')} decisions, {value('invalid', '.0f')} invalid, "
             f"{value('refused', '.0f')} refused, {value('failed', '.0f')} failed; ${value('cost', '.2f')}",
             f"approved {value('approval_rate', '.1%')}; win rate {value('win_rate.kept', '.1%')} of the approved, "
             f"{value('win_rate.rejected', '.1%')} of the rejected; AUROC {value('auroc', '.3f')} "
             f"({value('auroc.low', '.3f')} to {value('auroc.high', '.3f')})"]
    if m["contaminated.trades"]:
        lines.append(f"{memory.UPPER_BOUND}: it may have read about {m['contaminated.trades']:,.0f} of these, and none of "
                     "them counts for it")
    if rounds:
        lines.append(f"in the book: {rounds['loop.vetoes']:.0f} vetoes among {rounds['loop.judged']:.0f} judged, in "
                     f"{rounds['loop.rounds']:.0f} rounds; Sharpe {value('layer.sharpe', '.2f')} "
                     f"({value('layer.sharpe.change', '+.2f')}), better than {value('layer.sharpe.rank', '.0%')} of "
                     "coins that veto as often"
                     + (f"; ${m['layer.cost']:,.2f} for all that were judged" if m["layer.cost"] else ""))
    return [*lines, f"VERDICT: {found.verdict.upper()}", *(f"  {reason}" for reason in found.judgement.verdict.reasons)]


def _traced(answer: Answer) -> dict[str, Any]:
    """An answer as a trace: the question, the replies, what they took."""
    return {"question": answer.question, "status": answer.status, "cached": answer.cached,
            "replies": [vars(reply) for reply in answer.replies]}
