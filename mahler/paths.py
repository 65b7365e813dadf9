"""Candidates and chains -> what it costs to close each candidate, day by day until its expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mahler.core.spreads import follow_quotes
from mahler.data.calendar import last_session_on_or_before
from mahler.data import splits
from mahler.data.store import Chain, Chains
from mahler.fills import Fill, usable
from mahler.panel import Panel
from mahler.schema import ConfigError, Side, Table

ENTRIES = 1 << 16       # of paths that are traced at a time: some 7 MB of intermediate arrays, near the processor


@dataclass(frozen=True)
class Paths:
    """The price of closing candidate i on the sessions `day[i], day[i] + 1, ...`, as one CSR array each.

    `start` (n + 1,) are offsets; `mid` and `close` (start[-1],) are dollars per share at the mid and at
    the fill, NaN where a leg has no usable quote. A path ends on the last session on or before the
    expiration, or on the last session of the run, or on the eve of a split of the underlying: on the day after,
    other strikes are listed, and a contract of the same strike is another contract. It has a price on that eve,
    where need be that of its last usable quotes, because it is closed there whatever the quotes.
    """

    start: np.ndarray            # (n + 1,) int64
    mid: np.ndarray              # (m,) float64
    close: np.ndarray            # (m,) float64
    settlement: np.ndarray       # (n,) intrinsic at the official close, dollars per share; NaN: does not expire in it
    assigned_day: np.ndarray     # (n,) int32, first session on which the short call is assigned; -1 never
    assigned_cost: np.ndarray    # (n,) dollars per share, the dividend owed included; NaN: never
    assignment_known: np.ndarray   # (n_tickers,) bool: whether dividends are known, so that assignment is modelled
    split_eve: np.ndarray        # (n,) int32, the session before a split, on which the path ends; -1: none


def intrinsic(side: np.ndarray, short_strike: np.ndarray, width: np.ndarray, spot: np.ndarray) -> np.ndarray:
    """Value at expiry of what was sold, dollars per share in [0, width]; one price settles both legs."""
    in_the_money = np.where(side == Side.CALL, spot - short_strike, short_strike - spot)
    return np.clip(in_the_money, 0.0, width)


def trace(candidates: Table, chains: Chains, panel: Panel, fill: Fill) -> Paths:
    """Follow both legs of every candidate through their quotes until expiry.

    Raises ConfigError where a ticker has no close on a session on which a candidate expires.
    """
    return trace_at(candidates, chains, panel, (fill,))[0]


def trace_at(candidates: Table, chains: Chains, panel: Panel, fills: Sequence[Fill]) -> tuple[Paths, ...]:
    """`trace` at several fills at once: the paths share all of their arrays but `close`.

    Raises ConfigError where a ticker has no close on a session on which a candidate expires.
    """
    day, ticker = candidates["day"], candidates["ticker"]
    sessions, n, n_days = chains.sessions, len(day), len(chains.sessions)
    expiry_day = np.searchsorted(sessions, candidates["expiry"], side="right") - 1
    split_eve = _split_eves(candidates, chains, panel)
    expires = (candidates["expiry"] <= sessions[-1]) & (split_eve < 0)
    length = np.where(split_eve >= 0, split_eve, np.where(expires, expiry_day, n_days - 1)) - day + 1
    start = np.zeros(n + 1, np.int64)
    np.cumsum(length, out=start[1:])

    settlement = np.full(n, np.nan)
    at = (expiry_day[expires], ticker[expires])
    settlement[expires] = intrinsic(candidates["side"][expires], candidates["short_strike"][expires],
                                    candidates["width"][expires], panel.close[at])
    unknown = np.flatnonzero(np.isnan(settlement[expires]))
    if len(unknown):
        d, t = at[0][unknown[0]], at[1][unknown[0]]
        raise ConfigError(f"{chains.tickers[t]} has no close on {sessions[d]}, when spreads expire and settle on it: "
                          f"bring the daily series {chains.tickers[t]}_close, or ingest that day again")
    first = Paths(start, np.full(start[-1], np.nan), np.full(start[-1], np.nan), settlement,
                  np.full(n, -1, np.int32), np.full(n, np.nan),
                  np.array([len(panel.dividends[name][0]) > 0 for name in chains.tickers]), split_eve)
    paths = (first, *(replace(first, close=np.full(start[-1], np.nan)) for _ in fills[1:]))
    for some in _pieces(start):
        _price(some, candidates, chains, fills, paths)
    for t, name in enumerate(chains.tickers):
        if len(panel.dividends[name][0]):
            calls = np.flatnonzero((ticker == t) & (candidates["side"] == Side.CALL))
            _assign_early({c: candidates[c][calls] for c in candidates}, calls, t, chains[name], panel, first)
    _carry_to_split(paths)
    return paths


def _pieces(start: np.ndarray) -> list[slice]:
    """The candidates in pieces of about ENTRIES path entries, so that what tracing needs beside its result is bounded."""
    edges = np.unique(np.searchsorted(start, [*range(0, int(start[-1]), ENTRIES), start[-1]], side="left"))
    return [slice(first, last) for first, last in zip(edges[:-1].tolist(), edges[1:].tolist())]


def _split_eves(candidates: Table, chains: Chains, panel: Panel) -> np.ndarray:
    """The last session before the underlying of each candidate splits within its life, int32 (n,); -1: it does not."""
    eves = np.full(len(candidates["day"]), -1, np.int32)
    for t, name in enumerate(chains.tickers):
        if name in panel.splits:
            mine = np.flatnonzero(candidates["ticker"] == t)
            eves[mine] = splits.eve(chains.sessions, candidates["day"][mine], candidates["expiry"][mine],
                                    panel.splits[name])
    return eves


def _carry_to_split(paths: Sequence[Paths]) -> None:
    """Give each path that ends on the eve of a split a price there: that of its last usable quotes."""
    common = paths[0]
    for i in np.flatnonzero(common.split_eve >= 0):
        first, last = common.start[i], common.start[i + 1] - 1
        if np.isnan(common.mid[last]):
            usable_before = first + np.flatnonzero(~np.isnan(common.mid[first:last]))[-1]
            for prices in (common.mid, *(one.close for one in paths)):
                prices[last] = prices[usable_before]


def _price(some: slice, candidates: Table, chains: Chains, fills: Sequence[Fill], paths: Sequence[Paths]) -> None:
    """Fill in the paths of some candidates, which are neighbours, at each of the fills."""
    common = paths[0]
    span = slice(common.start[some.start], common.start[some.stop])
    start, stop = common.start[some] - span.start, common.start[some.start + 1:some.stop + 1] - span.start
    columns = {name: candidates[name][some] for name in ("ticker", "side", "day", "short_row", "long_row")}
    quotes = np.full((4, span.stop - span.start), np.nan)            # bid and ask of the short leg, and of the long one
    for t, name in enumerate(chains.tickers):
        for side, leg in ((Side.PUT, "put"), (Side.CALL, "call")):
            mine = np.flatnonzero((columns["ticker"] == t) & (columns["side"] == side))
            for which, (bid, ask) in (("short_row", quotes[:2]), ("long_row", quotes[2:])):
                chain, row = chains[name], columns[which][mine]
                follow_quotes(chain.day, getattr(chain, f"{leg}_bid"), getattr(chain, f"{leg}_ask"), mine, row,
                              _run_end(chain, row), columns["day"][mine], start, stop, bid, ask)
    good = np.flatnonzero(usable(*quotes[:2]) & usable(*quotes[2:]))
    sb, sa, lb, la = (quote[good] for quote in quotes)
    good += span.start
    common.mid[good] = 0.5 * (sb + sa) - 0.5 * (lb + la)
    for fill, one in zip(fills, paths, strict=True):
        one.close[good] = fill(sb, sa)[1] - fill(lb, la)[0]


def _run_end(chain: Chain, row: np.ndarray) -> np.ndarray:
    """Where the run of the contract that has the row ends, (k,)."""
    return chain.contract_start[np.searchsorted(chain.contract_start, row, side="right")]


def _assign_early(calls: Table, number: np.ndarray, t: int, chain: Chain, panel: Panel, paths: Paths) -> None:
    """Mark those of one ticker's short calls, candidates of these numbers, that are rationally exercised before their expiry.

    On the eve of an ex-dividend date exercise pays where D > P(K) + K (1 - exp(-r t)): the dividend against the put,
    which is what is given up, and the interest on the strike (Merton 1973). P is the mid of the put in the short leg's
    own row.
    """
    length = np.diff(paths.start)[number]
    for ex_date, dividend in zip(*panel.dividends[chain.ticker], strict=True):
        eve = int(np.searchsorted(chain.sessions, ex_date)) - 1
        if eve < 0 or (ex_date > chain.sessions[-1]
                       and last_session_on_or_before(ex_date[None] - 1)[0] != chain.sessions[-1]):
            continue
        offset, spot = eve - calls["day"], panel.close[eve, t]
        i = np.flatnonzero((offset > 0) & (offset < length) & (calls["expiry"] >= ex_date) & (spot > calls["short_strike"])
                           & (paths.assigned_day[number] < 0))
        i = i[~np.isnan(paths.mid[paths.start[number[i]] + offset[i]])]           # both legs have a row that day
        runs = zip(calls["short_row"][i].tolist(), _run_end(chain, calls["short_row"][i]).tolist())
        rows = np.array([row + np.searchsorted(chain.day[row:end], eve) for row, end in runs], np.int64)
        put_bid, put_ask, strike = chain.put_bid[rows], chain.put_ask[rows], calls["short_strike"][i]
        years = (calls["expiry"][i] - chain.sessions[eve]).astype(np.int64) / 365.0
        carry = strike * -np.expm1(-panel.rate[eve] * years)
        i = i[usable(put_bid, put_ask) & (dividend > 0.5 * (put_bid + put_ask) + carry)]
        paths.assigned_day[number[i]] = eve
        paths.assigned_cost[number[i]] = intrinsic(calls["side"][i], calls["short_strike"][i], calls["width"][i],
                                                   spot) + dividend
