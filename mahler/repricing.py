"""The fill axis: what a config earns at other fills, and the share of the quote that may be travelled before it does not.

At each fill the chains are screened anew: what is offered pays less, other spreads pay enough, and others are the best
of their day. Credits fall as the share p of the quote that is travelled rises, and what it costs to close is linear in
p. So the market is read once, at the mid (p = 0.5) and across the quote (p = 1), for every spread that is a candidate at
some p; the rest is arithmetic. Nothing here depends on the run's own fill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mahler.core.spreads import best_of_groups
from mahler.data.store import Chains
from mahler.exits import Costs, ExitRule, first_exits_at
from mahler.fills.travel import travel
from mahler.panel import Panel
from mahler.paths import Paths, trace_at
from mahler.schema import CANDIDATE, Table
from mahler.screen import QUOTES, Entry, best, described, entry_quotes, identity, offers, pays_enough, score

MID, NATURAL = 0.5, 1.0
RESOLUTION = 1e-3                # of break-even travel: a tenth of a percent of the quote
ROUNDING = 1e-9                  # of a score: far above the last bits in which two ways of adding differ
PIECES = 2                       # of the axis; in each the spreads that can be candidates are found by themselves


@dataclass(frozen=True)
class Offers:
    """Every spread that is a candidate at some travel, with what it takes to price it at any.

    `spreads` (n,) has the columns of schema.CANDIDATE at the mid, `quotes` those of QUOTES. Dollars per share.
    """

    spreads: Table
    quotes: Table                # (n,), at entry
    paths: Paths                 # closed at the mid
    close_natural: np.ndarray    # (m,)


def read(chains: Chains, panel: Panel, entry: Entry, first_day: int) -> Offers:
    """All that could be sold from session `first_day` on at any travel, and its paths at both ends."""
    ends = (partial(travel, travel=MID), partial(travel, travel=NATURAL))
    kept = []
    for t, ticker in enumerate(chains.tickers):
        spreads = offers(chains, t, panel, entry, ends, first_day)
        spreads |= entry_quotes(spreads, chains[ticker])
        rows = _reachable(spreads, entry)
        kept.append(described({name: column[rows] for name, column in spreads.items()}, chains, t, panel))
    spreads = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    spreads["spread_id"] = identity(spreads)
    at_mid, crossed = trace_at(spreads, chains, panel, ends)
    return Offers({name: spreads[name] for name in CANDIDATE.names}, {name: spreads[name] for name in QUOTES},
                  at_mid, crossed.close)


def _reachable(spreads: Table, entry: Entry) -> np.ndarray:
    """Which spreads, with their quotes, can be among the best of their side and day at some travel: ascending indices.

    Scores fall as the travel rises. So within a piece of the axis no spread is among the best whose score where the
    piece begins is below that which the last of the best has where it ends.
    """
    group = spreads["day"].astype(np.int64) * 2 + spreads["side"]             # the spreads are of one ticker
    kept, n_groups = np.zeros(len(group), bool), int(group.max(initial=-1)) + 1
    width, delta = spreads["width"], spreads["delta"]
    edges = np.linspace(MID, NATURAL, PIECES + 1)
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        most, least = (_credit(spreads, share) for share in (first, last))
        somewhere = np.flatnonzero(pays_enough(most, least, width, entry))
        throughout = np.flatnonzero(pays_enough(least, most, width, entry))
        lowest = score(least[throughout], width[throughout], delta[throughout])
        threshold = best_of_groups(group[throughout], lowest, n_groups, entry.per_day)[1][group[somewhere]]
        # A credit may be all of the width where the piece begins, and its score without bound after that.
        below = np.minimum(most[somewhere], width[somewhere] * (1.0 - ROUNDING))
        highest = score(below, width[somewhere], delta[somewhere])
        kept[somewhere[(highest >= threshold - ROUNDING) | (most[somewhere] >= width[somewhere])]] = True
    return np.flatnonzero(kept)


def _credit(quotes: Table, share: float) -> np.ndarray:
    """What each spread pays at a travel, dollars per share: (n,)."""
    return (travel(quotes["short_bid"], quotes["short_ask"], travel=share)[0]
            - travel(quotes["long_bid"], quotes["long_ask"], travel=share)[1])


def at(share: float, offered: Offers, entry: Entry, rule: ExitRule, costs: Costs,
       sessions: np.ndarray) -> tuple[Table, Paths, Table]:
    """Candidates, paths and exits where every fill travels `share` of the quote, 0.5 to 1.

    The paths are for a walk: each begins at its `start`, and they lie in no order.
    """
    spreads, credit = offered.spreads, _credit(offered.quotes, share)
    paying = np.flatnonzero(pays_enough(credit, credit, spreads["width"], entry))
    ranked = {name: spreads[name][paying] for name in ("ticker", "day", "side", "width", "delta")}
    ranked["score"] = score(credit[paying], ranked["width"], ranked["delta"])
    rows = best(ranked, entry.per_day)
    mine = paying[rows]
    candidates = {name: column[mine] for name, column in (spreads | {"credit": credit}).items()}
    candidates |= {"max_loss": candidates["width"] - candidates["credit"], "score": ranked["score"][rows]}
    exits = first_exits_at(candidates, offered.paths, mine, offered.close_natural, (share - MID) / (NATURAL - MID), rule, costs,
                           sessions)
    return candidates, replace(offered.paths, start=np.append(offered.paths.start[mine], len(offered.paths.mid))), exits


def break_even(pnl: Callable[[float], float]) -> dict[str, float]:
    """Metrics of the fill axis, from the total P&L in dollars as a function of the share travelled.

    `pnl_at_mid` and `pnl_at_natural`, and `break_even_travel` between them, by bisection; it is absent where
    the P&L has one sign at both ends: such a book loses at the mid, or earns even across the quote. The P&L is a
    function with steps, for candidates come and go: where it crosses zero more than once, this is one of the places.
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
