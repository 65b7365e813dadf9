"""Random markets, for the oracle and for the kernels: small, dense in accidents, the same rows for both.

A market is made to reach every exit and every rejection reason within a few hundred seeds: quotes go
missing, cross, lose their bid or their ask; ties are planted; expirations fall on Saturdays; a ticker
lacks sessions; some markets are priced by no model at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from mahler import schema
from mahler.data.calendar import last_session_on_or_before, sessions as exchange_sessions
from mahler.data.store import Chain
from mahler.exits import Costs, ExitRule, first_exits
from mahler.fills.travel import travel
from mahler.ledger import Ledger
from mahler.paths import Paths, trace
from mahler.schema import Regime, Table
from mahler.screen import Entry, screen
from mahler.simulate import Breaker, Limits, simulate
from functools import partial

DAY = np.timedelta64(1, "D")


@dataclass
class Market:
    """A random market and random rules. Arrays are (n_days, n_tickers) unless said otherwise."""

    sessions: np.ndarray
    tables: dict[str, Table]            # schema.CHAIN rows, expiries as printed
    close: np.ndarray
    vix: np.ndarray                     # (n_days,)
    iv_percentile: np.ndarray
    multiplier: np.ndarray
    max_contracts: np.ndarray
    dividends: dict[str, tuple[np.ndarray, np.ndarray]]
    rate: np.ndarray                    # (n_days,)
    entry: Entry
    exit: ExitRule
    costs: Costs
    limits: Limits
    breaker: Breaker
    fill_travel: float
    fraction: float
    fixed_contracts: int | None
    initial_equity: float
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def tickers(self) -> tuple[str, ...]:
        return tuple(sorted(self.tables))


def _chain(rng: np.random.Generator, sessions: np.ndarray, spot: np.ndarray, wild: bool) -> Table:
    """Rows of one ticker: a few expiries, a dozen strikes, quotes with accidents."""
    n_days = len(sessions)
    ahead = exchange_sessions(sessions[4], sessions[-1] + 25 * DAY)
    expiries = np.sort(rng.choice(ahead, size=int(rng.integers(2, 6)), replace=False))
    friday = (expiries.astype("datetime64[D]").astype(int) + 3) % 7 == 4
    expiries = np.where(friday & (rng.random(len(expiries)) < 0.5), expiries + DAY, expiries)   # printed as Saturdays
    strikes = np.round(spot.mean()) + np.arange(-9, 10) * rng.choice([1.0, 2.5, 5.0])
    d, e, k = (a.ravel() for a in np.meshgrid(np.arange(n_days), np.arange(len(expiries)), strikes, indexing="ij"))
    keep = (last_session_on_or_before(expiries)[e] >= sessions[d]) & (rng.random(len(d)) > rng.choice([0.0, 0.02, 0.2]))
    d, e, k = d[keep], e[keep], k[keep]
    n = len(d)
    years = np.maximum((expiries[e] - sessions[d]) / DAY, 1.0) / 365.0
    deviation = rng.uniform(0.2, 0.6) * np.sqrt(years) * spot[d]
    z = (k - spot[d]) / deviation
    value = deviation * 0.4 * np.exp(-np.abs(z) * 1.2)                              # time value, roughly
    tick = rng.choice([0.01, 0.05])
    table = schema.empty(schema.CHAIN, n)
    table |= {"date": sessions[d], "expiry": expiries[e], "strike": k, "underlying": spot[d],
              "delta": np.round(1.0 / (1.0 + np.exp(1.7 * z)), 4).astype(np.float32)}
    for leg, sign in (("call", 1.0), ("put", -1.0)):
        mid = value + np.maximum(sign * (spot[d] - k), 0.0)
        if wild:
            mid = rng.uniform(0.0, 6.0, n)
        half = rng.choice([0.0, 0.5, 1.0, 3.0], n) * tick
        bid = np.round(np.maximum(mid - half, 0.0) / tick) * tick
        ask = np.round((mid + half) / tick) * tick
        accident = rng.random(n)
        bid = np.where(accident < 0.05, 0.0, bid)
        ask = np.where((accident > 0.05) & (accident < 0.07), 0.0, ask)
        bid = np.where((accident > 0.07) & (accident < 0.09), ask + tick, bid)       # crossed
        table[f"{leg}_bid"], table[f"{leg}_ask"] = bid, ask
        table[f"{leg}_volume"] = rng.integers(0, 40, n).astype(np.int32)
        table[f"{leg}_open_interest"] = rng.integers(0, 400, n).astype(np.int32)
    return table


def random_market(seed: int) -> Market:
    """The market and the rules of a seed."""
    rng = np.random.default_rng(seed)
    wild = rng.random() < 0.3
    greedy = wild and rng.random() < 0.5       # everything at risk at once: the only way to run out of cash
    n_days = int(rng.integers(12, 18)) if greedy else int(rng.integers(25, 60))    # it multiplies its money daily
    first = np.datetime64("2012-01-03") + int(rng.integers(0, 4000)) * DAY
    sessions = exchange_sessions(first, first + 100 * DAY)[:n_days]
    tickers = sorted(rng.choice(["AAA", "QQQ", "SPY"], size=int(rng.integers(1, 4)), replace=False))
    vol = rng.choice([0.005, 0.012, 0.03])
    spot = 60.0 * np.exp(np.cumsum(rng.normal(0.0, vol, (n_days, len(tickers))), axis=0))
    if rng.random() < 0.3:                     # a crash, for the breakers
        spot[n_days // 2:] *= 0.88
    close = spot * np.exp(rng.normal(0.0, 0.002, spot.shape))
    tables = {t: _chain(rng, sessions, spot[:, i], wild) for i, t in enumerate(tickers)}
    if len(tickers) > 1 and rng.random() < 0.3:   # planted ties: the same chain under two names
        tables[tickers[1]] = {name: column.copy() for name, column in tables[tickers[0]].items()}
        close[:, 1] = close[:, 0]
    dividends = {t: (sessions[:0], np.zeros(0)) for t in tickers}
    for t in tickers:
        if rng.random() < 0.6:
            dates = np.sort(rng.choice(sessions, size=6, replace=False))
            dividends[t] = (dates, rng.uniform(0.05, 5.0, 6).round(2))
    shape = (n_days, len(tickers))
    none_or = lambda value: None if rng.random() < 0.6 else value       # noqa: E731
    return Market(
        sessions=sessions, tables=tables, close=close, vix=rng.uniform(10, 60, n_days),
        iv_percentile=np.where(rng.random(shape) < 0.1, np.nan, rng.random(shape)),
        multiplier=rng.choice([0.0, 0.4, 1.0, 1.25], p=[0.05, 0.25, 0.5, 0.2], size=shape),
        max_contracts=rng.choice([5 if wild and not greedy else 0, 1, 3], p=[0.8, 0.1, 0.1], size=shape).astype(np.int32),
        dividends=dividends, rate=rng.uniform(0.0, 0.05, n_days),
        entry=Entry(side=str(rng.choice(["put", "call", "both", "both"])), min_delta=round(rng.uniform(0.0, 0.1), 3) + 5e-5,
                    max_delta=round(rng.uniform(0.3, 0.8), 3) + 5e-5,         # no delta lies at an end
                    widths=[float(w) for w in rng.choice([1.0, 2.5, 5.0, 10.0], size=2, replace=False)],
                    min_dte=int(rng.integers(2, 9)), max_dte=int(rng.integers(12, 50)),
                    min_open_interest=int(rng.choice([0, 0, 40])), min_volume=int(rng.choice([0, 0, 3])),
                    max_relative_spread=float(rng.choice([2.0, 2.0, 0.5])),
                    min_credit_to_width=float(rng.choice([0.0, 0.03, 0.1])),
                    min_iv_percentile=float(rng.choice([0.0, 0.0, 0.3])), per_day=int(rng.integers(1, 6))),
        exit=ExitRule(profit_target=None if greedy else float(rng.choice([0.3, 0.65, 1.0])), stop_loss=float(rng.choice([0.5, 1.25, 3.0])),
                      exit_dte=int(rng.choice([0, 0, 3, 8]))),
        costs=Costs(commission=float(rng.choice([0.0, 0.65, 1.0])), assignment_fee=float(rng.choice([0.0, 5.0]))),
        limits=Limits(max_positions=int(rng.choice([1, 3, 8, 20])), max_heat=1.0 if greedy else float(rng.choice([0.05, 0.2, 0.6, 1.0])),
                      max_heat_per_underlying=1.0 if greedy else float(rng.choice([0.04, 0.15, 0.5, 1.0])),
                      max_heat_group=1.0 if greedy else float(rng.choice([0.05, 0.3, 0.5, 1.0])),
                      max_entries_per_day=int(rng.choice([1, 2, 3, 10])), group=["QQQ", "SPY"]),
        breaker=Breaker(max_day_loss=none_or(0.01), max_week_loss=none_or(0.02), max_drawdown=none_or(0.04),
                        max_vix=none_or(50.0)),
        fill_travel=float(rng.choice([0.5, 0.66, 0.8, 1.0])),
        fraction=1.0 if greedy else float(rng.choice([0.02, 0.1, 0.3, 1.0])),
        fixed_contracts=int(rng.integers(1, 6)) if rng.random() < 0.25 else None,
        initial_equity=float(rng.choice([400.0, 3_000.0, 20_000.0, 100_000.0])),
    )


@dataclass
class Run:
    """What the product makes of a market."""

    candidates: Table
    funnel: Table
    paths: Paths
    exits: Table
    ledger: Ledger
    contracts: np.ndarray


class MemoryChains(dict):
    """Chains by ticker, held in memory: what `store.scan` returns, without a store."""

    def __init__(self, sessions: np.ndarray, tables: dict[str, Table]):
        super().__init__({t: Chain.from_table(t, sessions, _normalised(table)) for t, table in tables.items()})
        self.sessions, self.tickers = sessions, tuple(sorted(tables))


def _normalised(table: Table) -> Table:
    return table | {"expiry": last_session_on_or_before(table["expiry"])}


def run_market(market: Market) -> Run:
    """Screen, trace, exit, size and simulate a market with the product's own functions."""
    chains = MemoryChains(market.sessions, market.tables)
    panel = SimpleNamespace(
        tickers=chains.tickers, dates=market.sessions, close=market.close, iv_percentile=market.iv_percentile,
        vix=np.repeat(market.vix[:, None], len(chains.tickers), axis=1), dividends=market.dividends, rate=market.rate,
        splits=market.splits)
    fill = partial(travel, travel=market.fill_travel)
    candidates, funnel = screen(chains, panel, market.entry, fill)
    paths = trace(candidates, chains, panel, fill)
    exits = first_exits(candidates, paths, market.exit, market.costs, market.sessions)
    at = (candidates["day"], candidates["ticker"])
    multiplier, cap = market.multiplier[at], market.max_contracts[at]
    if market.fixed_contracts is None:
        sized = {"risk_fraction": market.fraction * multiplier, "max_contracts": cap}
    else:
        from mahler.sizing.fixed_contracts import fixed_contracts
        sized = fixed_contracts(candidates, panel, multiplier, contracts=market.fixed_contracts)
        lots = sized["max_contracts"]
        sized["max_contracts"] = np.where(cap > 0, np.minimum(lots, cap), lots).astype(np.int32)
    candidates = candidates | sized | {
        "multiplier": multiplier, "regime": np.full(len(multiplier), Regime.NONE, np.int8)}
    ledger = simulate(candidates, paths, exits, panel, market.exit, market.limits, market.breaker, market.costs,
                      initial_equity=market.initial_equity, first_day=0)
    contracts = np.zeros(len(multiplier), np.int64)
    contracts[ledger.trades["candidate"]] = ledger.trades["contracts"]
    return Run(candidates, funnel, paths, exits, ledger, contracts)
