"""Simulate one config over the store, and log it as one MLflow run."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mahler import config as configs
from mahler import data_page, figures, home, ledger as ledgers, metrics, stages, tracking, trials
from mahler.backtesting import backtest, fill_axis, identity, market, prepare, settings, source_module, store_root
from mahler.config import NOT_THE_RESULT, Backtest
from mahler.data import calendar, quality
from mahler.data.quality import Quality, Verdict
from mahler.data.store import Chains
from mahler.ledger import Ledger
from mahler.schema import ConfigError, Regime
from mahler.simulate import stopped_for_good
from mahler.sizing import erased
from mahler.stages import Prepared
from mahler.terminal import progress, say
from mahler.trials import Trial

INGEST_ONLY = {"data.tickers": "universe.tickers", "data.start": "period.start", "data.end": "period.end",
               "data.path": "the store that `mahler ingest` filled"}
LOOKING_BACK = ("iv_percentile", "realized_vol", "momentum", "trend")    # of the panel: what needs a history
FEW = 63            # sessions, a quarter: of fewer, a figure a year is an extrapolation
UNNAMED = ("experiment=", "universe", *(f"{setting}=" for setting in NOT_THE_RESULT))    # not part of a run's name


def run(config: Backtest) -> float:
    """One backtest: found, if it was run before, or simulated and logged. Returns its Sharpe ratio."""
    started = time.perf_counter()
    refuse_ingest_options()
    chains, series = market(config)
    signature = tracking.signature(
        settings(config), f"{chains.fingerprint} {series.fingerprint if series else None}", tracking.code_version())
    name = config.name or run_name(config)
    judged = judge(config, chains)
    found = None if config.force else tracking.find(signature, config.study)
    if found:
        say(f"{name}: found, run {found['run_id'][:8]} of {found['started'][:16]} (force=true runs it again)")
        if config.export_trades:
            ledgers.write_export(ledgers.read(found["artifacts"]), config.export_trades)
        return found.get("sharpe", np.nan)

    synthetic = source_module(config.data).SYNTHETIC
    tags = tracking.describe(kind="backtest", data_source=chains.source, data_digest=chains.fingerprint,
                             synthetic=synthetic, universe=chains.tickers, overrides=overrides())
    tags |= {"config": identity(config)} | ({"job": job()} if job() else {})
    with tracking.run(study=config.study, name=name, signature=signature, params=configs.flatten(config),
                      tags=tags) as active:
        prepared = prepare(config, chains, series)
        ledger = backtest(config, prepared)
        ledgers.check(ledger)
        summary = metrics.summary(ledger, risk_free=config.risk_free) | fill_axis(config, prepared)
        warnings = {"rounding": rounded_away(config, summary), "stopped": stopped(config, ledger)}
        said = [words for found in warnings.values() for words in found]
        page = figures.run_page(ledger, summary, name, subtitle(chains, ledger), synthetic=synthetic, warnings=said)
        tracking.tag(active, {f"source.{what}": where for what, where in prepared.panel.sources.items()}
                     | {"quality": quality.worst(judged, config.period.start.year, config.period.end.year)}
                     | {kind: "; ".join(found) for kind, found in warnings.items() if found})
        tracking.log(active, metrics=summary, ledger=ledger, config_yaml=configs.to_yaml(config), page=page,
                     files={"quality.html": data_page.page(judged, f"{chains.source} chains", synthetic=synthetic),
                            "quality.json": quality.to_json(judged)})
    trials.record(store_root(config.data), [
        Trial(signature, config.study, "backtest", ",".join(chains.tickers), 1, tags["config"], str(config.period.start),
              str(config.period.end))])
    if config.export_trades:
        ledgers.write_export(ledger, config.export_trades)
    report(name, summary, ledger, active.artifacts, time.perf_counter() - started)
    warn_of_coverage(config, prepared)
    for words in said:
        say(f"  {words}")
    return summary.get("sharpe", np.nan)


def judge(config: Backtest, chains: Chains) -> Quality:
    """How good the data of the run are; years of its period that are not to be used are said."""
    with progress("quality of") as bar:
        judged = stages.quality(chains, config.quality, home.cache_dir(), bar)
    unfit = quality.judged(judged, Verdict.DO_NOT_USE, config.period.start.year, config.period.end.year)
    if unfit:
        said = [f"{year} ({why})" for year, why in unfit.items()]
        say(f"DO NOT USE: {'; '.join(said[:3])}{f' and {len(said) - 3} more years' if len(said) > 3 else ''}; "
            "see quality.html of the run")
    return judged


def refuse_ingest_options() -> None:
    """Raise ConfigError for options of the data that only an ingest has."""
    for override in overrides():
        key, _, value = override.lstrip("+").partition("=")
        if key in INGEST_ONLY:
            raise ConfigError(f"{key}={value}: is for mahler ingest; a backtest has {INGEST_ONLY[key]}")


def overrides() -> list[str]:
    """What was typed, or set by the study, for this run."""
    return list(HydraConfig.get().overrides.task)


def job() -> str:
    """The id of a job of a sweep, by which such jobs sort in their order and among times; "" of any other run."""
    if not HydraConfig.initialized():
        return ""
    running = HydraConfig.get().job
    return running.id if not OmegaConf.is_missing(running, "id") and "/" in running.id else ""


def run_name(config: Backtest) -> str:
    """A name that a colleague understands: what is traded, and what differs from the control."""
    changed = [o for o in (override.lstrip("+") for override in overrides())
               if not o.startswith(UNNAMED) or o == "experiment=production"]
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
        hint = "" if ledger.counts["funnel.paid_enough"] else (
            ". True 5-15 delta, 5-wide spreads pay 2 to 8 % of their width: see entry.min_credit_to_width")
        say(f"  no candidate at all: {lost}{hint}")
    elif not len(ledger.trades["pnl"]):
        turned = {k.removeprefix("rejected."): v for k, v in ledger.counts.items() if k.startswith("rejected.")}
        why = ", ".join(f"{reason} {n:.0f}" for reason, n in sorted(turned.items(), key=lambda item: -item[1]))
        say(f"  {ledger.counts['candidates']:.0f} candidates and no trade: {why}")


def warn_of_coverage(config: Backtest, prepared: Prepared) -> None:
    """Say what of the period, of the history before it and of the daily series the run does not have."""
    sessions, dropped = prepared.chains.sessions, prepared.chains.dropped
    first, last = sessions[prepared.first_day], sessions[-1]
    missing = len(calendar.sessions(config.period.start, config.period.end)) - (len(sessions) - prepared.first_day)
    if missing:
        say(f"  {missing} sessions of {config.period.start} to {config.period.end} are not in the store: "
            f"the run is of {first} to {last}")
    if len(sessions) - prepared.first_day < FEW:
        say(f"  {len(sessions) - prepared.first_day} sessions are few: CAGR, Sharpe and all else that is by the year is "
            "extrapolated from them")
    unknown = [name for name in LOOKING_BACK if np.isnan(getattr(prepared.panel, name)[prepared.first_day:]).all()]
    if unknown:
        say(f"  missing on every session, for want of history: {', '.join(unknown)}")
    if any(dropped.values()):
        say("  sessions dropped because another ticker lacks them: "
            + ", ".join(f"{ticker} {n}" for ticker, n in dropped.items() if n))
    for what, where in prepared.panel.sources.items():
        if "lacks" in where:
            say(f"  {what}: {where}")


def rounded_away(config: Backtest, summary: dict[str, float]) -> list[str]:
    """Where whole contracts erase the difference between multipliers, in words: such a run tests nothing of them."""
    nominal = {r.name.lower(): m for r, m in zip(list(Regime)[1:], config.regime.multipliers, strict=True)}
    prefix = "effective_multiplier."
    effective = {k.removeprefix(prefix): v for k, v in summary.items() if k.startswith(prefix)}
    size = " or ".join(f"sizing.{key}" for key in config.sizing.keywords)
    return [f"rounding erases the multipliers of {a} ({nominal[a]:g}) and {b} ({nominal[b]:g}): both are "
            f"{effective[a]:.2f} in whole contracts; a larger {size} would tell them apart"
            for a, b in erased(nominal, effective)]


def stopped(config: Backtest, ledger: Ledger) -> list[str]:
    """Where the drawdown breaker ended the strategy, in words: what the run says by the year is of an idle account."""
    since = stopped_for_good(ledger, config.breaker)
    if since is None:
        return []
    dates, equity = ledger.account["date"], ledger.account["equity"]
    peak = max(ledger.initial_equity, float(equity.max()))
    return [f"the drawdown breaker lets in no trade any more from {since} on: nothing is open, and equity stands still "
            f"{1.0 - equity[-1] / peak:.1%} below its peak for the last {np.count_nonzero(dates >= since)} of "
            f"{len(dates)} sessions, which all figures by the year count"]
