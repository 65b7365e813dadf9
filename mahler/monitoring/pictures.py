"""What monitoring shows: the account in its cone, the fills, the CUSUM and the mix of exits, beside what was promised."""

from __future__ import annotations

from typing import Any

import numpy as np

from mahler.figures import FAINT, GAIN, INK, LINE, LOSS, SHADE
from mahler.monitoring.bands import Bands
from mahler.monitoring.paper import Watched
from mahler.report_figures import drawn

REASONS = ("profit_target", "stop_loss", "time")


def cone(seen: Watched, promised: Bands) -> str:
    """Growth of the account, in the cone that all of its path lies in, and in the one for each session alone."""
    band, n = promised.bands["growth"], np.arange(1, promised.rule.horizon + 1)
    grown = 100.0 * np.expm1(np.cumsum(seen.history.growth))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for multiples, colour, label in ((band.watch, SHADE, "all of the path, with the other checks"),
                                         ((1.0, 1.0), "#ead9b0", "95 % of each session alone")):
            limits = np.array([band.limits(int(k), multiples) for k in n])
            axes.fill_between(n, *(100.0 * np.expm1(limits.T * n)), color=colour, linewidth=0, label=label)
        axes.plot(n, 100.0 * np.expm1(band.centre * n), color=FAINT, linestyle="--", label="promised mean")
        axes.plot(np.arange(1, len(grown) + 1), grown, color=LINE, linewidth=2.0, label="paper")
        axes.set_title("Growth at the promoted size, %")
        axes.set_xlabel("sessions")
        axes.legend(loc="lower left")

    return drawn(9.0, 3.4, draw)


def fills(seen: Watched, promised: Bands) -> str:
    """The share of the bid-ask that each ticket travelled, and the model's."""
    known = np.isfinite(seen.fills["travel"])
    dates, share, opens = (seen.fills[name][known] for name in ("date", "travel", "action"))
    day = np.searchsorted(seen.sessions, dates) + 1

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for action, colour in (("open", LINE), ("close", GAIN)):
            axes.plot(day[opens == action], 100.0 * share[opens == action], "o", color=colour, markersize=4, label=action)
        axes.axhline(100.0 * promised.fill_share, color=INK, linestyle="--", label="model")
        axes.axhline(50.0, color=FAINT, linewidth=0.7)
        axes.axhline(100.0, color=FAINT, linewidth=0.7)
        axes.set_title("Share of the bid-ask travelled, %: 50 is the mid, 100 crosses")
        axes.set_xlabel("sessions")
        axes.set_xlim(0, max(len(seen.sessions), 2))
        axes.legend(loc="best")

    return drawn(9.0, 2.8, draw)


def cusum(seen: Watched, promised: Bands) -> str:
    """How low returns rank, added up, and where that is too much."""
    path = promised.cusum.path(seen.history.growth)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(np.arange(1, len(path) + 1), path, color=LINE, linewidth=1.6)
        axes.axhline(promised.cusum.h, color=LOSS, linestyle="--")
        axes.set_title(f"CUSUM of ranked returns, k = {promised.cusum.k:g}, h = {promised.cusum.h:.1f}")
        axes.set_xlabel("sessions")
        axes.set_ylim(0, 1.15 * max(promised.cusum.h, path.max(initial=0.0)))

    return drawn(9.0, 2.4, draw)


def mix(seen: Watched, promised: Bands) -> str:
    """Shares of the rules that closed trades, with the bands for as many trades."""
    reasons = seen.history.trades["reason"]
    closed = reasons[reasons != ""]
    n = max(len(closed), 1)
    limits = [promised.bands[f"exits.{reason}"].limits(n, promised.bands[f"exits.{reason}"].watch) for reason in REASONS]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        rows = np.arange(len(REASONS))[::-1]
        for row, (low, high) in zip(rows, np.clip(limits, 0.0, 1.0), strict=True):
            axes.barh(row, 100.0 * (high - low), left=100.0 * low, height=0.7, color=SHADE, label="band" if not row else None)
        axes.barh(rows, [100.0 * float((closed == reason).sum()) / n for reason in REASONS], height=0.35, color=LINE,
                  label="paper")
        axes.plot([100.0 * promised.bands[f"exits.{reason}"].centre for reason in REASONS], rows, "|", color=INK,
                  markersize=16, label="promised")
        axes.set_yticks(rows, [reason.replace("_", " ") for reason in REASONS])
        axes.set_title(f"Exits, % of {len(closed)} trades in the order of their opening, up to the first that is open")
        axes.legend(loc="best")

    return drawn(9.0, 2.4, draw)
