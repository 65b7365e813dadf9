"""Calls of the ORATS Data API: paced, counted, repeated where that can help, and silent about the token.

The token travels in the query of a URL. So nothing here says a URL, a header, a body or what another library says
of them: an error names the call (hist/strikes SPY 2024-01-03) and what became of it in words of ours.

    ConfigError     nothing more can be had: the token, the plan, the address, the calls of the month
    CallFailed      this call came to nothing, others may do better
    Stopped         the client was stopped while this call waited
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from mahler import __version__
from mahler.schema import ConfigError, number

if TYPE_CHECKING:
    import httpx

TOKEN = "ORATS_TOKEN"
"""The environment variable, the only place from which the token comes."""

# A day of SPY without any filter is about 9 MB of JSON; what is larger than this is a bomb or another thing.
MAX_BYTES = 256 << 20

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CallFailed(Exception):
    """A call came to nothing: one line; other calls may do better."""


class Stopped(Exception):
    """The client was stopped while a call waited for its turn."""


class _Again(Exception):
    """A try failed in a way that another may not; `wait` is how many seconds the server asks for.

    `sent` is False where there was no connection, so that nothing of the call left.
    """

    def __init__(self, reason: str, wait: float | None = None, sent: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.sent = reason, wait, sent


@dataclass(frozen=True)
class Api:
    """How the API may be called. `api` in conf/data/orats_api.yaml."""

    base_url: str
    calls_per_minute: int = number("calls a minute", 1, 1_000_000)
    calls_per_month: int = number("calls a calendar month", 1)
    connections: int = number("connections at a time", 1, 64)
    attempts: int = number("tries of one call", 1, 20)
    timeout: float = number("seconds for one answer", 0, 3600, open_low=True)
    backoff: float = number("seconds before the second try", 0, 60)
    max_wait: float = number("seconds that a try is put off at most", 0, 86_400)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
            raise ConfigError("data.api.base_url is an address https://host/path without query or password, got "
                              f"{self.base_url!r}")
        if url.scheme == "http" and url.hostname not in _LOOPBACK:
            raise ConfigError("data.api.base_url is https, because the token travels in it (http only to this "
                              f"machine), got {self.base_url!r}")


def token_from_environment() -> str:
    """The user's token; ConfigError where there is none, or one that cannot be."""
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(f"{TOKEN} is not set: export {TOKEN}=... with the token of your ORATS account")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{TOKEN} has a character that no token has (a space, a control character, not ASCII)")
    return token


# ---------------------------------------------------------------------------------------------- pace and count


class TokenBucket:
    """At most `per_minute` calls in any 60 seconds: a token every 60 / per_minute seconds, in a bucket for one.

    A larger bucket would let a full one and a minute's tokens go within one minute.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = 60.0 / per_minute, clock
        self._due, self._lock = clock(), threading.Lock()

    def take(self) -> float:
        """0 if a call may go now, and its token is then taken; else after how many seconds to ask again."""
        with self._lock:
            now = self._clock()
            if now < self._due:
                return self._due - now
            self._due = now + self._interval
            return 0.0

    def hold(self, seconds: float) -> None:
        """No call may go for so long."""
        with self._lock:
            self._due = max(self._due, self._clock() + seconds)


class CallLog:
    """The calls of each calendar month (UTC), one line each, written before the call is sent.

    A process that is killed may have counted a call that it did not send, never sent one that it did not count. One
    that could not be sent is taken back by a line that begins with a minus.
    """

    def __init__(self, folder: Path, limit: int, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
                 ) -> None:
        self._folder, self._limit, self._now = Path(folder), limit, now
        self._month, self._count, self._lock = "", 0, threading.Lock()

    def used(self) -> tuple[str, int]:
        """The current month, YYYY-MM, and the calls that were made in it."""
        with self._lock:
            self._turn_page()
            return self._month, self._count

    def add(self, call: str) -> str:
        """Count a call, and return the month in which it counts; ConfigError where that has none left."""
        with self._lock:
            self._turn_page()
            if self._count >= self._limit:
                raise ConfigError(f"all {self._limit:,} calls of {self._month} are used (data.api.calls_per_month): "
                                  f"the same command goes on from here next month")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._month, f"{self._now():%Y-%m-%dT%H:%M:%SZ} {call}")
            self._count += 1
            return self._month

    def take_back(self, call: str, month: str) -> None:
        """Do not count a call that was added in `month` but could not be sent."""
        with self._lock:
            self._write(month, f"-{self._now():%Y-%m-%dT%H:%M:%SZ} {call} not sent")
            self._count -= month == self._month

    def _write(self, month: str, line: str) -> None:
        with open(self._path(month), "a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def _turn_page(self) -> None:
        month = f"{self._now():%Y-%m}"
        if month != self._month:
            lines = self._path(month).read_bytes().splitlines() if self._path(month).exists() else []
            self._month, self._count = month, sum(-1 if line.startswith(b"-") else 1 for line in lines)

    def _path(self, month: str) -> Path:
        return self._folder / f"{month}.log"


# ---------------------------------------------------------------------------------------------- calls


class Client:
    """The API behind `base_url`, for several threads at once."""

    def __init__(self, api: Api, token: str, log: CallLog, rng: random.Random | None = None) -> None:
        self.api = api
        self.repeated: Counter[str] = Counter()     # why a try was repeated
        self._log, self._rng = log, rng or random.Random()
        self._bucket = TokenBucket(api.calls_per_minute)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._http = _http(api, token)

    def close(self) -> None:
        self._http.close()

    def stop(self) -> None:
        """Calls that wait raise Stopped, and no new one is sent; those on their way still come back."""
        self._stop.set()

    def rows(self, endpoint: str, **query: str) -> list[Any] | None:
        """The `data` of the answer; None where the vendor has nothing (HTTP 404, or no rows).

        Raises
        ------
        CallFailed
            Where the answer is not one of this API, or no try of `attempts` brought one.
        ConfigError
            Where no other call can do better either.
        Stopped
        """
        call = " ".join([endpoint, *(query[name] for name in ("ticker", "tradeDate") if name in query)])
        try:
            return self._tries(call, endpoint, query)
        except ConfigError:
            self.stop()         # what no call can do better is not tried by those that wait
            raise

    def _tries(self, call: str, endpoint: str, query: dict[str, str]) -> list[Any] | None:
        for attempt in range(1, self.api.attempts + 1):
            self._wait_for_turn()
            month = self._log.add(call)
            try:
                return self._once(call, endpoint, query)
            except _Again as trouble:
                reason, wait = trouble.reason, trouble.wait
                if not trouble.sent:
                    self._log.take_back(call, month)
            if attempt < self.api.attempts:
                self._put_off(call, attempt, reason, wait)
        raise CallFailed(f"{call}: {reason} (tries: {self.api.attempts})")

    def _wait_for_turn(self) -> None:
        while (seconds := self._bucket.take()) > 0 or self._stop.is_set():
            self._sleep(seconds)

    def _put_off(self, call: str, attempt: int, reason: str, wait: float | None) -> None:
        """Wait before the next try: this call longer each time, and every call as long as the server asks."""
        if wait is not None and wait > self.api.max_wait:
            raise ConfigError(f"{call}: {reason}: the server asks to wait {wait:,.0f} s, data.api.max_wait is "
                              f"{self.api.max_wait:,.0f}: the same command goes on from here later")
        with self._lock:
            self.repeated[reason] += 1
        self._bucket.hold(wait or 0.0)
        most = min(self.api.max_wait, self.api.backoff * 2.0 ** (attempt - 1))
        self._sleep(most * self._rng.uniform(0.5, 1.0))     # jitter: those that fail together do not meet again

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _once(self, call: str, endpoint: str, query: dict[str, str]) -> list[Any] | None:
        import httpx

        try:
            with self._http.stream("GET", f"{self.api.base_url.rstrip('/')}/{endpoint}", params=query) as response:
                body = self._body(call, response)
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            raise _Again(f"no connection within {self.api.timeout:g} s", sent=False) from None
        except httpx.TimeoutException:
            raise _Again(f"no answer within {self.api.timeout:g} s") from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise _Again("the certificate of the server is not accepted" if "CERTIFICATE" in str(error) else
                         "no connection (is data.api.base_url right, is there a network, a proxy?)",
                         sent=False) from None
        except httpx.RequestError as error:
            raise _Again(f"the connection was cut ({type(error).__name__})") from None
        return self._data(call, response.status_code, response.headers.get("retry-after"), body)

    def _body(self, call: str, response: httpx.Response) -> bytes:
        """The whole body, decompressed, unless it is too large or takes too long."""
        chunks, size, deadline = [], 0, time.monotonic() + self.api.timeout
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                raise CallFailed(f"{call}: the answer is larger than {MAX_BYTES:,} bytes")
            if time.monotonic() > deadline:     # httpx limits the time between two chunks, not that of all
                raise _Again(f"no whole answer within {self.api.timeout:g} s")
        return b"".join(chunks)

    def _data(self, call: str, status: int, retry_after: str | None, body: bytes) -> list[Any] | None:
        """What an answer says, by its status."""
        html = " with an HTML page" if body.lstrip()[:1] == b"<" else ""
        said = f"HTTP {status}{_phrase(status)}{html}"
        if status == HTTPStatus.OK:
            return _rows(call, body)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ConfigError(f"{call}: {said}: ORATS refuses the token in {TOKEN}: is it right, and does its plan "
                              f"include {call.split()[0]}?")
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
            raise _Again(said, seconds_to_wait(retry_after, datetime.now(timezone.utc)))
        raise ConfigError(f"{call}: {said} from {self.api.base_url}: is data.api.base_url right?")


def _rows(call: str, body: bytes) -> list[Any] | None:
    """`data` of a JSON answer; None where it is empty."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        html = body.lstrip()[:1] == b"<"
        raise _Again("HTML instead of JSON (is data.api.base_url right, is there a login page in between?)" if html
                     else "JSON that is cut off or damaged") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise CallFailed(f"{call}: the answer has no list of rows under `data`")
    return answer["data"] or None


def _phrase(status: int) -> str:
    return f" {HTTPStatus(status).phrase}" if status in iter(HTTPStatus) else ""


def seconds_to_wait(retry_after: str | None, now: datetime) -> float | None:
    """What a Retry-After header asks for, in seconds from `now`; None where it is missing or says nothing."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", retry_after):
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - now).total_seconds())


# ---------------------------------------------------------------------------------------------- the token


def _http(api: Api, token: str) -> httpx.Client:
    """A client whose requests carry the token only below all that logs or raises with a URL in hand."""
    import httpx

    class Signed(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return super().handle_request(httpx.Request(
                request.method, request.url.copy_merge_params({"token": token}), headers=request.headers,
                stream=request.stream, extensions=request.extensions))

    _silence(["httpcore", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "httpcore.socks"])
    url = urlsplit(api.base_url)
    # httpx reads the proxies of the environment only for a transport of its own.
    proxy = None if proxy_bypass(url.hostname) else getproxies().get(url.scheme) or getproxies().get("all")
    limits = httpx.Limits(max_connections=api.connections, max_keepalive_connections=api.connections)
    return httpx.Client(transport=Signed(proxy=proxy, limits=limits), timeout=api.timeout, follow_redirects=False,
                        headers={"user-agent": f"mahler/{__version__}", "accept": "application/json"})


def _silence(loggers: Iterable[str]) -> None:
    """These log what a server sends, which may repeat the token, at DEBUG."""
    for name in loggers:
        logging.getLogger(name).disabled = True
