# cython: boundscheck=False, wraparound=False, cdivision=True, language_level=3
"""The 30-day at-the-money implied volatility of every day, in one walk over the rows of a chain.

Rows are sorted by (expiry, strike, day): an expiry is one run of contracts, a contract one run of rows.
The walk takes the expiries in order and looks at each one's rows twice while they are in the cache:

1. The forward of each day, by put-call parity at the strike K where call and put are nearest in price:
   F = K + call mid - put mid. There the discount factor and the early exercise premium all but vanish,
   so neither a rate nor a dividend is asked for. Only usable quotes count: ask > 0, ask >= bid >= 0.
2. The IV at the nearest strikes with an IV at or below and above the forward, linear in strike between
   them. A strike's IV is the mean of its call's and its put's, or the one there is. Without a strike on
   either side of the forward the expiry has no IV that day: nothing is extrapolated.

Of the expiries 7 to 60 calendar days away, the last within 30 days and the first beyond are interpolated
in total variance, IV^2 x dte, to 30 days. Where all lie on one side, as happens in years that only had
monthlies, the nearest one's IV stands for 30 days. An expiry nearer than 7 days is noise, one farther than
60 another market; so the answer does not depend on how far out the store reaches beyond 60 days.

tests/test_panel.py holds this to a literal twin.
"""

from libc.math cimport INFINITY, NAN, fabs, isnan, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

import numpy as np

cdef enum:
    TARGET_DTE = 30
    MIN_DTE = 7
    MAX_DTE = 60


cdef struct Rows:
    const int32_t* day
    const double* call_bid
    const double* call_ask
    const double* put_bid
    const double* put_ask
    const float* call_iv
    const float* put_iv


cdef struct Day:
    # Of the expiry at hand.
    double gap              # smallest |call mid - put mid| so far
    double forward          # NaN until a strike has both quotes
    double strike_below     # highest strike at or below the forward that has an IV
    double iv_below         # NaN until there is one
    double strike_above     # lowest strike above the forward that has an IV
    double iv_above         # NaN until there is one
    # Of all expiries so far.
    double near_dte         # last expiry within 30 days that has an IV
    double near_iv          # NaN until there is one
    double far_dte          # first expiry beyond 30 days that has an IV
    double far_iv           # NaN until there is one


cdef inline double _mid(double bid, double ask) noexcept nogil:
    return 0.5 * (bid + ask) if ask > 0 and ask >= bid and bid >= 0 else NAN


cdef inline double _iv(double call, double put) noexcept nogil:
    """Mean of what is finite and positive; NaN compares false, so it is neither."""
    cdef bint has_call = 0 < call < INFINITY, has_put = 0 < put < INFINITY
    if has_call and has_put:
        return 0.5 * (call + put)
    return call if has_call else put if has_put else NAN


cdef void _parity(const Rows* rows, int64_t first, int64_t last, double strike,
                  int begin, int end, Day* days) noexcept nogil:
    """Let one contract bid for the forward of each of its days in [begin, end)."""
    cdef int64_t r
    cdef int d
    cdef double parity
    for r in range(first, last):
        d = rows.day[r]
        if d < begin:
            continue
        if d >= end:
            break
        parity = _mid(rows.call_bid[r], rows.call_ask[r]) - _mid(rows.put_bid[r], rows.put_ask[r])
        if fabs(parity) < days[d].gap:      # strict: of equals the lowest strike stays; NaN never enters
            days[d].gap = fabs(parity)
            days[d].forward = strike + parity


cdef void _bracket(const Rows* rows, int64_t first, int64_t last, double strike,
                   int begin, int end, Day* days) noexcept nogil:
    """Let one contract bracket the forward from below (the last one wins) or above (the first one wins)."""
    cdef int64_t r
    cdef int d
    cdef double iv
    for r in range(first, last):
        d = rows.day[r]
        if d < begin:
            continue
        if d >= end:
            break
        if strike <= days[d].forward:
            iv = _iv(rows.call_iv[r], rows.put_iv[r])
            if not isnan(iv):
                days[d].strike_below = strike
                days[d].iv_below = iv
        elif isnan(days[d].iv_above):
            days[d].strike_above = strike
            days[d].iv_above = _iv(rows.call_iv[r], rows.put_iv[r])


cdef void _finish(Day* day, double dte) noexcept nogil:
    """Take the finished expiry into the day's pair around 30 days."""
    cdef double iv = NAN, share
    if day.strike_below == day.forward:
        iv = day.iv_below
    elif not isnan(day.iv_below) and not isnan(day.iv_above):
        share = (day.forward - day.strike_below) / (day.strike_above - day.strike_below)
        iv = day.iv_below + share * (day.iv_above - day.iv_below)
    if isnan(iv):
        return
    # Expiries come in order, so a later one within 30 days is nearer to 30, and the first beyond is nearest.
    if dte <= TARGET_DTE:
        day.near_dte = dte
        day.near_iv = iv
    elif isnan(day.far_iv):
        day.far_dte = dte
        day.far_iv = iv


cdef double _constant_maturity(const Day* day) noexcept nogil:
    cdef double near, far
    if isnan(day.far_iv):
        return day.near_iv
    if isnan(day.near_iv):
        return day.far_iv
    near = day.near_iv * day.near_iv * day.near_dte
    far = day.far_iv * day.far_iv * day.far_dte
    return sqrt((near + (far - near) * (TARGET_DTE - day.near_dte) / (day.far_dte - day.near_dte)) / TARGET_DTE)


cdef void _walk(const Rows* rows, const int64_t[::1] sessions, const int64_t[::1] start,
                const int64_t[::1] expiry, const double[::1] strike, Day* days, double[::1] out) noexcept nogil:
    cdef Py_ssize_t n_days = sessions.shape[0], n_contracts = expiry.shape[0], a = 0, b, c, d
    cdef int begin = 0, end = 0
    for d in range(n_days):
        days[d].near_iv = NAN
        days[d].far_iv = NAN
    # Here [begin, end) are the days on which the expiry of contract a is 7 to 60 days away, and
    # everything before a is in the days' pairs. Both ends only move forward, as expiries do.
    while a < n_contracts:
        b = a + 1
        while b < n_contracts and expiry[b] == expiry[a]:
            b += 1
        while begin < n_days and expiry[a] - sessions[begin] > MAX_DTE:
            begin += 1
        while end < n_days and expiry[a] - sessions[end] >= MIN_DTE:
            end += 1
        for d in range(begin, end):
            days[d].gap = INFINITY
            days[d].forward = NAN
            days[d].strike_below = NAN
            days[d].iv_below = NAN
            days[d].iv_above = NAN
        for c in range(a, b):
            _parity(rows, start[c], start[c + 1], strike[c], begin, end, days)
        for c in range(a, b):
            _bracket(rows, start[c], start[c + 1], strike[c], begin, end, days)
        for d in range(begin, end):
            _finish(&days[d], expiry[a] - sessions[d])
        a = b
    for d in range(n_days):
        out[d] = _constant_maturity(&days[d])


def atm_iv(const int64_t[::1] sessions, const int32_t[::1] day, const int64_t[::1] contract_start,
           const int64_t[::1] contract_expiry, const double[::1] contract_strike,
           const double[::1] call_bid, const double[::1] call_ask,
           const double[::1] put_bid, const double[::1] put_ask,
           const float[::1] call_iv, const float[::1] put_iv):
    """30-day at-the-money implied volatility, float64 (n_days,), a decimal; NaN where it cannot be had.

    Parameters
    ----------
    sessions
        Days since 1970, ascending (n_days,).
    day
        Index into sessions, ascending within a contract (n_rows,).
    contract_start
        The rows of contract c are contract_start[c] to contract_start[c + 1] (n_contracts + 1,).
    contract_expiry, contract_strike
        Days since 1970 and dollars, sorted by both (n_contracts,).
    call_bid, call_ask, put_bid, put_ask
        Dollars per share (n_rows,).
    call_iv, put_iv
        Decimals at the mid; NaN or 0 is missing (n_rows,).

    Raises ValueError where lengths do not agree or contracts are not in order.
    """
    cdef Py_ssize_t n_rows = day.shape[0]
    lengths = {day.shape[0], call_bid.shape[0], call_ask.shape[0], put_bid.shape[0], put_ask.shape[0],
               call_iv.shape[0], put_iv.shape[0]}
    if len(lengths) > 1:
        raise ValueError(f"columns of a chain have one length, got {sorted(lengths)}")
    start, expiry = np.asarray(contract_start), np.asarray(contract_expiry)
    if len(start) != len(expiry) + 1 or len(contract_strike) != len(expiry):
        raise ValueError(f"{len(expiry)} expiries, {len(contract_strike)} strikes and {len(start)} starts of contracts")
    if contract_start[0] != 0 or contract_start[len(expiry)] != n_rows or (np.diff(start) < 0).any():
        raise ValueError(f"contract_start ascends from 0 to the {n_rows} rows")
    if (np.diff(expiry) < 0).any() or (np.diff(np.asarray(sessions)) <= 0).any():
        raise ValueError("contracts are sorted by expiry, and sessions ascend")
    out = np.full(sessions.shape[0], NAN)
    if n_rows == 0 or sessions.shape[0] == 0:
        return out
    cdef double[::1] result = out
    cdef Rows rows = Rows(&day[0], &call_bid[0], &call_ask[0], &put_bid[0], &put_ask[0], &call_iv[0], &put_iv[0])
    cdef Day* days = <Day*>malloc(sessions.shape[0] * sizeof(Day))
    if days == NULL:
        raise MemoryError
    with nogil:
        _walk(&rows, sessions, contract_start, contract_expiry, contract_strike, days, result)
    free(days)
    return out
