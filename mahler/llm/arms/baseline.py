"""A logistic regression on what was known at entry: what a model that costs nothing achieves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from mahler.llm.asking import Ask, blank
from mahler.llm.records import Record, closed, opened
from mahler.schema import Bound, Table


def baseline(records: Sequence[Record], history: Sequence[Record], ask: Ask, rng: np.random.Generator, *,
             rejects: Annotated[float, Bound("a share of the past's trades", 0, 1, open_high=True)],
             min_trades: Annotated[int, Bound("closed trades before the first fit", 20)],
             refit_every: Annotated[int, Bound("trades that closed since the last fit", 1)],
             penalty: Annotated[float, Bound("L2, one over sklearn's C", 0, open_low=True)]) -> Table:
    """p_profit by walk-forward, and a veto for what would have been among the worst `rejects` of the past.

    A trade is judged by a fit on the trades that were closed before its entry, made again when `refit_every` more
    are. Before there are `min_trades` of them, with a profit and a loss among them, p_profit is the share of profits
    so far (of none, a half), and every trade is approved.
    """
    past = sorted(history, key=closed)
    leave = np.array([closed(record).toordinal() for record in past])
    features, profit = _features(past), np.array([record["outcome"] == "profit" for record in past])
    enter = np.array([opened(record).toordinal() for record in records])
    known = np.searchsorted(leave, enter, side="left")         # (n,) trades closed before the day of entry
    shown = _features(records)
    table = blank(len(records)) | {"approve": np.ones(len(records), bool)}
    table["p_profit"] = np.array([(profit[:k].sum() + 1) / (k + 2) for k in known])
    fitted = np.where(known < min_trades, 0, min_trades + (known - min_trades) // refit_every * refit_every)
    for k in np.unique(fitted[fitted > 0]):
        rows = np.flatnonzero(fitted == k)
        if profit[:k].all() or not profit[:k].any():
            continue
        table["p_profit"][rows], table["approve"][rows] = _judge(features[:k], profit[:k], shown[rows], rejects, penalty)
    table["confidence"] = np.where(table["approve"], table["p_profit"], 1.0 - table["p_profit"])
    return table


def _judge(features: np.ndarray, profit: np.ndarray, shown: np.ndarray, rejects: float, penalty: float
           ) -> tuple[np.ndarray, np.ndarray]:
    """Probability and approval of `shown`, by a fit on `features` (k, m) and `profit` (k,)."""
    from sklearn.linear_model import LogisticRegression

    middle = np.array([np.median(column[there]) if (there := ~np.isnan(column)).any() else 0.0 for column in features.T])
    past, now = (np.where(np.isnan(x), middle, x) for x in (features, shown))
    centre, spread = past.mean(axis=0), past.std(axis=0)
    spread[spread < 1e-12] = 1.0                # a field that never varied says nothing
    past, now = (past - centre) / spread, (now - centre) / spread
    fit = LogisticRegression(C=1.0 / penalty, solver="newton-cholesky").fit(past, profit)
    p = fit.predict_proba(now)[:, 1]
    return p, p >= np.quantile(fit.predict_proba(past)[:, 1], rejects)


def _features(records: Sequence[Record]) -> np.ndarray:
    """What was known at entry, without a scale that differs between tickers and years: (n, 8), NaN where missing."""
    def column(name: str) -> np.ndarray:
        return np.array([np.nan if record[name] is None else record[name] for record in records], dtype=np.float64)

    spot, credit, vix = column("underlying_price"), column("credit"), column("vix")
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = np.stack([
            np.array([record["side"] == "put" for record in records], dtype=np.float64), column("delta"), column("dte"),
            column("iv_percentile"), np.log(vix), np.abs(column("short_strike") / spot - 1.0), credit / column("max_loss"),
            np.abs(column("short_strike") - column("long_strike")) / spot], axis=1)
    return np.where(np.isfinite(rows), rows, np.nan)
