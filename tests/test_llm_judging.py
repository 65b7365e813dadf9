"""What a veto is worth: the tests that decide it, held to what is known about the decisions they are given."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pytest import approx
from scipy.special import expit, ndtri
from scipy.stats import binom

from mahler.llm import calibration, filter as filters, memory, power, shifts, thresholds, trades as judged_trades
from mahler.llm.evaluation import evaluate, heard
from mahler.llm.shifts import family, weights
from mahler.llm.study import judge
from mahler.llm.verdict import ADDS_VALUE, CONTAMINATED, HARMFUL, NO_EVIDENCE, UNDERPOWERED, Evidence, criteria
from tests.judged import LIFE, answers, decisions, market, overlapping, score, table

REFERENCE = {150: 0.22, 300: 0.33, 600: 0.59, 1500: 0.83}       # power for an AUROC of 0.59, by trades


def at_most(share: float, n: int) -> int:
    """The count that `n` trials of that probability exceed once in a thousand times."""
    return int(binom.ppf(0.999, n, share))


# ---- the shift test --------------------------------------------------------------------------------------------------

def test_every_shift_is_the_gap_of_decisions_moved_by_hand():
    rng = np.random.default_rng(0)
    kept, values = rng.random(40) < 0.6, rng.standard_normal(40)
    row = weights(kept, np.ones(40, bool))
    by_hand = [np.roll(values, -s)[kept].mean() - np.roll(values, -s)[~kept].mean() for s in range(4, 37)]
    assert shifts.rotated(row[None], values, 3)[0] == approx(by_hand)


def test_a_p_value_counts_the_observed_decisions_among_the_moved():
    kept = np.zeros(60, bool)
    kept[::2] = True                                   # every second shift is the decision itself
    found = family(weights(kept, np.ones(60, bool))[None], kept.astype(float), 2)
    assert found.gap[0] == 1.0 and found.shifts == 55
    assert found.p[0] == approx((1 + 27) / (1 + 55))


def test_overlapping_trades_do_not_pass_for_independent_ones():
    rng, n, trials = np.random.default_rng(1), 400, 300
    shifted = optimistic = 0
    for _ in range(trials):
        won = (overlapping(rng, n) > ndtri(0.2)).astype(float)
        kept = overlapping(rng, n) > ndtri(0.3)                       # knows nothing
        row = weights(kept, np.ones(n, bool))[None]
        shifted += family(row, won, LIFE - 1).p[0] < 0.05
        optimistic += row[0] @ won / np.sqrt(shifts.iid_variance(row, won)[0]) > ndtri(0.95)
    assert shifted <= at_most(0.05, trials)
    assert optimistic > at_most(0.05, trials)


def test_the_best_of_many_filters_is_found_by_luck_and_the_maximum_knows_it():
    rng, n, trials = np.random.default_rng(2), 300, 150
    alone = corrected = 0
    for _ in range(trials):
        won = (overlapping(rng, n) > ndtri(0.2)).astype(float)
        rows = np.array([weights(overlapping(rng, n) > ndtri(0.3), np.ones(n, bool)) for _ in range(21)])
        found = family(rows, won, LIFE - 1)
        alone += found.p.min() < 0.05
        corrected += found.corrected.min() < 0.05
    assert corrected <= at_most(0.05, trials) < 0.5 * trials < alone


def test_filters_that_keep_the_same_trades_count_once():
    rng = np.random.default_rng(3)
    won = (overlapping(rng, 200) > -0.8).astype(float)
    rows = np.array([weights(overlapping(rng, 200) > -0.5, np.ones(200, bool)) for _ in range(3)])
    few, many = family(rows, won, 3), family(np.repeat(rows, 5, axis=0), won, 3)
    assert many.holm[::5] == approx(few.holm) and many.corrected[::5] == approx(few.corrected)


def test_what_cannot_be_tested_is_undefined_and_never_significant():
    rng = np.random.default_rng(4)
    won, every = (rng.random(100) < 0.8).astype(float), np.ones(100, bool)
    none, few = np.ones(100, bool), np.arange(100) >= 4
    found = family(np.array([weights(none, every), weights(~none, every), weights(few, every)]), won, 3)
    assert np.isnan(found.p).all() and np.isnan(found.gap).tolist() == [True, True, False]
    assert family(weights(few, every)[None][:, :20], won[:20], 9).shifts == 0
    constant = family(weights(rng.random(100) < 0.5, every)[None], np.ones(100), 3)
    assert constant.p[0] == 1.0


# ---- power -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "expected"), REFERENCE.items())
def test_the_power_of_the_reference_table(n, expected):
    assert power.auroc_power(n, 0.59, 0.8, 0.3, 2.07) == approx(expected, abs=0.06)


@pytest.mark.parametrize(("n", "expected"), [(150, 0.22), (600, 0.59)])
def test_a_planted_auroc_is_found_with_about_the_power_of_the_reference_table(n, expected):
    rng, trials, found = np.random.default_rng(n), 200, 0
    for _ in range(trials):
        _, won = market(rng, n)
        x = score(rng, won, 0.59)
        found += family(weights(x > np.quantile(x, 0.3), np.ones(n, bool))[None], won.astype(float), LIFE - 1).p[0] < 0.05
    assert found / trials == approx(expected, abs=0.12)


def test_overlap_costs_trades():
    rng = np.random.default_rng(5)
    records, won = market(rng, 2000)
    assert power.inflation(won.astype(float), LIFE - 1) == approx(1.75, abs=0.25)
    assert power.inflation((rng.random(2000) < 0.8).astype(float), LIFE - 1) == approx(1.0, abs=0.05)
    seen = power.before(records, rejection=0.3, tests=1)
    assert seen.gap > power.detectable_gap(2000, won.mean(), 0.3, 1.0)
    assert np.isnan(power.of(2000, 0.8, 0.0, 1.0).gap)


def test_many_tests_share_the_level_and_each_of_them_sees_less():
    records, _ = market(np.random.default_rng(5), 2000)
    one, all_of_them = (power.before(records, rejection=0.25, tests=n) for n in (1, thresholds.TESTS))
    assert thresholds.TESTS == 1 + len(thresholds.cells(decisions(np.linspace(0, 1, 100))))
    assert all_of_them.gap / one.gap == approx((ndtri(1 - 0.05 / 29) + ndtri(0.8)) / (ndtri(0.95) + ndtri(0.8)))
    assert all_of_them.power < one.power


# ---- the probability -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "expected"), [(100, 0.078), (300, 0.045), (600, 0.032)])
def test_a_perfect_forecaster_has_a_calibration_error_too(n, expected):
    rng = np.random.default_rng(n)
    eces = [calibration.perfect_eces(np.clip(rng.normal(0.75, 0.15, n), 0, 1), rng=rng, replications=20).mean()
            for _ in range(100)]
    assert np.mean(eces) == approx(expected, abs=0.002)


def test_the_market_is_a_hard_reference_and_the_base_rate_another():
    rng = np.random.default_rng(6)
    p = rng.uniform(0.5, 0.95, 4000)
    won = (rng.random(4000) < p).astype(float)
    found = calibration.measure(won, p, p, rng=rng, replications=20)
    assert found.market_skill == approx(0.0) and found.skill > 0.03
    assert found.ece < found.perfect_ece_high
    assert calibration.measure(won, np.full(4000, np.nan), p, rng=rng, replications=20) is None


def test_the_reliability_of_a_calibrated_forecast_has_the_diagonal_in_its_band():
    rng = np.random.default_rng(7)
    p = np.round(rng.uniform(0.5, 0.95, 1500), 2)
    curve = calibration.reliability((rng.random(1500) < p).astype(float), p, rng=rng, replications=100, level=0.95,
                                    block_length=1.0)
    inside = (curve["low"] <= curve["p_profit"]) & (curve["p_profit"] <= curve["high"])
    assert inside.mean() > 0.8 and (np.diff(curve["recalibrated"]) >= 0).all()


# ---- memory ----------------------------------------------------------------------------------------------------------

def test_a_trade_is_clean_three_months_after_the_cutoff():
    entry = np.array(["2024-04-30", "2024-05-01", "2024-05-02"], "datetime64[D]")
    assert memory.clean(entry, np.datetime64("2024-01-31"), remembers=True).tolist() == [False, True, True]
    assert not memory.clean(entry, None, remembers=True).any()
    assert memory.clean(entry, None, remembers=False).all()


def test_a_date_tells_whoever_does_not_remember_nothing():
    rng, found = np.random.default_rng(8), 0
    for _ in range(60):
        records, won = market(rng, 300)
        trades, _ = judged_trades.in_order(records)
        found += memory.area(trades, overlapping(rng, 300), np.ones(300, bool), 0.95).p_value < 0.05
    assert found <= at_most(0.05, 60)
    assert memory.area(trades, score(rng, won, 0.8), np.ones(300, bool), 0.95).p_value < 0.01


def test_an_interval_is_of_the_level_that_was_asked_for():
    rng = np.random.default_rng(24)
    records, won = market(rng, 400)
    trades, (found,) = judged_trades.in_order(records, decisions(score(rng, won, 0.6)))
    narrow, wide = (filters.measure(trades, found, rng=rng, replications=20, level=level) for level in (0.5, 0.99))
    ratio = ndtri(0.995) / ndtri(0.75)
    assert wide.area.high - wide.area.low == approx(ratio * (narrow.area.high - narrow.area.low))
    assert wide.worst_rejected[1] < narrow.worst_rejected[1] < narrow.worst_rejected[2] < wide.worst_rejected[2]


# ---- what is counted -------------------------------------------------------------------------------------------------

def test_a_reply_that_is_no_decision_is_no_reject_and_takes_its_default_in_the_money():
    rng = np.random.default_rng(9)
    records, won = market(rng, 200)
    clean = decisions(score(rng, won, 0.6))
    poisoned = {name: column.copy() for name, column in clean.items()}
    lost = np.arange(0, 200, 7)
    poisoned["status"][lost] = np.resize(np.array(["invalid", "refused", "failed"], object), len(lost))
    poisoned["approve"][lost] = True                                      # on_missing: approve
    poisoned["p_profit"][lost] = poisoned["confidence"][lost] = np.nan
    trades, (found,) = judged_trades.in_order(records, poisoned)
    without = np.setdiff1d(np.arange(200), lost)
    kept = found["approve"][without]
    measured = filters.measure(trades, found, rng=rng, replications=50, level=0.95)
    assert measured.n == len(without)
    assert measured.win_rate == (approx(won[without][kept].mean()), approx(won[without][~kept].mean()))
    folds = thresholds.walk_forward(trades, found)
    assert folds["kept"][0] == 200 or folds["chosen"][0] == thresholds.EVERYTHING
    counted = evaluate(records, answers(poisoned), baseline=None, judged=None, rng=rng, replications=50, level=0.95,
                       draws=10).metrics
    assert counted["invalid"] + counted["refused"] + counted["failed"] == len(lost) == 200 - counted["decided"]


def test_a_trade_that_no_rule_closed_has_no_outcome():
    records, won = market(np.random.default_rng(10), 100)
    records[-1] |= {"exit_reason": "end_of_period"}
    trades, (found,) = judged_trades.in_order(records, table(np.ones(100, bool), np.full(100, 0.8)))
    assert judged_trades.decided(trades, found).sum() == 99


def test_records_in_another_order_are_judged_alike():
    rng = np.random.default_rng(11)
    records, won = market(rng, 150)
    found = decisions(score(rng, won, 0.7))
    order = rng.permutation(150)
    moved = {name: column[order] for name, column in found.items()} | {"trade_id": np.arange(150, dtype=np.int32)}
    a, (b,) = judged_trades.in_order([records[k] for k in order], moved)
    assert (a.won == won).all() and (b["approve"] == found["approve"]).all()
    with pytest.raises(ValueError, match="one of each of the 150 records"):
        judged_trades.in_order(records, {name: column[:-1] for name, column in found.items()})


# ---- thresholds ------------------------------------------------------------------------------------------------------

def test_taking_everything_is_a_valid_answer():
    rng = np.random.default_rng(12)
    records, won = market(rng, 400, days_apart=5)
    for record in records:
        record["pnl"] = abs(record["pnl"])                                # nothing ever lost: every veto costs
    trades, (found,) = judged_trades.in_order(records, decisions(score(rng, won, 0.5)))
    folds = thresholds.walk_forward(trades, found)
    assert set(folds["chosen"]) == {thresholds.EVERYTHING} and folds["pnl"].sum() == folds["everything"].sum()


def test_a_threshold_is_chosen_on_what_was_closed_before_the_year():
    rng = np.random.default_rng(13)
    records, won = market(rng, 500, days_apart=4)
    trades, (found,) = judged_trades.in_order(records, decisions(score(rng, won, 0.7)))
    folds = thresholds.walk_forward(trades, found)
    late = trades.entry.astype("datetime64[Y]").astype(int) + 1970 == folds["year"][-1]
    trades.pnl[late] *= -1.0
    again = thresholds.walk_forward(trades, found)
    assert again["chosen"].tolist() == folds["chosen"].tolist() and again["pnl"][-1] == -folds["pnl"][-1]


def test_the_threshold_zero_of_an_approval_is_the_decision_itself():
    rng = np.random.default_rng(14)
    records, won = market(rng, 100)
    found = thresholds.cells(decisions(score(rng, won, 0.7)))
    assert len(found) == 2 * 2 * len(thresholds.THRESHOLDS)
    assert found[0].name == "approve and confidence >= 0" and found[-1].name == "p_profit >= 0.7"


# ---- the verdict -----------------------------------------------------------------------------------------------------

def verdict_of(rng: np.random.Generator, n: int, auroc: float, *, cutoff: str = "2018-01-01") -> str:
    """Of a model with that skill, blind or not, beside a baseline that has none."""
    records, won = market(rng, n)
    seen = score(rng, won, auroc)
    full, blind = decisions(seen), decisions(seen + 0.5 * overlapping(rng, n))
    found = judge(records, [answers(full, cutoff=cutoff), answers(blind, context="blind", cutoff=cutoff)],
                  baseline=decisions(score(rng, won, 0.5)), rng=rng, replications=20, level=0.95)
    return found.judgements[0].verdict.verdict


def test_two_hundred_models_without_skill_add_no_value():
    rng = np.random.default_rng(15)
    found = Counter(verdict_of(rng, 300, 0.5) for _ in range(200))
    assert found[ADDS_VALUE] <= at_most(0.05, 200) and found[ADDS_VALUE] / 200 <= 0.05
    assert found[HARMFUL] <= at_most(0.05, 200)
    assert found[UNDERPOWERED] > 150


def test_a_planted_skill_is_found_at_about_the_power_that_is_stated():
    rng, trials, added, stated = np.random.default_rng(16), 80, 0, []
    for _ in range(trials):
        records, won = market(rng, 1500)
        seen = score(rng, won, 0.59)
        found = judge(records, [answers(decisions(seen)), answers(decisions(seen + 0.5 * overlapping(rng, 1500)),
                                                                  context="blind")],
                      baseline=decisions(score(rng, won, 0.5)), rng=rng, replications=20, level=0.95).judgements[0]
        added += found.verdict.verdict == ADDS_VALUE
        stated.append(found.evidence.power.power)
    assert 0.5 < np.mean(stated) < 0.83                                   # less than of one test: many cells were looked at
    assert added / trials == approx(np.mean(stated), abs=0.15)


def test_a_strong_skill_adds_value_and_its_opposite_is_harmful():
    rng = np.random.default_rng(17)
    assert verdict_of(rng, 1500, 0.75) == ADDS_VALUE
    assert verdict_of(rng, 1500, 0.25) == HARMFUL


def test_a_model_that_remembers_is_contaminated_not_skilled():
    rng, found = np.random.default_rng(18), Counter()
    for _ in range(20):
        records, won = market(rng, 900)
        known = np.arange(900) < 500
        remembered = overlapping(rng, 900) + 1.5 * won * known            # by its date, up to the cutoff
        cutoff = records[499]["date"]
        asked = [answers(decisions(remembered), cutoff=cutoff),
                 answers(decisions(score(rng, won, 0.5)), context="blind", cutoff=cutoff),
                 answers(decisions(overlapping(rng, 900) + 1.5 * won * known), context="date_only", cutoff=cutoff)]
        study = judge(records, asked, baseline=decisions(score(rng, won, 0.5)), rng=rng, replications=20, level=0.95)
        found[study.judgements[0].verdict.verdict] += 1
        assert study.judgements[1].verdict.verdict != ADDS_VALUE
    assert found[CONTAMINATED] >= 19 and found[ADDS_VALUE] == 0


def test_nothing_before_the_cutoff_can_promote():
    rng = np.random.default_rng(19)
    records, won = market(rng, 1500)
    seen = score(rng, won, 0.8)
    for cutoff in ("2030-01-01", None):
        study = judge(records, [answers(decisions(seen), cutoff=cutoff), answers(decisions(seen), context="blind",
                                                                                 cutoff=cutoff)],
                      baseline=decisions(score(rng, won, 0.5)), rng=rng, replications=20, level=0.95)
        assert study.judgements[0].verdict.verdict == CONTAMINATED and study.judgements[0].clean == 0
        assert study.judgements[1].verdict.verdict == UNDERPOWERED        # blind: no label to remember by


@pytest.mark.parametrize(("missing", "words"), [
    ("baseline", "not compared with the free baseline"), ("blind", "The blind context was not asked"),
    ("layer", "a coin that vetoes as often does as well with p 0.400"), ("copied", "leaves unexplained")])
def test_a_skill_that_lacks_one_line_of_the_rule_adds_no_value(missing, words):
    rng = np.random.default_rng(20)
    records, won = market(rng, 1500)
    seen = score(rng, won, 0.75)
    layer = (0.2, 0.4) if missing == "layer" else (0.2, 0.01)
    asked = [answers(decisions(seen), layer=layer)] + [answers(decisions(seen), context="blind")] * (missing != "blind")
    apart = np.sqrt(2.0) * ndtri(0.75)                                    # what the score really says of the odds
    free = {"baseline": None, "copied": table(won, expit(np.log(4.0) + apart * (seen - apart / 2.0)))}.get(
        missing, decisions(score(rng, won, 0.5)))
    found = judge(records, asked, baseline=free, rng=rng, replications=20, level=0.95).judgements[0].verdict
    assert found.verdict == NO_EVIDENCE and any(words in reason for reason in found.reasons)


@pytest.mark.parametrize("approve", [True, False])
def test_an_arm_that_takes_everything_or_nothing_has_nothing_to_compare(approve):
    rng = np.random.default_rng(21)
    records, won = market(rng, 200)
    found = evaluate(records, answers(table(np.full(200, approve), np.full(200, 0.8))), baseline=None, judged=None,
                     rng=rng, replications=20, level=0.95, draws=10)
    assert found.verdict == NO_EVIDENCE
    assert "win_rate_gap" not in found.metrics and "layer.sharpe" not in found.metrics
    assert "nothing to compare" in found.judgement.verdict.reasons[0]


def test_one_class_of_outcome_is_undefined_and_no_error():
    rng = np.random.default_rng(22)
    records, _ = market(rng, 120)
    for record in records:
        record |= {"outcome": "profit", "pnl": 30.0}
    found = evaluate(records, answers(decisions(overlapping(rng, 120))), baseline=None, judged=None, rng=rng,
                     replications=20, level=0.95, draws=10)
    assert "auroc" not in found.metrics and found.verdict == NO_EVIDENCE


def test_an_evaluation_can_be_judged_again_from_what_it_left():
    rng = np.random.default_rng(23)
    records, won = market(rng, 150)
    mine = answers(decisions(score(rng, won, 0.6)), layer=None)
    found = evaluate(records, mine, baseline=None, judged=None, rng=rng, replications=20, level=0.95, draws=10)
    again = heard(found.files["answers.json"], found.tables["decisions"])
    assert (again.name, again.cutoff, again.remembers, again.layer) == (mine.name, mine.cutoff, True, None)


# ---- the words -------------------------------------------------------------------------------------------------------

def test_what_rejections_cost_is_not_said_to_be_saved_and_luck_is_not_said_to_be_kept():
    found = Evidence(gap=0.05, corrected=0.01, harm=0.9, upper_bound=0.5, drop=0.0, net=1234.5, layer_change=None, layer_p=None,
                     beyond_baseline=None, ahead=None, retained=0.9, date_only=None,
                     power=power.of(600, 0.8, 0.3, 1.5))

    def words(evidence: Evidence) -> dict[str, str]:
        return {criterion.name: criterion.words for criterion in criteria(evidence)}

    assert "saved 1,234.50 dollars, the cost of the replies deducted." in words(found)["net_of_cost"]
    assert words(found)["blind"].endswith("keeps 90% of its gap.")
    lost = words(replace(found, net=-306.48, corrected=0.995, retained=2.93))
    assert "cost 306.48 dollars, the replies included." in lost["net_of_cost"]
    assert lost["blind"].endswith("keeps 293% of its gap, which may itself be luck.")
