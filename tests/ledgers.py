"""Ledgers for tests: one made by hand, one made at random whose account follows from its trades."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mahler.ledger import Ledger
from mahler.schema import ACCOUNT, MULTIPLIER, REJECTED, TRADE, Exit, Regime, Rejection, Table, empty


def sessions(start: str, n: int) -> np.ndarray:
    """`n` weekdays from `start` on, datetime64[D]."""
    return np.busday_offset(np.datetime64(start, "D"), np.arange(n), roll="forward")


def table(dtype: np.dtype, rows: list[dict]) -> Table:
    """A table of `rows`; a column that a row does not name is zero, or an empty string."""
    columns = empty(dtype, len(rows))
    for name in dtype.names:
        if dtype[name] == object:
            columns[name][:] = ""
        for i, row in enumerate(rows):
            if name in row:
                columns[name][i] = row[name]
    return columns


def hand_ledger(equity: list[float], *, initial: float = 100.0, start: str = "2019-01-02", trades: list[dict] = (),
                rejections: list[dict] = (), counts: dict[str, float] | None = None) -> Ledger:
    """An account that holds `equity` as cash, a session each, and trades and rejections as they are given."""
    account = empty(ACCOUNT, len(equity))
    account["date"] = sessions(start, len(equity))
    account["cash"] = account["equity"] = np.asarray(equity, float)
    return Ledger(table(TRADE, list(trades)), table(REJECTED, list(rejections)), account, initial, counts or {})


def random_ledger(rng: np.random.Generator, *, n_days: int, n_trades: int, n_rejections: int = 50,
                  start: str = "2007-01-03", initial: float = 100_000.0) -> Ledger:
    """Spreads sold on random days, held for up to 30, marked every day, closed for a random price."""
    dates, n = sessions(start, n_days), n_trades
    entry = np.sort(rng.integers(0, n_days - 1, n))
    leave = np.minimum(entry + rng.integers(1, 30, n), n_days - 1)
    t = _entries(rng, n) | {"date": dates[entry], "exit_date": dates[leave], "expiration": dates[entry] + 40}
    t["hold_days"] = (t["exit_date"] - t["date"]).astype("i4")
    t["exit_reason"] = np.array([e.name.lower() for e in Exit], object)[rng.choice(5, n, p=[.05, .01, .6, .2, .14])]
    t["exit_reason"][leave == n_days - 1] = "end_of_period"
    t["exit_mid"] = np.round(t["credit"] * rng.choice([0.3, 0.35, 2.4, 3.0], n, p=[.4, .35, .2, .05]), 2)
    t["exit_cost"] = t["exit_mid"] + 0.02
    t["commission"] = 4.0 * t["contracts"]
    t["slippage"] = 0.04 * MULTIPLIER * t["contracts"]
    t["pnl_per_contract"] = (t["credit"] - t["exit_cost"]) * MULTIPLIER - 4.0
    t["pnl"] = t["pnl_per_contract"] * t["contracts"]
    trades = {name: t[name].astype(TRADE[name]) for name in TRADE.names}
    rejections = _rejections(rng, trades, n_rejections)
    rejected = Counter(f"rejected.{reason}" for reason in rejections["reason"].tolist())
    return Ledger(trades, rejections, _account(rng, trades, dates, entry, leave, initial), initial,
                  {"stale_marks": 3.0, "unreachable_stops": 0.0, "unlabelled_days": 252.0, **rejected})


def _entries(rng: np.random.Generator, n: int) -> Table:
    t = empty(TRADE, n)
    t["trade_id"] = t["candidate"] = np.arange(n)
    t["ticker"] = rng.choice(np.array(["IWM", "QQQ", "SPY"], object), n)
    t["side"] = rng.choice(np.array(["put", "call"], object), n)
    t["regime"] = rng.choice(np.array([r.name.lower() for r in Regime], object), n)
    t["width"], t["delta"], t["dte"] = np.full(n, 5.0), rng.uniform(.05, .15, n).round(3), rng.integers(30, 46, n)
    t["short_strike"] = rng.integers(80, 400, n).astype(float)
    t["long_strike"] = t["short_strike"] + np.where(t["side"] == "put", -5.0, 5.0)
    t["credit"] = rng.uniform(.15, .5, n).round(2)
    t["mid_credit"], t["max_loss"] = t["credit"] + 0.02, 5.0 - t["credit"]
    t["entry_score"], t["underlying_price"] = rng.normal(0, .02, n), t["short_strike"] * 1.1
    t["iv_percentile"], t["vix"] = rng.uniform(0, 1, n).round(2), rng.uniform(10, 40, n).round(2)
    t["contracts"], t["multiplier"], t["risk_fraction"] = rng.integers(1, 6, n), np.full(n, .75), np.full(n, .02)
    return t


def _account(rng: np.random.Generator, t: Table, dates: np.ndarray, entry: np.ndarray, leave: np.ndarray,
             initial: float) -> Table:
    n_days, dollars = len(dates), MULTIPLIER * t["contracts"]
    account = empty(ACCOUNT, n_days)
    flow = np.zeros(n_days)
    np.add.at(flow, entry, t["credit"] * dollars - t["commission"] / 2)
    np.add.at(flow, leave, -t["exit_cost"] * dollars - t["commission"] / 2)
    for i, (first, last) in enumerate(zip(entry, leave)):
        mid = t["mid_credit"][i] + (t["exit_mid"][i] - t["mid_credit"][i]) * np.linspace(0, 1, last - first, False)
        account["marks"][first:last] -= mid * rng.uniform(.9, 1.1, last - first) * dollars[i]
        account["open_max_loss"][first:last] += t["max_loss"][i] * dollars[i]
        account["positions"][first:last] += 1
    account["date"], account["cash"] = dates, initial + np.cumsum(flow)
    account["equity"] = account["cash"] + account["marks"]
    account["heat"] = account["open_max_loss"] / account["equity"]
    np.add.at(account["entries"], entry, 1)
    np.add.at(account["exits"], leave, 1)
    return account


def _rejections(rng: np.random.Generator, t: Table, n: int) -> Table:
    r = empty(REJECTED, n if len(t["pnl"]) else 0)
    like = rng.integers(0, max(len(t["pnl"]), 1), len(r["date"]))
    for name in r:
        if name in t:
            r[name] = t[name][like]
    reasons = np.array([x.name.lower() for x in Rejection], object)
    r["reason"] = reasons[rng.integers(1, len(reasons), len(like))]
    return r
