"""`make bench`: speed and memory of every stage, as JSON lines and a table. Not part of the tests.

Every figure is a median of several runs in one process, but for those of a whole command and of a cold
run, which have a process of their own. The store is the synthetic market's, of three tickers and 19 years.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

ALL, ONE = ["SPY", "QQQ", "IWM"], ["SPY"]
START, END = date(2007, 1, 1), date(2025, 12, 31)
TARGETS = {
    "walk, 3 tickers, 19 years": (0.5e-3, "s"), "100 configs warm, 3 tickers": (1.0, "s"),
    "cold run, 1 ticker, from the store": (1.5, "s"), "peak memory, cold, 3 tickers": (1.5, "GB"),
    "synthetic store, 3 tickers": (120.0, "s"), "synthetic store, size": (0.25, "GB"),
    "regime grid of 12 runs, from the shell": (15.0, "s"),
    "regime grid of 12 runs, from the shell, nothing cached": (15.0, "s"), "validate of the 12-run study": (90.0, "s"),
    "walk-forward of 10,000 trials, 1 ticker": (60.0, "s"), "read 1 ticker, 19 years": (0.6, "s"),
    "IVs per second": (2e6, "1/s"),             # at least
    "calls of a model per second, 64 at a time": (150.0, "1/s"), "kept replies per second": (5000.0, "1/s"),
    "an ORATS day of 213 MiB": (3.0, "s"), "peak memory of 252 ORATS days, 2 processes": (2.0, "GB"),
}
DENSE = """# @package _global_
defaults: [override /universe: spy]
study: dense
method: {shifts: [0]}
grid:
  exit.profit_target: [0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9]
  sizing.fraction: [0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05]
  limits.max_positions: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  limits.max_heat: [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2]
"""
RESULTS: list[dict] = []


def record(what: str, value: float, unit: str, runs: int = 1) -> None:
    """Print one figure as a JSON line and keep it for the table."""
    target = TARGETS.get(what, (None, None))[0]
    RESULTS.append({"what": what, "value": value, "unit": unit, "runs": runs, "target": target})
    print(json.dumps(RESULTS[-1]), flush=True)


def timed(function: Callable[[], object], runs: int) -> float:
    """Median seconds of `function`, after one call to warm it up."""
    function()
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def default_config(*overrides: str, verb: str = "backtest"):
    """The default config of a backtest, or of an evaluation."""
    from hydra import compose, initialize_config_dir

    from mahler.config import Backtest, Evaluate, load
    from mahler.home import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose(verb, list(overrides)), {"backtest": Backtest, "evaluate": Evaluate}[verb])


def cold(universe: str) -> None:
    """One cold run in this process: no cache, imports done first. Prints seconds per stage as JSON."""

    from mahler import metrics, panel as panels, repricing
    from mahler.commands import backtest as command
    from mahler.data import store
    from mahler.exits import first_exits
    from mahler.paths import trace
    from mahler.screen import screen
    from mahler.simulate import simulate, walk

    config = default_config(f"universe={universe}", "classifier=rule")
    series = command.source_module(config.data).series(**config.data.keywords)
    marks, begin = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        marks[name], begin = now - begin, now

    chains = store.scan(command.store_root(config.data), config.universe.tickers, None, END, max_dte=60)
    for ticker in chains.tickers:
        chains[ticker]
    lap("read")
    panel = panels.build(chains, series)
    lap("panel")
    candidates, _ = screen(chains, panel, config.entry, config.fill)
    lap("screen")
    paths = trace(candidates, chains, panel, config.fill)
    lap("trace")
    exits = first_exits(candidates, paths, config.exit, config.costs, chains.sessions)
    lap("exits")
    labels = config.classifier(panel)
    at = (candidates["day"], candidates["ticker"])
    multiplier = config.regime.multiplier(labels)[at]
    candidates |= {"regime": labels[at], "multiplier": multiplier}
    candidates |= config.sizing(candidates, panel, multiplier)
    lap("labels and sizes")
    ledger = simulate(candidates, paths, exits, panel, config.exit, config.limits, config.breaker, config.costs,
                      initial_equity=config.initial_equity, first_day=0)
    lap("simulate")
    metrics.summary(ledger)
    lap("metrics")
    offered = repricing.read(chains, panel, config.entry, 0)

    def pnl(share: float) -> float:
        found, traced, ends = repricing.at(share, offered, config.entry, config.exit, config.costs, chains.sessions)
        at = (found["day"], found["ticker"])
        columns = found | {"regime": labels[at], "multiplier": config.regime.multiplier(labels)[at]}
        columns |= config.sizing(columns, panel, columns["multiplier"])
        contracts, *_ = walk(columns, traced, ends, panel, config.limits, config.breaker, config.costs,
                             initial_equity=config.initial_equity, first_day=0)
        return float(contracts @ ends["pnl"])

    repricing.break_even(pnl)
    lap("fill axis")
    rows = sum(len(chains[t].day) for t in chains.tickers)
    print(json.dumps({"stages": marks, "rows": rows, "candidates": len(candidates["day"]),
                      "path_entries": len(paths.mid), "trades": len(ledger.trades["pnl"]),
                      "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))


def warm() -> None:
    """The stages that a sweep repeats, on cached candidates and paths of three tickers."""
    from mahler import home, metrics, stages
    from mahler.commands import backtest as command
    from mahler.exits import first_exits
    from mahler.regime import Multipliers
    from mahler.simulate import Limits, simulate, walk

    config = default_config("universe=all", "classifier=rule")
    chains, series = command.market(config)
    panel = stages.panel(chains, series, home.cache_dir())
    opportunities = partial(stages.opportunities, chains, panel, config.entry, config.fill, 0, home.cache_dir())
    found = opportunities()
    labels = config.classifier(panel)
    at = (found.candidates["day"], found.candidates["ticker"])
    exits = first_exits(found.candidates, found.paths, config.exit, config.costs, chains.sessions)

    def sized(multipliers: list[float]) -> dict:
        multiplier = Multipliers(multipliers).multiplier(labels)[at]
        columns = found.candidates | {"regime": labels[at], "multiplier": multiplier}
        return columns | config.sizing(columns, panel, multiplier)

    candidates = sized([1.0] * 4)
    arguments = dict(initial_equity=config.initial_equity, first_day=0)
    record("walk, 3 tickers, 19 years", timed(lambda: walk(
        candidates, found.paths, exits, panel, config.limits, config.breaker, config.costs, **arguments), 50), "s", 50)
    record("first exits, 3 tickers", timed(lambda: first_exits(
        found.candidates, found.paths, config.exit, config.costs, chains.sessions), 5), "s", 5)

    def grid() -> None:
        for k in range(10):
            columns = sized([1.0, 1.0 - 0.05 * k, 0.9 - 0.05 * k, 0.8 - 0.05 * k])
            for heat in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
                limits = Limits(5, heat, heat, 0.5, 3, ALL)
                metrics.summary(simulate(columns, found.paths, exits, panel, config.exit, limits, config.breaker,
                                         config.costs, **arguments))

    record("100 configs warm, 3 tickers", timed(grid, 3), "s", 3)


def volatilities() -> None:
    """Implied volatilities of a million random options, on one core: an ingest has a process for each."""
    from mahler import bsm
    from test_implied import random_options         # tests/ is where this program lies

    options, iv = random_options(1_000_000, seed=1)
    value = bsm.price(**options, iv=iv)
    record("IVs per second", 1e6 / timed(lambda: bsm.implied_volatility(value, **options), 5), "1/s", 5)


def orats_day(folder: Path, day, size: int) -> None:
    """A zip of a day of `size` bytes: all rows that SPY, QQQ and IWM had in 2024, the rest of other tickers."""
    import zipfile

    import numpy as np
    from test_orats import COLUMNS_39, csv_text

    def rows(ticker: str, n: int) -> list[dict[str, str]]:
        expiries = (day + np.timedelta64(7, "D") * np.arange(1, 31)).astype(object)
        return [{"ticker": ticker, "strike": f"{300 + k // 30}", "delta": f"{rng.random():.8f}",
                 "expirDate": f"{expiries[k % 30]:%m/%d/%Y}", "trade_date": f"{day.astype(object):%m/%d/%Y}"}
                | {name: f"{rng.random():.7f}" for name in ("cMidIv", "pMidIv", "smoothSmvVol", "gamma", "theta", "vega")}
                | {name: f"{20 * rng.random():.2f}" for name in ("cBidPx", "cAskPx", "pBidPx", "pAskPx")} for k in range(n)]

    rng = np.random.default_rng(int(day.astype(int)))
    wanted = csv_text([*rows("IWM", 3000), *rows("QQQ", 4250), *rows("SPY", 3900)], COLUMNS_39)
    other = csv_text(rows("ZZZ", 4000), COLUMNS_39).partition("\n")[2] if size > len(wanted) else ""
    name = f"ORATS_SMV_Strikes_{str(day).replace('-', '')}"
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(f"{name}.csv", "w") as member:
            member.write(wanted.encode())
            for k in range((size - len(wanted)) // max(len(other), 1)):
                member.write(other.replace("ZZZ,", f"Z{k:03},").encode())


def read_orats(folder: str, workers: int) -> None:
    """An ingest in this process, imports done first. Prints seconds and the memory of all its processes as JSON."""
    from mahler.data import calendar, orats

    calendar.every()
    with tempfile.TemporaryDirectory() as root:
        begin = time.perf_counter()
        orats.ingest(Path(root), lambda *_: None, path=Path(folder), tickers=ALL, start=None, end=None, max_dte=None,
                     aliases={}, workers=workers)
        seconds = time.perf_counter() - begin
    peak = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "peak_gb": peak[0] + (workers * peak[1] if workers > 1 else 0)}))


def ingests() -> None:
    """A large ORATS day, and the days of a year: longer histories are read a year at a time."""
    from mahler.data.calendar import sessions

    def measured(folder: Path, workers: int) -> dict[str, float]:
        done = subprocess.run([sys.executable, __file__, "orats", str(folder), str(workers)], check=True,
                              capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as folder:
        large, year = Path(folder, "large"), Path(folder, "year")
        large.mkdir(), year.mkdir()
        days = sessions("2024-01-01", "2024-12-31")
        orats_day(large, days[1], 213 << 20)
        record("an ORATS day of 213 MiB", statistics.median(measured(large, 1)["seconds"] for _ in range(3)), "s", 3)
        for day in days:
            orats_day(year, day, 0)
        record("252 ORATS days, 1 process", measured(year, 1)["seconds"], "s")
        two = measured(year, 2)
        record("252 ORATS days, 2 processes", two["seconds"], "s")
        record("peak memory of 252 ORATS days, 2 processes", two["peak_gb"], "GB")


def model() -> None:
    """Calls of a model on this machine that thinks for 50 ms, and its replies from the store; trades to decisions."""
    import random

    from llm_records import records             # tests/ is where this program lies

    from mahler import workers
    from mahler.llm import asking
    from mahler.llm.client import Client
    from mahler.llm.prompt import messages
    from mahler.llm.replies import Replies

    server = subprocess.Popen([sys.executable, Path(__file__).with_name("llm_server.py"), "0.05"],
                              stdout=subprocess.PIPE, text=True)
    try:
        config = default_config("llm=local", "llm.model=hosted_vllm/no_skill", "llm.concurrency=64",
                                f"llm.api_base={server.stdout.readline().strip()}", verb="evaluate")
        trades = records(4000, skill=0.0)
        with workers.allowing(workers.cores()), tempfile.TemporaryDirectory() as folder, \
                Replies(Path(folder, "replies.sqlite")) as replies, \
                Client(config.llm, replies, lambda line: None, random.Random(1)) as client:
            def ask(some: list) -> None:
                table = asking.ask(some, client=client, prompt=config.prompt, context=config.context, known=trades,
                                   progress=lambda *_: None, asked=[])
                assert (table["status"] == "decision").all()

            ask(trades[:1000])                  # litellm is there in every process, and its connections are open
            ours, theirs = [], []
            for first in range(1000, len(trades), 600):          # in turn: a machine is not as quick all the time
                begin = time.perf_counter()
                ask(trades[first:first + 600])
                between = time.perf_counter()
                questions = iter([messages(config.prompt, f"question {first + k}") for k in range(600)])
                client._runner.run(alone(client, questions))
                ours.append(600 / (between - begin))
                theirs.append(600 / (time.perf_counter() - between))
            record("calls of a model per second, 64 at a time", statistics.median(ours), "1/s", len(ours))
            record("calls of litellm alone per second, 64 at a time, 1 process", statistics.median(theirs), "1/s", len(theirs))
            record("kept replies per second", len(trades) / timed(lambda: ask(trades), 5), "1/s", 5)
    finally:
        server.terminate()


async def alone(client, questions: Iterator[list]) -> None:
    """The calls that a client would make, without the client: what litellm itself takes."""
    import asyncio

    import litellm

    async def work() -> None:
        for question in questions:
            await litellm.acompletion(**client._arguments(client.llm.request(question, client._schema, 0)))

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(work())


def shell(arguments: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of a command."""
    begin = time.perf_counter()
    subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Everything, in a home of its own that is thrown away."""
    volatilities()
    ingests()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MAHLER_HOME": folder}
        mahler = str(Path(sys.executable).with_name("mahler"))
        record("synthetic store, 3 tickers", shell([mahler, "ingest", "data=synthetic"], environment), "s")
        size = sum(f.stat().st_size for f in Path(folder, "data/chains").rglob("*.parquet"))
        record("synthetic store, size", size / 1e9, "GB")
        for universe, count in (("spy", 1), ("all", 3)):
            made = []
            for _ in range(3):
                done = subprocess.run([sys.executable, __file__, "cold", universe], env=environment, check=True,
                                      capture_output=True, text=True)
                made.append(json.loads(done.stdout.splitlines()[-1]))
            tickers = "1 ticker" if count == 1 else f"{count} tickers"
            for stage in made[0]["stages"]:
                name = f"read {tickers}, 19 years" if stage == "read" else f"  {stage}, {tickers}"
                record(name, statistics.median(m["stages"][stage] for m in made), "s", 3)
            record(f"cold run, {tickers}, from the store",
                   statistics.median(sum(m["stages"].values()) for m in made), "s", 3)
            record(f"peak memory, cold, {tickers}", statistics.median(m["peak_gb"] for m in made), "GB", 3)
            for what in ("rows", "candidates", "path_entries", "trades"):
                record(f"  {what}, {tickers}", made[0][what], "")
        for program in ("warm", "model"):
            done = subprocess.run([sys.executable, __file__, program], env=environment, check=True, capture_output=True,
                                  text=True)
            for line in done.stdout.splitlines():
                if line.startswith("{"):
                    found = json.loads(line)
                    record(found["what"], found["value"], found["unit"], found["runs"])
        grid = [mahler, "backtest", "experiment=regime_grid"]
        record("regime grid of 12 runs, from the shell, nothing cached", shell(grid, environment), "s")
        record("regime grid of 12 runs, from the shell",
               statistics.median(shell([*grid, "force=true"], environment) for _ in range(3)), "s", 3)
        record("validate of the 12-run study", shell([mahler, "validate", "study=regime_grid"], environment), "s")
        Path(folder, "own/experiment").mkdir(parents=True)
        Path(folder, "own/experiment/dense.yaml").write_text(DENSE, encoding="utf-8")
        dense = [mahler, "validate", f"--config-dir={folder}/own", "experiment=dense"]
        record("walk-forward of 10,000 trials, 1 ticker", shell(dense, environment), "s")
        record("walk-forward of 10,000 trials, 1 ticker, four starts",
               shell([*dense, "method.shifts=[0,5,10,15]"], environment), "s")
        record("mahler --help", statistics.median(shell([mahler, "--help"], environment) for _ in range(5)), "s", 5)


def show() -> None:
    """The figures as a Markdown table: what, median, target, and whether it was met."""
    print("\n| what | median | target | |\n| :-- | --: | --: | :-- |")
    for result in RESULTS:
        value = f"{result['value']:,.4g} {result['unit']}" if result["unit"] else f"{result['value']:,.0f}"
        target, more = result["target"], result["unit"] == "1/s"
        met = "" if target is None else ("met" if (result["value"] >= target) == more or result["value"] == target else "MISSED")
        print(f"| {result['what'].strip()} | {value} | {'' if target is None else f'{target:,.4g}'} | {met} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["cold"]:
        cold(sys.argv[2])
    elif sys.argv[1:2] == ["warm"]:
        warm()
    elif sys.argv[1:2] == ["model"]:
        model()
    elif sys.argv[1:2] == ["orats"]:
        read_orats(sys.argv[2], int(sys.argv[3]))
    else:
        main()
        show()
