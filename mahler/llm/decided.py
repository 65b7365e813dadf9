"""The decisions on a session's candidates as the paper ledger keeps them: what was asked once is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mahler.llm.loop import Decide
from mahler.llm.records import Record
from mahler.paper.records import CANDIDATE
from mahler.schema import DECIDED, DECISION, Table, empty

SAID = tuple(name for name in DECIDED.names if name not in CANDIDATE)
"""The columns of a decision that are kept."""


def recorded(decided: Table, otherwise: Decide) -> Decide:
    """What `decided` (schema.DECIDED) says of a candidate; one that it has not is put to `otherwise`."""
    texts = (np.datetime_as_string(decided[name]) if decided[name].dtype.kind == "M" else decided[name] for name in CANDIDATE)
    row_of = {key: k for k, key in enumerate(zip(*(column.tolist() for column in texts), strict=True))}

    def decide(records: Sequence[Record]) -> Table:
        rows = np.array([row_of.get(_key(record), -1) for record in records], int)
        new, old = np.flatnonzero(rows < 0), np.flatnonzero(rows >= 0)
        found = empty(DECISION, len(records))
        asked = otherwise([records[k] for k in new]) if len(new) else empty(DECISION)
        for name in DECISION.names:
            found[name][new] = asked[name]
        for name in SAID:
            found[name][old] = decided[name][rows[old]]
        return found

    return decide


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in CANDIDATE)
