"""A path of 2007-2025 for every seed, made whole.

Two worlds and what lies between them:

* `premium` 1, `drift` 1: bridges of log prices through the turning points. Realised volatility follows VIX, which
  is itself random, at a discount; returns have fat, skewed tails, and VIX rises when prices fall.
* `premium` 0, `drift` 0, the null market: normal returns around a driftless price, no interest, no dividends, and a
  volatility that changes from day to day but is known beforehand. Black-Scholes with the mean variance until expiry
  is then the exact price of every option: nothing earns before costs, and everything loses after them.

In between, `premium` scales how random VIX is, how fat the tails are and how far below VIX the market moves, and
`drift` how far a segment's return goes towards that of the turning points, and rates and dividends.
"""

from __future__ import annotations

import numpy as np

from mahler.data.calendar import sessions
from mahler.market.path import HORIZON, SPY, Path, base_ratios, implied_ratios
from mahler.market.surface import TENORS, term_structure
from mahler.market.turning_points import CLOSES, DATES, DIVIDEND_YIELDS, RATE_DATES, RATES, VIX, between
from mahler.schema import SESSIONS_PER_YEAR

# Chosen so that the figures of tests/test_synthetic.py come out in the mean of many seeds.
REALIZED_TO_VIX = 0.785         # daily volatility x sqrt(252) over VIX: the variance premium
FRIGHT = 0.25                   # how much more, per expected standard deviation of a fall beyond the first
DEGREES = 6.0                   # of the Student t of a day's return, given VIX; without it, about 4
SKEW = -0.15                    # what a large mixing variance adds to a return, standard deviations
VIX_SKEW = 0.15                 # and to log VIX
LEVERAGE = -0.80                # correlation of the normal parts of SPY's return and log VIX's change
CORRELATION = np.array([[1.00, 0.84, 0.89], [0.84, 1.00, 0.92], [0.89, 0.92, 1.00]])   # IWM, QQQ, SPY
VIX_FLOOR = 6.5                 # points; VIX has never closed below 9
VIX_STEP = 0.105                # daily standard deviation of ln(VIX - VIX_FLOOR)
VIX_RISE = 0.6                  # power of time at which VIX rises between two turning points: fast, then slower
VIX_PULL = 0.060                # its daily mean reversion: half of a shock is gone in 11 sessions
PRICE_PULL = 0.07               # that of a price towards the way between two turning points


def simulate(seed: int, *, premium: float, drift: float) -> Path:
    """The path of `seed`: through the turning points where `drift` is 1, a martingale where it is 0.

    `premium` and `drift` are shares in [0, 1].
    """
    days, calendar = sessions(DATES[0], DATES[-1]), sessions(DATES[0], DATES[-1] + HORIZON)
    at = np.searchsorted(days, DATES)                                               # (44,)
    shocks, vix_shocks = _shocks(np.random.default_rng([seed, 0]), len(days), premium)

    backbone = _relax(np.log(VIX - VIX_FLOOR), at)                                  # (n,)
    expected, vix = _vix(backbone), _vix(backbone + premium * _wander(vix_shocks, at))
    level = np.append(expected, np.full(len(calendar) - len(days), expected[-1])) / 100.0    # (m,)
    implied = base_ratios(calendar) * level[:, None] / np.sqrt(SESSIONS_PER_YEAR)   # (m, 3) of tomorrow's return
    discount = 1.0 - premium * (1.0 - _realized_to_implied(implied[:len(days) - 1, SPY], at))
    # Yesterday's VIX moves today's prices.
    sd = implied[:len(days) - 1] * (discount * (vix / expected)[:-1])[:, None]      # (n - 1, 3)
    closes = _bridge(sd * shocks[1:], sd, at, drift)

    variance = np.vstack([np.zeros(3), np.cumsum(implied[:-1] ** 2, axis=0)])       # (m, 3)
    fair = _fair_tenors(calendar, variance[:, SPY], len(days))
    tenors = np.sqrt(premium * term_structure(vix) ** 2 + (1.0 - premium) * fair ** 2)
    ratios = premium * implied_ratios(days, closes) + (1.0 - premium) * base_ratios(days)
    return Path(days, closes, np.round(tenors, 2), ratios, drift * between(days, RATE_DATES, RATES),
                drift * DIVIDEND_YIELDS, calendar, premium, variance)


def _shocks(rng: np.random.Generator, n: int, premium: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns of unit variance, (n, 3), and changes of VIX, (n,): a normal mean-variance mixture.

    One mixing variance a day for all: on the days when one jumps, all do. Without `premium` returns are normal.
    """
    factor = np.linalg.cholesky(CORRELATION)
    normal = rng.standard_normal((n, 3)) @ factor.T
    own = rng.standard_normal(n)
    mixing = DEGREES / rng.chisquare(DEGREES, n)
    calm = rng.standard_normal((n, 3)) @ factor.T

    mean = DEGREES / (DEGREES - 2.0)
    spread = 2.0 * DEGREES ** 2 / ((DEGREES - 2.0) ** 2 * (DEGREES - 4.0))          # variance of the mixing variance
    excess, root = mixing - mean, np.sqrt(mixing)
    fat = (SKEW * excess[:, None] + root[:, None] * normal) / np.sqrt(mean + SKEW ** 2 * spread)
    toward = LEVERAGE * normal[:, SPY] + np.sqrt(1.0 - LEVERAGE ** 2) * own
    vix = (VIX_SKEW * excess + root * toward) / np.sqrt(mean + VIX_SKEW ** 2 * spread)
    return np.sqrt(premium) * fat + np.sqrt(1.0 - premium) * calm, vix


def _segments(at: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(at[:-1].tolist(), at[1:].tolist()))


def _vix(log_excess: np.ndarray) -> np.ndarray:
    """VIX in points from the logarithm of what it is above its floor."""
    return VIX_FLOOR + np.exp(log_excess)


def _relax(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A curve (n,) through `points` (44,): straight on the way up, sagging on the way down, as after a fright."""
    curve = np.empty(at[-1] + 1)
    for (a, b), start, end in zip(_segments(at), points[:-1], points[1:]):
        left = 1.0 - np.linspace(0.0, 1.0, b - a + 1) ** VIX_RISE if end > start else _pull(b - a)[0]
        curve[a:b + 1] = end + left * (start - end)
    return curve


def _wander(shocks: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A mean-reverting walk (n,) with steps of VIX_STEP, conditioned to be 0 at the turning points."""
    walk = np.zeros(len(shocks))
    for t in range(1, len(walk)):
        walk[t] = (1.0 - VIX_PULL) * walk[t - 1] + VIX_STEP * shocks[t]
    tied = np.empty_like(walk)
    for a, b in _segments(at):
        left, right = _pull(b - a)
        tied[a:b + 1] = walk[a:b + 1] - left * walk[a] - right * walk[b]
    return tied


def _pull(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n + 1,) of both ends in the mean of a mean-reverting walk between them: 1 at the one, 0 at the other."""
    right = np.sinh(VIX_PULL * np.arange(n + 1)) / np.sinh(VIX_PULL * n)
    return right[::-1], right


def _realized_to_implied(implied: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Realised over implied volatility, (n - 1,): higher in a fall that was faster than was priced, and wild."""
    ratio = np.empty(len(implied))
    for (a, b), move in zip(_segments(at), np.diff(np.log(CLOSES[:, SPY]))):
        fall = -move / np.sqrt(np.sum(implied[a:b] ** 2))                           # standard deviations
        ratio[a:b] = REALIZED_TO_VIX * (1.0 + FRIGHT * max(0.0, fall - 1.0))
    return ratio


def _bridge(shocks: np.ndarray, sd: np.ndarray, at: np.ndarray, drift: float) -> np.ndarray:
    """Closes (n, 3), in cents, from the daily surprises (n - 1, 3) and their standard deviations.

    Turning points are extremes, so the walk between two of them hugs the way: surprises fade at PRICE_PULL, and
    what is then missing is spread in proportion to variance. Both are times `drift`; without, a martingale is left.
    """
    returns = np.empty_like(shocks)
    wanted = np.diff(np.log(CLOSES), axis=0)                                        # (43, 3)
    for k, (a, b) in enumerate(_segments(at)):
        off = np.column_stack([_fading(shocks[a:b, k], 1.0 - drift * PRICE_PULL) for k in range(3)])
        returns[a:b] = shocks[a:b] - drift * PRICE_PULL * off - 0.5 * sd[a:b] ** 2
        weight = sd[a:b] ** 2 / np.sum(sd[a:b] ** 2, axis=0)
        returns[a:b] += drift * weight * (wanted[k] - returns[a:b].sum(axis=0))
    log_closes = np.log(CLOSES[0]) + np.vstack([np.zeros(3), np.cumsum(returns, axis=0)])
    return np.round(np.exp(log_closes), 2)


def _fading(shocks: np.ndarray, kept: float) -> list[float]:
    """What is left before each of the shocks (n,) of those that came before it, where a share is kept each session."""
    left = [0.0]
    for shock in shocks[:-1].tolist():
        left.append(kept * left[-1] + shock)
    return left


def _fair_tenors(calendar: np.ndarray, variance: np.ndarray, n: int) -> np.ndarray:
    """VIX9D, VIX, VIX3M, VIX6M (n, 4), in points, of a market whose variance (m,) is known beforehand."""
    fair = np.empty((n, len(TENORS)))
    for k, tenor in enumerate(TENORS):
        end = np.searchsorted(calendar, calendar[:n] + np.timedelta64(int(tenor), "D"), side="right") - 1
        fair[:, k] = 100.0 * np.sqrt((variance[end] - variance[:n]) / (tenor / 365.0))
    return fair
