"""Worker processes: spawned, and gone when the process that wanted them is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

PATIENCE = 1.0           # seconds after which a worker looks whether it is still wanted


def pool(workers: int, prepare: Callable[..., None] | None = None, *arguments: object) -> ProcessPoolExecutor:
    """A pool of `workers` processes, in each of which `prepare(*arguments)` is called once.

    Spawned, not forked: a forked child inherits the locks of threads that it does not have. A worker whose
    parent was killed ends within a second or two, instead of waiting for ever for tasks.
    """
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin,
                               initargs=(os.getpid(), prepare, arguments))


def _begin(parent: int, prepare: Callable[..., None] | None, arguments: tuple) -> None:
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)
