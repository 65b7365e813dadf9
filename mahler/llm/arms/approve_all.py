"""The rules alone: every trade that they admit is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mahler.llm.asking import Ask, blank
from mahler.llm.records import Record
from mahler.schema import Table


def approve_all(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator) -> Table:
    """Approve, without a probability: nothing is claimed."""
    return blank(len(records)) | {"approve": np.ones(len(records), bool)}
