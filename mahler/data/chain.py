"""A ticker's chain in memory: flat columns, a contract is one run of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.schema import CHAIN, ConfigError, Deferred, Table

# What a backtest reads of a chain, and what it reads where a rule asks for it; the other columns stay in the store.
QUOTES = ("call_bid", "call_ask", "put_bid", "put_ask", "call_iv", "put_iv", "delta")
ACTIVITY = ("call_volume", "call_open_interest", "put_volume", "put_open_interest")


@dataclass(frozen=True)
class Chain:
    """The chain of one ticker over the sessions of a run; a contract is one run of rows.

    Rows are sorted by (expiry, strike, day), one per contract and session, and hold a call and a put:
    contract c has the rows contract_start[c] : contract_start[c + 1]. Units are those of schema.CHAIN.
    """

    ticker: str
    sessions: np.ndarray            # datetime64[D] (n_days,)
    day: np.ndarray                 # int32 (n_rows,), index into sessions
    call_bid: np.ndarray            # float64 (n_rows,), dollars per share, as the three below
    call_ask: np.ndarray
    put_bid: np.ndarray
    put_ask: np.ndarray
    call_iv: np.ndarray             # float32 (n_rows,)
    put_iv: np.ndarray
    delta: np.ndarray               # float32 (n_rows,), the call's
    activity: Table | Deferred      # int32 (n_rows,), contracts: the columns of ACTIVITY
    spot: np.ndarray                # float64 (n_days,), the underlying at the quotes; NaN on a day without rows
    contract_start: np.ndarray      # int64 (n_contracts + 1,)
    contract_expiry: np.ndarray     # datetime64[D] (n_contracts,), a session
    contract_strike: np.ndarray     # float64 (n_contracts,), dollars

    @classmethod
    def from_table(cls, ticker: str, sessions: np.ndarray, table: Table) -> Chain:
        """A chain from rows of schema.CHAIN in any order; rows on other days than `sessions` are left out.

        Raises ConfigError at a duplicate of (date, expiry, strike).
        """
        sessions = np.asarray(sessions, dtype="datetime64[D]")
        dates, expiry, strike = (np.asarray(table[name], dtype=CHAIN[name]) for name in ("date", "expiry", "strike"))
        order = np.lexsort((dates, strike, expiry))
        dates, expiry, strike = dates[order], expiry[order], strike[order]
        day = day_index(dates, sessions)
        order, day, expiry, strike = (column[day >= 0] for column in (order, day, expiry, strike))
        first = first_of_runs(expiry, strike)
        same = np.diff(day) == 0
        same[first[1:] - 1] = False             # the last day of one contract, and the first of the next
        repeated = np.flatnonzero(same)
        if len(repeated):
            at = repeated[0]
            raise ConfigError(f"{ticker}: {sessions[day[at]]} expiry {expiry[at]} strike {strike[at]:g} occurs twice")
        quotes, activity = ({name: np.asarray(table[name], dtype=CHAIN[name])[order] for name in names}
                            for names in (QUOTES, ACTIVITY))
        spot = spot_of_days(day, np.asarray(table["underlying"], dtype=float)[order], len(sessions))
        return cls(ticker, sessions, day, **quotes, activity=activity, spot=spot, contract_start=np.append(first, len(day)),
                   contract_expiry=expiry[first], contract_strike=strike[first])


def day_index(dates: np.ndarray, sessions: np.ndarray) -> np.ndarray:
    """Index of each date (datetime64[D], or days since 1970) among the sessions, -1 where it is none; int32 (n,)."""
    number, of_session = (days.view(np.int64) if days.dtype.kind == "M" else days for days in (dates, sessions))
    low = int(of_session[0])
    lookup = np.full(int(of_session[-1]) - low + 3, -1, np.int32)   # the ends stand for "before" and "after"
    lookup[of_session - low + 1] = np.arange(len(sessions), dtype=np.int32)
    return np.take(lookup, number - (low - 1), mode="clip")


def first_of_runs(expiry: np.ndarray, strike: np.ndarray) -> np.ndarray:
    """The first row of each contract, int64 (n_contracts,); rows (n,) are sorted."""
    new = np.ones(len(expiry), bool)
    np.not_equal(strike[1:], strike[:-1], out=new[1:])
    new[1:] |= expiry[1:] != expiry[:-1]
    return np.flatnonzero(new)


def spot_of_days(day: np.ndarray, underlying: np.ndarray, n_days: int) -> np.ndarray:
    """The underlying of each day (n_days,): that of its nearest expiry and lowest strike, where rows disagree."""
    spot = np.full(n_days, np.nan)
    spot[day[::-1]] = underlying[::-1]      # of equal indices the last assignment stays: the first row
    return spot
