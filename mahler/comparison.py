"""The runs of a study side by side, as blocks of a document: accounts, heat, what was turned away, stress windows.

It says what each run did and what limits had to do with it; it does not say which is better: that is a validation's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mahler import findings, metrics, report_figures as draw
from mahler.document import Block, Bullets, Heading, Picture, Rows, Words
from mahler.figures import REJECTED_CAPTION, STRESS_LABELS, SYNTHETIC, count, dollars, percent
from mahler.findings import Shared
from mahler.ledger import Ledger
from mahler.report_figures import Curve
from mahler.schema import SESSIONS_PER_YEAR, Rejection, Table
from mahler.validation.bootstrap import Interval, account_intervals

Row = dict[str, Any]             # a row of tracking.runs
DASH = "–"


@dataclass(frozen=True)
class Run:
    """A run of the study under the name that tells it from the others."""

    name: str
    row: Row
    ledger: Ledger


def runs(rows: Sequence[Row], ledgers: Sequence[Ledger]) -> list[Run]:
    """The runs under short names."""
    return [Run(*one) for one in zip(findings.short_names(rows), rows, ledgers, strict=True)]


def title(study: str, rows: Sequence[Row]) -> str:
    """The study's name, behind a warning where any of its data were made."""
    return f"{SYNTHETIC}: {study}" if any(row["tags.market"] == "synthetic" for row in rows) else study


def blocks(study: str, question: str | None, members: Sequence[Run], shared: Sequence[tuple[str, Shared]],
           intervals: Sequence[dict[str, Interval]]) -> list[Block]:
    """The whole document; `intervals` are those of each run's account."""
    rows = [member.row for member in members]
    heading = title(study, rows)
    found: list[Block] = [Heading(1, heading, loud=heading != study)]
    if question:
        found.append(Words(question, strong=True))
    found += [_what_was_run(rows), Heading(2, "Return and risk"), _performance(members, intervals), *_warned(rows),
              Picture("accounts.svg", draw.accounts(_curves(members), []), "Equity and drawdown of every run.")]
    for label, one in shared:
        found += joint(label, one)
    found += [Heading(2, "Limits at work"), *limits_at_work(members, shades(members), "")]
    return [*found, *stress(members)]


def account_of(ledger: Ledger, *, replications: int, level: float, seed: int) -> dict[str, Interval]:
    """Intervals of CAGR, Sharpe ratio and drawdown; none for an account that never moves, or is lost."""
    returns = metrics.simple_returns(ledger.account["equity"], ledger.initial_equity)
    if len(returns) < 2 or returns.min() == returns.max() or not (returns > -1.0).all():
        return {}
    return account_intervals(returns, rng=np.random.default_rng(seed), replications=replications, level=level,
                             periods=float(SESSIONS_PER_YEAR))


def shades(members: Sequence[Run]) -> dict[str, str]:
    """A colour for each run; the first is in ink."""
    names = [member.name for member in members]
    return draw.colours(names, names[0], names)


def _curves(members: Sequence[Run]) -> list[Curve]:
    colour = shades(members)
    return [Curve(m.name, m.ledger.account["date"], m.ledger.account["equity"], m.ledger.initial_equity, colour[m.name],
                  k == 0) for k, m in enumerate(members)]


# ---- tables ----------------------------------------------------------------------------------------------------------

def _what_was_run(rows: Sequence[Row]) -> Rows:
    data = sorted({f"{row['tags.universe']}: {row['tags.data_source']}, digest {row['tags.data_digest']}" for row in rows})
    quality = sorted({row["tags.quality"] for row in rows if "tags.quality" in row})
    body = [("data", "; ".join(data)), ("runs", ", ".join(f"{row['name']} {row['run_id'][:8]}" for row in rows))]
    return Rows(("", ""), tuple(body + [("quality of the data", " and ".join(quality))] * bool(quality)),
                words=frozenset({1}))


def _performance(members: Sequence[Run], intervals: Sequence[dict[str, Interval]]) -> Rows:
    levels = {one.level for found in intervals for one in found.values()}
    level = f" ({max(levels):.0%})" if levels else ""

    def cell(found: dict[str, Interval], name: str, form: str) -> str:
        if name not in found or not np.isfinite([found[name].value, found[name].low, found[name].high]).all():
            return DASH
        write = percent if form == "%" else lambda x: format(x, form)
        one = found[name]
        return f"{write(one.value)} ({write(one.low)} to {write(one.high)})"

    body = []
    for member, found in zip(members, intervals, strict=True):
        row = member.row
        body.append((member.name, cell(found, "cagr", "%"), cell(found, "sharpe", ".2f"),
                     findings.cell(row, "sortino", ".2f"), cell(found, "max_drawdown", "%"),
                     *(findings.cell(row, key, form) for key, form in (
                         ("max_drawdown_days", ",.0f"), ("trades", ",.0f"), ("win_rate", ".1%"), ("mean_heat", ".1%"),
                         ("peak_heat", ".1%"))), findings.break_even(row, ".3f")))
    return Rows(("run", f"CAGR{level}", f"Sharpe{level}", "Sortino", f"max drawdown{level}", "its days", "trades", "win",
                 "mean heat", "peak heat", "break-even travel"), tuple(body))


def _warned(rows: Sequence[Row]) -> list[Block]:
    said = tuple(findings.warnings(rows))
    return [Bullets(said)] if said else []


def limits_at_work(members: Sequence[Run], colour: dict[str, str], prefix: str) -> list[Block]:
    """Heat over time, and what became of the candidates: how many for each reason, and what they would have made."""
    reasons = [r.name.lower() for r in Rejection
               if r and any(m.row.get(f"rejected.{r.name.lower()}", 0) for m in members)]
    names = [m.name for m in members]
    heats = [(m.name, m.ledger.account["date"], m.ledger.account["heat"], colour[m.name],
              float(m.row.get("params.limits.max_heat", np.nan))) for m in members]
    shares = np.array([[m.row.get("trades", 0.0), *(m.row.get(f"rejected.{r}", 0.0) for r in reasons)] for m in members])
    outcomes = [_outcomes(m.ledger, reasons) for m in members]
    body = tuple((m.name, findings.cell(m.row, "candidates", ",.0f"),
                  *(f"{count(n)} / {DASH if np.isnan(mean) else dollars(mean)}" for n, mean in zip(ns, means, strict=True)))
                 for m, ns, means in zip(members, shares.tolist(), outcomes, strict=True))
    return [
        Picture(f"{prefix}heat.svg", draw.heat(heats), "Open maximum loss over equity, the mean of each month; "
                "dashed: the most that max_heat allows, if on the axis. A limit that the line never nears did nothing."),
        Picture(f"{prefix}rejections.svg", draw.rejections(names, ["traded", *reasons], shares),
                "What became of the candidates of each run: the first reason that applied, in the order of admission."),
        Rows(("run", "candidates", *(f"{r}: number / mean of one contract" for r in ("traded", *reasons))), body),
        Words(REJECTED_CAPTION)]


def _outcomes(ledger: Ledger, reasons: Sequence[str]) -> list[float]:
    """Mean P&L of one contract, dollars, of what was traded and of what was rejected for each reason; NaN: none."""
    def mean(pnl: np.ndarray) -> float:
        return float(pnl.mean()) if len(pnl) else np.nan

    of = ledger.rejections
    return [mean(ledger.trades["pnl_per_contract"]),
            *(mean(of["pnl_per_contract"][of["reason"] == reason]) for reason in reasons)]


def stress(members: Sequence[Run]) -> list[Block]:
    """Return and drawdown of every run in each stress window, and what the candidates rejected in it would have made."""
    windows = [name for name in metrics.STRESS if any(f"{name}.return" in m.row for m in members)]
    if not windows:
        return []
    returns = {m.name: np.array([m.row.get(f"{window}.return", np.nan) for window in windows]) for m in members}
    body, turned = [], []
    for window in windows:
        label = f"{STRESS_LABELS[window]}, {metrics.STRESS[window][0]} to {metrics.STRESS[window][1]}"
        body.append((label, *(f"{findings.cell(m.row, f'{window}.return', '+.2%')} / "
                              f"{findings.cell(m.row, f'{window}.drawdown', '.2%')}" for m in members)))
        turned.append((label, *(_offered(m.ledger, *metrics.STRESS_WINDOWS[window]) for m in members)))
    names = [m.name for m in members]
    return [Heading(2, "Stress windows"),
            Picture("stress.svg", draw.stress(windows, returns, shades(members), None),
                    "Return in each window, each run at its own heat. One window is one event."),
            Rows(("return / drawdown", *names), tuple(body)),
            Words("Did the limits protect? What was traded in each window, and what was turned away: number / mean P&L of "
                  "one contract sold on a day of the window and closed by the rules, whenever that was."),
            Rows(("traded; turned away", *names), tuple(turned))]


def _offered(ledger: Ledger, first: np.datetime64, last: np.datetime64) -> str:
    said = []
    for table in (ledger.trades, ledger.rejections):
        pnl = table["pnl_per_contract"][(table["date"] >= first) & (table["date"] <= last)]
        said.append(f"{len(pnl):,} / {dollars(pnl.mean()) if len(pnl) else DASH}")
    return "; ".join(said)


# ---- several tickers -------------------------------------------------------------------------------------------------

def joint(label: str, one: Shared) -> list[Block]:
    """One portfolio beside one for each ticker: how the difference of their P&L comes about, dollar by dollar."""
    words = (f"Together {dollars(one.joint_pnl)} in {one.joint_trades:,} trades; the singles add up to "
             f"{dollars(one.singles_pnl)} in {one.singles_trades:,} trades, each on equity of its own: "
             f"{len(one.dropped)} times the capital. On the capital of the joint run that is "
             f"{dollars(one.singles_pnl / len(one.dropped))}.")
    dropped = tuple((ticker, count(n)) for ticker, n in one.dropped.items())
    return [Heading(2, f"{label}: one portfolio, or one for each"), Words(words),
            Picture(f"{re.sub(r'[^A-Za-z0-9]+', '-', label)}-joint.svg", draw.joint(_joint_curves(one), findings.bridge(one)),
                    "Left: P&L of the joint run and of the sum of the singles, dollars. Right: from the singles' P&L to "
                    "the joint run's, step by step."),
            Rows(("from the singles to the joint run", "trades", "dollars"), tuple(
                (name, count(n), f"{amount:+,.2f}") for name, n, amount in findings.bridge(one))),
            Words("Sharing the limits costs the winners that only a single had room for, and saves its losers. What the "
                  "joint run sold beside, or at another size, is counted by itself, so that the lines add up."),
            Rows(("sessions dropped because another ticker lacks them", "sessions"), dropped)]


def _joint_curves(one: Shared) -> list[tuple[str, Table]]:
    return [("together", one.joint_account), ("sum of the singles", one.singles_account)]
