"""One arm's decisions on one set of trades, measured: numbers by name, tables, and a verdict by the rule.

    found = evaluate(records, Answers(arm="model", model="grok-4", prompt="balanced", context="full",
                                      decisions=decisions, cutoff=cutoff, remembers=True),
                     baseline=decisions_of_the_baseline, judged=None, rng=rng, replications=1000, level=0.95,
                     draws=10_000)
    tracking.log_tables(active, metrics=found.metrics, tables=found.tables, files=found.files)

The verdict of an evaluation by itself knows no other prompt and no blind context; `study.judge` knows all of a study.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mahler.llm import calibration, filter as filters, layer as layers, memory, study, thresholds
from mahler.llm import trades as judged_trades
from mahler.llm.filter import Filter, Gap
from mahler.llm.layer import Judged, Layer
from mahler.llm.study import Answers, Judgement
from mahler.llm.trades import Trades, decided
from mahler.schema import Table


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation. Metrics that are undefined are not there.

    Tables: `decisions` and `baseline` as they were given, `thresholds`, `walk_forward`, `reliability`, `quarters`,
    `trades`, and, where there is a portfolio, `curves` and `coin_flips`. Files: `verdict.json`, and `trades.json` and
    `answers.json`, with which the decisions can be judged again beside others.
    """

    metrics: dict[str, float]
    tables: dict[str, Table]
    judgement: Judgement
    files: dict[str, str]

    @property
    def verdict(self) -> str:
        """One of the five."""
        return self.judgement.verdict.verdict


def evaluate(records: Sequence[Mapping[str, Any]], answers: Answers, *, baseline: Table | None, judged: Judged | None,
             rng: np.random.Generator, replications: int, level: float, draws: int) -> Evaluation:
    """Measure the decisions of one arm on the records of `ledger.export`.

    Parameters
    ----------
    answers : Answers
        With one decision (schema.DECISION) of each record; its `layer` is ignored, and comes from `judged`.
    baseline : Table or None
        The decisions of the baseline arm on the same records.
    judged : Judged or None
        What was judged in the loop of a portfolio. None where there are only trades: then nothing is said of a
        portfolio.
    replications, level
        Of bootstrap intervals.
    draws : int
        Coin-flip accounts.

    Raises
    ------
    ValueError
        Where the decisions are not one of each record.
    """
    trades, (decisions,) = judged_trades.in_order(records, answers.decisions)
    whole, clean = _layers(judged, answers, rng, draws)
    answers = replace(answers, layer=None if clean is None else (
        clean.filtered["sharpe"] - clean.everything["sharpe"], clean.p_value("sharpe")))
    if judged is not None and clean is None:
        answers = replace(answers, layer=(math.nan, math.nan))          # a portfolio, and no clean session in it
    found = study.judge(records, [answers], baseline=baseline, rng=rng, replications=replications, level=level)
    judgement, measured = found.judgements[0], filters.measure(trades, decisions, rng=rng, replications=replications,
                                                              level=level)
    among = decided(trades, decisions)
    p = decisions["p_profit"][among]
    scored = calibration.measure(trades.won[among], p, trades.market[among], rng=rng, replications=replications)
    folds = thresholds.walk_forward(trades, decisions)
    tables = {"decisions": answers.decisions, "thresholds": thresholds.table(trades, decisions), "walk_forward": folds,
              "reliability": _reliability(trades[among], decisions["approve"][among], p, rng, replications, level),
              "quarters": memory.by_quarter(trades, decisions["p_profit"], among),
              "trades": _columns(trades, decisions)}
    metrics = (_counts(decisions) | _filter(measured) | _judgement(judgement) | _scores(scored)
               | {"walk_forward.pnl": folds["pnl"].sum(), "walk_forward.everything": folds["everything"].sum()})
    for prefix, one in (("layer.", whole), ("clean.layer.", clean)):
        metrics |= _layer(prefix, one) if one else {}
    if whole is not None:
        tables |= {"curves": whole.curves, "coin_flips": whole.coins}
    if baseline is not None:
        tables["baseline"] = baseline
    files = {"verdict.json": to_json(judgement), "answers.json": said(answers, replications, level),
             "trades.json": json.dumps(list(records), allow_nan=False) + "\n"}
    return Evaluation({name: float(x) for name, x in metrics.items() if np.isfinite(x)}, tables, judgement, files)


def _layers(judged: Judged | None, answers: Answers, rng: np.random.Generator, draws: int
            ) -> tuple[Layer | None, Layer | None]:
    """The portfolio measured over all sessions, and over those whose trades the arm cannot remember."""
    if judged is None:
        return None, None
    whole = layers.measure(judged, rng=rng, draws=draws)
    if not answers.remembers:
        return whole, whole
    days = judged.book.dates[memory.clean(judged.book.dates, answers.cutoff, remembers=True)]
    return whole, layers.measure(judged.since(days[0]), rng=rng, draws=draws) if len(days) > 1 else None


def _reliability(trades: Trades, approve: np.ndarray, p: np.ndarray, rng: np.random.Generator, replications: int,
                 level: float) -> Table:
    return calibration.reliability(trades.won, p, rng=rng, replications=min(replications, 500), level=level,
                                   block_length=filters.block_length(trades, approve, trades.won))


def _columns(trades: Trades, decisions: Table) -> Table:
    """The trades as they were judged, for figures and for whoever wants to judge again."""
    return {"entry": trades.entry, "exit": trades.exit, "won": trades.won, "pnl": trades.pnl,
            "contracts": trades.contracts, "market": trades.market, "closed": trades.closed,
            "approve": decisions["approve"], "decided": decided(trades, decisions), "p_profit": decisions["p_profit"]}


# ---- by name ---------------------------------------------------------------------------------------------------------

def _counts(decisions: Table) -> dict[str, float]:
    """How many of each status, what they cost, and how often samples of one trade disagreed."""
    statuses = Counter(decisions["status"].tolist())
    flips = decisions["flip_rate"][~np.isnan(decisions["flip_rate"])]
    return {"judged": len(decisions["status"]), "decided": statuses["decision"],
            **{status: statuses[status] for status in ("invalid", "refused", "failed")},
            "cost": np.nansum(decisions["cost"]), "input_tokens": decisions["input_tokens"].sum(),
            "output_tokens": decisions["output_tokens"].sum(), "flip_rate": flips.mean() if len(flips) else np.nan}


def _filter(f: Filter) -> dict[str, float]:
    share, low, high = f.worst_rejected
    return {"scored": f.n, "approval_rate": f.approval_rate, "win_rate.kept": f.win_rate[0],
            "win_rate.rejected": f.win_rate[1], "mean_pnl.kept": f.mean_pnl[0], "mean_pnl.rejected": f.mean_pnl[1],
            **_gap("win_rate_gap", f.wins), **_gap("pnl_gap", f.pnl), "auroc": f.area.auroc, "auroc.low": f.area.low,
            "auroc.high": f.area.high, "auroc.p_value": f.area.p_value, "worst_rejected": share,
            "worst_rejected.low": low, "worst_rejected.high": high, "winners_cost": f.winners_cost,
            "losers_saved": f.losers_saved}


def _gap(name: str, gap: Gap) -> dict[str, float]:
    return {name: gap.interval.value, f"{name}.low": gap.interval.low, f"{name}.high": gap.interval.high,
            f"{name}.p_value": gap.p_value, f"{name}.p_value_iid_optimistic": gap.optimistic,
            f"{name}.inflation": gap.inflation, f"{name}.shifts": gap.shifts}


def _judgement(j: Judgement) -> dict[str, float]:
    e = j.evidence
    known = {"beyond_baseline": e.beyond_baseline, "auroc_less_baseline": e.ahead, "layer.p_value": e.layer_p}
    return {"clean.trades": j.clean, "contaminated.trades": j.remembered, "clean.win_rate_gap": e.gap,
            "clean.corrected": e.corrected, "clean.harm": e.harm, "clean.holm": j.holm, "clean.net": e.net,
            "contaminated.win_rate_gap": j.gap_before, "contaminated.corrected": e.upper_bound,
            "power.gap": e.power.gap, "power.auroc": e.power.power, "power.inflation": e.power.inflation,
            **{f"clean.{name}": x for name, x in known.items() if x is not None}}


def _scores(c: calibration.Calibration | None) -> dict[str, float]:
    if c is None:
        return {}
    return {"base_rate": c.base_rate, "brier": c.brier.score, "brier.miscalibration": c.brier.miscalibration,
            "brier.discrimination": c.brier.discrimination, "brier.uncertainty": c.brier.uncertainty,
            "brier_skill": c.skill, "market_brier": c.market_brier, "brier_skill_against_market": c.market_skill,
            "log_loss": c.log_loss, "ece": c.ece, "ece.of_a_perfect_forecaster": c.perfect_ece,
            "ece.of_a_perfect_forecaster_high": c.perfect_ece_high}


def _layer(prefix: str, one: Layer) -> dict[str, float]:
    """The account with the filter, net of its cost, the change against everything, and the rank among the coins."""
    found = {"rejection_rate": one.rate, "cost": one.cost, "coins": len(one.coins["sharpe"])}
    for name, value in one.filtered.items():
        coins = one.coins[name][~np.isnan(one.coins[name])]
        low, high = np.quantile(coins, [0.05, 0.95]) if len(coins) else (np.nan, np.nan)
        found |= {name: value, f"{name}.change": value - one.everything[name], f"{name}.rank": one.rank(name),
                  f"{name}.coin_low": low, f"{name}.coin_high": high}
    return {f"{prefix}{name}": value for name, value in found.items()}


def to_json(judgement: Judgement) -> str:
    """The verdict with its reasons, criteria and evidence; what is not known is null."""
    said = asdict(judgement.verdict) | {"evidence": asdict(judgement.evidence)}
    return json.dumps(_known(said), indent=2, allow_nan=False) + "\n"


def said(answers: Answers, replications: int, level: float) -> str:
    """Everything of the answers but the decisions, and the settings of the intervals."""
    return json.dumps(_known({
        "arm": answers.arm, "model": answers.model, "prompt": answers.prompt, "context": answers.context,
        "cutoff": None if answers.cutoff is None else str(answers.cutoff), "remembers": answers.remembers,
        "layer": answers.layer, "replications": replications, "level": level}), indent=2, allow_nan=False) + "\n"


def heard(text: str, decisions: Table) -> Answers:
    """The answers that `said` wrote down, with their decisions."""
    found = json.loads(text)
    layer = found["layer"] and tuple(math.nan if x is None else x for x in found["layer"])
    return Answers(found["arm"], found["model"], found["prompt"], found["context"], decisions,
                   found["cutoff"] and np.datetime64(found["cutoff"], "D"), found["remembers"], layer)


def _known(x: Any) -> Any:
    """The same, with None for what is not finite: strict JSON has no NaN."""
    if isinstance(x, dict):
        return {name: _known(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_known(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
