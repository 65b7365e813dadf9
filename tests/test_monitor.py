"""A paper month, rehearsed; and `mahler monitor` on the account that it leaves: run, graduate, halt."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mahler import cli, schema, stages
from mahler.backtesting import backtest, market, prepare, store_root
from mahler.monitoring import bands, rehearsal
from mahler.monitoring.bands import BandRule
from mahler.monitoring.checks import Verdict, halts
from mahler.monitoring.paper import TABLES, watched
from mahler.paper import records
from mahler.regime import Multipliers
from mahler.scan import scan
from tests import paper
from tests.conftest import default_config
from tests.test_stage import committed

PERIOD = ["period.start=2017-09-01", "period.end=2019-06-28", "classifier=rule"]
START, SESSIONS, STUCK = np.datetime64("2019-03-01"), 60, 20
RULE = BandRule(horizon=60, watch=0.10, stop=0.02, least=10, replications=2000, seed=0)


class Stage:
    """The market, the promoted config, what it promises, and the worlds."""

    def __init__(self) -> None:
        self.config = config = default_config(*PERIOD)
        self.chains, series = market(config)
        prepared = prepare(config, self.chains, series)
        self.promised = bands.bands(backtest(config, prepared), fill=config.fill, rule=RULE, rng=np.random.default_rng(0))
        self.first = int(np.searchsorted(self.chains.sessions, START))
        self.account = paper.account(started=START, initial_equity=config.initial_equity, source=store_root(config.data).name)
        sized = stages.sized(prepared, config.regime, config.sizing)
        stuck = prepare(config, rehearsal.frozen(self.chains, self.first + STUCK - 1), None)
        self.worlds = {world.name: world for world in rehearsal.worlds(
            self.scanner(prepared, sized), self.scanner(prepared, stages.sized(prepared, Multipliers([0.5] * 4), config.sizing)),
            self.scanner(prepared, sized | {"risk_fraction": 2.0 * sized["risk_fraction"]}),
            self.scanner(stuck, stages.sized(stuck, config.regime, config.sizing)), self.promised.fill_share, STUCK)}

    def scanner(self, prepared, sized):
        c = self.config
        return partial(scan, prepared=prepared, sized=sized, rule=c.exit, fill=c.fill, limits=c.limits, breaker=c.breaker,
                       costs=c.costs, config="x")

    def course(self, name: str, folder: Path, sessions: int = SESSIONS) -> rehearsal.Course:
        return rehearsal.run(self.worlds[name], folder, self.account, self.chains.sessions, self.first, sessions,
                             self.promised, committed()["paper"], self.config.costs, np.random.default_rng(1))


@pytest.fixture(scope="module")
def home(synthetic_home, tmp_path_factory):
    """A project of its own, on the shared store, in which a config is promoted."""
    folder = tmp_path_factory.mktemp("promoted")
    (folder / "data").mkdir()
    (folder / "data" / "chains").symlink_to(synthetic_home / "data" / "chains")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAHLER_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def market_of(home):
    return Stage()


@pytest.fixture(scope="module")
def month(home, market_of):
    """The course of a world that is the model, whose paper ledger is the project's; and what is promoted there."""
    experiment = home / "conf" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "bands.json").write_text(json.dumps(bands.plain(market_of.promised)))
    (experiment / "production.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /classifier: rule\nperiod:\n  start: '2017-09-01'\n  end: '2019-06-28'\n")
    with rehearsal.scratch() as folder:
        course = market_of.course("as modelled", folder)
        shutil.copytree(folder, home / "data" / "paper")
    return course


# ---- the rehearsal ---------------------------------------------------------------------------------------------------

def test_a_month_that_is_the_model_is_quiet(month):
    assert len(month.found) == SESSIONS and month.first(Verdict.WATCH) is None and month.as_promised
    last = {check.name: check for check in month.found[-1]}
    assert last["parity"].value == 1.0 and last["exits"].n > 15 and last["fills"].n > 10


@pytest.fixture
def scratch():
    with rehearsal.scratch() as folder:
        yield folder


OWN_CHECK = {"slippage doubled": "fills", "wrong multiplier": "parity", "stale feed": "data", "sizing bug": "size",
             "exits late": "exits"}


def test_a_config_that_is_filled_at_the_mid_is_rehearsed_without_worlds_of_other_fills() -> None:
    named = {share: [world.name for world in rehearsal.worlds(*[None] * 4, share, 0)] for share in (0.5, 0.66)}
    assert set(named[0.66]) - set(named[0.5]) == {"better fills", "slippage doubled"} and "as modelled" in named[0.5]


@pytest.mark.parametrize("name", rehearsal.LOUD)
def test_a_fault_is_loud_in_time_and_told_by_its_own_check(market_of, scratch, name):
    course = market_of.course(name, scratch)
    told, stopped = course.first(Verdict.WATCH), course.first(Verdict.STOP)
    assert told[0] <= rehearsal.LOUD[name] and course.as_promised
    found = {check.name: check.verdict for check in course.found[-1]}
    assert found[OWN_CHECK[name]] in (Verdict.WATCH, Verdict.STOP) and (stopped or name == "slippage doubled")


def test_fills_that_are_better_than_modelled_are_no_fault(market_of, scratch):
    course = market_of.course("better fills", scratch)
    assert course.as_promised and len(course.found) == SESSIONS


# ---- what is watched of a ledger -------------------------------------------------------------------------------------

def test_a_stretch_of_a_ledger_has_its_trades_and_its_account(home, month, market_of):
    tables = records.read_all(home / "data" / "paper", *TABLES)
    days = market_of.chains.sessions[market_of.first:market_of.first + SESSIONS]
    seen = watched(tables, days[0], days[-1])
    assert (seen.sessions == days).all() and not len(seen.missing)
    assert len(seen.trades["pnl"]) == (tables["tickets"]["action"] == "open").sum() == seen.history.entries.sum()
    closed = np.isfinite(seen.trades["pnl"])
    assert seen.trades["pnl"][closed].sum() == pytest.approx(tables["exits"]["pnl"].sum())
    assert np.exp(seen.history.growth.sum()) == pytest.approx(seen.equity[-1] / 100_000.0)
    assert not seen.trades["late"].any() and not seen.trades["early"].any()


def test_trades_count_up_to_the_first_that_is_open(home, month, market_of):
    tables = records.read_all(home / "data" / "paper", *TABLES)
    days = market_of.chains.sessions[market_of.first:]
    seen = watched(tables, days[0], days[14])
    reasons = seen.trades["reason"]
    assert (reasons == "").any()
    first_open = int(np.argmax(reasons == ""))
    assert (seen.history.trades["reason"][:first_open] != "").all() and (seen.history.trades["reason"][first_open:] == "").all()


# ---- the command -----------------------------------------------------------------------------------------------------

def test_monitor_says_ok_and_logs_a_page(home, month, capsys):
    assert cli.main(["monitor"]) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC market, paper, 2019-03-01 to 2019-05-24: OK" in out and "decision parity" in out
    pages = list((home / "mlruns").rglob("monitor.html"))
    assert len(pages) == 1 and "SYNTHETIC" in pages[0].read_text()
    assert cli.main(["monitor"]) == 0 and len(list((home / "mlruns").rglob("monitor.html"))) == 1


def test_a_clock_that_went_on_without_scans_is_a_stop(home, month, capsys):
    assert cli.main(["monitor", "date=2019-06-05"]) == 2
    out = capsys.readouterr().out
    assert "STOP" in out and "open nothing" in out


def test_a_day_of_the_past_is_watched_as_it_was(home, month, capsys):
    assert cli.main(["monitor", "date=2019-03-08"]) == 0
    assert "2019-03-01 to 2019-03-08" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, words", [
    (["monitor", "date=2018-01-02"], "before the paper account"),
    (["monitor", "date=soon"], "date is last, today or a date"),
    (["monitor", "graduate", "graduate.to=live_half"], "a move is recorded with its reason"),
    (["monitor", "graduate", "graduate.to=live", "graduate.reason=x"], "graduate.to is one of"),
    (["monitor", "graduate", "graduate.to=live_full", "graduate.reason=x"], "one stage at a time"),
    (["monitor", "graduate", "graduate.to=live_half", "graduate.reason=x", "stages.paper.sessions=100"],
     "missing is sessions .60, asked for is 100."),
    (["monitor", "simulate", "simulate.start=2019-06-03"], "are not in the chains"),
])
def test_what_cannot_be_done_is_refused_in_a_line(home, month, capsys, arguments, words):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert re.search(words, err), err
    assert err.count("\n") == 1


@pytest.fixture
def own(home, month, tmp_path, monkeypatch):
    """A project like that of `home`, whose paper ledger a test may change. Returns the folder of the ledger."""
    shutil.copytree(home / "data" / "paper", tmp_path / "data" / "paper")
    for shared in ("data/chains", "data/cache", "conf"):
        (tmp_path / shared).symlink_to(home / shared)
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    return tmp_path / "data" / "paper"


EASY = ["stages.paper.fills=20", "stages.paper.trades=10"]


def test_an_account_is_graduated_on_request_only_and_once(own, capsys):
    assert cli.main(["monitor", "graduate", *EASY]) == 0
    assert "Next:  mahler monitor graduate graduate.to=live_half" in capsys.readouterr().out
    assert not len(records.read(own, "stages")["stage"])
    up = ["monitor", "graduate", "graduate.to=live_half", "graduate.reason=two quiet months", "graduate.who=desk", *EASY]
    assert cli.main(up) == 0
    moves = records.read(own, "stages")
    assert (moves["stage"][0], moves["who"][0], moves["why"][0]) == ("live_half", "desk", "two quiet months")
    assert moves["moved_at"][0].astype("datetime64[D]") == np.datetime64("2019-05-24")
    assert cli.main(up) == 2 and "was moved after 2019-05-24 already" in capsys.readouterr().err


def test_a_halt_moves_the_account_back_by_itself_and_once(own, capsys):
    halting = ["monitor", "stages.paper.halt_drawdown=0.0001"]
    assert cli.main(halting) == 2 and cli.main(halting) == 2
    moves = records.read(own, "stages")
    assert moves["stage"].tolist() == ["paper"] and moves["who"][0] == "mahler monitor"
    assert moves["why"][0].startswith("halt: drawdown")
    assert "by mahler monitor: halt: drawdown" in capsys.readouterr().out


def test_a_halt_looks_back_to_the_beginning_of_the_stage_and_not_of_the_stretch(own, capsys):
    assert cli.main(["monitor", "date=2019-06-05", "stages.paper.halt_drawdown=0.0001"]) == 2
    assert "paper, 2019-05-28 to 2019-06-05: STOP" in capsys.readouterr().out         # sessions 61 to 67
    assert records.read(own, "stages")["why"][0].startswith("halt: drawdown")


def test_a_new_stretch_takes_nothing_from_an_account_that_may_be_graduated(own, home, month, capsys):
    conf = own.parents[1] / "conf"
    conf.unlink()
    shutil.copytree(home / "conf", conf)
    promised = json.loads((conf / "experiment" / "bands.json").read_text())
    promised["rule"]["horizon"] = SESSIONS - 4                   # the account is in the fourth session of a new stretch
    (conf / "experiment" / "bands.json").write_text(json.dumps(promised))
    assert cli.main(["monitor", "graduate", *EASY]) == 0
    assert "Next:  mahler monitor graduate graduate.to=live_half" in capsys.readouterr().out


def test_money_that_is_taken_out_is_no_drawdown(home, month, market_of):
    tables = records.read_all(home / "data" / "paper", *TABLES)
    days = market_of.chains.sessions[market_of.first:market_of.first + SESSIONS]
    out = paper.table(schema.CASH, {"cash_id": "out", "date": days[30], "kind": "transfer", "amount": -40_000.0, "note": ""})
    before, after = (watched(tables | {"cash": cash}, days[0], days[-1]) for cash in (tables["cash"], out))
    assert after.equity[-1] == pytest.approx(before.equity[-1] - 40_000.0)
    deepest = [next(check for check in halts(seen, committed()["paper"]) if check.name == "drawdown")
               for seen in (before, after)]
    assert deepest[0].verdict is deepest[1].verdict is Verdict.OK and deepest[1].value < 2.0 * deepest[0].value
