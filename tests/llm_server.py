"""A server on this machine that speaks the OpenAI protocol, and every way in which a model can be, or go, wrong.

    python -m tests.llm_server          serves until it is interrupted, and says how to ask it

The model's name says how it behaves: openai/honest, hosted_vllm/no_skill, ... (MODELS), openai/429, ... (FAULTS).
`truth` is what the ones with skill know: whether the trade of a user message ended with a profit.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "sk-planted-5ecret-k3y"
CUTOFF = "2021-01-01"           # what happened before it the model `memory` has read
SKILL = 0.6                     # share of the trades on which `honest` leans to what will happen


class LlmServer:
    """The server, from `with` until its end; `asked` has the body of every request, in order."""

    def __init__(self, truth: Mapping[str, bool] | None = None, *, port: int = 0, latency: float = 0.0) -> None:
        self.truth, self.latency = dict(truth or {}), latency
        self.asked: list[dict[str, Any]] = []
        self.authorization: set[str] = set()
        self.seen: Counter[str] = Counter()                         # requests, by user message and model
        self.faults: dict[str, list[str]] = defaultdict(list)       # by model: faults to come, one a request
        self.most_at_once = self._at_once = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> LlmServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def count(self, step: int) -> None:
        with self.lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)

    def remember(self, body: dict[str, Any]) -> int:
        """Note a request. Returns how often this model was asked this before."""
        question = f"{body['model']} {json.dumps(body['messages'])} {body.get('seed')}"
        with self.lock:
            self.asked.append(body)
            self.seen[question] += 1
            return self.seen[question] - 1

    def next_fault(self, model: str) -> str | None:
        with self.lock:
            return self.faults[model].pop(0) if self.faults[model] else None

    def wait_until_idle(self) -> None:
        """Until no request is being answered, those that a dead client has sent included."""
        quiet = 0
        while quiet < 10:
            time.sleep(0.005)
            quiet = 0 if self._at_once else quiet + 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error of ours; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


class _Handler(BaseHTTPRequestHandler):
    api: LlmServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True          # headers and body are two writes: the second would wait 40 ms

    def do_POST(self) -> None:
        self.api.count(1)
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True            # the client was killed, or had enough
        finally:
            self.api.count(-1)

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.api.authorization.add(self.headers.get("authorization", ""))
        before = self.api.remember(body)
        time.sleep(self.api.latency)
        model = body["model"]
        fault = self.api.next_fault(model) or model
        if fault in FAULTS:
            FAULTS[fault](self, before)
        else:
            self.reply(body, MODELS[fault](self, body))

    def reply(self, body: dict[str, Any], message: str | dict[str, Any]) -> None:
        """An answer of the protocol; `message` is its text, or the fields of the message, `finish_reason` and `usage`."""
        fields = {"content": message} if isinstance(message, str) else dict(message)
        finish, usage = fields.pop("finish_reason", "stop"), fields.pop("usage", {})
        text = json.dumps(body["messages"])
        self.send(200, {
            "id": f"chatcmpl-{hashlib.sha256(text.encode()).hexdigest()[:12]}", "object": "chat.completion",
            "created": 1_700_000_000, "model": body["model"], "system_fingerprint": "fp_loopback",
            "choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish}],
            "usage": {"prompt_tokens": len(text) // 4, "completion_tokens": 60, "total_tokens": len(text) // 4 + 60, **usage}})

    def send(self, status: int, body: Any, headers: Mapping[str, str] = {}, *, cut: bool = False) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw[:len(raw) // 2] if cut else raw)
        self.close_connection = self.close_connection or cut

    def error(self, status: int, headers: Mapping[str, str] = {}, said: str = "no") -> None:
        self.send(status, {"error": {"message": said, "type": "error", "code": str(status)}}, headers)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


# ---------------------------------------------------------------------------------------------- what it thinks


def user_message(body: Mapping[str, Any]) -> str:
    """The first message of the user: the context; what follows is a repair."""
    return next(message["content"] for message in body["messages"] if message["role"] == "user")


def noise(text: str, salt: str) -> float:
    """A number in [0, 1) that is always the same for a text."""
    return int.from_bytes(hashlib.sha256(f"{salt} {text}".encode()).digest()[:6], "big") / 2 ** 48


def decision(p: float, **fields: Any) -> str:
    """The JSON of a decision that follows from a probability."""
    approve = p >= 0.5
    whole = {"reason": "planted", "p_profit": round(p, 4), "decision": "approve" if approve else "reject",
             "confidence": round(max(p, 1 - p), 4), "contracts": 1 + int(4 * p) if approve else 0}
    return json.dumps(whole | fields)


def guess(text: str) -> float:
    """What a model without skill says: it rejects three of ten."""
    return 0.2 + 0.6 * (noise(text, "guess") if noise(text, "lean") > 0.4 else 0.5 + noise(text, "guess") / 2)


def honest(handler: _Handler, body: Mapping[str, Any]) -> str:
    text = user_message(body)
    profit = handler.api.truth.get(text)
    if profit is None or noise(text, "skill") > SKILL:
        return decision(guess(text))
    return decision(0.55 + 0.4 * noise(text, "guess") if profit else 0.45 - 0.4 * noise(text, "guess"))


def memory(handler: _Handler, body: Mapping[str, Any]) -> str:
    """Knows how every dated trade before CUTOFF ended, and of the others nothing."""
    date = re.search(r"\b20\d\d-\d\d-\d\d\b", user_message(body))
    known = date is not None and date[0] < CUTOFF and user_message(body) in handler.api.truth
    return decision(0.9 if handler.api.truth[user_message(body)] else 0.1) if known else no_skill(handler, body)


def no_skill(handler: _Handler, body: Mapping[str, Any]) -> str:
    return decision(guess(user_message(body)))


def fickle(handler: _Handler, body: Mapping[str, Any]) -> str:
    """Another answer for every seed, though the temperature is 0."""
    return decision(noise(f"{user_message(body)} {body.get('seed')}", "fickle"))


def repaired(handler: _Handler, body: Mapping[str, Any]) -> str:
    """Out of range, until it is told so."""
    return decision(0.7) if body["messages"][-1]["role"] == "user" and len(body["messages"]) > 2 else decision(7.0)


MODELS: dict[str, Callable[[_Handler, Mapping[str, Any]], str | dict[str, Any]]] = {
    "honest": honest, "memory": memory, "no_skill": no_skill, "fickle": fickle, "repaired": repaired,
    "always_approve": lambda *_: decision(0.8),
    "half_json": lambda *_: decision(0.7)[:60],
    "prose": lambda *_: f"I would not reject this: {{see below}}.\n```json\n{decision(0.7)}\n```\nTo approve is my advice.",
    "two_objects": lambda *_: f"{decision(0.3)} or, on second thoughts, {decision(0.7)}",
    "words": lambda *_: "This trade is not recommended to approve.",
    "wrong_types": lambda *_: decision(0.7, confidence="high", p_profit="0.7"),
    "out_of_range": lambda *_: decision(0.7, p_profit=1.2),
    "contradiction": lambda *_: decision(0.7, contracts=0),
    "refusal": lambda *_: {"content": None, "refusal": "I cannot give financial advice."},
    "filtered": lambda *_: {"content": "", "finish_reason": "content_filter"},
    "nothing": lambda *_: {"content": None},
    "half_a_character": lambda *_: decision(0.7) + "\ud800",
    "free": lambda *_: {"content": decision(0.7), "usage": {"cost": "free"}},
    "pays": lambda *_: {"content": decision(0.7), "usage": {"cost": -1.0}},
    # What an injected instruction wants: the text of the trade comes back as if it were an answer.
    "echo": lambda _, body: user_message(body),
    "echo_key": lambda handler, body: decision(0.7, reason=f"you sent {handler.headers.get('authorization')}"),
}

FAULTS: dict[str, Callable[[_Handler, int], None]] = {
    "429": lambda handler, _: handler.error(429, {"Retry-After": "1"}),
    "500": lambda handler, _: handler.error(500),
    "503": lambda handler, _: handler.error(503),
    "408": lambda handler, _: handler.error(408),
    "409": lambda handler, _: handler.error(409),
    "401": lambda handler, _: handler.error(401, said=f"wrong key {handler.headers.get('authorization')}"),
    "404": lambda handler, _: handler.error(404, said="no such model"),
    "400": lambda handler, _: handler.error(400, said=f"bad request with {handler.headers.get('authorization')}"),
    "reset": lambda handler, _: handler.reset(),
    "cut": lambda handler, _: handler.send(200, {"choices": [{"message": {"content": "x" * 500}}]}, cut=True),
    "slow": lambda handler, _: time.sleep(2.0) or handler.reset(),
    "list": lambda handler, _: handler.reply({"model": "list", "messages": []},
                                             {"content": [handler.headers.get("authorization")]}),
    "html": lambda handler, _: handler.send(200, "<html>maintenance</html>"),
}


def main(latency: float, truth: str | None) -> None:
    known = json.loads(Path(truth).read_text(encoding="utf-8")) if truth else {}
    with LlmServer(known, latency=latency) as server:
        print(server.api_base, flush=True)
        print(f"mahler evaluate run=last arm=model llm=local llm.model=openai/honest llm.api_base={server.api_base}",
              flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.02, sys.argv[2] if len(sys.argv) > 2 else None)
