# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Admission: the only part of a backtest that looks at the portfolio, and so the only sequential one.

Invariant of the walk: at the start of a session the slots [0, n_open) hold the open positions, each with
its last usable mark; cash is what it was at the end of the session before.
"""

import numpy as np

from libc.math cimport floor, isinf, isnan
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t

cdef double SHARES = 100.0
cdef double EPSILON = 1e-9       # contracts: 3.9999999999 is four

cdef enum:
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
    END_OF_PERIOD = 5            # schema.Exit


cdef struct Limits:
    int max_positions, max_entries_per_day
    double max_heat, max_heat_per_underlying, max_heat_group


cdef struct Book:
    double cash                  # dollars
    double marks                 # dollars, negative when owed
    double open_max_loss         # dollars
    double group_max_loss        # dollars, of the correlated group
    int n_open


cdef inline double shrink(double lots, double room, double max_loss) noexcept nogil:
    """As many of `lots` contracts as fit into `room` dollars of maximum loss."""
    cdef double fit = floor(room / max_loss + EPSILON)
    return fit if fit < lots else lots


cdef inline void hold(Book* book, double[::1] by_ticker, int ticker, bint in_group, double max_loss) noexcept nogil:
    """Count a position's maximum loss, dollars, wherever a limit will ask for it."""
    book.open_max_loss += max_loss
    by_ticker[ticker] += max_loss
    if in_group:
        book.group_max_loss += max_loss


cdef int size(
    const Book* book, const Limits* limits, double ticker_max_loss, bint in_group,
    double max_loss, double risk_fraction, int max_contracts, int64_t* contracts,
) noexcept nogil:
    """Contracts that the limits leave of what the risk fraction asks for; the reason where that is none."""
    cdef double equity = book.cash + book.marks, lots
    if isinf(risk_fraction):     # so many lots, whatever the equity
        lots = max_contracts
    else:
        lots = floor(risk_fraction * equity / max_loss + EPSILON)
        if max_contracts > 0 and lots > max_contracts:
            lots = max_contracts
    if lots < 1:
        return SIZE_ZERO
    lots = shrink(lots, limits.max_heat * equity - book.open_max_loss, max_loss)
    if lots < 1:
        return MAX_HEAT
    lots = shrink(lots, limits.max_heat_per_underlying * equity - ticker_max_loss, max_loss)
    if lots < 1:
        return MAX_HEAT_PER_UNDERLYING
    if in_group:
        lots = shrink(lots, limits.max_heat_group * equity - book.group_max_loss, max_loss)
        if lots < 1:
            return MAX_HEAT_GROUP
    if lots * max_loss > (book.cash - book.open_max_loss) * (1.0 + EPSILON):
        return NO_CASH
    contracts[0] = <int64_t>lots
    return ADMITTED


def admit(
    const int32_t[::1] day, const int16_t[::1] ticker, const int32_t[::1] spread,
    const double[::1] credit, const double[::1] mid_credit, const double[::1] max_loss,
    const double[::1] risk_fraction, const int32_t[::1] max_contracts,
    const int32_t[::1] exit_day, const int8_t[::1] exit_reason, const double[::1] exit_cost, const double[::1] exit_fees,
    const int64_t[::1] start, const double[::1] mid,
    const int8_t[::1] vix_broken, const int32_t[::1] week, const int8_t[::1] in_group,
    const int64_t[::1] held, const int64_t[::1] held_contracts, const double[::1] held_mark,
    Py_ssize_t first_day, double commission, double initial_cash, double yesterday, double last_week, double peak,
    int max_positions, int max_entries_per_day,
    double max_heat, double max_heat_per_underlying, double max_heat_group,
    double max_day_loss, double max_week_loss, double max_drawdown,
):
    """Walk the sessions from `first_day` on and admit candidates, which are in the order of admission.

    Per candidate (n,): `max_loss` and `exit_fees` dollars per contract, `credit`, `mid_credit`,
    `exit_cost` dollars per share, `spread` the identity of its legs, `commission` dollars per contract at
    entry, both legs. Per session (n_days,): whether the VIX breaker is on, and the number of its week.
    Per ticker: whether it belongs to the correlated group. Losses are fractions; inf is no breaker.
    `held` (k,) are candidates of days before `first_day` that are open when it starts, with their contracts and last
    marks, dollars per share; the four amounts before the limits are those of that moment, dollars: cash, and the equity
    of the session before, of the week before, and the highest so far.
    Returns contracts and reasons (n,), and cash, marks, open maximum loss (n_days,) in dollars,
    positions, entries, exits (n_days,).
    """
    cdef Py_ssize_t n = day.shape[0], n_days = week.shape[0], i = 0, d, p, c
    cdef Limits limits = Limits(max_positions, max_entries_per_day, max_heat, max_heat_per_underlying, max_heat_group)
    cdef Book book = Book(initial_cash, 0.0, 0.0, 0.0, 0)
    cdef double equity, m
    cdef int breaker, reason, today
    cdef int64_t lots = 0
    contracts, reasons = np.zeros(n, np.int64), np.zeros(n, np.int8)
    account = [np.zeros(n_days), np.zeros(n_days), np.zeros(n_days)]
    counts = [np.zeros(n_days, np.int32), np.zeros(n_days, np.int32), np.zeros(n_days, np.int32)]
    cdef int64_t[::1] v_contracts = contracts
    cdef int32_t[::1] positions = counts[0], entries = counts[1], exits = counts[2]
    cdef int8_t[::1] v_reasons = reasons
    cdef double[::1] cash = account[0], marks = account[1], open_max_loss = account[2]
    cdef Py_ssize_t slots = max(max_positions, held.shape[0])          # limits may be tighter than what is held
    cdef int64_t[::1] slot = np.zeros(slots, np.int64)                 # the candidate in each open slot
    cdef double[::1] mark = np.zeros(slots)                            # dollars per share
    cdef double[::1] by_ticker = np.zeros(in_group.shape[0])           # open maximum loss, dollars
    cdef int8_t[::1] is_open = np.zeros((np.max(spread) + 1) if n else 1, np.int8)
    if start.shape[0] != n + 1 or (n and start[n] != mid.shape[0]) or vix_broken.shape[0] != n_days:
        raise ValueError("start (n + 1,), mid (start[-1],), vix_broken and week (n_days,) do not fit one another")
    if held_contracts.shape[0] != held.shape[0] or held_mark.shape[0] != held.shape[0]:
        raise ValueError("held, held_contracts and held_mark (k,) do not fit one another")
    for p in range(held.shape[0]):
        c = held[p]
        if not (0 <= c < n and day[c] < first_day <= exit_day[c] and held_contracts[p] > 0):
            raise ValueError(f"candidate {c} cannot be held with {held_contracts[p]} contracts on day {first_day}")
        slot[p], mark[p], v_contracts[c], is_open[spread[c]] = c, held_mark[p], held_contracts[p], 1
        book.n_open += 1
    with nogil:
        while i < n and day[i] < first_day:
            i += 1
        for d in range(first_day, n_days):
            if d > first_day and week[d] != week[d - 1]:
                last_week = yesterday
            book.marks, book.open_max_loss, book.group_max_loss, p = 0.0, 0.0, 0.0, 0
            by_ticker[:] = 0.0
            # Slots [0, p) have been marked or kept; the position in slot p has not been looked at.
            while p < book.n_open:
                c = slot[p]
                if exit_day[c] == d and exit_reason[c] != END_OF_PERIOD:
                    book.cash -= v_contracts[c] * (SHARES * exit_cost[c] + exit_fees[c])
                    is_open[spread[c]] = 0
                    exits[d] += 1
                    book.n_open -= 1
                    slot[p], mark[p] = slot[book.n_open], mark[book.n_open]
                else:
                    m = mid[start[c] + d - day[c]]
                    if not isnan(m):
                        mark[p] = m
                    book.marks -= SHARES * v_contracts[c] * mark[p]
                    hold(&book, by_ticker, ticker[c], in_group[ticker[c]], v_contracts[c] * max_loss[c])
                    p += 1
            equity = book.cash + book.marks
            breaker = 0
            if (yesterday - equity) / yesterday >= max_day_loss:
                breaker = BREAKER_DAY
            elif (last_week - equity) / last_week >= max_week_loss:
                breaker = BREAKER_WEEK
            elif (peak - equity) / peak >= max_drawdown:     # no drawdown where today is the peak
                breaker = BREAKER_DRAWDOWN
            elif vix_broken[d]:
                breaker = BREAKER_VIX
            today = 0
            while i < n and day[i] == d:
                if risk_fraction[i] == 0.0:
                    reason = VETOED
                elif is_open[spread[i]]:
                    reason = ALREADY_OPEN
                elif breaker:
                    reason = breaker
                elif book.n_open >= max_positions:
                    reason = MAX_POSITIONS
                elif today >= max_entries_per_day:
                    reason = MAX_ENTRIES_PER_DAY
                else:
                    reason = size(&book, &limits, by_ticker[ticker[i]], in_group[ticker[i]],
                                  max_loss[i], risk_fraction[i], max_contracts[i], &lots)
                    if reason == ADMITTED:
                        v_contracts[i] = lots
                        slot[book.n_open], mark[book.n_open] = i, mid_credit[i]
                        book.n_open += 1
                        book.cash += lots * (SHARES * credit[i] - commission)
                        book.marks -= SHARES * lots * mid_credit[i]
                        hold(&book, by_ticker, ticker[i], in_group[ticker[i]], lots * max_loss[i])
                        is_open[spread[i]] = 1
                        today += 1
                v_reasons[i] = reason
                i += 1
            cash[d], marks[d], open_max_loss[d] = book.cash, book.marks, book.open_max_loss
            positions[d], entries[d] = book.n_open, today
            yesterday = book.cash + book.marks
            if yesterday > peak:
                peak = yesterday
    return contracts, reasons, *account, *counts
