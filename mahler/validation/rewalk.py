"""The admission walk over a window of sessions: flat at its start, with the history from before it, cut at its end.

Exits are a map and only admission is a fold, so another window, sizing or limit costs one walk of the kernel over the
candidates of that window, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mahler.exits import Costs
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import MULTIPLIER, Exit, Table
from mahler.simulate import Breaker, Limits, walk
from mahler.validation.walkforward import Trial, Walk

_COLUMNS = ("day", "ticker", "spread_id", "credit", "mid_credit", "max_loss", "risk_fraction", "max_contracts")


def trial(candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits, breaker: Breaker,
          costs: Costs, *, initial_equity: float) -> Trial:
    """A walk-forward trial of sized candidates: (first_day, last_day) -> Walk.

    `candidates`, in the order of their days, has the columns of schema.CANDIDATE, `risk_fraction` and
    `max_contracts`; `exits` are theirs. Positions that are open after the session before last_day stay at their
    marks. A window [0, n_days) is what `simulate` walks.
    """
    def rewalk(first_day: int, last_day: int) -> Walk:
        # Of the days' own type: searching for another one would convert all of them first.
        rows = slice(*candidates["day"].searchsorted(np.array([first_day, last_day], candidates["day"].dtype)))
        mine = {name: candidates[name][rows] for name in _COLUMNS}
        ends = {name: column[rows] for name, column in exits.items()}
        start = paths.start[rows.start:rows.stop + 1]
        contracts, _, cash, marks, open_max_loss, *_ = walk(
            mine, replace(paths, start=start, mid=paths.mid[:start[-1]]), ends,
            replace(panel, dates=panel.dates[:last_day], vix=panel.vix[:last_day]), limits, breaker, costs,
            initial_equity=initial_equity, first_day=first_day)
        at = np.flatnonzero(contracts > 0)      # ten times quicker of booleans than of integers
        lots, day = contracts[at], mine["day"][at]
        exit_day = np.where(ends["reason"][at] == Exit.END_OF_PERIOD, np.maximum(ends["day"][at], last_day),
                            ends["day"][at])
        pnl = lots * ends["pnl"][at]
        unclosed = np.zeros(last_day - first_day)
        for i in np.flatnonzero(exit_day >= last_day):
            marked = _marks(paths.mid, start[at[i]], last_day - day[i])
            value = lots[i] * (MULTIPLIER * (mine["credit"][at[i]] - marked) - costs.entry)   # dollars, by session
            unclosed[day[i] - first_day:] += value
            pnl[i] = value[-1]
        span = slice(first_day, last_day)
        return Walk(first_day, initial_equity, cash[span] + marks[span], open_max_loss[span], unclosed, day, exit_day,
                    pnl)

    return rewalk


def _marks(mid: np.ndarray, start: int, n: int) -> np.ndarray:
    """The first n marks of a path, dollars per share: a missing one is the one before it."""
    path = mid[start:start + n]
    known = np.maximum.accumulate(np.where(np.isnan(path), 0, np.arange(n)))
    return path[known]
