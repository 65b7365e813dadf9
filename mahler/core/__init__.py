"""Compiled kernels: pure functions of arrays that know nothing of the rest of Mahler and hold no policy."""
