"""Risk a constant share of equity, times the regime's multiplier."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from mahler.panel import Panel
from mahler.schema import Bound, Table


def fixed_fraction(candidates: Table, panel: Panel, multiplier: np.ndarray, *,
                   fraction: Annotated[float, Bound("a share of equity", 0.0, 1.0, open_low=True)]) -> Table:
    """The columns risk_fraction = fraction x multiplier, and no cap on contracts."""
    return {"risk_fraction": fraction * multiplier, "max_contracts": np.zeros(len(multiplier), np.int32)}
