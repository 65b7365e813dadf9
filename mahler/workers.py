"""Worker processes, spawned, and gone when the process that wanted them is gone; and threads."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NoReturn

from mahler.schema import ConfigError

PATIENCE = 1.0           # seconds after which a worker looks whether it is still wanted
GRACE = 10.0             # seconds that one which is interrupted may take to stop

_allowed: ContextVar[int] = ContextVar("allowed", default=1)


@contextmanager
def allowing(processes: int) -> Iterator[None]:
    """For as long as the block lasts, so many processes may be used. Without it, and in each of them: one."""
    token = _allowed.set(processes)
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed() -> int:
    """The processes that may be used here, this one among them."""
    return _allowed.get()


def cores() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def in_order(work: Callable[[Any], Any], tasks: Iterable[Any], prepare: Callable[[], None],
             worth: int) -> Iterator[Iterator[Any]]:
    """work(task) of every task, in their order, for as long as the block lasts.

    In as many processes as they are worth, of those that `allowing` allows, in each of which `prepare()` is called
    once; here where that is not two. Both are functions of a module. A few tasks are made ahead and no more. Raises
    ConfigError where a process was killed.
    """
    n = min(worth, allowed())
    if n < 2:
        yield map(work, tasks)
        return
    with pool(n, prepare) as workers:
        try:
            yield _ahead(workers, 4 * n, work, iter(tasks))
        except BrokenExecutor as error:
            raise ConfigError("a worker process was killed, most likely for want of memory") from error
        finally:
            workers.shutdown(cancel_futures=True)


def _ahead(workers: ProcessPoolExecutor, most: int, work: Callable[[Any], Any], tasks: Iterator[Any]) -> Iterator[Any]:
    waiting: deque[Future] = deque()
    while True:
        waiting.extend(workers.submit(work, task) for task in islice(tasks, most - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


@contextmanager
def threads(n: int) -> Iterator[Executor]:
    """So many threads, for work that lets go of the GIL; where the block is left by an exception, what waits is not begun."""
    with ThreadPoolExecutor(n) as made:
        try:
            yield made
        except BaseException:
            made.shutdown(wait=False, cancel_futures=True)
            raise


def pool(workers: int, prepare: Callable[..., None] | None = None, *arguments: object) -> ProcessPoolExecutor:
    """A pool of `workers` processes, in each of which `prepare(*arguments)` is called once.

    Spawned, not forked: a forked child inherits the locks of threads that it does not have. A worker whose
    parent was killed ends within a second or two, instead of waiting for ever for tasks; at Ctrl-C, which the terminal
    sends to all of them, it ends without a word, for its parent has one to say.
    """
    context = SpawnContext()
    context.Process = _Deaf
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin,
                               initargs=(os.getpid(), prepare, arguments))


class Beside:
    """A process beside this one that does one thing at a time, and may be ended in the middle of it.

    It begins with `prepare()` at once. `prepare` and all that it is told to do are functions of modules.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._ours, theirs = Pipe()
        self._process = _Deaf(target=_serve, args=(theirs, os.getpid(), prepare))
        self.is_ready, self._waiting = False, threading.Lock()
        atexit.register(self.end)            # where Ctrl-C comes before anybody can: at exit every process is waited for
        self._process.start()
        theirs.close()

    def ready(self) -> bool:
        """Wait until it is prepared, in however many threads; False where it never is, because it was ended."""
        with self._waiting:
            self.is_ready = self.is_ready or self._said(default=False)
        return self.is_ready

    def do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(*arguments), there. Raises ConfigError where the process was killed, or ended."""
        try:
            self._ours.send((work, arguments))
            answer = self._said(default=_GONE)
        except BrokenPipeError:              # it was killed while it had nothing to do
            answer = _GONE
        if answer is _GONE:
            raise ConfigError("a worker process was killed, most likely for want of memory")
        return answer

    def _said(self, default: Any) -> Any:
        try:
            return self._ours.recv()
        except (EOFError, ConnectionResetError):
            return default

    def end(self) -> None:
        """End it. What it is doing is interrupted, as by Ctrl-C, and has some seconds to put its things in order."""
        atexit.unregister(self.end)
        if self._process.pid is None:
            return
        if self.is_ready and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)
            self._process.join(GRACE)
        self._process.kill()
        self._process.join()


_GONE = object()


def _serve(ours: Connection, parent: int, prepare: Callable[[], None]) -> None:
    """The life of a process beside another, and no longer than that one's."""
    _begin(parent, prepare, ())
    answer: Any = True
    while True:
        try:
            ours.send(answer)
            work, arguments = ours.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        try:
            signal.signal(signal.SIGINT, _interrupt)
            answer = work(*arguments)
            signal.signal(signal.SIGINT, _leave)
        except KeyboardInterrupt:
            _leave()


def _interrupt(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # once: a terminal sends it, and then the parent
    raise KeyboardInterrupt


def _leave(*_: object) -> NoReturn:
    os._exit(130)


class _Deaf(SpawnProcess):
    """A process that hears no Ctrl-C before `_begin`: the second in which it imports would end in a traceback."""

    def start(self) -> None:
        """Start it with the signal blocked, which a process inherits."""
        resource_tracker.ensure_running()            # whose start, with the first process, would unblock it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, prepare: Callable[..., None] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)
