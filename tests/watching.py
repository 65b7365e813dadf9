"""An account to watch, made of stretches of a backtest: a paper account whose world is the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mahler.data import calendar
from mahler.fills.travel import travel
from mahler.ledger import Ledger
from mahler.monitoring.bands import BandRule, History, of_backtest
from mahler.monitoring.paper import Watched
from mahler.schema import MULTIPLIER

RULE = BandRule(horizon=60, watch=0.10, stop=0.02, least=10, replications=2000, seed=0)
FILL = partial(travel, travel=0.66)
HOLD = 9                         # sessions until the exits of an account that was made


@dataclass(frozen=True)
class Source:
    """A backtest, ready to have stretches taken of it."""

    ledger: Ledger
    history: History

    @classmethod
    def of(cls, ledger: Ledger) -> Source:
        return cls(ledger, of_backtest(ledger))

    def watched(self, stretch: np.ndarray, rng: np.random.Generator, *, share: float = 0.66, credit: float = 1.0,
                approved: float = 1.0) -> Watched:
        """The account that traded `stretch`, sessions of the backtest, and travelled `share` of the bid-ask in the mean.

        A layer was asked once a session, and approved with a chance of `approved`.
        """
        h, t, n = self.history, self.ledger.trades, len(stretch)
        start = np.searchsorted(h.trades["day"], np.arange(len(h.growth) + 1))
        rows = np.concatenate([np.arange(start[s], start[s + 1]) for s in stretch]).astype(int)
        day = np.repeat(np.arange(n), np.diff(start)[stretch])
        sessions = calendar.sessions("2024-01-02", "2025-12-31")[:n]
        mine = {name: column[rows] for name, column in h.trades.items()} | {"day": day}
        trades = {
            "position": np.array([f"p{k}" for k in range(len(rows))], object), "date": sessions[day],
            "contracts": t["contracts"][rows], "asked": t["contracts"][rows],
            "credit": t["credit"][rows] * (credit + 0.03 * rng.standard_normal(len(rows))), "modelled": t["credit"][rows],
            "max_loss": MULTIPLIER * t["max_loss"][rows] + 4.0, "reason": mine["reason"], "pnl": t["pnl"][rows],
            "exit_date": sessions[day], "late": np.zeros(len(rows), int), "early": np.zeros(len(rows), bool)}
        closes = day + HOLD < n
        fills = {"date": np.concatenate([sessions[day], sessions[(day + HOLD)[closes]]])}
        fills["action"] = np.repeat(np.array(["open", "close"], object), [len(rows), closes.sum()])
        fills["travel"] = np.clip(share + 0.08 * rng.standard_normal(len(fills["date"])), 0.0, 1.0)
        scanned = {"date": sessions, "reason": np.full(n, "max_positions", object), "risk_fraction": np.full(n, 0.02),
                   "max_loss": np.full(n, 4.8)}
        decisions = {"date": sessions, "approve": rng.random(n) < approved}
        index = np.exp(np.cumsum(h.growth[stretch]))
        return Watched(sessions[0], sessions[-1], sessions, 1e5 * index, index,
                       History(h.growth[stretch], h.entries[stretch], mine), trades, fills, scanned, decisions,
                       np.zeros(0, "datetime64[D]"), np.full(n, 0.1), 0)


def changed(seen: Watched, **columns: np.ndarray) -> Watched:
    """With other columns of its trades."""
    return replace(seen, trades=seen.trades | columns)
