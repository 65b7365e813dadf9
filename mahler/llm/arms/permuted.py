"""The model, shown another trade's context: what its numbers look like when what it reads is worthless."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mahler.llm.asking import Ask
from mahler.llm.records import Record
from mahler.schema import ConfigError, Table


def permuted(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator) -> Table:
    """Ask about another trade of the book, drawn at random, in place of each."""
    if len(history) < 2:
        raise ConfigError("arm=permuted shows the model another trade; there is only one")
    place = {record["trade_id"]: k for k, record in enumerate(history)}
    steps = rng.integers(1, len(history), len(records))         # never back to itself
    return ask([history[(place[record["trade_id"]] + step) % len(history)] for record, step in zip(records, steps)])
