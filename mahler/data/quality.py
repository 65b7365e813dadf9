"""Which years of a store are good, usable or not to be used, and which of their days are marked, and why.

What a day shows is measured in mahler.data.checks; here it is held against thresholds, which are config
(conf/quality/). A new threshold is a field of Thresholds and a line of DAY_MARKS or YEAR_MARKS.

A session is missing between the first and the last day of a ticker. Those of the first year before it and of the last
year after it are no fault of the data: they are absent, which is said, and most of a year must be there for it to be
good; how many are absent alone makes no year unfit for use.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mahler import cache
from mahler.data import checks, store
from mahler.data.calendar import sessions
from mahler.data.files import DROPPED, DTE_MISMATCH, EXPIRY_MOVED, Ingested, Progress
from mahler.data.store import PartitionInfo
from mahler.schema import ConfigError, Flag, Table, number

NEIGHBOURS = 21         # sessions around a day whose median says how many rows are usual
LEAST_SHARED = 20       # contracts quoted on two sessions, of which a repeated chain is told from a quiet market
HARMLESS = ("expired", "beyond_max_dte", "duplicate")   # rows left out at ingest that are no fault of the data


class State(IntEnum):
    """What a session is shown as: the worst that applies, in this order."""

    COMPLETE = 0
    FEW_ROWS = 1
    GREEKS = 2      # delta rises with the strike, or IVs are missing between others
    QUOTES = 3      # crossed, off parity, or off the underlying
    REPEATED = 4    # the chain of the session before
    MISSING = 5     # a session of the exchange that is not in the store


class Verdict(IntEnum):
    """What a year of a ticker is fit for."""

    GOOD = 0
    USABLE = 1
    DO_NOT_USE = 2

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Thresholds:
    """When a day is marked, and what a year may have to be good (the first number) or usable (the second).

    A day is marked, or a year is worse, where it has more. conf/quality/.
    """

    rows_short: float = number("a share of the median rows of the sessions around", 0, 1)
    crossed: float = number("a share of a day's quotes", 0, 1)
    no_forward: float = number("a share of a day's expiries: those without bids and asks that imply a forward", 0, 1)
    parity_95: float = number("the 95 % residual of put-call parity near the money, in parts of the forward", 0)
    underlying_off: float = number("the underlying against the nearest forward, in parts of it", 0)
    delta_rising: float = number("a share of a day's steps from strike to strike", 0, 1)
    iv_gaps: float = number("a share of a day's strikes between the first and the last IV of an expiry", 0, 1)
    repeated: float = number("a share of the contracts quoted on both sessions", 0, 1)

    absent_days: tuple[float, float] = number("a share of a year's sessions, before the first or after the last", 0, 1)
    missing_days: tuple[float, float] = number("a share of a year's sessions between the first and the last", 0, 1)
    repeated_days: tuple[float, float] = number("a share of a year's days", 0, 1)
    quote_days: tuple[float, float] = number("a share of a year's days", 0, 1)
    greek_days: tuple[float, float] = number("a share of a year's days", 0, 1)
    few_row_days: tuple[float, float] = number("a share of a year's days", 0, 1)
    zero_bids: tuple[float, float] = number("a share of a year's quotes", 0, 1)
    no_delta: tuple[float, float] = number("a share of a year's rows", 0, 1)
    faulty_rows: tuple[float, float] = number("a share of a year's rows", 0, 1)
    dte_mismatches: tuple[float, float] = number("a share of a year's rows", 0, 1)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ConfigError(f"quality.{field.name} is a list of 2, good up to the first and usable up to the "
                                  f"second, which is not less, got {list(value)}")


class Mark(NamedTuple):
    """A column that is held against the threshold of its name, and how it is written where it is beyond."""

    column: str
    state: State | None     # of the days that it marks; None marks years
    words: str              # a format of the columns by name


DAY_MARKS = (
    Mark("rows_short", State.FEW_ROWS, "{rows_short:.0%} fewer rows than usual"),
    Mark("delta_rising", State.GREEKS, "delta rises with the strike at {delta_rising:.1%} of the steps"),
    Mark("iv_gaps", State.GREEKS, "no IV at {iv_gaps:.0%} of the strikes that should have one"),
    Mark("crossed", State.QUOTES, "{crossed:.1%} of the quotes crossed"),
    Mark("no_forward", State.QUOTES, "{no_forward:.0%} of the expiries have no quotes that imply a forward"),
    Mark("parity_95", State.QUOTES, "off put-call parity by {parity_95:.1%} of the forward"),
    Mark("underlying_off", State.QUOTES, "underlying off its forward by {underlying_off:.1%}"),
    Mark("repeated", State.REPEATED, "{repeated:.0%} of the quotes are those of the session before"),
)
YEAR_MARKS = (
    Mark("absent_days", None, "only {sessions} of {of_year} days"),
    Mark("missing_days", None, "{missing} of {expected} days missing"),
    Mark("repeated_days", None, "{repeated_days:.1%} of the days repeat the day before"),
    Mark("quote_days", None, "quotes in doubt on {quote_days:.1%} of the days"),
    Mark("greek_days", None, "greeks in doubt on {greek_days:.1%} of the days"),
    Mark("few_row_days", None, "few rows on {few_row_days:.1%} of the days"),
    Mark("zero_bids", None, "{zero_bids:.0%} of the bids are zero"),
    Mark("no_delta", None, "{no_delta:.0%} of the rows without delta"),
    Mark("faulty_rows", None, "{faulty_rows:.1%} of the rows left out as faulty"),
    Mark("dte_mismatches", None, "days to expiration wrong in {dte_mismatches:.1%} of the rows"),
)


@dataclass(frozen=True)
class Quality:
    """The report: `years` has a row per ticker and year, NaN where a check had nothing to look at."""

    source: str
    fingerprint: str                        # of the partitions
    thresholds: Thresholds
    years: Table                            # with its verdict (int8) and the reasons (str)
    days: dict[str, Table]                  # by ticker, for every session of the exchange from its first to its last
    dropped: dict[str, dict[str, int]]      # by ticker: rows left out at ingest, by reason
    flagged: dict[str, dict[str, int]]      # by ticker: rows by flag


def partitions(root: Path, tickers: Sequence[str]) -> dict[str, list[PartitionInfo]]:
    """The partitions of `tickers` in the store of one source.

    Raises ConfigError where a ticker is not in the store or a partition is damaged.
    """
    parts: dict[str, list[PartitionInfo]] = {}
    for ticker in sorted(set(tickers)):
        parts[ticker] = [store.partition_info(path) for path in store.partitions(root, ticker).values()]
        if not parts[ticker]:
            there = ", ".join(store.tickers_in(root)) or "nothing"
            raise ConfigError(f"{ticker} is not in the store {root} (there: {there})")
    return parts


def report(parts: Mapping[str, Sequence[PartitionInfo]], thresholds: Thresholds, folder: Path | None,
           progress: Progress) -> Quality:
    """Judge the partitions of one store, by ticker, years ascending: those of Chains, or of `partitions`.

    What was measured is found in, or put into, the cache `folder`; None measures it anew. Raises ConfigError where a
    partition is damaged, or has rows of a day without a session.
    """
    infos = [info for of_ticker in parts.values() for info in of_ticker]
    days, years = {}, []
    for ticker, measured in checks.measured(parts, folder, progress).items():
        days[ticker] = _days(ticker, measured, thresholds)
        years.append(_years(ticker, parts[ticker], measured, days[ticker], thresholds))
    return Quality(
        source=", ".join(sorted({info.source for info in infos})),
        fingerprint=cache.fingerprint([(info.ticker, info.year, info.digest) for info in infos]),
        thresholds=thresholds, days=days,
        years={name: np.concatenate([table[name] for table in years]) for name in years[0]},
        dropped={ticker: _dropped(of_ticker) for ticker, of_ticker in parts.items()},
        flagged={ticker: {flag.name.lower(): sum(info.quality[flag.name.lower()] for info in of_ticker)
                          for flag in Flag} for ticker, of_ticker in parts.items()})


# ---------------------------------------------------------------------------------------------- days


def _days(ticker: str, measured: np.ndarray, thresholds: Thresholds) -> Table:
    """Every session of the exchange from the first to the last day: date, state, and what DAY_MARKS look at, or NaN."""
    date = sessions(measured["date"][0], measured["date"][-1])
    odd = np.setdiff1d(measured["date"], date)
    if len(odd):
        raise ConfigError(f"the store has {ticker} on {odd[0]}, which is not a session of XNYS: ingest that year again")
    at = np.searchsorted(date, measured["date"])
    out = {"date": date, "state": np.full(len(date), State.MISSING, np.int8)}
    for name, share in _shares(measured).items():
        out[name] = np.full(len(date), np.nan)
        out[name][at] = share
    out["state"][at] = State.COMPLETE
    for mark in DAY_MARKS:                                  # from the least to the worst
        out["state"][out[mark.column] > getattr(thresholds, mark.column)] = mark.state
    return out


def _shares(measured: np.ndarray) -> Table:
    """By day (n_days,), the columns of DAY_MARKS."""
    rows = measured["rows"].astype(float)
    enough = measured["shared"] >= LEAST_SHARED
    return {"rows_short": 1 - rows / _usual(rows), "crossed": _ratio(measured["crossed"], measured["quotes"]),
            "delta_rising": _ratio(measured["delta_rising"], measured["delta_steps"]),
            "no_forward": _ratio(measured["no_forward"], measured["expiries"]),
            # A day without any IV has no strikes between the first and the last: it is all gap.
            "iv_gaps": np.where((measured["iv_strikes"] == 0) & (measured["no_forward"] < measured["expiries"]), 1.0,
                                _ratio(measured["iv_gaps"], measured["iv_strikes"])),
            "parity_95": measured["parity_95"], "underlying_off": measured["underlying_off"],
            "repeated": _ratio(measured["repeated"], np.where(enough, measured["shared"], 0))}


def _usual(rows: np.ndarray) -> np.ndarray:
    """The median of the NEIGHBOURS sessions around each day, (n_days,); at the ends, of the first and the last."""
    width = min(NEIGHBOURS, len(rows))
    medians = np.median(sliding_window_view(rows, width), axis=1)
    return medians[np.clip(np.arange(len(rows)) - width // 2, 0, len(medians) - 1)]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def why(days: Table, at: int, thresholds: Thresholds) -> str:
    """Why the day `at` is marked, the worst first; empty where it is not."""
    if days["state"][at] == State.MISSING:
        return "not in the store"
    return _words(DAY_MARKS[::-1], days, at, {mark.column: getattr(thresholds, mark.column) for mark in DAY_MARKS})


def _words(marks: Sequence[Mark], table: Table, at: int, limits: Mapping[str, float]) -> str:
    """What of row `at` is beyond its limit."""
    row = {name: column[at] for name, column in table.items()}
    return "; ".join(mark.words.format(**row) for mark in marks if row[mark.column] > limits[mark.column])


# ---------------------------------------------------------------------------------------------- years


def _years(ticker: str, infos: Sequence[PartitionInfo], measured: np.ndarray, days: Table,
           thresholds: Thresholds) -> Table:
    """A row for every year from the first to the last; one without a partition has no row, and NaN in most columns."""
    year, of_session = _year(measured["date"]), _year(days["date"])
    numbers = np.arange(year[0], year[-1] + 1)
    total = {name: np.bincount(year - year[0], measured[name], len(numbers)) for name in checks.COUNTS}
    in_state = {state: np.bincount(of_session[days["state"] == state] - year[0], minlength=len(numbers))
                for state in State}
    expected = sum(in_state.values())
    present = expected - in_state[State.MISSING]
    of_year = np.array([len(sessions(f"{number}-01-01", f"{number}-12-31")) for number in numbers])
    rows = total["rows"]
    out = {
        "ticker": np.full(len(numbers), ticker, dtype=object), "year": numbers, "rows": rows.astype(np.int64),
        "sessions": present, "of_year": of_year, "expected": expected, "missing": in_state[State.MISSING],
        "absent_days": 1 - expected / of_year, "missing_days": _ratio(in_state[State.MISSING], expected),
        "repeated_days": _ratio(in_state[State.REPEATED], present),
        "quote_days": _ratio(in_state[State.QUOTES], present), "greek_days": _ratio(in_state[State.GREEKS], present),
        "few_row_days": _ratio(in_state[State.FEW_ROWS], present),
        **{name: _ratio(total[name], total["quotes"]) for name in ("crossed", "no_ask", "zero_bids")},
        **{name: _ratio(total[name], rows) for name in ("no_delta", "greeks_computed")},
        **{name: checks.quantiles(measured[name], year - year[0], len(numbers), [0.5])[0]     # of its days
           for name in ("parity", "parity_95", "underlying_off")},
        "delta_rising": _ratio(total["delta_rising"], total["delta_steps"]),
        "iv_gaps": _ratio(total["iv_gaps"], total["iv_strikes"]), **_noted(infos, numbers),
    }
    limits = [{mark.column: getattr(thresholds, mark.column)[k] for mark in YEAR_MARKS} for k in (0, 1)]
    over = [sum((out[name] > limit).astype(int) for name, limit in limits[k].items()) for k in (0, 1)]
    verdict = np.where(over[1] > 0, Verdict.DO_NOT_USE, np.where(over[0] > 0, Verdict.USABLE, Verdict.GOOD))
    reasons = [_words(YEAR_MARKS, out, i, limits[0]) for i in range(len(numbers))]
    return out | {"verdict": verdict.astype(np.int8), "reasons": np.array(reasons, dtype=object)}


def _year(dates: np.ndarray) -> np.ndarray:
    return dates.astype("datetime64[Y]").astype(int) + 1970


def _noted(infos: Sequence[PartitionInfo], years: np.ndarray) -> Table:
    """By year (n_years,), what the source said when it was ingested, in shares of rows; NaN where it said nothing."""
    out = {name: np.full(len(years), np.nan) for name in ("dropped", "faulty_rows", "dte_mismatches", "expiry_moved")}
    for info in infos:
        at, said = info.year - years[0], _total([info])
        read = said["read"]
        moved = info.quality["expiry_normalised"] + said[EXPIRY_MOVED]
        out["expiry_moved"][at] = moved / (said["kept"] or info.rows)   # a source may count options, two a row
        if read:
            reasons = {name.removeprefix(DROPPED): n for name, n in said.items() if name.startswith(DROPPED)}
            faulty = sum(n for reason, n in reasons.items() if reason not in HARMLESS)
            wanted = read - reasons.get("beyond_max_dte", 0)
            out["dropped"][at] = sum(reasons.values()) / read
            out["faulty_rows"][at] = faulty / wanted if wanted else np.nan
            out["dte_mismatches"][at] = said[DTE_MISMATCH] / read if DTE_MISMATCH in said else np.nan
    return out


def _total(infos: Sequence[PartitionInfo]) -> Counter:
    total: Counter = Counter()
    for info in infos:
        for of_day in info.counts.values():
            total.update(of_day)
    return total


def _dropped(infos: Sequence[PartitionInfo]) -> dict[str, int]:
    return {name.removeprefix(DROPPED): n for name, n in _total(infos).items() if name.startswith(DROPPED)}


# ---------------------------------------------------------------------------------------------- words


def headline(quality: Quality) -> str:
    """One line: what there is, and how many years of it are good, usable, or not to be used and why."""
    years = quality.years
    first, last = years["year"].min(), years["year"].max()
    tickers = ", ".join(dict.fromkeys(years["ticker"]))
    counts = [f"{n} {verdict}" for verdict in Verdict if (n := int(np.count_nonzero(years["verdict"] == verdict)))]
    words = [f"{name} ({why_not})" for name, why_not in judged(quality, Verdict.DO_NOT_USE, first, last).items()]
    period = first if first == last else f"{first}-{last}"
    return (f"{quality.source}, {tickers}, {period}, {years['rows'].sum():,} rows. "
            f"Years of a ticker: {', '.join(counts)}" + (f": {'; '.join(words)}" if words else ""))


def judged(quality: Quality, verdict: Verdict, first: int, last: int) -> dict[str, str]:
    """The years from `first` to `last` of that verdict, as "SPY 2008", and why they are no better."""
    years = quality.years
    which = (years["verdict"] == verdict) & (years["year"] >= first) & (years["year"] <= last)
    return {f"{years['ticker'][i]} {years['year'][i]}": years["reasons"][i] for i in np.flatnonzero(which)}


def worst(quality: Quality, first: int, last: int) -> str:
    """The worst verdict of the years from `first` to `last`, and its years unless it is good: "usable: SPY 2008"."""
    for verdict in (Verdict.DO_NOT_USE, Verdict.USABLE):
        if names := judged(quality, verdict, first, last):
            return f"{verdict}: {', '.join(names)}"
    return str(Verdict.GOOD)


def to_json(quality: Quality) -> str:
    """The report for a program: thresholds, a record per ticker and year, and the days that are marked."""
    years = [{name: _plain(column[i]) for name, column in quality.years.items()}
             | {"verdict": str(Verdict(quality.years["verdict"][i]))} for i in range(len(quality.years["year"]))]
    marked = [{"ticker": ticker, "date": str(days["date"][i]), "state": State(days["state"][i]).name.lower(),
               "why": why(days, i, quality.thresholds)}
              for ticker, days in quality.days.items() for i in np.flatnonzero(days["state"] != State.COMPLETE)]
    return json.dumps({"source": quality.source, "fingerprint": quality.fingerprint,
                       "thresholds": asdict(quality.thresholds), "years": years, "marked_days": marked,
                       "dropped": quality.dropped, "flagged": quality.flagged}, indent=1)


def _plain(value: object) -> object:
    """As JSON has it: a missing number is null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value


def summary(done: Ingested) -> list[str]:
    """Lines: per ticker the rows read and kept, why others were left out, what was noted; files without a row."""
    lines = [f"{done.files} files read, {done.files_outside} outside the period"] if done.files else []
    for ticker, counts in done.counts.items():
        out = _listed({name.removeprefix(DROPPED): n for name, n in counts.items() if name.startswith(DROPPED)})
        noted = _listed({name: n for name, n in counts.items()
                         if name not in ("read", "kept") and not name.startswith(DROPPED)})
        if counts:
            lines.append(f"{ticker}: {counts['kept']:,} of {counts['read']:,} rows kept"
                         + (f"; left out: {out}" if out else "") + (f"; noted: {noted}" if noted else ""))
        if ticker in done.files_without:
            without = done.files_without[ticker]
            lines.append(f"{ticker}: {without} of {done.files} files have no row of it" if without else
                         f"{ticker}: no file of it")
    return lines


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in sorted(counts.items()))
