"""The quality of a store on one page: a heat map of days per ticker, the verdict of each year, and what is marked.

Pure: the report in, text out, as for the page of a run (mahler.figures), whose looks it shares.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from mahler import figures
from mahler.data.calendar import sessions
from mahler.data.quality import DAY_MARKS, Quality, State, Thresholds, Verdict, headline, why
from mahler.figures import FAINT, GAIN, INK, LOSS, MONTHS
from mahler.schema import Table

COLOURS = {State.COMPLETE: "#a9cfbd", State.FEW_ROWS: "#f0cf5f", State.GREEKS: "#7fa8d9", State.QUOTES: "#e58a34",
           State.REPEATED: "#8b5aa6", State.MISSING: "#b5413c"}
OUTSIDE = "#edf0f3"         # sessions before the first and after the last of the store
VERDICTS = {Verdict.GOOD: GAIN, Verdict.USABLE: "#9a6b00", Verdict.DO_NOT_USE: LOSS}
NAMES = {State.COMPLETE: "complete", State.FEW_ROWS: "few rows", State.GREEKS: "greeks in doubt",
         State.QUOTES: "quotes in doubt", State.REPEATED: "repeats the session before", State.MISSING: "missing"}

WIDTH, LEFT, DAY, ROW = 1200, 56, 3.1, 15       # of the picture, its first cell, and a cell with its gap
VERDICT_AT, REASONS_AT, LONGEST = LEFT + 254 * DAY, LEFT + 254 * DAY + 76, 45
MOST_LISTED = 300

STYLE = figures.STYLE + """
p { margin: 6px 24px } h1 { font-size: 20px; margin: 16px 24px 6px } h2 { margin-left: 24px } .wide { margin: 0 24px }
.wide table { font-size: 12px } .wide td, .wide th { padding: 2px 0 2px 12px; vertical-align: bottom }
.wide th:first-child { padding-left: 0 } .wide .words { text-align: left } .legend span { margin-right: 18px }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px }
"""


class Column(NamedTuple):
    """A column of the report's years, what a reader calls it, and how its values are written."""

    name: str
    label: str
    form: str

    def value(self, years: Table, row: int) -> str:
        """The value as text; a dash where there is none."""
        value = years[self.name][row]
        return "–" if value != value else self.form.format(value, of_year=years["of_year"][row])


SHORT = (
    Column("ticker", "", "{}"), Column("year", "year", "{}"), Column("rows", "rows", "{:,}"),
    Column("sessions", "days", "{} of {of_year}"), Column("missing", "missing", "{}"), Column("marked", "marked", "{}"),
    Column("crossed", "crossed", "{:.2%}"), Column("zero_bids", "0 bid", "{:.1%}"),
    Column("parity_95", "parity", "{:.2%}"), Column("delta_rising", "delta", "{:.2%}"),
    Column("iv_gaps", "IV gaps", "{:.1%}"),
)
"""What the terminal shows of a year, in 100 columns with the verdict."""

WHOLE = (
    *SHORT[:6], Column("repeated_days", "repeats", "{:.1%}"), *SHORT[6:8], Column("no_ask", "no ask", "{:.1%}"),
    Column("parity", "parity, median", "{:.3%}"), Column("parity_95", "95 %", "{:.2%}"),
    Column("underlying_off", "underlying", "{:.2%}"), *SHORT[9:], Column("no_delta", "no delta", "{:.1%}"),
    Column("greeks_computed", "computed", "{:.0%}"), Column("dropped", "left out", "{:.1%}"),
    Column("faulty_rows", "faulty", "{:.2%}"), Column("dte_mismatches", "dte wrong", "{:.2%}"),
    Column("expiry_moved", "Saturdays", "{:.1%}"),
)


def cells(quality: Quality) -> list[dict[str, str]]:
    """A row of text for each ticker and year, for the terminal."""
    years = _with_marked(quality)
    return [{column.label: column.value(years, row) for column in SHORT}
            | {"verdict": str(Verdict(years["verdict"][row]))} for row in range(len(years["year"]))]


def page(quality: Quality, title: str, *, synthetic: bool) -> str:
    """One HTML file that needs no other."""
    heading = html.escape(f"{figures.SYNTHETIC}: {title}" if synthetic else title)
    maps = "\n".join(f"<h2>{html.escape(ticker)}</h2>{_map(quality, ticker)}" for ticker in quality.days)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
            f"<style>{STYLE}</style></head><body>\n"
            f'<h1 style="color:{LOSS if synthetic else INK}">{heading}</h1><p>{html.escape(headline(quality))}</p>\n'
            f"{_legend(quality)}\n{maps}\n{_years(quality)}\n{_thresholds(quality.thresholds)}\n"
            f"{_marked_days(quality)}\n</body></html>\n")


# ---- the heat map ----------------------------------------------------------------------------------------------------


def _legend(quality: Quality) -> str:
    count = {state: sum(int(np.count_nonzero(days["state"] == state)) for days in quality.days.values())
             for state in State}
    entries = [(COLOURS[state], f"{NAMES[state]}: {count[state]:,}") for state in State]
    entries.append((OUTSIDE, "not in the store"))
    return '<p class="legend">' + "".join(f'<span><i style="background:{colour}"></i>{words}</span>'
                                          for colour, words in entries) + "</p>"


def _map(quality: Quality, ticker: str) -> str:
    """Years below one another, a cell for each session of the exchange, and the verdict of the year beside it."""
    days, mine = quality.days[ticker], quality.years["ticker"] == ticker
    years, verdicts, reasons = (quality.years[name][mine] for name in ("year", "verdict", "reasons"))
    parts = [_text(LEFT + (k + 0.5) * 21 * DAY, 10, month, 10, FAINT, "middle") for k, month in enumerate(MONTHS)]
    for row, (year, verdict, words) in enumerate(zip(years.tolist(), verdicts.tolist(), reasons)):
        y = 16 + ROW * row
        whole = sessions(f"{year}-01-01", f"{year}-12-31")
        parts.append(_text(LEFT - 8, y + 11, str(year), 11, FAINT, "end"))
        parts.append(_cell(0, len(whole), y, OUTSIDE, ""))
        for first, last, state, what in _runs(days, whole, quality.thresholds):
            parts.append(_cell(first, last + 1 - first, y, COLOURS[state], what))
        months = np.flatnonzero(np.diff(whole.astype("datetime64[M]").astype(int))) + 1
        parts.append(f'<path d="{"".join(f"M{LEFT + k * DAY:.1f},{y}v{ROW - 2}" for k in months.tolist())}" '
                     'stroke="#ffffff" stroke-width="0.6"/>')
        parts.append(_text(VERDICT_AT, y + 11, str(Verdict(verdict)), 11, VERDICTS[Verdict(verdict)], bold=True))
        short = words if len(words) <= LONGEST else words[:LONGEST - 1] + "…"
        parts.append(f"<g><title>{html.escape(words)}</title>{_text(REASONS_AT, y + 11, short, 11, INK)}</g>")
    height = 20 + ROW * len(years)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="Helvetica, Arial, sans-serif">' + "".join(parts) + "</svg>")


def _runs(days: Table, whole: np.ndarray, thresholds: Thresholds) -> Iterator[tuple[int, int, State, str]]:
    """First and last place in the year `whole` of each run of days that are shown alike, and what it is."""
    low, high = np.searchsorted(days["date"], whole[[0, -1]], side="left")
    if high < len(days["date"]) and days["date"][high] == whole[-1]:
        high += 1
    state = days["state"][low:high]
    at = np.searchsorted(whole, days["date"][low:high])
    # Complete and missing days are joined; each of the others has a reason of its own.
    alone = (state != State.COMPLETE) & (state != State.MISSING)
    begins = np.flatnonzero(np.concatenate([[True], (state[1:] != state[:-1]) | alone[1:]])) if len(state) else []
    for first, after in zip(begins, [*begins[1:], len(state)]):
        kind, span = State(state[first]), _span(days["date"][low + first], days["date"][low + after - 1])
        what = "" if kind is State.COMPLETE else f"{span}: {why(days, low + first, thresholds)}"
        yield int(at[first]), int(at[after - 1]), kind, what


def _span(first: np.datetime64, last: np.datetime64) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _cell(first: int, n: int, y: float, colour: str, what: str) -> str:
    title = f"><title>{html.escape(what)}</title></rect>" if what else "/>"
    return (f'<rect x="{LEFT + first * DAY:.1f}" y="{y}" width="{n * DAY:.1f}" height="{ROW - 2}" fill="{colour}"'
            f"{title}")


def _text(x: float, y: float, words: str, size: float, colour: str, anchor: str = "start", bold: bool = False) -> str:
    style = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (' font-weight="bold"' if bold else "")
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{colour}"{style}>{html.escape(words)}</text>'


# ---- the tables ------------------------------------------------------------------------------------------------------


def _with_marked(quality: Quality) -> Table:
    """The years with the number of their days that are marked, missing ones aside."""
    years = quality.years
    marked = np.zeros(len(years["year"]), int)
    for ticker, days in quality.days.items():
        odd = days["date"][(days["state"] != State.COMPLETE) & (days["state"] != State.MISSING)]
        of_year = odd.astype("datetime64[Y]").astype(int) + 1970
        for row in np.flatnonzero(years["ticker"] == ticker):
            marked[row] = np.count_nonzero(of_year == years["year"][row])
    return years | {"marked": marked}


def _marked_days(quality: Quality) -> str:
    """The days that are not complete, a run of missing ones on one line."""
    rows = []
    for ticker, days in quality.days.items():
        for year in np.unique(days["date"].astype("datetime64[Y]")):
            whole = sessions(f"{year}-01-01", f"{year}-12-31")
            rows += [(ticker, what.partition(": ")[0], last - first + 1, NAMES[state], what.partition(": ")[2])
                     for first, last, state, what in _runs(days, whole, quality.thresholds) if what]
    if not rows:
        return "<h2>Marked days</h2><p>None.</p>"
    body = "".join(_line([ticker, when, str(n)], name, why_so) for ticker, when, n, name, why_so in rows[:MOST_LISTED])
    more = f"<p>And {len(rows) - MOST_LISTED:,} more.</p>" if len(rows) > MOST_LISTED else ""
    return (f'<h2>Marked days</h2><div class="wide"><table><thead><tr><th></th><th>date</th><th>sessions</th>'
            f'<th class="words">what</th><th class="words">why</th></tr></thead>{body}</table></div>{more}')


def _years(quality: Quality) -> str:
    years = _with_marked(quality)
    head = "".join(f"<th>{html.escape(column.label)}</th>" for column in WHOLE) + '<th class="words">verdict</th>'
    body = "".join(_line([column.value(years, row) for column in WHOLE], str(Verdict(years["verdict"][row])))
                   for row in range(len(years["year"])))
    return f'<h2>Years</h2><div class="wide"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _line(values: Sequence[str], *words: str) -> str:
    first, *others = values
    return (f"<tr><th>{html.escape(first)}</th>" + "".join(f"<td>{html.escape(value)}</td>" for value in others)
            + "".join(f'<td class="words">{html.escape(text)}</td>' for text in words) + "</tr>")


def _thresholds(thresholds: Thresholds) -> str:
    """What a day is marked for and a year held to, in the words of the config."""
    of_days = {mark.column for mark in DAY_MARKS}
    said = [f"{field.name} {getattr(thresholds, field.name):g} ({field.metadata['bound'].unit})"
            if field.name in of_days else
            f"{field.name} {getattr(thresholds, field.name)[0]:g} / {getattr(thresholds, field.name)[1]:g} "
            f"({field.metadata['bound'].unit})" for field in fields(thresholds)]
    return ("<h2>Thresholds</h2><p>A day is marked, and a year no longer good / no longer usable, beyond: "
            + html.escape("; ".join(said)) + ".</p>")
