"""Simulate one config over the store, and log it as one MLflow run."""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig

from mahler import config as configs
from mahler import figures, home, ledger as ledgers, metrics, panel as panels, repricing, stages, tracking
from mahler.config import Backtest
from mahler.data import daily, store
from mahler.data.daily import Daily
from mahler.data.store import Chains
from mahler.exits import first_exits, max_loss_per_contract
from mahler.ledger import Ledger
from mahler.regime import Multipliers
from mahler.schema import Regime
from mahler.simulate import simulate, walk
from mahler.sizing import effective_multipliers, erased
from mahler.stages import Prepared
from mahler.terminal import progress, say

NOT_THE_RESULT = ("study", "name", "force", "export_trades")     # settings that change no number
UNNAMED = ("experiment=", "universe", *(f"{setting}=" for setting in NOT_THE_RESULT))    # not part of a run's name


def run(config: Backtest) -> float:
    """One backtest: found, if it was run before, or simulated and logged. Returns its Sharpe ratio."""
    started = time.perf_counter()
    chains, series = market(config)
    signature = tracking.signature(
        {k: v for k, v in configs.plain(config).items() if k not in NOT_THE_RESULT and k != "data"},
        f"{chains.fingerprint} {series.fingerprint if series else None}", tracking.code_version())
    name = config.name or run_name(config)
    found = None if config.force else tracking.find(signature, config.study)
    if found:
        say(f"{name}: found, run {found['run_id'][:8]} of {found['started'][:16]} (force=true runs it again)")
        if config.export_trades:
            ledgers.write_export(ledgers.read(found["artifacts"]), config.export_trades)
        return found.get("sharpe", np.nan)

    synthetic = source_module(config.data).SYNTHETIC
    tags = tracking.describe(kind="backtest", data_source=chains.source, data_digest=chains.fingerprint,
                             synthetic=synthetic, universe=chains.tickers, overrides=overrides())
    with tracking.run(study=config.study, name=name, signature=signature, params=configs.flatten(config),
                      tags=tags) as active:
        prepared = prepare(config, chains, series)
        ledger = backtest(config, prepared)
        ledgers.check(ledger)
        summary = metrics.summary(ledger, risk_free=config.risk_free) | fill_axis(config, prepared)
        page = figures.run_page(ledger, summary, name, subtitle(chains, ledger), synthetic=synthetic)
        tracking.tag(active, {f"source.{what}": where for what, where in prepared.panel.sources.items()})
        tracking.log(active, metrics=summary, ledger=ledger, config_yaml=configs.to_yaml(config), page=page)
    if config.export_trades:
        ledgers.write_export(ledger, config.export_trades)
    report(name, summary, ledger, active.artifacts, time.perf_counter() - started)
    warn_of_rounding(config, summary)
    return summary.get("sharpe", np.nan)


def prepare(config: Backtest, chains: Chains, series: Daily | None) -> Prepared:
    """What comes before the portfolio, from the cache where it is there."""
    return stages.prepare(chains, series, config.entry, config.fill, config.classifier,
                          np.datetime64(config.period.start), home.cache_dir())


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


def fill_axis(config: Backtest, prepared: Prepared) -> dict[str, float]:
    """The metrics of repricing.break_even for this config."""
    known = stages.prices(prepared.found, prepared.chains, prepared.panel, home.cache_dir())
    candidates = stages.sized(prepared, config.regime, config.sizing)

    def pnl(travel: float) -> float:
        repriced, paths = repricing.at(travel, candidates, prepared.found.paths, known)
        exits = first_exits(repriced, paths, config.exit, config.costs, prepared.chains.sessions)
        contracts, *_ = walk(repriced, paths, exits, prepared.panel, config.limits, config.breaker, config.costs,
                             initial_equity=config.initial_equity, first_day=prepared.first_day)
        return float(contracts @ exits["pnl"])

    return repricing.break_even(pnl)


def market(config: Backtest) -> tuple[Chains, Daily | None]:
    """The chains of the universe up to the end of the period, and the daily series that belong to them.

    A synthetic market that is not in the store is made; any other that is not there is a ConfigError.
    """
    source, tickers, period = source_module(config.data), config.universe.tickers, config.period
    root = store_root(config.data)
    if source.SYNTHETIC:
        with progress("synthetic market") as bar:
            made = config.data(home.store_dir(), bar, tickers=tickers, start=period.start, end=period.end)
        if made.partitions:
            say(f"No chains of {', '.join(tickers)} for this period: a SYNTHETIC market was made, {root}")
    chains = store.scan(root, tickers, None, period.end, max_dte=max(config.entry.max_dte, panels.ATM_IV_DTE))
    series = source.series(**config.data.keywords) if source.SYNTHETIC else daily.load(home.daily_dir())
    return chains, series


def source_module(data: partial):
    """The module of a data source: it says where its store is and whether its market is synthetic."""
    return import_module(data.func.__module__)


def store_root(data: partial) -> Path:
    """The store of one source, with the options it was configured with."""
    return home.store_dir() / source_module(data).store_name(**data.keywords)


def overrides() -> list[str]:
    """What was typed, or set by the study, for this run."""
    return list(HydraConfig.get().overrides.task)


def run_name(config: Backtest) -> str:
    """A name that a colleague understands: what is traded, and what differs from the control."""
    changed = [o for o in (override.lstrip("+") for override in overrides()) if not o.startswith(UNNAMED)]
    return f"{'+'.join(sorted(config.universe.tickers))} {', '.join(changed) or 'control'}"


def subtitle(chains: Chains, ledger: Ledger) -> str:
    """Period, market and data of a run, in one line."""
    dates = ledger.account["date"]
    return (f"{', '.join(chains.tickers)}, {dates[0]} to {dates[-1]}, {chains.source} chains "
            f"{chains.fingerprint[:8]}, {len(ledger.trades['pnl'])} trades")


def report(name: str, summary: dict[str, float], ledger: Ledger, artifacts: Path, seconds: float) -> None:
    """What came out, where it lies; and, where nothing was traded, at which stage the candidates were lost."""
    shown = [f"{label} {summary[key]:{form}}" for label, key, form in (
        ("CAGR", "cagr", ".2%"), ("Sharpe", "sharpe", ".2f"), ("max drawdown", "max_drawdown", ".1%"),
        ("trades", "trades", ".0f")) if key in summary]
    say(f"{name}: {', '.join(shown)}  ({seconds:.1f} s)  {artifacts / 'page.html'}")
    if not ledger.counts["candidates"]:
        lost = ", ".join(f"{k.removeprefix('funnel.')} {v:.0f}" for k, v in ledger.counts.items() if k.startswith("funnel"))
        say(f"  no candidate at all: {lost}. True 5-15 delta, 5-wide spreads pay 2 to 8 % of their width: "
            "see entry.min_credit_to_width.")


def warn_of_rounding(config: Backtest, summary: dict[str, float]) -> None:
    """Say so where whole contracts erase the difference between multipliers: such a run tests nothing."""
    nominal = {r.name.lower(): m for r, m in zip(list(Regime)[1:], config.regime.multipliers, strict=True)}
    prefix = "effective_multiplier."
    effective = {k.removeprefix(prefix): v for k, v in summary.items() if k.startswith(prefix)}
    for a, b in erased(nominal, effective):
        say(f"  rounding erases the multipliers of {a} ({nominal[a]:g}) and {b} ({nominal[b]:g}): both are "
            f"{effective[a]:.2f} in whole contracts; a larger sizing or initial_equity would tell them apart")
