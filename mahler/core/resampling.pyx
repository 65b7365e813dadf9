# cython: boundscheck=False, wraparound=False, cdivision=True, language_level=3
"""What an account did on resampled sessions, one pass a statistic, without a copy of the sessions that were drawn.

A sample is a row of indices into a series. Sums are in the order of the sample, so equal series have equal results. The
GIL is released: samples of several accounts may be looked at in threads.

tests/test_validation_bootstrap.py holds this to NumPy on the copies.
"""

from libc.math cimport NAN, isnan, sqrt
from libc.stdint cimport int64_t

import numpy as np


cdef double _ratio(const double* series, const int64_t* at, Py_ssize_t n) noexcept nogil:
    """Mean over standard deviation (n - 1); 0 for a sample that never moves, NaN for one that has a NaN."""
    cdef double total = 0.0, square = 0.0, low = series[at[0]], high = low, mean, value
    cdef Py_ssize_t i
    for i in range(n):
        value = series[at[i]]
        total += value
        low = value if value < low else low
        high = value if value > high else high
    if isnan(total):
        return NAN
    if not low < high:
        return 0.0
    mean = total / n
    for i in range(n):
        value = series[at[i]] - mean
        square += value * value
    return mean / sqrt(square / (n - 1))


def ratios(const double[:, ::1] series, const int64_t[:, ::1] at):
    """The Sharpe ratio a session, mean over standard deviation, of each of `series` (k, n) on each sample (b, m): (k, b)."""
    cdef Py_ssize_t k, b, n = at.shape[1]
    cdef double[:, ::1] found = np.empty((series.shape[0], at.shape[0]))
    with nogil:
        for k in range(series.shape[0]):
            for b in range(at.shape[0]):
                found[k, b] = _ratio(&series[k, 0], &at[b, 0], n)
    return np.asarray(found)


def wealth(const double[::1] logs, const int64_t[:, ::1] at):
    """Of the sums of `logs` (n,), log returns, on each sample (b, m): the last, and the lowest below its peak or 0: (2, b)."""
    cdef Py_ssize_t b, i, n = at.shape[1]
    cdef double level, peak, lowest
    cdef double[:, ::1] found = np.empty((2, at.shape[0]))
    with nogil:
        for b in range(at.shape[0]):
            level = peak = lowest = 0.0
            for i in range(n):
                level += logs[at[b, i]]
                if level > peak:
                    peak = level
                elif level - peak < lowest:
                    lowest = level - peak
            found[0, b], found[1, b] = level, lowest
    return np.asarray(found)
