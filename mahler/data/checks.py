"""What the sessions of a partition show: measured once, and kept under the partition's digest.

Nothing is judged here. A new check is a function in CHECKS with its columns in DAY; what it is held against is a
threshold of mahler.data.quality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mahler import cache
from mahler.data import store
from mahler.data.chain import day_index
from mahler.data.files import Progress
from mahler.data.store import PartitionInfo
from mahler.schema import Flag, Table

CHECKS_VERSION = 3
"""Raised whenever the same partition would measure otherwise than before."""

NEAR_THE_MONEY = 0.05   # of the forward: where parity of American options is close to that of European ones
ROUNDING = 1e-4         # of delta: the least step up in strike that is not a rounding of the vendor's
THREADS = 2
FOLDER = "checks"       # of the cache

# What is measured of a session of a ticker. Counts are of rows (strikes of an expiry) where nothing else is said.
DAY = np.dtype([
    ("date", "datetime64[D]"),
    ("rows", "i4"), ("expiries", "i4"),
    ("no_forward", "i4"),                       # expiries without 3 strikes whose call and put have a sound quote
    ("quotes", "i4"),                           # two a row, but for options that the source has not
    ("crossed", "i4"), ("no_ask", "i4"), ("zero_bids", "i4"),   # of the quotes
    ("greeks_computed", "i4"), ("no_delta", "i4"),
    ("parity", "f8"), ("parity_95", "f8"),      # of |K + C - P - F| near the money, in parts of F: median and 95 %
    ("underlying_off", "f8"),                   # the underlying against F of the nearest expiry, in parts of F
    ("delta_steps", "i4"), ("delta_rising", "i4"),  # neighbouring strikes; those where the call delta rises with K
    ("iv_strikes", "i4"), ("iv_gaps", "i4"),    # strikes from the first to the last IV of an expiry; those without
    ("shared", "i4"), ("repeated", "i4"),       # contracts quoted also on the session before; those quoted the same
])
COUNTS = tuple(name for name in DAY.names if DAY[name].kind == "i")

QUOTES = ("call_bid", "call_ask", "put_bid", "put_ask")
KEYS = ("date", "expiry", "strike", *QUOTES)
COLUMNS = (*KEYS, "call_iv", "put_iv", "delta", "underlying", "flags")


@dataclass(frozen=True)
class _Partition:
    """Columns of a partition by expiry, session and strike: a group is an expiry on a session, one run of rows."""

    dates: np.ndarray       # datetime64[D] (n_days,)
    day: np.ndarray         # (n,) index into dates
    group: np.ndarray       # (n,)
    start: np.ndarray       # (n_groups + 1,)
    chain: Table            # the columns but date and expiry, (n,) each
    call: np.ndarray        # mid, dollars per share, NaN where there is no two-sided quote
    put: np.ndarray
    forward: np.ndarray     # (n_groups,) dollars per share, undiscounted: near the money the rate moves it little

    def count(self, which: np.ndarray) -> np.ndarray:
        """How many of the rows `which`, bool (n,), each session has."""
        return np.bincount(self.day[which], minlength=len(self.dates))


def measure(chain: Table, before: Table | None) -> np.ndarray:
    """What the sessions of a partition show, DAY (n_days,).

    Parameters
    ----------
    chain : Table
        COLUMNS of a partition, in the store's order of rows.
    before : Table or None
        KEYS of the partition before, whose last session is compared with the first of this one.
    """
    partition = _by_expiry_and_session(chain)
    out = np.zeros(len(partition.dates), DAY)
    out["date"] = partition.dates
    with np.errstate(divide="ignore", invalid="ignore"):    # absurd quotes may imply a forward of nothing
        for check in CHECKS:
            for name, values in check(partition).items():
                out[name] = values
    out["shared"], out["repeated"] = _repeats(chain, partition.dates, before)
    return out


def _by_expiry_and_session(chain: Table) -> _Partition:
    from mahler.implied import forwards, mid    # SciPy is behind it, 0.2 s: most runs find what was measured

    dates = np.unique(chain["date"])
    day = day_index(chain["date"], dates)
    of_expiry = np.cumsum(np.diff(chain["expiry"], prepend=chain["expiry"][:1]) != np.timedelta64(0))
    key = of_expiry.astype(np.int64) * len(dates) + day
    order = np.argsort(key, kind="stable")      # strikes ascend within it: rows came by expiry, strike, date
    new = np.diff(key[order], prepend=-1) != 0
    group, start = np.cumsum(new) - 1, np.append(np.flatnonzero(new), len(key))
    columns = {name: column[order] for name, column in chain.items() if name not in ("date", "expiry")}
    call, put = (mid(columns[f"{side}_bid"], columns[f"{side}_ask"]) for side in ("call", "put"))
    forward = forwards(group, len(start) - 1, columns["strike"], call, put, np.ones(len(key)))
    return _Partition(dates, day[order], group, start, columns, call, put, forward)


def _rows(p: _Partition) -> Table:
    everything = np.ones(len(p.day), bool)
    of_expiry = p.day[p.start[:-1]]
    return {"rows": p.count(everything), "expiries": np.bincount(of_expiry, minlength=len(p.dates)),
            "no_forward": np.bincount(of_expiry[np.isnan(p.forward)], minlength=len(p.dates)),
            "greeks_computed": p.count(p.chain["flags"] & Flag.GREEKS_COMPUTED != 0),
            "no_delta": p.count(np.isnan(p.chain["delta"]))}


def _quotes(p: _Partition) -> Table:
    """Counts of the quotes that there are; of an option that is not there neither the bid nor the ask is known."""
    out = {name: np.zeros(len(p.dates), int) for name in ("quotes", "crossed", "no_ask", "zero_bids")}
    for side, crossed, no_ask in store.SIDES:
        bid, ask = p.chain[f"{side}_bid"], p.chain[f"{side}_ask"]
        there = ~(np.isnan(bid) & np.isnan(ask))
        for name, which in (("quotes", there), ("crossed", p.chain["flags"] & crossed != 0),
                            ("no_ask", there & (p.chain["flags"] & no_ask != 0)), ("zero_bids", bid == 0)):
            out[name] += p.count(which)
    return out


def _parity(p: _Partition) -> Table:
    """|K + C - P - F| / F near the money, where F is the median of K + C - P of the expiry."""
    forward = p.forward[p.group]
    near = np.abs(p.chain["strike"] / forward - 1) < NEAR_THE_MONEY
    apart = np.abs((p.chain["strike"] + p.call - p.put - forward) / forward)
    median, most = quantiles(np.where(near, apart, np.nan), p.day, len(p.dates), (0.5, 0.95))
    return {"parity": median, "parity_95": most}


def quantiles(values: np.ndarray, group: np.ndarray, n_groups: int, shares: Sequence[float]) -> list[np.ndarray]:
    """The quantiles of the finite values (n,) of each group (n_groups,), interpolated; NaN where there is none."""
    rows = np.flatnonzero(np.isfinite(values))
    rows = rows[np.lexsort((values[rows], group[rows]))]
    ranked, first = values[rows], np.searchsorted(group[rows], np.arange(n_groups + 1))
    some, out = np.diff(first) > 0, []
    for share in shares:
        place = first[:-1][some] + share * (np.diff(first)[some] - 1)
        low = np.floor(place).astype(int)
        of_group = np.full(n_groups, np.nan)
        of_group[some] = ranked[low] + (place - low) * (ranked[np.ceil(place).astype(int)] - ranked[low])
        out.append(of_group)
    return out


def _underlying(p: _Partition) -> Table:
    """|S - F| / F of the nearest expiry that has a forward: but for a few weeks of carry it is 0."""
    known = np.flatnonzero(np.isfinite(p.forward))[::-1]    # of equal days the last stays: the nearest expiry
    at, off = p.start[:-1][known], np.full(len(p.dates), np.nan)
    off[p.day[at]] = np.abs((p.chain["underlying"][at] - p.forward[known]) / p.forward[known])
    return {"underlying_off": off}


def _delta_order(p: _Partition) -> Table:
    rows = np.flatnonzero(np.isfinite(p.chain["delta"]))
    step = np.diff(p.chain["delta"][rows].astype(float))
    neighbours = np.diff(p.group[rows]) == 0
    day = p.day[rows][1:]
    return {"delta_steps": np.bincount(day[neighbours], minlength=len(p.dates)),
            "delta_rising": np.bincount(day[neighbours & (step > ROUNDING)], minlength=len(p.dates))}


def _iv_gaps(p: _Partition) -> Table:
    """IVs of the out-of-the-money side; an expiry without a forward has none that can be told."""
    forward = p.forward[p.group]
    iv = np.where(p.chain["strike"] < forward, p.chain["put_iv"], p.chain["call_iv"])
    there = np.isfinite(iv) & np.isfinite(forward)
    below = np.cumsum(there)                                # IVs up to and with this strike
    zero = np.append(0, below)[p.start]
    inside = (below > zero[p.group]) & (below - there < zero[p.group + 1])
    return {"iv_strikes": p.count(inside), "iv_gaps": p.count(inside & ~there)}


CHECKS = (_rows, _quotes, _parity, _underlying, _delta_order, _iv_gaps)


def _repeats(chain: Table, dates: np.ndarray, before: Table | None) -> tuple[np.ndarray, np.ndarray]:
    """By session, contracts that somebody bids for on both sides as on the session before, and those quoted the same.

    Rows of `chain` are in the store's order, by expiry, strike and date: a contract's sessions follow one another.
    """
    day, live = day_index(chain["date"], dates), _live(chain)
    shared = np.diff(day) == 1
    for name in ("expiry", "strike"):
        shared &= chain[name][1:] == chain[name][:-1]
    shared &= live[1:] & live[:-1]
    same = shared & _equal(chain, slice(1, None), chain, slice(None, -1))
    counts = [np.bincount(day[1:][which], minlength=len(dates)) for which in (shared, same)]
    if before is not None:
        first = np.flatnonzero((day == 0) & live)
        last = np.flatnonzero(_live(before) & (before["date"] == before["date"].max()))
        _, ours, theirs = np.intersect1d(_contracts(chain, first), _contracts(before, last), assume_unique=True,
                                         return_indices=True)
        counts[0][0] = len(ours)
        counts[1][0] = np.count_nonzero(_equal(chain, first[ours], before, last[theirs]))
    return counts[0], counts[1]


def _live(chain: Table) -> np.ndarray:
    return np.logical_and.reduce([chain[name] > 0 for name in QUOTES])


def _equal(a: Table, rows: slice | np.ndarray, b: Table, others: slice | np.ndarray) -> np.ndarray:
    return np.logical_and.reduce([a[name][rows] == b[name][others] for name in QUOTES])


def _contracts(chain: Table, rows: np.ndarray) -> np.ndarray:
    keys = np.empty(len(rows), [("expiry", "i8"), ("strike", "f8")])
    keys["expiry"], keys["strike"] = chain["expiry"][rows].astype(np.int64), chain["strike"][rows]
    return keys


def measured(parts: Mapping[str, Sequence[PartitionInfo]], folder: Path | None,
             progress: Progress) -> dict[str, np.ndarray]:
    """By ticker, DAY (n_days,) of its partitions, years ascending; from `folder` where they were measured before.

    `progress` hears of those that have to be measured.
    """
    jobs = [(cache.fingerprint("checks", CHECKS_VERSION, info.digest, before.digest if before else None), info, before)
            for infos in parts.values() for info, before in zip(infos, [None, *infos])]
    found = {key: cache.load(folder / FOLDER, key) if folder else None for key, *_ in jobs}
    missing = [job for job in jobs if found[job[0]] is None]
    with ThreadPoolExecutor(THREADS) as pool:
        for n, ((key, info, _), days) in enumerate(zip(missing, pool.map(lambda job: _measured(*job[1:]), missing)), 1):
            found[key] = {"days": days}
            if folder:
                cache.store(folder / FOLDER, key, found[key])
            progress(n, len(missing), f"{info.ticker} {info.year}")
    out: dict[str, list[np.ndarray]] = {ticker: [] for ticker in parts}
    for key, info, _ in jobs:
        out[info.ticker].append(found[key]["days"])
    return {ticker: np.concatenate(of_years) for ticker, of_years in out.items()}


def _measured(info: PartitionInfo, before: PartitionInfo | None) -> np.ndarray:
    """Of rows that have the digest under which this is kept."""
    last = store.read_partition(before.path, KEYS) if before else None
    chain = store.read_verified(info)
    return measure({name: chain[name] for name in COLUMNS}, last)
