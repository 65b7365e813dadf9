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
NOT_A_SETTING = tuple(f"params.{key}" for key in ("universe", "name", "study", "force", "export_trades", "quality"))
LEGS = ("date", "ticker", "side", "expiration", "short_strike", "long_strike")

PERFORMANCE = (
    ("CAGR", "cagr", ".2%"), ("Sharpe", "sharpe", ".2f"), ("Sortino", "sortino", ".2f"), ("max DD", "max_drawdown", ".1%"),
    ("DD days", "max_drawdown_days", ".0f"), ("trades", "trades", ".0f"), ("win", "win_rate", ".1%"),
    ("heat", "mean_heat", ".1%"), ("peak", "peak_heat", ".1%"))


def warnings(rows: Sequence[Row]) -> list[str]:
    """What the runs say against themselves, a line each: rounding that erases multipliers, a breaker that stays shut."""
    return [f"{row['name']}: {row[tag]}" for row in rows for tag in ("tags.rounding", "tags.stopped") if row.get(tag)]


def cell(row: Row, key: str, form: str) -> str:
    """A metric as text; a dash where it is undefined."""
    return f"{row[key]:{form}}" if key in row else "-"


def break_even(row: Row, form: str) -> str:
    """The break-even travel as text; where the P&L crosses zero nowhere from the mid to the natural, on which side."""
    if "break_even_travel" not in row and row.get("pnl_at_mid", 0.0) < 0.0 and row.get("pnl_at_natural", 0.0) < 0.0:
        return "< mid"
    if "break_even_travel" not in row and min(row.get("pnl_at_mid", 0.0), row.get("pnl_at_natural", 0.0)) > 0.0:
        return "> natural"
    return cell(row, "break_even_travel", form)


def performance(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line per run: return, risk, trades, heat."""
    return [{"run": name} | {label: cell(row, key, form) for label, key, form in PERFORMANCE}
            | {"b/e travel": break_even(row, ".2f")}
            for name, row in zip(short_names(rows), rows, strict=True)]


def rejections(rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line per run: candidates, and how many of them were turned away for each reason that occurred in the study."""
    reasons = [r.name.lower() for r in Rejection if r and any(row.get(f"rejected.{r.name.lower()}", 0) for row in rows)]
    return [{"run": name, "candidates": cell(row, "candidates", ".0f"), "admitted": cell(row, "trades", ".0f")}
            | {reason: cell(row, f"rejected.{reason}", ".0f") for reason in reasons}
            for name, row in zip(short_names(rows), rows, strict=True)]


def short_names(rows: Sequence[Row]) -> list[str]:
    """The names of the runs without the words that all of them start or end with; in full where they would be alike."""
    words = [row["name"].split() for row in rows]
    full = [row["name"] for row in rows]
    if len(words) < 2:
        return full
    start = len(commonprefix([*words]))
    end = len(commonprefix([w[start:][::-1] for w in words]))
    short = [" ".join(w[start:len(w) - end]).strip(",") or name for w, name in zip(words, full, strict=True)]
    return short if len(set(short)) == len(short) else full


def stress(rows: Sequence[Row], measure: str) -> list[dict[str, str]]:
    """A line per run: its `measure`, return or drawdown, in each stress window that any of them covers, percent."""
    windows = [window for window in STRESS_WINDOWS if any(f"{window}.return" in row for row in rows)]
    if not windows:
        return []
    return [{"run": name} | {window: f"{100 * row[key]:.1f}" if (key := f"{window}.{measure}") in row else "-"
                             for window in windows} for name, row in zip(short_names(rows), rows, strict=True)]


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of runs of one name and universe the last, in the order in which they were asked for: the study's own."""
    last = {(row["name"], row["tags.universe"]): row for row in sorted(rows, key=lambda row: row["order"])}
    return sorted(last.values(), key=lambda row: row["order"])


# ---- several tickers -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Shared:
    """One joint run beside the sum of the single-ticker runs, each of those on a portfolio and equity of its own.

    joint_pnl = singles_pnl - cost + saved + resized + added, exactly. Dollars; an account has date and pnl (n_days,).
    """

    joint_pnl: float
    singles_pnl: float
    joint_trades: int
    singles_trades: int
    missed: tuple[int, int]      # winners, and the rest, that the singles sold and the joint run did not
    cost: float                  # what the missed winners made, at the singles' sizes
    saved: float                 # what the missed losers lost
    both: int                    # trades that both made
    resized: float               # what they made more in the joint run, for its size was another
    extra: int                   # trades that only the joint run made
    added: float                 # what they made
    dropped: dict[str, float]    # sessions dropped for alignment, by ticker
    joint_account: Table
    singles_account: Table


def joint_and_singles(joint: Ledger, singles: Sequence[Ledger]) -> Shared:
    """What sharing one portfolio's limits cost and saved, trade by trade."""
    together = _by_legs(joint.trades)
    alone: dict[tuple, float] = {}
    for single in singles:
        alone |= _by_legs(single.trades)
    missed = np.array([pnl for legs, pnl in alone.items() if legs not in together])
    both = [legs for legs in together if legs in alone]
    extra = [pnl for legs, pnl in together.items() if legs not in alone]
    prefix = "dropped_sessions."
    return Shared(
        joint_pnl=sum(together.values()), singles_pnl=sum(alone.values()), joint_trades=len(together),
        singles_trades=len(alone), missed=(int((missed > 0).sum()), int((missed <= 0).sum())),
        cost=float(missed[missed > 0].sum()), saved=float(-missed[missed < 0].sum()), both=len(both),
        resized=sum(together[legs] - alone[legs] for legs in both), extra=len(extra), added=float(sum(extra)),
        dropped={k.removeprefix(prefix): v for k, v in joint.counts.items() if k.startswith(prefix)},
        joint_account=_earned([joint], joint.account["date"]), singles_account=_earned(singles, joint.account["date"]))


def _by_legs(trades: Table) -> dict[tuple, float]:
    """The P&L, dollars, of each trade by its legs and its day: a spread is sold once a day at most."""
    return dict(zip(zip(*(trades[name].tolist() for name in LEGS), strict=True), trades["pnl"].tolist(), strict=True))


def _earned(ledgers: Sequence[Ledger], dates: np.ndarray) -> Table:
    """What the accounts earned together up to each of `dates`, dollars; on a session that one lacks, as on its last."""
    pnl = np.zeros(len(dates))
    for ledger in ledgers:
        equity = np.concatenate(([ledger.initial_equity], ledger.account["equity"]))
        pnl += equity[np.searchsorted(ledger.account["date"], dates, side="right")] - ledger.initial_equity
    return {"date": dates, "pnl": pnl}


def bridge(one: Shared) -> list[tuple[str, int, float]]:
    """From the singles' P&L to the joint run's: name, trades and dollars of each step; the last is the sum."""
    return [("the singles, added up", one.singles_trades, one.singles_pnl),
            ("winners that there was no room for", one.missed[0], -one.cost),
            ("losers that there was no room for", one.missed[1], one.saved),
            ("sold by both, at another size", one.both, one.resized),
            ("sold only together", one.extra, one.added),
            ("together", one.joint_trades, one.joint_pnl)]


def shared(rows: Sequence[Row], read: Callable[[Row], Ledger]) -> list[tuple[str, Shared]]:
    """Each run of several tickers for which each of them was also run alone, with the same settings; and its Shared.

    Settings are all params but the universe and what only names a run; of runs that differ in nothing the newest counts.
    """
    alike: dict[tuple, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: row["order"]):
        settings = sorted((k, v) for k, v in row.items() if k.startswith("params.") and not k.startswith(NOT_A_SETTING))
        alike.setdefault((row["tags.data_source"], *settings), {})[row["tags.universe"]] = row
    found = []
    for of in alike.values():
        for universe, row in of.items():
            tickers = universe.split(",")
            if len(tickers) > 1 and set(tickers) <= set(of):
                found.append((row["name"], joint_and_singles(read(row), [read(of[ticker]) for ticker in tickers])))
    return found
