"""A server on this machine that speaks the ORATS Data API, and every way in which it can go wrong.

    python -m tests.orats_server        serves made-up chains until it is interrupted

Its chains are small and a pure function of ticker and day. `faults` says what to answer instead, once each.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "planted-5ecret-t0ken"
FIRST = {"SPY": "2007-01-03", "QQQ": "2011-03-23", "QQQQ": "2007-01-03", "IWM": "2007-01-03", "AAPL": "2007-01-03"}
LAST = {"QQQQ": "2011-03-22"}
HTML = b"<!DOCTYPE html><html><body>Something is wrong</body></html>"

Fault = str | Callable[[list[dict]], Any]
"""A name of `_Handler._fail`, or a function of the rows that makes the JSON to send."""


class OratsServer:
    """The server, from `with` until its end; `asked` is what it was asked for, in order."""

    def __init__(self, *, port: int = 0, token: str = TOKEN, latency: float = 0.0,
                 chain: Callable[[str, str], list[dict]] | None = None) -> None:
        self.token, self.latency, self.chain = token, latency, chain or made_up
        self.asked: list[tuple[str, dict[str, str]]] = []           # endpoint and query, without the token
        self.times: list[float] = []                                # when
        self.nothing: set[tuple[str, str]] = set()                  # (ticker, day) without data
        self.faults: dict[tuple[str, str], list[Fault]] = defaultdict(list)     # by (ticker, day), one a try
        self.always: Fault | None = None                            # the answer to everything
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> OratsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/datav2"

    def days(self, ticker: str | None = None) -> list[str]:
        """The days that were asked for, of one ticker or as "SPY 2024-01-03" of all."""
        asks = [(q["ticker"], q["tradeDate"]) for endpoint, q in self.asked if endpoint == "hist/strikes"]
        return [day if ticker else f"{name} {day}" for name, day in asks if ticker in (None, name)]

    def count(self, step: int) -> None:
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)

    def wait_until_idle(self) -> None:
        """Until no request is being answered, those that a dead client has sent included."""
        quiet = 0
        while quiet < 15:
            time.sleep(0.01)
            quiet = 0 if self._at_once else quiet + 1

    def next_fault(self, ticker: str, day: str) -> Fault | None:
        with self._lock:
            waiting = self.faults[ticker, day]
            return waiting.pop(0) if waiting else self.always


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error of ours; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


class _Handler(BaseHTTPRequestHandler):
    api: OratsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True          # headers and body are two writes: the second would wait 40 ms

    def do_GET(self) -> None:
        self.api.count(1)
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True            # the client was killed
        finally:
            self.api.count(-1)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        token = query.pop("token", None)
        endpoint = url.path.removeprefix("/datav2/")
        self.api.asked.append((endpoint, query))
        self.api.times.append(time.monotonic())
        time.sleep(self.api.latency)
        ticker, day = query.get("ticker", ""), query.get("tradeDate", "")
        fault = self.api.next_fault(ticker, day)
        if isinstance(fault, str):
            self._fail(fault, query)
        elif token != self.api.token:
            self._json({"message": f"not a token: {token}"}, 401)
        elif not url.path.startswith("/datav2/hist/"):
            self._send(404, HTML, "text/html")
        else:
            rows = ROWS[endpoint](self.api, query)
            body = fault(rows) if fault else {"data": rows} if rows else None
            self._json({"message": "Not Found"} if body is None else body, 404 if body is None else 200)

    def _json(self, body: Any, status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        if "gzip" in self.headers.get("accept-encoding", "") and status == 200:
            return self._send(status, gzip.compress(raw, 1), "application/json", {"Content-Encoding": "gzip"})
        self._send(status, raw, "application/json")

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] = {}, length: int | None = None
              ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length or len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, fault: str, query: dict[str, str]) -> None:
        """`500`, `html 503`, `429 after 1`, `echo 403` and the names below."""
        words = fault.split(" ", 2)
        if words[0] == "echo":          # a server that repeats what it was sent, token and all, wherever it can
            body = json.dumps({"message": self.path, "data": [{"ticker": self.path}]}).encode()
            self._send(int(words[1]), body, "application/json",
                       {"X-Request": self.path, "Location": self.path, "Set-Cookie": f"a={self.path}"})
        elif words[0] == "html":
            self._send(int(words[1]), HTML, "text/html")
        elif words[0].isdecimal():
            extra = {"Retry-After": words[2]} if words[1:2] == ["after"] else {}
            self._json_error(int(words[0]), extra)
        elif fault == "hang":
            time.sleep(3.0)
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            endpoint = urlsplit(self.path).path.removeprefix("/datav2/")
            self._broken_body(fault, json.dumps({"data": ROWS[endpoint](self.api, query)}).encode())

    def _json_error(self, status: int, headers: Mapping[str, str]) -> None:
        self._send(status, b'{"message": "no"}', "application/json", headers)

    def _broken_body(self, fault: str, body: bytes) -> None:
        if fault == "cut":
            self._send(200, body[:len(body) // 2], "application/json", length=len(body))
            self.close_connection = True
        elif fault == "truncated":
            self._send(200, body[:len(body) // 2], "application/json")
        elif fault == "bad gzip":
            self._send(200, gzip.compress(body)[:100] + b"\xff" * 100, "application/json", {"Content-Encoding": "gzip"})
        elif fault == "bomb":
            self._send(200, gzip.compress(b" " * (300 << 20), 1), "application/json", {"Content-Encoding": "gzip"})
        elif fault == "trickle":
            self._send(200, b"", "application/json", length=len(body))
            for at in range(len(body)):
                self.wfile.write(body[at:at + 1])
                time.sleep(0.05)
        else:
            raise ValueError(f"no such fault: {fault}")

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


# ---------------------------------------------------------------------------------------------- what it serves


def _strikes(api: OratsServer, query: dict[str, str]) -> list[dict]:
    """Of the first ten tickers, without a word about the others; `dte` is calendar days plus one."""
    rows = []
    for ticker in query["ticker"].split(",")[:10]:
        day = query["tradeDate"]
        if (ticker, day) not in api.nothing and FIRST.get(ticker, "9") <= day <= LAST.get(ticker, "9"):
            rows += api.chain(ticker, day)
    low, high = map(int, query.get("dte", "0,99999").split(","))
    fields = query["fields"].split(",") if "fields" in query else None
    rows = [row for row in rows if low <= row.get("dte", 0) <= high]
    return [{name: row[name] for name in fields or row if name in row} for row in rows]


def _dailies(api: OratsServer, query: dict[str, str]) -> list[dict]:
    """Every weekday from 2007 to 2026: adjusted closes are a quarter of what was traded before 2020-08-31."""
    ticker = query["ticker"]
    return [{"ticker": ticker, "tradeDate": day, "unadjClsPx": spot(ticker, day),
             "clsPx": spot(ticker, day) / (4 if day < "2020-08-31" else 1)} for day in _weekdays()] \
        if ticker in FIRST else []


def _splits(api: OratsServer, query: dict[str, str]) -> list[dict]:
    return [{"ticker": "AAPL", "splitDate": day, "divisor": divisor} for day, divisor in
            (("2020-08-31", 4), ("2014-06-09", 7))] if query["ticker"] == "AAPL" else []


ROWS = {"hist/strikes": _strikes, "hist/dailies": _dailies, "hist/splits": _splits}


@cache
def _weekdays() -> list[str]:
    first = date(2007, 1, 3)
    days = (first + timedelta(n) for n in range((date(2026, 12, 31) - first).days))
    return [day.isoformat() for day in days if day.weekday() < 5]


def spot(ticker: str, day: str) -> float:
    """A price, another one every day."""
    return round(100 + sum(map(ord, ticker)) % 50 + date.fromisoformat(day).toordinal() % 97 / 7, 2)


@cache
def made_up(ticker: str, day: str) -> list[dict]:
    """Five strikes of three Fridays: next week's, in about six weeks, in about four months."""
    today, price = date.fromisoformat(day), spot(ticker, day)
    rows = []
    for ahead in (7, 42, 119):
        expiry = today + timedelta(ahead + (4 - today.weekday()) % 7)
        for k in range(-2, 3):
            strike, inside = round(price) + 5 * k, price - (round(price) + 5 * k)
            value = 0.02 * price * (ahead / 30) ** 0.5
            call, put = round(max(inside, 0) + value, 2), round(max(-inside, 0) + value, 2)
            rows.append({
                "ticker": ticker, "tradeDate": day, "expirDate": expiry.isoformat(), "dte": (expiry - today).days + 1,
                "strike": strike, "stockPrice": price, "spotPrice": round(price, 1),
                "callVolume": 10 + k, "callOpenInterest": 100, "putVolume": 20 + k, "putOpenInterest": 200,
                "callBidSize": 1, "callAskSize": 2, "putBidSize": 3, "putAskSize": 4,
                "callBidPrice": round(call - 0.05, 2), "callValue": call, "callAskPrice": round(call + 0.05, 2),
                "putBidPrice": round(put - 0.05, 2), "putValue": put, "putAskPrice": round(put + 0.05, 2),
                "callBidIv": 0.19, "callMidIv": 0.2 + k / 100, "callAskIv": 0.21, "smvVol": 0.2 + k / 90,
                "putBidIv": 0.2, "putMidIv": 0.21 + k / 100, "putAskIv": 0.22, "residualRate": 0.01,
                "delta": 0.5 - 0.2 * k + ahead / 1e6, "gamma": 0.01, "theta": -0.03, "vega": 0.1 + ahead / 1e3,
                "rho": 0.01, "phi": -0.01, "driftlessTheta": -0.03, "extSmvVol": 1e15, "extCallValue": call,
                "extPutValue": put, "updatedAt": f"{day}T20:46:00Z"})
    return rows


if __name__ == "__main__":
    with OratsServer(latency=0.02) as server:
        print(f"export ORATS_TOKEN={server.token}", flush=True)
        print(f"mahler ingest data=orats_api data.api.base_url={server.base_url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
