"""A coin that rejects as often as the model does: what its vetoes would be worth if they knew nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from mahler.llm.asking import Ask, blank
from mahler.llm.records import Record
from mahler.schema import Bound, Table


def coin_flip(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator, *,
              rejection_rate: Annotated[float, Bound("a share of the trades", 0, 1)] | None) -> Table:
    """One draw: every trade is rejected with the same probability, None being the model's own share of rejects."""
    rate = float(np.mean(~ask(history)["approve"])) if rejection_rate is None else rejection_rate
    return blank(len(records)) | {"approve": rng.random(len(records)) >= rate}
