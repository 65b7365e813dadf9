"""The checks: each is told by its own fault, and all together are quiet in a world that is the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mahler.monitoring import page
from mahler.monitoring.bands import asked, bands
from mahler.monitoring.checks import ADVICE, Verdict, checks, worst
from mahler.monitoring.graduation import criteria, halted
from mahler.monitoring.replay import Parity
from mahler.validation import sequential
from tests.ledgers import random_ledger
from tests.test_stage import committed
from tests.watching import FILL, RULE, Source, changed

PAPER = committed()["paper"]
TRUE = Parity(40, 40, ())
STRETCH = np.arange(300, 340)


@pytest.fixture(scope="module")
def source() -> Source:
    ledger = random_ledger(np.random.default_rng(0), n_days=1500, n_trades=900)
    ledger.counts["candidates"] = 5000.0
    ledger.trades["risk_fraction"][:] = 0.03                  # for the five contracts that some have
    return Source.of(ledger)


@pytest.fixture(scope="module")
def promised(source):
    return bands(source.ledger, fill=FILL, rule=RULE, rng=np.random.default_rng(0))


@pytest.fixture
def seen(source):
    return source.watched(STRETCH, np.random.default_rng(2))


def verdicts(seen, promised, parity=TRUE, stage=PAPER):
    return {check.name: check.verdict for check in checks(seen, seen, promised, parity, stage)}


def test_a_world_that_is_the_model_is_quiet(seen, promised):
    found = checks(seen, seen, promised, TRUE, PAPER)
    assert {check.verdict for check in found} <= {Verdict.OK, Verdict.TOO_EARLY} and len(found) == 17
    assert worst(found) is Verdict.OK and page.advice(found) == []


def test_on_the_first_day_there_is_nothing_to_say(source, promised):
    first = source.watched(STRETCH[:1], np.random.default_rng(2))
    found = verdicts(first, promised, Parity(0, 0, ()))
    assert [name for name, verdict in found.items() if verdict is Verdict.TOO_EARLY] >= ["parity"]
    assert not {Verdict.WATCH, Verdict.STOP} & set(found.values())


@pytest.mark.parametrize("share, verdict", [(0.58, Verdict.OK), (0.66, Verdict.OK), (0.74, Verdict.WATCH), (0.82, Verdict.STOP)])
def test_fills_are_told_when_they_are_worse_than_modelled_and_not_when_better(source, promised, share, verdict):
    seen = source.watched(np.arange(300, 360), np.random.default_rng(3), share=share)
    assert verdicts(seen, promised)["fills"] is verdict


def test_a_credit_below_that_of_the_tickets_is_told(source, promised):
    seen = source.watched(np.arange(300, 360), np.random.default_rng(3), credit=0.85)
    assert verdicts(seen, promised)["credit"] in (Verdict.WATCH, Verdict.STOP)


def test_one_session_without_data_is_a_watch_and_two_are_a_stop(seen, promised):
    for missing, verdict in ((seen.sessions[-1:], Verdict.WATCH), (seen.sessions[-2:], Verdict.STOP),
                             (seen.sessions[10:11], Verdict.OK)):
        assert verdicts(replace(seen, missing=missing), promised)["data"] is verdict
    stuck = seen.unchanged.copy()
    stuck[-2:] = 1.0
    assert verdicts(replace(seen, unchanged=stuck), promised)["data"] is Verdict.STOP


def test_parity_below_the_stage_is_a_stop_and_any_difference_a_watch(seen, promised):
    assert verdicts(seen, promised, Parity(40, 39, ("one",)))["parity"] is Verdict.WATCH
    assert verdicts(seen, promised, Parity(40, 37, ("one",)))["parity"] is Verdict.STOP


def test_a_size_above_all_of_the_backtest_is_a_stop_whatever_the_mean(seen, promised):
    trades = seen.history.trades | {"contracts": seen.history.trades["contracts"].copy()}
    trades["contracts"][3] = 2 + 2 * asked(trades, promised.sizes, largest=True)[3]
    assert verdicts(replace(seen, history=replace(seen.history, trades=trades)), promised)["size"] is Verdict.STOP


def test_half_the_size_is_told(seen, promised):
    t = seen.history.trades
    halved = t | {"contracts": 0.4 * t["contracts"]}
    assert verdicts(replace(seen, history=replace(seen.history, trades=halved)), promised)["size"] is Verdict.STOP


def test_an_unexplained_size_zero_is_a_stop(seen, promised):
    scanned = seen.scanned | {"reason": np.where(np.arange(40) == 7, "size_zero", seen.scanned["reason"])}
    assert verdicts(replace(seen, scanned=scanned), promised)["size_zero"] is Verdict.STOP
    explained = scanned | {"risk_fraction": np.full(40, 0.001), "reason": np.full(40, "size_zero", object)}
    assert verdicts(replace(seen, scanned=explained), promised)["size_zero"] is Verdict.OK     # a bear market's months


def test_exits_that_come_late_are_told(seen, promised):
    n = len(seen.trades["late"])
    for late, verdict in ((np.full(n, 1), Verdict.OK), (np.where(np.arange(n) == 0, 3, 0), Verdict.WATCH),
                          (np.full(n, 3), Verdict.STOP)):
        assert verdicts(changed(seen, late=late), promised)["exits"] is verdict


def test_an_exit_that_is_late_is_told_although_its_position_is_of_the_stretch_before(source, promised):
    whole = source.watched(np.arange(300, 360), np.random.default_rng(2))
    seen = source.watched(np.arange(340, 360), np.random.default_rng(2))
    seen = replace(seen, start=whole.sessions[40], sessions=whole.sessions[40:], end=whole.end)
    before = np.flatnonzero(whole.trades["date"] < seen.start)[-2:]
    late, exit_date = whole.trades["late"].copy(), whole.trades["exit_date"].copy()
    late[before], exit_date[before] = 3, seen.start
    for when, verdict in ((exit_date, Verdict.STOP), (whole.trades["exit_date"], Verdict.OK)):      # now; then, and told then
        found = checks(seen, changed(whole, late=late, exit_date=when), promised, TRUE, PAPER)
        assert {check.name: check.verdict for check in found}["exits"] is verdict


def test_money_is_watched_and_never_stops(source, promised):
    seen = source.watched(STRETCH, np.random.default_rng(2))
    poor = seen.history.trades | {"pnl": np.full(len(seen.trades["pnl"]), -300.0)}
    found = verdicts(replace(seen, history=replace(seen.history, growth=np.full(40, -0.004), trades=poor)), promised)
    assert {found[name] for name in ("growth", "pnl", "cusum")} == {Verdict.WATCH}
    assert {name for name, verdict in found.items() if verdict is Verdict.STOP} <= {"mix", "drawdown"}


def test_what_is_lost_for_good_halts(seen, promised):
    t = seen.trades
    for name, column in (("loss", np.where(np.arange(len(t["pnl"])) == 0, -2.5 * t["max_loss"] * t["contracts"], t["pnl"])),
                         ("profit_factor", -np.abs(t["pnl"]))):
        worse = changed(seen, pnl=column)
        found = checks(worse, worse, promised, TRUE, replace(PAPER, halt_trades=10, halt_profit_factor=0.5))
        assert {check.name: check.verdict for check in found}[name] is Verdict.STOP and halted(found)
    fallen = replace(seen, index=seen.index * np.linspace(1.0, 0.85, 40))
    assert verdicts(fallen, promised)["drawdown"] is Verdict.STOP


def test_every_check_says_what_to_do(seen, promised):
    assert {check.name for check in checks(seen, seen, promised, TRUE, PAPER)} | {"approvals"} == set(ADVICE)


def test_an_llm_that_decides_otherwise_is_told(source, promised):
    layered = replace(promised, approved=0.7)
    for approved, verdict in ((0.7, Verdict.OK), (0.3, Verdict.WATCH), (1.0, Verdict.WATCH)):
        seen = source.watched(np.arange(300, 360), np.random.default_rng(2), approved=approved)
        assert verdicts(seen, layered)["approvals"] is verdict


def test_all_checks_together_call_as_rarely_as_is_promised(source, promised):
    """Read every week for 60 sessions, in stretches of the backtest's own blocks; halts are limits and no tests."""
    rng, called = np.random.default_rng(5), []
    for stretch in sequential.stretches(1500, RULE.horizon, promised.block_length, 120, rng):
        seed, verdict = int(rng.integers(2**31)), set()
        for n in range(RULE.least, RULE.horizon + 1, 5):
            seen = source.watched(stretch[:n], np.random.default_rng(seed))
            verdict |= {check.verdict for check in checks(seen, seen, promised, Parity(n, n, ()), PAPER) if check.often != "halt"}
        called.append((bool(verdict & {Verdict.WATCH, Verdict.STOP}), Verdict.STOP in verdict))
    watch, stop = np.mean(called, axis=0)
    assert watch <= 0.10 + 3 * np.sqrt(0.10 * 0.90 / 120)
    assert stop <= 0.02 + 3 * np.sqrt(0.02 * 0.98 / 120)


def test_a_stage_is_left_when_all_of_it_is_met(source, promised):
    seen = source.watched(np.arange(300, 350), np.random.default_rng(2))
    found = checks(seen, seen, promised, TRUE, PAPER)
    assert [one.name for one in criteria(seen, TRUE, found, PAPER) if not one.met] == []
    short = criteria(seen, Parity(40, 30, ()), checks(seen, seen, promised, Parity(40, 30, ()), PAPER),
                     replace(PAPER, sessions=100, trades=1000, fills=1000))
    assert [one.name for one in short if not one.met] == ["sessions", "closed trades", "fills", "decision parity"]


def test_the_page_shows_every_check_and_its_pictures(seen, promised):
    found = checks(seen, seen, promised, TRUE, PAPER)
    blocks = page.blocks(seen, promised, found, "paper", synthetic=True)
    assert "SYNTHETIC" in blocks[0].text and len(blocks[2].body) == len(found)
    assert sum(hasattr(block, "svg") for block in blocks) == 4
