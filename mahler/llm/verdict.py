"""The verdict on a prompt and a model, by a rule that was written down before any model was asked.

ADDS VALUE needs every criterion, on trades entered after anything the model can have read. What was not measured
fails its criterion: nothing is presumed in a model's favour. A filter that finds its winners where it may remember
them, and fewer where it cannot, is CONTAMINATED; where nothing was found, and too few trades were judged to find it,
it is UNDERPOWERED.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from mahler.llm.power import AUROC, Power
from mahler.validation.sharpe import POWER, SIZE

ADDS_VALUE, NO_EVIDENCE, HARMFUL = "ADDS VALUE", "NO EVIDENCE", "HARMFUL"
UNDERPOWERED, CONTAMINATED = "UNDERPOWERED", "CONTAMINATED"

Z = float(ndtri(1.0 - SIZE))
RETAINED_AT_LEAST = 0.5
"""Of the win-rate gap, that the blind arm must keep."""

RULE = ("The rule was written down before any model was asked. A prompt ADDS VALUE only if every line below passes, on "
        "trades entered after the model's stated knowledge cutoff and three months more: kept trades win more often "
        "than rejected ones, more than moved decisions do, corrected for every prompt, context and threshold that was "
        "looked at; the money is there after the cost of the replies; it knows something that a regression on the "
        "same fields does not; and the gap is still there when ticker, dates and price level are taken away. What was "
        "not measured fails. HARMFUL is the opposite gap by the same test. CONTAMINATED is skill among trades "
        "that the model may remember which is missing, or smaller, after them, or gone when it is blind. "
        "UNDERPOWERED is nothing found among trades too few to find it.")


@dataclass(frozen=True)
class Evidence:
    """What a verdict is computed from. NaN is "not known", and fails; None is "nothing to ask" of this arm.

    `corrected` and `harm` are p-values of the win-rate gap of the arm's own decision and of its opposite, on clean
    trades, corrected for all cells; `upper_bound` that of the gap on trades that may be remembered, and `drop` the
    standard score of that gap less the clean one. `net` is dollars that the clean rejections saved less the replies'
    cost. `layer_change` is the change of the Sharpe ratio net of cost on clean sessions, `layer_p` the chance that a
    coin flip does as well. `beyond_baseline` is the p-value of the gap in what the baseline leaves unexplained,
    `ahead` the AUROC less the baseline's. `retained` is the blind arm's gap over this one's. `date_only` is the
    p-value of the probe that sees nothing but the date, on all trades.
    """

    gap: float
    corrected: float
    harm: float
    upper_bound: float
    drop: float
    net: float
    layer_change: float | None
    layer_p: float | None
    beyond_baseline: float | None
    ahead: float | None
    retained: float | None
    date_only: float | None
    power: Power                 # of the clean trades


@dataclass(frozen=True)
class Criterion:
    """One line of the rule: what was found, what it had to be. `passed` is None where there was nothing to ask."""

    name: str
    value: float | None
    threshold: str
    passed: bool | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """One of the five, why in words, and each criterion."""

    verdict: str
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]


def verdict(evidence: Evidence) -> Verdict:
    """Apply the rule."""
    asked = criteria(evidence)
    if all(criterion.passed is not False for criterion in asked):
        return Verdict(ADDS_VALUE, tuple(criterion.words for criterion in asked), asked)
    if evidence.harm < SIZE:
        return Verdict(HARMFUL, (f"What it rejected won more often than what it kept: the gap is "
                                 f"{_points(evidence.gap)}, p {_p(evidence.harm)} corrected for all cells.",), asked)
    remembered = _remembered(evidence)
    failed = tuple(criterion.words for criterion in asked if criterion.passed is False)
    if remembered:
        return Verdict(CONTAMINATED, (*remembered, *failed), asked)
    if evidence.corrected < SIZE:
        return Verdict(NO_EVIDENCE, failed, asked)
    underpowered = evidence.power.n == 0 or evidence.power.power < POWER
    return Verdict(UNDERPOWERED if underpowered else NO_EVIDENCE, (*failed, _could_have_seen(evidence)), asked)


def _remembered(evidence: Evidence) -> tuple[str, ...]:
    """The signs that what was seen is memory, in words; none for an arm that saw no label to remember by."""
    if evidence.retained is None:
        return ()
    if evidence.corrected < SIZE:
        return (("What it finds is gone when ticker, dates and price level are taken away.",)
                if evidence.retained < RETAINED_AT_LEAST else ())
    if not evidence.upper_bound < SIZE:
        return ()
    signs = []
    if math.isnan(evidence.corrected):
        signs.append("There is no later trade on which it could be shown that this is not memory.")
    if evidence.drop > Z:
        signs.append(f"After them the gap is smaller, by {evidence.drop:.1f} standard errors.")
    if evidence.date_only is not None and evidence.date_only < SIZE:
        signs.append(f"The date alone tells the model who wins (p {_p(evidence.date_only)}).")
    found = f"It finds winners among the trades that it may have read about (p {_p(evidence.upper_bound)})."
    return (found, *signs) if signs else ()


def criteria(evidence: Evidence) -> tuple[Criterion, ...]:
    """Each line of the rule on its own."""
    return _information(evidence), _net(evidence), _layer(evidence), _baseline(evidence), _blind(evidence)


def _information(e: Evidence) -> Criterion:
    found = (f"{e.power.n:,} trades that it cannot have read about were decided; kept less rejected win rate is "
             f"{_points(e.gap)}, "
             f"p {_p(e.corrected)} corrected for all cells.")
    if e.power.n == 0:
        found = "No trade that it decided was entered after the cutoff and three months: nothing here can promote it."
    elif math.isnan(e.corrected):
        found = ("Of the trades that it cannot have read about it kept, or rejected, fewer than ten, or they are too "
                 "few to be "
                 "moved past their overlap: there is nothing to compare.")
    return Criterion("information", e.corrected, f"< {SIZE}", bool(e.corrected < SIZE), found)


def _net(e: Evidence) -> Criterion:
    did = f"saved {e.net:,.2f} dollars, the cost of the replies deducted" if e.net > 0 else (
        f"cost {-e.net:,.2f} dollars, the replies included")
    return Criterion("net_of_cost", e.net, "> 0", bool(e.net > 0),
                     "No trade that it cannot have read about is known." if math.isnan(e.net) else
                     f"Its rejections of such trades {did}.")


def _layer(e: Evidence) -> Criterion:
    if e.layer_p is None or e.layer_change is None:
        return Criterion("portfolio", None, f"> 0, p < {SIZE}", None,
                         "The trades came from a file, without a portfolio to walk again.")
    return Criterion("portfolio", e.layer_p, f"> 0, p < {SIZE}", bool(e.layer_change > 0 and e.layer_p < SIZE),
                     f"In the portfolio, on sessions that it cannot have read about and net of cost, the Sharpe "
                     f"ratio changes by "
                     f"{_number(e.layer_change, '+.2f')}; a coin that vetoes as often does as well with p "
                     f"{_p(e.layer_p)}.")


def _baseline(e: Evidence) -> Criterion:
    if e.beyond_baseline is None or e.ahead is None:
        return Criterion("beyond_baseline", None, f"p < {SIZE}, AUROC ahead", None,
                         "It is the baseline itself, or needs none.")
    unknown = math.isnan(e.beyond_baseline)
    return Criterion("beyond_baseline", e.beyond_baseline, f"p < {SIZE}, AUROC ahead",
                     bool(e.beyond_baseline < SIZE and e.ahead > 0),
                     "It was not compared with the free baseline." if unknown else
                     f"In what a free regression on the same fields leaves unexplained, its gap has p "
                     f"{_p(e.beyond_baseline)}; its AUROC is {_number(e.ahead, '+.3f')} against the regression's.")


def _blind(e: Evidence) -> Criterion:
    threshold = f">= {RETAINED_AT_LEAST} of the gap"
    if e.retained is None:
        return Criterion("blind", None, threshold, None, "It saw no ticker, date or price level.")
    return Criterion("blind", e.retained, threshold, bool(e.retained >= RETAINED_AT_LEAST),
                     "The blind context was not asked, or has no gap to compare." if math.isnan(e.retained) else
                     f"Blind to ticker, dates and price level it keeps {e.retained:.0%} of its gap"
                     + ("." if e.corrected < SIZE else ", which may itself be luck."))


def _could_have_seen(e: Evidence) -> str:
    p = e.power
    if math.isnan(p.gap):
        return f"With {p.n:,} clean trades, none kept or none rejected, nothing could have been seen."
    return (f"With {p.n:,} clean trades, worth {p.n / p.inflation:,.0f} that do not overlap, a gap of "
            f"{100 * p.gap:.1f} points of win rate could have been seen in four cases of five; an AUROC of {AUROC} is "
            f"found with probability {p.power:.2f}.")


def _points(gap: float) -> str:
    return f"{100 * gap:+.1f} points" if math.isfinite(gap) else "undefined"


def _p(value: float) -> str:
    return "unknown" if math.isnan(value) else "below 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "undefined"
