"""The layers' table: what each layer on top of the rules was found to add, and which config that leaves in place.

Every number was logged by `mahler validate` or `mahler evaluate`; nothing is estimated here. A layer that nothing was
found for keeps its control, and one that nobody tested says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mahler.document import Block, Bullets, Code, Heading, Rows, Words
from mahler.figures import SYNTHETIC
from mahler.llm.verdict import ADDS_VALUE, Verdict
from mahler.report import value
from mahler.validation.verdict import BETTER

Row = Mapping[str, Any]          # a row of tracking.runs

LAYERS = {
    "regime": ("Regime multipliers", "mahler backtest experiment=regime_grid && mahler validate study=regime_grid"),
    "limits": ("Portfolio limits", "mahler validate study=limits 'grid.limits=[moderate,tight,loose,wide_open,single_only]'"),
    "exit": ("Exits", "mahler validate study=exits 'grid.exit.profit_target=[0.5,0.65,0.8]' 'grid.exit.stop_loss=[1.25,2.0,3.0]'"),
    "llm": ("LLM veto", "mahler evaluate experiment=prompt_grid llm=grok")}
"""The name of each layer, and what tests it and nothing else: of several varied together none is tested."""
KEPT = "no evidence: control kept"


@dataclass(frozen=True)
class Finding:
    """What one validation or evaluation says of the layers that it varied."""

    layers: tuple[str, ...]
    row: Row
    verdict: str
    config: str                  # that is validated: what was better, or the control
    evidence: str
    reasons: tuple[str, ...]

    @property
    def market(self) -> str:
        return {"synthetic": "SYNTHETIC", "real": "real"}.get(self.row["tags.market"], "not known")


def of_validation(row: Row, judgement: Mapping[str, Any]) -> Finding:
    """The finding of a validation; `judgement` is its judgement.json."""
    verdict, layers = row["tags.verdict"], tuple(row["tags.layers"].split(","))
    better = verdict == BETTER
    found = {name: value(row.get(key), form) for name, key, form in (
        ("value", "difference", "+.2f"), ("low", "difference_low", "+.2f"), ("high", "difference_high", "+.2f"),
        ("seen", "detectable", ".2f"), ("n", "n_trials", ".0f"))}
    if judgement.get("out_of_reach"):
        found["seen"] = "no difference"
    evidence = ("{value} ({low} to {high}) a year of Sharpe ratio, out of sample, N = {n}; {seen} could have been seen"
                .format(**found))
    return Finding(layers, row, verdict, judgement["winners"][0][0] if better else judgement["control"],
                   f"{verdict if better else _kept(verdict)}. {evidence}",
                   tuple(judgement["reasons"]))


def of_evaluation(row: Row, judged: Verdict) -> Finding:
    """The finding of an evaluation: the win-rate gap between the trades that were kept and those that were rejected.

    `judged` is the verdict among all that was asked in its study; the evaluation's own knows no other prompt.
    """
    verdict, layer = judged.verdict, ", ".join(row.get(f"tags.{key}", "?") for key in ("model", "prompt", "context"))
    gap = [value(row.get(f"win_rate_gap{end}"), "+.3f") for end in ("", ".low", ".high")]
    evidence = (f"{gap[0]} ({gap[1]} to {gap[2]}) between the win rates of kept and rejected trades, "
                f"{value(row.get('clean.trades'), '.0f')} of them after the cutoff; {value(row.get('power.gap'), '.3f')} "
                "could have been seen")
    adds = verdict == ADDS_VALUE
    return Finding(("llm",), row, verdict, layer if adds else f"off ({layer} was tried)",
                   f"{verdict if adds else _kept(verdict)}. {evidence}", tuple(judged.reasons))


def _kept(verdict: str) -> str:
    return KEPT if verdict.lower() == "no evidence" else f"{verdict}: control kept"


def title(findings: Sequence[Finding]) -> str:
    """The system's name, behind a warning where any of its data were made."""
    return f"{SYNTHETIC}: the system" if any(f.market == "SYNTHETIC" for f in findings) else "The system"


def blocks(findings: Sequence[Finding]) -> list[Block]:
    """The whole document: the table, what each line of it rests on, and how to make it again."""
    made = title(findings).startswith(SYNTHETIC)
    return [Heading(1, title(findings), loud=made),
            Words("Which layers on top of the rules add value? A line for the newest judgement of each study, universe "
                  "and market; a difference is of what walk-forward chose from the control, with its 95 % interval. "
                  "Studies that varied several layers together say nothing of one of them alone."),
            _table(findings), Heading(2, "What each line rests on"), *_reasons(findings),
            Heading(2, "To make it again"),
            Code(tuple(dict.fromkeys(f"mahler {'evaluate' if f.layers == ('llm',) else 'validate'} "
                                     f"{f.row.get('tags.overrides', '')}" for f in findings)) + ("mahler report study=system",))]


def _table(findings: Sequence[Finding]) -> Rows:
    body = []
    for layer, (name, command) in LAYERS.items():
        mine = [f for f in findings if f.layers == (layer,)]
        body += [(name, f.config, f.evidence, _where(f)) for f in mine]
        if not mine:
            body.append((name, "control", f"not tested alone: {command}", ""))
    others = [f for f in findings if len(f.layers) > 1 or f.layers[0] not in LAYERS]
    body += [(" and ".join(LAYERS.get(layer, (layer,))[0] for layer in f.layers), f.config, f.evidence, _where(f))
             for f in others]
    return Rows(("Layer", "Validated config", "Evidence", "Judged on"), tuple(body), words=frozenset({1, 2, 3}))


def _where(finding: Finding) -> str:
    row = finding.row
    return f"{row['study']}, {row['tags.universe']}, {finding.market}, {row['started'][:10]}"


def _reasons(findings: Sequence[Finding]) -> list[Block]:
    found: list[Block] = []
    for f in findings:
        if f.reasons:
            found += [Heading(3, f"{_where(f)}, run {f.row['run_id'][:8]}"), Bullets(f.reasons)]
    return found or [Words("Each evaluation has a page of its own: mahler report study=NAME.")]
