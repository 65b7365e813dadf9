"""Metrics of a run: array in, float out.

A metric that is undefined (no trade, no losing trade, a flat account) is NaN here and absent from `summary`: never 0,
never inf. Rates and returns are fractions, money is dollars, losses and worst days are negative numbers, and a
drawdown is a positive fraction of its peak. A trade that the end of the period closed (`end_of_period`) was closed by
no rule: it is in every P&L and every count of trades, and in none of the statistics of winning and losing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mahler.ledger import Ledger
from mahler.schema import MULTIPLIER, SESSIONS_PER_YEAR, Exit, Regime, Rejection, Side, Table

STRESS = {
    "gfc_2008": ("2008-09-02", "2009-03-31"),
    "flash_crash_2010": ("2010-05-03", "2010-05-28"),
    "debt_ceiling_2011": ("2011-08-01", "2011-08-31"),
    "china_2015": ("2015-08-03", "2015-08-31"),
    "volmageddon_2018": ("2018-02-01", "2018-02-28"),
    "q4_2018": ("2018-12-03", "2018-12-31"),
    "covid_2020": ("2020-02-19", "2020-04-30"),
    "year_2020": ("2020-01-02", "2020-12-31"),
    "bear_2022": ("2022-01-03", "2022-12-30"),
    "tariffs_2025": ("2025-04-01", "2025-04-30"),
}
"""Stress windows: first and last session of each, both inside it. A run has a window if it covers all of it."""

STRESS_WINDOWS = {name: (np.datetime64(first, "D"), np.datetime64(last, "D")) for name, (first, last) in STRESS.items()}

FLAT = 1e-20
"""Of the mean square of returns, the variance below which they may all be the same: rounding leaves 1e-26 of it."""


# ---- the daily account -----------------------------------------------------------------------------------------------

def simple_returns(equity: np.ndarray, initial_equity: float) -> np.ndarray:
    """Simple return of each session (or period), (n,); the first is against the initial equity.

    NaN after an equity that is not positive: a return on nothing is undefined, and so is what uses it.
    """
    before = np.concatenate(([initial_equity], equity[:-1]))
    if np.minimum.reduce(before) > 0:        # a division that asks of each whether it may takes four times as long
        return equity / before - 1.0
    return np.divide(equity, before, out=np.full(len(equity), np.nan), where=before > 0) - 1.0


def total_return(equity: np.ndarray, initial_equity: float) -> float:
    """E_T / E_0 - 1, a fraction."""
    return float(equity[-1] / initial_equity - 1.0)


def cagr(equity: np.ndarray, initial_equity: float) -> float:
    """Compound annual growth, (E_T / E_0)^(252 / n_days) - 1, a fraction; NaN where E_T is below zero.

    n_days counts the account's sessions: each of them is one return, the first against the initial equity. Inf where
    the growth of a few days, compounded for a year, is more than a float holds.
    """
    growth = float(equity[-1]) / initial_equity
    with np.errstate(over="ignore"):
        return float(np.float64(growth) ** (SESSIONS_PER_YEAR / len(equity))) - 1.0 if growth >= 0 else np.nan


def annual_volatility(returns: np.ndarray) -> float:
    """Standard deviation (ddof 1) of the daily returns x sqrt(252), a fraction; NaN below two days."""
    return float(np.std(returns, ddof=1) * np.sqrt(SESSIONS_PER_YEAR)) if len(returns) > 1 else np.nan


def daily_rate(risk_free: float) -> float:
    """The annual rate `risk_free` (a decimal) per session, (1 + r)^(1/252) - 1."""
    return (1.0 + risk_free) ** (1.0 / SESSIONS_PER_YEAR) - 1.0


def sharpe(returns: np.ndarray, risk_free: float) -> float:
    """Annualised Sharpe ratio of daily returns: mean excess over its standard deviation (ddof 1) x sqrt(252).

    `risk_free` is an annual decimal. NaN below two days and for an account that never moves.
    """
    n = len(returns)
    if n < 2:
        return np.nan
    excess = returns - daily_rate(risk_free)
    mean = np.add.reduce(excess) / n         # mean() and std(), without their detours: a search asks for a million of these
    away = excess - mean
    power = np.add.reduce(away * away)
    if power <= FLAT * n * mean * mean and np.minimum.reduce(returns) == np.maximum.reduce(returns):
        return np.nan                        # exact: the std of a constant is 1e-20, not 0
    return float(mean / np.sqrt(power / (n - 1)) * np.sqrt(SESSIONS_PER_YEAR))


def sortino(returns: np.ndarray, risk_free: float) -> float:
    """Annualised Sortino ratio: mean excess over sqrt(mean(min(excess, 0)^2)) x sqrt(252).

    The target is 0 and the mean of squares runs over all days, those above the target included as zeros; dividing by
    the days below it alone would reward an account for losing often. NaN without a day below the target.

    References
    ----------
    Sortino & Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    excess = returns - daily_rate(risk_free)
    downside = float(np.sqrt(np.mean(np.minimum(excess, 0.0) ** 2)))
    return float(excess.mean()) / downside * np.sqrt(SESSIONS_PER_YEAR) if downside > 0 else np.nan


@dataclass(frozen=True)
class Drawdown:
    """The deepest fall of an account from its running peak.

    depth is a positive fraction of the peak. `start` is the session of the peak (the first session where the peak is
    the initial equity), `trough` that of the low, `recovery` the first session at or above the peak again, NaT where
    the period ends before. `days` counts calendar days from the start to the recovery or to the end of the period.
    """

    depth: float
    start: np.datetime64
    trough: np.datetime64
    recovery: np.datetime64
    days: int


def drawdowns(equity: np.ndarray, initial_equity: float) -> np.ndarray:
    """Fall of each session from the running peak, the initial equity included: (n_days,), fractions, 0 or negative."""
    return equity / np.maximum(np.maximum.accumulate(equity), initial_equity) - 1.0


def max_drawdown(equity: np.ndarray, initial_equity: float, dates: np.ndarray) -> Drawdown:
    """The deepest drawdown, the first of equals. An account that never falls has depth 0 and 0 days."""
    fall = drawdowns(equity, initial_equity)
    trough = int(np.argmin(fall))
    if fall[trough] == 0.0:
        return Drawdown(0.0, dates[0], dates[0], dates[0], 0)
    peak = max(initial_equity, float(equity[:trough + 1].max()))
    at_peak = np.flatnonzero(equity[:trough] == peak)        # the last session at the peak; none: the initial equity
    start = int(at_peak[-1]) if len(at_peak) else 0
    back = np.flatnonzero(equity[trough:] >= peak)
    recovery = dates[trough + back[0]] if len(back) else np.datetime64("NaT", "D")
    days = int(((recovery if len(back) else dates[-1]) - dates[start]).astype(int))
    return Drawdown(float(-fall[trough]), dates[start], dates[trough], recovery, days)


def period_returns(equity: np.ndarray, initial_equity: float, dates: np.ndarray, unit: str) -> tuple[np.ndarray, ...]:
    """Calendar periods, datetime64[unit], and the account's return in each of them, a fraction: both (n_periods,).

    `unit` is "M" for months or "Y" for years. A period that the account only touches counts from its first session.
    """
    periods = dates.astype(f"datetime64[{unit}]")
    last = np.append(np.flatnonzero(np.diff(periods).astype(int)), len(periods) - 1)
    return periods[last], simple_returns(equity[last], initial_equity)


def expected_shortfall(returns: np.ndarray, share: float) -> float:
    """Mean of the worst ceil(share x n_days) daily returns, a (negative) fraction.

    NaN where the tail is less than a day: below 20 days for a share of 0.05.
    """
    if share * len(returns) < 1:
        return np.nan
    k = int(np.ceil(share * len(returns)))
    return float(np.partition(returns, k - 1)[:k].mean())


def standardised_moment(returns: np.ndarray, order: int) -> float:
    """m_k / m_2^(k/2) of the population (ddof 0): 3 gives the skew, 4 the raw kurtosis. NaN for a constant."""
    if returns.min() == returns.max():
        return np.nan
    d = returns - returns.mean()
    square = d * d
    power = square * d if order == 3 else square * square
    return float(power.mean() / square.mean() ** (order / 2))


# ---- trades ----------------------------------------------------------------------------------------------------------

def mean(x: np.ndarray) -> float:
    """Arithmetic mean; NaN of nothing."""
    return float(x.mean()) if len(x) else np.nan


def win_rate(pnl: np.ndarray) -> float:
    """Share of trades with a net P&L above zero; NaN without a trade."""
    return mean(pnl > 0)


def profit_factor(pnl: np.ndarray) -> float:
    """Dollars won over dollars lost; NaN without a losing trade."""
    lost = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else np.nan


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator, NaN unless the denominator is positive."""
    return numerator / denominator if denominator > 0 else np.nan


# ---- the summary -----------------------------------------------------------------------------------------------------

def summary(ledger: Ledger, *, risk_free: float = 0.0) -> dict[str, float]:
    """Every metric of a run that is defined, by bare name; all values are finite floats.

    The account's: total_return, cagr, annual_volatility, sharpe, sortino, max_drawdown, max_drawdown_days, calmar,
    worst_day, expected_shortfall_95, skew, excess_kurtosis, exposure, mean_heat, peak_heat, sessions, pnl.<year>.
    The trades': trades, win_rate, profit_factor, mean_trade, mean_winner, mean_loser, largest_loss, mean_holding_days,
    return_on_max_loss, exits.<reason>, and `trades.` and `pnl.` by <side>, <TICKER>, regime.<name> and <year>.
    The costs': commission, slippage, and their shares of gross. The stress windows', as `covid_2020.return`. The
    data's: the ledger's own counts, rejected.<reason> among them. Counts of zero are there: a zero is a fact.

    Parameters
    ----------
    risk_free : float
        Annual rate, a decimal, that Sharpe and Sortino are in excess of.

    Raises
    ------
    ValueError
        Where one of the ledger's counts has the name of a metric.
    """
    metrics = (_account(ledger, risk_free) | _trades(ledger.trades) | _by_year(ledger)
               | _costs(ledger.trades) | _stress(ledger))
    clash = metrics.keys() & ledger.counts.keys()
    if clash:
        raise ValueError(f"the ledger's counts have the names of metrics: {', '.join(sorted(clash))}")
    metrics |= {f"rejected.{name}": 0 for name in _names(Rejection) if name != "admitted"} | ledger.counts
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _account(ledger: Ledger, risk_free: float) -> dict[str, float]:
    account, initial = ledger.account, ledger.initial_equity
    equity, dates = account["equity"], account["date"]
    returns = simple_returns(equity, initial)
    drawdown = max_drawdown(equity, initial, dates)
    growth = cagr(equity, initial)
    return {
        "total_return": total_return(equity, initial),
        "cagr": growth,
        "annual_volatility": annual_volatility(returns),
        "sharpe": sharpe(returns, risk_free),
        "sortino": sortino(returns, risk_free),
        "max_drawdown": drawdown.depth,
        "max_drawdown_days": drawdown.days,
        "calmar": ratio(growth, drawdown.depth),
        "worst_day": returns.min(),
        "expected_shortfall_95": expected_shortfall(returns, 0.05),
        "skew": standardised_moment(returns, 3),
        "excess_kurtosis": standardised_moment(returns, 4) - 3.0,
        "exposure": mean(account["positions"] > 0),      # share of sessions that end with an open position
        "mean_heat": mean(account["heat"]),              # over all sessions, those without a position included
        "peak_heat": account["heat"].max(),
        "sessions": len(dates),
    }


def _by_year(ledger: Ledger) -> dict[str, float]:
    """`trades.` (entered in) and `pnl.` (dollars of equity gained in) each calendar year that the account touches.

    The P&L is the account's, not the trades': a loss counts in the year that it happened, not in its exit's.
    """
    years = _years(ledger.account["date"])
    last = np.append(np.flatnonzero(np.diff(years)), len(years) - 1)
    gained = np.diff(ledger.account["equity"][last], prepend=ledger.initial_equity)
    entered = Counter(_years(ledger.trades["date"]).tolist())
    return ({f"trades.{year}": entered[year] for year in years[last].tolist()}
            | {f"pnl.{year}": dollars for year, dollars in zip(years[last].tolist(), gained.tolist())})


def _trades(trades: Table) -> dict[str, float]:
    pnl = trades["pnl"]
    reasons = Counter(trades["exit_reason"].tolist())
    by_rule = closed_by_rule(trades)
    closed = pnl[by_rule]
    at_risk = (MULTIPLIER * trades["max_loss"] * trades["contracts"])[by_rule]      # not `multiplier`, the regime's
    losers = closed[closed < 0]
    return {
        "trades": len(pnl),
        "win_rate": win_rate(closed),
        "profit_factor": profit_factor(closed),
        "mean_trade": mean(closed),
        "mean_winner": mean(closed[closed > 0]),
        "mean_loser": mean(losers),
        "largest_loss": losers.min() if len(losers) else np.nan,
        "mean_holding_days": mean(trades["hold_days"][by_rule]),        # calendar days
        "return_on_max_loss": ratio(closed.sum(), at_risk.sum()),       # dollars won over dollars put at risk
        **{f"exits.{name}": reasons[name] for name in _names(Exit)},
        **_by(trades["side"], pnl, "", _names(Side)),
        **_by(trades["ticker"], pnl, "", ()),
        **_by(trades["regime"], pnl, "regime.", _names(Regime)),
    }


def closed_by_rule(trades: Table) -> np.ndarray:
    """Which trades a rule closed, bool (n_trades,): all but those that the end of the period closed."""
    return trades["exit_reason"] != Exit.END_OF_PERIOD.name.lower()


def _by(column: np.ndarray, pnl: np.ndarray, prefix: str, names: Iterable[str]) -> dict[str, float]:
    """`trades.` and `pnl.` of each value of a column; a value of `names` without a trade has a count and no P&L."""
    values = list(dict.fromkeys([*names, *column.tolist()]))
    code = dict(zip(values, range(len(values))))
    codes = np.array([code[value] for value in column.tolist()], np.int64)
    count, total = np.bincount(codes, minlength=len(values)), np.bincount(codes, pnl, len(values))
    return ({f"trades.{prefix}{value}": int(n) for value, n in zip(values, count)}
            | {f"pnl.{prefix}{value}": float(dollars) for value, n, dollars in zip(values, count, total) if n})


def _costs(trades: Table) -> dict[str, float]:
    """Dollars paid, and as a share of the P&L before they were; undefined where that is not positive."""
    commission, slippage = float(trades["commission"].sum()), float(trades["slippage"].sum())
    gross = float(trades["pnl"].sum()) + commission + slippage
    return {
        "commission": commission,
        "slippage": slippage,
        "commission_to_gross": ratio(commission, gross),
        "slippage_to_gross": ratio(slippage, gross),
        "costs_to_gross": ratio(commission + slippage, gross),
    }


def _stress(ledger: Ledger) -> dict[str, float]:
    """return, drawdown, trades and win_rate of each stress window that the run covers from its first to its last day.

    The return is against the equity on the eve of the window, and so is the drawdown's first peak. Trades are those
    that were closed inside the window: one sold in calm and stopped out in it is what a stress window is about.
    """
    dates, equity, trades = ledger.account["date"], ledger.account["equity"], ledger.trades
    by_rule = closed_by_rule(trades)
    metrics: dict[str, float] = {}
    for name, (first, last) in STRESS_WINDOWS.items():
        if not (dates[0] <= first and last <= dates[-1]):
            continue
        start, stop = np.searchsorted(dates, first), np.searchsorted(dates, last, side="right")
        if start == stop:
            continue
        eve = float(equity[start - 1]) if start else ledger.initial_equity
        inside = (trades["exit_date"] >= first) & (trades["exit_date"] <= last)
        metrics |= {
            f"{name}.return": ratio(float(equity[stop - 1]), eve) - 1.0,
            f"{name}.drawdown": float(-drawdowns(equity[start:stop], eve).min()),
            f"{name}.trades": int(inside.sum()),
            f"{name}.win_rate": win_rate(trades["pnl"][inside & by_rule]),
        }
    return metrics


def _years(dates: np.ndarray) -> np.ndarray:
    return dates.astype("datetime64[Y]").astype(int) + 1970


def _names(enum: type[Exit] | type[Regime] | type[Rejection] | type[Side]) -> list[str]:
    return [member.name.lower() for member in enum]
