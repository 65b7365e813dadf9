"""Studies as tables: what its runs did, side by side with the control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import numpy as np

from mahler.ledger import Ledger
from mahler.metrics import STRESS_WINDOWS
from mahler.schema import Rejection, Table

Row = Mapping[str, Any]          # a row of tracking.runs
LEGS = ("date", "ticker", "side", "expiration", "short_strike", "long_strike")

PERFORMANCE = (
    ("CAGR", "cagr", ".2%"), ("Sharpe", "sharpe", ".2f"), ("Sortino", "sortino", ".2f"), ("max DD", "max_drawdown", ".1%"),
    ("DD days", "max_drawdown_days", ".0f"), ("trades", "trades", ".0f"), ("win", "win_rate", ".1%"),
    ("heat", "mean_heat", ".1%"), ("peak", "peak_heat", ".1%"), ("b/e travel", "break_even_travel", ".2f"))


def cell(row: Row, key: str, form: str) -> str:
    """A metric as text; a dash where it is undefined."""
    return f"{row[key]:{form}}" if key in row else "-"


def performance(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line per run: return, risk, trades, heat."""
    return [{"run": row["name"]} | {label: cell(row, key, form) for label, key, form in PERFORMANCE} for row in rows]


def rejections(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line per run: candidates, and how many of them were turned away for each reason that occurred in the study."""
    reasons = [r.name.lower() for r in Rejection if r and any(row.get(f"rejected.{r.name.lower()}", 0) for row in rows)]
    return [{"run": row["name"], "candidates": cell(row, "candidates", ".0f"), "admitted": cell(row, "trades", ".0f")}
            | {reason: cell(row, f"rejected.{reason}", ".0f") for reason in reasons} for row in rows]


def short_names(rows: Sequence[Row]) -> list[str]:
    """The names of the runs without the words that all of them start or end with."""
    words = [row["name"].split() for row in rows]
    if len(words) < 2:
        return [row["name"] for row in rows]
    start = len(commonprefix([*words]))
    end = len(commonprefix([w[start:][::-1] for w in words]))
    return [" ".join(w[start:len(w) - end]) or row["name"] for w, row in zip(words, rows, strict=True)]


def stress(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line per stress window: return and drawdown of every run; windows that no run covers are left out."""
    lines, names = [], short_names(rows)
    for window in STRESS_WINDOWS:
        if any(f"{window}.return" in row for row in rows):
            lines.append({"window": window} | {
                name: f"{cell(row, f'{window}.return', '+.1%')} / {cell(row, f'{window}.drawdown', '.1%')}"
                for name, row in zip(names, rows, strict=True)})
    return lines


@dataclass(frozen=True)
class Sum:
    """One joint run beside the sum of the single-ticker runs, each with a portfolio and equity of its own."""

    joint_pnl: float             # dollars
    singles_pnl: float
    joint_trades: int
    singles_trades: int
    missed: int                  # trades of the singles that the joint run did not make
    cost: float                  # dollars that the missed winners made, per single's own size
    saved: float                 # dollars that the missed losers lost
    dropped: dict[str, float]    # sessions dropped for alignment, by ticker


def joint_and_singles(joint: Ledger, singles: Sequence[Ledger]) -> Sum:
    """What sharing one portfolio's limits cost and saved: the trades that the singles made and the joint run did not."""
    made = set(_legs(joint.trades))
    missed = [(pnl, n) for single in singles for legs, pnl, n in
              zip(_legs(single.trades), single.trades["pnl"], single.trades["contracts"], strict=True) if legs not in made]
    pnl = np.array([p for p, _ in missed])
    prefix = "dropped_sessions."
    return Sum(
        joint_pnl=float(joint.trades["pnl"].sum()), singles_pnl=float(sum(s.trades["pnl"].sum() for s in singles)),
        joint_trades=len(joint.trades["pnl"]), singles_trades=sum(len(s.trades["pnl"]) for s in singles),
        missed=len(missed), cost=float(pnl[pnl > 0].sum()), saved=float(-pnl[pnl < 0].sum()),
        dropped={k.removeprefix(prefix): v for k, v in joint.counts.items() if k.startswith(prefix)})


def _legs(trades: Table) -> list[tuple]:
    return list(zip(*(trades[name].tolist() for name in LEGS), strict=True))


def joint_run(rows: Sequence[Row], read: Callable[[Row], Ledger]) -> Sum | None:
    """The Sum of a study with one run of several tickers and one run of each of them; None for another study."""
    universes = {row["tags.universe"]: row for row in rows}
    several = [u for u in universes if "," in u]
    if len(universes) != len(rows) or len(several) != 1 or not set(several[0].split(",")) <= set(universes):
        return None
    return joint_and_singles(read(universes[several[0]]), [read(universes[t]) for t in several[0].split(",")])
