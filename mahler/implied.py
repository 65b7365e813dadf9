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


def complete(chain: Table, rate: float) -> Table:
    """The chain of one ticker with its underlying, IVs and greeks computed from the quotes.

    The underlying of a day is the forward of its nearest expiry that has one, discounted: it is simultaneous with
    the quotes, and off by the dividends until that expiry. A side without a two-sided quote has no IV, a row whose
    out-of-the-money side has none no greeks, nor has an expiry without a forward or on its last day: NaN. Rows with
    an IV carry Flag.IV_COMPUTED, those with greeks Flag.GREEKS_COMPUTED; `delta` is the call's, clamped to [0, 1]
    (Flag.GREEKS_CLAMPED).

    Parameters
    ----------
    chain : Table
        Columns of schema.CHAIN, in any order of rows; its underlying, IVs and greeks are not read.
    rate : float
        Continuously compounded, a year.
    """
    chain = dict(chain)
    years = (chain["expiry"] - chain["date"]).astype(int) / 365.0
    call, put = (mid(chain[f"{side}_bid"], chain[f"{side}_ask"]) for side in ("call", "put"))
    forward, spot = _forward_and_spot(chain, call, put, years, rate)
    chain["underlying"] = spot

    live = np.flatnonzero(np.isfinite(forward) & np.isfinite(spot) & (years > 0))
    strike, years, forward, spot = chain["strike"][live], years[live], forward[live], spot[live]
    carry = rate - np.log(forward / spot) / years           # the dividend yield, net of what it costs to borrow
    iv = {}
    for side, value in (("call", call), ("put", put)):
        solved = bsm.implied_volatility(value[live], spot, strike, years, rate, carry, side == "call")
        iv[side] = _spread(len(chain["strike"]), live, solved)
    used = np.where(strike >= forward, iv["call"][live], iv["put"][live])
    priced = np.isfinite(used)
    live, strike, years, spot, carry, used = (x[priced] for x in (live, strike, years, spot, carry, used))
    greeks = bsm.greeks(spot, strike, years, rate, carry, used, True)

    delta = np.clip(greeks.delta, 0.0, 1.0)
    for name, value in (("delta", delta), ("gamma", greeks.gamma), ("theta", greeks.theta), ("vega", greeks.vega)):
        chain[name] = _spread(len(chain["strike"]), live, value).astype(np.float32)
    chain["call_iv"], chain["put_iv"] = iv["call"].astype(np.float32), iv["put"].astype(np.float32)
    flags = np.zeros(len(chain["strike"]), np.uint8)
    flags[np.isfinite(iv["call"]) | np.isfinite(iv["put"])] |= np.uint8(Flag.IV_COMPUTED)
    flags[live] |= np.uint8(Flag.GREEKS_COMPUTED)
    flags[live[delta != greeks.delta]] |= np.uint8(Flag.GREEKS_CLAMPED)
    chain["flags"] = chain["flags"] | flags
    return chain


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


def _spread(n: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` at `rows` of an array of `n`, NaN elsewhere."""
    out = np.full(n, np.nan)
    out[rows] = values
    return out
