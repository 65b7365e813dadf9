"""What quotes imply: forwards by put-call parity, and from them IVs and greeks for chains that come without.

C - P = D (F - K) holds for European options; for the American ones traded here it holds well near the money,
where the right to exercise early is worth least: that is where forwards are read. Volatilities are those of the
mid quote, greeks those of the out-of-the-money side, which is the liquid one and has the least early exercise.
"""

from __future__ import annotations

import numpy as np

from mahler import bsm
from mahler.schema import Flag, Table

STRIKES = 10        # nearest to the money that vote on a forward
MIN_STRIKES = 3

SIDES = ("call", "put")
GREEKS = ("delta", "gamma", "theta", "vega")


def forwards(group: np.ndarray, n_groups: int, strike: np.ndarray, call_mid: np.ndarray, put_mid: np.ndarray,
             discount: np.ndarray) -> np.ndarray:
    """Forward of each group of rows (an expiry on a day), dollars per share (n_groups,); NaN without MIN_STRIKES.

    The median of K + (C - P) / D over the STRIKES strikes at which call and put are worth most alike, so that a
    quote that is stale moves it little, and an error of the rate moves it not at all.

    Parameters
    ----------
    group : int array (n,)
        Number of the group of each row.
    call_mid, put_mid : float arrays (n,)
        Dollars per share; NaN where there is no two-sided quote.
    discount : float array (n,)
        Value today of a dollar at expiry.
    """
    apart = call_mid - put_mid
    rows = np.flatnonzero(np.isfinite(apart))
    rows = rows[np.lexsort((np.abs(apart[rows]), group[rows]))]
    first = np.searchsorted(group[rows], np.arange(n_groups))
    near = np.arange(len(rows)) - first[group[rows]] < STRIKES
    rows = rows[near]

    vote = strike[rows] + apart[rows] / discount[rows]
    order = np.lexsort((vote, group[rows]))
    ranked, owner = vote[order], group[rows][order]
    first = np.searchsorted(owner, np.arange(n_groups))
    size = np.searchsorted(owner, np.arange(n_groups), side="right") - first
    out = np.full(n_groups, np.nan)
    enough = size >= MIN_STRIKES
    low, high = first + (size - 1) // 2, first + size // 2
    out[enough] = 0.5 * (ranked[low[enough]] + ranked[high[enough]])
    return out


def mid(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Mid of a two-sided, uncrossed quote, dollars per share; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return np.where((bid > 0) & (ask >= bid), 0.5 * (bid + ask), np.nan)


def fill(chain: Table, rate: float) -> Table:
    """The chain of one ticker with the underlying, IVs and greeks that it lacks (NaN) computed from its quotes.

    The underlying of a day is the forward of its nearest expiry that has one, discounted: it is simultaneous with
    the quotes, and off by the dividends until that expiry. An IV is that of the mid of a two-sided quote, under the
    forward of its expiry; greeks are those of the out-of-the-money side, with its IV, and are computed together where
    one of them is missing. What cannot be computed stays NaN: the IV of a side without a two-sided quote, greeks where
    the out-of-the-money side has no IV, both in an expiry without a forward or on its last day.

    Rows with a computed IV carry Flag.IV_COMPUTED, those with computed greeks Flag.GREEKS_COMPUTED; a computed
    `delta`, which is the call's, is clamped to [0, 1] (Flag.GREEKS_CLAMPED).

    Parameters
    ----------
    chain : Table
        Columns of schema.CHAIN, in any order of rows, expiries on sessions.
    rate : float
        Continuously compounded, a year.
    """
    chain, n = dict(chain), len(chain["strike"])
    years = (chain["expiry"] - chain["date"]).astype(int) / 365.0
    quoted = {side: mid(chain[f"{side}_bid"], chain[f"{side}_ask"]) for side in SIDES}
    forward, implied_spot = _forward_and_spot(chain, quoted["call"], quoted["put"], years, rate)
    spot = np.where(chain["underlying"] > 0, chain["underlying"], implied_spot)
    flags = np.zeros(n, np.uint8)

    live = np.isfinite(forward) & np.isfinite(spot) & (years > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        carry = rate - np.log(forward / spot) / years       # the dividend yield, net of what it costs to borrow
    iv = {}
    for side in SIDES:
        iv[side] = np.asarray(chain[f"{side}_iv"], float).copy()
        rows = np.flatnonzero(live & np.isnan(iv[side]) & np.isfinite(quoted[side]))
        iv[side][rows] = bsm.implied_volatility(quoted[side][rows], spot[rows], chain["strike"][rows], years[rows],
                                                rate, carry[rows], side == "call")
        flags[rows[np.isfinite(iv[side][rows])]] |= np.uint8(Flag.IV_COMPUTED)

    used = np.where(chain["strike"] >= forward, iv["call"], iv["put"])
    missing = np.any([np.isnan(chain[name]) for name in GREEKS], axis=0)
    rows = np.flatnonzero(live & missing & np.isfinite(used))
    greeks = bsm.greeks(spot[rows], chain["strike"][rows], years[rows], rate, carry[rows], used[rows], True)
    delta = np.clip(greeks.delta, 0.0, 1.0)
    for name, value in zip(GREEKS, (delta, greeks.gamma, greeks.theta, greeks.vega), strict=True):
        chain[name] = np.asarray(chain[name], np.float32).copy()
        chain[name][rows] = value
    flags[rows] |= np.uint8(Flag.GREEKS_COMPUTED)
    flags[rows[delta != greeks.delta]] |= np.uint8(Flag.GREEKS_CLAMPED)
    return chain | {"underlying": spot, "call_iv": iv["call"].astype(np.float32),
                    "put_iv": iv["put"].astype(np.float32), "flags": chain["flags"] | flags}


def counts(chain: Table) -> dict[str, int]:
    """What `fill` did and could not do, in rows: for the counts of a partition."""
    flags = chain["flags"]
    return {"iv_computed": int(np.count_nonzero(flags & Flag.IV_COMPUTED)),
            "greeks_computed": int(np.count_nonzero(flags & Flag.GREEKS_COMPUTED)),
            "without_greeks": int(np.count_nonzero(np.isnan(chain["delta"])))}


def _forward_and_spot(chain: Table, call: np.ndarray, put: np.ndarray, years: np.ndarray,
                      rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, the forward of its expiry and the underlying of its day; NaN where they are not implied."""
    days, day = np.unique(chain["date"], return_inverse=True)
    key = day.astype(np.int64) << 32 | chain["expiry"].astype(np.int64)
    keys, at, group = np.unique(key, return_index=True, return_inverse=True)    # by day, then by expiry
    of_group = forwards(group, len(keys), chain["strike"], call, put, np.exp(-rate * years))
    spot = np.full(len(days), np.nan)
    known = np.flatnonzero(np.isfinite(of_group))[::-1]     # of equal indices the last stays: the nearest expiry
    spot[day[at[known]]] = of_group[known] * np.exp(-rate * years[at[known]])
    return of_group[group], spot[day]
