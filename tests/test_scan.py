"""A scan decides what the backtest decides: day by day, from a paper ledger that was filled as modelled."""

from dataclasses import replace
from datetime import date
from functools import partial
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest

from mahler import schema, stages
from mahler.backtesting import backtest, book, market, prepare, walked
from mahler.config import Period
from mahler.llm import asking, loop
from mahler.llm.decided import recorded
from mahler.llm.layer import Judged
from mahler.llm.records import ENTRY
from mahler.monitoring.checks import Verdict, approvals
from mahler.monitoring.paper import TABLES, watched
from mahler.monitoring.replay import parity
from mahler.paper import account as accounts, modelled, records
from mahler.scan import record, scan
from mahler.schema import ConfigError
from tests import paper
from tests.conftest import default_config
from tests.test_stage import committed
from tests.watching import RULE

PERIOD = ["period.start=2020-01-02", "period.end=2020-05-01"]     # a quiet January, then a March
TIGHT = ["classifier=rule", "regime=prod", "limits.max_positions=5", "limits.max_heat=0.085", "sizing.fraction=0.03",
         "limits.max_heat_per_underlying=0.045", "breaker.max_day_loss=0.004", "breaker.max_week_loss=0.006",
         "breaker.max_drawdown=0.05", "breaker.max_vix=55"]


class Desk:
    """A config and a paper ledger: scans a day, and fills its tickets as modelled."""

    def __init__(self, folder, *overrides, size=1.0, decide=None):
        self.folder, self.size, self.decide = folder, size, decide
        self.config = default_config(*PERIOD, *overrides)
        self.chains, series = market(self.config)
        self.prepared = prepare(self.config, self.chains, series)
        self.sized = stages.sized(self.prepared, self.config.regime, self.config.sizing)

    @property
    def days(self):
        return range(self.prepared.first_day, len(self.chains.sessions))

    def account(self):
        return paper.account(started=self.chains.sessions[self.prepared.first_day],
                             initial_equity=self.config.initial_equity, commission=self.config.costs.commission,
                             assignment_fee=self.config.costs.assignment_fee)

    def scan(self, day, prepared=None, sized=None):
        tables = records.read_all(self.folder, *accounts.OF_AN_ACCOUNT)
        if not len(tables["account"]["started"]):
            tables["account"] = self.account()
        c = self.config
        return scan(day, prepared or self.prepared, sized or self.sized, tables, rule=c.exit, fill=c.fill,
                    limits=c.limits, breaker=c.breaker, costs=c.costs, stage="paper",
                    size_multiplier=self.size, config="c0ffee", decide=self.decide)

    def record(self, found):
        return record(self.folder, found, self.account(), {
            "data_digest": "d", "code_version": "v", "config": "c0ffee", "stage": "paper",
            "recorded_at": np.datetime64("2020-01-01T00:00:00")})

    def fill(self, found, fill=None):
        records.write(self.folder, {"fills": modelled.fills(
            found.tickets, found.quotes, fill, commission=self.config.costs.commission,
            assignment_fee=self.config.costs.assignment_fee)})

    def trade(self, days):
        scans = []
        for day in days:
            scans.append(self.scan(day))
            self.record(scans[-1])
            self.fill(scans[-1])
        return scans


@pytest.fixture(scope="module")
def traded(synthetic_home, tmp_path_factory):
    """A desk that has scanned and filled every session of the period, its scans, and the backtest of that period."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAHLER_HOME", str(synthetic_home))
        desk = Desk(tmp_path_factory.mktemp("paper"), *TIGHT)
        return desk, desk.trade(desk.days), backtest(desk.config, desk.prepared)


LEGS = ("ticker", "side", "expiration", "short_strike", "long_strike")


def opens(table):
    """What was opened, when, and how many: of tickets or of trades."""
    rows = table["action"] == "open" if "action" in table else slice(None)
    return sorted(zip(table["date"][rows].astype(str), table["contracts"][rows].tolist(), *(
        table[name][rows].tolist() for name in LEGS), strict=True))


def test_a_paper_ledger_of_scans_is_the_backtest(traded):
    desk, _, ledger = traded
    tickets, exits = records.read(desk.folder, "tickets"), records.read(desk.folder, "exits")
    opened, trades = tickets["action"] == "open", ledger.trades
    assert opens(tickets) == opens(trades) and len(trades["date"]) > 30

    closed = trades["exit_reason"] != "end_of_period"
    name_of = dict(zip(zip(tickets["date"][opened].astype(str), *(tickets[name][opened].tolist() for name in LEGS)),
                       tickets["ticket_id"][opened].tolist()))
    expected = {name_of[key]: row for key, *row in zip(
        list(zip(trades["date"][closed].astype(str), *(trades[name][closed].tolist() for name in LEGS))),
        trades["exit_date"][closed].astype(str), trades["exit_reason"][closed], trades["pnl"][closed])}
    got = dict(zip(exits["position"].tolist(), zip(exits["date"].astype(str), exits["reason"].tolist(), exits["pnl"])))
    assert got.keys() == expected.keys()
    for name, (day, reason, pnl) in expected.items():
        assert got[name][:2] == (day, reason)
        assert got[name][2] == pytest.approx(pnl, abs=1e-6)
    assert {"profit_target", "stop_loss"} <= set(exits["reason"].tolist()) and (exits["pnl"] < 0).sum() > 3


def test_its_account_is_that_of_the_backtest(traded):
    desk, scans, ledger = traded
    history = accounts.load(desk.folder).history
    rows = np.searchsorted(ledger.account["date"], history["date"])
    for name in ("cash", "marks", "equity", "open_max_loss", "heat", "positions", "entries"):
        ours, theirs = history[name][:-1], ledger.account[name][rows][:-1]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-6, err_msg=name)
    for found, row in zip(scans[:-1], range(len(scans) - 1), strict=True):
        assert found.after.equity == pytest.approx(ledger.account["equity"][row], abs=1e-6)
        assert found.after.open_max_loss == pytest.approx(ledger.account["open_max_loss"][row], abs=1e-6)
        assert found.after.positions == ledger.account["positions"][row]


def test_its_rejections_and_its_funnel_are_those_of_the_backtest(traded):
    desk, _, ledger = traded
    scanned, funnels = records.read(desk.folder, "scanned"), records.read(desk.folder, "funnels")
    for reason in set(ledger.rejections["reason"].tolist()):
        assert (scanned["reason"] == reason).sum() == (ledger.rejections["reason"] == reason).sum(), reason
    reasons = set(scanned["reason"].tolist())
    assert {"already_open", "max_positions", "max_heat", "max_heat_per_underlying"} <= reasons
    assert sum(reason.startswith("breaker") for reason in reasons) >= 2
    order = np.lexsort((ledger.funnel["ticker"].astype(str), ledger.funnel["date"]))
    for name in schema.FUNNEL.names:
        assert funnels[name].tolist() == ledger.funnel[name][order].tolist(), name


@pytest.mark.parametrize("ago", [1, 30, 61])
def test_a_chain_that_ends_today_says_the_same_as_one_that_goes_on(traded, at_home, ago):
    desk, scans, _ = traded
    day = len(desk.chains.sessions) - 1 - ago
    today = desk.chains.sessions[day].item()
    config = replace(desk.config, period=Period(date(2020, 1, 2), today))
    prepared = prepare(replace(config, period=Period(today, today.replace(year=2021))), *market(config))
    found = desk.scan(day, prepared, stages.sized(prepared, config.regime, config.sizing))
    for name in ("tickets", "quotes", "scanned", "funnel"):
        for column, values in getattr(found, name).items():
            np.testing.assert_array_equal(values, getattr(scans[day - desk.days[0]], name)[column], err_msg=column)


# ---- with an LLM layer -----------------------------------------------------------------------------------------------

def of_three_one_is_rejected(asked):
    """Decides each trade always alike, by what is known of it at entry; caps some, and comes to no decision on others."""
    draws = np.array([crc32(repr([trade[name] for name in ENTRY]).encode()) % 30 for trade in asked])
    return asking.blank(len(asked)) | {"approve": draws >= 10, "contracts": np.where(draws >= 10, draws % 4, 0).astype(np.int32),
                                       "status": np.where(draws == 29, "failed", "decision").astype(object)}


@pytest.fixture(scope="module")
def layered(synthetic_home, tmp_path_factory):
    """A desk that has traded the period with a layer, its scans, and the loop of the backtest with the same decisions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAHLER_HOME", str(synthetic_home))
        desk = Desk(tmp_path_factory.mktemp("layered"), *TIGHT, decide=of_three_one_is_rejected)
        of_backtest = book(desk.config, desk.prepared)
        ended = loop.judge(of_backtest.candidates, partial(walked, desk.config, of_backtest), of_three_one_is_rejected)
        return desk, desk.trade(desk.days), ended, of_backtest


def test_a_paper_ledger_of_scans_with_a_layer_is_the_loop_of_the_backtest(layered, traded):
    desk, scans, ended, _ = layered
    tickets = records.read(desk.folder, "tickets")
    assert opens(tickets) == opens(ended.ledger.trades) != opens(traded[2].trades) and len(opens(tickets)) > 20
    assert scans[-2].after.equity == pytest.approx(ended.ledger.account["equity"][-2], abs=1e-6)


def test_every_ticket_was_approved_and_every_veto_is_told_as_one(layered):
    desk, scans, _, _ = layered
    decisions, scanned, tickets = (records.read(desk.folder, name) for name in ("decisions", "scanned", "tickets"))
    of = {key: row for row, key in enumerate(zip(*(decisions[name].tolist() for name in records.CANDIDATE)))}
    reason = dict(zip(zip(*(scanned[name].tolist() for name in records.CANDIDATE)), scanned["reason"].tolist()))
    for key, row in of.items():
        assert decisions["approve"][row] or reason[key] == "vetoed"
    opened = np.flatnonzero(tickets["action"] == "open")
    for row in opened:
        said = of[tuple(tickets[name].tolist()[row] for name in records.CANDIDATE)]
        cap = decisions["contracts"][said]
        assert decisions["approve"][said] and (cap == 0 or tickets["contracts"][row] <= cap)
    assert sum(found.funnel["vetoed"].sum() for found in scans) == (~decisions["approve"]).sum() > 10


def test_what_came_to_no_decision_takes_the_default_and_is_noted(layered):
    _, scans, _, _ = layered
    found = next(found for found in scans if (found.decisions["status"] == "failed").any())
    assert any("the model came to no decision (failed); it is approved, as llm.on_missing says." in note for note in found.notes)


def test_what_was_decided_and_recorded_is_not_asked_again(layered, monkeypatch):
    desk, scans, _, _ = layered

    def nobody(asked):
        raise AssertionError("asked again")

    k = next(k for k, found in enumerate(scans) if not found.decisions["approve"].all() and len(found.tickets["date"]))
    monkeypatch.setattr(desk, "decide", recorded(records.read(desk.folder, "decisions"), nobody))
    for table in ("tickets", "decisions", "scanned"):
        for name, column in getattr(desk.scan(desk.days[k]), table).items():
            np.testing.assert_array_equal(column, getattr(scans[k], table)[name])


def test_monitoring_replays_what_a_layer_decided_and_asks_nobody(layered):
    desk, scans, _, _ = layered
    c, tables = desk.config, records.read_all(desk.folder, *TABLES)
    scanner = partial(scan, prepared=desk.prepared, sized=desk.sized, rule=c.exit, fill=c.fill, limits=c.limits,
                      breaker=c.breaker, costs=c.costs, config="")
    sessions = np.array([found.date for found in scans])[:40]
    same = parity(scanner, desk.chains.sessions, tables, committed(), sessions)
    assert (same.sessions, same.agreed) == (40, 40), same.differences[:3]
    lost = parity(scanner, desk.chains.sessions, tables | {"decisions": schema.empty(schema.DECIDED)}, committed(), sessions)
    assert lost.agreed < 40


def test_the_share_that_is_promised_is_counted_as_monitoring_counts_it(layered):
    desk, scans, ended, of_backtest = layered
    promised = Judged(of_backtest, ended.rows, ended.decisions).approved()
    by_session = [found.decisions["approve"].mean() for found in scans if len(found.decisions["approve"])]
    assert promised == pytest.approx(np.mean(by_session), abs=0.05)
    seen = watched(records.read_all(desk.folder, *TABLES), scans[0].date, scans[-1].date)
    for share, verdict in ((promised, Verdict.OK), (0.2, Verdict.WATCH), (1.0, Verdict.WATCH)):
        check, = approvals(seen, SimpleNamespace(approved=share, rule=RULE))
        assert check.verdict is verdict and check.value == pytest.approx(np.mean(by_session))


# ---- what is asked for of one day ------------------------------------------------------------------------------------

@pytest.fixture
def desk(at_home, tmp_path):
    """A desk of the default limits on the first days of the period, with nothing recorded."""
    return Desk(tmp_path, "classifier=rule")


def with_candidates(desk):
    return next(day for day in desk.days if desk.scan(day).after.positions)


def test_half_the_size_is_half_the_contracts_rounded_down(desk):
    day = with_candidates(desk)
    whole = desk.scan(day).tickets
    desk.size = 0.5
    half = desk.scan(day).tickets
    assert half["ticket_id"].tolist() == whole["ticket_id"].tolist()
    loss, equity = whole["max_loss"], desk.config.initial_equity
    assert half["contracts"][0] == np.floor(0.5 * 0.02 * equity / loss[0]) < whole["contracts"][0]
    assert (half["contracts"] < whole["contracts"]).all() and (half["size_multiplier"] == 0.5).all()


def test_half_of_one_fixed_lot_is_too_small_and_no_veto(at_home, tmp_path):
    desk = Desk(tmp_path, "classifier=rule", "sizing=fixed_contracts", "sizing.contracts=1", size=0.5)
    day = next(day for day in desk.days if len(desk.scan(day).scanned["date"]))
    assert set(desk.scan(day).scanned["reason"].tolist()) == {"size_zero"}


def test_a_day_without_a_candidate_says_where_they_were_lost(at_home, tmp_path):
    desk = Desk(tmp_path, "classifier=rule", "entry.min_credit_to_width=0.9")
    found = desk.scan(desk.days[0])
    assert not len(found.tickets["date"]) and not len(found.scanned["date"])
    assert found.funnel["liquid"].sum() > 0 == found.funnel["paid_enough"].sum()
    assert found.before == found.after


def test_what_is_open_is_not_opened_again(traded):
    desk, scans, _ = traded
    found = next(found for found in scans if "already_open" in found.scanned["reason"].tolist())
    again = np.flatnonzero(found.scanned["reason"] == "already_open")
    held = accounts.load(desk.folder, found.date).positions
    legs = set(zip(*(held[name].tolist() for name in LEGS)))
    assert {tuple(found.scanned[name].tolist()[k] for name in LEGS) for k in again} <= legs


def test_a_scan_is_recorded_once_however_often_it_is_made(desk):
    day = with_candidates(desk)
    assert desk.record(desk.scan(day)) is True
    desk.fill(desk.scan(day))
    before = {name: records.read(desk.folder, name) for name in records.TABLES}
    assert desk.record(desk.scan(day)) is False                 # the fills of the day itself change nothing
    for name, table in before.items():
        for column, values in records.read(desk.folder, name).items():
            np.testing.assert_array_equal(values, table[column])


def test_a_recorded_day_is_not_told_otherwise_afterwards(desk):
    day = with_candidates(desk)
    desk.record(desk.scan(day))
    desk.size = 0.5
    with pytest.raises(ConfigError, match="is recorded, .* contracts at .*, and now comes to .* have changed since"):
        desk.record(desk.scan(day))
    desk.size = 1.0
    with pytest.raises(ConfigError, match="would be written with hindsight"):
        desk.record(desk.scan(day - 1))


def test_an_open_that_was_not_filled_is_no_position_and_is_noted(desk):
    day = with_candidates(desk)
    found = desk.scan(day)
    desk.record(found)
    again = desk.scan(day + 1)
    assert again.before.positions == 0
    assert [note for note in again.notes if f"{found.tickets['ticket_id'][0]}: 0 of" in note]


def test_a_close_that_was_not_filled_is_due_the_next_day_at_its_price(traded):
    desk, scans, _ = traded
    k, found = next((k, found) for k, found in enumerate(scans[:-1])
                    if (found.tickets["reason"] == "stop_loss").any())
    tables = records.read_all(desk.folder, *accounts.OF_AN_ACCOUNT)
    stopped = found.tickets["ticket_id"][found.tickets["reason"] == "stop_loss"][0]
    keep = tables["fills"]["ticket_id"] != stopped
    tables["fills"] = {name: column[keep] for name, column in tables["fills"].items()}
    c = desk.config
    late = scan(desk.days[0] + k + 1, desk.prepared, desk.sized, tables, rule=c.exit, fill=c.fill, limits=c.limits,
                breaker=c.breaker, costs=c.costs, stage="paper", size_multiplier=1.0, config="c0ffee")
    position = found.tickets["position"][found.tickets["ticket_id"] == stopped][0]
    [row] = np.flatnonzero((late.tickets["position"] == position) & (late.tickets["action"] == "close"))
    assert late.tickets["reason"][row] == "stop_loss"
    mark = late.marks["mid"][(late.marks["position"] == position) & (late.marks["date"] == late.date)]
    assert late.tickets["mid"][row] == mark[0] and late.tickets["fill"][row] > mark[0]


def test_a_position_that_expired_and_is_still_open_is_named(desk):
    day = with_candidates(desk)
    found = desk.scan(day)
    desk.record(found)
    desk.fill(found)
    expiry = found.tickets["expiration"].max()
    later = int(np.searchsorted(desk.chains.sessions, expiry)) + 1
    desk.config.exit.profit_target, desk.config.exit.stop_loss, desk.config.exit.exit_dte = None, None, 0
    with pytest.raises(ConfigError, match="expired on .* and is open in the paper ledger: import its expiration"):
        desk.scan(later)


def test_a_position_of_another_universe_is_named(desk, at_home, tmp_path):
    day = with_candidates(desk)
    found = desk.scan(day)
    desk.record(found)
    desk.fill(found)
    ticker = found.tickets["ticker"][0]
    other = Desk(tmp_path, "classifier=rule", f"universe={'spy' if ticker == 'QQQ' else 'qqq'}")
    with pytest.raises(ConfigError, match=f"is of {ticker}, and the production config trades"):
        other.scan(int(np.searchsorted(other.chains.sessions, found.date)) + 1)


def test_marks_that_were_not_recorded_come_from_the_chains(traded):
    desk, scans, _ = traded
    k = next(k for k, found in enumerate(scans) if k > 40 and found.before.positions > 2)
    tables = records.read_all(desk.folder, *accounts.OF_AN_ACCOUNT)
    tables["marks"] = schema.empty(schema.MARK)
    c = desk.config
    found = scan(desk.days[0] + k, desk.prepared, desk.sized, tables, rule=c.exit, fill=c.fill, limits=c.limits,
                 breaker=c.breaker, costs=c.costs, stage="paper", size_multiplier=1.0, config="c0ffee")
    assert found.before == scans[k].before
    for name, column in found.tickets.items():
        np.testing.assert_array_equal(column, scans[k].tickets[name])
