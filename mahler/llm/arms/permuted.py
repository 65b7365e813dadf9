"""The model, shown another trade's context: what its numbers look like when what it reads is worthless."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mahler.llm.asking import Ask
from mahler.llm.records import Record, entry
from mahler.schema import ConfigError, Table


def permuted(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator) -> Table:
    """Ask about another of the trades that the rules make, drawn at random, in place of each."""
    if len(history) < 2:
        raise ConfigError("arm=permuted shows the model another trade; there is only one")
    at = rng.integers(0, len(history), len(records))
    return ask([history[k] if entry(history[k]) != entry(record) else history[k - 1] for k, record in zip(at, records)])
