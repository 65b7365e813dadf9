"""A study of evaluations as a document, for somebody who distrusts claims that a language model can trade.

The order is the argument: what could have been seen at all, then the verdicts by the rule, then what they rest on.
Every gap is written with its interval; what may be memory is called so beside every number that rests on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mahler import evaluation_figures as draw, metrics
from mahler.document import Block, Bullets, Code, Heading, Picture, Rows, Words
from mahler.evaluated import Evaluated, Together
from mahler.figures import STRESS_LABELS, SYNTHETIC
from mahler.llm import memory, power
from mahler.llm.layer import MEASURES
from mahler.llm.memory import UPPER_BOUND
from mahler.llm.study import DATE_ONLY
from mahler.llm.verdict import RULE
from mahler.report import DASH, Study, value

SIZES = (150, 300, 600, 1500)
MOST_CELLS = 12                  # of the thresholds that are listed
MEASURE_LABELS = {"cagr": "CAGR, %", "sharpe": "Sharpe", "max_drawdown": "max drawdown, %", "profit_factor": "profit factor"}
CAPTIONS = {
    "reliability.svg": "What was said, and what happened: the isotonic curve under the diagonal is over-confidence. "
                       "The "
                       "band is of resampled blocks of trades, and pointwise.",
    "thresholds.svg": "Mean P&L of the trades that are kept as more is asked for, in sample. A line that rises to a "
                      "few "
                      "trades is what luck draws too: the corrected p-values are in the table.",
    "distributions.svg": "P&L of the kept and of the rejected trades. A filter with skill has its rejections on the "
                         "left.",
    "equity.svg": "The account with everything, with the veto, and in grey nine of ten accounts of coins that veto as "
                  "often: inside the band nothing was shown.",
    "quarters.svg": "What p_profit knew of each quarter beyond the base rate. Bars that are high before the dashed "
                    "line and "
                    "gone after it are recall.",
}
MARKETS = {"synthetic": "SYNTHETIC, modelled quotes", "real": "real chains", "unknown": "a file of trades, of a market "
           "that is not known"}
PROBE = "The date-only probe: a model that is told nothing but the day must have an AUROC of 0.5; more is recall."


def title(study: Study, together: Together) -> str:
    """The study's name, behind a warning where the market was made."""
    made = any(one.row["tags.market"] == "synthetic" for one in together.found)
    return f"{SYNTHETIC}: {study.name}" if made else study.name


def blocks(study: Study, together: Together) -> list[Block]:
    """The whole document."""
    heading = title(study, together)
    found: list[Block] = [Heading(1, heading, loud=heading != study.name)]
    if study.question:
        found.append(Words(study.question, strong=True))
    names = labels(together)
    return [*found, _overview(together, names), *_power(together, names), *_asked(study, together, names),
            *_verdicts(together, names), *_filter(together, names), *_cells(together), *_probability(together, names),
            *_portfolio(together, names), *_memory(together, names), *_costs(together, names),
            *_unseen(study, together), *_reproduce(study, together)]


def labels(together: Together) -> dict[int, str]:
    """What each evaluation is called, by its place: without the model where all have the same."""
    models = {one.answers.model for one in together.found if one.answers.model}
    names = {}
    for place, one in enumerate(together.found):
        a = one.answers
        parts = [a.model if len(models) > 1 else "", a.prompt] if a.arm == "model" else [a.arm, a.prompt]
        said = " ".join(part for part in parts if part) or a.arm
        names[place] = f"{said}, {a.context}" if a.context else said
    return names


def _models(together: Together) -> list[int]:
    """Places of the evaluations of a model; of all, where no model was asked."""
    asked = [place for place, one in enumerate(together.found) if one.answers.arm == "model"]
    return asked or list(range(len(together.found)))


# ---- how numbers are written -----------------------------------------------------------------------------------------

def _of(row: Mapping[str, Any], name: str, form: str, scale: float = 1.0) -> str:
    return value(scale * row[name], form) if name in row else DASH


def _between(row: Mapping[str, Any], name: str, form: str, scale: float = 1.0, ends: tuple[str, str] = ("low", "high")
             ) -> str:
    """A metric with its interval; a dash where either is undefined, so that none stands bare."""
    parts = [_of(row, column, form, scale) for column in (name, *(f"{name}.{end}" for end in ends))]
    return DASH if DASH in parts else "{} ({} to {})".format(*parts)


def _p(x: float) -> str:
    return "< 0.001" if x < 0.001 else value(x, ".3f")


def _table(together: Together, names: Mapping[int, str], head: Sequence[str], cells: Callable[[Evaluated], Sequence[str]],
           words: Sequence[int] = ()) -> Rows:
    """A row for each evaluation."""
    body = tuple((names[place], *cells(one)) for place, one in enumerate(together.found))
    return Rows(("", *head), body, words=frozenset(words))


# ---- the beginning ---------------------------------------------------------------------------------------------------

def _overview(together: Together, names: Mapping[int, str]) -> Rows:
    def cells(one: Evaluated) -> tuple[str, ...]:
        j, e = one.judgement, one.judgement.evidence
        return (j.verdict.verdict, f"{j.clean:,}", value(100 * e.gap, "+.1f"), _p(e.corrected), value(e.power.power, ".2f"),
                f"{j.remembered:,}", value(100 * j.gap_before, "+.1f"))

    return _table(together, names, (
        "verdict", "clean trades", "win rate kept less rejected, points", "p, corrected for all cells",
        "power for AUROC 0.59", "trades it may remember", f"gap among them ({UPPER_BOUND})"), cells, words=(1,))


def _power(together: Together, names: Mapping[int, str]) -> list[Block]:
    rejection = np.mean([1.0 - one.row["approval_rate"] for one in (together.found[k] for k in _models(together))
                         if "approval_rate" in one.row] or [0.3])
    rejection = float(np.clip(rejection, 0.05, 0.95))
    seen = power.before(together.records, rejection=rejection, tests=1)
    body = tuple((f"{n:,}", value(100 * p.gap, ".1f"), value(p.power, ".2f")) for n in (*SIZES, seen.n) for p in
                 [power.of(n, seen.win_rate, rejection, seen.inflation)])
    return [Heading(2, "What could be seen at all"), Words(
        f"{seen.n:,} trades, of which {seen.win_rate:.1%} won. They overlap: decisions that come in runs as the "
        f"outcomes "
        f"do are worth {seen.n / seen.inflation:,.0f} independent ones. This is the power of one test at 5 %, "
        f"one-sided, "
        f"of a filter that rejects {rejection:.0%}; corrected for every cell that was looked at, it is less, and "
        f"stands "
        "beside each verdict above. A study below 0.80 that finds nothing has shown nothing."),
        Rows(("trades", "smallest gap of win rates found with power 0.80, points", "power to find AUROC 0.59"), body)]


def _asked(study: Study, together: Together, names: Mapping[int, str]) -> list[Block]:
    row, dates = together.found[0].row, [record["date"] for record in together.records]
    kind = MARKETS[row["tags.market"]]
    digests = " and ".join(sorted({one.row["tags.data_digest"] for one in together.found}))
    rows = [("data", f"{row['tags.data_source']} ({kind}), digest {digests}"),
            ("trades", f"{len(dates):,}, entered from {min(dates)} to {max(dates)}; the same for every arm"),
            *((f"{model}: knowledge", _cutoff(cutoff)) for model, cutoff in _cutoffs(together).items())]

    def counts(one: Evaluated) -> tuple[str, ...]:
        return tuple(_of(one.row, name, ",.0f") for name in ("judged", "decided", "invalid", "refused", "failed"))

    return [Heading(2, "What was asked"), Code(tuple(_commands(together))), Rows(("", ""), tuple(rows), words=frozenset({1})),
            _table(together, names, ("trades", "decisions", "invalid", "refused", "failed"), counts),
            Words("Replies that were no decision are not counted as rejections: no measure of decisions sees them, "
                  "and in "
                  "every P&L they take the default that the arm states. Trades that the end of the period closed "
                  "have no "
                  "outcome, and are in no measure of decisions either.")]


def _cutoffs(together: Together) -> dict[str, np.datetime64 | None]:
    return {one.answers.model: one.answers.cutoff for one in together.found if one.answers.remembers}


def _cutoff(cutoff: np.datetime64 | None) -> str:
    if cutoff is None:
        return "its vendor states no cutoff, so no trade is taken to be unknown to it"
    return f"stated cutoff {cutoff}; trades entered up to {memory.after(cutoff)} may be remembered"


def _verdicts(together: Together, names: Mapping[int, str]) -> list[Block]:
    passed = {True: "yes", False: "NO", None: "nothing to ask"}
    found: list[Block] = [Heading(2, "Verdicts"), Words(RULE)]
    for place in _models(together):
        v = together.found[place].judgement.verdict
        body = tuple((c.words, c.threshold, passed[c.passed]) for c in v.criteria)
        found += [Heading(3, f"{names[place]}: {v.verdict}"), Bullets(v.reasons),
                  Rows(("criterion", "asked", "passed"), body, words=frozenset({1, 2}))]
    return found


# ---- what it rests on ------------------------------------------------------------------------------------------------

def _filter(together: Together, names: Mapping[int, str]) -> list[Block]:
    def wins(one: Evaluated) -> tuple[str, ...]:
        row = one.row
        return (_of(row, "approval_rate", ".1f", 100), _of(row, "win_rate.kept", ".1f", 100),
                _of(row, "win_rate.rejected", ".1f", 100), _between(row, "win_rate_gap", "+.1f", 100),
                _p(row.get("win_rate_gap.p_value", np.nan)), _p(row.get("win_rate_gap.p_value_iid_optimistic", np.nan)),
                _of(row, "win_rate_gap.inflation", ".1f"))

    def money(one: Evaluated) -> tuple[str, ...]:
        row = one.row
        return (_between(row, "pnl_gap", "+,.2f"), _p(row.get("pnl_gap.p_value", np.nan)), _between(row, "auroc", ".3f"),
                _between(row, "worst_rejected", ".0f", 100), _of(row, "losers_saved", ",.0f"),
                _of(row, "winners_cost", ",.0f"))

    level = f"{together.level:.0%}"
    return [Heading(2, "As a filter, beside the controls"), Words(
        f"All trades, so for a model {UPPER_BOUND} where some were entered before its cutoff. approve_all is the rules "
        "alone, coin_flip a coin that rejects as often, baseline a free regression on the same fields, permuted the "
        "model "
        "reading another trade's context. p is one-sided, of rotating the decisions against the outcomes by every "
        "shift "
        "beyond the longest overlap; \"iid\" takes overlapping trades for independent ones and is optimistic; the "
        "variance column says by how much."),
        _table(together, names, ("approved, %", "won of kept, %", "won of rejected, %", f"gap, points ({level})",
                                 "p", "p iid (optimistic)", "variance / iid"), wins),
        _table(together, names, (f"mean P&L gap, dollars a contract ({level})", "p", f"AUROC ({level}, iid)",
                                 f"of the worst 5 %, rejected, % ({level}, iid)", "losers' dollars saved",
                                 "winners' dollars lost"), money), *_pictures(together, names, "distributions.svg")]


def _cells(together: Together) -> list[Block]:
    c = together.study.cells
    tested = np.flatnonzero(np.isfinite(c["p_value"]) & (c["arm"] == together.found[_models(together)[0]].answers.arm))
    order = tested[np.lexsort((c["p_value"][tested], c["corrected"][tested]))]
    same = {(c["model"][k], c["prompt"][k], c["context"][k], c["gap"][k], c["p_value"][k]): k for k in order[::-1]}
    order = [k for k in order if k in set(same.values())]           # thresholds that keep the same trades: once
    body = tuple((" ".join(filter(None, (c["model"][k], c["prompt"][k]))) or c["arm"][k], c["context"][k] or DASH,
                  c["rule"][k] if not c["value"][k] else
                  c["rule"][k].replace("value", c["value"][k]).replace("= t", f"= {c['threshold'][k]:g}"),
                  value(100 * c["gap"][k], "+.1f"), _p(c["p_value"][k]), _p(c["corrected"][k]), _p(c["holm"][k]))
                 for k in order[:MOST_CELLS])
    note = (f"{len(order)} cells differ and have a kept and a rejected side on clean trades. The best of that many "
            f"looks good by "
            "luck: of 21 independent cells without skill, one has p below 0.05 in two studies of three. The "
            "corrected p-value asks how "
            "often the best of all cells, on decisions moved along in time, is as far out as this one; Holm's is the "
            "plain "
            f"alternative. The {min(MOST_CELLS, len(order))} with the lowest are shown.")
    found: list[Block] = [Heading(2, "Every prompt, context and threshold")]
    if not len(tested):
        return [*found, Words("No cell could be tested: there are no clean trades, or none has a kept and a rejected "
                              "side.")]
    return [*found, Words(note), Rows(("prompt", "context", "cell", "gap, points", "p alone", "p corrected", "p Holm"), body,
                                      words=frozenset({1, 2})), *_pictures(together, labels(together), "thresholds.svg"),
            *_walked(together)]


def _walked(together: Together) -> list[Block]:
    names = labels(together)

    def cells(one: Evaluated) -> tuple[str, ...]:
        chosen = Counter(one.tables["walk_forward"]["chosen"].tolist()).most_common(1)
        return (_of(one.row, "walk_forward.pnl", ",.0f"), _of(one.row, "walk_forward.everything", ",.0f"),
                chosen[0][0] if chosen else DASH)

    return [Words("The threshold chosen each year on the trades closed before it, dollars of the whole positions. "
                  "\"Take "
                  "everything\" is among the choices. In dollars, without an interval: a sum over years is one number."),
            _table(together, names, ("chosen as it went", "take everything", "chosen most often"), cells, words=(3,))]


def _probability(together: Together, names: Mapping[int, str]) -> list[Block]:
    if not any("brier" in one.row for one in together.found):
        return []

    def cells(one: Evaluated) -> tuple[str, ...]:
        row = one.row
        return (*(_of(row, name, ".4f") for name in (
            "brier", "brier.miscalibration", "brier.discrimination", "brier.uncertainty")), _of(row, "brier_skill", "+.3f"),
            _of(row, "brier_skill_against_market", "+.3f"), _of(row, "log_loss", ".3f"),
            f"{_of(row, 'ece', '.3f')} / {_of(row, 'ece.of_a_perfect_forecaster', '.3f')}")

    return [Heading(2, "As a probability"), Words(
        "Brier score of p_profit = miscalibration - discrimination + uncertainty (CORP, no bins). The base rate is "
        "that of "
        "the same trades; the market's probability is that the short leg expires worthless, from its delta, which "
        "costs "
        "nothing. Log loss clips probabilities to [0.001, 0.999]. The binned error stands beside what a perfectly "
        "calibrated forecaster gets from as many trades."),
        _table(together, names, ("Brier", "miscalibration", "discrimination", "uncertainty", "skill, base rate",
                                 "skill, market", "log loss", "ECE / a perfect forecaster's"), cells),
        *_pictures(together, names, "reliability.svg")]


def _portfolio(together: Together, names: Mapping[int, str]) -> list[Block]:
    walked = [place for place, one in enumerate(together.found) if "layer.rejection_rate" in one.row]
    if not walked:
        return [Heading(2, "As a layer of the portfolio"),
                Words("The trades came from a file. There is no portfolio to walk again, and nothing is said about "
                      "one.")]
    windows = [name for name in metrics.STRESS if any(f"layer.{name}.return" in together.found[k].row for k in walked)]
    coins = max(together.found[k].row["layer.coins"] for k in walked)
    body, stress = [], []
    for k in walked:
        row = together.found[k].row
        coins_made = " to ".join(_of(row, f"layer.trades.coin_{end}", ",.0f") for end in ("low", "high"))
        body.append((names[k], _of(row, "layer.rejection_rate", ".1f", 100),
                     f"{_of(row, 'layer.trades', ',.0f')}; coins {coins_made}", *(_changed(row, f"layer.{name}") for name in
                                                                               MEASURES)))
        stress.append((names[k], *(f"{_of(row, f'layer.{w}.return.change', '+.2f', 100)} "
                                   f"({_of(row, f'layer.{w}.return.rank', '.0f', 100)})" for w in windows)))
    note = (f"A veto frees room, so the whole account was walked again: with everything, with the veto net of what the "
            f"replies cost, and {coins:,.0f} times with a coin that vetoes as often. A cell is the value with the "
            f"veto, in "
            "brackets its change against everything, then the share of coins that it beats, %, and where nine of ten "
            "coins "
            "are. A veto that trades less looks better wherever trading loses: read the rank, not the change, and "
            "the rank beside "
            "the trades, because a spread that was rejected is offered again and a coin may take it then.")
    head = ("", "rejected, % of those asked in the loop", "trades", *(MEASURE_LABELS[name] for name in MEASURES))
    found: list[Block] = [Heading(2, "As a layer of the portfolio"), Words(note), Rows(head, tuple(body)),
                          *_pictures(together, names, "equity.svg")]
    if windows:
        found += [Words("Stress windows: change of the return, points, and the share of coins that it beats, %. One "
                        "window "
                        "is one event."), Rows(("", *(STRESS_LABELS[w] for w in windows)), tuple(stress))]
    return found


def _changed(row: Mapping[str, Any], name: str) -> str:
    scale, form = (1.0, ".2f") if name.endswith(("sharpe", "profit_factor")) else (100.0, ".2f")
    return (f"{_of(row, name, form, scale)} ({_of(row, f'{name}.change', f'+{form}', scale)}); beats "
            f"{_of(row, f'{name}.rank', '.0f', 100)}; coins {_of(row, f'{name}.coin_low', form, scale)} to "
            f"{_of(row, f'{name}.coin_high', form, scale)}")


def _memory(together: Together, names: Mapping[int, str]) -> list[Block]:
    if not any(one.answers.remembers for one in together.found):
        return [Heading(2, "Memory"), *_recalls(together)] if together.recalls else []
    m, probe = together.study.memory, together.study.probe
    found: list[Block] = [Heading(2, "Memory"), Words(
        "A model may have read how these trades went on. Before its cutoff and three months more every number is an "
        "upper "
        "bound, and promotes nothing. What it loses without ticker, dates and price level (blind), or with moved ones "
        "(shifted), hung on the label.")]
    found.append(Rows(("", "clean trades", "gap on them, points", "trades it may remember", f"gap on them, points "
                                                                                            f"({UPPER_BOUND})"), tuple(
        (names[k], f"{j.clean:,}", value(100 * j.evidence.gap, "+.1f"), f"{j.remembered:,}", value(100 * j.gap_before, "+.1f"))
        for k in _models(together) for j in [together.found[k].judgement])))
    if len(m["prompt"]):
        body = tuple((f"{m['prompt'][k]}: full against {m['context'][k]}", f"{m['trades'][k]:,.0f}",
                      value(100 * m["gap"][k], "+.1f"), value(100 * m["other_gap"][k], "+.1f"),
                      "{} ({} to {})".format(*(value(100 * m[name][k], "+.1f") for name in (
                          "difference", "difference_low", "difference_high"))),
                      value(100 * m["agreement"][k], ".0f"), _p(m["mcnemar"][k])) for k in range(len(m["prompt"])))
        found.append(Rows(("", "trades", "gap, full", "gap, other", f"difference ({together.level:.0%})", "same decision, %",
                           "McNemar p (iid)"), body))
    else:
        found.append(Words("No other context was asked beside the full one, so nothing is known about what hangs on "
                           "the label."))
    if len(probe["model"]):
        body = tuple((f"{probe['model'][k]} {probe['prompt'][k]}", "{} ({} to {})".format(*(
            value(probe[name][k], ".3f") for name in ("auroc", "auroc_low", "auroc_high"))), _p(probe["p_value"][k]))
            for k in range(len(probe["model"])))
        found += [Words(PROBE), Rows(("", f"AUROC of the date alone ({together.level:.0%}, iid)", "p, circular shifts"), body)]
    else:
        found.append(Words("The date-only probe was not asked."))
    return [*found, *_recalls(together), *_pictures(together, names, "quarters.svg")]


def _recalls(together: Together) -> list[Block]:
    """The probes that asked whether a price is the real one: who does not remember is right half of the time."""
    if not together.recalls:
        return [Words("The recall probe (was this the price on that day?) was not asked.")]
    body = tuple((_asker(row), _of(row, "recall", ".1f", 100), _between(row, "auroc", ".3f")) for row, _ in together.recalls)
    cutoffs = [memory.after(cutoff) for cutoff in _cutoffs(together).values() if cutoff is not None]
    tables = {f"{_asker(row)}{_made(row)}": {"quarters": quarters} for row, quarters in together.recalls}
    svg = draw.side_by_side(tables, dict.fromkeys(tables, max(cutoffs, default=None))).get("quarters.svg")
    picture = [Picture("recall.svg", svg, "What it knew of past prices, by quarter, beyond a coin.")] if svg else []
    return [Words("The recall probe: was this the price on that day? Half of the claims are false."),
            Rows(("", "claims judged rightly, % (a coin: 50)", f"AUROC ({together.level:.0%}, iid)"), body), *picture]


def _asker(row: Mapping[str, Any]) -> str:
    return f"{row['tags.model']} {row['tags.prompt']}"


def _costs(together: Together, names: Mapping[int, str]) -> list[Block]:
    def cells(one: Evaluated) -> tuple[str, ...]:
        row = one.row
        each = row.get("cost", 0.0) / row["decided"] if row.get("decided") else np.nan
        return (_of(row, "cost", ",.2f"), _of(row, "layer.cost", ",.2f"), value(each, ".4f"), _of(row, "input_tokens", ",.0f"),
                _of(row, "output_tokens", ",.0f"), _of(row, "flip_rate", ".1f", 100), _of(row, "clean.net", "+,.0f"))

    return [Heading(2, "Costs"), _table(together, names, (
        "dollars", "with the trades that vetoes made room for", "dollars a decision", "tokens in", "tokens out", "flips between samples, %",
        "clean rejections saved, less the replies, dollars"), cells)]


def _made(row: Mapping[str, Any]) -> str:
    """What stands in every picture of a market that was made."""
    return f": {SYNTHETIC}" if row["tags.market"] == "synthetic" else ""


def _pictures(together: Together, names: Mapping[int, str], file: str) -> list[Block]:
    """One figure of the models' evaluations, where there are numbers for it."""
    shown = [place for place in _models(together)
             if together.found[place].answers.context != DATE_ONLY or file == "quarters.svg"]
    titles = {k: f"{names[k]}{_made(together.found[k].row)}" for k in shown}
    cutoffs = {titles[k]: None if not a.remembers or a.cutoff is None else memory.after(a.cutoff)
               for k in shown for a in [together.found[k].answers]}
    figures = draw.side_by_side({titles[k]: together.found[k].tables for k in shown}, cutoffs, only=file)
    return [Picture(file, figures[file], CAPTIONS[file])] if file in figures else []


# ---- the end ---------------------------------------------------------------------------------------------------------

def _unseen(study: Study, together: Together) -> list[Block]:
    seen = [together.found[k].judgement.evidence.power for k in _models(together)]
    known = [100 * p.gap for p in seen if np.isfinite(p.gap)]
    least, most = (f"{end(known, default=0.0):.1f}" for end in (min, max))
    items = [f"Gaps of win rate below {least if least == most else f'{least} to {most}'} points, by prompt and context, after "
             f"correction."
             if known else "Any gap at all: no prompt has clean trades with a kept and a rejected side.",
             "A skill that shows only in the size of rare losses: five per cent of the trades are too few to rank, "
             "and the "
             "mean P&L is dominated by them.",
             "Memory that a vendor's stated cutoff and three months do not bound, and memory that survives being "
             "blind.",
             "Anything that needs another history: there is one path, and as many crashes as it had."]
    if together.found[0].row["tags.market"] == "synthetic":
        items.insert(0, "Anything about a real market: every quote here is modelled. This tests the method.")
    if together.left_out:
        items.append(f"Evaluations of the study on other trades, which are not in it: {together.left_out}.")
    if study.failed:
        items.append(f"Runs of the study that failed, and are not in it: {study.failed}.")
    return [Heading(2, "What could not have been seen"), Bullets(tuple(items))]


def _reproduce(study: Study, together: Together) -> list[Block]:
    body = tuple((one.row["name"], one.row["run_id"], one.row["started"], one.row.get("tags.git_commit", DASH)[:12]
                  + (", uncommitted changes" if one.row.get("tags.git_dirty") == "true" else ""))
                 for one in together.found)
    recalls = [f"mahler evaluate {' '.join(f'{k}={v}' for k, v in _typed(row).items())}" for row, _ in together.recalls]
    return [Heading(2, "How to reproduce"), Code((*_commands(together), *recalls, f"mahler report study={study.name}")),
            Words("With llm.cache_only=true and the cache of replies no model is called and no key is needed."),
            Rows(("run", "id", "started, UTC", "git commit"), body, words=frozenset({1, 2, 3})),
            Words(f"Written by code version {study.code}.")]


def _typed(row: Mapping[str, Any]) -> dict[str, str]:
    """The overrides of a run by their keys; `last` is by now another run, and is said by its id."""
    words = re.split(r"\s+(?=[+~]*[\w./@]+=)", row.get("tags.overrides", "").strip())
    typed = dict(text.split("=", 1) for text in words if "=" in text)
    judged = {} if row["tags.data_source"] == "file" or "tags.judged" not in row else {"run": row["tags.judged"][:8]}
    return typed | judged


def _commands(together: Together) -> list[str]:
    """What was typed; one line where the evaluations are a product of options."""
    typed = [_typed(one.row) for one in together.found]
    values = {key: list(dict.fromkeys(one.get(key) for one in typed)) for one in typed for key in one}
    if any(None in options for options in values.values()) or np.prod([len(v) for v in values.values()]) != len(typed):
        return list(dict.fromkeys(" ".join(["mahler evaluate", *(f"{k}={v}" for k, v in one.items())]) for one in typed))
    sweep = ["-m"] if len(typed) > 1 else []
    return [" ".join(["mahler evaluate", *sweep, *(f"{key}={','.join(options)}" for key, options in values.items())])]
