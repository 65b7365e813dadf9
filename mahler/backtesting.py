"""A backtest from its config: the data it names, what comes before the portfolio, the portfolio."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mahler import cache, config as configs, home, repricing, stages
from mahler import panel as panels
from mahler.config import NOT_THE_RESULT, Backtest
from mahler.data import calendar, daily, store
from mahler.data.daily import Daily
from mahler.data.store import Chains
from mahler.exits import first_exits, max_loss_per_contract
from mahler.ledger import Ledger
from mahler.llm.layer import Book
from mahler.market.turning_points import TICKERS
from mahler.regime import Multipliers
from mahler.schema import PAPER_ACCOUNT, ConfigError, Regime, Table
from mahler.simulate import simulate, walk
from mahler.sizing import effective_multipliers
from mahler.stages import Prepared
from mahler.terminal import progress, say

MOST_MISSING = 2         # sessions in a row that a run may lack: an expiry on one settles on the session before


def settings(config: Backtest) -> dict[str, Any]:
    """What the result of a run depends on beside its data, as plain values; of a validation, its backtest's."""
    return {f.name: configs.plain(getattr(config, f.name)) for f in fields(Backtest)
            if f.name not in NOT_THE_RESULT and f.name != "data"}


def identity(config: Backtest) -> str:
    """The config itself, whatever the period that it is tried on: a digest of `settings` without it."""
    return cache.fingerprint({name: value for name, value in settings(config).items() if name != "period"})


def market(config: Backtest) -> tuple[Chains, Daily | None]:
    """The chains of the universe up to the end of the period, and the daily series that belong to them.

    A synthetic market that is not in the store is made; any other that is not there is a ConfigError.
    """
    source, tickers, period = source_module(config.data), config.universe.tickers, config.period
    root, longest = store_root(config.data), max(config.entry.max_dte, panels.ATM_IV_DTE)
    if source.SYNTHETIC:
        made = make_synthetic(config)
        if made:
            say(f"No chains of {', '.join(tickers)} up to {period.end}: a SYNTHETIC market was made, {root}")
    chains = store.scan(root, tickers, None, period.end, max_dte=longest)
    if chains.sessions[-1] < np.datetime64(period.start):
        raise ConfigError(f"period.start={period.start}: the store {root} ends on {chains.sessions[-1]}")
    *earlier, last = calendar.stretches(chains.sessions, MOST_MISSING)
    if earlier:
        before, after = earlier[-1][-1], last[0]
        if after > np.datetime64(period.start):
            n = len(calendar.sessions(before, after)) - 2
            raise ConfigError(f"{', '.join(tickers)}: {n} sessions in a row are missing between {before} and {after}, "
                              f"and positions cannot be held across them: ingest them, or set period.start={after} or "
                              f"period.end={before}")
        chains = store.scan(root, tickers, after, period.end, max_dte=longest)      # history begins after the hole
    series = source.series(**config.data.keywords) if source.SYNTHETIC else daily.load(home.daily_dir())
    return chains, series


def make_synthetic(config: Backtest) -> bool:
    """Make what the store lacks of the synthetic market; whether that was anything.

    Always from its beginning and in whole years, so that a run does not depend on what was run before it.
    """
    tickers, end = config.universe.tickers, config.period.end
    for ticker in tickers:
        if ticker not in TICKERS:
            raise ConfigError(f"universe.tickers: the synthetic market has {', '.join(TICKERS)}, got {ticker!r}")
    last = source_module(config.data).series(**config.data.keywords).dates[-1]
    if np.datetime64(config.period.start) > last:
        raise ConfigError(f"period.start={config.period.start}: the market ends on {last}")
    with progress("synthetic market") as bar, cache.alone(home.cache_dir(), "synthetic"):
        until = None if end.year >= last.item().year else date(end.year, 12, 31)
        return bool(config.data(home.store_dir(), bar, tickers=tickers, start=None, end=until).partitions)


def source_module(data: partial):
    """The module of a data source: it says where its store is and whether its market is synthetic."""
    return import_module(data.func.__module__)


def store_root(data: partial) -> Path:
    """The store of one source, with the options it was configured with."""
    return home.store_dir() / source_module(data).store_name(**data.keywords)


def paper_account(config: Backtest, started: date | np.datetime64) -> Table:
    """The row of a paper account that a config opens on its first session: schema.PAPER_ACCOUNT."""
    row = {"started": started, "initial_equity": config.initial_equity, "source": store_root(config.data).name,
           "synthetic": source_module(config.data).SYNTHETIC, "commission": config.costs.commission,
           "assignment_fee": config.costs.assignment_fee}
    return {name: np.array([row[name]], PAPER_ACCOUNT[name]) for name in PAPER_ACCOUNT.names}


def prepare(config: Backtest, chains: Chains, series: Daily | None) -> Prepared:
    """What comes before the portfolio, from the cache where it is there."""
    prepared = stages.prepare(chains, series, config.entry, config.fill, config.classifier,
                              np.datetime64(config.period.start), home.cache_dir())
    panels.check_splits(prepared.panel)
    return prepared


def backtest(config: Backtest, prepared: Prepared) -> Ledger:
    """The portfolio: size, admit, and count what is worth knowing of it."""
    candidates = stages.sized(prepared, config.regime, config.sizing)
    exits = first_exits(candidates, prepared.found.paths, config.exit, config.costs, prepared.chains.sessions)
    ledger = simulate(candidates, prepared.found.paths, exits, prepared.panel, config.exit, config.limits,
                      config.breaker, config.costs, initial_equity=config.initial_equity, first_day=prepared.first_day,
                      funnel=prepared.found.funnel)
    one = stages.sized(prepared, Multipliers([1.0] * 4), config.sizing)
    equity = ledger.account["equity"][candidates["day"] - prepared.first_day]
    effective = effective_multipliers(candidates, one, candidates["regime"], equity,
                                      max_loss_per_contract(candidates, config.costs))
    unlabelled = (prepared.labels[prepared.first_day:] == Regime.NONE).any(axis=1).sum()
    ledger.counts.update(
        {"unlabelled_days": float(unlabelled)}
        | {f"dropped_sessions.{ticker}": float(n) for ticker, n in prepared.chains.dropped.items()}
        | {f"funnel.{stage}": float(count.sum()) for stage, count in prepared.found.funnel.items()}
        | {f"effective_multiplier.{regime}": float(x) for regime, x in effective.items()})
    return ledger


def book(config: Backtest, prepared: Prepared) -> Book:
    """The sized candidates of a config, how each would end, and the rules that admit them."""
    candidates = stages.sized(prepared, config.regime, config.sizing)
    exits = first_exits(candidates, prepared.found.paths, config.exit, config.costs, prepared.chains.sessions)
    return Book(candidates, prepared.found.paths, exits, prepared.panel, config.limits, config.breaker, config.costs,
                config.initial_equity, prepared.first_day)


def walked(config: Backtest, book: Book, candidates: Table) -> Ledger:
    """The ledger of a config's book where its candidates are these: some vetoed, some capped."""
    return simulate(candidates, book.paths, book.exits, book.panel, config.exit, book.limits, book.breaker, book.costs,
                    initial_equity=book.initial_equity, first_day=book.first_day)


def fill_axis(config: Backtest, prepared: Prepared) -> dict[str, float]:
    """The metrics of repricing.break_even for this config, whatever its own fill."""
    return repricing.break_even(partial(pnl_at, config, prepared))


def pnl_at(config: Backtest, prepared: Prepared, share: float) -> float:
    """Total P&L, dollars, of this config where every fill travels `share` of the quote: screened and walked anew."""
    found, paths, exits = stages.repriced(prepared.chains, prepared.panel, config.entry, config.exit, config.costs,
                                          prepared.first_day, share, home.cache_dir())
    candidates = stages.sized(prepared, config.regime, config.sizing, found)
    contracts, *_ = walk(candidates, paths, exits, prepared.panel, config.limits, config.breaker, config.costs,
                         initial_equity=config.initial_equity, first_day=prepared.first_day)
    return float(contracts @ exits["pnl"])
