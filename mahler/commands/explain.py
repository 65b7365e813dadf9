"""Say what happened on a day of a run, and why there was, or was no, trade."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mahler import explain, ledger as ledgers, stages, tracking
from mahler.backtesting import backtest, market, prepare
from mahler.config import Backtest, Explain, load
from mahler.exits import first_exits
from mahler.ledger import Ledger
from mahler.schema import ConfigError
from mahler.stages import Prepared
from mahler.terminal import say, table

COLUMNS = 100


def run(config: Explain) -> None:
    """Walk the run again from its own config, see that it comes to its own ledger, and print the day."""
    row = find(typed(config.run))
    ledger = ledgers.read(row["artifacts"])
    explain.session(np.datetime64(config.date), ledger.account["date"])       # before anything slow
    told, prepared = again(row, ledger)
    panel, found = prepared.panel, prepared.found
    candidates = stages.sized(prepared, told.regime, told.sizing)
    exits = first_exits(candidates, found.paths, told.exit, told.costs, panel.dates)
    day = explain.session(np.datetime64(config.date), panel.dates)
    today = explain.replay(day, ledger, candidates, found.paths, exits, panel, told.limits, told.breaker, told.costs)

    of_day = ledger.funnel["date"] == panel.dates[day]
    funnel = {name: column[of_day] for name, column in ledger.funnel.items()}
    labels = prepared.labels[day]
    synthetic = "SYNTHETIC market" if row["tags.market"] == "synthetic" else f"{row['tags.data_source']} chains"
    say(explain.verdict(today, funnel, told.entry, panel))          # the answer is one line, however long
    line(f"Run {row['run_id'][:8]} of study {row['study']}: {row['name']}; {synthetic}.")
    for section in explain.sections(today, funnel, candidates, exits, panel, labels, told.regime.multiplier(labels),
                                    told.entry, told.limits, told.breaker, told.costs):
        show(section)


def typed(run: str | int | float, key: str = "run") -> str:
    """The id as it was typed: eight digits of it may look like a number, 12345678 or 1234567e8."""
    if isinstance(run, str):
        return run
    return [o for o in HydraConfig.get().overrides.task if o.startswith(f"{key}=")][-1].removeprefix(f"{key}=")


def find(run: str) -> dict[str, Any]:
    """The run, as a row of tracking.runs. Raises ConfigError where it is none, or has no ledger."""
    row = tracking.last_run("backtest") if run == "last" else tracking.get(run)
    if row is None:
        raise ConfigError("run=last: there is no finished backtest yet; mahler backtest makes one")
    if row.get("tags.kind") != "backtest" or not row["artifacts"].is_dir():
        raise ConfigError(f"run={run}: {row['name']} is no finished backtest: it has no ledger")
    return row


def again(row: dict[str, Any], ledger: Ledger) -> tuple[Backtest, Prepared]:
    """The config of a run and what came before its portfolio, made again.

    Raises ConfigError where walking it again does not come to the ledger: data or code are not what they were.
    """
    what = f"run {row['run_id'][:8]}"
    try:
        config = load(OmegaConf.load(row["artifacts"] / "config.yaml"), Backtest)
    except ConfigError as error:
        raise ConfigError(f"{what}: its config is not one of this version of Mahler: {error}; run it again") from error
    chains, series = market(config)
    prepared = prepare(config, chains, series)
    gap = ledgers.difference(ledger, backtest(config, prepared))
    if gap:
        changed = "chains" if not chains.fingerprint.startswith(row["tags.data_digest"]) else "code or daily series"
        raise ConfigError(f"{what} cannot be told again, its {changed} have changed since: {gap}; run it again")
    return config, prepared


def show(section: explain.Section) -> None:
    """Print one part of the day."""
    say("")
    line(section.title if section.rows else f"{section.title}: none")
    if section.rows:
        table(section.rows)
    for note in section.notes:
        line(note)


def line(text: str) -> None:
    """Print words, folded where they are too long."""
    say(textwrap.fill(text, COLUMNS, subsequent_indent="  "))
