"""The pre-registered rule: each criterion can veto, none can be left out, and the words say what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mahler.validation.bootstrap import Interval
from mahler.validation.robustness import Neighbours
from mahler.validation.verdict import BETTER, NO_EVIDENCE, WORSE, Evidence, criteria, verdict

GOOD = Evidence(is_control=False, difference=Interval(0.40, 0.10, 0.70, 0.95), superior=True, deflated_sharpe=0.97,
                n_trials=360, pbo_p_value=0.03, drawdown=0.10, control_drawdown=0.09, natural_fill=0.30,
                without_best_year=0.20, without_best_trades=0.25, neighbours=Neighbours((1, 2), 1.0, 0.1, 0.05),
                control_sharpe=Interval(0.9, 0.4, 1.4, 0.95), single_test=0.17, detectable=0.25)

SPOILT = {
    "out_of_sample": {"superior": False, "difference": Interval(0.40, -0.01, 0.81, 0.95)},
    "deflated_sharpe": {"deflated_sharpe": 0.949},
    "pbo_p_value": {"pbo_p_value": 0.10},
    "drawdown": {"drawdown": 0.1081},
    "natural_fill": {"natural_fill": -0.01},
    "without_best_year": {"without_best_year": 0.0},
    "without_best_trades": {"without_best_trades": -0.1},
    "neighbours": {"neighbours": Neighbours((1, 2), 0.5, 0.0, -0.3)},
}


def test_everything_together_is_better_than_control():
    found = verdict(GOOD)
    assert found.verdict == BETTER and all(c.passed is True for c in found.criteria)
    assert "+0.40 (95% interval +0.10 to +0.70); StepM at 5 % names it" in found.reasons[0]
    assert "as the best of 360 trials, is 0.97" in found.reasons[1]


@pytest.mark.parametrize("name", SPOILT)
def test_each_criterion_alone_can_veto(name):
    spoilt = replace(GOOD, **SPOILT[name])
    assert [c.name for c in criteria(spoilt) if c.passed is False] == [name]
    found = verdict(spoilt)
    assert found.verdict == NO_EVIDENCE and len(found.reasons) == 2
    assert "A difference of 0.25 a year could have been seen" in found.reasons[1]


def test_every_criterion_of_the_rule_is_there():
    assert [c.name for c in criteria(GOOD)] == list(SPOILT)


@pytest.mark.parametrize("change", [{"superior": False}, {"difference": Interval(0.40, -0.10, 0.90, 0.95)}])
def test_either_stepm_or_the_interval_is_enough_out_of_sample(change):
    assert verdict(replace(GOOD, **change)).verdict == BETTER


@pytest.mark.parametrize("name", ["deflated_sharpe", "pbo_p_value", "drawdown", "natural_fill", "without_best_year",
                                  "without_best_trades"])
def test_what_could_not_be_computed_passes_nothing(name):
    found = verdict(replace(GOOD, **{name: np.nan}))
    assert found.verdict == NO_EVIDENCE and "undefined" in found.reasons[0]


def test_numbers_of_numpy_are_judged_like_any_other():
    found = verdict(replace(GOOD, deflated_sharpe=np.float64(0.5), natural_fill=np.float64(0.1)))
    assert found.verdict == NO_EVIDENCE
    assert all(type(c.passed) is bool for c in found.criteria)


def test_a_grid_without_order_has_no_neighbours_to_ask():
    found = verdict(replace(GOOD, neighbours=None))
    assert found.verdict == BETTER and found.criteria[-1].passed is None


def test_an_interval_below_zero_is_worse_than_control():
    found = verdict(replace(GOOD, superior=False, difference=Interval(-0.40, -0.70, -0.10, 0.95)))
    assert found.verdict == WORSE and "the whole interval is below zero" in found.reasons[0]


def test_the_thresholds_themselves_pass_or_fail_as_written():
    assert verdict(replace(GOOD, deflated_sharpe=0.95, pbo_p_value=0.0999, drawdown=0.108)).verdict == BETTER
    assert verdict(replace(GOOD, superior=False, difference=Interval(0.4, 0.0, 0.8, 0.95))).verdict == NO_EVIDENCE


def test_choosing_the_control_is_a_finding_and_not_a_failure():
    found = verdict(replace(GOOD, is_control=True, difference=Interval(0.0, 0.0, 0.0, 0.95)))
    assert found.verdict == NO_EVIDENCE and found.reasons[0].startswith("The study chose the control")


def test_a_difference_that_nothing_could_have_seen_is_said_to_be_unknown():
    found = verdict(replace(GOOD, natural_fill=-1.0, detectable=np.nan))
    assert found.reasons[-1] == ("What difference could have been seen is not known: an account never moved or was ruined, "
                                 "or every config did what the control did.")


def test_where_the_deflation_asks_for_more_than_the_comparison_the_words_say_so():
    poor = replace(GOOD, natural_fill=-1.0, control_sharpe=Interval(-0.7, -1.2, -0.1, 0.95), n_trials=12)
    said = verdict(replace(poor, detectable=1.85)).reasons[-1]
    assert "Sharpe ratio out of sample is -0.70 (95% interval -1.20 to -0.10), and N = 12, the deflated" in said
    said = verdict(replace(poor, detectable=np.inf)).reasons[-1]
    assert said.startswith("No difference could have been called better")


def test_what_is_not_zero_does_not_read_as_zero():
    found = verdict(replace(GOOD, superior=False, difference=Interval(0.16, -0.004, 0.32, 0.95), deflated_sharpe=3e-4))
    assert "interval -0.004 to +0.32" in found.reasons[0] and "is 0.0003; 0.95 is asked" in found.reasons[1]
