"""Read a source into the store, with a quality report."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig

from mahler import home, panel as panels
from mahler.backtesting import MOST_MISSING, source_module
from mahler.commands import data_report
from mahler.config import Ingest
from mahler.data import calendar, quality, store
from mahler.terminal import progress, say


def run(config: Ingest) -> None:
    """Ingest, then say what is in the store, how good it is, and what can be done with it."""
    with progress("ingest") as bar:
        done = config.data(home.store_dir(), bar)
    for line in done.notes:
        say(line)
    if done.planned:
        return
    say(f"{len(done.partitions)} partitions written to {done.root}")
    for line in quality.summary(done):
        say(line)
    there = [ticker for ticker in done.counts if store.partitions(done.root, ticker)]
    if there:
        data_report.show(done.root, there, config.quality)
        of_store = list(inspect.signature(source_module(config.data).store_name).parameters)
        say(f"A picture of its days: {_command('data-report', [*of_store, 'tickers'])}")
        say(f"Next: {_backtest(done.root, there, of_store)}")


def _command(verb: str, options: Sequence[str], *more: str) -> str:
    """A command for the shell: what was typed of these options of the data is repeated, and of the quality."""
    chosen = HydraConfig.get()
    keys = {f"data.{option}" for option in options}
    typed = [override for override in chosen.overrides.task
             if (key := override.lstrip("+").partition("=")[0]) in keys or key.partition(".")[0] == "quality"]
    return shlex.join(["mahler", verb, f"data={chosen.runtime.choices['data']}", *typed, *more])


def _backtest(root: Path, tickers: Sequence[str], options: Sequence[str]) -> str:
    """The command that trades what is in the store since its last hole, or why there is none."""
    parts = quality.partitions(root, tickers)
    shallow = [info for infos in parts.values() for info in infos
               if info.max_dte is not None and info.max_dte < panels.ATM_IV_DTE]
    if shallow:
        return (f"ingest again with data.max_dte={panels.ATM_IV_DTE} or more: a backtest needs rows of so many calendar "
                f"days, {shallow[0].path} has them up to {shallow[0].max_dte}")
    shared = reduce(np.intersect1d, (np.concatenate([info.sessions for info in infos]) for infos in parts.values()))
    if len(shared) < 2 or len(last := calendar.stretches(shared, MOST_MISSING)[-1]) < 2:
        return f"ingest more: a backtest needs two sessions of {' and '.join(tickers)} without a hole in between"
    return _command("backtest", options, f"universe.tickers=[{','.join(tickers)}]", f"period.start={last[0]}",
                    f"period.end={last[-1]}")
