"""Every reply of every model, kept as it arrives, under all that it depends on: a question is paid for once.

One SQLite file, which several processes may read and write at once. A process that is killed loses the calls that
were on their way and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, Self

from mahler.schema import ConfigError, one_line

LONGEST_WAIT = 60.0             # seconds for another process that is writing


@dataclass(frozen=True)
class Reply:
    """What a provider sent back. Missing text is ""."""

    text: str
    refusal: str                 # the provider's own field, or why it filtered
    finish_reason: str
    provider: str                # who answered, where a router chose
    model: str
    fingerprint: str
    id: str
    input_tokens: int
    output_tokens: int
    cost: float                  # dollars
    seconds: float


COLUMNS = tuple(field.name for field in fields(Reply))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM replies WHERE key = ?"


def key(request: Mapping[str, Any]) -> str:
    """64 hex digits of a request: model, server, messages, schema, temperature, seed, most tokens, route, sample."""
    return hashlib.sha256(_written(request).encode("utf-8")).hexdigest()


_written = json.JSONEncoder(sort_keys=True, allow_nan=False, check_circular=False).encode     # made once: keys are many


class Replies:
    """The store at `path`, from `with` until its end."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            flock(lock, LOCK_EX)                # two that make the file at once would not wait for each other
            self._db = sqlite3.connect(self._path, timeout=LONGEST_WAIT, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")       # no wait for the disk; only a power cut may lose any
                self._db.execute(f"CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, at TEXT NOT NULL, "
                                 f"request TEXT NOT NULL, {', '.join(COLUMNS)}) WITHOUT ROWID")
            except sqlite3.DatabaseError as error:
                self._db.close()
                raise ConfigError(f"{self._path} is no store of replies: {one_line(error)}; move it away and a new one is "
                                  "made") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """For as long as the block lasts, all is read as it was at the first read, without a lock for each."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def get(self, key: str) -> Reply | None:
        """The reply under `key`; None where there is none."""
        row = self._db.execute(SELECT, (key,)).fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, request: Mapping[str, Any], reply: Reply) -> Reply:
        """Keep a reply, unless another process was first. Returns the one that is kept."""
        row = (key, datetime.now(timezone.utc).isoformat(timespec="seconds"), _written(request), *astuple(reply))
        added = self._db.execute(f"INSERT OR IGNORE INTO replies VALUES ({', '.join('?' * len(row))})", row)
        return reply if added.rowcount else self.get(key) or reply

    def mean_output_tokens(self, model: str) -> float | None:
        """Of all replies to requests for `model`; None where there are none."""
        where = "json_extract(request, '$.model') = ?"
        return self._db.execute(f"SELECT avg(output_tokens) FROM replies WHERE {where}", (model,)).fetchone()[0]

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM replies").fetchone()[0]
