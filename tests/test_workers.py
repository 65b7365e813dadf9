"""A worker is gone soon after the process that wanted it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
