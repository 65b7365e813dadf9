"""The admission walk over a window of sessions: flat at its start, with the history from before it, cut at its end.

Exits are a map and only admission is a fold, so another window, sizing or limit costs one walk of the kernel over the
candidates of that window, and nothing else.
"""

from __future__ import annotations

import numpy as np

from mahler.core.admission import unclosed
from mahler.exits import Costs
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import Exit, Table
from mahler.simulate import Breaker, Limits, window_walker
from mahler.validation.walkforward import Trial, Walk


def trial(candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits, breaker: Breaker,
          costs: Costs, *, initial_equity: float) -> Trial:
    """A walk-forward trial of sized candidates: (first_day, last_day) -> Walk.

    `candidates`, in the order of their days, has the columns of schema.CANDIDATE, `risk_fraction` and
    `max_contracts`; `exits` are theirs. Positions that are open after the session before last_day stay at their
    marks. A window [0, n_days) is what `simulate` walks.
    """
    day, credit, n_days = candidates["day"], candidates["credit"], len(panel.dates)
    risk, most = candidates["risk_fraction"], candidates["max_contracts"]
    ends = np.where(exits["reason"] == int(Exit.END_OF_PERIOD), n_days, exits["day"])    # a valuation is no exit
    over = window_walker(candidates, paths, exits, panel, limits, breaker, costs, initial_equity=initial_equity)

    def rewalk(first_day: int, last_day: int) -> Walk:
        # Of the days' own type: searching for another one would convert all of them first.
        rows = slice(*day.searchsorted(np.array([first_day, last_day], day.dtype)).tolist())
        contracts, _, cash, marks, open_max_loss, *_ = over(rows, first_day, last_day, risk, most)
        at = np.flatnonzero(contracts > 0)      # ten times quicker of booleans than of integers
        lots, at = contracts.take(at), at + rows.start
        entry_day, exit_day, pnl = day.take(at), ends.take(at), lots * exits["pnl"].take(at)
        still = np.flatnonzero(exit_day >= last_day)
        part, pnl[still] = unclosed(at[still], lots[still], day, credit, paths.start, paths.mid, first_day, last_day,
                                    costs.entry)
        span = slice(first_day, last_day)
        return Walk(first_day, initial_equity, cash[span] + marks[span], open_max_loss[span], part, entry_day, exit_day,
                    pnl)

    return rewalk
