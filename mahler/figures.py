"""A run on one page: equity, drawdown, months, funnel, exits and rejections as a picture, and tables beside it.

Pure: ledger and summary in, text out. The picture is SVG written here, not a plotting library's: a page takes
milliseconds where one takes a second, needs no font and no state, and reads at any zoom.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mahler import metrics
from mahler.ledger import Ledger
from mahler.schema import STAGES, Exit, Rejection, Table

SYNTHETIC = "SYNTHETIC MARKET"
"""Stands before the title of every page whose data were made, not observed."""

INK, FAINT, GRID = "#1b2a3a", "#66727f", "#e3e7ec"
LINE, GAIN, LOSS, SHADE = "#1f4e79", "#2a7f62", "#b5413c", "#f6ecd6"
WIDTH, LEFT, RIGHT = 1200, 96, 1160          # of the picture, and of what is drawn to scale in it
ROW = 20                                     # height of a year and of a bar
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
STRESS_LABELS = {
    "gfc_2008": "GFC", "flash_crash_2010": "Flash crash", "debt_ceiling_2011": "Debt ceiling", "china_2015": "China",
    "volmageddon_2018": "Vol spike", "q4_2018": "Q4 2018", "covid_2020": "COVID", "year_2020": "All of 2020",
    "bear_2022": "Bear 2022", "tariffs_2025": "Tariffs",
}

REJECTED_CAPTION = (
    "Net of costs, had one contract been sold and closed by the same rules. A spread is a candidate again on every "
    "day that it is offered, and many overlap: they could not all have been sold, and a total is not money that was "
    "left on the table. Read the means, beside that of what was traded.")


# ---- how numbers are written -----------------------------------------------------------------------------------------

def percent(x: float) -> str:
    """A fraction as percent, one decimal from 10 % on, else two."""
    return f"{100 * x:,.1f} %" if abs(x) >= 0.1 else f"{100 * x:.2f} %"


def plain(x: float) -> str:
    return f"{x:,.2f}"


def count(x: float) -> str:
    return f"{x:,.0f}"


def dollars(x: float) -> str:
    """Whole dollars from a hundred on, cents below; the sign before the dollar."""
    return f"{'-' if x < 0 else ''}${abs(x):,.0f}" if abs(x) >= 100 else f"{'-' if x < 0 else ''}${abs(x):,.2f}"


class Row(NamedTuple):
    """A metric, what a reader calls it, and how it is written."""

    name: str
    label: str
    write: Callable[[float], str]

    def value(self, summary: dict[str, float]) -> str:
        """The metric as text; a dash where it is undefined."""
        return self.write(summary[self.name]) if self.name in summary else "–"


HEADLINE = (
    Row("cagr", "CAGR", percent), Row("sharpe", "Sharpe", plain), Row("sortino", "Sortino", plain),
    Row("max_drawdown", "Max drawdown", percent), Row("annual_volatility", "Volatility", percent),
    Row("trades", "Trades", count), Row("win_rate", "Win rate", percent), Row("profit_factor", "Profit factor", plain),
)

SECTIONS = {
    "Return and risk": (
        Row("total_return", "Total return", percent), Row("cagr", "CAGR", percent),
        Row("annual_volatility", "Annual volatility", percent), Row("sharpe", "Sharpe", plain),
        Row("sortino", "Sortino", plain), Row("calmar", "Calmar", plain),
        Row("max_drawdown", "Maximum drawdown", percent), Row("max_drawdown_days", "its length, calendar days", count),
        Row("worst_day", "Worst day", percent),
        Row("expected_shortfall_95", "Expected shortfall, 95 %, daily", percent),
        Row("skew", "Skew of daily returns", plain), Row("excess_kurtosis", "Excess kurtosis", plain),
        Row("exposure", "Sessions with a position", percent), Row("mean_heat", "Mean heat", percent),
        Row("peak_heat", "Peak heat", percent), Row("sessions", "Sessions", count),
    ),
    "Trades": (
        Row("trades", "Trades", count), Row("trades.put", "Bull puts", count), Row("trades.call", "Bear calls", count),
        Row("win_rate", "Win rate", percent), Row("profit_factor", "Profit factor", plain),
        Row("mean_trade", "Mean trade", dollars), Row("mean_winner", "Mean winner", dollars),
        Row("mean_loser", "Mean loser", dollars), Row("largest_loss", "Largest loss", dollars),
        Row("mean_holding_days", "Mean holding, calendar days", plain),
        Row("return_on_max_loss", "Return on maximum loss", percent), Row("pnl.put", "P&L of bull puts", dollars),
        Row("pnl.call", "P&L of bear calls", dollars),
        Row("exits.end_of_period", "Closed by the end of the period (no win, no loss)", count),
    ),
    "Costs and data": (
        Row("commission", "Commission", dollars), Row("slippage", "Slippage against mid", dollars),
        Row("costs_to_gross", "Both over P&L before costs", percent), Row("stale_marks", "Stale marks", count),
        Row("unreachable_stops", "Unreachable stops", count), Row("unlabelled_days", "Days without a regime", count),
    ),
}


# ---- the page --------------------------------------------------------------------------------------------------------

STYLE = """
body { font: 14px/1.45 Helvetica, Arial, sans-serif; color: #1b2a3a; max-width: 1200px; margin: 16px auto }
svg { width: 100%; height: auto } .tables { display: flex; flex-wrap: wrap; gap: 8px 48px; margin-left: 24px }
h2 { font-size: 15px; margin: 16px 0 6px } table { border-collapse: collapse }
td, th { padding: 2px 0 2px 16px; border-bottom: 1px solid #e3e7ec; text-align: right; font-weight: normal }
td { font-variant-numeric: tabular-nums } th:first-child { text-align: left; padding-left: 0 } thead { color: #66727f }
.warning { color: #b5413c; font-weight: bold; margin: 4px 24px }
"""


def run_page(ledger: Ledger, summary: dict[str, float], title: str, subtitle: str, *, synthetic: bool,
             warnings: Sequence[str] = ()) -> str:
    """One HTML file that needs no other: the picture of `run_picture` and the tables of metrics.summary.

    `warnings` are what a reader has to know before any number, and stand above all of them. A metric that `summary`
    lacks is undefined and written as a dash.
    """
    sections = "".join(f"<div><h2>{html.escape(name)}</h2>{_metric_table(rows, summary)}</div>"
                       for name, rows in SECTIONS.items())
    heading = html.escape(_heading(title, synthetic))
    picture = run_picture(ledger, summary, title, subtitle, synthetic=synthetic)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
            f"<style>{STYLE}</style></head><body>\n"
            + "".join(f'<p class="warning">{html.escape(words)}</p>\n' for words in warnings)
            + f"{picture}\n"
            f'<div class="tables">{sections}<div><h2>Stress windows</h2>{_stress_table(summary)}</div></div>\n'
            "</body></html>\n")


def _heading(title: str, synthetic: bool) -> str:
    return f"{SYNTHETIC}: {title}" if synthetic else title


def _metric_table(rows: tuple[Row, ...], summary: dict[str, float]) -> str:
    return "<table>" + "".join(f"<tr><th>{html.escape(row.label)}</th><td>{html.escape(row.value(summary))}</td></tr>"
                               for row in rows) + "</table>"


def _stress_table(summary: dict[str, float]) -> str:
    """A line for each window that the run covers."""
    covered = [name for name in metrics.STRESS if f"{name}.return" in summary]
    if not covered:
        return "<p>The run covers none of them.</p>"
    body = ""
    for name in covered:
        first, last = metrics.STRESS[name]
        cells = "".join(f"<td>{row.value(summary)}</td>" for row in (
            Row(f"{name}.return", "", percent), Row(f"{name}.drawdown", "", percent),
            Row(f"{name}.trades", "", count), Row(f"{name}.win_rate", "", percent)))
        body += f"<tr><th>{STRESS_LABELS[name]}, {first} to {last}</th>{cells}</tr>"
    return ("<table><thead><tr><th></th><th>Return</th><th>Drawdown</th><th>Trades closed</th><th>Win rate</th></tr>"
            f"</thead>{body}</table>")


# ---- the picture -----------------------------------------------------------------------------------------------------

def run_picture(ledger: Ledger, summary: dict[str, float], title: str, subtitle: str, *, synthetic: bool) -> str:
    """The run as an SVG, 1200 wide: headline, equity, drawdown, monthly returns, funnel, exit reasons, rejections.

    `synthetic` puts SYNTHETIC MARKET before the title.
    """
    years = np.unique(ledger.account["date"].astype("datetime64[Y]"))
    bars_top = 708 + ROW * (1 + len(years)) + 40
    funnel, exits_top = _funnel(ledger.funnel, 24, bars_top)
    exits, exits_end = _exits(ledger.trades, 24, exits_top + 32)
    rejected, rejected_end = _rejected(ledger, 624, bars_top)
    height = max(exits_end, rejected_end) + 16
    body = [_header(summary, _heading(title, synthetic), subtitle, LOSS if synthetic else INK),
            _equity(ledger, top=192, bottom=472), _drawdown(ledger, top=536, bottom=656), _months(ledger, top=708),
            funnel, exits, rejected]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="Helvetica, Arial, sans-serif"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
            + "\n".join(body) + "</svg>")


def _header(summary: dict[str, float], heading: str, subtitle: str, colour: str) -> str:
    size = min(22.0, 22.0 * 90 / max(len(heading), 1))       # a long title is smaller, not cut
    parts = [_text(24, 36, heading, size, colour, bold=True), _text(24, 58, subtitle, 13, FAINT)]
    for i, row in enumerate(HEADLINE):
        x = 24 + i * (RIGHT - 24) / len(HEADLINE)
        parts += [_text(x, 92, row.label, 12, FAINT), _text(x, 115, row.value(summary), 19, INK, bold=True)]
    return "".join(parts)


def _equity(ledger: Ledger, top: float, bottom: float) -> str:
    dates, equity = ledger.account["date"], ledger.account["equity"]
    low, high = min(equity.min(), ledger.initial_equity), max(equity.max(), ledger.initial_equity)
    logarithmic = low > 0 and high > 3 * low
    margin = 0.05 * (high - low) or 0.01 * max(abs(high), 1.0)
    low, high = (low / 1.05, high * 1.05) if logarithmic else (low - margin, high + margin)
    ticks = _log_ticks(low, high) if logarithmic else _ticks(low, high)
    scale = np.log if logarithmic else np.asarray
    y = _scale(scale(low), scale(high), bottom, top)
    start = y(scale(ledger.initial_equity))
    return "".join([
        _title(top - 32, "Equity, dollars" + (", logarithmic" if logarithmic else "")),
        _shades(dates, top, bottom), _grid([(y(scale(tick)), f"{tick:,.{_decimals(ticks)}f}") for tick in ticks]),
        _dates(dates, bottom), _line(LEFT, start, RIGHT, start, FAINT, dashed=True),
        f'<path d="M{_path(dates, y(scale(equity)))}" fill="none" stroke="{LINE}" stroke-width="1.4"/>'])


def _drawdown(ledger: Ledger, top: float, bottom: float) -> str:
    dates, equity = ledger.account["date"], ledger.account["equity"]
    fall = 100 * metrics.drawdowns(equity, ledger.initial_equity)
    low = min(1.3 * fall.min(), -0.1)
    y = _scale(low, 0.0, bottom, top)
    ticks = _ticks(low, 0.0)
    parts = [_title(top - 12, "Drawdown from the running peak, %"),
             _grid([(y(tick), f"{tick:.{_decimals(ticks)}f}") for tick in ticks]), _dates(dates, bottom),
             f'<path d="M{LEFT},{top}L{_path(dates, y(fall))}L{RIGHT},{top}" fill="{LOSS}" fill-opacity="0.25" '
             f'stroke="{LOSS}" stroke-width="0.9"/>']
    worst = metrics.max_drawdown(equity, ledger.initial_equity, dates)
    if worst.depth > 0:
        x, depth = float(_across(dates)(worst.trough)), float(y(-100 * worst.depth))
        end = "not recovered" if np.isnat(worst.recovery) else f"recovered {worst.recovery}"
        words = f"-{percent(worst.depth)} on {worst.trough}, from {worst.start}, {end}, {worst.days:,} days"
        left = x < (LEFT + RIGHT) / 2
        parts += [f'<circle cx="{x:.1f}" cy="{depth:.1f}" r="3.5" fill="{LOSS}"/>',
                  _text(x + (9 if left else -9), depth + 14, words, 12, INK, "start" if left else "end")]
    return "".join(parts)


def _months(ledger: Ledger, top: float) -> str:
    account = ledger.account
    months, monthly = metrics.period_returns(account["equity"], ledger.initial_equity, account["date"], "M")
    years, yearly = metrics.period_returns(account["equity"], ledger.initial_equity, account["date"], "Y")
    # The strongest few months share the deepest colour, or a single crash would leave the rest white.
    limit = max(float(np.nanquantile(np.abs(monthly), 0.95)), 1e-6)
    wide = (RIGHT - LEFT) / 13
    parts = [_title(top - 6, "Return by month, %")]
    parts += [_text(LEFT + (i + 0.5) * wide, top + 14, name, 11, FAINT, "middle")
              for i, name in enumerate([*MONTHS, "Year"])]
    rows = np.searchsorted(years, months.astype("datetime64[Y]"))
    for month, row, value in zip(months, rows.tolist(), monthly.tolist()):
        if math.isnan(value):                                # an account that is gone has no return
            continue
        x, y = LEFT + int(month.astype(int) % 12) * wide, top + ROW * (row + 1)
        strength = min(abs(value) / limit, 1.0) * 0.7
        parts += [f'<rect x="{x:.1f}" y="{y}" width="{wide - 1:.1f}" height="{ROW - 1}" '
                  f'fill="{LOSS if value < 0 else GAIN}" fill-opacity="{strength:.2f}"/>',
                  _text(x + wide / 2, y + 14, _tenths(value), 11, INK, "middle")]
    for row, (year, value) in enumerate(zip(years, yearly.tolist())):
        y = top + ROW * (row + 1) + 14
        parts += [_text(LEFT - 10, y, str(year), 11, FAINT, "end"),
                  _text(LEFT + 12.5 * wide, y, _tenths(value), 11, INK, "middle", bold=True)]
    return "".join(parts)


def _tenths(fraction: float) -> str:
    """Percent to a tenth, without the sign of a zero."""
    return "–" if math.isnan(fraction) else f"{round(100 * fraction, 1) + 0.0:.1f}"


def _funnel(funnel: Table, left: float, top: float) -> tuple[str, float]:
    """What each stage of the screen and of admission kept of the one above it; and where the drawing ends."""
    parts = [_title(top, "Funnel: from chain to trade", left)]
    n_sessions = len(np.unique(funnel["date"]))
    if n_sessions == 0:
        return "".join([*parts, _text(left, top + 24, "not kept", 12, FAINT)]), top + 24
    total, session, track, width = left + 220, left + 300, left + 330, 130
    parts += [_text(x, top + 22, heading, 11, FAINT, anchor) for x, heading, anchor in (
        (total, "total", "end"), (session, "a session", "end"), (track, "kept of the line above", "start"))]
    above = None
    for row, stage in enumerate((*STAGES, "admitted")):
        n, y = int(funnel[stage].sum()), top + 28 + ROW * row
        parts += [_text(left, y + 14, _spoken(stage), 12, INK), _text(total, y + 14, count(n), 12, INK, "end"),
                  _text(session, y + 14, _significant(n / n_sessions), 12, INK, "end")]
        if above:
            parts += [_rect(track, y + 3, width, GRID), _rect(track, y + 3, width * min(n / above, 1.0), LINE),
                      _text(track + width + 8, y + 14, percent(n / above), 12, INK)]
        above = n
    words = (f"{_sessions(funnel)} The first line counts strikes, the second short legs, each of which may make a "
             "spread of every width, the others spreads.")
    return _caption(parts, left, top + 28 + ROW * (len(STAGES) + 1), words)


def _sessions(funnel: Table) -> str:
    """On how many sessions there was a trade, and on how many there was none although there were candidates."""
    day = np.unique(funnel["date"], return_inverse=True)[1]
    candidates, admitted = (np.bincount(day, weights=funnel[name]) for name in ("ranked", "admitted"))
    return (f"Of {count(len(admitted))} sessions {count((admitted > 0).sum())} had a trade, "
            f"{count(((admitted == 0) & (candidates > 0)).sum())} had candidates that were all rejected, "
            f"{count((candidates == 0).sum())} had no candidate.")


def _exits(trades: Table, left: float, top: float) -> tuple[str, float]:
    """A bar for each reason of exit, the longest being the commonest, with its count and its dollars behind it."""
    parts = [_title(top, "Exits: trades, and their net P&L", left)]
    exits = _by_reason(trades["exit_reason"], trades["pnl"], Exit)
    if not exits:
        parts.append(_text(left, top + 24, "none", 12, FAINT))
    most = max((n for _, n, _ in exits), default=1)
    for row, (reason, n, pnl) in enumerate(exits):
        y, long = top + 10 + ROW * row, max(250 * n / most, 1.0)
        parts += [_text(left, y + 14, _spoken(reason), 12, INK),
                  _rect(left + 110, y + 3, long, LOSS if pnl < 0 else GAIN),
                  _text(left + 118 + long, y + 14, f"{count(n)} · {dollars(pnl)}", 12, INK)]
    return "".join(parts), top + 10 + ROW * max(len(exits), 1)


def _rejected(ledger: Ledger, left: float, top: float) -> tuple[str, float]:
    """What a contract of the rejected would have made, by reason, under what one of the traded did."""
    parts = [_title(top, "P&L of what was rejected, by reason, one contract each", left)]
    traded, rejected = ledger.trades["pnl_per_contract"], ledger.rejections
    reasons = _by_reason(rejected["reason"], rejected["pnl_per_contract"], Rejection)
    if not reasons:
        return "".join([*parts, _text(left, top + 24, "none", 12, FAINT)]), top + 24
    rows = [("traded", len(traded), float(traded.sum()))] * (len(traded) > 0) + reasons
    n_at, mean_at, total_at, zero, half = left + 220, left + 290, left + 380, left + 465, 70
    parts += [_text(x, top + 22, heading, 11, FAINT, anchor) for x, heading, anchor in (
        (n_at, "candidates", "end"), (mean_at, "mean", "end"), (total_at, "total", "end"), (zero, "mean", "middle"))]
    most = max(abs(pnl / n) for _, n, pnl in rows) or 1.0
    for row, (reason, n, pnl) in enumerate(rows):
        y, long, bold = top + 28 + ROW * row, half * abs(pnl / n) / most, reason == "traded"
        parts.append(_text(left, y + 14, _spoken(reason), 12, INK, bold=bold))
        parts += [_text(x, y + 14, words, 12, INK, "end", bold) for x, words in (
            (n_at, count(n)), (mean_at, dollars(pnl / n)), (total_at, dollars(pnl)))]
        parts.append(_rect(zero - (long if pnl < 0 else 0.0), y + 3, long, LOSS if pnl < 0 else GAIN))
    end = top + 28 + ROW * len(rows)
    parts.append(_line(zero, top + 28, zero, end, FAINT))
    return _caption(parts, left, end, REJECTED_CAPTION)


def _by_reason(column: np.ndarray, pnl: np.ndarray, enum: type[Exit] | type[Rejection]) -> list[tuple[str, int, float]]:
    """(reason, rows, sum of pnl in dollars) of each reason that occurs, in the order of the enum."""
    index = {reason.name.lower(): i for i, reason in enumerate(enum)}
    codes = np.fromiter((index[name] for name in column.tolist()), np.intp, len(column))
    rows, total = np.bincount(codes, minlength=len(index)), np.bincount(codes, weights=pnl, minlength=len(index))
    return [(name, n, money) for name, n, money in zip(index, rows.tolist(), total.tolist()) if n]


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace(" iv ", " IV ").replace(" vix", " VIX").replace("dte ", "DTE ")


def _significant(x: float) -> str:
    """Two digits at least: 1,428, 31, 6.3, 0.31, 0.0042."""
    return count(x) if x >= 10 or x == 0 else f"{x:.{1 - math.floor(math.log10(x))}f}"


def _caption(parts: list[str], left: float, top: float, words: str) -> tuple[str, float]:
    """`parts` with words below them; and where those end."""
    lines = textwrap.wrap(words, 100)
    parts = [*parts, *(_text(left, top + 16 + 14 * i, line, 11, FAINT) for i, line in enumerate(lines))]
    return "".join(parts), top + 16 + 14 * len(lines)


# ---- axes ------------------------------------------------------------------------------------------------------------

def _scale(low: float, high: float, at_low: float, at_high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: at_low + (np.asarray(value) - low) / (high - low) * (at_high - at_low)


def _across(dates: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Calendar dates to x; a single session is drawn as a day."""
    first = dates[0].astype(int)
    scale = _scale(first, max(dates[-1].astype(int), first + 1), LEFT, RIGHT)
    return lambda value: scale(np.asarray(value).astype("datetime64[D]").astype(int))


def _path(dates: np.ndarray, y: np.ndarray) -> str:
    """Points "x,yLx,y..." of a line; of the sessions that share two units of x, the first, lowest and highest."""
    x = _across(dates)(dates)
    column = np.floor(x / 2)
    first = np.flatnonzero(np.diff(column, prepend=-1.0))
    by_height = np.lexsort((y, column))                      # the columns one after the other, each from low to high
    last = np.append(first[1:], len(y)) - 1
    kept = np.unique(np.concatenate((first, by_height[first], by_height[last], [len(y) - 1])))
    return "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[kept].tolist(), y[kept].tolist()))


def _shades(dates: np.ndarray, top: float, bottom: float) -> str:
    """The stress windows that the run touches, behind the line."""
    across, parts = _across(dates), []
    for name, (first, last) in metrics.STRESS_WINDOWS.items():
        if name == "year_2020" or last < dates[0] or first > dates[-1]:      # COVID lies in it
            continue
        x, end = (float(across(day)) for day in (max(first, dates[0]), min(last, dates[-1])))
        wide = max(end - x, 1.0)
        parts += [f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{bottom - top}" fill="{SHADE}"/>',
                  _text((x + end) / 2, top - 5, STRESS_LABELS[name], 10, FAINT, "middle")]
    return "".join(parts)


def _grid(ticks: list[tuple[float, str]]) -> str:
    return "".join(_line(LEFT, y, RIGHT, y, GRID) + _text(LEFT - 10, y + 4, label, 11, FAINT, "end")
                   for y, label in ticks)


def _dates(dates: np.ndarray, bottom: float) -> str:
    """Month or year starts below an axis, at most about a dozen."""
    first, last = dates[0].astype("datetime64[M]"), dates[-1].astype("datetime64[M]")
    starts = np.arange(first, last + 1)
    step = next((s for s in (1, 2, 3, 6, 12, 24, 60) if len(starts) <= 13 * s), 120)
    starts = [start for start in starts if start.astype(int) % step == 0 and start.astype("datetime64[D]") >= dates[0]]
    across, unit = _across(dates), "Y" if step >= 12 else "M"
    return "".join(_line(float(across(start)), bottom, float(across(start)), bottom + 4, FAINT)
                   + _text(float(across(start)), bottom + 18, str(np.datetime64(start, unit)), 11, FAINT, "middle")
                   for start in starts)


def _ticks(low: float, high: float) -> np.ndarray:
    """Round numbers from `low` to `high`, three to seven of them."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    return np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step


def _log_ticks(low: float, high: float) -> np.ndarray:
    """1, 2 and 5 times powers of ten from `low` to `high`; only the powers where that would be many."""
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = np.outer(powers, (1, 2, 5) if len(powers) <= 4 else (1,)).ravel()
    return ticks[(ticks >= low) & (ticks <= high)]


def _decimals(ticks: np.ndarray) -> int:
    """Decimals that tell neighbouring ticks apart."""
    return 0 if len(ticks) < 2 else max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))


# ---- marks -----------------------------------------------------------------------------------------------------------

def _text(x: float, y: float, words: str, size: float, colour: str, anchor: str = "start", bold: bool = False) -> str:
    style = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (' font-weight="bold"' if bold else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"{style}>{html.escape(words)}</text>'


def _rect(x: float, y: float, width: float, colour: str) -> str:
    """A bar in a row."""
    opacity = "" if colour == GRID else ' fill-opacity="0.6"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"{opacity}/>'


def _title(y: float, words: str, x: float = 24) -> str:
    return _text(x, y, words, 14, INK, bold=True)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'
