"""Studies as tables."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from mahler import backtesting, findings, home, ledger as ledgers, report_figures, tracking
from mahler.schema import TRADE
from tests.conftest import PERIOD, default_config, mahler


class _Ledger:
    """A ledger of which only trades, account and counts are looked at: a session for each trade's P&L."""

    def __init__(self, *trades: tuple[str, str, float], dropped: dict[str, int] | None = None) -> None:
        self.trades = {name: np.array([0] * len(trades), TRADE[name]) for name in TRADE.names}
        self.trades["date"] = np.array([day for day, _, _ in trades], "datetime64[D]")
        self.trades["ticker"] = np.array([ticker for _, ticker, _ in trades], object)
        self.trades["side"] = np.array(["put"] * len(trades), object)
        self.trades["pnl"] = np.array([pnl for _, _, pnl in trades], float)
        self.counts = {f"dropped_sessions.{t}": float(n) for t, n in (dropped or {}).items()}
        self.initial_equity = 1000.0
        self.account = {"date": self.trades["date"], "equity": 1000.0 + np.cumsum(self.trades["pnl"])}


def _joint() -> findings.Shared:
    joint = _Ledger(("2019-01-02", "SPY", 50.0), ("2019-01-03", "QQQ", -20.0), ("2019-01-04", "SPY", 7.0),
                    dropped={"QQQ": 0, "SPY": 7})
    singles = [_Ledger(("2019-01-02", "SPY", 60.0), ("2019-01-05", "SPY", 30.0)),
               _Ledger(("2019-01-03", "QQQ", -25.0), ("2019-01-07", "QQQ", -90.0), ("2019-01-08", "QQQ", 10.0))]
    return findings.joint_and_singles(joint, singles)


def test_what_sharing_the_limits_cost_and_saved_are_the_trades_that_were_not_made_together() -> None:
    total = _joint()
    assert (total.joint_pnl, total.singles_pnl) == (37.0, -15.0)
    assert (total.missed, total.cost, total.saved) == ((2, 1), 40.0, 90.0)
    assert (total.both, total.resized) == (2, -5.0)              # 50 for 60, and -20 for -25
    assert (total.extra, total.added) == (1, 7.0)                # of a day on which the single had no room
    assert total.dropped == {"QQQ": 0.0, "SPY": 7.0}


def test_the_steps_from_the_singles_to_the_joint_run_add_up() -> None:
    total = _joint()
    first, *steps, last = findings.bridge(total)
    assert first[2] + sum(amount for _, _, amount in steps) == last[2] == total.joint_pnl
    assert total.singles_account["pnl"].tolist() == [60.0, 35.0, 35.0]       # on the sessions of the joint run


def _row(universe: str, run_id: str, **params: str) -> dict:
    return {"name": f"{universe} control", "run_id": run_id, "started": run_id, "order": run_id, "tags.universe": universe,
            "tags.data_source": "s", "params.study": "x", **{f"params.{key}": value for key, value in params.items()}}


def test_a_joint_run_is_set_beside_its_singles_whatever_else_is_in_the_study() -> None:
    ledgers = {}

    def read(row):
        return ledgers.setdefault(row["run_id"], _Ledger(("2019-01-02", row["run_id"], 1.0)))

    study = [_row("QQQ", "1", limits="a"), _row("SPY", "2", limits="a"), _row("QQQ,SPY", "3", limits="a")]
    assert [name for name, _ in findings.shared(study, read)] == ["QQQ,SPY control"]
    more = [*study, _row("IWM", "4", limits="a"), _row("SPY", "5", limits="b"), _row("QQQ,SPY", "6", limits="b"),
            _row("QQQ", "7", limits="a")]
    assert [name for name, _ in findings.shared(more, read)] == ["QQQ,SPY control"]
    assert "6" not in ledgers and "7" in ledgers, "other limits are another portfolio, and the newest of equals counts"
    assert findings.shared(study[:2], read) == []


def test_of_runs_of_one_name_the_newest_is_compared() -> None:
    rows = [_row("QQQ", "2"), _row("SPY", "3"), _row("QQQ", "1")]
    assert [row["run_id"] for row in findings.newest(rows)] == ["2", "3"]


def test_the_words_that_all_names_share_are_left_out_of_a_column() -> None:
    rows = [{"name": f"QQQ+SPY limits={x} period=demo"} for x in ("tight", "loose")]
    assert findings.short_names(rows) == ["limits=tight", "limits=loose"]
    assert findings.short_names(rows[:1]) == ["QQQ+SPY limits=tight period=demo"]


def test_an_undefined_metric_is_a_dash_and_a_reason_that_never_occurred_has_no_column() -> None:
    rows = [{"name": "a", "cagr": 0.01, "trades": 3.0, "candidates": 5.0, "rejected.no_cash": 2.0, "rejected.vetoed": 0.0}]
    assert findings.performance(rows)[0]["Sharpe"] == "-" and findings.performance(rows)[0]["CAGR"] == "1.00%"
    assert findings.rejections(rows) == [{"run": "a", "candidates": "5", "admitted": "3", "no_cash": "2"}]


@pytest.mark.parametrize(("mid", "natural", "said"), [
    (-1.0, -2.0, "< mid"), (2.0, 1.0, "> natural"), (0.0, -1.0, "-"), (-1.0, 1.0, "-")])
def test_a_book_without_a_break_even_travel_says_on_which_side_of_the_quote_it_would_lie(mid, natural, said) -> None:
    row = {"name": "a", "pnl_at_mid": mid, "pnl_at_natural": natural}
    assert findings.performance([row])[0]["b/e travel"] == findings.break_even(row, ".3f") == said
    assert findings.break_even(row | {"break_even_travel": 0.7312}, ".3f") == "0.731"
    assert findings.break_even({"name": "a"}, ".3f") == "-"


def test_the_limits_of_many_runs_are_drawn_in_the_order_of_the_runs() -> None:
    """A set of colours has another order in each process, and the last line drawn is the one that is seen."""
    dates, level = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]"), np.full(60, 0.08)
    shades = [f"#{k:02}{k:02}ff" for k in range(20)]
    svg = report_figures.heat([(shade, dates, level, shade, 0.10) for shade in shades])
    assert re.findall(r"dasharray: 3.33[^>]*stroke: (#\w{6})", svg) == shades


def test_a_figure_says_which_limits_lie_above_its_axis_and_how_many_runs_are_grey() -> None:
    dates = np.arange("2019-01-01", "2019-06-01", dtype="datetime64[D]")
    level = np.full(len(dates), 0.08)
    near, far = (report_figures.heat([("a", dates, level, "#112233", most)]) for most in (0.10, 0.20))
    assert "above the axis: 20%" in far and "above the axis" not in near
    with warnings.catch_warnings():
        warnings.simplefilter("error")                           # "axes sizes collapsed to zero"
        long = "IWM+QQQ+SPY entry.widths=[1,2,5,10], entry.per_day=50, breaker=production, regime=prod, period=full" * 2
        report_figures.rejections([long], ["traded"], np.array([[1.0]]))
        report_figures.heat([(long, dates, level, "#112233", 0.10)])
        report_figures.stress(["covid_2020"], {long: np.array([0.01])}, {long: "#112233"}, None)
    names = [f"run {k}" for k in range(10)]
    shade = report_figures.colours(names, names[0], names)
    svg = report_figures.stress(["covid_2020"], {name: np.array([0.01]) for name in names}, shade, None)
    assert f"{list(shade.values()).count(report_figures.OTHERS)} others" in svg and ">run 9<" not in svg


def test_what_runs_warn_of_is_said_with_their_names() -> None:
    rows = [{"name": "a", "tags.stopped": "shut"}, {"name": "b"}, {"name": "c", "tags.rounding": "erased"}]
    assert findings.warnings(rows) == ["a: shut", "c: erased"]


def test_a_study_of_several_universes_is_compared_and_reported_from_the_command_line(at_home) -> None:
    done = mahler(at_home, "backtest", "-m", *PERIOD, "classifier=rule", "study=together", "universe=spy,qqq,spy_qqq")
    assert done.returncode == 0, done.stderr
    extra = mahler(at_home, "backtest", *PERIOD, "classifier=rule", "study=together", "universe=spy", "regime=prod",
                   "sizing=fixed_contracts")
    assert "rounding erases" in extra.stdout and "a larger sizing.contracts would tell them apart" in extra.stdout
    shown = mahler(at_home, "compare", "study=together")
    assert shown.returncode == 0, shown.stderr
    for words in ("Stress windows: return, %", "covid", "the singles, added up", "losers that there was no room for",
                  "already", "rounding erases the multipliers"):
        assert words in shown.stdout
    page = Path(re.search(r"Figures: (.*)", shown.stdout)[1]).read_text()
    assert page.count("<img") == 5 and "SYNTHETIC MARKET: together" in page and "rounding erases" in page
    unknown = mahler(at_home, "compare", "study=nothing")
    assert unknown.returncode == 2 and unknown.stderr.count("\n") == 1


def test_the_joint_run_of_a_study_is_the_singles_and_its_steps_to_the_cent(at_home) -> None:
    rows = findings.newest(tracking.runs("together"))
    (_, one), = findings.shared(rows, lambda row: ledgers.read(row["artifacts"]))
    first, *steps, last = findings.bridge(one)
    assert first[2] + sum(amount for _, _, amount in steps) == pytest.approx(last[2], abs=0.005)
    by = {row["tags.universe"]: ledgers.read(row["artifacts"]).account["equity"] for row in rows
          if row["params.regime.multipliers"] == "[1.0, 1.0, 1.0, 1.0]"}
    assert last[2] == pytest.approx(by["QQQ,SPY"][-1] - 100_000.0, abs=0.005)
    assert first[2] == pytest.approx(by["QQQ"][-1] + by["SPY"][-1] - 200_000.0, abs=0.01)
    assert one.joint_account["pnl"][-1] == pytest.approx(last[2], abs=0.005)
    assert one.singles_account["pnl"][-1] == pytest.approx(first[2], abs=0.01)


def test_a_study_with_one_run_of_a_universe_is_reported_without_a_verdict(at_home) -> None:
    """The study of the test above: three universes, and one run more of one of them."""
    done = mahler(at_home, "report", "study=together")
    assert done.returncode == 0 and "nothing to judge" in done.stdout, done.stderr
    folder = at_home / "experiments" / "together"
    readme = (folder / "README.md").read_text()
    drawn = set(re.findall(r"\]\((\S*?\.svg)\)", readme))
    assert drawn == {path.name for path in folder.glob("*.svg")} and len(drawn) == 5
    assert readme.startswith("# SYNTHETIC MARKET") and "sessions dropped because another ticker lacks them" in readme


@pytest.mark.parametrize("option", ["tight", "moderate", "loose", "wide_open", "single_only"])
def test_heat_binds_in_every_option_of_the_limits_grid_at_its_larger_size_but_single_only(at_home, option) -> None:
    """A study named limits that never tests heat would be a poor one; rejected, or shrunk to what is left."""
    study = yaml.safe_load((home.conf_dir() / "experiment/limits_grid.yaml").read_text())
    fractions = str(study["hydra"]["sweeper"]["params"]["sizing.fraction"]).split(",")
    bound = {}
    for fraction in fractions:
        config = default_config(*PERIOD, "universe=spy_qqq", "classifier=rule", f"limits={option}",
                                f"sizing.fraction={fraction}")
        ledger = backtesting.backtest(config, backtesting.prepare(config, *backtesting.market(config)))
        size = ledger.trades["contracts"] * (100.0 * ledger.trades["max_loss"] + config.costs.round_trip)
        row = np.searchsorted(ledger.account["date"], ledger.trades["date"])
        shrunk = size + config.costs.round_trip + 500.0 < float(fraction) * ledger.account["equity"][row]
        rejected = sum(n for reason, n in ledger.counts.items() if reason.startswith("rejected.max_heat"))
        bound[fraction] = rejected + shrunk.sum()
    assert bound[fractions[0]] == 0 and (bound[fractions[-1]] > 0) == (option != "single_only"), bound
