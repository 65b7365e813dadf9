"""One call of a model through litellm: what was said, or why nothing was. Here, and in processes that do only that.

litellm's own work is some milliseconds of a processor a call, which is what bounds the calls of a quick model. So where
many are on their way at once, other processes make a part of them. These know no store, budget or pace: those are the
client's, in one place. What passes between them is JSON.

The only import of litellm, which takes 4 s and happens with the first call.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import math
import os
import sys
import time
import warnings
from asyncio.subprocess import PIPE, Process
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, BinaryIO, NoReturn

from mahler.schema import one_line

AT_A_TIME = 32                   # calls on their way that are worth a process: fewer wait for the model, not for litellm
QUESTIONS = 500                  # that are worth one: fewer are asked sooner than litellm is imported once more
MORE = 2                         # times the calls of this process, which has the replies to read and keep as well
LENGTH = 4                       # bytes that say how long the JSON after them is
GRACE = 10.0                     # seconds beyond its timeout after which a call that another process makes is given up

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")       # its import fetches a price list otherwise


@dataclass(frozen=True)
class Said:
    """A reply as the provider sent it, the key not yet cleaned from it. Missing text is ""."""

    text: str
    refusal: str
    finish_reason: str
    provider: str
    model: str
    fingerprint: str
    id: str
    input_tokens: int
    output_tokens: int
    charged: float | None        # dollars, by the provider
    listed: float | None         # dollars, by litellm's list, which knows of cheaper cached tokens
    seconds: float


@dataclass(frozen=True)
class Unsaid:
    """Why a call brought no reply. Its words may have the key in them."""

    reason: str                  # the error's name and status
    what: str = ""               # "policy" and "length" where no other try can bring one
    status: int | None = None
    retry_after: str | None = None
    words: str = ""


async def call(arguments: dict[str, Any], timeout: float) -> Said | Unsaid:
    """One call of litellm, in this process, given up after `timeout` seconds."""
    import litellm

    begin = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            response = await litellm.acompletion(**arguments)
    except TimeoutError:
        return Unsaid(f"no reply within {timeout:g} s")
    except litellm.ContentPolicyViolationError:
        return Unsaid("content policy", "policy")
    except litellm.ContextWindowExceededError:
        return Unsaid("too long for the model", "length")
    except tuple(litellm.exceptions.LITELLM_EXCEPTION_TYPES) as error:
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None) or {}
        return Unsaid(f"{type(error).__name__} {status or ''}".strip(), "", status, headers.get("retry-after"), one_line(error))
    if not response.choices:
        return Unsaid("a reply without a choice")
    return _read(response, time.perf_counter() - begin)


def _read(response: Any, seconds: float) -> Said:
    [choice, *_], usage = response.choices, getattr(response, "usage", None)
    hidden = response._hidden_params or {}
    words = (choice.message.content, getattr(choice.message, "refusal", None), choice.finish_reason,
             getattr(response, "provider", None) or hidden.get("custom_llm_provider"), response.model,
             getattr(response, "system_fingerprint", None), response.id)
    tokens = (_number(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
    dollars = (getattr(usage, "cost", None), hidden.get("response_cost"))
    return Said(*(_text(word) for word in words), *(int(n or 0) for n in tokens), *map(_number, dollars), seconds)


def _text(word: Any) -> str:
    """As it can be kept and shown: half of a surrogate pair, which JSON can carry and UTF-8 cannot, becomes "?"."""
    return str(word or "").encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> float | None:
    """None for what is no number of tokens or dollars: a NaN or a negative cost would lift the budget."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if number else None


def listed(model: str) -> tuple[float, float] | None:
    """Dollars a token read and a token written by litellm's list; None where it does not know."""
    import litellm

    known = litellm.model_cost.get(model) or litellm.model_cost.get(model.partition("/")[2]) or {}
    per_input, per_output = known.get("input_cost_per_token"), known.get("output_cost_per_token")
    return None if per_input is None or per_output is None else (per_input, per_output)


def installed() -> bool:
    """Whether litellm is; nothing is imported."""
    return importlib.util.find_spec("litellm") is not None


def quiet() -> None:
    """litellm and what is under it log requests and headers, the key among them, at DEBUG, and advice on stdout.

    Their warnings quote a reply that is not as the protocol has it, and name calls that Ctrl-C ended before they began.
    """
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "openai", "openai._base_client", "httpx", "httpcore",
                 "httpcore.connection", "httpcore.http11", "aiohttp.client"):
        logging.getLogger(name).disabled = True
    for message in ("Pydantic serializer warnings", r"coroutine '\w+\.a\w*completion\w*' was never awaited"):
        warnings.filterwarnings("ignore", message)


# ---- in other processes ----------------------------------------------------------------------------------------------


class Callers:
    """Makes each call where few are on their way: here, or in another process that has been started and is ready."""

    def __init__(self) -> None:
        self._here, self._others = 0, list[_Caller]()

    async def start(self, processes: int) -> None:
        """Have `processes` in all, this one among them; those that are there stay."""
        while 1 + len(self._others) < processes:
            self._others.append(await _Caller.start())
        quiet()                                         # its import takes as long here as there: side by side

    async def call(self, arguments: dict[str, Any], timeout: float) -> Said | Unsaid:
        ready = [other for other in self._others if other.ready]
        other = min(ready, key=_Caller.on_their_way, default=None)
        if other is not None and other.on_their_way() < MORE * self._here:
            return await other.call(arguments, timeout)
        self._here += 1
        try:
            return await call(arguments, timeout)
        finally:
            self._here -= 1

    async def close(self) -> None:
        for other in self._others:
            await other.close()
        if "litellm" in sys.modules:                    # it is not where Ctrl-C ended its import
            await sys.modules["litellm"].close_litellm_async_clients()


class _Caller:
    """Another process, as this one sees it. It ends when its stdin does, so also when this process is killed."""

    def __init__(self, process: Process) -> None:
        self._process, self.ready = process, False
        self._numbers, self._waiting = count(), dict[int, asyncio.Future[Said | Unsaid]]()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls) -> _Caller:
        # In a group of its own, so that Ctrl-C is this process's to hear. -P: no module comes from the current directory.
        return cls(await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "mahler.llm.calls", stdin=PIPE,
                                                        stdout=PIPE, process_group=0))

    def on_their_way(self) -> int:
        return len(self._waiting)

    async def call(self, arguments: dict[str, Any], timeout: float) -> Said | Unsaid:
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._process.stdin.write(_frame([number, arguments, timeout]))
            async with asyncio.timeout(timeout + GRACE):
                return await future
        except TimeoutError:                            # stopped, or stuck: all that is on its way there is made again
            self._end()
            return Unsaid(f"no reply within {timeout:g} s")
        finally:
            self._waiting.pop(number, None)

    async def _listen(self) -> None:
        """Hand out what comes back, the first of which says that litellm is there. Nothing is lost where it dies."""
        while (frame := await _next(self._process.stdout)) is not None:
            self.ready = True
            number, said, fields = frame
            if number in self._waiting and not self._waiting[number].done():        # given up, a moment ago
                self._waiting[number].set_result((Said if said else Unsaid)(**fields))
        self.ready = False
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Unsaid("the process that made the call is gone"))

    async def close(self) -> None:
        self._listening.cancel()
        self._end()
        await self._process.wait()

    def _end(self) -> None:
        """It holds nothing that could be lost. Killed: one that is stopped would not hear of anything else."""
        self.ready = False
        if self._process.returncode is None:
            self._process.kill()


def main() -> None:
    """Make the calls that stdin asks for until it ends. What a library prints goes to stderr: stdout has the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    quiet()
    asyncio.run(_serve(sys.stdin.buffer, answers))


async def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    reader, tasks = asyncio.StreamReader(), set[asyncio.Task]()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), questions)

    def tell(*answer: Any) -> None:
        try:
            answers.write(_frame(answer))
            answers.flush()
        except BrokenPipeError:
            _leave()

    async def work(number: int, arguments: dict[str, Any], timeout: float) -> None:
        found = await call(arguments, timeout)
        tell(number, isinstance(found, Said), asdict(found))

    def ended(task: asyncio.Task) -> None:
        tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            reader.set_exception(task.exception())              # a bug: this process ends with its traceback

    tell(None, False, {})
    while (frame := await _next(reader)) is not None:
        tasks.add(task := asyncio.create_task(work(*frame)))
        task.add_done_callback(ended)
    _leave()


def _leave() -> NoReturn:
    """The client is gone, and so is this process: what a library says at its end would land on somebody's prompt."""
    os._exit(0)


def _frame(values: Any) -> bytes:
    text = json.dumps(values).encode("utf-8")
    return len(text).to_bytes(LENGTH, "big") + text


async def _next(reader: asyncio.StreamReader) -> Any:
    """The next frame's values; None where there are no more."""
    try:
        return json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(LENGTH), "big")))
    except asyncio.IncompleteReadError:
        return None


if __name__ == "__main__":
    main()
