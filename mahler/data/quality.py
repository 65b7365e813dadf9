"""What is wrong with the chains of a store, per ticker and year: reported, never assumed.

Each check is one function of a partition that returns columns of the report; a new check is one more function
in CHECKS and, where it is to be seen or judged, one more entry in SHOWN or LIMITS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mahler.data import store
from mahler.data.calendar import sessions
from mahler.data.files import DROPPED, Ingested
from mahler.data.store import PartitionInfo
from mahler.implied import forwards, mid
from mahler.schema import ConfigError, Flag, Table

if TYPE_CHECKING:
    import rich.table

NEAR_THE_MONEY = 0.05   # of the forward: where parity of American options is close to that of European ones
ROUNDING = 1e-4         # of delta: the least step down in strike that is not a rounding of the vendor's


@dataclass(frozen=True)
class Quality:
    """The report: `table` has a row per ticker and year, NaN where a check had nothing to look at."""

    root: Path
    source: str
    table: Table
    dropped: dict[str, dict[str, int]]      # by ticker: rows left out at ingest, by reason
    flagged: dict[str, dict[str, int]]      # by ticker: rows by flag


def report(chains_root: Path, tickers: Sequence[str]) -> Quality:
    """Check every partition of `tickers` in the store of one source.

    Raises ConfigError where a ticker is not in the store or a partition is damaged.
    """
    rows, dropped, flagged, sources = [], {}, {}, set()
    for ticker in sorted(set(tickers)):
        infos = [store.partition_info(path) for path in store.partitions(chains_root, ticker).values()]
        if not infos:
            there = ", ".join(store.tickers_in(chains_root)) or "nothing"
            raise ConfigError(f"{ticker} is not in the store {chains_root} (there: {there})")
        missing = _missing_sessions(infos)
        for info in infos:
            chain = store.read_partition(info.path)
            checked = {"ticker": ticker, "year": info.year, "sessions_missing": missing.pop(info.year)}
            for check in CHECKS:
                checked |= check(info, chain)
            rows.append(checked)
        rows += [{"ticker": ticker, "year": year, "sessions_missing": n} for year, n in missing.items() if n]
        dropped[ticker] = _total(info.counts for info in infos)
        flagged[ticker] = {flag.name.lower(): sum(info.quality[flag.name.lower()] for info in infos) for flag in Flag}
        sources |= {info.source for info in infos}
    return Quality(Path(chains_root), ", ".join(sorted(sources)), _table(rows), dropped, flagged)


def _table(rows: list[dict[str, float | str]]) -> Table:
    """Columns from rows; a year without a partition has no rows, and NaN in every check."""
    rows = sorted(rows, key=lambda row: (row["ticker"], row["year"]))
    names = list(dict.fromkeys(name for row in rows for name in row))
    counts = ("year", "sessions_missing", "rows", "sessions")
    return {name: np.array([row[name] for row in rows], dtype=object) if name == "ticker" else
            np.array([row.get(name, 0) for row in rows], dtype=np.int64) if name in counts else
            np.array([row.get(name, np.nan) for row in rows], dtype=float) for name in names}


def _total(counts: Sequence[dict[str, dict[str, int]]]) -> dict[str, int]:
    total: Counter = Counter()
    for of_year in counts:
        for of_day in of_year.values():
            total.update({name.removeprefix(DROPPED): n for name, n in of_day.items() if name.startswith(DROPPED)})
    return dict(total)


def _missing_sessions(infos: list[PartitionInfo]) -> dict[int, int]:
    """By year, sessions of XNYS between the first and the last day of the ticker that the store does not have."""
    there = np.concatenate([info.sessions for info in infos])
    expected = sessions(there.min(), there.max())
    years = expected.astype("datetime64[Y]").astype(int) + 1970
    absent = ~np.isin(expected, there)
    return {int(year): int(np.count_nonzero(absent & (years == year))) for year in np.unique(years)}


# ---------------------------------------------------------------------------------------------- checks


def _rows(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Rows in the store, and the share of the rows read that were left out; NaN where the source did not say."""
    read = sum(of_day["read"] for of_day in info.counts.values())
    out = sum(n for of_day in info.counts.values() for name, n in of_day.items() if name.startswith(DROPPED))
    return {"rows": info.rows, "sessions": len(info.sessions), "dropped_share": out / read if read else np.nan}


def _expirations(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Share of rows whose expiration was on a Saturday or holiday and was moved to the session before."""
    return {"expiry_moved_share": info.quality["expiry_normalised"] / info.rows}


def _quotes(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Shares of the quotes, two a row: crossed, without an ask, with a bid of zero."""
    n, flag = 2 * info.rows, info.quality
    zero = sum(np.count_nonzero(chain[f"{side}_bid"] == 0) for side in ("call", "put"))
    return {"crossed_share": (flag["call_crossed"] + flag["put_crossed"]) / n,
            "no_ask_share": (flag["call_no_ask"] + flag["put_no_ask"]) / n, "zero_bid_share": zero / n}


def _greeks(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Shares of rows whose greeks are Mahler's rather than the vendor's, and that have none."""
    return {"greeks_computed_share": info.quality["greeks_computed"] / info.rows,
            "no_delta_share": float(np.mean(np.isnan(chain["delta"])))}


def _parity(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Median and 95 % of |K + C - P - F| near the money, in parts of F; F is the median of K + C - P of the expiry.

    Undiscounted: near the money the rate moves it by less than a basis point.
    """
    call, put = (mid(chain[f"{side}_bid"], chain[f"{side}_ask"]) for side in ("call", "put"))
    group, n_groups = _expiry_days(chain)
    forward = forwards(group, n_groups, chain["strike"], call, put, np.ones(info.rows))[group]
    near = np.abs(chain["strike"] / forward - 1) < NEAR_THE_MONEY
    apart = np.abs(chain["strike"] + call - put - forward)[near] / forward[near]
    apart = apart[np.isfinite(apart)]
    return {"parity_median": float(np.median(apart)) if len(apart) else np.nan,
            "parity_95": float(np.quantile(apart, 0.95)) if len(apart) else np.nan}


def _delta_order(info: PartitionInfo, chain: Table) -> dict[str, float]:
    """Share of neighbouring strikes of an expiry on a day whose call delta does not rise with the strike."""
    rows = np.flatnonzero(np.isfinite(chain["delta"]))
    group = _expiry_days(chain)[0][rows]
    order = np.lexsort((chain["strike"][rows], group))
    group, delta = group[order], chain["delta"][rows][order].astype(float)
    step = np.diff(delta)[np.diff(group) == 0]
    return {"delta_ordered_share": float(np.mean(step <= ROUNDING)) if len(step) else np.nan}


def _expiry_days(chain: Table) -> tuple[np.ndarray, int]:
    """Number of each row's expiry on its day (n,), and how many there are."""
    key = chain["date"].astype(np.int64) << 32 | chain["expiry"].astype(np.int64)
    keys, group = np.unique(key, return_inverse=True)
    return group, len(keys)


CHECKS = (_rows, _expirations, _quotes, _greeks, _parity, _delta_order)

# What is more than this is worth a look: (column, worst that is usual, what it is).
LIMITS = (
    ("sessions_missing", 0, "sessions missing"),
    ("crossed_share", 0.01, "quotes crossed"),
    ("parity_95", 0.01, "parity residual (95 %)"),
    ("delta_disordered_share", 0.01, "delta rising with strike"),
    ("no_delta_share", 0.25, "rows without delta"),
)


# ---------------------------------------------------------------------------------------------- words


def verdict(quality: Quality) -> str:
    """One line: what there is, and the worst of each check that is out of the usual."""
    table = quality.table | {"delta_disordered_share": 1 - quality.table["delta_ordered_share"]}
    faults = []
    for column, limit, what in LIMITS:
        value = np.nan_to_num(table[column].astype(float), nan=-np.inf)
        over = int(np.count_nonzero(value > limit))
        if over:
            worst = int(np.argmax(value))
            amount = f"{value[worst]:.0f}" if column == "sessions_missing" else f"{value[worst]:.1%}"
            more = f" and {over - 1} more" if over > 1 else ""
            faults.append(f"{what} {amount} ({table['ticker'][worst]} {table['year'][worst]}{more})")
    years = f"{table['year'].min()}" if table["year"].min() == table["year"].max() else \
        f"{table['year'].min()}-{table['year'].max()}"
    what = f"{quality.source}, {', '.join(dict.fromkeys(table['ticker']))}, {years}, {table['rows'].sum():,} rows"
    return f"{what}: " + ("; ".join(faults) if faults else "nothing out of the usual")


# (column, heading, format): what `render` shows; 100 columns of text at most.
SHOWN = (
    ("ticker", "", "{}"), ("year", "year", "{}"), ("rows", "rows", "{:,}"), ("dropped_share", "dropped", "{:.1%}"),
    ("sessions", "days", "{}"), ("sessions_missing", "missing", "{}"),
    ("parity_median", "parity", "{:.2%}"), ("parity_95", "95 %", "{:.2%}"),
    ("crossed_share", "crossed", "{:.2%}"), ("no_ask_share", "no ask", "{:.1%}"), ("zero_bid_share", "0 bid", "{:.1%}"),
    ("delta_ordered_share", "delta", "{:.1%}"), ("expiry_moved_share", "moved", "{:.1%}"),
)


def render(quality: Quality) -> rich.table.Table:
    """The report as a table for the terminal, at most 100 columns wide, with the verdict below it."""
    from rich.table import Table as RichTable

    out = RichTable(title=f"Quality of {quality.source} chains", caption=verdict(quality), box=None, padding=(0, 1),
                    pad_edge=False)
    for column, heading, _ in SHOWN:
        out.add_column(heading, justify="left" if column == "ticker" else "right", no_wrap=True)
    for row in range(len(quality.table["year"])):
        cells = ((quality.table[column][row], form) for column, _, form in SHOWN)
        out.add_row(*("-" if isinstance(value, float) and np.isnan(value) else form.format(value)
                      for value, form in cells))
    return out


def show(done: Ingested) -> None:
    """Print what an ingest read and left out, and the quality of all that is now in the store of its tickers."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    for line in summary(done):
        console.print(line, soft_wrap=True)
    console.print(render(report(done.root, [ticker for ticker in done.counts if store.partitions(done.root, ticker)])))


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
            lines.append(f"{ticker}: {done.files_without[ticker]} of {done.files} files have no row of it")
    return lines


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in sorted(counts.items()))
