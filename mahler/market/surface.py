"""The implied-volatility surface: a term structure through four VIX tenors, an ATM level, an SSVI smile.

The numbers were fitted to 18,983 real SPY put quotes of 2010-2023; the mean absolute error is 0.7-1.2 vol points
at 46 days to expiration and 1.1-2.1 at 21. Volatilities are decimals a year, `dte` is calendar days, years are
calendar days / 365, log-moneyness is ln(strike / forward). Everything broadcasts.

References
----------
Gatheral & Jacquier (2014), Arbitrage-free SVI volatility surfaces.
"""

from __future__ import annotations

import numpy as np

TENORS = np.array([9.0, 30.0, 93.0, 182.0])
"""Calendar days of VIX9D, VIX, VIX3M, VIX6M."""

# Level and slope in ln(VIX / 20) of each tenor's ratio to VIX.
TENOR_RATIOS = np.array([[0.969, 0.141], [1.0, 0.0], [1.097, -0.194], [1.170, -0.359]])

RHO = -0.46
"""Skew of the smile: correlation of spot and volatility in SSVI."""


def term_structure(vix: np.ndarray) -> np.ndarray:
    """VIX9D, VIX, VIX3M, VIX6M in points, (n, 4), where nothing but VIX, in points (n,), is known."""
    level = np.log(np.asarray(vix) / 20.0)[:, None]
    return np.asarray(vix)[:, None] * (TENOR_RATIOS[:, 0] + TENOR_RATIOS[:, 1] * level)


def term_volatility(tenors: np.ndarray, day: np.ndarray, dte: np.ndarray) -> np.ndarray:
    """Volatility of the index to an expiry, decimal a year, (n,).

    Parameters
    ----------
    tenors : ndarray (n_days, 4)
        VIX9D, VIX, VIX3M, VIX6M in points.
    day, dte : ndarray (n,)
        Row of `tenors`, calendar days to expiration > 0.

    Total variance is linear in time between the tenors, flat in volatility outside of them, and never falls:
    a calendar spread is not worth less than nothing.
    """
    total = np.maximum.accumulate((tenors / 100.0) ** 2 * TENORS, axis=1)        # (n_days, 4), variance x days
    slot = np.clip(np.searchsorted(TENORS, dte, side="right") - 1, 0, 2)
    share = (dte - TENORS[slot]) / (TENORS[slot + 1] - TENORS[slot])
    between = total[day, slot] * (1.0 - share) + total[day, slot + 1] * share
    inner = np.where(dte < TENORS[0], total[day, 0] * dte / TENORS[0], between)
    variance = np.where(dte > TENORS[-1], total[day, -1] * dte / TENORS[-1], inner)
    return np.sqrt(variance / dte)


def atm_volatility(v: np.ndarray, dte: np.ndarray) -> np.ndarray:
    """At-the-money volatility, decimal, of the index whose term volatility is `v`: below it, for VIX prices wings."""
    return v * (0.811 + 0.123 * np.log(v / 0.18) - 0.031 * np.log(dte / 30.0))


def curvature(v: np.ndarray, dte: np.ndarray) -> np.ndarray:
    """SSVI's psi = phi sqrt(theta) of SPY, dimensionless; at most 1.6, so that psi^2 (1 + |rho|) <= 4."""
    return np.minimum(1.6, np.exp(0.196 - 0.379 * np.log(v / 0.18) + 0.019 * np.log(dte / 30.0)))


def smile(log_moneyness: np.ndarray, years: np.ndarray, atm: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Implied volatility, decimal, at ln(strike / forward), given the ATM volatility and the curvature.

    w(k) = theta / 2 (1 + rho psi x + sqrt((psi x + rho)^2 + 1 - rho^2)), x = k / sqrt(theta), theta = atm^2 years.
    """
    x = psi * log_moneyness / (atm * np.sqrt(years))
    return atm * np.sqrt(0.5 * (1.0 + RHO * x + np.sqrt((x + RHO) ** 2 + (1.0 - RHO * RHO))))
