"""Trades by hand, as `ledger.export` writes them, with or without something to learn in what was known at entry."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np


def record(k: int = 0, **fields: Any) -> dict[str, Any]:
    """A put spread that made 18 dollars."""
    day = date(2019, 1, 2) + timedelta(k)
    return {"date": day.isoformat(), "ticker": "SPY", "short_strike": 250.0, "long_strike": 245.0,
            "expiration": (day + timedelta(40)).isoformat(), "credit": 0.5, "max_loss": 4.5, "delta": 0.1, "dte": 40,
            "iv_percentile": 62.0, "vix": 21.5, "underlying_price": 280.0, "outcome": "profit", "pnl": 18.0,
            "exit_reason": "profit_target", "hold_days": 12, "side": "put", "contracts": 2, "regime": "bull_low_vol",
            "width": 5.0, "entry_score": 0.01, "trade_id": k} | fields


def records(n: int, *, skill: float, seed: int = 1) -> list[dict[str, Any]]:
    """A trade a day; where VIX is high it is lost, to the extent of `skill` (0 is never, 1 is always)."""
    rng = np.random.default_rng(seed)
    vix = rng.uniform(12, 40, n)
    lost = rng.random(n) < np.where(rng.random(n) < skill, vix > 30, 0.35)
    return [record(k, vix=round(float(vix[k]), 2), delta=round(float(rng.uniform(0.05, 0.15)), 3),
                   credit=round(float(rng.uniform(0.2, 0.6)), 2), iv_percentile=float(rng.integers(0, 101)),
                   outcome="loss" if lost[k] else "profit", pnl=-80.0 if lost[k] else 25.0,
                   hold_days=int(rng.integers(3, 30))) for k in range(n)]
