"""Orders and activities in the form in which Alpaca gives them, and a server on this machine that gives them page by page."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY, SECRET = "PKPLANTED0KEY", "planted-5ecret"
SHORT, LONG = "SPY240419P00480000", "SPY240419P00475000"


def order(order_id: str, day: str, *, opens: bool = True, contracts: int = 2, filled: int | None = None,
          prices: tuple[float, float] = (1.30, 0.94), client_id: str = "d3c0ffee", legs: tuple[str, str] = (SHORT, LONG),
          status: str | None = None) -> dict[str, Any]:
    """A multi-leg order, nested: the parent has no symbol and no side, and a credit is a negative price."""
    filled = contracts if filled is None else filled
    status = status or ("filled" if filled == contracts else "partially_filled" if filled else "new")
    at = f"{day}T19:46:{{:02d}}.123456789Z"
    net = (prices[0] - prices[1]) * (-1 if opens else 1)
    shared = {"created_at": at.format(0), "updated_at": at.format(9), "submitted_at": at.format(0),
              "filled_at": at.format(5) if filled == contracts else None, "expired_at": None, "canceled_at": None,
              "failed_at": None, "replaced_at": None, "replaced_by": None, "replaces": None, "notional": None,
              "time_in_force": "day", "stop_price": None, "status": status, "extended_hours": False,
              "trail_percent": None, "trail_price": None, "hwm": None}
    intents = ("sell_to_open", "buy_to_open") if opens else ("buy_to_close", "sell_to_close")
    return shared | {
        "id": order_id, "client_order_id": client_id, "asset_id": "", "symbol": "", "asset_class": "", "side": "",
        "qty": str(contracts), "filled_qty": str(filled), "filled_avg_price": f"{net:.2f}" if filled else None,
        "order_class": "mleg", "order_type": "limit", "type": "limit", "limit_price": f"{net:.2f}", "legs": [
            shared | {"id": f"{order_id}-{k}", "client_order_id": f"{order_id}-leg-{k}", "asset_id": "a", "symbol": symbol,
                      "asset_class": "us_option", "qty": str(contracts), "filled_qty": str(filled),
                      "filled_avg_price": f"{price:.2f}" if filled else None, "order_class": "mleg", "order_type": "",
                      "type": "", "side": intent.split("_")[0], "limit_price": None, "legs": None,
                      "position_intent": intent, "ratio_qty": "1"}
            for k, (symbol, price, intent) in enumerate(zip(legs, prices, intents, strict=True))]}


def fill(activity_id: str, order_id: str, day: str, symbol: str, side: str, contracts: int, price: float, *,
         second: int = 5, leaves: int = 0) -> dict[str, Any]:
    """A trade activity: a fill, or a partial one, of an order or of its leg."""
    return {"id": f"{day.replace('-', '')}1546{second:02d}123::{activity_id}", "activity_type": "FILL",
            "transaction_time": f"{day}T19:46:{second:02d}.123456Z", "type": "partial_fill" if leaves else "fill",
            "price": str(price), "qty": str(contracts), "side": side, "symbol": symbol, "leaves_qty": str(leaves),
            "order_id": order_id, "cum_qty": str(contracts), "order_status": "partially_filled" if leaves else "filled"}


def event(activity_id: str, kind: str, day: str, symbol: str, qty: int, price: float | None = None,
          net_amount: float = 0.0) -> dict[str, Any]:
    """A non-trade activity: OPEXP, OPASN, OPEXC, OPTRD, FEE, JNLC, ..."""
    price = {} if price is None else {"price": str(price)}
    return {"id": f"{day.replace('-', '')}000000000::{activity_id}", "activity_type": kind, "date": day,
            "net_amount": str(net_amount), "description": kind, "symbol": symbol, "qty": str(qty),
            "status": "executed"} | price


class AlpacaServer:
    """The server, from `with` until its end; `asked` are the paths and queries, `faults` the statuses to answer first."""

    def __init__(self, orders: list[dict], activities: list[dict], *, page: int = 2) -> None:
        self.orders, self.activities, self.page = orders, activities, page
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.faults: list[int | bytes] = []
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> AlpacaServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def listed(self, path: str, query: dict[str, str]) -> list[dict]:
        """The page that is asked for, oldest first."""
        if path == "/v2/orders":
            found = sorted((o for o in self.orders if o["submitted_at"] > query["after"]), key=lambda o: o["submitted_at"])
            return found[:int(query["limit"])]
        found = sorted(self.activities, key=lambda a: a["id"])
        token = query.get("page_token", "")
        return [a for a in found if a["id"] > token][:int(query["page_size"])]


class _Handler(BaseHTTPRequestHandler):
    api: AlpacaServer

    def do_GET(self) -> None:  # noqa: N802
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.api.asked.append((url.path, query))
        keys = (self.headers.get("APCA-API-KEY-ID"), self.headers.get("APCA-API-SECRET-KEY"))
        status, body = 200, b""
        if keys != (KEY, SECRET):
            status, body = 403, b'{"message": "forbidden."}'
        elif self.api.faults:
            fault = self.api.faults.pop(0)
            status, body = (fault, b"{}") if isinstance(fault, int) else (200, fault)
        else:
            body = json.dumps(self.api.listed(url.path, query)).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""
