"""Why was there no trade? Answered for any day of a run, from its own artifacts; and the funnel that a run keeps."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mahler import backtesting, explain, figures, ledger as ledgers, metrics, tracking
from mahler.commands import backtest as backtests, explain as command
from mahler.config import Explain
from mahler.ledger import TABLES, Ledger
from mahler.schema import FUNNEL, STAGES, ConfigError, Deferred, Rejection
from mahler.simulate import Breaker
from tests.conftest import PERIOD, default_config, mahler
from tests.ledgers import hand_ledger, table
from tests.markets import Market, Run, random_market, run_market

# Every kind of day: admissions of several lots, shrunk ones, breakers, days without a candidate.
OVERRIDES = [*PERIOD, "universe=spy_qqq", "classifier=rule", "regime=prod", "breaker=production",
             "sizing.fraction=0.08", "limits.max_heat_per_underlying=0.12", "entry.min_credit_to_width=0.065",
             "study=explained"]
REASONS = [reason.name.lower() for reason in Rejection]


@pytest.fixture(scope="module")
def row(synthetic_home: Path) -> dict:
    """A finished run, as a row of tracking.runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAHLER_HOME", str(synthetic_home))
        patch.setattr(backtests, "overrides", lambda: OVERRIDES[2:])
        backtests.run(default_config(*OVERRIDES))
        found, = tracking.runs("explained")
    return found


@pytest.fixture(scope="module")
def ledger(row: dict) -> Ledger:
    return ledgers.read(row["artifacts"])


@pytest.fixture
def said(at_home: Path, row: dict, capsys: pytest.CaptureFixture):
    """`mahler explain` of a date of the run: its lines."""
    def lines(day: object, run: str = "") -> list[str]:
        capsys.readouterr()
        command.run(Explain(run=run or row["run_id"], date=date.fromisoformat(str(day))))
        return capsys.readouterr().out.splitlines()
    return lines


def part(lines: list[str], title: str) -> list[list[str]]:
    """The cells of the rows under a title, which start in the line below the header."""
    at = next(i for i, line in enumerate(lines) if line.startswith(title))
    end = next((i for i in range(at, len(lines)) if not lines[i]), len(lines))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[at + 2:end]]


def of_day(ledger: Ledger, day: np.datetime64) -> tuple[list[tuple], Counter]:
    """The day's candidates as `explain` writes them, trades first, and its rejections by reason."""
    expected = []
    for name in ("trades", "rejections"):
        rows = getattr(ledger, name)
        for i in np.flatnonzero(rows["date"] == day):
            spread = (f"{rows['ticker'][i]} {rows['side'][i][0].upper()} "
                      f"{rows['short_strike'][i]:g}/{rows['long_strike'][i]:g}")
            decided = str(rows["contracts"][i]) if name == "trades" else rows["reason"][i]
            outcome = f"{rows['exit_reason'][i]} {str(rows['exit_date'][i])[5:]}"
            expected.append((spread, str(rows["dte"][i]), decided, outcome, f"{rows['pnl_per_contract'][i]:+,.2f}"))
    return expected, Counter(ledger.rejections["reason"][ledger.rejections["date"] == day].tolist())


def check_day(lines: list[str], ledger: Ledger, day: np.datetime64) -> None:
    """The first line, the candidates, the account and the width of a day are those of the ledger."""
    expected, reasons = of_day(ledger, day)
    sold = len(expected) - sum(reasons.values())
    assert lines[0].startswith(f"{sold} trade{'s' * (sold > 1)} on {day}" if sold else f"No trade on {day}: ")
    counted = dict((reason, int(n)) for n, reason in re.findall(r"(\d+) (\w+)", lines[0].partition("rejected:")[2]))
    assert counted == reasons
    if expected:
        cells = [line for line in part(lines, "Candidates") if len(line) == 8]
        printed = [(c[0], c[1], c[5].split(" ")[0], c[6], c[7]) for c in cells]
        assert sorted(printed) == sorted(expected)
    row = int(np.searchsorted(ledger.account["date"], day))
    account = {cells[0]: cells[-1] for cells in part(lines, "Account")}
    for name, column in (("cash", "cash"), ("equity", "equity"), ("open maximum loss", "open_max_loss")):
        assert account[name] == f"{ledger.account[column][row]:,.2f}"
    assert account["positions"] == str(ledger.account["positions"][row])
    assert max(map(len, lines[1:])) <= 100


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_ten_random_days_are_answered_as_the_ledger_has_them(said, ledger):
    for day in np.random.default_rng(4).choice(ledger.account["date"], 10, replace=False):
        check_day(said(day), ledger, day)


def test_the_first_and_the_last_day_and_a_day_of_every_outcome_are_answered(said, ledger):
    dates, rejections, trades = ledger.account["date"], ledger.rejections, ledger.trades
    days = {dates[0], dates[-1]}
    days |= {rejections["date"][rejections["reason"] == reason][-1] for reason in np.unique(rejections["reason"])}
    days |= {trades["date"][trades["exit_reason"] == reason][-1] for reason in np.unique(trades["exit_reason"])}
    days |= {trades["exit_date"][trades["exit_reason"] == reason][0] for reason in np.unique(trades["exit_reason"])}
    assert len({*rejections["reason"]}) >= 5 and len({*trades["exit_reason"]}) >= 3
    for day in sorted(days):
        check_day(said(day), ledger, day)
    last = said(dates[-1])
    assert ("The run ends today" in " ".join(last)) == bool(ledger.account["positions"][-1])


def test_a_day_without_a_candidate_says_at_which_stage_the_last_one_was_lost(said, ledger):
    funnel = ledger.funnel
    ranked = np.array([funnel["ranked"][funnel["date"] == day].sum() for day in ledger.account["date"]])
    day = ledger.account["date"][np.flatnonzero(ranked == 0)[3]]
    liquid = funnel["liquid"][funnel["date"] == day].sum()
    lines = said(day)
    assert lines[0] == f"No trade on {day}: no candidate: {liquid} liquid spreads, none paid 6.5 % of the width."
    check_day(lines, ledger, day)


def test_positions_and_exits_of_a_day_are_those_of_the_trades(said, ledger):
    trades, account = ledger.trades, ledger.account
    for day in account["date"][account["exits"] > 0][[0, 5, -1]]:
        lines = said(day)
        closed = [c for c in part(lines, "Closed today")]
        mine = (trades["exit_date"] == day) & (trades["exit_reason"] != "end_of_period")
        expected = [(str(trades["date"][i]), trades["exit_reason"][i], f"{trades['pnl'][i]:+,.2f}")
                    for i in np.flatnonzero(mine)]
        assert sorted((c[1], c[5], c[7]) for c in closed) == sorted(expected)
        row = int(np.searchsorted(account["date"], day))
        if account["positions"][row]:
            cells = [c for c in part(lines, "Open at the end") if len(c) == 9]
            assert len(cells) == account["positions"][row]
            marks = -100 * sum(int(c[4]) * float(c[6]) for c in cells)
            assert marks == pytest.approx(account["marks"][row], abs=0.05 * sum(int(c[4]) for c in cells))


def test_a_regime_and_its_multiplier_are_those_of_the_candidates(said, ledger):
    day = ledger.trades["date"][-1]
    market = {cells[0]: cells[-2:] for cells in part(said(day), "Market") if len(cells) == 9}
    for i in np.flatnonzero(ledger.trades["date"] == day):
        assert market[ledger.trades["ticker"][i]] == [ledger.trades["regime"][i], f"{ledger.trades['multiplier'][i]:g}"]


# ---- which run, which day ------------------------------------------------------------------------------------------


def test_a_run_is_named_by_its_id_by_its_beginning_or_as_the_last(said, row, ledger):
    day = ledger.account["date"][100]
    assert said(day) == said(day, row["run_id"][:8]) == said(day, "last")


@pytest.mark.parametrize("day, words", [
    ("2018-03-03", "a Saturday, is no session of the run; the nearest are 2018-03-02 and 2018-03-05"),
    ("2017-08-31", "is before the run, whose first session is 2017-09-01"),
    ("2020-07-01", "is after the run, whose last session is 2020-06-30"),
    ("2018-07-04", "a Wednesday, is no session of the run; the nearest are 2018-07-03 and 2018-07-05")])
def test_a_date_that_is_no_session_is_refused_with_the_nearest(said, day, words):
    with pytest.raises(ConfigError, match=words):
        said(day)


def test_a_session_that_was_dropped_because_a_ticker_lacks_it_is_called_that():
    with pytest.raises(ConfigError, match="not every ticker has chains on it; the nearest are"):
        explain.session(np.datetime64("2018-07-03"), np.array(["2018-07-02", "2018-07-05"], "datetime64[D]"))


def test_an_unknown_and_an_ambiguous_id_are_refused(said):
    with pytest.raises(ConfigError, match="is not the id of a run"):
        said("2018-03-02", "f" * 32)
    with pytest.raises(ConfigError, match="is not the id of a run"):
        said("2018-03-02", "%")
    ids = [tracking.log_run(study="crowd", name=name, signature=name * 64, params={}, tags={"kind": "evaluate"},
                            metrics={}, ledger=hand_ledger([100.0]), config_yaml="", page="")
           for name in "abcdefghijklmnopq"]                              # two of seventeen begin alike
    first = Counter(run_id[0] for run_id in ids).most_common(1)[0][0]
    with pytest.raises(ConfigError, match=f"run='{first}' is the beginning of several ids: {first}.*give more of it"):
        said("2018-03-02", first)
    with pytest.raises(ConfigError, match="is no finished backtest"):
        said("2018-03-02", ids[0])


def test_from_the_command_line_the_answer_is_the_first_line_and_bad_input_is_one(at_home, row, ledger):
    day = ledger.rejections["date"][-1]
    done = mahler(at_home, "explain", f"run={row['run_id']}", f"date={day}")
    assert done.returncode == 0, done.stderr
    check_day(done.stdout.splitlines(), ledger, day)
    assert "SYNTHETIC market" in done.stdout
    refused = mahler(at_home, "explain", "run=1234567e89", "date=2018-03-02")       # eight digits of an id that look like a number
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "'1234567e89'" in refused.stderr


# ---- the same run, or none -----------------------------------------------------------------------------------------


def test_a_run_that_does_not_come_to_its_own_ledger_again_is_refused(row, at_home, ledger):
    pnl = ledger.trades["pnl"].copy()
    pnl[7] += 1.0
    changed = replace(ledger, trades=ledger.trades | {"pnl": pnl})
    with pytest.raises(ConfigError, match="cannot be told again, its code .* changed since: trades row 7 .*: pnl is"):
        command.again(row, changed)
    with pytest.raises(ConfigError, match="its chains have changed since"):
        command.again(row | {"tags.data_digest": "0" * 36}, changed)


def test_a_config_of_another_version_is_refused(row, tmp_path, ledger):
    (tmp_path / "config.yaml").write_text("entry: {side: both}\n")
    with pytest.raises(ConfigError, match="is not one of this version of Mahler"):
        command.again(row | {"artifacts": tmp_path}, ledger)


# ---- the day told again, against the kernel --------------------------------------------------------------------------


def replayed(market: Market, run: Run, ledger: Ledger | None = None) -> list[explain.Day]:
    panel = SimpleNamespace(tickers=market.tickers, dates=market.sessions,
                            vix=np.repeat(market.vix[:, None], len(market.tickers), axis=1))
    return [explain.replay(d, ledger or run.ledger, run.candidates, run.paths, run.exits, panel, market.limits,
                           market.breaker, market.costs) for d in range(len(market.sessions))]


def test_every_day_of_random_markets_told_again_comes_to_what_the_kernel_did():
    met = Counter()
    for seed in range(80):
        market = random_market(seed)
        for day in replayed(market, run_market(market)):
            met.update(d.reason.name.lower() for d in day.decisions)
            met.update(f"shrunk by {d.limit.name.lower()}" for d in day.decisions if d.contracts and d.limit)
    assert {*REASONS} <= set(met)
    assert sum(name.startswith("shrunk") for name in met) == 3


def test_a_ledger_that_says_otherwise_is_found():
    market = random_market(0)
    run = run_market(market)
    assert len(run.ledger.trades["pnl"]) and len(run.ledger.rejections["reason"])
    more = run.ledger.trades | {"contracts": run.ledger.trades["contracts"] + 1}
    with pytest.raises(ValueError, match="told again"):
        replayed(market, run, replace(run.ledger, trades=more))
    other = np.full(len(run.ledger.rejections["reason"]), "no_cash", object)
    with pytest.raises(ValueError, match="told again"):
        replayed(market, run, replace(run.ledger, rejections={**run.ledger.rejections, "reason": other}))


def test_a_limit_that_shrinks_a_candidate_is_named_with_the_room_that_it_left():
    for seed in range(80):
        market = random_market(seed)
        run = run_market(market)
        max_loss = explain.max_loss_per_contract(run.candidates, market.costs)
        for day in replayed(market, run):
            for d in day.decisions:
                if d.contracts and d.limit:
                    assert d.contracts < d.asked and d.contracts == int(d.room / max_loss[d.candidate] + 1e-9)
                elif d.contracts:
                    assert d.contracts == d.asked


# ---- the words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage, words", [
    (0, "no strike 30 to 45 days from expiration"),
    (1, "1,005 strikes in the dte window, none with a |delta| of 0.05 to 0.15"),
    (2, "1,004 short legs in the delta window, none with a strike 5 dollars away"),
    (3, "1,003 spreads, none with two liquid legs"),
    (4, "1,002 liquid spreads, none paid 3 % of the width"),
    (5, "1,001 spreads that pay enough, none with an IV percentile of 0.3 or more"),
    (6, "1,000 spreads past the IV filter, none with a session left to its expiry")])
def test_each_stage_at_which_the_last_spread_can_be_lost_has_its_words(stage, words):
    told = SimpleNamespace(day=0, decisions=[])
    panel = SimpleNamespace(dates=np.array(["2022-03-15"], "datetime64[D]"))
    entry = default_config("entry.min_iv_percentile=0.3").entry
    counted = {name: n for name, n in zip(STAGES, (1005, 1004, 1003, 1002, 1001, 1000))}
    rows = [{"date": "2022-03-15", "ticker": "SPY"} | {name: counted[name] for name in STAGES[:stage]}]
    assert explain.verdict(told, table(FUNNEL, rows), entry, panel) == f"No trade on 2022-03-15: no candidate: {words}."


def verdict(*reasons: Rejection) -> str:
    told = SimpleNamespace(day=0, decisions=[explain.Decision(i, r, int(not r)) for i, r in enumerate(reasons)])
    panel = SimpleNamespace(dates=np.array(["2022-03-15"], "datetime64[D]"))
    return explain.verdict(told, {}, default_config().entry, panel)


def test_a_verdict_counts_the_reasons_the_commonest_first():
    full, again, sold = Rejection.MAX_POSITIONS, Rejection.ALREADY_OPEN, Rejection.ADMITTED
    assert verdict(*[again] * 4, *[full] * 8) == (
        "No trade on 2022-03-15: 12 candidates, all rejected: 8 max_positions, 4 already_open.")
    assert verdict(full) == "No trade on 2022-03-15: 1 candidate, rejected: 1 max_positions."
    assert verdict(sold) == "1 trade on 2022-03-15, of 1 candidate."
    assert verdict(sold, full, sold) == "2 trades on 2022-03-15, of 3 candidates; 1 rejected: 1 max_positions."


def test_a_drawdown_breaker_that_can_never_be_left_is_called_that():
    """Without an open position the equity stands still, and so does the drawdown."""
    off = Breaker(max_day_loss=None, max_week_loss=None, max_drawdown=0.15, max_vix=50.0)
    book = explain.Book(84_000.0, 0.0, 0.0, np.zeros(1), 0.0, 0)
    measured = {Rejection.BREAKER_DAY: 0.0, Rejection.BREAKER_WEEK: 0.0, Rejection.BREAKER_VIX: 83.0}
    stuck = explain.Day(0, book, book, book, [], [], measured | {Rejection.BREAKER_DRAWDOWN: 0.16}, [])
    section = explain._stops(stuck, off)
    assert [row["state"] for row in section.rows] == ["off", "off", "stops admissions", "stops admissions"]
    assert "no trade any more in this run" in section.notes[0]
    assert explain._stops(replace(stuck, losses=measured | {Rejection.BREAKER_DRAWDOWN: 0.14}), off).notes == []
    held = replace(stuck, open=[explain.Position(0, 1, 0.1, 0)])
    assert explain._stops(held, off).notes == []


# ---- the funnel that a run keeps -------------------------------------------------------------------------------------


def test_the_funnel_sums_to_the_metrics_of_the_run(row, ledger):
    funnel = ledger.funnel
    assert len(funnel["date"]) == 2 * row["sessions"]
    for stage in STAGES:
        assert funnel[stage].sum() == row[f"funnel.{stage}"] > 0
    assert funnel["admitted"].sum() == row["trades"]
    for reason in REASONS[1:]:
        assert funnel[reason].sum() == row[f"rejected.{reason}"]


def test_a_row_of_the_funnel_is_a_session_and_a_ticker_and_has_each_candidate_once(ledger):
    funnel = ledger.funnel
    for name, rows in (("admitted", ledger.trades), ("max_positions", ledger.rejections)):
        mine = slice(None) if name == "admitted" else rows["reason"] == name
        counted = Counter(zip(rows["date"][mine].tolist(), rows["ticker"][mine].tolist()))
        told = {(d, t): n for d, t, n in zip(funnel["date"].tolist(), funnel["ticker"].tolist(), funnel[name].tolist())}
        assert {key: n for key, n in told.items() if n} == counted
    np.testing.assert_array_equal(funnel["ranked"], sum(funnel[reason] for reason in REASONS))


def test_a_funnel_that_loses_a_candidate_is_found(ledger):
    for name, words in (("ranked", "funnel row 9 .* candidates, but"), ("max_heat", "funnel row 9 .* candidates, but")):
        column = ledger.funnel[name].copy()
        column[9] += 1
        with pytest.raises(ValueError, match=words):
            ledgers.check(replace(ledger, funnel=ledger.funnel | {name: column}))
    moved = ledger.funnel | {"ranked": ledger.funnel["ranked"] + 1, "no_cash": ledger.funnel["no_cash"] + 1}
    with pytest.raises(ValueError, match="the funnel has .* candidates no_cash, the ledger 0"):
        ledgers.check(replace(ledger, funnel=moved))


def test_two_ledgers_differ_where_the_first_row_and_column_do(ledger):
    assert ledgers.difference(ledger, ledger) is None
    marks = ledger.account["marks"].copy()
    marks[[5, 9]] = np.nan
    gone = replace(ledger, account=ledger.account | {"marks": marks})
    assert ledgers.difference(gone, gone) is None                       # a missing number is one missing number
    assert re.match(r"account row 5 \(.*\): marks is nan, not", ledgers.difference(gone, ledger))
    fewer = replace(ledger, trades={name: column[1:] for name, column in ledger.trades.items()})
    assert ledgers.difference(fewer, ledger).startswith("trades has")


def test_a_run_costs_a_tenth_more_at_most_for_its_funnel_and_a_sweep_that_reads_none_makes_none(at_home, tmp_path,
                                                                                                monkeypatch):
    """Against a run in its cheapest form: everything cached, in a process that has made one."""
    monkeypatch.setattr(backtests, "overrides", lambda: OVERRIDES[2:])
    config = default_config(*OVERRIDES, "study=timed", "force=true")
    prepared = backtesting.prepare(config, *backtesting.market(config))

    def seconds(function: Callable[[], object]) -> float:
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    def funnel() -> float:
        ledger = backtesting.backtest(config, prepared)
        metrics.summary(ledger)
        assert isinstance(ledger.funnel, Deferred) and "_table" not in vars(ledger.funnel)
        rejected = {name: n for name, n in ledger.counts.items() if name.startswith("rejected.")}
        return seconds(lambda: (ledgers._check_funnel(ledger, rejected),
                                ledgers.store.write_table(tmp_path / "funnel.parquet", ledger.funnel),
                                figures._funnel(ledger.funnel, 0.0, 0.0)))

    whole = min(seconds(lambda: backtests.run(config)) for _ in range(4))
    part = min(funnel() for _ in range(8))
    assert part < 0.1 * whole, f"{part:.4f} s of {whole:.4f} s"


def test_every_table_of_a_ledger_is_a_file(row):
    for name in TABLES:
        assert (row["artifacts"] / f"{name}.parquet").is_file()
