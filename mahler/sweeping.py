"""The jobs of a sweep in several processes: this one, and others beside it, each of which takes the next when it is free.

Hydra's basic launcher for each of them. A job writes its own run and knows nothing of the others; what two of them
need, one makes (`cache.kept`). The others import while this process composes, and what they say is said here, a job at
a time. One that is not there yet when the last job is taken is not waited for.
"""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

import numpy as np
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from mahler import launch, tracking, workers
from mahler.schema import ConfigError
from mahler.terminal import say
from mahler.workers import Beside

APART = ("backtest",)        # verbs whose jobs may run beside one another
WORTH_A_PROCESS = 2          # jobs

log = logging.getLogger("hydra")


class Elsewhere(Exception):
    """A bug met in another process: its traceback."""


class Outcome(NamedTuple):
    """What a job in another process said, and what it came to, or why it was refused."""

    out: str
    err: str
    job: JobReturn | None
    refused: str | None


@contextmanager
def beside(verb: str | None, jobs: int) -> Iterator[list[Beside]]:
    """The processes that are worth starting for so many jobs of a verb, for as long as the block lasts."""
    n = max(min(workers.cores(), jobs // WORTH_A_PROCESS) - 1, 0) if verb in APART else 0
    others = [Beside(partial(_prepare, verb)) for _ in range(n)]
    try:
        yield others
    finally:
        for other in others:
            other.end()


class _Jobs:
    """The jobs of a batch that nobody has taken yet, each composed when it is taken.

    Jobs that run beside one another do not start in their order: they sort in it by their id, which is when the batch
    was begun and their number, "2026-11-26T16:04:46.093/00003".
    """

    def __init__(self, context: HydraContext, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> None:
        self.context, self.master, self.left, self.lock = context, master, list(enumerate(batch, first)), Lock()
        self.begun = np.datetime64("now", "ms")

    def take(self) -> tuple[int, DictConfig] | None:
        with self.lock:
            if not self.left:
                return None
            number, overrides = self.left.pop(0)
            config = self.context.config_loader.load_sweep_config(self.master, list(overrides))
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, f"{self.begun}/{number:05}"
            return number, config

    def stop(self) -> None:
        with self.lock:
            self.left.clear()


def launch_jobs(others: list[Beside], context: HydraContext, verb: str, master: DictConfig,
                batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs of a batch, the first of which has the number `first`, here and in the `others`; in their order.

    Bad input met inside a job, wherever it ran, stops the sweep: what is under way is finished, nothing else begun.
    """
    setup_globals()
    configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    Path(str(master.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    log.info(f"Launching {len(batch)} jobs locally{f', in up to {len(others) + 1} processes' if others else ''}")
    jobs, found, done = _Jobs(context, master, batch, first), {}, SimpleQueue()
    processes = 1 if others else workers.cores()         # for one job: where there are others, they have jobs of their own
    threads = [Thread(target=_lead, args=(other, verb, jobs, done), daemon=True) for other in others]
    for thread in threads:
        thread.start()

    def listen() -> None:
        configure_log(master.hydra.hydra_logging, master.hydra.verbose)
        while not done.empty():
            heard = done.get()
            if isinstance(heard, BaseException):
                raise heard
            number, overrides, outcome = heard
            found[number] = _hear(number, overrides, outcome)

    try:
        while (job := jobs.take()) is not None:
            number, config = job
            _announce(number, config.hydra.overrides.task)
            found[number] = _run(verb, processes, context, config)
            listen()
        _wait(threads, others)
        listen()
    except KeyboardInterrupt:
        with suppress(ConfigError, launch.Refused):      # one that the terminal interrupted as well
            listen()                                     # of what was done before
        raise
    except BaseException:
        jobs.stop()
        _wait(threads, others)
        listen()
        raise
    return [found[number] for number in sorted(found)]


def _lead(other: Beside, verb: str, jobs: _Jobs, done: SimpleQueue) -> None:
    """Give one process job after job, from a thread of its own, and put into `done` what came of each, or what ended it."""
    try:
        if not other.ready():
            return
        while (job := jobs.take()) is not None:
            number, config = job
            done.put((number, list(config.hydra.overrides.task), other.do(_work, verb, config)))
    except BaseException as error:         # is for the thread that listens to raise
        done.put(error)


def _wait(threads: Sequence[Thread], others: Sequence[Beside]) -> None:
    """Until every process has done what it took. One that is not there yet takes nothing any more."""
    for thread, other in zip(threads, others, strict=True):
        if other.is_ready:
            thread.join()


def _hear(number: int, overrides: Sequence[str], outcome: Outcome) -> JobReturn:
    """Say what a job said in another process. Raises Refused where it was refused."""
    _announce(number, overrides)
    for stream, text in ((sys.stdout, outcome.out), (sys.stderr, outcome.err)):
        stream.write(text)
        stream.flush()
    if outcome.refused is not None:
        raise launch.Refused(outcome.refused)
    return outcome.job


def _announce(number: int, overrides: Sequence[str]) -> None:
    """Raises BrokenPipeError where nobody reads any more, which a logger would answer with a page and go on."""
    if log.isEnabledFor(logging.INFO):
        say(f"\t#{number} : {' '.join(filter_overrides(overrides))}")


def _run(verb: str, processes: int, context: HydraContext, config: DictConfig) -> JobReturn:
    return run_job(hydra_context=context, task_function=launch.task(verb, processes), config=config,
                   job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir")


# ---- in another process ------------------------------------------------------------------------------------------------

def _prepare(verb: str) -> None:
    """Import what a job needs."""
    importlib.import_module(f"mahler.commands.{verb}")
    tracking.load()
    setup_globals()
    JobRuntime().set("name", verb)


def _work(verb: str, config: DictConfig) -> Outcome:
    job, refused = None, None
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            job = _run(verb, 1, HydraContext(None, Callbacks(config)), config)
        except launch.Refused as refusal:
            refused = str(refusal)
    if job is not None and job.status is JobStatus.FAILED:
        job.return_value = Elsewhere("".join(traceback.format_exception(job._return_value)))
    return Outcome(out.getvalue(), err.getvalue(), job, refused)
