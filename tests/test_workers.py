"""A worker is gone soon after the process that wanted it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from mahler import workers
from mahler.schema import ConfigError

SCRIPT = """
import os, sys, time
from mahler.workers import pool

def mark(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(0.2)

if __name__ == "__main__":
    with pool(2) as workers:
        for future in [workers.submit(mark, sys.argv[1]) for _ in range(8)]:
            future.result()
        print("ready", flush=True)
        workers.submit(time.sleep, 600)
        time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_ends_when_its_parent_was_killed(tmp_path) -> None:
    script, marks = tmp_path / "parent.py", tmp_path / "marks"
    script.write_text(SCRIPT)
    marks.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(marks)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    pids = [int(p.name) for p in marks.iterdir()]
    assert len(pids) == 2 and all(map(_alive, pids))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, pids))


@pytest.mark.parametrize("text", [SCRIPT, """
import time
from mahler.workers import pool

if __name__ == "__main__":
    with pool(1) as workers:
        workers.submit(time.sleep, 600).result()
print("ready", flush=True)           # by the worker, which imports this first
time.sleep(0.5)
"""], ids=["at work", "at its imports"])
def test_an_interrupt_is_said_by_the_parent_alone(text, tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(text)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout.readline() == "ready\n"
    os.killpg(parent.pid, signal.SIGINT)             # as a terminal does: to the workers too
    said = parent.communicate(timeout=20)[1]
    assert said.count("Traceback") == 1 and "BrokenProcessPool" not in said and said.endswith("KeyboardInterrupt\n")


def nothing() -> None:
    """What a process needs no more than."""


def slow_if_first(k: int) -> tuple[int, int]:
    if k == 0:
        time.sleep(0.3)
    return k, os.getpid()


def die(_: int) -> None:
    os._exit(9)


@pytest.mark.parametrize("allowed, worth, started", [(2, 9, 2), (3, 2, 2), (2, 1, 0), (2, 0, 0), (1, 9, 0)])
def test_results_come_in_the_order_of_their_tasks_from_as_many_processes_as_are_allowed_and_worth_it(
        allowed, worth, started, monkeypatch):
    pool, asked = workers.pool, [0]
    monkeypatch.setattr(workers, "pool", lambda n, *rest: asked.append(n) or pool(n, *rest))
    drawn: list[int] = []
    tasks = (drawn.append(k) or k for k in range(30))
    with workers.allowing(allowed), workers.in_order(slow_if_first, tasks, nothing, worth) as results:
        assert next(results)[0] == 0 and len(drawn) < 10             # a few ahead, and no more
        found = list(results)
    assert [k for k, _ in found] == list(range(1, 30))
    assert asked[-1] == started and (os.getpid() not in {pid for _, pid in found}) == (started > 0)


def test_a_killed_process_is_said() -> None:
    with pytest.raises(ConfigError, match="a worker process was killed"), workers.allowing(2), \
            workers.in_order(die, range(3), nothing, 2) as results:
        list(results)


def sleep_until_interrupted(mark: Path) -> None:
    try:
        mark.with_suffix(".begun").touch()
        time.sleep(600)
    finally:
        mark.touch()


def test_a_process_beside_this_one_does_one_thing_after_another_and_is_ended() -> None:
    other = workers.Beside(nothing)
    assert other.ready() and other.do(pow, 2, 10) == 1024
    pid = other.do(os.getpid)
    assert pid != os.getpid() and other.do(os.getpid) == pid
    other.end()
    assert not _alive(pid)


def test_what_a_process_beside_this_one_does_is_interrupted_at_its_end_and_may_clean_up(tmp_path: Path) -> None:
    mark, errors = tmp_path / "mark", []
    other = workers.Beside(nothing)
    assert other.ready()

    def wait() -> None:
        with pytest.raises(ConfigError, match="killed"):
            other.do(sleep_until_interrupted, mark)
        errors.append("told")

    thread = threading.Thread(target=wait)
    thread.start()
    while not mark.with_suffix(".begun").exists():
        time.sleep(0.01)
    other.end()
    thread.join(10)
    assert mark.exists() and errors == ["told"]


def test_a_process_beside_this_one_that_is_killed_is_said() -> None:
    other = workers.Beside(nothing)
    assert other.ready()
    with pytest.raises(ConfigError, match="killed"):
        other.do(os._exit, 1)
    other.end()


def test_a_process_beside_this_one_that_was_killed_while_it_had_nothing_to_do_is_said() -> None:
    other = workers.Beside(nothing)
    assert other.ready()
    os.kill(other.do(os.getpid), signal.SIGKILL)
    other._process.join(10)
    with pytest.raises(ConfigError, match="killed"):
        other.do(pow, 2, 10)
    other.end()


def test_of_two_threads_that_wait_for_a_process_each_learns_that_it_is_there() -> None:
    """Those of two batches of a sweep, of which the first was done before the process was there."""
    other, said = workers.Beside(partial(time.sleep, 0.5)), []
    threads = [threading.Thread(target=lambda: said.append(other.ready()), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    other.end()
    assert said == [True, True]


def test_a_process_that_nobody_ended_does_not_keep_this_one_from_leaving() -> None:
    program = "import time\nfrom mahler import workers\nif __name__ == '__main__':\n    kept = workers.Beside(time.time)\n"
    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)


def test_a_process_whose_parent_was_killed_while_it_worked_ends_without_a_word() -> None:
    program = ("import os, threading, time\nfrom mahler import workers\nif __name__ == '__main__':\n"
               "    other = workers.Beside(time.time)\n    assert other.ready()\n"
               "    threading.Thread(target=other.do, args=(time.sleep, 0.3)).start()\n"
               "    time.sleep(0.1)\n    os.kill(os.getpid(), 9)\n")
    done = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True, text=True)   # until stderr is let go of
    assert done.returncode == -9 and done.stderr == ""


def square_elsewhere(x: int) -> int:
    with workers.pool(1) as pool:
        return pool.submit(pow, x, 2).result()


def test_a_process_beside_this_one_may_have_processes_of_its_own() -> None:
    other = workers.Beside(nothing)
    assert other.ready() and other.do(square_elsewhere, 3) == 9
    other.end()


def test_a_process_that_is_ended_before_it_is_there_is_never_ready() -> None:
    other = workers.Beside(nothing)
    other.end()
    assert not other.ready()
