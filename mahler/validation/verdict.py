"""The verdict of a study, by a rule that was written down before any study was run.

`better than control` only if the out-of-sample account says so, and it survives every other criterion. Anything else
is `no evidence`, with the difference that could have been seen, or `worse than control`. A number that could not be
computed fails its criterion: nothing is presumed in a config's favour. Keeping the control is a finding too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mahler.validation.bootstrap import Interval
from mahler.validation.robustness import Neighbours

BETTER, NO_EVIDENCE, WORSE = "better than control", "no evidence", "worse than control"

DEFLATED_SHARPE_AT_LEAST = 0.95
PBO_P_VALUE_BELOW = 0.10
DRAWDOWN_AT_MOST = 1.2       # times the control's: "not worse by a fifth"
RULE_FACTOR = 1.5            # of what a single test needs, for choosing and eight criteria: experiments/calibration.md


@dataclass(frozen=True)
class Evidence:
    """What a verdict is computed from; all of it out of sample, but for the PBO and the neighbours.

    `difference` is the paired difference of annualised Sharpe ratios, config less control, on the stitched account,
    with its interval. `superior` is whether StepM at 5 % names the config there. Drawdowns are positive fractions,
    at equal mean heat where that could be matched. The three checks are the same difference at natural fills,
    without the best year, and without either's five best trades. `neighbours` is None where the grid has no ordered
    axis, so that there is nothing to ask. `single_test` is the difference that one test of one config would see in
    four studies of five, `detectable` the one that the whole rule finds as often: inf where the control's own annual
    Sharpe ratio, `control_sharpe`, is too low for any difference to pass the deflation.
    """

    is_control: bool                       # the study chose the control itself
    difference: Interval
    superior: bool
    deflated_sharpe: float
    n_trials: int                          # the trial ledger's
    pbo_p_value: float
    drawdown: float
    control_drawdown: float
    natural_fill: float
    without_best_year: float
    without_best_trades: float
    neighbours: Neighbours | None
    control_sharpe: Interval               # annual, out of sample
    single_test: float
    detectable: float


@dataclass(frozen=True)
class Criterion:
    """One line of the rule: what was asked, what was found, what it had to be. None is "nothing to ask"."""

    name: str
    value: float | None
    threshold: str
    passed: bool | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """One of BETTER, NO_EVIDENCE, WORSE, why in words, and each criterion."""

    verdict: str
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]


def verdict(evidence: Evidence) -> Verdict:
    """Apply the rule."""
    asked = criteria(evidence)
    if evidence.is_control:
        return Verdict(NO_EVIDENCE, ("The study chose the control: nothing beat it where the choice was made.",
                                     _could_have_seen(evidence)), asked)
    if all(criterion.passed is not False for criterion in asked):
        return Verdict(BETTER, tuple(criterion.words for criterion in asked), asked)
    if evidence.difference.high < 0:
        return Verdict(WORSE, (f"{_found(evidence)}: the whole interval is below zero.",), asked)
    failed = tuple(criterion.words for criterion in asked if criterion.passed is False)
    return Verdict(NO_EVIDENCE, (*failed, _could_have_seen(evidence)), asked)


def criteria(evidence: Evidence) -> tuple[Criterion, ...]:
    """Each line of the rule on its own."""
    return (_out_of_sample(evidence), _deflated(evidence), _overfitting(evidence), _drawdown(evidence),
            _survives("natural_fill", "at natural fills", evidence.natural_fill),
            _survives("without_best_year", "without the year that favours it most", evidence.without_best_year),
            _survives("without_best_trades", "without the five best trades of either", evidence.without_best_trades),
            _neighbours(evidence.neighbours))


def _out_of_sample(evidence: Evidence) -> Criterion:
    passed = evidence.superior or evidence.difference.low > 0
    named = "names it" if evidence.superior else "does not name it"
    return Criterion("out_of_sample", evidence.difference.low, "StepM at 5 %, or a lower end above 0", bool(passed),
                     f"{_found(evidence)}; StepM at 5 % {named}.")


def _deflated(evidence: Evidence) -> Criterion:
    value = evidence.deflated_sharpe
    return Criterion("deflated_sharpe", value, f">= {DEFLATED_SHARPE_AT_LEAST}",
                     bool(value >= DEFLATED_SHARPE_AT_LEAST),
                     f"The probability that its Sharpe ratio is above zero, as the best of {evidence.n_trials} "
                     f"trials, is {number(value, '.2f')}; {DEFLATED_SHARPE_AT_LEAST} is asked.")


def _overfitting(evidence: Evidence) -> Criterion:
    value = evidence.pbo_p_value
    return Criterion("pbo_p_value", value, f"< {PBO_P_VALUE_BELOW:.2f}", bool(value < PBO_P_VALUE_BELOW),
                     f"Equal configs give a probability of overfitting as low as this study's with probability "
                     f"{number(value, '.2f')}; below {PBO_P_VALUE_BELOW:.2f} is asked.")


def _drawdown(evidence: Evidence) -> Criterion:
    most = DRAWDOWN_AT_MOST * evidence.control_drawdown
    return Criterion("drawdown", evidence.drawdown, f"<= {DRAWDOWN_AT_MOST} x the control's",
                     bool(evidence.drawdown <= most),
                     f"Its maximum drawdown is {number(evidence.drawdown, '.1%')}, the control's "
                     f"{number(evidence.control_drawdown, '.1%')}; a fifth more is allowed.")


def _survives(name: str, where: str, value: float) -> Criterion:
    return Criterion(name, value, "> 0", bool(value > 0), f"The difference {where} is {number(value, '+.2f')}.")


def _neighbours(found: Neighbours | None) -> Criterion:
    threshold = "median > 0"
    if found is None:
        return Criterion("neighbours", None, threshold, None,
                         "There is no neighbouring cell to ask: the grid has no ordered axis.")
    return Criterion("neighbours", found.median, threshold, bool(found.median > 0),
                     f"Of {len(found.trials)} neighbouring cells {found.share_better:.0%} beat the control; their "
                     f"median difference is {number(found.median, '+.2f')}.")


def _found(evidence: Evidence) -> str:
    d = evidence.difference
    return (f"Out of sample its annual Sharpe ratio differs from the control's by {number(d.value, '+.2f')} "
            f"({d.level:.0%} interval {number(d.low, '+.2f')} to {number(d.high, '+.2f')})")


def _could_have_seen(evidence: Evidence) -> str:
    if math.isnan(evidence.detectable):
        return ("What difference could have been seen is not known: an account never moved or was ruined, or every config "
                "did what the control did.")
    c = evidence.control_sharpe
    control = (f"with a control whose annual Sharpe ratio out of sample is {number(c.value, '+.2f')} ({c.level:.0%} "
               f"interval {number(c.low, '+.2f')} to {number(c.high, '+.2f')}), and N = {evidence.n_trials},")
    single = f"one test of one config would see {evidence.single_test:.2f}"
    if math.isinf(evidence.detectable):
        return (f"No difference could have been called better: {control} no config can stand out from the others far "
                f"enough for a deflated Sharpe ratio of {DEFLATED_SHARPE_AT_LEAST} ({single}).")
    if evidence.detectable > RULE_FACTOR * evidence.single_test:
        return (f"A difference of {evidence.detectable:.2f} a year, of one config alone, is what this rule finds in "
                f"four studies of five, and a smaller one less often: {control} the deflated Sharpe ratio asks for that "
                f"much ({single}).")
    return (f"A difference of {evidence.detectable:.2f} a year could have been seen: this rule finds one of that size "
            f"in four studies of five; a smaller one may be there ({single}).")


def number(value: float, form: str) -> str:
    """A number as text; what is not zero does not read as zero."""
    if not math.isfinite(value):
        return "undefined"
    text = format(value, form)
    return format(value, f"{form.partition('.')[0]}.1g") if float(text.rstrip("%")) == 0.0 and value != 0.0 else text
