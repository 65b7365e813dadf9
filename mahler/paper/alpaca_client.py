"""Alpaca's trading API: the orders and the activities of an account. Keys come from the environment and go nowhere else.

They travel as headers; no error says a header, a body or what another library says of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from mahler import __version__
from mahler.schema import ConfigError

if TYPE_CHECKING:
    import httpx

KEYS = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
"""The environment variables of the key and of its secret."""

ORDERS, ACTIVITIES = 500, 100        # the most that the API gives at a time
ATTEMPTS = 4
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def history(base_url: str, since: np.datetime64, timeout: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """All orders, with their legs, and all activities since the day before `since`, each with where it is from.

    `timeout` is seconds for one answer. Raises ConfigError, in one line without a key, where the API gives none.
    """
    import httpx

    url = _address(base_url)
    headers = dict(zip(("APCA-API-KEY-ID", "APCA-API-SECRET-KEY"), _keys(), strict=True)) | {
        "user-agent": f"mahler/{__version__}", "accept": "application/json"}
    after = f"{since - np.timedelta64(1, 'D')}T00:00:00Z"
    with httpx.Client(base_url=url, headers=headers, timeout=timeout, follow_redirects=False) as client:
        for order in _orders(client, after):
            yield f"{url}/v2/orders", order
        for activity in _activities(client, after):
            yield f"{url}/v2/account/activities", activity


def _orders(client: httpx.Client, after: str) -> Iterator[dict[str, Any]]:
    """Page by page, from the oldest; a page begins after the time at which the last order before it was submitted."""
    seen: set[str] = set()
    while True:
        page = _get(client, "/v2/orders", {"status": "all", "nested": "true", "direction": "asc", "limit": str(ORDERS),
                                           "after": after})
        new = [order for order in page if order.get("id") not in seen]
        yield from new
        if len(page) < ORDERS or not new:
            return
        seen |= {order.get("id") for order in new}
        after = str(new[-1].get("submitted_at"))


def _activities(client: httpx.Client, after: str) -> Iterator[dict[str, Any]]:
    """Page by page, from the oldest; a page begins after the id of the last activity before it."""
    query = {"direction": "asc", "page_size": str(ACTIVITIES), "after": after}
    while True:
        page = _get(client, "/v2/account/activities", query)
        yield from page
        if len(page) < ACTIVITIES:
            return
        query["page_token"] = str(page[-1].get("id"))


def _get(client: httpx.Client, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """A list of the API, asked for again where that can help."""
    import httpx

    for attempt in range(1, ATTEMPTS + 1):
        try:
            response = client.get(path, params=query)
        except httpx.TransportError:
            reason = "no answer (is source.base_url right, is there a network?)"
        else:
            if response.status_code == HTTPStatus.OK:
                return _listed(path, response)
            reason = f"HTTP {response.status_code}"
            if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ConfigError(f"{path}: {reason}: Alpaca refuses the key in {KEYS[0]} and {KEYS[1]}; a paper account "
                                  "has keys of its own")
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS and response.status_code < 500:
                break
        if attempt < ATTEMPTS:
            time.sleep(0.5 * 2 ** (attempt - 1))
    raise ConfigError(f"{path}: {reason} from {client.base_url} (tries: {attempt})")


def _listed(path: str, response: httpx.Response) -> list[dict[str, Any]]:
    try:
        page = response.json()
    except ValueError:
        page = None
    if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
        raise ConfigError(f"{path}: the answer is no list of objects; is source.base_url right?")
    return page


def _address(base_url: str) -> str:
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
        raise ConfigError(f"source.base_url is an address https://host without query or password, got {base_url!r}")
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ConfigError(f"source.base_url is https, because the keys travel to it (http only to this machine), got "
                          f"{base_url!r}")
    return base_url.rstrip("/").removesuffix("/v2")


def _keys() -> list[str]:
    keys = [os.environ.get(name, "").strip() for name in KEYS]
    missing = [name for name, key in zip(KEYS, keys, strict=True) if not key]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not set: export {' and '.join(KEYS)} of your Alpaca account")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ConfigError(f"{KEYS[0]} or {KEYS[1]} has a character that no key has (a space, a control character, not ASCII)")
    return keys
