"""Hold the paper account against what its backtest promised; graduate it; rehearse it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, date as Date, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from mahler import cache, document, home, production, schema, stages, tracking
from mahler.backtesting import market, paper_account, prepare
from mahler.config import Backtest, Monitor, Period, plain
from mahler.data import calendar
from mahler.data.store import Chains
from mahler.monitoring import bands, graduation, page, rehearsal, replay
from mahler.monitoring.bands import Bands
from mahler.monitoring.checks import Check, Verdict, checks, worst
from mahler.monitoring.paper import TABLES, Watched, watched
from mahler.monitoring.replay import Parity, Scanner
from mahler.paper import records, stage
from mahler.regime import Multipliers
from mahler.scan import scan
from mahler.schema import ConfigError, Table
from mahler.terminal import ExitStatus, progress, say, table

STATUS = {Verdict.TOO_EARLY: 0, Verdict.OK: 0, Verdict.WATCH: 1, Verdict.STOP: 2}
EXCHANGE = ZoneInfo("America/New_York")
ITSELF = "mahler monitor"


def run(config: Monitor) -> ExitStatus:
    """Do the action. The exit status of a run is 0 ok, 1 watch, 2 stop."""
    return ExitStatus(ACTIONS[config.action](config))


# ---- run -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Reading:
    """The account as it stands: in its stage, and in the stretch of the stage that the bands are for."""

    stage: str
    end: np.datetime64
    since: np.datetime64         # first session of the stage
    tables: dict[str, Table]
    promised: Bands
    seen: Watched                # the stretch
    whole: Watched               # the stage, which what halts is of
    parity: Parity               # of the stretch
    found: list[Check]


def watch(config: Monitor) -> int:
    """Check, print, log, and move the account back where it must halt."""
    now = _read(config)
    synthetic, verdict = bool(now.tables["account"]["synthetic"][0]), worst(now.found)
    table(page.lines(now.found), title=f"{'SYNTHETIC market, ' if synthetic else ''}{now.stage}, {now.seen.start} to "
                                       f"{now.end}: {verdict.value.upper()}")
    for words in page.advice(now.found):
        say(f"  {words}")
    say(f"  {_log(config, now, synthetic)}")
    _halt(config, now)
    return STATUS[verdict]


def _read(config: Monitor) -> Reading:
    tables, told = records.read_all(home.paper_dir(), *TABLES), _told(config)
    if not len(tables["scans"]["date"]):
        raise ConfigError("the paper ledger has no scan yet: mahler scan scan.record=true, session by session")
    started, last = tables["account"]["started"][0], tables["scans"]["date"].max()
    end = _end(config.date, last)
    if end < started:
        raise ConfigError(f"date={config.date}: is before the paper account, which starts on {started}")
    promised = _promised()
    name, since = stage.current(tables["stages"], started, end)
    sessions = calendar.sessions(since, end)
    if not len(sessions):
        raise ConfigError(f"date={end}: the stage {name} begins after it, on {since}")
    start = sessions[(len(sessions) - 1) // promised.rule.horizon * promised.rule.horizon]
    seen, whole = watched(tables, start, end), watched(tables, since, end)
    scanner, chains = _scanner(told, started, last)
    parity = replay.parity(scanner, chains.sessions, tables, config.stages, seen.sessions)
    return Reading(name, end, since, tables, promised, seen, whole, parity,
                   checks(seen, whole, promised, parity, config.stages[name]))


def _told(config: Monitor) -> Backtest:
    return Backtest(**{f.name: getattr(config, f.name) for f in fields(Backtest)})


def _end(asked: str, last: np.datetime64) -> np.datetime64:
    """The session up to which is watched."""
    if asked == "last":
        return last
    day = datetime.now(EXCHANGE).date() if asked == "today" else Date.fromisoformat(asked)
    return calendar.last_session_on_or_before(np.array([day], "datetime64[D]"))[0]


def _promised() -> Bands:
    path = home.project_conf() / "experiment" / production.BANDS
    if not path.is_file():
        raise ConfigError(f"{path} is missing: mahler promote run=ID writes it beside production.yaml")
    return bands.read(json.loads(path.read_text(encoding="utf-8")))


def _scanner(told: Backtest, first: np.datetime64, last: np.datetime64) -> tuple[Scanner, Chains]:
    """The promoted config, ready to scan any session from `first` to `last`, and its chains."""
    chains, series = market(replace(told, period=Period(first.item(), (last + 1).item())))
    prepared = prepare(replace(told, period=Period(first.item(), (last + 1).item())), chains, series)
    return _bound(told, prepared, stages.sized(prepared, told.regime, told.sizing)), chains


def _bound(told: Backtest, prepared: stages.Prepared, sized: Table) -> Scanner:
    return partial(scan, prepared=prepared, sized=sized, rule=told.exit, fill=told.fill, limits=told.limits,
                   breaker=told.breaker, costs=told.costs, config="")


def _log(config: Monitor, now: Reading, synthetic: bool) -> Path:
    """The page, as an artifact of a run of kind monitor; the same page is one run. Returns its path."""
    verdict = worst(now.found).value
    html = document.page(page.blocks(now.seen, now.promised, now.found, now.stage, synthetic=synthetic),
                         f"{verdict}: {now.stage}, {now.end}")
    signature = cache.fingerprint("monitor", html)
    there = tracking.find(signature, config.study)
    if there:
        return there["artifacts"] / "monitor.html"
    tags = tracking.describe(kind="monitor", data_source=now.tables["account"]["source"][0],
                             data_digest=now.tables["scans"]["data_digest"][-1], synthetic=synthetic,
                             universe=config.universe.tickers, overrides=[f"date={now.end}"])
    metrics = {f"{check.name}.{what}": float(value) for check in now.found
               for what, value in (("value", check.value), ("low", check.low), ("high", check.high), ("n", check.n),
                                   ("status", STATUS[check.verdict]))}
    with tracking.run(study=config.study, name=f"monitor {now.end}: {verdict}", signature=signature,
                      params=plain(now.promised.rule), tags=tags | {"verdict": verdict, "stage": now.stage}) as active:
        tracking.log_tables(active, metrics=metrics, tables={}, files={"monitor.html": html})
    return active.artifacts / "monitor.html"


def _halt(config: Monitor, now: Reading) -> None:
    """Move the account back where a halt has fired, once, unless what is watched is the past."""
    why, down = graduation.halted(now.found), config.stages[now.stage].down
    if why and now.end >= now.tables["scans"]["date"].max() and not _moved(now):
        _move(now, down, ITSELF, "halt: " + "; ".join(why))


def _moved(now: Reading) -> bool:
    """Whether the account was moved since the end of what is watched: a move counts from the session after it on."""
    return bool((now.tables["stages"]["moved_at"].astype("datetime64[D]") >= now.end).any())


def _move(now: Reading, to: str, who: str, why: str) -> None:
    """Record a move, at the time of day that it is made, on the last session of the stage it ends."""
    clock = datetime.now(UTC)
    at = now.end.astype("datetime64[s]") + np.timedelta64(clock.hour * 3600 + clock.minute * 60 + clock.second, "s")
    row = {"moved_at": at, "stage": to, "who": who, "why": " ".join(why.split())}
    records.write(home.paper_dir(), {"stages": {name: np.array([row[name]], schema.STAGE_MOVE[name])
                                                for name in schema.STAGE_MOVE.names}})
    say(f"Moved from {now.stage} to {to}, from the session after {now.end} on, by {who}: {row['why']}")


# ---- graduate --------------------------------------------------------------------------------------------------------

def graduate(config: Monitor) -> int:
    """Say what is met and what is missing of the next stage; move where that is asked for."""
    now, asked = _read(config), config.graduate
    here = config.stages[now.stage]
    found = graduation.criteria(now.whole, _parity(config, now), _settled(config, now), here)
    missing = [one for one in found if not one.met]
    table([{"criterion": one.name, "there is": one.there, "asked for": one.asked, "": "met" if one.met else "missing"}
           for one in found], title=f"{now.stage}, since {now.since}; up is {here.up or 'nothing: it is the last stage'}")
    moves = now.tables["stages"]
    for at, name, who, why in zip(*(moves[column].tolist() for column in schema.STAGE_MOVE.names), strict=True):
        say(f"  {at:%Y-%m-%d}: to {name}, by {who}: {why}")
    if asked.to is None:
        say(f'Next:  mahler monitor graduate graduate.to={here.up} graduate.reason="..."' if here.up and not missing else
            f"Missing: {', '.join(one.name for one in missing)}" if missing else "Nothing is above it.")
        return 0
    if now.end < now.tables["scans"]["date"].max():
        raise ConfigError(f"date={now.end}: an account is moved after its last scan, {now.tables['scans']['date'].max()}")
    if _moved(now):
        raise ConfigError(f"graduate.to={asked.to}: the account was moved after {now.end} already; scan the next session first")
    if asked.to == now.stage:
        raise ConfigError(f"graduate.to={asked.to}: the account is there since {now.since}")
    if asked.to == here.up and missing:
        raise ConfigError(f"graduate.to={asked.to}: missing is " + "; ".join(
            f"{one.name} ({one.there}, asked for is {one.asked})" for one in missing))
    if asked.to != here.up and asked.to not in _below(config, now.stage):
        raise ConfigError(f"graduate.to={asked.to}: from {now.stage} the way up is {here.up}, one stage at a time")
    _move(now, asked.to, asked.who or getpass.getuser(), asked.reason)
    return 0


def _parity(config: Monitor, now: Reading) -> Parity:
    """The parity since the stage began, and not only in the last stretch of it."""
    if len(now.seen.sessions) == len(now.whole.sessions):
        return now.parity
    scanner, chains = _scanner(_told(config), now.tables["account"]["started"][0], now.tables["scans"]["date"].max())
    return replay.parity(scanner, chains.sessions, now.tables, config.stages, now.whole.sessions)


def _settled(config: Monitor, now: Reading) -> list[Check]:
    """The checks as they stand; where the stretch is too young to have one, as it stood at the end of the one before."""
    sessions, horizon = now.whole.sessions, now.promised.rule.horizon
    first = len(sessions) - len(now.seen.sessions)
    if not first:
        return now.found
    ended = watched(now.tables, sessions[first - horizon], sessions[first - 1])
    before = {check.name: check for check in checks(ended, now.whole, now.promised, now.parity, config.stages[now.stage])}
    return [before[check.name] if check.verdict is Verdict.TOO_EARLY else check for check in now.found]


def _below(config: Monitor, name: str) -> list[str]:
    """The stages that lead to a stage."""
    found = []
    while (lower := next((low for low, one in config.stages.items() if one.up == name), None)) and lower not in found:
        found.append(name := lower)
    return found


# ---- simulate --------------------------------------------------------------------------------------------------------

def simulate(config: Monitor) -> int:
    """Rehearse the account in worlds that are the model and in worlds with a fault. Status 1 where one is not as promised."""
    told, promised, n = _told(config), _promised(), config.simulate.sessions
    if promised.approved is not None:
        raise ConfigError("mahler monitor simulate rehearses the rules and asks no model, and an LLM layer is promoted: "
                          "promote the run without llm_run to rehearse it")
    chains, series = market(told)
    first = _first(config, chains)
    prepared = prepare(told, chains, series)
    sized = stages.sized(prepared, told.regime, told.sizing)
    halved = stages.sized(prepared, Multipliers([0.5 * m for m in told.regime.multipliers]), told.sizing)
    stuck = prepare(told, rehearsal.frozen(chains, first + n // 3 - 1), None)
    worlds = rehearsal.worlds(
        _bound(told, prepared, sized), _bound(told, prepared, halved),
        _bound(told, prepared, sized | {"risk_fraction": 2.0 * sized["risk_fraction"]}),
        _bound(told, stuck, stages.sized(stuck, told.regime, told.sizing)), promised.fill_share, n // 3)
    account = paper_account(told, chains.sessions[first])
    courses = []
    with progress("rehearse") as bar, rehearsal.scratch() as folder:
        for k, world in enumerate(worlds):
            bar(k, len(worlds), world.name)
            courses.append(rehearsal.run(world, folder / str(k), account, chains.sessions, first, n, promised,
                                         config.stages[stage.FIRST], told.costs, np.random.default_rng(config.simulate.seed)))
    where = "SYNTHETIC market" if account["synthetic"][0] else "real chains"
    table(rehearsal.lines(courses), title=f"{n} sessions from {chains.sessions[first]}, {where}")
    wrong = [course.world.name for course in courses if not course.as_promised]
    say(f"Not as promised: {', '.join(wrong)}" if wrong else "Quiet where nothing is wrong, and loud in time where something is.")
    return int(bool(wrong))


def _first(config: Monitor, chains: Chains) -> int:
    n, start = config.simulate.sessions, config.simulate.start
    first = len(chains.sessions) - n if start is None else int(np.searchsorted(chains.sessions, np.datetime64(start)))
    if first < 0 or first + n > len(chains.sessions):
        raise ConfigError(f"simulate.start={start}: {n} sessions from there are not in the chains, which end on "
                          f"{chains.sessions[-1]}")
    return first


ACTIONS: dict[str, Callable[[Monitor], int]] = {"run": watch, "graduate": graduate, "simulate": simulate}
