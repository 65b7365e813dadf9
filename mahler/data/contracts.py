"""From a vendor's options to rows of schema.CHAIN, for vendors with an IV and greeks for each option, or with none.

A day's rows are sorted out (`usable`), calls and puts of a strike joined where a row is one option (`join`), and what
the vendor lacks is computed and flagged (`chain`). Whatever is dropped, mended or computed is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mahler import implied
from mahler.data import files
from mahler.data.calendar import last_session_on_or_before
from mahler.data.files import DROPPED, Reading
from mahler.implied import GREEKS, SIDES
from mahler.schema import CHAIN, Bound, Flag, Table, empty

RATE = Bound("a continuously compounded rate a year", -0.1, 0.5)
MIN_PRICE, MAX_STRIKE = 0.01, 1e6       # dollars per share, of a strike and of an underlying
MAX_IV = 10.0
MAX_GREEK = 1e6
ROUNDING = 1e-2         # how far delta may lie outside [0, 1], gamma and vega below 0, and still be meant

OPTION = ("bid", "ask", "iv", *GREEKS, "volume", "open_interest")
"""What is known of one option; delta is its own, negative of a put."""


SLACK = 4               # calendar days by which a printed expiration is at most later than the session that it means


def within(rows: Table, max_dte: int | None) -> tuple[Table, Counter]:
    """The rows that may be within `max_dte`, and how many of each day, datetime64[D], are surely beyond.

    For files of many days: what is beyond need not be kept in memory until its day is looked at.
    """
    if max_dte is None:
        return rows, Counter()
    far = (rows["expiry"] - rows["date"]).astype(int) > max_dte + SLACK
    days, counts = np.unique(rows["date"][far], return_counts=True)
    return {name: column[~far] for name, column in rows.items()}, Counter(dict(zip(days, counts.tolist(), strict=True)))


def days_of(rows: Table, far: Counter) -> Iterator[tuple[np.datetime64, Table, dict[str, int]]]:
    """Each day, ascending, with its rows and the counts of those that `within` took away."""
    if not len(rows["date"]):
        return
    order = np.argsort(rows["date"], kind="stable")
    days, first = np.unique(rows["date"][order], return_index=True)
    for day, a, b in zip(days, first, np.append(first[1:], len(order)), strict=True):
        beyond = {"read": far[day], f"{DROPPED}beyond_max_dte": far[day]}
        yield day, {name: column[order[a:b]] for name, column in rows.items()}, beyond


def stacked(parts: list[Table]) -> Table:
    """One table of several with the same columns, which are emptied: at no time is there more than a column twice."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def usable(rows: Table, keys: Sequence[str], quotes: Sequence[str], max_dte: int | None, beyond: Mapping[str, int]
           ) -> tuple[Table, dict[str, int]]:
    """The rows that can be in the store, expiries on sessions, and what became of all: read, kept, dropped, moved.

    Parameters
    ----------
    rows : Table
        `date`, `expiry` (as printed), `strike`, `underlying` (NaN where unknown) and more; one ticker.
    keys : sequence of str
        Columns of which no two rows may have the same values: identical rows count once, contradictory ones not.
    quotes : sequence of str
        Columns of prices.
    beyond : mapping
        Counts of the rows of the day that were left out before.
    """
    printed, rows = rows["expiry"], rows | {"expiry": last_session_on_or_before(rows["expiry"])}
    moved = rows["expiry"] != printed
    strike, dte = rows["strike"], (rows["expiry"] - rows["date"]).astype(int)
    price = np.array([rows[name] for name in quotes])
    # What is absurd bounds nothing.
    bound = files.MAX_QUOTE * np.fmax(_priced(rows["underlying"]), np.minimum(strike, MAX_STRIKE))
    left, dropped = files.first_reasons({
        "expired": dte < 0,
        "beyond_max_dte": np.zeros(len(dte), bool) if max_dte is None else dte > max_dte,
        "bad_strike": ~((strike >= MIN_PRICE) & (strike < MAX_STRIKE)),
        "bad_price": ((price < 0) | (price > bound)).any(axis=0),
    })
    rows, repeated = files.unique({name: column[left] for name, column in rows.items()}, keys)
    counts = {"read": len(dte)} | {f"{DROPPED}{reason}": n for reason, n in (dropped | repeated).items()}
    counts |= {name: counts[name] + n for name, n in beyond.items()}
    return rows, counts | {"kept": len(rows["strike"]), files.EXPIRY_MOVED: int(np.count_nonzero(moved & left))}


def join(options: Table) -> Table:
    """One row per date, expiry and strike from one row per option: `bid` of a call becomes `call_bid`, and so on.

    `options` has date, expiry, strike, underlying, is_call and the columns of OPTION; an option that is not there is
    NaN in every column. No two rows are of the same option.
    """
    order = np.lexsort([options[name] for name in ("strike", "expiry", "date")])
    sorted_ = {name: column[order] for name, column in options.items()}
    new = np.ones(len(order), bool)
    new[1:] = np.any([sorted_[name][1:] != sorted_[name][:-1] for name in ("date", "expiry", "strike")], axis=0)
    row = np.cumsum(new) - 1
    out = {name: sorted_[name][new] for name in ("date", "expiry", "strike", "underlying")}
    for side, mine in (("call", sorted_["is_call"]), ("put", ~sorted_["is_call"])):
        for name in OPTION:
            column = np.full(int(new.sum()), np.nan)
            column[row[mine]] = sorted_[name][mine]
            out[f"{side}_{name}"] = column
    return out


def chain(rows: Table, rate: float) -> tuple[Table, dict[str, int]]:
    """schema.CHAIN of one ticker and day from rows of a strike each, and counts of what was mended and computed.

    `rows` has date, expiry (a session), strike, underlying and each side's columns of OPTION, float64 with NaN where
    the vendor has nothing; `rate` is continuously compounded, a year. Of the two sides' greeks those of the side that
    is out of the money are kept: its quotes are the liquid ones. The underlying is NaN where it is neither given nor
    implied.
    """
    n, counts = len(rows["strike"]), {}
    table = empty(CHAIN, n) | {name: rows[name] for name in ("date", "expiry", "strike")}
    table["underlying"] = _priced(rows["underlying"])
    for side in SIDES:
        table |= {f"{side}_{name}": rows[f"{side}_{name}"] for name in ("bid", "ask")}
        table[f"{side}_iv"], counts[f"{side}_iv_out_of_range"] = files.sound_iv(rows[f"{side}_iv"], MAX_IV)
        there = ~(np.isnan(rows[f"{side}_bid"]) & np.isnan(rows[f"{side}_ask"]))     # an option that is not lists none
        for name in ("volume", "open_interest"):
            table[f"{side}_{name}"], _ = files.whole(rows[f"{side}_{name}"])
            counts[f"{side}_{name}_missing"] = int(np.count_nonzero((table[f"{side}_{name}"] < 0) & there))
    table["smooth_iv"] = np.full(n, np.nan)
    greeks, mended = _greeks(rows, table)
    counts |= mended | {"underlying_implied": int(np.count_nonzero(np.isnan(table["underlying"])))}
    table = implied.fill(table | greeks, rate)
    return {name: np.asarray(table[name]).astype(CHAIN[name]) for name in CHAIN.names}, counts | implied.counts(table)


def _priced(underlying: np.ndarray) -> np.ndarray:
    """Underlyings (n,), NaN where one is out of reason."""
    return np.where((underlying >= MIN_PRICE) & (underlying < MAX_STRIKE), underlying, np.nan)


def readings(ticker: str, days: Iterable[tuple[Table | None, dict[str, int]]]) -> list[Reading]:
    """A Reading of every day that has rows and an underlying; what was dropped on others is counted with the first.

    `days` are schema.CHAIN tables, None where nothing of a day can be kept, with their counts.
    """
    found, lost = [], Counter()
    for table, counts in days:
        if table is None or np.isnan(table["underlying"]).any():
            lost.update({"read": counts["read"], f"{DROPPED}no_underlying": counts["kept"]}
                        | {name: n for name, n in counts.items() if name.startswith(DROPPED)})
        else:
            found.append(Reading(ticker, table, counts))
    if found:
        found[0].counts.update(Counter(found[0].counts) + lost)
    return [Reading(reading.ticker, reading.table,
                    {name: n for name, n in reading.counts.items() if n or name in ("read", "kept")})
            for reading in found]


def _greeks(rows: Table, table: Table) -> tuple[Table, dict[str, int]]:
    """The vendor's greeks of the out-of-the-money side, delta the call's; NaN where it has no IV or they are absurd."""
    is_call = rows["strike"] >= rows["underlying"]
    known = np.isfinite(np.where(is_call, table["call_iv"], table["put_iv"]))
    value = {name: np.where(is_call, rows[f"call_{name}"], rows[f"put_{name}"]) for name in GREEKS}
    value["delta"] = np.where(is_call, value["delta"], 1.0 + value["delta"])
    bounds = {"delta": (0.0, 1.0), "gamma": (0.0, np.inf), "theta": (-np.inf, np.inf), "vega": (0.0, np.inf)}
    absurd, clamped, out = np.zeros(len(known), bool), np.zeros(len(known), bool), {}
    for name, (low, high) in bounds.items():
        absurd |= (value[name] < low - ROUNDING) | (value[name] > high + ROUNDING) | (np.abs(value[name]) > MAX_GREEK)
        out[name] = np.clip(value[name], low, high)
        clamped |= (out[name] != value[name]) & ~np.isnan(value[name])
    sound = known & ~absurd
    out = {name: np.where(sound, column, np.nan) for name, column in out.items()}
    flags = np.where(sound & clamped, Flag.GREEKS_CLAMPED, 0).astype(np.uint8)
    return out | {"flags": flags}, {"greeks_out_of_range": int(np.count_nonzero(known & absurd)),
                                    "greeks_clamped": int(np.count_nonzero(flags))}
