"""Metrics: against numbers done by hand and formulas done twice, and absent where they are undefined."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mahler import metrics
from mahler.data import calendar
from mahler.ledger import Ledger
from mahler.schema import Rejection
from tests.ledgers import hand_ledger, random_ledger


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return random_ledger(np.random.default_rng(3), n_days=2600, n_trades=700, n_rejections=200)


@pytest.fixture(scope="module")
def summary(ledger) -> dict[str, float]:
    return metrics.summary(ledger)


def trade(pnl: float, **columns) -> dict:
    """A trade of one contract and 400 dollars of maximum loss."""
    return {"pnl": pnl, "pnl_per_contract": pnl, "exit_reason": "profit_target", "ticker": "SPY", "side": "put",
            "regime": "none", "contracts": 1, "multiplier": 0.75, "max_loss": 4.0, "hold_days": 10,
            "date": np.datetime64("2019-01-02"), "exit_date": np.datetime64("2019-01-12")} | columns


# ---- the account, by hand --------------------------------------------------------------------------------------------

def test_the_first_return_is_against_the_initial_equity():
    np.testing.assert_allclose(metrics.simple_returns(np.array([110.0, 99.0]), 100.0), [0.10, -0.10])


def test_cagr_compounds_the_growth_over_the_sessions_of_the_account():
    assert metrics.cagr(np.full(504, 121.0), 100.0) == pytest.approx(0.10)          # 21 % in two years
    assert metrics.cagr(np.full(126, 110.0), 100.0) == pytest.approx(0.21)          # 10 % in half a year
    assert metrics.cagr(np.array([2000.0]), 100.0) == np.inf                        # 20-fold in a day: 20^252, no float


def test_sharpe_and_sortino_by_hand():
    returns = np.array([0.02, -0.01, 0.03, 0.00])
    assert metrics.sharpe(returns, 0.0) == pytest.approx(0.01 / np.sqrt(0.001 / 3) * np.sqrt(252))
    # One day of four below zero, 0.01 below: the mean of squares is over all four.
    assert metrics.sortino(returns, 0.0) == pytest.approx(0.01 / np.sqrt(0.0001 / 4) * np.sqrt(252))


def test_the_risk_free_rate_is_annual_and_compounds_over_252_sessions():
    returns = np.array([0.02, -0.01, 0.03, 0.00])
    daily = 1.05 ** (1 / 252) - 1
    assert metrics.sharpe(returns, 0.05) == pytest.approx(metrics.sharpe(returns - daily, 0.0))
    assert metrics.sortino(returns, 0.05) == pytest.approx(metrics.sortino(returns - daily, 0.0))


def days(n: int) -> np.ndarray:
    return np.datetime64("2020-01-01") + np.arange(n)


def test_the_deepest_drawdown_runs_from_its_peak_to_its_recovery():
    equity = np.array([100.0, 120.0, 120.0, 90.0, 110.0, 120.0, 60.0 * 2])
    drawdown = metrics.max_drawdown(equity, 100.0, days(7))
    assert drawdown == metrics.Drawdown(0.25, days(7)[2], days(7)[3], days(7)[5], 3)


def test_a_drawdown_that_never_recovers_lasts_to_the_end_of_the_period():
    drawdown = metrics.max_drawdown(np.array([100.0, 80.0, 90.0, 95.0]), 100.0, days(4))
    assert (drawdown.depth, drawdown.trough, drawdown.days) == (pytest.approx(0.2), days(4)[1], 3)
    assert np.isnat(drawdown.recovery)


def test_a_loss_on_the_first_day_is_a_drawdown_from_the_initial_equity():
    drawdown = metrics.max_drawdown(np.array([95.0, 101.0]), 100.0, days(2))
    assert (drawdown.depth, drawdown.start, drawdown.days) == (pytest.approx(0.05), days(2)[0], 1)


def test_drawdown_days_are_calendar_days():
    ledger = hand_ledger([100.0, 90.0, 100.0], start="2019-01-03")       # Thursday, Friday, Monday
    assert metrics.summary(ledger)["max_drawdown_days"] == 4


def test_expected_shortfall_is_the_mean_of_the_worst_twentieth_of_days():
    returns = np.r_[np.full(38, 0.001), -0.04, -0.02]
    assert metrics.expected_shortfall(returns, 0.05) == pytest.approx(-0.03)
    assert np.isnan(metrics.expected_shortfall(returns[:19], 0.05))      # a twentieth of 19 days is less than a day


# ---- the account, done twice -----------------------------------------------------------------------------------------

def test_the_account_metrics_equal_pandas_and_scipy(ledger, summary):
    equity = pd.Series(np.r_[ledger.initial_equity, ledger.account["equity"]])
    returns = equity.pct_change().dropna()
    assert summary["sharpe"] == pytest.approx(returns.mean() / returns.std() * 252 ** 0.5)
    assert summary["annual_volatility"] == pytest.approx(returns.std() * 252 ** 0.5)
    downside = (returns.clip(upper=0) ** 2).mean() ** 0.5
    assert summary["sortino"] == pytest.approx(returns.mean() / downside * 252 ** 0.5)
    assert summary["max_drawdown"] == pytest.approx(-(equity / equity.cummax() - 1).min())
    assert summary["cagr"] == pytest.approx((equity.iloc[-1] / equity.iloc[0]) ** (252 / len(returns)) - 1)
    assert summary["calmar"] == pytest.approx(summary["cagr"] / summary["max_drawdown"])
    assert summary["skew"] == pytest.approx(stats.skew(returns))
    assert summary["excess_kurtosis"] == pytest.approx(stats.kurtosis(returns))
    assert summary["worst_day"] == pytest.approx(returns.min())
    assert summary["expected_shortfall_95"] == pytest.approx(returns.nsmallest(130).mean())      # 5 % of 2,600 days


def test_monthly_and_yearly_returns_compound_to_the_total(ledger, summary):
    account = ledger.account
    for unit, n in (("M", 120), ("Y", 10)):
        periods, returns = metrics.period_returns(account["equity"], ledger.initial_equity, account["date"], unit)
        assert len(np.unique(periods)) == len(returns) == n
        assert np.prod(1 + returns) - 1 == pytest.approx(summary["total_return"])


def test_the_yearly_pnl_is_the_change_of_equity_and_adds_up(ledger, summary):
    by_year = {name: x for name, x in summary.items() if name[:4] == "pnl." and name[4:].isdigit()}
    assert sum(by_year.values()) == pytest.approx(ledger.account["equity"][-1] - ledger.initial_equity, abs=0.01)
    in_2008 = ledger.account["date"].astype("datetime64[Y]") == np.datetime64("2008")
    first = int(np.flatnonzero(in_2008)[0])
    assert summary["pnl.2008"] == pytest.approx(
        ledger.account["equity"][in_2008][-1] - ledger.account["equity"][first - 1])


# ---- trades ----------------------------------------------------------------------------------------------------------

def test_trade_statistics_by_hand():
    trades = [trade(60.0), trade(20.0, side="call"), trade(-100.0, exit_reason="stop_loss", hold_days=4), trade(0.0)]
    s = metrics.summary(hand_ledger([100.0, 80.0], trades=trades))
    assert (s["trades"], s["win_rate"], s["profit_factor"]) == (4, 0.5, pytest.approx(0.8))
    assert (s["mean_trade"], s["mean_winner"], s["mean_loser"], s["largest_loss"]) == (-5.0, 40.0, -100.0, -100.0)
    assert (s["mean_holding_days"], s["return_on_max_loss"]) == (8.5, pytest.approx(-20.0 / 1600.0))
    assert (s["exits.stop_loss"], s["exits.profit_target"], s["exits.expiry"]) == (1, 3, 0)
    assert (s["trades.put"], s["trades.call"], s["pnl.put"], s["pnl.call"]) == (3, 1, -40.0, 20.0)
    assert (s["trades.SPY"], s["pnl.SPY"], s["trades.regime.none"], s["trades.2019"]) == (4, -20.0, 4, 4)


def test_a_trade_that_the_end_of_the_period_closed_is_no_win_and_no_loss_but_is_in_the_pnl():
    rest = trade(500.0, exit_reason="end_of_period")
    with_it = metrics.summary(hand_ledger([100.0, 540.0], trades=[trade(60.0), trade(-20.0), rest]))
    without = metrics.summary(hand_ledger([100.0, 540.0], trades=[trade(60.0), trade(-20.0)]))
    for name in ("win_rate", "profit_factor", "mean_trade", "mean_winner", "mean_loser", "largest_loss",
                 "mean_holding_days", "return_on_max_loss"):
        assert with_it[name] == without[name], name
    assert (with_it["trades"], with_it["exits.end_of_period"], with_it["pnl.SPY"]) == (3, 1, 540.0)


def test_trades_and_pnl_split_the_same_way_by_ticker_side_and_regime(ledger, summary):
    for names in (("IWM", "QQQ", "SPY"), ("put", "call"),
                  [f"regime.{r}" for r in ("none", "bull_low_vol", "bull_high_vol", "bear_low_vol", "bear_high_vol")]):
        assert sum(summary[f"trades.{name}"] for name in names) == summary["trades"] == 700
        assert sum(summary[f"pnl.{name}"] for name in names) == pytest.approx(ledger.trades["pnl"].sum())
    assert sum(summary[f"trades.{year}"] for year in range(2007, 2017)) == 700


def test_costs_are_dollars_and_a_share_of_the_pnl_before_them():
    trades = [trade(60.0, commission=4.0, slippage=6.0), trade(-20.0, commission=4.0, slippage=6.0)]
    s = metrics.summary(hand_ledger([100.0, 140.0], trades=trades))
    assert (s["commission"], s["slippage"]) == (8.0, 12.0)
    assert s["costs_to_gross"] == pytest.approx(20.0 / 60.0)
    assert s["commission_to_gross"] + s["slippage_to_gross"] == pytest.approx(s["costs_to_gross"])


def test_costs_have_no_share_of_a_gross_loss():
    s = metrics.summary(hand_ledger([100.0, 80.0], trades=[trade(-20.0, commission=4.0, slippage=6.0)]))
    assert "commission" in s and "costs_to_gross" not in s and "commission_to_gross" not in s


# ---- undefined is absent ---------------------------------------------------------------------------------------------

UNDEFINED_WITHOUT_TRADES = {
    "sharpe", "sortino", "calmar", "skew", "excess_kurtosis", "win_rate", "profit_factor", "mean_trade", "mean_winner",
    "mean_loser", "largest_loss", "mean_holding_days", "return_on_max_loss", "costs_to_gross", "covid_2020.win_rate",
    "pnl.put", "pnl.call",
}


def test_a_run_without_trades_has_counts_of_zero_and_no_ratios():
    s = metrics.summary(hand_ledger([100.0] * 600, start="2019-01-02"))
    assert not UNDEFINED_WITHOUT_TRADES & s.keys()
    for name in ("trades", "total_return", "cagr", "max_drawdown", "max_drawdown_days", "exposure", "worst_day",
                 "trades.put", "exits.expiry", "trades.2020", "pnl.2020", "covid_2020.return", "covid_2020.trades"):
        assert s[name] == 0.0, name
    assert all(s[f"rejected.{r.name.lower()}"] == 0.0 for r in Rejection if r is not Rejection.ADMITTED)


def test_only_winners_have_no_profit_factor_and_no_loser():
    s = metrics.summary(hand_ledger([100.0, 160.0], trades=[trade(60.0)]))
    assert s["win_rate"] == 1.0 and not {"profit_factor", "mean_loser", "largest_loss"} & s.keys()


def test_every_value_is_a_finite_python_float(summary):
    assert all(type(x) is float and np.isfinite(x) for x in summary.values())


@pytest.mark.parametrize("equity", [[100.0], [0.0], [50.0, -10.0, 5.0], [-10.0], [100.0, 101.0]])
def test_tiny_and_ruined_accounts_have_no_number_that_is_not_one(equity):
    s = metrics.summary(hand_ledger(equity))
    assert all(np.isfinite(x) for x in s.values())
    assert ("cagr" in s) == (equity[-1] >= 0)


def test_an_account_below_zero_has_a_drawdown_and_no_sharpe():
    s = metrics.summary(hand_ledger([50.0, -10.0, 5.0]))
    assert s["max_drawdown"] == pytest.approx(1.1) and "sharpe" not in s and "worst_day" not in s


# ---- counts ----------------------------------------------------------------------------------------------------------

def test_the_counts_of_the_ledger_are_metrics(ledger, summary):
    assert (summary["stale_marks"], summary["unlabelled_days"], summary["unreachable_stops"]) == (3.0, 252.0, 0.0)
    rejected = sum(summary[f"rejected.{r.name.lower()}"] for r in Rejection if r is not Rejection.ADMITTED)
    assert rejected == len(ledger.rejections["reason"]) == 200


def test_a_count_with_the_name_of_a_metric_is_refused():
    with pytest.raises(ValueError, match="sharpe"):
        metrics.summary(hand_ledger([100.0], counts={"sharpe": 9.0}))


# ---- stress windows --------------------------------------------------------------------------------------------------

def covid(name: str) -> np.datetime64:
    return metrics.STRESS_WINDOWS["covid_2020"]["first last".split().index(name)]


def covid_ledger(start: str, n: int, trades: list[dict] = ()) -> Ledger:
    """Equity 100 until the eve of the window, 90 at its first close, 95 at its last."""
    ledger = hand_ledger([100.0] * n, start=start, trades=list(trades))
    equity = ledger.account["equity"]
    equity[ledger.account["date"] >= covid("first")] = 90.0
    equity[ledger.account["date"] >= covid("last")] = 95.0
    return ledger


def test_a_window_is_measured_from_its_eve_and_counts_the_trades_closed_in_it():
    trades = [trade(-50.0, date=np.datetime64("2020-02-10"), exit_date=covid("first"), exit_reason="stop_loss"),
              trade(10.0, date=np.datetime64("2020-03-10"), exit_date=covid("last")),
              trade(10.0, date=np.datetime64("2020-02-01"), exit_date=covid("first") - 1),
              trade(10.0, date=np.datetime64("2020-04-10"), exit_date=covid("last") + 1)]
    s = metrics.summary(covid_ledger("2020-01-15", 120, trades))
    assert s["covid_2020.return"] == pytest.approx(-0.05)
    assert s["covid_2020.drawdown"] == pytest.approx(0.10)
    assert (s["covid_2020.trades"], s["covid_2020.win_rate"]) == (2, 0.5)


def test_a_window_is_reported_only_where_the_run_covers_all_of_it():
    whole = metrics.summary(covid_ledger("2020-02-19", 52))          # its first to its last session
    assert whole["covid_2020.return"] == pytest.approx(-0.05)
    for start, n in (("2020-02-20", 60), ("2020-01-15", 70)):         # a day late, and ending before
        assert not [name for name in metrics.summary(covid_ledger(start, n)) if name.startswith("covid_2020")]


def test_the_windows_begin_and_end_on_sessions():
    for first, last in metrics.STRESS_WINDOWS.values():
        inside = calendar.sessions(first, last)
        assert (inside[0], inside[-1]) == (first, last)


# ---- speed -----------------------------------------------------------------------------------------------------------

def test_a_summary_of_19_years_takes_milliseconds():
    """1.4 ms where it was measured; the bound is loose so that a busy machine does not fail it."""
    ledger = random_ledger(np.random.default_rng(5), n_days=4780, n_trades=2000)
    best = min(_seconds(lambda: metrics.summary(ledger)) for _ in range(5))
    assert best < 0.015


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
