"""Tasks over cores: each process makes its market once, and then works on whatever it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from mahler.schema import ConfigError
from mahler.workers import pool as workers_pool

Setup = Callable[[], Any]
"""Makes what a process works with, its market; picklable, as a function of a module or a functools.partial of one."""

Spread = Callable[[Callable[[Any, Any], Any], Sequence[Any]], Iterator[tuple[Any, Any]]]
"""(work, tasks) -> (task, work(market, task)) of every task, in the order in which they are done."""

_setup: Setup | None = None          # of this worker process
_market: Any = None


def alone(setup: Setup) -> Spread:
    """All tasks in this process: `setup` is called at the first of them and need not be picklable."""
    return partial(_here, [], setup)


@contextmanager
def processes(setup: Setup, workers: int) -> Iterator[Spread]:
    """Worker processes that share one setup each for as long as the block lasts; with one worker, this process.

    They start, and call `setup`, at once: what this process does before its first task costs no time. Never more tasks
    are under way than keep the workers busy, so an early end is quick and memory is bounded. What `setup` or a task
    raises is raised at a task; ConfigError where a worker was killed.
    """
    if workers == 1:
        yield alone(setup)
        return
    with workers_pool(workers, _remember, setup) as pool:
        try:
            for _ in range(workers):
                pool.submit(_begin)
            yield partial(_there, pool, workers)
        except BrokenExecutor as error:
            raise ConfigError(f"workers={workers}: a worker process was killed, most likely for want of memory; "
                              "fewer workers need less") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _here(made: list, setup: Setup, work: Callable[[Any, Any], Any],
          tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    if not made:
        made.append(setup())
    for task in tasks:
        yield task, work(made[0], task)


def _there(pool: ProcessPoolExecutor, workers: int, work: Callable[[Any, Any], Any],
           tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    waiting, under_way = iter(tasks), {}
    # Tasks that `waiting` has given out are under way or done; those under way are twice the workers at most.
    while True:
        for task in islice(waiting, 2 * workers - len(under_way)):
            under_way[pool.submit(_in_worker, work, task)] = task
        if not under_way:
            return
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            yield under_way.pop(future), future.result()


def _remember(setup: Setup) -> None:
    global _setup
    _setup = setup


def _begin() -> None:
    _made()


def _in_worker(work: Callable[[Any, Any], Any], task: Any) -> Any:
    return work(_made(), task)


def _made() -> Any:
    """The market of this process, which its first task makes: what an initializer raises would be lost."""
    global _market
    if _market is None:
        _market = _setup()
    return _market
