"""Asking a model: every way in which it can answer, and every way in which a call can go wrong."""

from __future__ import annotations

import logging
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mahler.llm.client import Client, DryRun, read
from mahler.llm.prompt import messages
from mahler.llm.replies import Replies, Reply, key
from mahler.schema import ConfigError
from tests.conftest import evaluate_config
from tests.llm_server import KEY, LlmServer

QUIET = lambda *_: None     # noqa: E731  a progress, and a say


@pytest.fixture(scope="module")
def server():
    with LlmServer() as running:
        yield running


@cache
def base():
    """The config of `llm=local`."""
    return evaluate_config("llm=local")


def asked(server: LlmServer, model: str, folder: Path, questions: int = 1, say=QUIET, **settings):
    """The answers of a model to questions that differ, and the client that asked them; `settings` are of the llm."""
    llm = replace(base().llm, model=f"hosted_vllm/{model}", api_base=server.api_base,
                  **{"backoff": 0.01, "max_failed": 1000, **settings})
    ask = [messages(base().prompt, f"trade {k} of {folder.name}") for k in range(questions)]
    with Replies(folder / "replies.sqlite") as replies, Client(llm, replies, say, random.Random(1)) as client:
        return client.ask(ask, QUIET), client


def test_questions_that_are_alike_are_paid_for_once(server, tmp_path):
    said = []
    llm = replace(base().llm, model="hosted_vllm/no_skill", api_base=server.api_base)
    question = messages(base().prompt, f"one trade of {tmp_path.name}")
    with Replies(tmp_path / "replies.sqlite") as replies, Client(llm, replies, said.append, random.Random(1)) as client:
        answers = client.ask([question] * 3, QUIET)
        assert client.calls == 1 and len({answer.replies for answer in answers}) == 1
        client.ask([messages(base().prompt, "another round")], QUIET)
    assert client.calls == 2 and len(said) == 1 and said[0].startswith("hosted_vllm/no_skill: 1 call for 3 replies (2 are there)")


# ---- what a model may say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, status, calls", [
    ("always_approve", "decision", 1), ("no_skill", "decision", 1), ("prose", "decision", 1), ("repaired", "decision", 2),
    ("half_json", "invalid", 2), ("two_objects", "invalid", 2), ("words", "invalid", 2), ("wrong_types", "invalid", 2),
    ("out_of_range", "invalid", 2), ("contradiction", "invalid", 2), ("nothing", "invalid", 2), ("half_a_character", "decision", 1), ("echo", "invalid", 2),
    ("refusal", "refused", 1), ("filtered", "refused", 1)])
def test_every_reply_ends_in_its_class_after_at_most_one_repair(server, tmp_path, model, status, calls):
    [answer], client = asked(server, model, tmp_path)
    assert (answer.status, client.calls, len(answer.replies)) == (status, calls, calls)
    assert (answer.decision is not None) == (status == "decision")
    [again], silent = asked(server, model, tmp_path)
    assert silent.calls == 0 and again.cached and again.status == status and again.replies == answer.replies


def test_a_repair_shows_the_validators_message_and_an_invalid_reply_is_kept_raw(server, tmp_path):
    [answer], _ = asked(server, "out_of_range", tmp_path)
    assert '"p_profit": 1.2' in answer.replies[0].text
    *_, echoed, problem = server.asked[-1]["messages"]
    assert echoed == {"role": "assistant", "content": answer.replies[0].text}
    assert "p_profit: Input should be less than or equal to 1" in problem["content"]


def test_without_repair_an_invalid_reply_is_asked_once(server, tmp_path):
    [answer], client = asked(server, "half_json", tmp_path, repair=False)
    assert answer.status == "invalid" and client.calls == 1


def test_a_word_for_refusing_in_a_decision_refuses_nothing():
    reply = Reply('{"reason": "I cannot refuse", "p_profit": 0.7, "decision": "approve", "confidence": 0.7, "contracts": 1}',
                  "", "stop", "", "", "", "", 0, 0, 0.0, 0.0)
    assert read(reply)[0] == "decision"


def test_the_schema_is_strict_and_its_fields_are_in_the_order_in_which_they_inform_each_other(server, tmp_path):
    asked(server, "always_approve", tmp_path)
    sent = server.asked[-1]["response_format"]["json_schema"]
    assert sent["strict"] is True and sent["schema"]["additionalProperties"] is False
    assert sent["schema"]["required"] == ["reason", "p_profit", "decision", "confidence", "contracts"]
    assert server.asked[-1]["temperature"] == 0.0 and server.asked[-1]["seed"] == 16


# ---- what may happen to a call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "503", "408", "409", "reset", "cut", "html"])
def test_a_call_that_fails_is_tried_again_and_one_that_never_succeeds_is_failed_and_not_kept(server, tmp_path, fault):
    model = "no_skill"
    server.faults[model] = [fault] * 2
    [answer], client = asked(server, model, tmp_path)
    assert answer.status == "decision" and client.calls == 3
    server.faults[fault] = []
    [answer], client = asked(server, fault, tmp_path, attempts=3)
    assert (answer.status, answer.replies, client.calls, client.failed) == ("failed", (), 3, 1)
    with Replies(tmp_path / "replies.sqlite") as replies:
        assert len(replies) == 1


def test_a_slow_reply_is_given_up_in_time_without_tries_that_are_not_ours(server, tmp_path):
    asked(server, "always_approve", tmp_path)           # litellm is there
    before, begin = len(server.asked), time.perf_counter()
    [answer], client = asked(server, "slow", tmp_path, timeout=0.3, attempts=2)
    assert answer.status == "failed" and client.calls == 2
    assert len(server.asked) - before == 2 and time.perf_counter() - begin < 1.8


def test_retry_after_is_honoured_by_every_call_and_one_that_is_too_long_stops_all(server, tmp_path):
    asked(server, "always_approve", tmp_path)
    server.faults["no_skill"] = ["429"]
    begin = time.perf_counter()
    answers, client = asked(server, "no_skill", tmp_path, concurrency=1, questions=2)
    assert time.perf_counter() - begin >= 1.0 and client.calls == 3 and {a.status for a in answers} == {"decision"}
    with pytest.raises(ConfigError, match="asks to wait 1 s, llm.max_wait is 0"):
        asked(server, "429", tmp_path, max_wait=0.5)


@pytest.mark.parametrize("fault", ["401", "404", "400"])
def test_what_no_call_can_do_better_stops_them_all_in_one_line(server, tmp_path, fault, monkeypatch):
    monkeypatch.setenv("LOCAL_KEY", KEY)
    before = len(server.asked)
    with pytest.raises(ConfigError) as refused:
        asked(server, fault, tmp_path, key="LOCAL_KEY", concurrency=1, questions=20)
    assert len(server.asked) - before == 1
    assert "\n" not in str(refused.value) and KEY not in str(refused.value) and KEY[:12] not in str(refused.value)


def test_too_many_failures_stop_and_keep_what_was_answered(server, tmp_path):
    server.faults["no_skill"] = ["500"] * 6
    with pytest.raises(ConfigError, match="llm.max_failed=3"):
        asked(server, "no_skill", tmp_path, attempts=2, max_failed=3, concurrency=1, questions=10)
    answers, client = asked(server, "no_skill", tmp_path, questions=10)
    assert client.calls == 10 and all(answer.status == "decision" for answer in answers)


# ---- pace, budget, estimate ------------------------------------------------------------------------------------------


def test_no_more_calls_are_on_their_way_than_allowed(tmp_path):
    with LlmServer(latency=0.5) as server:              # long enough for seven to set out on a busy machine
        answers, client = asked(server, "no_skill", tmp_path, concurrency=7, questions=21)
        assert client.calls == len(answers) == 21 and server.most_at_once == 7


def test_a_minute_has_no_more_calls_than_allowed(server, tmp_path):
    asked(server, "always_approve", tmp_path)
    begin = time.perf_counter()
    asked(server, "no_skill", tmp_path, requests_per_minute=600, questions=8)
    assert time.perf_counter() - begin >= 0.7


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_budget_stops_within_one_calls_cost_per_slot_and_the_same_command_goes_on(server, tmp_path, concurrency):
    prices = dict(input_cost_per_token=0.0, output_cost_per_token=0.001, concurrency=concurrency)
    before, said = len(server.asked), []                # 60 tokens a reply: 6 cents
    with pytest.raises(ConfigError, match="llm.max_cost=0.6 dollars are spent") as refused:
        asked(server, "no_skill", tmp_path, max_cost=0.6, **prices, questions=40)
    first = len(server.asked) - before                  # those that were on their way when it was spent included
    assert f"; {first} calls cost ${0.06 * first:.4f}; " in str(refused.value)
    assert 10 <= first <= 10 + concurrency - 1
    with Replies(tmp_path / "replies.sqlite") as replies:
        assert len(replies) == first
    answers, client = asked(server, "no_skill", tmp_path, **prices, questions=40, say=said.append)
    assert client.calls == 40 - first and all(a.status == "decision" for a in answers)
    assert said == [f"hosted_vllm/no_skill: {40 - first} calls for 40 replies ({first} are there), about "
                    f"${0.06 * (40 - first):,.2f} at 60 tokens a reply, at most ${40 - first:,.2f}"]


def test_a_dry_run_says_the_cost_and_calls_nothing(server, tmp_path):
    before, said = len(server.asked), []
    with pytest.raises(DryRun):
        asked(server, "no_skill", tmp_path, dry_run=True, questions=3, say=said.append)
    assert len(server.asked) == before and said[0].startswith("hosted_vllm/no_skill: 3 calls for 3 replies (0 are there)")


def test_without_litellm_one_line_says_what_to_install(server, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^llm.model=hosted_vllm/no_skill: .* pip install -e '.\[llm\]'"):
        asked(server, "no_skill", tmp_path)


@pytest.mark.parametrize("model", ["free", "pays"])
def test_a_cost_that_is_no_number_of_dollars_lifts_no_budget(server, tmp_path, model):
    prices = dict(input_cost_per_token=0.0, output_cost_per_token=0.001, concurrency=1)
    with pytest.raises(ConfigError, match="llm.max_cost=0.1 dollars"):
        asked(server, model, tmp_path, max_cost=0.1, **prices, questions=4)
    with Replies(tmp_path / "replies.sqlite") as replies:
        assert len(replies) == 2


def test_an_unknown_price_is_refused_before_the_first_call(server, tmp_path):
    before = len(server.asked)
    with pytest.raises(ConfigError, match="its price is not known; set llm.input_cost_per_token"):
        asked(server, "no_skill", tmp_path, input_cost_per_token=None, output_cost_per_token=None)
    assert len(server.asked) == before


# ---- the store of replies --------------------------------------------------------------------------------------------


def test_a_key_changes_with_all_that_changes_the_reply_and_with_nothing_else():
    def name(text: str = "a", sample: int = 0, schema: str = "object", **settings) -> str:
        return key(replace(base().llm, **settings).request(messages(base().prompt, text), schema, sample))

    same = [name(), name(timeout=1.0), name(attempts=1), name(concurrency=1), name(max_cost=1.0), name(samples=3),
            name(api_base=f"{base().llm.api_base}/")]
    other = [name("b"), name(sample=1), name(schema="array"), name(model="hosted_vllm/b"), name(temperature=1.0), name(seed=1),
             name(max_tokens=5), name(json_schema=False), name(route={"provider": "one"}),
             name(api_base="http://127.0.0.1:1/v1")]       # another model may have the same name there
    assert len(set(same)) == 1 and len({*same, *other}) == 1 + len(other)


def test_cache_only_makes_no_call_and_says_what_is_missing(server, tmp_path):
    asked(server, "no_skill", tmp_path, questions=3)
    before, said = len(server.asked), []
    answers, client = asked(server, "no_skill", tmp_path, cache_only=True, questions=5, say=said.append)
    assert [a.status for a in answers] == ["decision"] * 3 + ["failed"] * 2 and client.calls == 0
    assert said == ["llm.cache_only=true: 2 of 5 replies are not there; they count as failed"]
    with pytest.raises(ConfigError, match="none of the 5 replies"):
        asked(server, "always_approve", tmp_path, cache_only=True, questions=5)
    assert len(server.asked) == before


def test_replies_that_are_there_are_read_without_litellm(server, tmp_path):
    asked(server, "no_skill", tmp_path)
    code = f"""
import random, sys
from pathlib import Path
from tests.test_llm_client import asked
from types import SimpleNamespace
[answer], client = asked(SimpleNamespace(api_base={server.api_base!r}), "no_skill", Path({str(tmp_path)!r}))
assert answer.status == "decision" and client.calls == 0 and "litellm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_what_is_no_store_of_replies_is_refused(tmp_path):
    (tmp_path / "replies.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConfigError, match="is no store of replies"), Replies(tmp_path / "replies.sqlite"):
        pass


def test_the_first_of_two_replies_to_one_question_is_the_one_that_both_are_given(tmp_path):
    one, two = (Reply(text, "", "stop", "", "", "", "", 1, 1, 0.0, 0.0) for text in ("one", "two"))
    with Replies(tmp_path / "r.sqlite") as here, Replies(tmp_path / "r.sqlite") as there:
        assert here.put("k", {}, one).text == there.put("k", {}, two).text == "one"


DRIVER = """
import sys
from pathlib import Path
from types import SimpleNamespace
import litellm
from tests.test_llm_client import asked
print("ready", flush=True)
answers, client = asked(SimpleNamespace(api_base=sys.argv[1]), "no_skill", Path(sys.argv[2]), concurrency=4,
                        questions=int(sys.argv[3]))
print(client.calls, sum(answer.status == "decision" for answer in answers), flush=True)
"""


def drive(server: LlmServer, folder: Path, questions: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", DRIVER, server.api_base, str(folder), str(questions)],
                            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


def test_two_processes_share_one_store_without_loss(tmp_path):
    with LlmServer(latency=0.01) as server:
        two = [drive(server, tmp_path, 80) for _ in range(2)]
        done = [process.communicate()[0].split()[1:] for process in two]
        assert [decisions for _, decisions in done] == ["80", "80"]
        with sqlite3.connect(tmp_path / "replies.sqlite") as db:
            assert db.execute("SELECT count(*) FROM replies").fetchone() == (80,)
        assert sum(int(calls) for calls, _ in done) == len(server.asked) >= 80


# ---- the key ---------------------------------------------------------------------------------------------------------


def test_a_planted_key_is_sent_and_is_found_nowhere_else(server, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("LOCAL_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for model in ("echo_key", "401", "400", "500", "html"):
        try:
            answers, _ = asked(server, model, tmp_path, key="LOCAL_KEY", attempts=2)
        except ConfigError as error:
            chain = error
            while chain is not None:
                assert KEY not in repr(chain)
                chain = chain.__cause__ or chain.__context__
        else:
            assert KEY not in repr(answers)
    assert f"Bearer {KEY}" in server.authorization
    said = capfd.readouterr()
    assert KEY not in caplog.text + said.out + said.err
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_key_that_is_not_there_is_named_and_one_in_the_config_is_not_repeated(server, tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_KEY", raising=False)
    with pytest.raises(ConfigError, match="LOCAL_KEY is not set"):
        asked(server, "no_skill", tmp_path, key="LOCAL_KEY")
    for override in (f"llm.key={KEY}", f"llm.api_base=http://me:{KEY}@127.0.0.1/v1"):
        with pytest.raises(ConfigError) as refused:
            evaluate_config("llm=local", override)
        assert KEY not in str(refused.value)


# ---- killed ----------------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, threading
from pathlib import Path
from types import SimpleNamespace
import litellm      # before the fork: no child has to wait for it
from tests.test_llm_client import asked, base
base()
rng = random.Random(7)
for attempt in range(20):
    child = os.fork()
    if child == 0:
        asked(SimpleNamespace(api_base=sys.argv[1]), "no_skill", Path(sys.argv[2]), concurrency=4, questions=120)
        os._exit(0)
    threading.Event().wait(rng.uniform(0.25, 0.6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_a_run_that_is_killed_twenty_times_makes_exactly_the_calls_that_are_missing(tmp_path):
    with LlmServer(latency=0.05) as server:
        subprocess.run([sys.executable, "-c", KILLED, server.api_base, str(tmp_path)], check=True,
                       cwd=Path(__file__).parent.parent)
        server.wait_until_idle()
        with Replies(tmp_path / "replies.sqlite") as replies:
            kept = len(replies)
        before = len(server.asked)
        assert before - kept <= 20 * 4                      # only what was on its way is lost
        answers, client = asked(server, "no_skill", tmp_path, questions=120)
        assert client.calls == len(server.asked) - before == 120 - kept
        assert all(answer.status == "decision" for answer in answers)
