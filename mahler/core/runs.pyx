# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Runs of rows on their way from the years that the store keeps to one chain, in which a contract is one run.

A row is copied once, as bytes, whatever its type, and no index of rows is made.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy


def place_runs(
    const uint8_t[::1] rows, uint8_t[::1] out, Py_ssize_t size, Py_ssize_t offset,
    const int64_t[::1] first, const int64_t[::1] length, const int64_t[::1] start,
):
    """Copy rows [offset, offset + n) of a year, of `size` bytes each, to where their runs lie in `out`.

    Run r is the rows first[r] : first[r] + length[r] of the year, and goes to row start[r] of `out` and on: (n_runs,)
    each, `first` ascending. Runs that are not all in these rows are copied as far as they are. Raises ValueError where
    a run does not fit into `out`.
    """
    cdef Py_ssize_t r, low, high, end = offset + rows.shape[0] // size
    if length.shape[0] != first.shape[0] or start.shape[0] != first.shape[0] or rows.shape[0] % size:
        raise ValueError("rows, first, length and start (n_runs,) do not fit one another")
    with nogil:
        for r in range(first.shape[0]):
            low, high = first[r], first[r] + length[r]
            if low < offset:
                low = offset
            if high > end:
                high = end
            if low >= high:
                continue
            if start[r] < 0 or (start[r] + high - first[r]) * size > out.shape[0]:
                with gil:
                    raise ValueError(f"run {r} does not fit into {out.shape[0] // size} rows")
            memcpy(&out[(start[r] + low - first[r]) * size], &rows[(low - offset) * size], (high - low) * size)
