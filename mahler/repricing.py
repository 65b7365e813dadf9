"""The same candidates at other fills: how much of the quoted spread may be travelled before nothing is earned.

A fill that travels the share p of a quote is linear in p, so prices at the mid (p = 0.5) and across the
quote (p = 1) give those at any p, exactly. Which spreads are candidates, and their order, stay as the run's
own entry rules and fill had them; a credit that is not positive at p is not sold. (The study `fill_axis`
screens anew at each fill.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mahler.data.store import Chains
from mahler.fills.travel import travel
from mahler.panel import Panel
from mahler.paths import Paths, trace
from mahler.schema import Side, Table

MID, NATURAL = 0.5, 1.0
RESOLUTION = 1e-4                # of break-even travel: a hundredth of a percent of the quote


@dataclass(frozen=True)
class Prices:
    """Credits (n,) and costs to close (m,) at the mid and across the quote, dollars per share."""

    credit_mid: np.ndarray
    credit_natural: np.ndarray
    close_mid: np.ndarray
    close_natural: np.ndarray


def prices(candidates: Table, chains: Chains, panel: Panel) -> Prices:
    """Both ends of the prices of every candidate and of its path."""
    credits, closes = [], []
    for share in (MID, NATURAL):
        fill = partial(travel, travel=share)
        credit = np.full(len(candidates["day"]), np.nan)
        for t, ticker in enumerate(chains.tickers):
            chain = chains[ticker]
            for side, leg in ((Side.PUT, "put"), (Side.CALL, "call")):
                i = np.flatnonzero((candidates["ticker"] == t) & (candidates["side"] == side))
                bid, ask = getattr(chain, f"{leg}_bid"), getattr(chain, f"{leg}_ask")
                short, long = candidates["short_row"][i], candidates["long_row"][i]
                credit[i] = fill(bid[short], ask[short])[0] - fill(bid[long], ask[long])[1]
        credits.append(credit)
        closes.append(trace(candidates, chains, panel, fill).close)
    return Prices(*credits, *closes)


def at(share: float, candidates: Table, paths: Paths, known: Prices) -> tuple[Table, Paths]:
    """Candidates and paths as they are when every fill travels `share` of the quote, 0.5 to 1."""
    weight = (share - MID) / (NATURAL - MID)
    credit = known.credit_mid + weight * (known.credit_natural - known.credit_mid)
    close = known.close_mid + weight * (known.close_natural - known.close_mid)
    risk_fraction = np.where(credit > 0.0, candidates["risk_fraction"], 0.0)
    repriced = candidates | {"credit": credit, "max_loss": candidates["width"] - credit, "risk_fraction": risk_fraction}
    return repriced, replace(paths, close=close)


def break_even(pnl: Callable[[float], float]) -> dict[str, float]:
    """Metrics of the fill axis, from the total P&L in dollars as a function of the share travelled.

    `pnl_at_mid` and `pnl_at_natural`, and `break_even_travel` between them, by bisection; it is absent where
    the P&L has one sign at both ends: such a book loses at the mid, or earns even across the quote.
    """
    low, high = MID, NATURAL
    ends = {"pnl_at_mid": pnl(low), "pnl_at_natural": pnl(high)}
    if not ends["pnl_at_mid"] > 0.0 >= ends["pnl_at_natural"]:
        return ends
    # The P&L is positive at `low` and not positive at `high`.
    while high - low > RESOLUTION:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if pnl(middle) > 0.0 else (low, middle)
    return ends | {"break_even_travel": 0.5 * (low + high)}
