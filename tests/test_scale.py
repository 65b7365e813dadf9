"""Candidates at scale: fifty a day and side, several widths, both sides, three tickers. The table and its memory.

The bound is tickers x sides x sessions x per_day, whatever the strikes and widths; memory is linear in the candidates
and in the entries of their paths.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest

from mahler import bsm, schema
from mahler.fills.travel import travel
from mahler.paths import ENTRIES, Paths, trace
from mahler.schema import CANDIDATE, Side, Table
from mahler.screen import Entry, screen
from tests.handmade import ANYTHING, sessions
from tests.markets import MemoryChains

TICKERS = ("IWM", "QQQ", "SPY")
PER_DAY, WIDTHS = 50, [1.0, 2.0, 5.0, 10.0]
MANY = replace(ANYTHING, per_day=PER_DAY, widths=WIDTHS, min_delta=0.0, max_delta=0.6, min_dte=1, max_dte=60)
FILL = partial(travel, travel=0.66)

CANDIDATE_BYTES = sum(CANDIDATE[name].itemsize for name in CANDIDATE.names)
PATH_BYTES = 40                  # of each candidate, at most: its start, its settlement, what an assignment costs, ...
ENTRY_BYTES = 8 + 8              # of each entry of a path: the mid and the fill


def chain(days: np.ndarray) -> Table:
    """One ticker at 100 dollars: 81 strikes a dollar apart, five weekly expiries, fairly priced, two cents wide."""
    fridays = np.arange(days[0], days[-1] + 35)
    fridays = fridays[(fridays.astype(np.int64) + 3) % 7 == 4]
    day, expiry, strike = (a.ravel() for a in np.meshgrid(days, fridays, np.arange(60.0, 141.0), indexing="ij"))
    dte = (expiry - day).astype(np.int64)
    listed = (dte > 0) & (dte <= 35)
    day, expiry, strike, years = day[listed], expiry[listed], strike[listed], dte[listed] / 365.0
    table = schema.empty(schema.CHAIN, len(day)) | {
        "date": day, "expiry": expiry, "strike": strike, "underlying": np.full(len(day), 100.0),
        "delta": bsm.greeks(100.0, strike, years, 0.0, 0.0, 0.4, True).delta.astype(np.float32)}
    for leg, is_call in (("call", True), ("put", False)):
        mid = bsm.price(100.0, strike, years, 0.0, 0.0, 0.4, is_call)
        table |= {f"{leg}_bid": np.maximum(mid - 0.01, 0.0), f"{leg}_ask": mid + 0.01}
    return table


@cache
def market(n_days: int) -> tuple[MemoryChains, SimpleNamespace]:
    """Three such tickers over `n_days` sessions, and the panel that they need."""
    days = sessions("2019-01-02", n_days)
    shape, none = (n_days, len(TICKERS)), (days[:0], np.zeros(0))
    return MemoryChains(days, dict.fromkeys(TICKERS, chain(days))), SimpleNamespace(
        close=np.full(shape, 100.0), iv_percentile=np.full(shape, 0.5), rate=np.zeros(n_days),
        dividends=dict.fromkeys(TICKERS, none), splits={})


def found(n_days: int, entry: Entry) -> tuple[Table, Table, Paths]:
    """Candidates, funnel and paths."""
    chains, panel = market(n_days)
    candidates, funnel = screen(chains, panel, entry, FILL)
    return candidates, funnel, trace(candidates, chains, panel, FILL)


def nbytes(table: Table) -> int:
    return sum(column.nbytes for column in table.values())


@pytest.mark.parametrize(("widths", "per_day"), [([5.0], 5), (WIDTHS, 5), ([5.0], 50), (WIDTHS, 50)])
def test_the_table_is_bounded_by_tickers_sides_days_and_per_day_whatever_the_widths(widths, per_day) -> None:
    candidates, funnel, _ = found(30, replace(MANY, widths=widths, per_day=per_day))
    group = np.stack([candidates[name] for name in ("ticker", "side", "day")])
    _, n = np.unique(group, axis=1, return_counts=True)
    assert n.max() == per_day and len(n) == len(TICKERS) * 2 * 30            # every ticker, side and day
    assert len(candidates["day"]) <= len(TICKERS) * 2 * 30 * per_day
    assert funnel["paid_enough"].sum() > 2 * len(candidates["day"])          # many more would have been sold
    assert funnel["ranked"].sum() == len(candidates["day"])
    if len(widths) > 1 and per_day == PER_DAY:
        assert set(candidates["width"]) == set(widths) and set(candidates["side"]) == {Side.PUT, Side.CALL}


def test_fifty_a_day_begin_with_the_same_five_that_five_a_day_are() -> None:
    few, many = (found(10, replace(MANY, per_day=k))[0] for k in (5, 50))
    names = ("day", "ticker", "side", "expiry", "short_strike", "long_strike", "credit")
    rows = [list(zip(*(table[name].tolist() for name in names), strict=True)) for table in (few, many)]
    for group in {row[:3] for row in rows[0]}:
        mine = [[row for row in side if row[:3] == group] for side in rows]
        assert mine[0] == mine[1][:5]


def test_a_candidate_and_each_session_of_its_path_take_the_bytes_of_their_columns_and_no_more() -> None:
    assert CANDIDATE_BYTES < 150
    for n_days in (10, 40):
        candidates, _, paths = found(n_days, MANY)
        n, m = len(candidates["day"]), len(paths.mid)
        assert n == len(TICKERS) * 2 * n_days * PER_DAY
        assert np.diff(paths.start).max() <= min(n_days, 26)                 # to its expiry, 35 calendar days at most
        assert nbytes(candidates) == CANDIDATE_BYTES * n
        assert 0 < nbytes(vars(paths)) - ENTRY_BYTES * m <= PATH_BYTES * n


def test_the_memory_of_screening_and_tracing_is_linear_in_what_is_screened_and_traced() -> None:
    screened = {}
    for n_days in (20, 40, 80):
        chains, panel = market(n_days)
        tracemalloc.start()
        candidates, funnel = screen(chains, panel, MANY, FILL)
        # All widths and sides of one ticker are in memory before they are ranked.
        screened[n_days] = tracemalloc.get_traced_memory()[1] / (funnel["paid_enough"].sum() / len(TICKERS))
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        paths = trace(candidates, chains, panel, FILL)
        traced = tracemalloc.get_traced_memory()[1] - held
        tracemalloc.stop()
        # Bytes: what is kept, and what one piece needs while it is traced.
        assert traced < 24 * (len(candidates["day"]) + paths.start[-1]) + 120 * ENTRIES
    assert screened[80] < 1.1 * screened[20] and max(screened.values()) < 300
    assert paths.start[-1] > 5 * ENTRIES                    # several pieces, the last time
