"""Every column, enum and unit of Mahler, named once.

Tables are plain dicts of equally long NumPy arrays (`Table`); the dtypes below name their
columns. Missing numbers are NaN, missing indices are -1; zero is never "missing".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag
from functools import cached_property
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Version of the store's layout. It is part of every fingerprint."""

Table = dict[str, np.ndarray]
"""Columns of equal length, by name."""


class Deferred(Mapping):
    """A table that is made when it is first looked at: a sweep of a thousand configs reads no rejection row."""

    def __init__(self, make: Callable[[], Table]) -> None:
        self._make = make

    @cached_property
    def _table(self) -> Table:
        return self._make()

    def __getitem__(self, name: str) -> np.ndarray:
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


MULTIPLIER = 100
"""Shares per option contract."""

SESSIONS_PER_YEAR = 252


class Side(IntEnum):
    """What is sold: a bull put or a bear call spread."""

    PUT = 0
    CALL = 1


class Exit(IntEnum):
    """Why a spread was closed, in the order in which the rules are examined on a day."""

    EXPIRY = 0
    ASSIGNED = 1
    PROFIT_TARGET = 2
    STOP_LOSS = 3
    TIME = 4
    END_OF_PERIOD = 5


class Rejection(IntEnum):
    """Why a candidate was not admitted; the first that applies, in this order. 0 is admitted."""

    ADMITTED = 0
    VETOED = 1
    ALREADY_OPEN = 2
    BREAKER_DAY = 3
    BREAKER_WEEK = 4
    BREAKER_DRAWDOWN = 5
    BREAKER_VIX = 6
    MAX_POSITIONS = 7
    MAX_ENTRIES_PER_DAY = 8
    MAX_HEAT = 9
    MAX_HEAT_PER_UNDERLYING = 10
    MAX_HEAT_GROUP = 11
    SIZE_ZERO = 12
    NO_CASH = 13


class Regime(IntEnum):
    """Trend and volatility of the market; NONE before the first label."""

    NONE = -1
    BULL_LOW_VOL = 0
    BULL_HIGH_VOL = 1
    BEAR_LOW_VOL = 2
    BEAR_HIGH_VOL = 3


class Flag(IntFlag):
    """What is known to be odd about a chain row. A flagged row is kept; a crossed side is never traded."""

    CALL_CROSSED = 1
    PUT_CROSSED = 2
    CALL_NO_ASK = 4
    PUT_NO_ASK = 8
    GREEKS_CLAMPED = 16
    IV_COMPUTED = 32
    GREEKS_COMPUTED = 64


# One row per (date, expiry, strike), with the call and the put. Prices are dollars per share,
# IVs decimals (0.2 is 20 %), theta dollars per share and calendar day, vega dollars per share
# and IV point (0.01). `delta` is the call's; the put's is delta - 1.
CHAIN = np.dtype([
    ("date", "datetime64[D]"),
    ("expiry", "datetime64[D]"),         # a session of the exchange: Saturdays are normalised at ingest
    ("strike", "f8"),
    ("call_bid", "f8"), ("call_ask", "f8"), ("put_bid", "f8"), ("put_ask", "f8"),
    ("call_iv", "f4"), ("put_iv", "f4"),  # at the mid quote; NaN where there is none
    ("smooth_iv", "f4"),
    ("call_volume", "i4"), ("call_open_interest", "i4"), ("put_volume", "i4"), ("put_open_interest", "i4"),
    ("delta", "f4"), ("gamma", "f4"), ("theta", "f4"), ("vega", "f4"),
    ("underlying", "f8"),                # at the time of the quotes, not the official close
    ("flags", "u1"),
])

# A spread that the entry rules would sell. Everything in it is known at entry.
CANDIDATE = np.dtype([
    ("day", "i4"),                       # index into the sessions of the run
    ("ticker", "i2"),                    # index into the tickers, which are in alphabetical order
    ("side", "i1"),
    ("expiry", "datetime64[D]"),
    ("dte", "i2"),                       # calendar days
    ("short_strike", "f8"), ("long_strike", "f8"), ("width", "f8"),
    ("delta", "f8"),                     # |delta| of the short leg
    ("credit", "f8"), ("mid_credit", "f8"), ("max_loss", "f8"),   # dollars per share, at the fill / mid / fill
    ("score", "f8"),                     # expected value per dollar of maximum loss
    ("underlying", "f8"),
    ("iv_percentile", "f8"),             # share of days, 0 to 1
    ("spread_id", "i4"),                 # the same legs have the same id
    ("short_row", "i8"), ("long_row", "i8"),   # rows of the ticker's chain at entry
])

# One row per candidate: how it would end if it were admitted.
EXIT = np.dtype([
    ("day", "i4"), ("reason", "i1"),
    ("cost", "f8"),                      # dollars per share paid to close
    ("mid", "f8"),                       # the mid (or intrinsic) value at which it was closed
    ("costs", "f8"),                     # dollars per contract of commission and fees at the exit
    ("stale_marks", "i4"),               # days without a usable quote
    ("pnl", "f8"),                       # dollars per contract, net of everything
])

ACCOUNT = np.dtype([
    ("date", "datetime64[D]"),
    ("cash", "f8"), ("marks", "f8"), ("equity", "f8"),   # dollars; cash + marks = equity, marks are negative when owed
    ("open_max_loss", "f8"),             # dollars
    ("heat", "f8"),                      # open_max_loss / equity
    ("positions", "i4"), ("entries", "i4"), ("exits", "i4"),
])

# One row per admitted candidate: the candidate and its exit, in contracts and dollars.
TRADE = np.dtype([
    ("trade_id", "i4"), ("candidate", "i4"),
    ("ticker", "O"), ("side", "O"), ("regime", "O"),
    ("date", "datetime64[D]"), ("expiration", "datetime64[D]"), ("exit_date", "datetime64[D]"),
    ("short_strike", "f8"), ("long_strike", "f8"), ("width", "f8"), ("delta", "f8"), ("dte", "i2"),
    ("credit", "f8"), ("mid_credit", "f8"), ("max_loss", "f8"),    # per share
    ("entry_score", "f8"), ("underlying_price", "f8"), ("iv_percentile", "f8"), ("vix", "f8"),
    ("contracts", "i8"), ("multiplier", "f8"), ("risk_fraction", "f8"),
    ("exit_reason", "O"), ("exit_cost", "f8"), ("exit_mid", "f8"),  # per share
    ("hold_days", "i4"),                 # calendar days from entry to exit
    ("stale_marks", "i4"),
    ("commission", "f8"), ("slippage", "f8"),    # dollars, whole position, entry and exit together
    ("pnl_per_contract", "f8"), ("pnl", "f8"),   # dollars, net
])

# One row per candidate that was not admitted: what it was, why not, and how it would have ended.
REJECTED = np.dtype([
    ("date", "datetime64[D]"), ("ticker", "O"), ("side", "O"), ("regime", "O"), ("reason", "O"),
    ("expiration", "datetime64[D]"), ("short_strike", "f8"), ("long_strike", "f8"), ("delta", "f8"), ("dte", "i2"),
    ("credit", "f8"), ("max_loss", "f8"), ("entry_score", "f8"), ("risk_fraction", "f8"),
    ("exit_reason", "O"), ("exit_date", "datetime64[D]"), ("pnl_per_contract", "f8"),
])

# One row per trade and arm: what the arm decided, and what it took to decide. Missing numbers are NaN, missing text "".
DECISION = np.dtype([
    ("trade_id", "i4"),                  # of the judged records: their position
    ("status", "O"),                     # decision, invalid, refused or failed
    ("approve", "?"),                    # what the P&L takes; where there is no decision, the arm's stated default
    ("p_profit", "f8"),                  # probability of a profit, the number that is scored; 0 to 1
    ("confidence", "f8"),                # in the decision, 0 to 1
    ("contracts", "i4"),                 # at most so many; 0 is no cap of the arm's own
    ("reason", "O"),
    ("samples", "i4"), ("flip_rate", "f8"),      # replies that were scored, and the share of them in the minority
    ("cost", "f8"),                      # dollars of the replies, those from the cache included
    ("input_tokens", "i8"), ("output_tokens", "i8"),
    ("provider", "O"), ("model", "O"), ("fingerprint", "O"), ("reply_ids", "O"),    # the route, as it was answered
    ("cached", "?"),                     # no call was made
])

STAGES = ("in_dte_window", "in_delta_window", "with_long_leg", "liquid", "paid_enough", "past_iv_filter", "ranked")
"""The stages of the screen. The first counts chain rows, the second short legs, the others spreads."""

# One row per session and ticker: what was left after each stage of the screen, and what became of the ranked, which
# are the candidates: admitted, or rejected for one reason each. ranked = admitted + the reasons.
FUNNEL = np.dtype([
    ("date", "datetime64[D]"), ("ticker", "O"),
    *((stage, "i4") for stage in STAGES), *((reason.name.lower(), "i4") for reason in Rejection),
])


# ---- the paper ledger ------------------------------------------------------------------------------------------------
# Its tables, one row each (mahler/paper/records.py). Missing text is "", a missing time or date NaT; `at` and other times
# are UTC. A position is named by the ticket that opened it.

# One row: the account that is traded on paper.
PAPER_ACCOUNT = np.dtype([
    ("started", "datetime64[D]"), ("initial_equity", "f8"),      # dollars of cash before the first session
    ("source", "O"), ("synthetic", "?"),                         # the store that its scans read
    ("commission", "f8"), ("assignment_fee", "f8"),              # dollars per contract (and leg), as in conf/costs
])

# What a scan says to trade.
TICKET = np.dtype([
    ("ticket_id", "O"), ("date", "datetime64[D]"), ("action", "O"),      # open or close
    ("position", "O"),                   # the ticket that opened it; of an open ticket, its own
    ("ticker", "O"), ("side", "O"), ("expiration", "datetime64[D]"),
    ("short_strike", "f8"), ("long_strike", "f8"), ("width", "f8"), ("contracts", "i8"),
    ("mid", "f8"), ("fill", "f8"),       # dollars per share, the credit to receive or the cost to pay: at the mid, modelled
    ("reason", "O"),                     # of a close: the exit rule, as in schema.Exit
    ("max_loss", "f8"),                  # dollars per contract, commissions of the round trip included
    ("target_cost", "f8"), ("stop_cost", "f8"),                  # mid cost, dollars per share, at which the rules fire
    ("time_exit", "datetime64[D]"),      # first date on which the time rule fires
    ("delta", "f8"), ("dte", "i2"), ("entry_score", "f8"), ("underlying_price", "f8"), ("iv_percentile", "f8"),
    ("vix", "f8"), ("regime", "O"), ("multiplier", "f8"), ("risk_fraction", "f8"),
    ("stage", "O"), ("size_multiplier", "f8"),                   # the stage of the account, and what it multiplies size by
    ("config", "O"),                     # digest of the production config
])

ORDER = np.dtype([
    ("order_id", "O"), ("ticket_id", "O"), ("submitted_at", "datetime64[s]"), ("status", "O"),
    ("contracts", "i8"), ("filled", "i8"),                       # spreads asked for, and filled so far
    ("limit_price", "f8"), ("filled_price", "f8"),               # dollars per share of the spread, positive
    ("legs", "O"),                       # the broker's ids of its legs, with commas between
    ("source", "O"),
])

# What changed the position of a leg: a trade, or an expiration, assignment or exercise (at the price 0), with the shares
# that it left, or a settlement (at its price).
FILL = np.dtype([
    ("fill_id", "O"), ("order_id", "O"), ("ticket_id", "O"),     # the ticket is that of the position where it has no other
    ("position", "O"), ("at", "datetime64[s]"), ("date", "datetime64[D]"),       # the session
    ("kind", "O"),                       # trade, expired, assigned, exercised, settled
    ("leg", "O"), ("symbol", "O"),       # short, long (of the option symbol OCC) or shares
    ("quantity", "i8"),                  # contracts, or shares; bought is positive, sold negative
    ("price", "f8"),                     # dollars per share
    ("fees", "f8"),                      # dollars
    ("reason", "O"),                     # of what closes: as in schema.Exit, or manual; "" of what opens
    ("source", "O"),
])

QUOTE = np.dtype([
    ("ticket_id", "O"), ("symbol", "O"), ("at", "datetime64[s]"), ("bid", "f8"), ("ask", "f8"),   # dollars per share
    ("source", "O"),                     # chain: what the scan saw; else who filled
])

MARK = np.dtype([
    ("position", "O"), ("date", "datetime64[D]"), ("mid", "f8"),         # mid cost to close, dollars per share
    ("age", "i4"),                       # sessions since both legs had a usable quote
])

# Money that came or went without a fill: fees of the broker, interest, a transfer.
CASH = np.dtype([("cash_id", "O"), ("date", "datetime64[D]"), ("kind", "O"), ("amount", "f8"), ("note", "O")])

# One row per position that is closed: what its fills come to.
PAPER_EXIT = np.dtype([
    ("position", "O"), ("entry_date", "datetime64[D]"), ("date", "datetime64[D]"), ("reason", "O"), ("contracts", "i8"),
    ("credit", "f8"), ("cost", "f8"),    # dollars per share
    ("fees", "f8"), ("pnl", "f8"),       # dollars; pnl is net
])

# One row per scan of a day, and per candidate of it: what was decided.
SCAN = np.dtype([
    ("date", "datetime64[D]"), ("config", "O"), ("data_digest", "O"), ("code_version", "O"), ("stage", "O"),
    ("equity", "f8"), ("heat_before", "f8"), ("heat_after", "f8"), ("candidates", "i4"), ("opens", "i4"), ("closes", "i4"),
    ("recorded_at", "datetime64[s]"),
])
SCANNED = np.dtype([
    ("date", "datetime64[D]"), ("ticker", "O"), ("side", "O"), ("expiration", "datetime64[D]"),
    ("short_strike", "f8"), ("long_strike", "f8"), ("credit", "f8"), ("max_loss", "f8"),     # per share, as in CANDIDATE
    ("entry_score", "f8"), ("risk_fraction", "f8"), ("regime", "O"),
    ("contracts", "i8"), ("reason", "O"),                        # schema.Rejection, in lower case
])

# One row per candidate that an LLM layer was asked about before it became a ticket: what it said, as in DECISION.
DECIDED = np.dtype([
    ("date", "datetime64[D]"), ("ticker", "O"), ("side", "O"), ("expiration", "datetime64[D]"),
    ("short_strike", "f8"), ("long_strike", "f8"),
    *((name, DECISION[name]) for name in (
        "status", "approve", "p_profit", "confidence", "contracts", "reason", "cost", "model", "reply_ids")),
])

# Moves of the account between stages.
STAGE_MOVE = np.dtype([("moved_at", "datetime64[s]"), ("stage", "O"), ("who", "O"), ("why", "O")])

# One row per open position, as its fills and its last mark say. No row of the ledger: it is derived.
POSITION = np.dtype([
    ("position", "O"), ("ticker", "O"), ("side", "O"), ("expiration", "datetime64[D]"),
    ("short_strike", "f8"), ("long_strike", "f8"), ("width", "f8"), ("date", "datetime64[D]"),   # of entry
    ("contracts", "i8"), ("credit", "f8"),                       # dollars per share received, over the contracts opened
    ("max_loss", "f8"),                  # dollars per contract, commissions of the round trip included
    ("mark", "f8"), ("mark_date", "datetime64[D]"),
    ("target_cost", "f8"), ("stop_cost", "f8"), ("time_exit", "datetime64[D]"),
])

# One row per ticket that was filled: what of the quoted spread was travelled. Derived.
FILLED = np.dtype([
    ("ticket_id", "O"), ("action", "O"), ("date", "datetime64[D]"), ("ticker", "O"),
    ("contracts", "i8"), ("asked", "i8"),
    ("price", "f8"), ("modelled", "f8"), ("ticket_mid", "f8"),   # dollars per share: got, and what the ticket said
    ("mid", "f8"), ("natural", "f8"),    # of the quotes at the fill, else of the ticket; NaN where there are none
    ("travel", "f8"), ("modelled_travel", "f8"),                 # share of the bid-ask travelled: 0.5 is the mid, 1 crosses
    ("fees", "f8"),                      # dollars
])


def empty(dtype: np.dtype, n: int = 0) -> Table:
    """A table with the columns of `dtype` and `n` rows of zeros."""
    return {name: np.zeros(n, dtype=dtype[name]) for name in dtype.names}


def check_columns(table: Table, dtype: np.dtype, what: str) -> None:
    """Raise ValueError unless `table` has the columns of `dtype`, of one length."""
    missing = [name for name in dtype.names if name not in table]
    if missing:
        raise ValueError(f"{what} lacks the columns {', '.join(missing)}")
    lengths = {len(table[name]) for name in dtype.names}
    if len(lengths) > 1:
        raise ValueError(f"{what} has columns of different lengths: {sorted(lengths)}")


class ConfigError(Exception):
    """Bad input: one line that names the key, the value, the unit and what is valid. Exit status 2."""


def shown(value: object) -> str:
    """A cell of a file for the line of a ConfigError: quoted, printable, at most 60 characters of it."""
    text = str(value)
    return ascii(text) if len(text) <= 60 else f"{ascii(text[:60])}..."


def one_line(error: Exception | str) -> str:
    """What a library says for the line of a ConfigError: one printable line, at most 200 characters of it."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return line if len(line) <= 200 else f"{line[:200]}..."


@dataclass(frozen=True)
class Bound:
    """Unit and valid range of a number; the metadata of a config field or of a component's argument.

    `low` and `high` are part of the range unless `open_low` / `open_high`. `optional` allows None.
    """

    unit: str
    low: float = -np.inf
    high: float = np.inf
    open_low: bool = False
    open_high: bool = False

    def __str__(self) -> str:
        if np.isinf(self.low) and np.isinf(self.high):
            return f"{self.unit}"
        left = "(" if self.open_low or np.isinf(self.low) else "["
        right = ")" if self.open_high or np.isinf(self.high) else "]"
        low, high = (f"{x:g}" if np.isfinite(x) else ("-inf" if x < 0 else "inf") for x in (self.low, self.high))
        return f"{self.unit} in {left}{low}, {high}{right}"

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the range; NaN never does."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below)

    def check(self, key: str, value: float) -> None:
        """Raise ConfigError, naming the key, the value, the unit and the range, if `value` is out of range."""
        if not self.holds(value):
            raise ConfigError(f"{key} is {self}, got {value!r}")


def number(unit: str, low: float = -np.inf, high: float = np.inf, *,
           open_low: bool = False, open_high: bool = False) -> Any:
    """A dataclass field without a default (its YAML has it) whose unit and range `check_bounds` enforces."""
    return field(metadata={"bound": Bound(unit, low, high, open_low, open_high)})


def choice(*options: str) -> Any:
    """A dataclass field whose value is one of `options`."""
    return field(metadata={"options": options})


def check_bounds(params: Any, prefix: str) -> None:
    """Raise ConfigError if a field of the dataclass `params` is outside the range or options it declares.

    `prefix` is the config group, for the message: `limits.max_heat is a fraction of equity in (0, 1], got 20.0`;
    it is empty at the root of the config.
    """
    for f in fields(params):
        value, key = getattr(params, f.name), f"{prefix}.{f.name}" if prefix else f.name
        bound = f.metadata.get("bound")
        if bound is not None and value is not None:
            for x in value if isinstance(value, (list, tuple)) else [value]:
                bound.check(key, x)
        options = f.metadata.get("options")
        if options is not None and value not in options:
            raise ConfigError(f"{key} is one of {', '.join(options)}, got {value!r}")
