"""A fill that travels a stated share of the quoted spread, the convention of ORATS's backtester."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mahler.schema import Bound


def travel(bid: np.ndarray, ask: np.ndarray, *,
           travel: Annotated[float, Bound("a share of the quoted spread", 0.5, 1.0)]) -> tuple[np.ndarray, np.ndarray]:
    """Sell at ask - p (ask - bid), buy at bid + p (ask - bid), p = `travel`: 0.5 is the mid, 1 crosses.

    Nobody is filled better than the mid here: what a seller earns by it is not a result.

    Where the bid is zero nobody bids, and there is no spread to travel: a seller gets nothing, a buyer
    pays the ask.
    """
    nobody_bids = bid == 0.0
    sell = np.where(nobody_bids, 0.0, ask - travel * (ask - bid))
    buy = np.where(nobody_bids, ask, bid + travel * (ask - bid))
    return sell, buy
