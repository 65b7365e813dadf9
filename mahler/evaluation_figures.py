"""The figures of an evaluation, or of several side by side: a panel for each, in the order given.

Drawn from the tables of llm.evaluation as they were logged; nothing here computes a statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mahler.figures import FAINT, GAIN, INK, LOSS
from mahler.report_figures import OTHERS, PALETTE, dated, drawn
from mahler.schema import Table

if TYPE_CHECKING:
    from mahler.report_figures import Axes, Figure

COLUMNS = 3                      # panels in a row
TICKS = {1: 8, 2: 5, 3: 4}       # dates that have room below a panel, by panels in a row
CURVES = {("approve and value >= t", "p_profit"): (PALETTE[0], "-"), ("value >= t", "p_profit"): (PALETTE[0], ":"),
          ("approve and value >= t", "confidence"): (PALETTE[1], "-"), ("value >= t", "confidence"): (PALETTE[1], ":")}


def evaluation(tables: Mapping[str, Table], label: str, cutoff: np.datetime64 | None) -> dict[str, str]:
    """The figures of one evaluation, SVG by the name of their file; those that it has no numbers for are left out.

    `cutoff` is the last day that the arm may know; None where it knows nothing, or where nobody says what.
    """
    return side_by_side({label: tables}, {label: cutoff})


def side_by_side(tables: Mapping[str, Mapping[str, Table]], cutoffs: Mapping[str, np.datetime64 | None],
                 only: str | None = None) -> dict[str, str]:
    """The figures of several evaluations, by label, or one of them; an evaluation without numbers for a figure is left out."""
    def having(name: str) -> dict[str, Table]:
        return {label: mine[name] for label, mine in tables.items()
                if name in mine and len(next(iter(mine[name].values()), ()))}

    quarters = {label: (table, cutoffs[label]) for label, table in having("quarters").items()}
    figures = {"reliability.svg": (having("reliability"), _reliability, 3.4, False),
               "thresholds.svg": (having("thresholds"), _thresholds, 3.0, True),
               "distributions.svg": (having("trades"), _distributions, 2.8, False),
               "equity.svg": (having("curves"), _equity, 3.0, False),
               "quarters.svg": (quarters, _quarters, 2.8, True)}
    return {name: _panels(found, draw, height, share) for name, (found, draw, height, share) in figures.items()
            if found and only in (None, name)}


def _panels(found: Mapping[str, object], draw: Callable[[Axes, object], None], height: float, share: bool) -> str:
    """A panel for each, titled by its label; one legend for all of them."""
    columns = min(len(found), COLUMNS)
    rows = -(-len(found) // columns)

    def every(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel()
        for one, (label, table) in zip(axes, found.items()):
            draw(one, table)
            one.set_title(label, fontsize=8 if columns > 1 else 10)
        for place, one in enumerate(axes):
            if place % columns:
                one.set_ylabel("")
        for one in axes[len(found):]:
            one.set_visible(False)
        handles = {name: handle for one in axes for handle, name in zip(*one.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=min(len(handles), 2 * columns))

    return drawn(3.7 * columns + (3.3 if columns == 1 else 0.0), height * rows + 0.5, every)


def _reliability(axes: Axes, table: Table) -> None:
    p, n = table["p_profit"], table["trades"]
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfectly calibrated")
    axes.fill_between(p, table["low"], table["high"], color=PALETTE[0], alpha=0.2, linewidth=0,
                      label="band of block-bootstrapped trades, pointwise")
    axes.plot(p, table["recalibrated"], color=PALETTE[0], linewidth=1.8, label="share that won, isotonic (CORP)")
    share = np.histogram(p, bins=np.linspace(0, 1, 21), weights=n / n.sum())[0]
    axes.bar(np.linspace(0.025, 0.975, 20), 0.25 * share / share.max(), width=0.04, color=OTHERS,
             label="how often it says so (heights have no scale)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="p_profit", ylabel="share of trades with a profit")


def _thresholds(axes: Axes, table: Table) -> None:
    everything = table["rule"] == "value >= t"
    start = np.flatnonzero(everything & (table["threshold"] == 0.0))
    if len(start):
        axes.axhline(table["mean_pnl"][start[0]], color=INK, linewidth=1.2, label="take everything")
    for (rule, value), (colour, style) in CURVES.items():
        mine = (table["rule"] == rule) & (table["value"] == value)
        if mine.any():
            axes.plot(table["threshold"][mine], table["mean_pnl"][mine], style, color=colour, marker="o", markersize=3,
                      label=rule.replace("value", value))
    axes.set(xlabel="t", ylabel="mean P&L of the kept, dollars a contract")


def _distributions(axes: Axes, table: Table) -> None:
    pnl, kept, among = table["pnl"], table["approve"], table["decided"].astype(bool)
    if not among.any():
        return
    edges = np.linspace(*np.quantile(pnl[among], [0.0, 1.0]) + np.array([-1.0, 1.0]), 31)
    for side, colour, name in ((kept, PALETTE[0], "kept"), (~kept, LOSS, "rejected")):
        mine = pnl[among & side]
        if len(mine):
            axes.hist(mine, edges, weights=np.full(len(mine), 1.0 / len(mine)), color=colour, alpha=0.45, label=name)
            axes.axvline(mine.mean(), color=colour, linewidth=1.8, label=f"{name}, mean")
    axes.axvline(0.0, color=FAINT, linewidth=0.8)
    axes.set(xlabel="P&L, dollars a contract", ylabel="share of the kept, of the rejected")


def _equity(axes: Axes, table: Table) -> None:
    dates = table["date"].astype("datetime64[D]")
    axes.fill_between(dates, table["low"] / 1e3, table["high"] / 1e3, color=OTHERS, alpha=0.6, linewidth=0,
                      label="nine of ten coins that veto as often")
    axes.plot(dates, table["median"] / 1e3, color=FAINT, linewidth=0.8, label="the median coin")
    axes.plot(dates, table["everything"] / 1e3, color=INK, linewidth=1.4, label="everything")
    axes.plot(dates, table["filtered"] / 1e3, color=PALETTE[1], linewidth=1.4, label="with the veto, replies paid")
    axes.set_ylabel("equity, thousand dollars")
    dated(axes, dates, TICKS[axes.get_gridspec().ncols])


def _quarters(axes: Axes, found: tuple[Table, np.datetime64 | None]) -> None:
    table, cutoff = found
    dates, skill = table["quarter"].astype("datetime64[D]"), table["skill"]
    axes.bar(dates[skill >= 0], skill[skill >= 0], width=80, align="edge", color=GAIN, label="knew more than the base rate")
    axes.bar(dates[skill < 0], skill[skill < 0], width=80, align="edge", color=LOSS, label="knew less")
    axes.axhline(0.0, color=INK, linewidth=0.8)
    if cutoff is not None:
        axes.axvline(cutoff, color=INK, linestyle="--", label="earlier trades may be remembered")
    axes.set(ylabel="Brier skill in the quarter, cut at -1", ylim=(max(-1.0, np.nanmin(np.append(skill, -0.1))), 1.0))
    dated(axes, dates, TICKS[axes.get_gridspec().ncols])
