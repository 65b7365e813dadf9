"""Which model is asked, and how it may be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from mahler.schema import ConfigError, choice, number

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass
class Llm:
    """A model, its price and its limits. conf/llm/."""

    model: str                                  # provider/name, as litellm writes it
    api_base: str | None                        # of a server of one's own; None is the provider's
    key: str | None                             # the NAME of the environment variable that has the key; None needs none
    json_schema: bool                           # whether the provider holds its model to a schema
    route: dict[str, Any]                       # what a provider that routes is sent beside the question: a pinned route
    temperature: float | None = number("a temperature", 0, 2)
    seed: int | None = number("a seed of the provider's", 0)
    max_tokens: int = number("tokens of one reply", 1)
    samples: int = number("replies to each question", 1, 100)
    repair: bool                                # one more try after an invalid reply, with what is wrong with it
    on_missing: str = choice("approve", "reject")     # what the P&L takes where there is no decision
    concurrency: int = number("calls at a time", 1, 1000)
    requests_per_minute: int | None = number("calls a minute", 1)
    attempts: int = number("tries of one call", 1, 20)
    timeout: float = number("seconds for one reply", 0, 3600, open_low=True)
    backoff: float = number("seconds before the second try", 0, 60)
    max_wait: float = number("seconds that a try is put off at most", 0, 86_400)
    max_failed: int = number("failed questions after which no more are asked", 1)
    max_cost: float | None = number("dollars", 0)
    input_cost_per_token: float | None = number("dollars a token", 0)       # None takes litellm's list
    output_cost_per_token: float | None = number("dollars a token", 0)
    knowledge_cutoff: date | None               # what happened before it the model may have read; None is unknown
    cache_only: bool                            # make no call
    dry_run: bool                               # say what would be asked and what it would cost
    trace: bool                                 # every call as a trace in MLflow

    def __post_init__(self) -> None:
        if "/" not in self.model:
            raise ConfigError(f"llm.model is provider/name, as openrouter/x-ai/grok-4, got {self.model!r}")
        if self.key is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.key):
            raise ConfigError("llm.key is the NAME of an environment variable in capitals, as OPENAI_API_KEY; what was "
                              "given is not one and is not repeated here, in case it is a key")
        if (self.input_cost_per_token is None) != (self.output_cost_per_token is None):
            raise ConfigError("llm.input_cost_per_token and llm.output_cost_per_token: one is given and one is null; "
                              "give both in dollars a token, or neither")
        if self.api_base is not None:
            self._check_address()

    def _check_address(self) -> None:
        url = urlsplit(self.api_base or "")
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
            raise ConfigError("llm.api_base is an address http(s)://host/path without query or password; what was given "
                              "is not one and is not repeated here, in case it has a key")
        if url.scheme == "http" and self.key is not None and url.hostname not in LOOPBACK:
            raise ConfigError(f"llm.api_base is https where a key is sent (http only to this machine), got {self.api_base!r}")

    def request(self, messages: list[dict[str, str]], schema: str, sample: int) -> dict[str, Any]:
        """All that a reply depends on; `schema` is JSON, and `sample` moves the seed.

        A server of one's own is part of it: what stands behind a name there, only its owner knows.
        """
        return {"model": self.model, "server": None if self.api_base is None else self.api_base.rstrip("/"),
                "messages": messages, "schema": schema if self.json_schema else None,
                "temperature": self.temperature, "seed": None if self.seed is None else self.seed + sample,
                "max_tokens": self.max_tokens, "route": self.route, "sample": sample}
