"""Black-Scholes-Merton with a continuous dividend yield: prices, greeks, implied volatility. All vectorised.

Volatilities are decimals a year, `years` is calendar days / 365, rates and yields are continuously compounded
decimals a year. Every argument broadcasts.

References
----------
Merton (1973), Theory of Rational Option Pricing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import erfcx, ndtr

_SQRT_2PI = np.sqrt(2.0 * np.pi)
_IV_LOW, _IV_HIGH = 1e-3, 10.0   # decimals a year: outside of it a volatility is "none"
_IV_LEAST = 1e-10                # dollars of time value: less is the rounding of the price
_IV_NEAR = 1e-4                  # a Newton step this small, in parts of s, and its fourth-order companion lands
_IV_STEPS = 60
_RATIO = (-40.0, 10.0, 4096)     # of price to distance, its logarithm: first and last node of the table, and steps between
_IV_BLOCK = 1 << 13              # options solved at a time: what they need stays in the cache of a core


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
                       dividend_yield: np.ndarray, is_call: np.ndarray) -> np.ndarray:
    """Volatility at which a European option is worth `value` dollars; NaN where there is none.

    There is none where `value` is at or below the option's discounted intrinsic value, at or above its upper bound,
    where `years` is not positive, or where the volatility is outside [0.001, 10]. The answer reprices `value` as
    closely as float64 can tell: it is within 1e-8 where the option's |delta| is 0.001 to 0.999, but for a volatility that
    the last digits of `value` do not tell so well (of an option deep in the money, or of a thousand per cent).
    """
    columns = np.broadcast_arrays(value, spot, strike, years, rate, dividend_yield, is_call)
    shape, flat = columns[0].shape, [column.reshape(-1) for column in columns]
    iv = np.empty(flat[0].size)
    for first in range(0, iv.size, _IV_BLOCK):
        block = slice(first, first + _IV_BLOCK)
        iv[block] = _implied(*(column[block] for column in flat))
    return iv.reshape(shape)


def _implied(value: np.ndarray, spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray,
             dividend_yield: np.ndarray, is_call: np.ndarray) -> np.ndarray:
    """`implied_volatility` of flat arrays (n,), by way of the out-of-the-money option of the same strike."""
    share, cash = spot * np.exp(-dividend_yield * years), strike * np.exp(-rate * years)
    intrinsic = np.where(is_call, share - cash, cash - share)           # of the European option, also below 0
    with np.errstate(invalid="ignore", divide="ignore"):
        time_value = value - np.maximum(intrinsic, 0.0)
        solvable = (time_value > _IV_LEAST) & (time_value < np.minimum(share, cash)) & (years > 0)
        target = np.log(time_value / np.sqrt(share * cash))
        moneyness, root = -np.abs(np.log(share / cash)), np.sqrt(years)
    iv, rows = np.full(value.shape, np.nan), np.flatnonzero(solvable)
    if len(rows) < len(iv):
        target, moneyness, root = target[rows], moneyness[rows], root[rows]
    found = _total_volatility(target, moneyness, _IV_LOW / 2 * root, 2 * _IV_HIGH * root) / root
    iv[rows] = np.where((found >= _IV_LOW) & (found <= _IV_HIGH), found, np.nan)
    return iv


def _total_volatility(target: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """s in (low, high) at which the log price of an out-of-the-money option is `target` (n,); NaN where there is none.

    s is volatility x sqrt(years), the price is in parts of sqrt(share x cash) and x = -|log(share / cash)|:

        b(s) = exp(x / 2) N(x / s + s / 2) - exp(-x / 2) N(x / s - s / 2)

    Solved by Householder's method of order four for ln b, which is increasing and concave and whose derivatives are
    those of b, known in closed form: one step or two from `_normal_volatility`. A bracket catches a step that would
    lead out of it.

    References
    ----------
    Jaeckel (2015), Let's Be Rational: the derivatives of b, and the method.
    """
    answer, alive = np.full(target.shape, np.nan), np.arange(target.size)
    up, down = np.exp(0.5 * x), np.exp(-0.5 * x)
    s = np.clip(_normal_volatility(target, x, down - up), low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(_IV_STEPS):
            h, t = x / s, 0.5 * s
            b = up * ndtr(h + t) - down * ndtr(h - t)
            slope = np.exp(-0.5 * (h * h + t * t)) / _SQRT_2PI / b              # of ln b
            miss = np.log(b) - target
            second = h * h / s - 0.5 * t                                        # b'' / b'
            third = second * second - 3.0 * (h / s) ** 2 - 0.25                 # b''' / b'
            # The same of ln b: f'' / f' and f''' / f'.
            f2, f3 = second - slope, third + slope * (2.0 * slope - 3.0 * second)
            newton = -miss / slope
            moved = s + newton * (1.0 + 0.5 * f2 * newton) / (1.0 + newton * (f2 + f3 * newton / 6.0))
            # The root is between `low` and `high`. A price that rounding took below zero is too low.
            low, high = np.where(miss >= 0, low, s), np.where(miss > 0, s, high)
            far = ~(np.abs(newton) <= _IV_NEAR * s)
            lost = far & ~((moved > low) & (moved < high))
            if lost.any():
                moved = np.where(lost, 0.5 * (low + high), moved)
            answer[alive[~far]] = moved[~far]
            if not far.any():
                break
            alive, target, x, up, down, low, high, s = (
                v[far] for v in (alive, target, x, up, down, low, high, moved))
    return answer


def _normal_volatility(target: np.ndarray, x: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """About the s of `_total_volatility`: within 3e-5 of it, in parts, where s is below 0.3, and 4 % where it is below 2; (n,).

    By the normal model, in which a price is s g(h), g(h) = n(h) - h N(-h), at h = distance / s from the strike: so
    price / distance = g(h) / h, and h is read from a table. The lognormal s is that of the normal model times
    |x| / distance, with the terms in s that it has at the money (Hagan and Woodward 1999).
    """
    ln_h, slope = _normal_table()
    with np.errstate(divide="ignore"):
        ratio = target - np.log(distance)
    at = np.clip((ratio - _RATIO[0]) * (_RATIO[2] / (_RATIO[1] - _RATIO[0])), 0.0, _RATIO[2])
    node = at.astype(np.intp)
    s = np.where(ratio < _RATIO[1], -x * np.exp(-(ln_h[node] + (at - node) * slope[node])), _SQRT_2PI * np.exp(target))
    square = s * s
    return s * (1.0 + square * (1.0 / 24.0 + square * (7.0 / 1920.0)))


@cache
def _normal_table() -> tuple[np.ndarray, np.ndarray]:
    """ln h at each node of ln(g(h) / h), and how much it is more at the next: (n + 1,) each."""
    ln_h = np.linspace(3.0, -13.0, 20_001)
    h = np.exp(ln_h)
    ratio = -0.5 * h * h - np.log(_SQRT_2PI) + np.log1p(-h * np.sqrt(0.5 * np.pi) * erfcx(h / np.sqrt(2.0))) - ln_h
    found = np.interp(np.linspace(_RATIO[0], _RATIO[1], _RATIO[2] + 1), ratio, ln_h)
    return found, np.diff(found, append=found[-1])


def _d1_d2(spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray, dividend_yield: np.ndarray,
           iv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two arguments of the normal distribution; +-inf where there is no uncertainty left."""
    deviation = np.asarray(iv * np.sqrt(years), dtype=float)
    forward = np.log(spot / strike) + (rate - dividend_yield) * years
    with np.errstate(divide="ignore", invalid="ignore"):
        d1 = np.where(deviation > 0, forward / deviation + 0.5 * deviation,
                      np.where(forward < 0, -np.inf, np.inf))
    return d1, d1 - deviation
