"""Markets made by hand: a few spreads whose cost to close is written down, session by session.

Each test writes the prices that it is about, and everything else is such that nothing else happens: quotes have
no width, there is no commission, no exit before expiry, and the limits are ample. A spread is offered on the
sessions on which the delta of its short leg is within the entry window, and on those only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mahler import schema
from mahler.data.calendar import sessions as exchange_sessions
from mahler.exits import Costs, ExitRule
from mahler.schema import Side, Table
from mahler.screen import Entry
from mahler.simulate import Breaker, Limits
from tests.markets import Market, Run

LONG_MID = 0.25                  # dollars per share of every long leg, always: only the short leg moves
IN_WINDOW, OUT_OF_WINDOW = 0.10, 0.50          # |delta| of a short leg that is offered, and of any other

HOLD = ExitRule(profit_target=None, stop_loss=None, exit_dte=0)
FREE = Costs(commission=0.0, assignment_fee=0.0)
AMPLE = Limits(max_positions=1000, max_heat=1.0, max_heat_per_underlying=1.0, max_heat_group=1.0,
               max_entries_per_day=1000, group=["QQQ", "SPY"])
OFF = Breaker(max_day_loss=None, max_week_loss=None, max_drawdown=None, max_vix=None)
ANYTHING = Entry(side="both", min_delta=0.05, max_delta=0.15, widths=[1.0], min_dte=1, max_dte=400,
                 min_open_interest=0, min_volume=0, max_relative_spread=2.0, min_credit_to_width=0.0,
                 min_iv_percentile=0.0, per_day=50)


def sessions(first: str, n: int) -> np.ndarray:
    """`n` sessions of the exchange from `first` on, datetime64[D]."""
    return exchange_sessions(first, np.datetime64(first) + np.timedelta64(2 * n + 14, "D"))[:n]


@dataclass
class Spread:
    """One spread, and its prices on every session; a single number stands for all of them.

    `cost` is dollars per share at the mid, NaN where the short leg has no row; `long` is the mid of the long leg,
    likewise. `half` is half the width of either quote. `put` is the mid of the put of a short call's strike.
    """

    short: float
    width: float
    cost: float | Sequence[float]
    offered: Sequence[int]               # numbers of sessions
    expiry: np.datetime64
    side: Side = Side.PUT
    ticker: str = "SPY"
    half: float | Sequence[float] = 0.0
    long: float | Sequence[float] = LONG_MID
    put: float | Sequence[float] = np.nan

    @property
    def long_strike(self) -> float:
        return self.short + self.width if self.side is Side.CALL else self.short - self.width


def _leg(days: np.ndarray, spread: Spread, strike: float, mid: np.ndarray, half: np.ndarray) -> Table:
    """The rows of one leg: none where its mid is NaN, and the other option of its strike without a quote."""
    offered = np.isin(np.arange(len(days)), spread.offered) & (strike == spread.short)
    delta = np.where(offered, IN_WINDOW, OUT_OF_WINDOW)
    table = schema.empty(schema.CHAIN, len(days))
    leg = "call" if spread.side is Side.CALL else "put"
    table |= {"date": days, "expiry": np.full(len(days), spread.expiry), "strike": np.full(len(days), strike),
              "delta": (delta if spread.side is Side.CALL else 1.0 - delta).astype(np.float32),
              f"{leg}_bid": mid - half, f"{leg}_ask": mid + half}
    if spread.side is Side.CALL and strike == spread.short:
        put = np.nan_to_num(np.broadcast_to(np.asarray(spread.put, float), len(days)))
        table |= {"put_bid": put.copy(), "put_ask": put.copy()}
    there = ~np.isnan(mid) & (days <= spread.expiry)
    return {name: column[there] for name, column in table.items()}


def chain(days: np.ndarray, spreads: Sequence[Spread], underlying: np.ndarray) -> Table:
    """The schema.CHAIN rows of one ticker's spreads; no two of them may share a contract."""
    parts = []
    for spread in spreads:
        cost, long, half = (np.broadcast_to(np.asarray(x, float), len(days))
                            for x in (spread.cost, spread.long, spread.half))
        parts.append(_leg(days, spread, spread.short, cost + np.where(np.isnan(long), LONG_MID, long), half))
        parts.append(_leg(days, spread, spread.long_strike, long, half))
    table = {name: np.concatenate([part[name] for part in parts]) for name in schema.CHAIN.names}
    table["underlying"] = underlying[np.searchsorted(days, table["date"])]
    return table


def market(days: np.ndarray, spreads: Sequence[Spread], *, close: float | Sequence[float] = 300.0,
           **changed: Any) -> Market:
    """A market of `spreads` on `days`, sold ten lots at a time by an account of 100,000 dollars.

    `close` is the official close, of every ticker; what is said of the field of Market in `changed` replaces it.
    `vix` and `rate` may be a single number.
    """
    tickers = sorted({spread.ticker for spread in spreads})
    closes = np.repeat(np.broadcast_to(np.asarray(close, float), len(days))[:, None], len(tickers), axis=1)
    shape = closes.shape
    tables = {t: chain(days, [s for s in spreads if s.ticker == t], closes[:, 0]) for t in tickers}
    for name in ("vix", "rate"):
        if name in changed:
            changed[name] = np.broadcast_to(np.asarray(changed[name], float), len(days)).copy()
    made = Market(
        sessions=days, tables=tables, close=closes, vix=np.full(len(days), 15.0), iv_percentile=np.full(shape, 0.5),
        multiplier=np.ones(shape), max_contracts=np.zeros(shape, np.int32),
        dividends={t: (days[:0], np.zeros(0)) for t in tickers}, rate=np.zeros(len(days)),
        entry=replace(ANYTHING, widths=sorted({s.width for s in spreads})), exit=HOLD, costs=FREE, limits=AMPLE,
        breaker=OFF, fill_travel=0.5, fraction=0.02, fixed_contracts=10, initial_equity=100_000.0)
    return replace(made, **changed)


def verdicts(run: Run) -> np.ndarray:
    """"admitted" or the reason of the rejection of every candidate, in the order of admission."""
    said = np.full(len(run.contracts), "admitted", dtype=object)
    said[run.contracts == 0] = run.ledger.rejections["reason"]
    return said


def of_spread(run: Run, spread: Spread) -> int:
    """The number of the one candidate that is `spread`."""
    found, = np.flatnonzero((run.candidates["short_strike"] == spread.short)
                            & (run.candidates["long_strike"] == spread.long_strike)
                            & (run.candidates["side"] == spread.side))
    return int(found)
