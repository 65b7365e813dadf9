# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""From the sorted rows of one ticker's chain to spreads, to their paths, to their first exits.

A chain is sorted by (expiry, strike, day): a contract is one run of rows, and the contracts of an
expiry are neighbours in the order of their strikes. Every search here relies on that and on nothing else.
"""

import numpy as np

from libc.math cimport NAN, fabs, isnan
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

cdef double STRIKE_TOLERANCE = 1e-6   # dollars: a listed strike is where it should be to within this

cdef enum:
    EXPIRY = 0
    ASSIGNED = 1
    PROFIT_TARGET = 2
    STOP_LOSS = 3
    TIME = 4
    END_OF_PERIOD = 5


cdef Py_ssize_t contract_at(const double[::1] strike, Py_ssize_t low, Py_ssize_t high, double wanted) noexcept nogil:
    """The contract in [low, high), sorted by strike, whose strike is `wanted`; -1 where it is not listed."""
    cdef Py_ssize_t end = high, middle
    # Strikes before `low` are below the wanted one; strikes from `high` on are not.
    while low < high:
        middle = (low + high) // 2
        if strike[middle] < wanted - STRIKE_TOLERANCE:
            low = middle + 1
        else:
            high = middle
    if low < end and fabs(strike[low] - wanted) <= STRIKE_TOLERANCE:
        return low
    return -1


cdef Py_ssize_t pair_contracts(
    const int32_t[::1] day, const float[::1] delta, Py_ssize_t row, Py_ssize_t row_end,
    Py_ssize_t other, Py_ssize_t other_end, bint is_call, double min_delta, double max_delta,
    Py_ssize_t n, int64_t[::1] short_row, int64_t[::1] long_row,
) noexcept nogil:
    """Append the days on which a short contract's |delta| is in the window; -1 where its long contract has no row."""
    cdef double d
    # Rows of the long contract before `other` are on days before that of `row`.
    while row < row_end:
        d = delta[row] if is_call else 1.0 - <double>delta[row]
        if min_delta <= d <= max_delta:
            while other < other_end and day[other] < day[row]:
                other += 1
            short_row[n] = row
            long_row[n] = other if other < other_end and day[other] == day[row] else -1
            n += 1
        row += 1
    return n


def match_legs(
    const int32_t[::1] day, const float[::1] delta, const int64_t[::1] contract_start,
    const int64_t[::1] expiry, const double[::1] strike, const int64_t[::1] session,
    bint is_call, double width, Py_ssize_t first_day, int min_dte, int max_dte, double min_delta, double max_delta,
):
    """Rows of the short and of the long leg of every vertical of one side and width.

    `expiry` (n_contracts,) and `session` (n_days,) are days since the epoch, ascending. The result is two int64
    arrays (n,), in chain order, the long row -1 where that leg is not there, and the number of chain
    rows in the dte window, int64 (n_days,).
    """
    cdef Py_ssize_t n_contracts = strike.shape[0], n_days = session.shape[0], n = 0, c, other, row, row_end, r
    cdef Py_ssize_t low = 0, high = 0, begin = 0, end = 0
    # A row is the short leg of one spread at most. What lies beyond the last of them is never touched.
    cdef int64_t[::1] short_row = np.empty(day.shape[0], np.int64), long_row = np.empty(day.shape[0], np.int64)
    in_window = np.zeros(session.shape[0], np.int64)
    cdef int64_t[::1] v_in_window = in_window
    if contract_start.shape[0] != n_contracts + 1 or expiry.shape[0] != n_contracts or delta.shape[0] != day.shape[0]:
        raise ValueError("the arrays of the chain do not fit one another")
    with nogil:
        # Contracts [low, high) are those of the expiry of contract c, and sessions [begin, end) those on which it is
        # in the dte window. Expiries ascend, so all four only move forward.
        for c in range(n_contracts):
            if c >= high:
                low = high = c
                while high < n_contracts and expiry[high] == expiry[c]:
                    high += 1
                while begin < n_days and (session[begin] < expiry[c] - max_dte or begin < first_day):
                    begin += 1
                while end < n_days and session[end] <= expiry[c] - min_dte:
                    end += 1
            if begin >= end:
                continue
            row, row_end = contract_start[c], contract_start[c + 1]
            while row < row_end and day[row] < begin:
                row += 1
            while row_end > row and day[row_end - 1] >= end:
                row_end -= 1
            for r in range(row, row_end):
                v_in_window[day[r]] += 1
            other = contract_at(strike, low, high, strike[c] + width if is_call else strike[c] - width)
            n = pair_contracts(day, delta, row, row_end, contract_start[other] if other >= 0 else 0,
                               contract_start[other + 1] if other >= 0 else 0,
                               is_call, min_delta, max_delta, n, short_row, long_row)
    return np.asarray(short_row)[:n].copy(), np.asarray(long_row)[:n].copy(), in_window


def follow_quotes(
    const int32_t[::1] day, const double[::1] bid, const double[::1] ask, const int64_t[::1] spread,
    const int64_t[::1] row, const int64_t[::1] row_end, const int32_t[::1] first_day, const int64_t[::1] start,
    const int64_t[::1] stop, double[::1] path_bid, double[::1] path_ask,
):
    """Write the quotes of a leg on each session from its entry on into the paths; where it has no row they are left alone.

    Of the spreads numbered `spread` (k,), the leg's contract is followed from `row` (k,), on session `first_day` (k,);
    `row_end` (k,) is the end of its run. The path of spread i is [start[i], stop[i]) of `path_bid` and `path_ask`.
    """
    cdef Py_ssize_t i, k, j, r, d
    if not (row.shape[0] == row_end.shape[0] == first_day.shape[0] == spread.shape[0]) or start.shape[0] != stop.shape[0] or (
            spread.shape[0] and not (0 <= np.min(spread) and np.max(spread) < start.shape[0]
                                     and np.max(stop) <= min(path_bid.shape[0], path_ask.shape[0]))):
        raise ValueError("spread, row, row_end, first_day (k,), start and stop (n,) and the paths do not fit one another")
    with nogil:
        for k in range(spread.shape[0]):
            i, r, d = spread[k], row[k], first_day[k]
            # Rows of the run before r are on sessions before d.
            for j in range(start[i], stop[i]):
                while r < row_end[k] and day[r] < d:
                    r += 1
                if r < row_end[k] and day[r] == d:
                    path_bid[j], path_ask[j] = bid[r], ask[r]
                d += 1


def best_of_groups(const int64_t[::1] group, const double[::1] score, Py_ssize_t n_groups, int most):
    """Which of the rows (n,) are among the best `most` of their group, and the score of the last of these in each group.

    Groups are numbers from 0 to n_groups - 1. Of equal scores the earlier row is the better; a NaN is never among them.
    Returns bool (n,), and float64 (n_groups,), minus infinity where a group has fewer.
    """
    cdef Py_ssize_t n = group.shape[0], i, g, k
    cdef double s
    top_of = np.full((n_groups, most), -np.inf)
    left_of, kept = np.full(n_groups, most, np.int32), np.zeros(n, np.bool_)
    cdef double[:, ::1] top = top_of
    cdef int32_t[::1] left = left_of
    cdef uint8_t[::1] v_kept = kept.view(np.uint8)
    if score.shape[0] != n or most < 1 or (n and not 0 <= np.min(group) <= np.max(group) < n_groups):
        raise ValueError("group and score (n,), n_groups and most do not fit one another")
    with nogil:
        for i in range(n):
            g, s, k = group[i], score[i], most - 1
            # top[g] is in descending order, and has the best of the rows before i.
            if s > top[g, k]:
                while k > 0 and s > top[g, k - 1]:
                    top[g, k] = top[g, k - 1]
                    k -= 1
                top[g, k] = s
        for g in range(n_groups):
            for k in range(most):
                left[g] -= top[g, k] > top[g, most - 1]
        # left[g] is how many rows there is room for that are as good as the last of the best and no better.
        for i in range(n):
            g, s = group[i], score[i]
            if s > top[g, most - 1]:
                v_kept[i] = 1
            elif s == top[g, most - 1] and left[g] > 0:
                v_kept[i], left[g] = 1, left[g] - 1
    return kept, top_of[:, most - 1]


def first_exits(
    const int32_t[::1] day, const double[::1] credit, const int64_t[::1] start, const int64_t[::1] stop,
    const double[::1] mid, const double[::1] close, const double[::1] far, double share, const double[::1] settlement,
    const int32_t[::1] assigned_day, const double[::1] assigned_cost, const int32_t[::1] time_day,
    double profit_target, double stop_loss,
):
    """The first session after entry on which a rule fires, in the order of `schema.Exit`.

    The path of spread i is [start[i], stop[i]) of `mid`, `close` and `far` (m,): the mid, and the cost to close at two
    fills, of which it is closed `share` of the way from one to the other; dollars per share, NaN where a leg has no
    usable quote. `settlement` (n,) is NaN where the expiry lies beyond the period; `time_day` (n,) is the first session
    whose dte is at most the exit dte. Returns day, reason, cost, mid, stale marks, each (n,); cost and mid are dollars
    per share.
    """
    cdef Py_ssize_t n = day.shape[0], i, j, last
    cdef double mark, m, target
    cdef int d, reason, stale
    out_day, out_reason = np.empty(n, np.int32), np.empty(n, np.int8)
    out_cost, out_mid, out_stale = np.empty(n), np.empty(n), np.empty(n, np.int32)
    cdef int32_t[::1] v_day = out_day, v_stale = out_stale
    cdef int8_t[::1] v_reason = out_reason
    cdef double[::1] v_cost = out_cost, v_mid = out_mid
    if start.shape[0] != n or stop.shape[0] != n or mid.shape[0] != close.shape[0] or mid.shape[0] != far.shape[0] or (
            n and not (0 <= np.min(start) and np.max(stop) <= mid.shape[0] and np.less(start, stop).all())):
        raise ValueError("start and stop (n,), mid, close and far (m,) do not fit one another")
    with nogil:
        for i in range(n):
            last = stop[i] - 1
            target = (1.0 - profit_target) * credit[i]
            mark, stale, reason = mid[start[i]], 0, END_OF_PERIOD
            # `mark` is the last usable mid before session j; no rule has fired on any session before j.
            # Never on the entry day: the quote that opened it cannot also close it.
            for j in range(start[i] + 1, last + 1):
                d = day[i] + <int>(j - start[i])
                if j == last and not isnan(settlement[i]):
                    reason, v_cost[i], mark = EXPIRY, settlement[i], settlement[i]
                    break
                m = mid[j]
                if isnan(m):
                    stale += 1
                    continue
                mark = m
                if d == assigned_day[i]:
                    reason, v_cost[i], mark = ASSIGNED, assigned_cost[i], assigned_cost[i]
                elif m <= target:
                    reason = PROFIT_TARGET
                elif m - credit[i] >= stop_loss * credit[i]:
                    reason = STOP_LOSS
                elif d >= time_day[i]:
                    reason = TIME
                else:
                    continue
                if reason != ASSIGNED:
                    v_cost[i] = (far[j] - close[j]) * share + close[j]
                break
            if reason == END_OF_PERIOD:
                d, v_cost[i] = day[i] + <int>(last - start[i]), mark
            v_day[i], v_reason[i], v_mid[i], v_stale[i] = d, reason, mark, stale
    return out_day, out_reason, out_cost, out_mid, out_stale
