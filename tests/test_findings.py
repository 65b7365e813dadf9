"""Studies as tables."""

from __future__ import annotations


import numpy as np

from mahler import findings
from mahler.schema import TRADE
from tests.conftest import PERIOD
from tests.test_pipeline import mahler


class _Ledger:
    """A ledger of which only trades and counts are looked at."""

    def __init__(self, *trades: tuple[str, str, float], dropped: dict[str, int] | None = None) -> None:
        self.trades = {name: np.array([0] * len(trades), TRADE[name]) for name in TRADE.names}
        self.trades["date"] = np.array([day for day, _, _ in trades], "datetime64[D]")
        self.trades["ticker"] = np.array([ticker for _, ticker, _ in trades], object)
        self.trades["side"] = np.array(["put"] * len(trades), object)
        self.trades["pnl"] = np.array([pnl for _, _, pnl in trades], float)
        self.counts = {f"dropped_sessions.{t}": float(n) for t, n in (dropped or {}).items()}


def test_what_sharing_the_limits_cost_and_saved_are_the_trades_that_were_not_made_together() -> None:
    joint = _Ledger(("2019-01-02", "SPY", 50.0), ("2019-01-03", "QQQ", -20.0), dropped={"QQQ": 0, "SPY": 7})
    singles = [_Ledger(("2019-01-02", "SPY", 60.0), ("2019-01-04", "SPY", 30.0)),
               _Ledger(("2019-01-03", "QQQ", -25.0), ("2019-01-07", "QQQ", -90.0), ("2019-01-08", "QQQ", 10.0))]
    total = findings.joint_and_singles(joint, singles)
    assert (total.joint_pnl, total.singles_pnl) == (30.0, -15.0)
    assert (total.missed, total.cost, total.saved) == (3, 40.0, 90.0)
    assert total.dropped == {"QQQ": 0.0, "SPY": 7.0}


def test_a_study_of_one_universe_has_no_joint_run() -> None:
    rows = [{"name": "a", "tags.universe": "SPY"}, {"name": "b", "tags.universe": "SPY"}]
    assert findings.joint_run(rows, lambda row: None) is None


def test_the_words_that_all_names_share_are_left_out_of_a_column() -> None:
    rows = [{"name": f"QQQ+SPY limits={x} period=demo"} for x in ("tight", "loose")]
    assert findings.short_names(rows) == ["limits=tight", "limits=loose"]
    assert findings.short_names(rows[:1]) == ["QQQ+SPY limits=tight period=demo"]


def test_an_undefined_metric_is_a_dash_and_a_reason_that_never_occurred_has_no_column() -> None:
    rows = [{"name": "a", "cagr": 0.01, "trades": 3.0, "candidates": 5.0, "rejected.no_cash": 2.0, "rejected.vetoed": 0.0}]
    assert findings.performance(rows)[0]["Sharpe"] == "-" and findings.performance(rows)[0]["CAGR"] == "1.00%"
    assert findings.rejections(rows) == [{"run": "a", "candidates": "5", "admitted": "3", "no_cash": "2"}]


def test_a_study_of_several_universes_is_compared_from_the_command_line(at_home) -> None:
    done = mahler(at_home, "backtest", "-m", *PERIOD, "classifier=rule", "study=together", "universe=spy,qqq,spy_qqq")
    assert done.returncode == 0, done.stderr
    shown = mahler(at_home, "compare", "study=together")
    assert shown.returncode == 0, shown.stderr
    for words in ("Stress windows", "covid_2020", "The singles added up", "sharing the limits cost", "max_positions"):
        assert words in shown.stdout
    unknown = mahler(at_home, "compare", "study=nothing")
    assert unknown.returncode == 2 and unknown.stderr.count("\n") == 1
