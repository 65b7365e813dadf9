"""What the model decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mahler.llm.asking import Ask
from mahler.llm.records import Record
from mahler.schema import Table


def model(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator) -> Table:
    """Ask the model about each trade."""
    return ask(records)
