"""Trades that overlap and decisions on them, made at random with a skill that is known."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from mahler.llm.study import Answers
from mahler.schema import DECISION, Table, empty

LIFE = 4                          # trades that are open at a time: neighbours share three quarters of their life
WIN_RATE = 0.8


def overlapping(rng: np.random.Generator, n: int) -> np.ndarray:
    """A standard normal series (n,) in which each value shares its noise with the three before it."""
    noise = rng.standard_normal(n + LIFE - 1)
    return np.convolve(noise, np.ones(LIFE), "valid") / np.sqrt(LIFE)


def market(rng: np.random.Generator, n: int, *, start: str = "2019-01-02", days_apart: int = 2
           ) -> tuple[list[dict], np.ndarray]:
    """`n` records of ledger.export, and whether each won, (n,): four of five do, and pay for the fifth."""
    latent = overlapping(rng, n)
    won = latent > ndtri(1.0 - WIN_RATE)
    entry = np.datetime64(start, "D") + days_apart * np.arange(n)
    records = [{"date": str(day), "ticker": "SPY", "short_strike": 90.0, "long_strike": 85.0,
                "expiration": str(day + 40), "credit": 0.5, "max_loss": 4.5, "delta": 0.16, "dte": 40,
                "iv_percentile": 50.0, "vix": 18.0, "underlying_price": 100.0,
                "outcome": "profit" if good else "loss", "pnl": 30.0 if good else -120.0,
                "exit_reason": "profit_target" if good else "stop_loss", "hold_days": (LIFE - 1) * days_apart,
                "side": "put", "contracts": 2, "regime": "bull_low_vol", "width": 5.0, "entry_score": 0.02,
                "trade_id": i} for i, (day, good) in enumerate(zip(entry, won))]
    return records, won


def score(rng: np.random.Generator, won: np.ndarray, auroc: float) -> np.ndarray:
    """A score (n,) that comes in runs like the outcomes, and separates them with that AUROC (equal variances)."""
    return overlapping(rng, len(won)) + np.sqrt(2.0) * ndtri(auroc) * won


def table(approve: np.ndarray, p_profit: np.ndarray, confidence: np.ndarray | None = None) -> Table:
    """A DECISION table, all of it decided."""
    n = len(approve)
    decisions = empty(DECISION, n)
    decisions |= {name: np.full(n, "", object) for name in DECISION.names if DECISION[name] == object}
    decisions |= {"trade_id": np.arange(n, dtype=np.int32), "status": np.full(n, "decision", object),
                  "approve": approve, "p_profit": p_profit, "samples": np.ones(n, np.int32),
                  "confidence": np.full(n, 0.6) if confidence is None else confidence, "cost": np.full(n, 0.001)}
    return decisions


def decisions(x: np.ndarray, rejection: float = 0.3) -> Table:
    """The decisions of somebody who rejects the lowest share of a score, and is as sure as it is high."""
    cut = np.quantile(x, rejection)
    return table(x > cut, ndtr(0.9 + 0.3 * (x - x.mean())), np.clip(0.5 + 0.15 * np.abs(x - cut), 0.0, 1.0))


def answers(found: Table, *, context: str = "full", cutoff: str | None = "2018-01-01", arm: str = "model",
            prompt: str = "balanced", layer: tuple[float, float] | None = None) -> Answers:
    """Those of a model that by default has read none of `market`."""
    return Answers(arm, "some-model", prompt, context, found, None if cutoff is None else np.datetime64(cutoff),
                   arm == "model", layer)
