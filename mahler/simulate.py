"""The face of the admission kernel: limits, breakers, the validation of its arguments, and the ledger it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mahler import schema
from mahler.core.admission import admit
from mahler.exits import Costs, ExitRule, closed_before_split, unreachable_stops
from mahler.ledger import Ledger
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import MULTIPLIER, Deferred, Exit, Regime, Rejection, Side, Table, number


@dataclass
class Limits:
    """What the portfolio may hold; heat is open maximum loss over equity. The numbers are those of conf/limits/."""

    max_positions: int = number("open positions", 1, 1000)
    max_heat: float = number("a fraction of equity", 0, 1, open_low=True)
    max_heat_per_underlying: float = number("a fraction of equity", 0, 1, open_low=True)
    max_heat_group: float = number("a fraction of equity", 0, 1, open_low=True)
    max_entries_per_day: int = number("admissions per session", 1, 1000)
    group: list[str]             # tickers whose heat counts together

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of range."""
        schema.check_bounds(self, "limits")


@dataclass
class Breaker:
    """Losses, and a level of VIX, that stop new admissions; None is off. The numbers are those of conf/breaker/."""

    max_day_loss: float | None = number("a fraction of yesterday's equity", 0, 1, open_low=True)
    max_week_loss: float | None = number("a fraction of the equity at the end of last week", 0, 1, open_low=True)
    max_drawdown: float | None = number("a fraction of peak equity", 0, 1, open_low=True)
    max_vix: float | None = number("VIX points", 0, 1000, open_low=True)

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of range."""
        schema.check_bounds(self, "breaker")


@dataclass(frozen=True)
class Book:
    """What is held when the first session of a walk starts, and what its breakers compare with."""

    held: np.ndarray             # int64 (k,), candidates of earlier days
    contracts: np.ndarray        # int64 (k,)
    mark: np.ndarray             # float64 (k,), last usable mid cost to close, dollars per share
    cash: float                  # dollars
    yesterday: float             # equity at the end of the session before, dollars
    last_week: float             # equity at the end of the calendar week before, dollars
    peak: float                  # the highest equity at the end of a session so far, dollars

    @classmethod
    def empty(cls, cash: float) -> Book:
        """Nothing but `cash` dollars."""
        none = np.zeros(0, np.int64)
        return cls(none, none, np.zeros(0), cash, cash, cash, cash)


def _no_limit(value: float | None) -> float:
    return np.inf if value is None else float(value)


def weeks(dates: np.ndarray) -> np.ndarray:
    """The number of the calendar week, Monday to Sunday, of each date: int32 (n,)."""
    return (dates.astype("datetime64[D]").astype(np.int32) + np.int32(3)) // np.int32(7)


def walk(candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits, breaker: Breaker, costs: Costs,
         *, initial_equity: float, first_day: int, book: Book | None = None) -> tuple[np.ndarray, ...]:
    """Admit candidates day by day: the arguments and the results of `core.admission.admit`.

    `book` is what is held at the start; without one there is nothing but `initial_equity` dollars. The week of the
    weekly breaker is the calendar's, Monday to Sunday.
    """
    return walker(candidates, paths, exits, panel, limits, breaker, costs, initial_equity=initial_equity,
                  first_day=first_day, book=book)(candidates["risk_fraction"], candidates["max_contracts"])


def walker(candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits, breaker: Breaker, costs: Costs,
           *, initial_equity: float, first_day: int, book: Book | None = None,
           ) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    """`walk` as a function of risk fractions and contracts (n,) alone: for thousands of vetoes of the same candidates."""
    over = window_walker(candidates, paths, exits, panel, limits, breaker, costs, initial_equity=initial_equity,
                         book=book)
    return partial(over, slice(0, len(candidates["day"])), first_day, len(panel.dates))


def window_walker(candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits, breaker: Breaker,
                  costs: Costs, *, initial_equity: float, book: Book | None = None) -> Callable[..., tuple[np.ndarray, ...]]:
    """`walk` of any window: (rows, first_day, last_day, risk fractions, contracts), for thousands of windows.

    `rows`, a slice, are the candidates that are asked, none of them later than last_day - 1; the last two are of all
    candidates (n,). The sessions [first_day, last_day) are walked. `book` is what is held at the start of each; its
    positions are among `rows`. What no window changes is made once.
    """
    book = book or Book.empty(initial_equity)
    before = (candidates["day"], candidates["ticker"], candidates["spread_id"], candidates["credit"],
              candidates["mid_credit"], candidates["max_loss"])
    after = (exits["day"], exits["reason"], exits["cost"], exits["costs"])
    vix_broken = (panel.vix[:, 0] >= _no_limit(breaker.max_vix)).astype(np.int8)
    week, in_group = weeks(panel.dates), np.array([ticker in limits.group for ticker in panel.tickers], np.int8)
    rules = (costs.entry, costs.round_trip, book.cash, book.yesterday, book.last_week, book.peak,
             limits.max_positions, limits.max_entries_per_day,
             limits.max_heat, limits.max_heat_per_underlying, limits.max_heat_group,
             _no_limit(breaker.max_day_loss), _no_limit(breaker.max_week_loss), _no_limit(breaker.max_drawdown))

    def over(rows: slice, first_day: int, last_day: int, risk_fraction: np.ndarray,
             max_contracts: np.ndarray) -> tuple[np.ndarray, ...]:
        start = paths.start[rows.start:rows.stop + 1]
        return admit(*(column[rows] for column in (*before, risk_fraction, max_contracts, *after)), start,
                     paths.mid[:start[-1]], vix_broken[:last_day], week[:last_day], in_group, book.held, book.contracts,
                     book.mark, first_day, *rules)

    return over


def simulate(candidates: Table, paths: Paths, exits: Table, panel: Panel, rule: ExitRule, limits: Limits,
             breaker: Breaker, costs: Costs, *, initial_equity: float, first_day: int,
             funnel: Table | None = None) -> Ledger:
    """Walk the sessions from `first_day` on and write down what happened.

    `candidates` has, beside the columns of schema.CANDIDATE, those of the config: `risk_fraction` and
    `max_contracts` (a sizing rule's), `multiplier` and `regime` (n,). `funnel` is the screen's; without it the
    ledger's funnel has no rows.

    Raises
    ------
    ValueError
        Where a column is missing, a risk fraction is negative or NaN, or candidates are out of order.
    """
    for column in ("risk_fraction", "max_contracts", "multiplier", "regime"):
        if column not in candidates:
            raise ValueError(f"candidates lack the column {column}")
    if not (candidates["risk_fraction"] >= 0.0).all():
        raise ValueError("risk_fraction is a share of equity >= 0; it is negative or NaN for a candidate")
    if (np.diff(candidates["day"]) < 0).any():
        raise ValueError("candidates are not in the order of their days")
    contracts, reasons, cash, marks, open_max_loss, positions, entries, closes = walk(
        candidates, paths, exits, panel, limits, breaker, costs, initial_equity=initial_equity, first_day=first_day)
    span = slice(first_day, None)
    equity = cash + marks
    account = {
        "date": panel.dates[span], "cash": cash[span], "marks": marks[span], "equity": equity[span],
        "open_max_loss": open_max_loss[span], "heat": open_max_loss[span] / equity[span],
        "positions": positions[span], "entries": entries[span], "exits": closes[span],
    }
    admitted = np.flatnonzero(contracts)
    by_reason = np.bincount(reasons, minlength=len(Rejection))
    counts = {
        "candidates": float(len(contracts)),
        "days_without_candidate": float(len(panel.dates) - first_day - np.count_nonzero(np.diff(candidates["day"], prepend=-1))),
        "stale_marks": float(exits["stale_marks"][admitted].sum()),
        "unreachable_stops": float(unreachable_stops({c: candidates[c][admitted] for c in ("credit", "max_loss")},
                                                     rule).sum()),
        "closed_before_split": float(len(closed_before_split(admitted, candidates, exits, paths, rule, panel.dates))),
        "settled_early": float(_settled_early(candidates, exits, panel, admitted)),
        "calls_without_dividends": float(np.count_nonzero(
            (candidates["side"][admitted] == Side.CALL) & ~paths.assignment_known[candidates["ticker"][admitted]])),
    } | {f"rejected.{r.name.lower()}": float(by_reason[r]) for r in Rejection if r and by_reason[r]}
    trades = _trades(candidates, exits, panel, contracts, admitted, costs)
    rejections = Deferred(partial(_rejections, candidates, exits, panel, reasons))
    ledger = Ledger(trades=trades, rejections=rejections, account=account,
                    initial_equity=initial_equity, counts=counts)
    if funnel is None:
        return ledger
    return replace(ledger, funnel=Deferred(partial(funnel_of, funnel, candidates, panel, reasons, first_day)))


def stopped_for_good(ledger: Ledger, breaker: Breaker) -> np.datetime64 | None:
    """The session from which on the drawdown breaker lets in no trade to the end of the run; None where it is not shut.

    With nothing open equity stands still, and with it its distance from the peak: such a breaker never recovers.
    """
    equity, positions = ledger.account["equity"], ledger.account["positions"]
    peak = max(ledger.initial_equity, float(equity.max()))
    if positions[-1] or (peak - equity[-1]) / peak < _no_limit(breaker.max_drawdown):
        return None
    return ledger.account["date"][np.flatnonzero(positions)[-1] + 1]


def _settled_early(candidates: Table, exits: Table, panel: Panel, rows: np.ndarray) -> int:
    """Trades that expired on a session that the run does not have, and were settled on the one before."""
    expired = rows[exits["reason"][rows] == Exit.EXPIRY]
    return int(np.count_nonzero(panel.dates[exits["day"][expired]] != candidates["expiry"][expired]))


def _names(enum: type, codes: np.ndarray) -> np.ndarray:
    """Lower-case names of the members of `enum`, whose codes may start at -1: object (n,)."""
    lowest = min(enum)
    names = np.array([enum(code).name.lower() for code in range(lowest, max(enum) + 1)], dtype=object)
    return names[np.asarray(codes, np.int64) - lowest]


def _record(candidates: Table, exits: Table, panel: Panel, rows: np.ndarray) -> Table:
    """The columns that trades and rejections share."""
    take = {name: candidates[name][rows] for name in (
        "ticker", "side", "regime", "day", "expiry", "short_strike", "long_strike", "delta", "dte", "credit",
        "max_loss", "score", "risk_fraction")}
    return {
        "date": panel.dates[take["day"]], "ticker": np.array(panel.tickers, dtype=object)[take["ticker"]],
        "side": _names(Side, take["side"]), "regime": _names(Regime, take["regime"]), "expiration": take["expiry"],
        **{name: take[name] for name in ("short_strike", "long_strike", "delta", "dte", "credit", "max_loss")},
        "entry_score": take["score"], "risk_fraction": take["risk_fraction"],
        "exit_reason": _names(Exit, exits["reason"][rows]), "exit_date": panel.dates[exits["day"][rows]],
        "pnl_per_contract": exits["pnl"][rows],
    }


def _rejections(candidates: Table, exits: Table, panel: Panel, reasons: np.ndarray) -> Table:
    """The rejected candidates with their reason and the outcome they would have had: schema.REJECTED."""
    rows = np.flatnonzero(reasons)
    record = _record(candidates, exits, panel, rows) | {"reason": _names(Rejection, reasons[rows])}
    return {name: record[name] for name in schema.REJECTED.names}


def funnel_of(screened: Table, candidates: Table, panel: Panel, reasons: np.ndarray, first_day: int) -> Table:
    """The screen's counts of every session from `first_day` on, and what became of the candidates: schema.FUNNEL."""
    n_tickers, n_days = len(panel.tickers), len(panel.dates) - first_day
    walked = candidates["day"] >= first_day
    row = (candidates["day"][walked] - first_day).astype(np.int64) * n_tickers + candidates["ticker"][walked]
    outcome = np.bincount(row * len(Rejection) + reasons[walked], minlength=n_days * n_tickers * len(Rejection))
    outcome = outcome.reshape(-1, len(Rejection))                                       # (n_days x n_tickers, reasons)
    columns = {"date": np.repeat(panel.dates[first_day:], n_tickers),
               "ticker": np.tile(np.array(panel.tickers, dtype=object), n_days)}
    columns |= {stage: screened[stage][first_day:].ravel() for stage in schema.STAGES}
    columns |= {reason.name.lower(): outcome[:, reason] for reason in Rejection}
    return {name: columns[name].astype(schema.FUNNEL[name]) for name in schema.FUNNEL.names}


def _trades(candidates: Table, exits: Table, panel: Panel, contracts: np.ndarray, rows: np.ndarray,
            costs: Costs) -> Table:
    """The admitted candidates with their size, exit and money: schema.TRADE."""
    n = contracts[rows].astype(np.float64)
    record = _record(candidates, exits, panel, rows)
    cost, mid = exits["cost"][rows], exits["mid"][rows]
    slippage = (candidates["mid_credit"] - candidates["credit"])[rows] + cost - mid
    record |= {
        "trade_id": np.arange(len(rows), dtype=np.int32), "candidate": rows.astype(np.int32),
        "width": candidates["width"][rows], "mid_credit": candidates["mid_credit"][rows],
        "underlying_price": candidates["underlying"][rows], "iv_percentile": candidates["iv_percentile"][rows],
        "vix": panel.vix[candidates["day"][rows], 0], "contracts": contracts[rows],
        "multiplier": candidates["multiplier"][rows], "exit_cost": cost, "exit_mid": mid,
        "hold_days": (record["exit_date"] - record["date"]).astype(np.int64).astype(np.int32),
        "stale_marks": exits["stale_marks"][rows], "commission": n * (costs.entry + exits["costs"][rows]),
        "slippage": MULTIPLIER * n * slippage, "pnl": n * exits["pnl"][rows],
    }
    return {name: record[name] for name in schema.TRADE.names}
