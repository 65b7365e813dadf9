"""Black-Scholes-Merton with a continuous dividend yield: prices, greeks, implied volatility. All vectorised.

Volatilities are decimals a year, `years` is calendar days / 365, rates and yields are continuously compounded
decimals a year. Every argument broadcasts.

References
----------
Merton (1973), Theory of Rational Option Pricing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

_SQRT_2PI = np.sqrt(2.0 * np.pi)
_IV_LOW, _IV_HIGH = 1e-3, 10.0   # decimals a year: outside of it a volatility is "none"
_IV_STEPS = 40
_IV_TOLERANCE = 1e-7             # decimals a year


@dataclass(frozen=True)
class Greeks:
    """Sensitivities of one share's worth of an option, arrays of one shape."""

    delta: np.ndarray   # dollars per dollar of spot; call delta - put delta = exp(-dividend_yield * years)
    gamma: np.ndarray   # delta per dollar of spot
    theta: np.ndarray   # dollars per calendar day
    vega: np.ndarray    # dollars per IV point (0.01)


def price(spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray, dividend_yield: np.ndarray,
          iv: np.ndarray, is_call: np.ndarray) -> np.ndarray:
    """Value of a European option, dollars per share; the discounted intrinsic value where `iv` or `years` is 0."""
    sign = np.where(is_call, 1.0, -1.0)
    d1, d2 = _d1_d2(spot, strike, years, rate, dividend_yield, iv)
    return sign * (spot * np.exp(-dividend_yield * years) * ndtr(sign * d1)
                   - strike * np.exp(-rate * years) * ndtr(sign * d2))


def greeks(spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray, dividend_yield: np.ndarray,
           iv: np.ndarray, is_call: np.ndarray) -> Greeks:
    """Delta, gamma, theta (per calendar day) and vega (per IV point) of a European option; `years`, `iv` > 0."""
    sign = np.where(is_call, 1.0, -1.0)
    d1, d2 = _d1_d2(spot, strike, years, rate, dividend_yield, iv)
    share = spot * np.exp(-dividend_yield * years)      # today's price of the share at expiry
    cash = strike * np.exp(-rate * years)
    density = np.exp(-0.5 * d1 * d1) / _SQRT_2PI
    root = np.sqrt(years)
    decay = -0.5 * share * density * iv / root
    carry = sign * (dividend_yield * share * ndtr(sign * d1) - rate * cash * ndtr(sign * d2))
    return Greeks(
        delta=sign * np.exp(-dividend_yield * years) * ndtr(sign * d1),
        gamma=share * density / (spot * spot * iv * root),
        theta=(decay + carry) / 365.0,
        vega=share * density * root / 100.0,
    )


def implied_volatility(value: np.ndarray, spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray,
                       dividend_yield: np.ndarray, is_call: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
    """Volatility at which a European option is worth `value` dollars; NaN where there is none.

    There is none where `value` is at or below the option's discounted intrinsic value, at or above its upper bound,
    where `years` is not positive, or where the volatility is outside [0.001, 10]. `guess` (decimals a year) only
    saves steps. The answer reprices `value` as closely as float64 can tell.

    Solved for the out-of-the-money option of the same strike, whose log price is a concave increasing function of
    volatility: Newton's tangent from the left never overshoots, one from the right lands on the left at most once,
    and a bracket keeps both inside.
    """
    value, spot, strike, years, rate, dividend_yield, is_call = np.broadcast_arrays(
        value, spot, strike, years, rate, dividend_yield, is_call)
    share, cash = spot * np.exp(-dividend_yield * years), strike * np.exp(-rate * years)
    sign = np.where(share > cash, -1.0, 1.0)                    # the out-of-the-money side: +1 call, -1 put
    same_side = np.where(is_call, 1.0, -1.0) == sign
    otm = np.where(same_side, value, value - np.abs(share - cash))
    with np.errstate(invalid="ignore"):
        solvable = (otm > 1e-10) & (otm < np.minimum(share, cash)) & (years > 0)
    iv = np.full(otm.shape, np.nan)
    start = np.full(otm.shape, 0.2) if guess is None else np.broadcast_to(guess, otm.shape)
    terms = (x[solvable] for x in (otm, share, cash, years, sign, start))
    iv[solvable] = _solve(*terms)
    return iv


def _solve(value: np.ndarray, share: np.ndarray, cash: np.ndarray, years: np.ndarray, sign: np.ndarray,
           start: np.ndarray) -> np.ndarray:
    """Volatility of out-of-the-money options (n,), by Newton inside a bracket; NaN where it walks into a wall of it."""
    answer, alive = np.full(value.shape, np.nan), np.arange(value.size)
    target, root, moneyness = np.log(value), np.sqrt(years), np.log(share / cash)
    low, high = np.full(value.shape, _IV_LOW), np.full(value.shape, _IV_HIGH)
    iv = np.clip(np.where(np.isfinite(start), start, 0.2), 0.05, 3.0)
    for _ in range(_IV_STEPS):
        deviation = iv * root
        d1 = moneyness / deviation + 0.5 * deviation
        worth = sign * (share * ndtr(sign * d1) - cash * ndtr(sign * (d1 - deviation)))
        slope = share * np.exp(-0.5 * d1 * d1) / _SQRT_2PI * root          # d worth / d iv
        known = (worth > 1e-300) & (slope > 1e-300)
        miss = np.where(known, np.log(np.where(known, worth, 1.0)), -np.inf) - target
        low, high = np.where(miss < 0, iv, low), np.where(miss > 0, iv, high)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = iv - miss * worth / slope
        inside = known & (step > low) & (step < high)
        moved = np.where(inside, step, np.where(miss == 0, iv, 0.5 * (low + high)))
        done = np.abs(moved - iv) <= _IV_TOLERANCE
        answer[alive[done]] = moved[done]
        keep = ~done
        if not keep.any():
            break
        alive, target, share, cash, root, sign, moneyness = (
            x[keep] for x in (alive, target, share, cash, root, sign, moneyness))
        low, high, iv = low[keep], high[keep], moved[keep]
    answer[(answer < _IV_LOW * 1.01) | (answer > _IV_HIGH * 0.999)] = np.nan
    return answer


def _d1_d2(spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray, dividend_yield: np.ndarray,
           iv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two arguments of the normal distribution; +-inf where there is no uncertainty left."""
    deviation = np.asarray(iv * np.sqrt(years), dtype=float)
    forward = np.log(spot / strike) + (rate - dividend_yield) * years
    with np.errstate(divide="ignore", invalid="ignore"):
        d1 = np.where(deviation > 0, forward / deviation + 0.5 * deviation,
                      np.where(forward < 0, -np.inf, np.inf))
    return d1, d1 - deviation
