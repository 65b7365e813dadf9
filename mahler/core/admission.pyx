# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Admission: the only part of a backtest that looks at the portfolio, and so the only sequential one.

Invariant of the walk: at the start of a session the slots [0, n_open) hold the open positions, each with
its last usable mark; cash is what it was at the end of the session before.

Most candidates meet a full book. What a session asks of a position is copied into its slot when it is opened, and what it
asks of a candidate that cannot be admitted is two columns, so a walk is as fast as those can be read.
"""

import numpy as np

from libc.math cimport floor, isinf, isnan
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    void prefetch "__builtin_prefetch" (const void* address) noexcept nogil

cdef double SHARES = 100.0
cdef double EPSILON = 1e-9       # contracts: 3.9999999999 is four

cdef Py_ssize_t NEVER = -1       # no session

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


cdef struct Position:
    Py_ssize_t candidate, exit_day      # NEVER where only the end of the period closes it
    Py_ssize_t path              # its mark of session d is mid[path + d]
    double shares, mark          # mark in dollars per share
    double max_loss              # dollars
    int ticker


cdef inline double shrink(double lots, double room, double max_loss) noexcept nogil:
    """As much of `lots` contracts as fits into `room` dollars of maximum loss, not yet whole contracts."""
    cdef double fit = room / max_loss + EPSILON
    return fit if fit < lots else lots


cdef inline void hold(Book* book, double[::1] by_ticker, const int8_t[::1] in_group, const Position* position) noexcept nogil:
    """Count a position's maximum loss, dollars, wherever a limit will ask for it."""
    book.open_max_loss += position.max_loss
    by_ticker[position.ticker] += position.max_loss
    if in_group[position.ticker]:
        book.group_max_loss += position.max_loss


cdef inline Position opened(
    Py_ssize_t c, const int32_t[::1] day, const int16_t[::1] ticker, const int32_t[::1] exit_day,
    const int8_t[::1] exit_reason, const int64_t[::1] start, int64_t contracts, double mark, double max_loss,
) noexcept nogil:
    """The candidate `c` in so many contracts, at a mark in dollars per share; maximum loss in dollars per contract."""
    return Position(c, NEVER if exit_reason[c] == END_OF_PERIOD else exit_day[c], start[c] - day[c], SHARES * contracts,
                    mark, contracts * max_loss, ticker[c])


cdef int size(
    const Book* book, const Limits* limits, double ticker_max_loss, bint in_group,
    double max_loss, double risk_fraction, int max_contracts, int64_t* contracts,
) noexcept nogil:
    """Contracts that the limits leave of what the risk fraction asks for; the reason where that is none."""
    cdef double equity = book.cash + book.marks, lots
    if isinf(risk_fraction):     # so many lots, whatever the equity
        lots = max_contracts
    else:
        lots = risk_fraction * equity / max_loss + EPSILON
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
    lots = floor(lots)           # the least of what was asked and what fits; less than one contract is none
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
    Py_ssize_t first_day, double commission, double round_trip,
    double initial_cash, double yesterday, double last_week, double peak,
    int max_positions, int max_entries_per_day,
    double max_heat, double max_heat_per_underlying, double max_heat_group,
    double max_day_loss, double max_week_loss, double max_drawdown,
):
    """Walk the sessions from `first_day` on and admit candidates, which are in the order of admission.

    Per candidate (n,): `credit`, `mid_credit`, `max_loss`, `exit_cost` dollars per share, `exit_fees` dollars per
    contract, `spread` the identity of its legs. Commissions are dollars per contract, both legs: `commission` at entry,
    `round_trip` at entry and exit. Per session (n_days,): whether the VIX breaker is on, and the number of its week.
    Per ticker: whether it belongs to the correlated group. Losses are fractions; inf is no breaker.
    `held` (k,) are candidates of days before `first_day` that are open when it starts, with their contracts and last
    marks, dollars per share; the four amounts before the limits are those of that moment, dollars: cash, and the equity
    of the session before, of the week before, and the highest so far.
    Returns contracts and reasons (n,), and cash, marks, open maximum loss (n_days,) in dollars,
    positions, entries, exits (n_days,).
    """
    cdef Py_ssize_t n = day.shape[0], n_days = week.shape[0], i = 0, first, d, p, c
    cdef Limits limits = Limits(max_positions, max_entries_per_day, max_heat, max_heat_per_underlying, max_heat_group)
    cdef Book book = Book(initial_cash, 0.0, 0.0, 0.0, 0)
    cdef double equity, value, m, at_risk
    cdef int breaker, closed, reason, today
    cdef int64_t lots = 0
    contracts, reasons = np.zeros(n, np.int64), np.zeros(n, np.int8)
    account = [np.zeros(n_days), np.zeros(n_days), np.zeros(n_days)]
    counts = [np.zeros(n_days, np.int32), np.zeros(n_days, np.int32), np.zeros(n_days, np.int32)]
    cdef int64_t[::1] v_contracts = contracts
    cdef int32_t[::1] positions = counts[0], entries = counts[1], exits = counts[2]
    cdef int8_t[::1] v_reasons = reasons
    cdef double[::1] cash = account[0], marks = account[1], open_max_loss = account[2]
    cdef Position* slot
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
    slot = <Position*>malloc(max(max_positions, held.shape[0]) * sizeof(Position))   # limits may be tighter than what is held
    if slot == NULL:
        raise MemoryError
    with nogil:
        for p in range(held.shape[0]):
            c = held[p]
            v_contracts[c], is_open[spread[c]] = held_contracts[p], 1
            slot[p] = opened(c, day, ticker, exit_day, exit_reason, start, held_contracts[p], held_mark[p],
                             SHARES * max_loss[c] + round_trip)
            hold(&book, by_ticker, in_group, &slot[p])
        book.n_open = <int>held.shape[0]
        while i < n and day[i] < first_day:
            i += 1
        first = i
        for d in range(first_day, n_days):
            if d > first_day and week[d] != week[d - 1]:
                last_week = yesterday
            value, p = 0.0, 0
            # Slots [0, p) have been marked or kept; the position in slot p has not been looked at.
            while p < book.n_open:
                if slot[p].exit_day == d:
                    c = slot[p].candidate
                    book.cash -= v_contracts[c] * (SHARES * exit_cost[c] + exit_fees[c])
                    is_open[spread[c]] = 0
                    exits[d] += 1
                    book.n_open -= 1
                    slot[p] = slot[book.n_open]
                else:
                    m = mid[slot[p].path + d]
                    if not isnan(m):
                        slot[p].mark = m
                    value -= slot[p].shares * slot[p].mark
                    p += 1
            book.marks = value
            if exits[d]:                     # summed anew: a sum less what was added to it is not the sum without it
                book.open_max_loss, book.group_max_loss, by_ticker[:] = 0.0, 0.0, 0.0
                for p in range(book.n_open):
                    hold(&book, by_ticker, in_group, &slot[p])
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
                if breaker:
                    closed = breaker
                elif book.n_open >= max_positions:
                    closed = MAX_POSITIONS
                else:
                    closed = MAX_ENTRIES_PER_DAY if today >= max_entries_per_day else 0
                if closed:                   # to the end of the session
                    while i < n and day[i] == d:
                        v_reasons[i] = ALREADY_OPEN if is_open[spread[i]] else closed
                        i += 1
                    break
                if is_open[spread[i]]:
                    reason = ALREADY_OPEN
                else:
                    at_risk = SHARES * max_loss[i] + round_trip
                    reason = size(&book, &limits, by_ticker[ticker[i]], in_group[ticker[i]], at_risk,
                                  risk_fraction[i], max_contracts[i], &lots)
                    if reason == ADMITTED:
                        slot[book.n_open] = opened(i, day, ticker, exit_day, exit_reason, start, lots, mid_credit[i],
                                                   at_risk)
                        book.cash += lots * (SHARES * credit[i] - commission)
                        book.marks -= slot[book.n_open].shares * mid_credit[i]
                        hold(&book, by_ticker, in_group, &slot[book.n_open])
                        v_contracts[i], is_open[spread[i]] = lots, 1
                        prefetch(&mid[start[i] + 1])         # its mark of the next session, far from all others
                        book.n_open += 1
                        today += 1
                v_reasons[i] = reason
                i += 1
            cash[d], marks[d], open_max_loss[d] = book.cash, book.marks, book.open_max_loss
            positions[d], entries[d] = book.n_open, today
            yesterday = book.cash + book.marks
            if yesterday > peak:
                peak = yesterday
        for i in range(first, n):            # whatever else stood against it: to ask nothing is not to be admitted
            v_reasons[i] = VETOED if risk_fraction[i] == 0.0 else v_reasons[i]
        free(slot)
    return contracts, reasons, *account, *counts


def unclosed(
    const int64_t[::1] rows, const int64_t[::1] contracts, const int32_t[::1] day, const double[::1] credit,
    const int64_t[::1] start, const double[::1] mid, Py_ssize_t first_day, Py_ssize_t last_day, double commission,
):
    """What positions that are open after the session before `last_day` have come to, each session from their entry.

    `rows` (k,) are candidates of a session in [first_day, last_day) in so many contracts (k,); the other columns are
    those of `admit`. A missing mark is the one before it. Returns their part of equity (last_day - first_day,) and
    the P&L of each (k,), in dollars.
    """
    cdef Py_ssize_t k, c, d
    cdef double mark, value
    total, pnl = np.zeros(last_day - first_day), np.zeros(rows.shape[0])
    cdef double[::1] v_total = total, v_pnl = pnl
    if contracts.shape[0] != rows.shape[0]:
        raise ValueError("rows and contracts (k,) do not fit one another")
    with nogil:
        for k in range(rows.shape[0]):
            c = rows[k]
            value = mark = 0.0
            for d in range(day[c], last_day):
                if not isnan(mid[start[c] + d - day[c]]):
                    mark = mid[start[c] + d - day[c]]
                value = contracts[k] * (SHARES * (credit[c] - mark) - commission)
                v_total[d - first_day] += value
            v_pnl[k] = value
    return total, pnl
