"""Say what the production config trades on one session: tickets, and why nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, date as Date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hydra.core.hydra_config import HydraConfig

from mahler import home, ledger as ledgers, production, scan_page, stages, tracking
from mahler.backtesting import identity, market, paper_account, prepare, source_module, store_root
from mahler.commands.explain import line, show
from mahler.config import Backtest, Period, Scan
from mahler.data import store
from mahler.llm.decided import recorded
from mahler.llm.loop import Decide
from mahler.paper import account as accounts, records, stage
from mahler.scan import Scan as Found, record, scan
from mahler.schema import ConfigError, Table
from mahler.terminal import progress, say

EXCHANGE = ZoneInfo("America/New_York")


def run(config: Scan) -> None:
    """Scan the session, print it, write it as JSON and append it to the paper ledger where that is asked for."""
    day = datetime.now(EXCHANGE).date() if config.date == "today" else Date.fromisoformat(config.date)
    told = Backtest(**{f.name: getattr(config, f.name) for f in fields(Backtest)})
    folder, root = home.paper_dir(), store_root(config.data)
    _check_fresh(told, day)
    tables = records.read_all(folder, *accounts.OF_AN_ACCOUNT, "stages", "decisions")
    account = _account(tables["account"], told, day)
    started = account["started"][0]
    if np.datetime64(day) < started:
        raise ConfigError(f"date={day} is before the paper account, which starts on {started}")

    with _layer(config, tables) as decide:
        found, chains_digest = _scan(config, told, day, tables | {"account": account}, decide)
    synthetic = source_module(config.data).SYNTHETIC
    header = {"market": "SYNTHETIC" if synthetic else "real", "source": root.name, "data_digest": chains_digest,
              "config": identity(told)[:12], "code_version": tracking.code_version(),
              "stage": _stage(tables, started, day)}
    done = _keep(config, found, account, header)        # before it is printed: who reads may have had enough
    say(scan_page.verdict(found))
    line(f"{'SYNTHETIC market' if synthetic else 'Chains'} {root.name}; production config {header['config']}; stage "
         f"{header['stage']}, size x {config.stages[header['stage']].size_multiplier:g}.")
    for section in scan_page.sections(found, config.entry):
        show(section)
    say("")
    for text in done:
        say(text)


def _keep(config: Scan, found: Found, account: Table, header: dict[str, str]) -> list[str]:
    """Write the JSON and the record that are asked for; what was done, in words."""
    folder, text = home.paper_dir(), scan_page.to_json(found, header)
    done = [_write(config.scan.json, text)] if config.scan.json else []
    if not config.scan.record:
        return [*done, "Not recorded: scan.record=true appends it to the paper ledger."]
    now = np.datetime64(datetime.now(UTC).replace(tzinfo=None), "s")
    new = record(folder, found, account, {name: header[name] for name in (
        "data_digest", "config", "code_version", "stage")} | {"recorded_at": now})
    if not new:
        return [*done, f"Recorded already, and the same: {folder / records.FILE}"]
    return [*done, _write(folder / "scans" / f"{found.date}.json", text), f"Recorded: {folder / records.FILE}"]


def _scan(config: Scan, told: Backtest, day: Date, tables: dict[str, Table], decide: Decide | None) -> tuple[Found, str]:
    """The session, from chains that end on it; and their digest."""
    held = accounts.account(tables, np.datetime64(day)).positions["position"]
    opened = tables["tickets"]["date"][np.isin(tables["tickets"]["ticket_id"].astype(str), held.astype(str))]
    first = min([day - timedelta(days=7), *(date.item() for date in opened)])         # what is held needs no hole since
    chains, series = market(replace(told, period=Period(first, day)))
    _check_session(chains.sessions, day)
    prepared = prepare(replace(told, period=Period(day, day + timedelta(days=1))), chains, series)
    sized = stages.sized(prepared, config.regime, config.sizing)
    name = _stage(tables, tables["account"]["started"][0], day)
    return scan(len(chains.sessions) - 1, prepared, sized, tables, rule=config.exit, fill=config.fill,
                limits=config.limits, breaker=config.breaker, costs=config.costs, stage=name,
                size_multiplier=config.stages[name].size_multiplier, config=identity(told)[:12],
                decide=decide), chains.fingerprint


def _stage(tables: dict[str, Table], started: np.datetime64, day: Date) -> str:
    return stage.current(tables["stages"], started, np.datetime64(day))[0]


def _account(recorded: Table, told: Backtest, day: Date) -> Table:
    """The account's row, of the ledger or, where it has none yet, of the config: schema.PAPER_ACCOUNT."""
    source = store_root(told.data).name
    if len(recorded["started"]):
        if recorded["source"][0] != source:
            raise ConfigError(f"the paper ledger is of the store {recorded['source'][0]}, and the production config reads "
                              f"{source}: they never mix; MAHLER_HOME moves the project to one with a ledger of its own")
        return recorded
    return paper_account(told, day)


# ---- the LLM layer ---------------------------------------------------------------------------------------------------

@contextmanager
def _layer(config: Scan, tables: dict[str, Table]) -> Iterator[Decide | None]:
    """What the promoted LLM layer decides, and has decided already; None where none was promoted, or it is not scanned."""
    folder = home.project_conf() / "experiment"
    chosen = HydraConfig.get().runtime.choices.get("experiment") == "production" and (folder / production.JSON).is_file()
    promoted = production.read(folder) if chosen else {"llm": "off"}
    if promoted["llm"] == "off":
        yield None
        return
    from mahler.llm import asking                               # pydantic: a fifth of a second that only asking needs
    from mahler.llm.client import Client
    from mahler.llm.replies import Replies

    llm, prompt, context = production.layer(promoted, cache_only=config.scan.cache_only, max_cost=config.scan.max_cost)
    with Replies(home.replies_path()) as replies, progress("ask") as bar, \
            Client(llm, replies, say, random.Random(0)) as client:
        yield recorded(tables["decisions"], partial(
            asking.ask, client=client, prompt=prompt, context=context, known=_known(promoted["run_id"], tables["tickets"]),
            progress=bar, asked=[]))


def _known(run_id: str, tickets: Table) -> list[dict[str, Any]]:
    """The entry days and VIX that a context may compare with: those of the promoted run, and of the opens since its last."""
    records = ledgers.export(ledgers.read(tracking.get(run_id)["artifacts"]))
    last = np.datetime64(max(record["date"] for record in records))
    since = np.flatnonzero((tickets["action"] == "open") & (tickets["date"] > last) & ~np.isnan(tickets["vix"]))
    return records + [{"date": str(tickets["date"][k]), "vix": float(tickets["vix"][k])} for k in since]


# ---- what has to be there --------------------------------------------------------------------------------------------

def _check_fresh(told: Backtest, day: Date) -> None:
    """Raise ConfigError where the store ends before `day`: what is not there is not scanned."""
    source = source_module(told.data)
    if source.SYNTHETIC:
        last, more = source.series(**told.data.keywords).dates[-1].item(), "the synthetic market goes no further"
    else:
        last = store.scan(store_root(told.data), told.universe.tickers, None, None).sessions[-1].item()
        more = "mahler ingest brings the day"
    if last < day:
        raise ConfigError(f"date={day}: the chains of {', '.join(told.universe.tickers)} end on {last}, "
                          f"{(day - last).days} days before: {more}")


def _check_session(sessions: np.ndarray, day: Date) -> None:
    """Raise ConfigError where the chains up to `day` do not end on it."""
    if sessions[-1].item() != day:
        from mahler.data.calendar import is_session              # a second to import: only where something is wrong

        why = "it is a session, and not every ticker has chains on it" if is_session(np.array([day], "datetime64[D]"))[0] \
            else f"a {day:%A}, it is no session"
        raise ConfigError(f"date={day}: {why}; the last before it is {sessions[-1]}")


def _write(path: Path, text: str) -> str:
    """Write a file and say so; its folder is made. Raises ConfigError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return f"JSON: {path}"
