"""Fill models, one a file: `(bid, ask) -> (sell, buy)`, dollars per share, arrays of any one shape.

A fill may do what it likes but must stay within the quote: bid <= sell and buy <= ask. It is asked for
usable quotes only; what it says of others is not read.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Fill(Protocol):
    """What a fill model is: the prices at which one sells and buys at a quote."""

    def __call__(self, bid: np.ndarray, ask: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def usable(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Whether a quote can be marked and traded against: an ask, not below the bid; the bid may be zero."""
    return (bid >= 0.0) & (ask > 0.0) & (ask >= bid) & np.isfinite(ask)
