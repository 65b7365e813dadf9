"""`make calibrate`: is the verdict honest? Whole studies, of which the truth is known, through the rule itself.

A study is six configs with a common market in them: daily returns with fat tails, negative skew, clustered volatility
and some persistence, of a given correlation and a given true Sharpe ratio. In a null study all six are worth the same,
so `better than control` is a false positive. In a planted study one is better by a known difference, so anything else
is a miss. What judges them is `mahler.validation.study.judge`, which `mahler validate` runs, by the method of
conf/method/design.yaml with fewer bootstrap samples. Not part of the tests; writes experiments/calibration.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import erf, sqrt
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.special import beta
from scipy.stats import beta as beta_distribution

from mahler.schema import SESSIONS_PER_YEAR
from mahler.validation.folds import folds
from mahler.validation.processes import processes
from mahler.validation.scores import wilson
from mahler.validation.sharpe import detectable_difference
from mahler.validation.study import Judgement, Method, judge
from mahler.validation.verdict import BETTER, NO_EVIDENCE, WORSE
from mahler.validation.walkforward import Trial, Walk

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "experiments" / "calibration.md"

YEARS, SESSIONS, CONFIGS, PLANTED = 19, 4_780, 6, 3
VOLATILITY = 0.10 / np.sqrt(SESSIONS_PER_YEAR)      # a session, of every config
FREEDOM, SKEWING = 5.0, 0.80                        # Student's t and the two-piece skew of Fernandez & Steel
PERSISTENCE, CLUSTERING, ROUGHNESS = 0.05, 0.97, 0.35
"""AR(1) of the shocks, AR(1) of the logarithm of volatility, and the standard deviation of that logarithm."""

HEAT, HOLDING = 0.15, 5                             # open maximum loss over equity; sessions that a trade lives
NATURAL_COST = 0.02 / SESSIONS_PER_YEAR             # a session, what crossing every quote costs either config
EQUITY = 100_000.0


# ---- a market of which the truth is known ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What a study is made of: the control's annual Sharpe ratio, what one config adds to it, and their correlation."""

    sharpe: float
    planted: float
    correlation: float
    seed: int


def shocks(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Fat-tailed, negatively skewed, slightly persistent shocks of mean 0 and variance 1: (n, count).

    References
    ----------
    Fernandez & Steel (1998), On Bayesian Modeling of Fat Tails and Skewness, for the two-piece t and its moments.
    """
    g = SKEWING
    sizes = np.abs(rng.standard_t(FREEDOM, (n, count)))
    raw = np.where(rng.random((n, count)) < g * g / (1.0 + g * g), g * sizes, -sizes / g)
    first = 2.0 * np.sqrt(FREEDOM) / ((FREEDOM - 1.0) * beta(FREEDOM / 2.0, 0.5))
    second = FREEDOM / (FREEDOM - 2.0)
    variance = (second - first ** 2) * (g ** 2 + g ** -2) + 2.0 * first ** 2 - second
    unit = (raw - first * (g - 1.0 / g)) / np.sqrt(variance)
    return lfilter([np.sqrt(1.0 - PERSISTENCE ** 2)], [1.0, -PERSISTENCE], unit, axis=0)


def daily_returns(truth: Truth, n: int = SESSIONS) -> np.ndarray:
    """Daily returns (n, CONFIGS) of a study; the configs differ in nothing but luck and what was planted."""
    rng = np.random.default_rng(truth.seed)
    innovations = rng.normal(0.0, ROUGHNESS * np.sqrt(1.0 - CLUSTERING ** 2), n)
    innovations[0] = rng.normal(0.0, ROUGHNESS)
    volatility = np.exp(lfilter([1.0], [1.0, -CLUSTERING], innovations) - ROUGHNESS ** 2)       # E[square] is 1
    common, own = shocks(rng, n, 1), shocks(rng, n, CONFIGS)
    mixed = np.sqrt(truth.correlation) * common + np.sqrt(1.0 - truth.correlation) * own
    worth = np.full(CONFIGS, truth.sharpe)
    worth[PLANTED] += truth.planted
    return VOLATILITY * (worth / np.sqrt(SESSIONS_PER_YEAR) + volatility[:, None] * mixed)


@dataclass(frozen=True)
class Daily:
    """A market of given daily returns (n_days, n_configs), as the walk-forward asks for it.

    Every window starts flat with the same dollars. Its P&L is cut into trades of HOLDING sessions that follow on one
    another, so that the trades' P&L adds up to the account's. Returns and heat are proportional to `scale`.
    """

    returns: np.ndarray
    scale: float = 1.0
    natural: bool = False

    def __call__(self, number: int) -> Trial:
        mine = self.scale * (self.returns[:, number] - (NATURAL_COST if self.natural else 0.0))

        def walk(first_day: int, last_day: int) -> Walk:
            equity = EQUITY * np.cumprod(1.0 + mine[first_day:last_day])
            entry = np.arange(first_day, last_day, HOLDING)
            leave = np.minimum(entry + HOLDING, last_day) - 1
            pnl = np.diff(equity[leave - first_day], prepend=EQUITY)
            return Walk(first_day, EQUITY, equity, self.scale * HEAT * equity, np.zeros(len(equity)), entry, leave, pnl)

        return walk


@lru_cache
def dates(n: int = SESSIONS) -> np.ndarray:
    """Consecutive weekdays from 2007 on: datetime64[D] (n,)."""
    return np.busday_offset(np.datetime64("2007-01-01"), np.arange(n), roll="forward")
