"""Calls of a language model: many at a time, paced, repeated where that can help, counted in dollars, paid for once.

    a decision      the model answered as it was asked to
    invalid         it answered something else, also after its one repair; kept raw
    refused         it, or its provider, would not answer
    failed          no try brought a reply; not kept, so that it is asked again next time

The key comes from the environment, and what a server says is cleaned of it before anything else sees it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Self

from mahler import workers
from mahler.data.files import Progress
from mahler.data.orats_client import TokenBucket, seconds_to_wait
from mahler.llm import decision as decisions
from mahler.llm.calls import AT_A_TIME, QUESTIONS, Callers, Said, Unsaid, installed, listed
from mahler.llm.decision import Decision, Invalid
from mahler.llm.model import Llm
from mahler.llm.prompt import Message, repair
from mahler.llm.replies import Replies, Reply, key
from mahler.schema import ConfigError

REFUSING = ("content_filter", "refusal", "safety")      # finish reasons
CHARACTERS_PER_TOKEN, EXPECTED_OUTPUT_TOKENS = 4, 200   # before there is a reply to go by
AGAIN = (408, 409, 429)                                 # and 5xx


class DryRun(Exception):
    """Questions were counted and not asked, as `llm.dry_run` says; the message is the first of them."""


@dataclass(frozen=True)
class Answer:
    """What became of one question."""

    question: list[Message]
    status: str                          # decision, invalid, refused or failed
    decision: Decision | None
    replies: tuple[Reply, ...]           # the first, and that to a repair
    cached: bool                         # no call was made


@dataclass(frozen=True)
class Estimate:
    """What is left to ask."""

    questions: int
    calls: int                           # without repairs, one for questions that are alike
    output_tokens: float                 # of a reply, so far or by guess
    dollars: float                       # about
    most: float                          # dollars, where every reply is as long as it may be

    def __str__(self) -> str:
        calls, there = f"{self.calls:,} call{'s' * (self.calls != 1)}", self.questions - self.calls
        return (f"{calls} for {self.questions:,} replies ({there:,} are there), about "
                f"${self.dollars:,.2f} at {self.output_tokens:,.0f} tokens a reply, at most ${self.most:,.2f}")


def dialogue(question: list[Message], repairs: bool, cached: bool) -> Generator[list[Message], Reply, Answer]:
    """Yields the messages to send, is sent their reply, and returns the answer."""
    replies = [(yield question)]
    status, found = read(replies[0])
    if isinstance(found, Invalid) and repairs:
        replies.append((yield repair(question, replies[0].text, found.message)))
        status, found = read(replies[1])
    return Answer(question, status, found if isinstance(found, Decision) else None, tuple(replies), cached)


def read(reply: Reply) -> tuple[str, Decision | Invalid | None]:
    """The class of a reply. A refusal is what the provider marks as one; no word of the text is looked at."""
    if reply.refusal or reply.finish_reason in REFUSING:
        return "refused", None
    found = decisions.parse(reply.text)
    return ("invalid" if isinstance(found, Invalid) else "decision"), found


class Client:
    """Asks one model, from `with` until its end; `spent` is the dollars of the calls that it made, `calls` their number."""

    def __init__(self, llm: Llm, replies: Replies, say: Callable[[str], None], rng: random.Random) -> None:
        self.llm, self.spent, self.calls, self.failed = llm, 0.0, 0, 0
        self._replies, self._say, self._rng = replies, say, rng
        self._schema = json.dumps(decisions.schema())
        self._bucket = TokenBucket(llm.requests_per_minute or float("inf"))
        self._refusal = ""                              # why no more is asked
        self._key = ""
        self._runner: asyncio.Runner | None = None
        self._callers = Callers()
        self._under_way: dict[str, asyncio.Future[Reply | None]] = {}      # by key: equal questions share a call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.run(self._callers.close())
            self._runner.close()

    def ask(self, questions: Sequence[list[Message]], progress: Progress) -> list[Answer]:
        """An answer to each question: its samples side by side, questions x samples of them.

        Raises
        ------
        ConfigError
            Where the budget is spent, too many questions failed, or no call can do better: a key, an address, a
            parameter. What was answered until then is kept, so the same command goes on from there.
        DryRun
        """
        asked = [(question, sample) for question in questions for sample in range(self.llm.samples)]
        with self._replies.unchanged():
            answers = [self._known(*one) for one in asked]
        left = [k for k, answer in enumerate(answers) if answer is None]
        if left and self.llm.cache_only:
            self._without_calls(len(left), len(asked))
        elif left:
            self._start([asked[k] for k in left], len(asked))
            for k, answer in zip(left, self._run([asked[k] for k in left], progress), strict=True):
                answers[k] = answer
        return [answer or Answer(question, "failed", None, (), self.llm.cache_only)
                for answer, (question, _) in zip(answers, asked, strict=True)]

    def _known(self, question: list[Message], sample: int) -> Answer | None:
        """The answer where no call is needed for it."""
        talk = dialogue(question, self.llm.repair, cached=True)
        messages = next(talk)
        while (reply := self._replies.get(key(self.llm.request(messages, self._schema, sample)))) is not None:
            try:
                messages = talk.send(reply)
            except StopIteration as end:
                return end.value
        return None

    def _without_calls(self, missing: int, asked: int) -> None:
        if missing == asked:
            raise ConfigError(f"llm.cache_only=true: none of the {asked:,} replies of {self.llm.model} is there")
        self._say(f"llm.cache_only=true: {missing:,} of {asked:,} replies are not there; they count as failed")

    def _start(self, left: list[tuple[list[Message], int]], asked: int) -> None:
        """Say what it will cost, once for all that is asked in rounds, and be ready to ask."""
        if not installed():
            raise ConfigError(f"llm.model={self.llm.model}: calls are made by litellm, which is not installed: pip install "
                              "-e '.[llm]' (arm=baseline needs none)")
        if self._runner is None:
            different = {key(self.llm.request(question, self._schema, sample)): question for question, sample in left}
            self._say(f"{self.llm.model}: {self.estimate(list(different.values()), asked)}")
        if self.llm.dry_run:
            raise DryRun("\n\n".join(message["content"] for message in left[0][0]))
        if self._runner is None:
            self._key = api_key(self.llm)
            self._runner = asyncio.Runner()
        self._runner.run(self._callers.start(min(workers.allowed(), self.llm.concurrency // AT_A_TIME,
                                                 len(left) // QUESTIONS)))

    def estimate(self, questions: Sequence[list[Message]], asked: int) -> Estimate:
        """The cost of one call for each question, by its length and by the length of the model's replies so far."""
        per_input, per_output = prices(self.llm)
        characters = sum(len(message["content"]) for question in questions for message in question)
        expected = self._replies.mean_output_tokens(self.llm.model) or min(EXPECTED_OUTPUT_TOKENS, self.llm.max_tokens)
        read = per_input * characters / CHARACTERS_PER_TOKEN
        return Estimate(asked, len(questions), expected, read + per_output * expected * len(questions),
                        read + per_output * self.llm.max_tokens * len(questions))

    def _run(self, left: list[tuple[list[Message], int]], progress: Progress) -> list[Answer | None]:
        assert self._runner is not None
        answers = self._runner.run(self._ask_all(left, progress))
        if self._refusal:
            raise ConfigError(f"{self._refusal}; {self.calls:,} calls cost ${self.spent:,.4f}; every reply so far is kept, and "
                              "the same command goes on from there")
        return answers

    async def _ask_all(self, left: list[tuple[list[Message], int]], progress: Progress) -> list[Answer | None]:
        """Every question, `concurrency` at a time. After a refusal none is begun, but those on their way are kept."""
        answers: list[Answer | None] = [None] * len(left)
        waiting, done = iter(enumerate(left)), 0

        async def work() -> None:
            nonlocal done
            for k, (question, sample) in waiting:
                if not self._refusal:
                    answers[k] = await self._answer(question, sample)
                    done += 1
                    progress(done, len(left), f"${self.spent:,.2f}")

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.llm.concurrency, len(left))):
                group.create_task(work())
        return answers

    async def _answer(self, question: list[Message], sample: int) -> Answer | None:
        """The answer to one question; None where it failed."""
        talk = dialogue(question, self.llm.repair, cached=False)
        messages = next(talk)
        while True:
            reply = await self._reply(messages, sample)
            if reply is None:
                return None
            try:
                messages = talk.send(reply)
            except StopIteration as end:
                return end.value

    async def _reply(self, messages: list[Message], sample: int) -> Reply | None:
        """The reply that is kept, or the one that a call brings, also a call on its way; None where no try brought one."""
        request = self.llm.request(messages, self._schema, sample)
        name = key(request)
        reply = self._replies.get(name)
        if reply is not None:
            return reply
        if name not in self._under_way:
            self._under_way[name] = asyncio.ensure_future(self._call(name, request))
        try:
            return await self._under_way[name]
        finally:
            self._under_way.pop(name, None)

    async def _call(self, name: str, request: dict[str, Any]) -> Reply | None:
        """The reply to a request that nothing else asks for, kept."""
        reply = await self._tries(request)
        if reply is None:
            return None
        self.spent += reply.cost
        return self._replies.put(name, request, reply)

    async def _tries(self, request: dict[str, Any]) -> Reply | None:
        for attempt in range(1, self.llm.attempts + 1):
            while (seconds := self._bucket.take()) > 0:
                await asyncio.sleep(seconds)
            if self._stopped():
                return None
            self.calls += 1
            reply, trouble = await self._once(request)
            if reply is not None:
                return reply
            if trouble is None or self._refusal:
                break
            if attempt < self.llm.attempts:
                await self._put_off(attempt, trouble)
        self.failed += 1
        if self.failed >= self.llm.max_failed:
            self._refuse(f"llm.max_failed={self.llm.max_failed}: so many questions came to nothing, the last of them: "
                         f"{trouble.reason if trouble else 'too long for the model'}")
        return None

    def _stopped(self) -> bool:
        """Whether no call may go: because of a refusal, or because the money is spent."""
        if self.llm.max_cost is not None and self.spent >= self.llm.max_cost:
            self._refuse(f"llm.max_cost={self.llm.max_cost:g} dollars are spent")
        return bool(self._refusal)

    def _refuse(self, reason: str) -> None:
        self._refusal = self._refusal or reason

    async def _put_off(self, attempt: int, trouble: _Trouble) -> None:
        """Wait before the next try: this call longer each time, and every call as long as the server asks."""
        if (trouble.wait or 0.0) > self.llm.max_wait:
            self._refuse(f"{self.llm.model}: {trouble.reason}: the server asks to wait {trouble.wait:,.0f} s, llm.max_wait "
                         f"is {self.llm.max_wait:,.0f}")
            return
        self._bucket.hold(trouble.wait or 0.0)
        most = min(self.llm.max_wait, self.llm.backoff * 2.0 ** (attempt - 1))
        await asyncio.sleep(most * self._rng.uniform(0.5, 1.0))     # jitter: those that fail together do not meet again

    async def _once(self, request: dict[str, Any]) -> tuple[Reply | None, _Trouble | None]:
        """A reply, or why there is none and may be another time; neither where this call can have none."""
        found = await self._callers.call(self._arguments(request), self.llm.timeout)
        if isinstance(found, Said):
            return self._reply_of(found), None
        if found.what == "policy":
            return Reply("", found.reason, "content_filter", "", request["model"], "", "", 0, 0, 0.0, 0.0), None
        return None, None if found.what == "length" else self._trouble(found)

    def _arguments(self, request: dict[str, Any]) -> dict[str, Any]:
        """What litellm is called with. Its own retries are off: it would make them beside our pace and our count."""
        named = {name: request[name] for name in ("model", "messages", "temperature", "seed", "max_tokens")
                 if request[name] is not None}
        if request["schema"] is not None:
            named["response_format"] = {"type": "json_schema", "json_schema": {
                "name": "decision", "strict": True, "schema": json.loads(request["schema"])}}
        if request["route"]:
            named["extra_body"] = request["route"]
        return named | {"api_base": self.llm.api_base, "api_key": self._key or "none", "timeout": self.llm.timeout,
                        "max_retries": 0, "num_retries": 0}

    def _trouble(self, found: Unsaid) -> _Trouble | None:
        """What it means for this call; where it means as much for every other, all of them end."""
        status = found.status
        if status is None or status in AGAIN or status >= 500:
            return _Trouble(found.reason, seconds_to_wait(found.retry_after, datetime.now(timezone.utc)))
        if status in (401, 403):                # what it says may be the key, or half of it
            self._refuse(f"{self.llm.model}: {found.reason}: the key in {self.llm.key or 'llm.key=null'} is refused")
        else:
            self._refuse(f"{self.llm.model}: {found.reason}: {self._clean(found.words)}")
        return None

    def _reply_of(self, said: Said) -> Reply:
        """What was said, cleaned of the key, with its price."""
        words = (said.text, said.refusal, said.finish_reason, said.provider, said.model, said.fingerprint, said.id)
        return Reply(*map(self._clean, words), said.input_tokens, said.output_tokens, self._cost(said), said.seconds)

    def _cost(self, said: Said) -> float:
        """Dollars: as the provider charged them, else by the config's prices, else by litellm's list."""
        if said.charged is not None:
            return said.charged
        if self.llm.input_cost_per_token is None and said.listed is not None:
            return said.listed
        per_input, per_output = prices(self.llm)
        return per_input * said.input_tokens + per_output * said.output_tokens

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


@dataclass(frozen=True)
class _Trouble:
    """Why a try came to nothing that another may come to; `wait` is how many seconds the server asks for."""

    reason: str
    wait: float | None = None


# ---- the key and the price -------------------------------------------------------------------------------------------


def api_key(llm: Llm) -> str:
    """The key, from the environment; "" where the model needs none. Raises ConfigError where it is not there."""
    if llm.key is None:
        return ""
    found = os.environ.get(llm.key, "").strip()
    if not found:
        raise ConfigError(f"{llm.key} is not set: export {llm.key}=... with a key for {llm.model} (arm=baseline needs none)")
    return found


def prices(llm: Llm) -> tuple[float, float]:
    """Dollars a token read and a token written. Raises ConfigError where neither the config nor litellm knows them."""
    if llm.input_cost_per_token is not None and llm.output_cost_per_token is not None:
        return llm.input_cost_per_token, llm.output_cost_per_token
    per_token = listed(llm.model)
    if per_token is None:
        raise ConfigError(f"llm.model={llm.model}: its price is not known; set llm.input_cost_per_token and "
                          "llm.output_cost_per_token (dollars a token, 0 for a model of your own)")
    return per_token
