"""What a regime is worth: a multiplier of the risk fraction for each of the four."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler import schema
from mahler.schema import Regime, number


@dataclass
class Multipliers:
    """Multipliers of the risk fraction: bull_low_vol, bull_high_vol, bear_low_vol, bear_high_vol. conf/regime/."""

    multipliers: list[float] = number("a multiple of the risk fraction", 0, 10)

    def __post_init__(self) -> None:
        """Raise ConfigError unless there are four multipliers in range."""
        if len(self.multipliers) != 4:
            raise schema.ConfigError(f"regime.multipliers is 4 numbers, of bull_low_vol, bull_high_vol, "
                                     f"bear_low_vol, bear_high_vol, got {list(self.multipliers)!r}")
        schema.check_bounds(self, "regime")

    def multiplier(self, labels: np.ndarray) -> np.ndarray:
        """The multiplier of each label, float64 of the labels' shape; 1.0 where there is none yet."""
        by_code = np.array([1.0, *self.multipliers])
        return by_code[labels.astype(np.int64) - Regime.NONE]
