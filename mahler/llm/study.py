"""All answers on the same trades side by side: one family of tests, memory, power, and a verdict on each.

    judged = judge(records, [Answers("model", "grok-4", "balanced", "full", decisions, cutoff, True), ...],
                   baseline=decisions_of_the_baseline, rng=rng, replications=1000, level=0.95)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mahler.llm import filter as filters
from mahler.llm import memory, power, thresholds
from mahler.llm import trades as judged_trades
from mahler.llm.shifts import FEWEST, Family, family, weights
from mahler.llm.trades import Trades, decided
from mahler.llm.verdict import Evidence, Verdict, verdict
from mahler.schema import Table
from mahler.validation.scores import delong

BLIND, SHIFTED, DATE_ONLY = "blind", "shifted", "date_only"


@dataclass(frozen=True)
class Answers:
    """What one arm decided (schema.DECISION, a row a record) when it was asked with a prompt in a context.

    `remembers` says whether it can have read how the trades went on, `cutoff` when it stopped reading (None: nobody
    says). `layer` is the change of the Sharpe ratio in the portfolio and its coin-flip p-value, on clean sessions;
    None where there is no portfolio.
    """

    arm: str
    model: str
    prompt: str
    context: str
    decisions: Table
    cutoff: np.datetime64 | None
    remembers: bool
    layer: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """In words: grok-4 balanced, full."""
        said = " ".join(part for part in (self.model, self.prompt) if part)
        return f"{self.arm}{f' {said}' if said else ''}{f', {self.context}' if self.context else ''}"


@dataclass(frozen=True)
class Judgement:
    """One of the answers, judged: its verdict, and what that rests on."""

    answers: Answers
    verdict: Verdict
    evidence: Evidence
    clean: int                   # decided trades after the cutoff
    remembered: int              # decided trades before it
    holm: float                  # of the own decision, clean, among all cells
    gap_before: float            # the win-rate gap before the cutoff: contaminated, an upper bound


@dataclass(frozen=True)
class Study:
    """The judgements in the order of the answers; `cells` has a row for every prompt, context and threshold.

    `memory` has a row for each context that was asked beside `full`: gaps, their difference with its interval,
    agreement. `probe` has the AUROC of each date-only probe.
    """

    judgements: tuple[Judgement, ...]
    cells: Table
    memory: Table
    probe: Table


def judge(records: Sequence[Mapping[str, Any]], answers: Sequence[Answers], *, baseline: Table | None,
          rng: np.random.Generator, replications: int, level: float) -> Study:
    """Judge every answer on the same records. Raises ValueError where decisions are not one of each record."""
    trades, tables = judged_trades.in_order(records, *(one.decisions for one in answers),
                                            *([baseline] if baseline is not None else []))
    ordered = [Answers(**{**one.__dict__, "decisions": table}) for one, table in zip(answers, tables)]
    free = tables[-1] if baseline is not None else None
    sides = [_side(trades, ordered, one) for one in ordered]
    return Study(tuple(_judgement(trades, ordered, side, free, level) for side in sides), _cells(sides),
                 _memory(trades, ordered, rng=rng, replications=replications, level=level), _probe(trades, ordered, level))


@dataclass(frozen=True)
class _Side:
    """One answer; which trades are clean and which it decided, (n,); the family of all cells after and before."""

    answers: Answers
    clean: np.ndarray
    mask: np.ndarray
    after: Family
    before: Family


def _side(trades: Trades, every: Sequence[Answers], mine: Answers) -> _Side:
    clean = memory.clean(trades.entry, mine.cutoff, remembers=mine.remembers)
    rivals = [mine, *(one for one in every if one is not mine and one.arm == mine.arm and one.context != DATE_ONLY)]
    return _Side(mine, clean, decided(trades, mine.decisions), _family(trades, rivals, clean & trades.closed),
                 _family(trades, rivals, ~clean & trades.closed))


def _family(trades: Trades, rivals: Sequence[Answers], among: np.ndarray) -> Family:
    """The own decision and every threshold of each rival, on some of the trades; the first row is the first's own."""
    rows = []
    for one in rivals:
        known = decided(trades, one.decisions) & among
        kept = [one.decisions["approve"], *(cell.kept for cell in thresholds.cells(one.decisions))]
        rows += [weights(k, known)[among] for k in kept]
    return family(np.array(rows), trades.won[among], trades[among].overlap)


def _judgement(trades: Trades, every: Sequence[Answers], side: _Side, baseline: Table | None, level: float) -> Judgement:
    mine, clean = side.answers, side.clean & side.mask
    approve, won = mine.decisions["approve"][clean], trades.won[clean]
    rejection = float((~approve).mean()) if len(approve) else np.nan
    after, before = side.after, side.before
    inflation = after.inflation[0] if after.inflation[0] == after.inflation[0] else power.inflation(
        won, trades[clean].overlap)
    seen = power.of(len(won), float(won.mean()) if len(won) else np.nan, rejection, max(float(inflation), 1.0),
                    after.critical if after.shifts >= FEWEST else np.inf)
    gap, layer = float(after.gap[0]), mine.layer or (None, None)
    beyond, ahead = _against(trades, mine, clean, baseline)
    evidence = Evidence(
        gap, float(after.corrected[0]), float(after.harm[0] if after.shifts else before.harm[0]),
        float(before.corrected[0]), _drop(before, after), _net(trades, mine, side.clean), *layer, beyond, ahead,
        _retained(trades, every, mine, side.clean, gap), _date_only(trades, every, mine, level), seen)
    return Judgement(mine, verdict(evidence), evidence, len(won), int((side.mask & ~side.clean).sum()),
                     float(after.holm[0]), float(before.gap[0]))


def _drop(before: Family, after: Family) -> float:
    """How many standard errors the own decision's gap before the cutoff is above that after it."""
    return float((before.gap[0] - after.gap[0]) / np.hypot(before.error[0], after.error[0]))


def _net(trades: Trades, mine: Answers, clean: np.ndarray) -> float:
    """Dollars that the clean rejections saved, less the replies' cost; NaN without a clean trade."""
    if not clean.any():
        return np.nan
    rejected = clean & ~mine.decisions["approve"]
    return float(0.0 - trades.dollars[rejected].sum() - mine.decisions["cost"][clean].sum())     # not -0.00 dollars


def _against(trades: Trades, mine: Answers, among: np.ndarray, baseline: Table | None
             ) -> tuple[float | None, float | None]:
    """The p-value of the gap in what the baseline does not explain, and the AUROC less the baseline's."""
    if mine.arm == "baseline":
        return None, None
    if baseline is None:
        return np.nan, np.nan
    both = among & (baseline["status"] == "decision") & ~np.isnan(baseline["p_profit"])
    row = weights(mine.decisions["approve"], both)[both]
    free, won = baseline["p_profit"][both], trades.won[both]
    p_value = float(family(row[None], won - free, trades[both].overlap).p[0])
    score = mine.decisions["p_profit"][both]
    score = np.where(np.isnan(score), mine.decisions["approve"][both], score)
    if min(won.sum(), (1.0 - won).sum()) < 2:
        return p_value, np.nan
    areas = delong(won, score, free)
    return p_value, areas.auc_a - areas.auc_b


def _same(every: Sequence[Answers], mine: Answers, context: str) -> Answers | None:
    """The same arm, model and prompt in another context."""
    return next((one for one in every if (one.arm, one.model, one.prompt, one.context)
                 == (mine.arm, mine.model, mine.prompt, context)), None)


def _retained(trades: Trades, every: Sequence[Answers], mine: Answers, clean: np.ndarray, gap: float) -> float | None:
    """The blind arm's gap over this one's, on the same clean trades; None of an arm that has nothing to be blind to."""
    if mine.context == BLIND or not mine.remembers:
        return None
    blind = _same(every, mine, BLIND)
    if blind is None or not gap > 0:
        return np.nan
    row = weights(blind.decisions["approve"], decided(trades, blind.decisions) & clean)
    return float(row @ trades.won) / gap


def _date_only(trades: Trades, every: Sequence[Answers], mine: Answers, level: float) -> float | None:
    """The p-value of the model's date-only probe; None where it was not asked."""
    probes = [one for one in every if one.context == DATE_ONLY and (one.arm, one.model) == (mine.arm, mine.model)]
    if not probes:
        return None
    return memory.area(trades, probes[0].decisions["p_profit"], decided(trades, probes[0].decisions), level).p_value


def _cells(sides: Sequence[_Side]) -> Table:
    """Every cell of every answer on its clean trades: gap, p, corrected for all, Holm."""
    rows = []
    for side in sides:
        mine, found = side.answers, side.after
        names = [("own decision", "", np.nan), *((c.rule, c.value, c.threshold)
                                                         for c in thresholds.cells(mine.decisions))]
        rows += [(mine.arm, mine.model, mine.prompt, mine.context, *name, found.gap[k], found.p[k], found.corrected[k],
                  found.holm[k]) for k, name in enumerate(names)]
    heads = ("arm", "model", "prompt", "context", "rule", "value", "threshold", "gap", "p_value", "corrected", "holm")
    return {head: np.array(column, object if k < 6 else float) for k, (head, column) in
            enumerate(zip(heads, zip(*rows) if rows else [()] * len(heads)))}


def _memory(trades: Trades, every: Sequence[Answers], *, rng: np.random.Generator, replications: int,
            level: float) -> Table:
    """`full` less each other context of the same arm, model and prompt, on all trades that both decided."""
    rows = []
    for full in (one for one in every if one.context == "full"):
        for context in (BLIND, SHIFTED):
            other = _same(every, full, context)
            if other is None:
                continue
            both = decided(trades, full.decisions) & decided(trades, other.decisions)
            approve = full.decisions["approve"]
            found = memory.paired(trades, approve, other.decisions["approve"], both, rng=rng,
                                  replications=replications, level=level,
                                  block_length=filters.block_length(trades[both], approve[both], trades.won[both]))
            d = found.difference
            rows.append((full.model, full.prompt, context, int(both.sum()), found.gap, found.other_gap, d.value, d.low,
                         d.high, found.agreement, found.mcnemar))
    heads = ("model", "prompt", "context", "trades", "gap", "other_gap", "difference", "difference_low",
             "difference_high", "agreement", "mcnemar")
    return {head: np.array(column, object if k < 3 else float) for k, (head, column) in
            enumerate(zip(heads, zip(*rows) if rows else [()] * len(heads)))}


def _probe(trades: Trades, every: Sequence[Answers], level: float) -> Table:
    """The AUROC of each probe that saw nothing but the date; it must be 0.5."""
    rows = []
    for one in (one for one in every if one.context == DATE_ONLY):
        found = memory.area(trades, one.decisions["p_profit"], decided(trades, one.decisions), level)
        rows.append((one.model, one.prompt, found.auroc, found.low, found.high, found.p_value))
    heads = ("model", "prompt", "auroc", "auroc_low", "auroc_high", "p_value")
    return {head: np.array(column, object if k < 2 else float) for k, (head, column) in
            enumerate(zip(heads, zip(*rows) if rows else [()] * len(heads)))}
