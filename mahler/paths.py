"""Candidates and chains -> what it costs to close each candidate, day by day until its expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mahler.core.spreads import follow_rows
from mahler.data.calendar import last_session_on_or_before
from mahler.data import splits
from mahler.data.store import Chain, Chains
from mahler.fills import Fill, usable
from mahler.panel import Panel
from mahler.schema import ConfigError, Side, Table

ENTRIES = 500_000       # of paths that are traced at a time: some 50 MB of intermediate arrays


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
    for t, name in enumerate(chains.tickers):
        for mine in _pieces(np.flatnonzero(ticker == t), length):
            _trace_ticker({c: candidates[c][mine] for c in candidates}, mine, t, chains[name], panel, fills, paths)
    _carry_to_split(paths)
    return paths


def _pieces(rows: np.ndarray, length: np.ndarray) -> list[np.ndarray]:
    """`rows` (k,) in pieces of about ENTRIES path entries, so that what tracing needs beside its result is bounded."""
    entries = np.cumsum(length[rows])
    return np.split(rows, np.searchsorted(entries, np.arange(ENTRIES, entries[-1], ENTRIES))) if len(rows) else []


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


def _trace_ticker(candidates: Table, mine: np.ndarray, t: int, chain: Chain, panel: Panel, fills: Sequence[Fill],
                  paths: Sequence[Paths]) -> None:
    """Fill in the paths of some of one ticker's candidates, which are those numbered `mine`, at each of the fills."""
    common = paths[0]
    length = np.diff(common.start)[mine]
    start = np.concatenate([[0], np.cumsum(length)])
    # Where entry k of these candidates' own concatenated paths lies in the paths of all.
    place = np.repeat(common.start[mine] - start[:-1], length) + np.arange(start[-1])
    rows = {}
    for leg in ("short_row", "long_row"):
        run_end = chain.contract_start[np.searchsorted(chain.contract_start, candidates[leg], side="right")]
        rows[leg] = follow_rows(chain.day, candidates[leg], run_end, candidates["day"], start)
    quoted = (rows["short_row"] >= 0) & (rows["long_row"] >= 0)
    for side, leg in ((Side.PUT, "put"), (Side.CALL, "call")):
        of_side = quoted & np.repeat(candidates["side"] == side, length)
        k = np.flatnonzero(of_side)
        bid, ask = getattr(chain, f"{leg}_bid"), getattr(chain, f"{leg}_ask")
        short, long = rows["short_row"][k], rows["long_row"][k]
        sb, sa, lb, la = bid[short], ask[short], bid[long], ask[long]
        good = usable(sb, sa) & usable(lb, la)
        k, sb, sa, lb, la = k[good], sb[good], sa[good], lb[good], la[good]
        common.mid[place[k]] = 0.5 * (sb + sa) - 0.5 * (lb + la)
        for fill, one in zip(fills, paths, strict=True):
            one.close[place[k]] = fill(sb, sa)[1] - fill(lb, la)[0]
    if len(panel.dividends[chain.ticker][0]):
        _assign_early(candidates, mine, t, chain, panel, rows["short_row"], start, common)


def _assign_early(candidates: Table, mine: np.ndarray, t: int, chain: Chain, panel: Panel, short_rows: np.ndarray,
                  start: np.ndarray, paths: Paths) -> None:
    """Mark the short calls that are rationally exercised on the eve of an ex-dividend date.

    Exercise pays where D > P(K) + K (1 - exp(-r t)): the dividend against the put, which is what is given
    up, and the interest on the strike (Merton 1973). P is the mid of the put in the short leg's own row.
    """
    for ex_date, dividend in zip(*panel.dividends[chain.ticker], strict=True):
        eve = int(np.searchsorted(chain.sessions, ex_date)) - 1
        if eve < 0 or (ex_date > chain.sessions[-1]
                       and last_session_on_or_before(ex_date[None] - 1)[0] != chain.sessions[-1]):
            continue
        offset = eve - candidates["day"]
        i = np.flatnonzero((candidates["side"] == Side.CALL) & (offset > 0) & (offset < np.diff(start))
                           & (candidates["expiry"] >= ex_date) & (paths.assigned_day[mine] < 0))
        rows = short_rows[start[i] + offset[i]]
        quoted = ~np.isnan(paths.mid[paths.start[mine[i]] + offset[i]])
        i, rows = i[quoted], rows[quoted]
        put_bid, put_ask, spot = chain.put_bid[rows], chain.put_ask[rows], panel.close[eve, t]
        strike = candidates["short_strike"][i]
        years = (candidates["expiry"][i] - chain.sessions[eve]).astype(np.int64) / 365.0
        carry = strike * -np.expm1(-panel.rate[eve] * years)
        assigned = usable(put_bid, put_ask) & (spot > strike) & (dividend > 0.5 * (put_bid + put_ask) + carry)
        i = i[assigned]
        value = intrinsic(candidates["side"][i], candidates["short_strike"][i], candidates["width"][i], spot)
        paths.assigned_day[mine[i]] = eve
        paths.assigned_cost[mine[i]] = value + dividend
