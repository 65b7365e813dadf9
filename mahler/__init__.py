"""Mahler: which layers on top of a rules-based credit-spread seller add value?"""

import os

__version__ = "0.1.0"

# Arrays are made once and read a few times: to clear huge pages for them takes longer than they save.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
