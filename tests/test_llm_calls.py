"""Calls that are made in another process: the same replies, the same key in no other place, and nothing lost with it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mahler import workers
from mahler.llm import calls, client as clients
from mahler.llm.calls import Callers, Unsaid
from mahler.llm.client import Client
from mahler.llm.prompt import messages
from mahler.llm.replies import Replies
from tests.llm_server import KEY, LlmServer
from tests.test_llm_client import QUIET, asked, base


@pytest.fixture(scope="module")
def server():
    with LlmServer(latency=0.02) as running:
        yield running


@pytest.fixture(autouse=True)
def few_are_worth_a_process(monkeypatch):
    monkeypatch.setattr(clients, "QUESTIONS", 1)


@contextmanager
def two(server: LlmServer, model: str, folder: Path, **settings):
    """A client with another process that is ready, and that process."""
    llm = replace(base().llm, model=f"openai/{model}", api_base=server.api_base, concurrency=64, backoff=0.01, **settings)
    with workers.allowing(2), Replies(folder / "replies.sqlite") as replies, \
            Client(llm, replies, QUIET, random.Random(1)) as client:
        client.ask(questions(folder, 2, "to begin"), QUIET)
        [other] = client._callers._others
        client._runner.run(until_ready(other))
        yield client, other


def questions(folder: Path, n: int, what: str) -> list:
    return [messages(base().prompt, f"{what}: trade {k} of {folder.name}") for k in range(n)]


async def until_ready(other) -> None:
    async with asyncio.timeout(60):
        while not other.ready:
            await asyncio.sleep(0.02)


def test_replies_are_those_of_one_process_and_both_make_calls(server, tmp_path):
    before = len(server.asked)
    with two(server, "no_skill", tmp_path) as (client, other):
        answers = client.ask(questions(tmp_path, 150, "both"), QUIET)
        made_there = next(other._numbers)
    assert all(answer.status == "decision" for answer in answers) and client.calls == len(server.asked) - before == 152
    assert 30 < made_there < 140 and server.most_at_once <= 64
    assert other._process.returncode == -signal.SIGKILL
    llm = replace(base().llm, model="openai/no_skill", api_base=server.api_base)
    with Replies(tmp_path / "alone.sqlite") as replies, Client(llm, replies, QUIET, random.Random(1)) as client:
        alone = client.ask(questions(tmp_path, 150, "both"), QUIET)
    assert [answer.decision for answer in alone] == [answer.decision for answer in answers]


def test_calls_of_a_process_that_is_gone_are_made_again_and_a_bug_there_is_seen(server, tmp_path, capfd):
    ended: list[asyncio.Task] = []
    with two(server, "no_skill", tmp_path, max_failed=1) as (client, other):
        def end(done: int, total: int, note: str) -> None:
            if done == 40:
                ended.append(asyncio.ensure_future(other.call({"nonsense": 1}, 1.0)))

        answers = client.ask(questions(tmp_path, 150, "gone"), end)
        assert all(answer.status == "decision" for answer in answers) and client.failed == 0
        assert 152 < client.calls <= 152 + 64                   # what was on its way there was asked once more
        assert all(answer.status == "decision" for answer in client.ask(questions(tmp_path, 5, "after"), QUIET))
    assert ended[0].result() == Unsaid("the process that made the call is gone")
    assert "TypeError" in capfd.readouterr().err


def test_what_goes_wrong_there_is_told_in_the_same_words_and_without_the_key(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_KEY", KEY)
    with two(server, "echo_key", tmp_path, key="LOCAL_KEY") as (client, _):
        client._callers._here = 10 ** 6                        # whatever is on its way there, it is less than here
        server.faults["echo_key"] = ["list"]                    # a text that is none, of which libraries warn
        answers = client.ask(questions(tmp_path, 3, "echoed"), QUIET)
        assert KEY not in repr(answers) and all(answer.replies for answer in answers)
        for fault, words in (("401", "refused"), ("400", "400")):
            server.faults["echo_key"] = [fault]
            with pytest.raises(clients.ConfigError, match=words) as refused:
                client.ask(questions(tmp_path, 1, fault), QUIET)
            assert KEY not in str(refused.value)
            client._refusal = ""
    said = capfd.readouterr()
    assert not server.faults["echo_key"] and said.out + said.err == ""
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_process_that_is_stopped_is_given_up_in_time_and_its_calls_are_made_here(server, tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "GRACE", 0.5)
    with two(server, "no_skill", tmp_path, timeout=2.0) as (client, other):
        os.kill(other._process.pid, signal.SIGSTOP)
        answers = client.ask(questions(tmp_path, 70, "stopped"), QUIET)
        assert all(answer.status == "decision" for answer in answers) and client.failed == 0
        assert other._process.returncode == -signal.SIGKILL


def test_a_reply_to_a_call_that_has_just_been_given_up_is_no_error_and_the_end_waits_for_none_that_is_stopped():
    async def give_up() -> None:
        other = await calls._Caller.start()
        try:
            await until_ready(other)
            late, other._waiting[8] = (asyncio.get_running_loop().create_future() for _ in range(2))
            other._waiting[7] = late
            late.cancel()
            for number in (7, 8):
                other._process.stdout.feed_data(calls._frame([number, False, asdict(Unsaid("late"))]))
            assert await other._waiting[8] == Unsaid("late")
        finally:
            os.kill(other._process.pid, signal.SIGSTOP)
            await other.close()

    asyncio.run(asyncio.wait_for(give_up(), 60))


def test_it_ends_without_a_word_when_nobody_listens_any_more(server):
    with subprocess.Popen([sys.executable, "-P", "-m", "mahler.llm.calls"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout.read(calls.LENGTH)
        process.stdout.close()
        process.stdin.write(calls._frame([0, {"model": "openai/no_skill", "api_base": server.api_base, "api_key": "none",
                                              "messages": messages(base().prompt, "a trade of nobody")}, 60.0]))
        process.stdin.flush()
        assert process.wait(30) == 0 and process.stderr.read() == b""


def test_few_questions_and_few_calls_at_a_time_stay_in_one_process(server, tmp_path, monkeypatch):
    started = []

    async def start(self: Callers, processes: int) -> None:
        started.append(processes)

    monkeypatch.setattr(Callers, "start", start)
    with workers.allowing(4):
        asked(server, "no_skill", tmp_path / "a", concurrency=16, questions=9)
        asked(server, "no_skill", tmp_path / "b", concurrency=64, questions=9)
        monkeypatch.setattr(clients, "QUESTIONS", 9)
        asked(server, "no_skill", tmp_path / "c", concurrency=64, questions=9)
    asked(server, "no_skill", tmp_path / "d", concurrency=64, questions=9)
    assert started == [0, 2, 1, 1]


def test_a_client_that_ends_before_its_first_call_imports_nothing_for_it():
    code = """
import asyncio, sys
from mahler.llm.calls import Callers
asyncio.run(Callers().close())
assert "litellm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


ORPHAN = """
import asyncio
from mahler.llm.calls import Callers
from tests.test_llm_calls import until_ready

async def wait():
    callers = Callers()
    await callers.start(2)
    [other] = callers._others
    await until_ready(other)
    print(other._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(wait())
"""


def test_it_ends_with_a_client_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parent.parent) as process:
        other = int(process.stdout.readline())
        os.kill(other, 0)
        process.kill()
    deadline = time.monotonic() + 30
    while _runs(other):
        assert time.monotonic() < deadline, "the other process outlived its client"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
