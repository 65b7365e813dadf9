"""Sell a constant number of lots, times the regime's multiplier and rounded down: the way of the literature."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mahler.panel import Panel
from mahler.schema import Bound, Table


def fixed_contracts(candidates: Table, panel: Panel, multiplier: np.ndarray, *,
                    contracts: Annotated[int, Bound("contracts", 1, 10_000)]) -> Table:
    """`contracts` lots whatever the equity, within the limits.

    A multiplier that leaves no whole lot is not a veto: its risk fraction is positive, but too small for
    a contract, so admission says `size_zero`.
    """
    lots = np.floor(contracts * multiplier + 1e-9).astype(np.int32)
    too_small = np.nextafter(0.0, 1.0)
    risk_fraction = np.where(multiplier == 0.0, 0.0, np.where(lots > 0, np.inf, too_small))
    return {"risk_fraction": risk_fraction, "max_contracts": lots}
