"""The figures of a report, as SVG text: small, and the same bytes for the same numbers.

Drawn with matplotlib's own Figure and SVG canvas: no pyplot, no display, no state that one figure leaves the next.
Nothing here computes a statistic: what is drawn was logged.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mahler import metrics
from mahler.figures import FAINT, GAIN, GRID, INK, LOSS, STRESS_LABELS
from mahler.schema import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#2f7ebc", "#d1721c", "#3a9a5c", "#7a5aa6", "#2aa5a0", "#8a6d3b", "#c2579a")
REASONS = ("#9aa5b1", "#2f7ebc", "#d1721c", "#b5413c", "#3a9a5c", "#7a5aa6", "#2aa5a0", "#8a6d3b", "#c2579a", "#55606c",
           "#c9a227", "#5b8c5a", "#a0522d")       # of a rejection, in the order of schema.Rejection where all occur
OTHERS = "#b9c2cb"                                # configs beyond the palette
STITCHED = "#b5413c"
PIECES = 100                                      # of a line, each of which keeps its lowest and its highest point
SETTINGS = {"svg.hashsalt": "mahler", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
            "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"], "axes.edgecolor": FAINT, "axes.titlesize": 10,
            "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": GRID, "axes.axisbelow": True, "text.parse_math": False, "text.color": INK,
            "axes.labelcolor": INK, "xtick.color": FAINT, "ytick.color": FAINT, "legend.frameon": False,
            "legend.fontsize": 8, "path.simplify": True, "path.simplify_threshold": 0.5, "lines.linewidth": 1.0}


@dataclass(frozen=True)
class Curve:
    """An account: its sessions, its equity (n_days,), what it began with, and how it is drawn."""

    name: str
    dates: np.ndarray
    equity: np.ndarray
    initial: float
    colour: str
    bold: bool


def drawn(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a new figure of that size, inches, as SVG."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure)
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    svg = re.sub(r'(?<= d=")[^"]*', lambda found: _hundredths(found[0]), text.getvalue())
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _hundredths(path: str) -> str:
    """A path on one line, its coordinates in hundredths of a point: what is committed is to be small."""
    return " ".join(part if part.isalpha() else f"{float(part):.2f}".rstrip("0").rstrip(".") for part in path.split())


def _broken(name: str) -> str:
    """A name on lines of 40 characters: that of a single run has all that was typed, and would leave no room to draw."""
    return "\n".join(textwrap.wrap(name, 40))


def colours(names: Sequence[str], control: str, first: Sequence[str]) -> dict[str, str]:
    """A colour for each config: ink for the control, the palette for `first` and then in order, grey beyond it."""
    ranked = [name for name in dict.fromkeys([*first, *names]) if name != control and name in set(names)]
    return {control: INK} | {name: PALETTE[k] if k < len(PALETTE) else OTHERS for k, name in enumerate(ranked)}


# ---- accounts --------------------------------------------------------------------------------------------------------


def accounts(whole: Sequence[Curve], stitched: Sequence[Curve]) -> str:
    """Equity as growth since the start, and drawdown below it: of every config, and of the out-of-sample account."""
    panels = [(curves, title) for curves, title in (
        (whole, "Every config, the whole period: in sample"),
        (stitched, "Out of sample: chosen on the past, fold by fold")) if curves]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=[2, 1])
        for column, (curves, title) in enumerate(panels):
            for curve in sorted(curves, key=lambda curve: curve.bold):
                style = {"color": curve.colour, "linewidth": 2.0 if curve.bold else 1.0}
                growth = 100.0 * (curve.equity / curve.initial - 1.0)
                axes[0, column].plot(*_thinned(curve.dates, growth), label=curve.name, **style)
                axes[1, column].plot(*_thinned(curve.dates, 100.0 * metrics.drawdowns(curve.equity, curve.initial)),
                                     **style)
            axes[0, column].set_title(title)
            axes[0, column].set_ylabel("growth, %")
            axes[1, column].set_ylabel("drawdown, %")
            dated(axes[1, column], curves[0].dates)
            _legend(axes[0, column], curves)

    return drawn(11.0, 5.2, draw)


def _thinned(dates: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a line, and the lowest and the highest point of each of its pieces: what a screen can show."""
    edges = np.linspace(0, len(y), PIECES + 1).astype(int)
    keep = {0, len(y) - 1}
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first < last:
            keep |= {first + int(np.argmin(y[first:last])), first + int(np.argmax(y[first:last]))}
    at = sorted(keep)
    return dates[at], y[at]


def _legend(axes: Axes, curves: Sequence[Curve]) -> None:
    """The curves that have a colour of their own, in their own order; how many are grey."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    named = [curve.name for curve in curves if curve.colour != OTHERS]
    grey = [curve.name for curve in curves if curve.colour == OTHERS]
    handles, labels = [lines[name] for name in named], list(named)
    if grey:
        handles, labels = [*handles, lines[grey[0]]], [*labels, f"{len(grey)} others"]
    axes.legend(handles, labels, loc="best")


def dated(axes: Axes, dates: np.ndarray, most: int = 8) -> None:
    """At most so many ticks, each at the beginning of a month or a year."""
    first, last = dates[0].astype("datetime64[M]"), dates[-1].astype("datetime64[M]")
    for step in (1, 2, 3, 6, 12, 24, 48, 60, 120, 240):
        begin = first.astype(int) + -first.astype(int) % step
        ticks = np.arange(begin, last.astype(int) + 1, step).astype("datetime64[M]")
        if len(ticks) <= most:
            break
    axes.set_xticks(ticks.astype("datetime64[D]"), [str(tick)[:4 if step >= 12 else 7] for tick in ticks])


# ---- differences -----------------------------------------------------------------------------------------------------


def differences(names: Sequence[str], value: np.ndarray, low: np.ndarray, high: np.ndarray, detectable: np.ndarray,
                scored: tuple[float, float, float, float], level: float) -> str:
    """Each config's difference from the control with its interval, the out-of-sample account's (`scored`) below them.

    The arrays are (n,); `scored` is value, low, high and the difference that one test could have seen. A grey tick is
    the last of these.
    """
    labels = [*names, "OUT OF SAMPLE"]
    rows = np.array([*zip(value, low, high, detectable, strict=True), scored], float)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = np.arange(len(labels))[::-1]
        shades = [PALETTE[0]] * len(names) + [STITCHED]
        axes.axvline(0.0, color=INK, linewidth=1.2)
        for y, (middle, first, last, seen), colour in zip(at, rows, shades, strict=True):
            axes.plot([first, last], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([middle], [y], "o", color=colour, markersize=5)
            axes.plot([seen], [y], "|", color=FAINT, markersize=11, markeredgewidth=2)
        axes.set_yticks(at, labels, color=INK)
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"Annual Sharpe ratio less the control's, {level:.0%} interval; | what one test could have seen")

    return drawn(9.0, 1.0 + 0.28 * len(labels), draw)


# ---- folds and overfitting -------------------------------------------------------------------------------------------


def folds(test_first: np.ndarray, shift: np.ndarray, winner: Sequence[str], shade: Mapping[str, str], control: str
          ) -> str:
    """Which config was chosen for each test window: a column a window, a row a staggered start."""
    shifts = np.unique(shift)
    shown = list(dict.fromkeys([control, *sorted(set(winner), key=lambda name: (-list(winner).count(name), name))]))

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Patch, Rectangle

        axes = figure.subplots()
        ticks: list[str] = []
        for row, start in enumerate(shifts):
            mine = np.flatnonzero(shift == start)
            for column, fold in enumerate(mine):
                axes.add_patch(Rectangle((column, -row - 1), 0.96, 0.9, facecolor=shade[winner[fold]], linewidth=0))
            if len(mine) > len(ticks):
                ticks = [str(day)[:7] for day in test_first[mine]]
        axes.set_xlim(0, len(ticks))
        axes.set_ylim(-len(shifts), 0)
        axes.set_xticks(np.arange(len(ticks)) + 0.48, ticks)
        axes.set_yticks(-np.arange(len(shifts)) - 0.55, [f"+{start} sessions" for start in shifts])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.set_title("The config chosen for the test window that begins in ..., by staggered start")
        figure.legend(handles=[Patch(color=shade[name], label=f"{name} (control)" if name == control else name)
                               for name in shown if shade[name] != OTHERS], loc="outside lower left",
                      ncols=1 if max(map(len, shown)) > 40 else 4)

    return drawn(11.0, 1.5 + 0.3 * len(shifts), draw)


def overfitting(logits: np.ndarray, pbo: float, null: np.ndarray, p_value: float) -> str:
    """The logits of CSCV, and the study's PBO among those of equal configs."""
    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        places, counts = np.unique(np.round(logits, 9), return_counts=True)
        if len(places) <= 40:                    # few configs have few ranks, and a histogram would invent gaps
            width = 0.6 * float(np.diff(places).min()) if len(places) > 1 else 0.5
            left.bar(places, counts / len(logits), width=width, color=np.where(places < 0, LOSS, PALETTE[0]))
        else:
            left.hist(logits, bins=40, weights=np.full(len(logits), 1.0 / len(logits)), color=PALETTE[0])
        left.axvline(0.0, color=INK)
        left.set_title(f"Logits of {len(logits):,} splits; the share below 0 is the PBO, {pbo:.2f}")
        left.set_xlabel("logit of the chosen config's rank where it was not chosen; below 0: worse than the median")
        left.set_ylabel("share of splits")
        right.hist(null, bins=np.linspace(0.0, 1.0, 26), weights=np.full(len(null), 1.0 / len(null)), color=OTHERS)
        right.axvline(pbo, color=LOSS, linewidth=2.0)
        right.set_title(f"PBO of {len(null)} draws of equal configs; red: this study (p {p_value:.2f})")
        right.set_xlabel("PBO")

    return drawn(11.0, 2.9, draw)


# ---- stress and map --------------------------------------------------------------------------------------------------


def stress(windows: Sequence[str], returns: Mapping[str, np.ndarray], shade: Mapping[str, str],
           control: str | None) -> str:
    """The return of each config in each stress window: `returns` are fractions (n_windows,), NaN where not covered.

    A control is a line; without one all are dots.
    """
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = np.arange(len(windows))[::-1]
        axes.axvline(0.0, color=FAINT)
        for name, value in returns.items():
            if name != control:
                axes.plot(100.0 * value, at, "o", color=shade[name], markersize=5, alpha=0.85, label=name)
        if control is not None:
            axes.plot(100.0 * returns[control], at, "|", color=INK, markersize=16, markeredgewidth=2.5,
                      label=f"{control} (control)")
        axes.set_yticks(at, [STRESS_LABELS[window] for window in windows], color=INK)
        axes.set_xlabel("return in the window, %")
        handles, labels = axes.get_legend_handles_labels()
        named = [(h, _broken(label)) for h, label in zip(handles, labels, strict=True) if shade.get(label) != OTHERS]
        grey = [h for h, label in zip(handles, labels, strict=True) if shade.get(label) == OTHERS]
        named += [(grey[0], f"{len(grey)} others")] if grey else []
        figure.legend(*zip(*named, strict=True), loc="outside right upper")

    return drawn(11.0, 1.0 + 0.26 * len(windows), draw)


# ---- limits ----------------------------------------------------------------------------------------------------------


def heat(runs: Sequence[tuple[str, np.ndarray, np.ndarray, str, float]]) -> str:
    """Mean heat of each month; `runs` are name, dates, heat (n_days,), colour and the most that is allowed (or NaN)."""
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        highest = 0.0
        for name, dates, level, colour, most in runs:
            months, at = np.unique(dates.astype("datetime64[M]"), return_index=True)
            monthly = 100.0 * np.add.reduceat(level, at) / np.diff(at, append=len(level))
            axes.plot(months.astype("datetime64[D]"), monthly, color=colour, label=_broken(name))
            highest = max(highest, float(np.nanmax(monthly)))
        for most, colour in dict.fromkeys((most, colour) for *_, colour, most in runs if 100.0 * most <= 1.5 * highest):
            axes.axhline(100.0 * most, color=colour, linewidth=0.9, linestyle="--")
        above = sorted({most for *_, most in runs if 100.0 * most > 1.5 * highest})
        beyond = f"; above the axis: {', '.join(f'{most:.0%}' for most in above)}" if above else ""
        axes.set_ylim(0.0)
        axes.set_ylabel("heat, % of equity")
        axes.set_title(f"Open maximum loss over equity, mean of each month; dashed: max_heat{beyond}")
        dated(axes, runs[0][1])
        figure.legend(loc="outside right upper")

    return drawn(11.0, 3.2, draw)


def rejections(names: Sequence[str], reasons: Sequence[str], counts: np.ndarray) -> str:
    """What became of the candidates of each run, as shares of them: `counts` is (n_runs, n_reasons)."""
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at, share = np.arange(len(names))[::-1], 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        begin = np.zeros(len(names))
        for k, reason in enumerate(reasons):
            colour = INK if k == 0 else REASONS[(k - 1) % len(REASONS)]
            axes.barh(at, share[:, k], left=begin, height=0.7, color=colour, label=reason)
            for y, left, wide in zip(at, begin, share[:, k], strict=True):
                if wide >= 4.0:
                    axes.text(left + wide / 2.0, y, f"{wide:.0f}", ha="center", va="center", fontsize=8, color="white")
            begin = begin + share[:, k]
        axes.set_yticks(at, [_broken(name) for name in names], color=INK)
        axes.set_xlim(0.0, 100.0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("% of the candidates")
        axes.set_title("Traded, or turned away, and for which reason")
        figure.legend(loc="outside right upper")

    return drawn(11.0, 1.6 + 0.34 * len(names), draw)


def joint(curves: Sequence[tuple[str, Table]], steps: Sequence[tuple[str, int, float]]) -> str:
    """P&L over time of `curves` (date, pnl in dollars), and `steps` (name, trades, dollars) from the first to the last.

    The first and the last step are totals, the others lead from one to the other.
    """
    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        for (name, table), colour in zip(curves, (PALETTE[0], INK), strict=True):
            left.plot(*_thinned(table["date"], table["pnl"] / 1000.0), color=colour, label=name)
        left.axhline(0.0, color=FAINT)
        left.set_ylabel("P&L, thousand dollars")
        left.set_title("One portfolio, and the sum of one for each ticker")
        left.legend(loc="best")
        dated(left, curves[0][1]["date"])
        at = np.arange(len(steps))[::-1]
        begin = np.concatenate(([0.0], np.cumsum([dollars for _, _, dollars in steps[:-1]])))
        begin[-1] = 0.0
        for y, start, (_, _, amount) in zip(at, begin, steps, strict=True):
            colour = INK if y in (at[0], at[-1]) else LOSS if amount < 0 else GAIN
            right.barh(y, amount / 1000.0, left=start / 1000.0, height=0.6, color=colour)
        right.axvline(0.0, color=FAINT)
        right.set_yticks(at, [f"{name}\n{amount:+,.0f}" for name, _, amount in steps], color=INK)
        right.grid(axis="y", visible=False)
        right.set_xlabel("thousand dollars")

    return drawn(11.0, 4.0, draw)


def heat_map(axes_of: tuple[str, str], options: tuple[Sequence[str], Sequence[str]], panels: Mapping[str, np.ndarray],
             control: tuple[int, int] | None) -> str:
    """A matrix (n_first, n_second) of percentages per panel over two axes of the grid; the control's cell is framed."""
    def draw(figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        for axes, (title, matrix) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
            known: Any = np.ma.masked_invalid(matrix)
            axes.pcolormesh(known, cmap="cividis", edgecolors="white", linewidth=1.0)
            middle = float((known.max() + known.min()) / 2.0) if known.count() else 0.0
            for i, j in np.ndindex(matrix.shape):
                if np.isfinite(matrix[i, j]):
                    axes.text(j + 0.5, i + 0.5, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8,
                              color="white" if matrix[i, j] <= middle else INK)
            if control:
                axes.add_patch(Rectangle((control[1], control[0]), 1, 1, fill=False, edgecolor=LOSS, linewidth=2.5))
            axes.set_xticks(np.arange(len(options[1])) + 0.5, options[1])
            axes.set_yticks(np.arange(len(options[0])) + 0.5, options[0])
            axes.set_xlabel(axes_of[1])
            axes.set_ylabel(axes_of[0])
            axes.set_title(title)
            axes.grid(visible=False)
            axes.tick_params(length=0)

    return drawn(11.0, 1.3 + 0.35 * len(options[0]), draw)
