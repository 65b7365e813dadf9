"""A filter inside the portfolio: what it changes against taking everything, and among coins that veto as often.

A veto frees room for a trade that was never taken, so the whole account is walked again. The coin's account is the
null: it vetoes each candidate at the model's own rate, knows nothing, and costs nothing. What the model's answers
cost is charged to its account on the session that it was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mahler import metrics
from mahler.exits import Costs
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import SESSIONS_PER_YEAR, Exit, Table
from mahler.simulate import Breaker, Limits, walker

MEASURES = ("cagr", "sharpe", "max_drawdown", "profit_factor")
CHUNK = 250                      # coin-flip accounts that are held at a time
POINTS = 220                     # of an account that are kept for a figure
BAND = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Book:
    """All that `simulate.walker` needs to walk an account again; `candidates` are sized, before any veto."""

    candidates: Table
    paths: Paths
    exits: Table
    panel: Panel
    limits: Limits
    breaker: Breaker
    costs: Costs
    initial_equity: float
    first_day: int

    @property
    def dates(self) -> np.ndarray:
        """The sessions of the account, (n_days,)."""
        return self.panel.dates[self.first_day:]

    def since(self, day: np.datetime64) -> Book:
        """The book that starts flat on the first session from `day` on."""
        first = max(int(np.searchsorted(self.panel.dates, day)), self.first_day)
        return Book(**{**self.__dict__, "first_day": first})


Walk = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(keep, most_contracts), (n_candidates,) each -> equity (n_days,), and the rows and contracts of the admitted."""


def accounts(book: Book) -> Walk:
    """The book's account as a function of which candidates are kept, and of a further cap where it is above zero."""
    risk, most = book.candidates["risk_fraction"], book.candidates["max_contracts"]
    walk = walker(book.candidates, book.paths, book.exits, book.panel, book.limits, book.breaker, book.costs,
                  initial_equity=book.initial_equity, first_day=book.first_day)

    def account(keep: np.ndarray, most_contracts: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        # Not a product: an infinite risk fraction is "so many lots", and infinity times zero is no number.
        sized = risk.copy()
        sized[~keep] = 0.0
        cap = most if most_contracts is None else capped(most, most_contracts)
        contracts, _, cash, marks, *_ = walk(sized, cap)
        rows = np.flatnonzero(contracts > 0)
        return (cash + marks)[book.first_day:], rows, contracts[rows]

    return account


def capped(max_contracts: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The lower of two caps, each of which is none where it is zero: int32 (n,)."""
    lower = np.where(max_contracts > 0, np.minimum(max_contracts, most), most)
    return np.where(most > 0, lower, max_contracts).astype(np.int32)


@dataclass(frozen=True)
class Judged:
    """Every candidate that was judged in the loop: rows of the book's candidates, and the decisions on them (n,)."""

    book: Book
    rows: np.ndarray
    decisions: Table

    def keep(self) -> np.ndarray:
        """Which candidates were not rejected, (n_candidates,)."""
        keep = np.ones(len(self.book.candidates["day"]), bool)
        keep[self.rows] = self.decisions["approve"]
        return keep

    def most_contracts(self) -> np.ndarray:
        """The arm's own cap of each candidate, 0 where there is none, (n_candidates,)."""
        most = np.zeros(len(self.book.candidates["day"]), np.int32)
        most[self.rows] = self.decisions["contracts"]
        return most

    def vetoed(self) -> Table:
        """The book's candidates with the vetoes, a risk fraction of 0, and the caps."""
        candidates = self.book.candidates
        return candidates | {"risk_fraction": np.where(self.keep(), candidates["risk_fraction"], 0.0),
                             "max_contracts": capped(candidates["max_contracts"], self.most_contracts())}

    def approved(self) -> float:
        """Share that was approved, the mean over the sessions on which anything was judged: those of one share its news."""
        day = self.book.candidates["day"][self.rows]
        asked, kept = np.bincount(day), np.bincount(day, weights=self.decisions["approve"])
        return float((kept[asked > 0] / asked[asked > 0]).mean()) if len(day) else np.nan

    def bill(self) -> np.ndarray:
        """Dollars of replies so far on each session of the account, (n_days,)."""
        day = self.book.candidates["day"][self.rows] - self.book.first_day
        asked = day >= 0
        return np.cumsum(np.bincount(day[asked], self.decisions["cost"][asked], len(self.book.dates)))

    def since(self, day: np.datetime64) -> Judged:
        """The same decisions on the account that starts flat on `day`."""
        return Judged(self.book.since(day), self.rows, self.decisions)


@dataclass(frozen=True)
class Layer:
    """What the filter changes, by measure: everything's value, the filter's net of its bill, and the coins' draws.

    Measures are MEASURES, the number of `trades`, and `<window>.return` of the stress windows that the account covers.
    `rank` is the share of coins that the filter beats (a lower drawdown is better), ties by half; `p_value` the chance
    of a coin as good.
    """

    everything: dict[str, float]
    filtered: dict[str, float]
    coins: dict[str, np.ndarray]
    rate: float                  # share of the judged that was rejected
    cost: float                  # dollars of replies
    curves: Table                # date, everything, filtered, low, median, high: dollars of equity

    def rank(self, name: str) -> float:
        """Share of the coin-flip accounts that the filter is better than; NaN where either is undefined."""
        ours, coins = self._compared(name)
        return float((coins < ours).mean() + (coins == ours).mean() / 2.0) if len(coins) and ours == ours else np.nan

    def p_value(self, name: str) -> float:
        """Share of the coin-flip accounts, the filter's own included, that are as good as it."""
        ours, coins = self._compared(name)
        return (1.0 + float((coins >= ours).sum())) / (1.0 + len(coins)) if len(coins) and ours == ours else np.nan

    def _compared(self, name: str) -> tuple[float, np.ndarray]:
        sign = -1.0 if name == "max_drawdown" else 1.0
        coins = sign * self.coins[name]
        return sign * self.filtered[name], coins[~np.isnan(coins)]


def measure(judged: Judged, *, rng: np.random.Generator, draws: int) -> Layer:
    """Walk the account with everything, with the filter, and with `draws` coins of the filter's rejection rate."""
    book, n = judged.book, len(judged.book.candidates["day"])
    asked = book.candidates["day"][judged.rows] >= book.first_day
    rate = float((~judged.decisions["approve"][asked]).mean()) if asked.any() else 0.0
    account = accounts(book)
    every, rows, lots = account(np.ones(n, bool))
    ours, our_rows, our_lots = account(judged.keep(), judged.most_contracts())
    bill = judged.bill()
    everything = _measures(book, every[None], [(rows, lots)])
    filtered = _measures(book, (ours - bill)[None], [(our_rows, our_lots)], cost=float(bill[-1]))
    coins, points = _flip(book, rate, rng, draws)
    at = _points(len(every))
    low, median, high = np.quantile(points, BAND, axis=0)
    curves = {"date": book.dates[at], "everything": every[at], "filtered": (ours - bill)[at], "low": low,
              "median": median, "high": high}
    return Layer({k: float(v[0]) for k, v in everything.items()}, {k: float(v[0]) for k, v in filtered.items()},
                 coins, rate, float(bill[-1]), curves)


def _points(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, POINTS).round().astype(int))


def _flip(book: Book, rate: float, rng: np.random.Generator, draws: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measures of coin-flip accounts, (draws,) each, and their equity at the points of a figure, (draws, n_points)."""
    n, at, account = len(book.candidates["day"]), _points(len(book.dates)), accounts(book)
    found, points = [], []
    for done in range(0, draws, CHUNK):
        walked = [account(rng.random(n, np.float32) >= rate) for _ in range(min(CHUNK, draws - done))]
        equity = np.stack([one[0] for one in walked])
        found.append(_measures(book, equity, [one[1:] for one in walked]))
        points.append(equity[:, at])
    return ({name: np.concatenate([one[name] for one in found]) for name in found[0]}, np.concatenate(points))


def _measures(book: Book, equity: np.ndarray, admitted: list[tuple[np.ndarray, np.ndarray]], cost: float = 0.0
              ) -> dict[str, np.ndarray]:
    """MEASURES and stress-window returns of each account of (b, n_days): (b,) each, NaN where undefined."""
    initial, dates = book.initial_equity, book.dates
    before = np.concatenate([np.full((len(equity), 1), initial), equity[:, :-1]], axis=1)
    alive = (before > 0).all(axis=1) & (equity[:, -1] > 0)
    returns = np.where(alive[:, None], equity / np.where(before > 0, before, 1.0) - 1.0, np.nan)
    deviation, growth = returns.std(axis=1, ddof=1), np.where(alive, equity[:, -1] / initial, np.nan)
    peak = np.maximum(np.maximum.accumulate(equity, axis=1), initial)
    still = equity.max(axis=1) == equity.min(axis=1)                       # an account that never moves
    ratio = np.divide(returns.mean(axis=1), deviation, out=np.full(len(equity), np.nan), where=~still & (deviation > 0))
    found = {"cagr": growth ** (SESSIONS_PER_YEAR / len(dates)) - 1.0, "sharpe": ratio * np.sqrt(SESSIONS_PER_YEAR),
             "max_drawdown": 1.0 - (equity / peak).min(axis=1),
             "profit_factor": np.array([_profit_factor(book, rows, lots, cost) for rows, lots in admitted]),
             "trades": np.array([float(len(rows)) for rows, _ in admitted])}
    for name, (first, last) in metrics.STRESS_WINDOWS.items():
        start, stop = np.searchsorted(dates, first), np.searchsorted(dates, last, side="right")
        if dates[0] <= first and last <= dates[-1] and start < stop:
            found[f"{name}.return"] = equity[:, stop - 1] / before[:, start] - 1.0
    return found


def _profit_factor(book: Book, rows: np.ndarray, lots: np.ndarray, cost: float) -> float:
    """Dollars won over dollars lost, the bill among them, of the trades that a rule closed; NaN without a loss."""
    by_rule = book.exits["reason"][rows] != Exit.END_OF_PERIOD
    pnl = (lots * book.exits["pnl"][rows])[by_rule]
    lost = cost - float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else np.nan
