"""Mahler: which layers on top of a rules-based credit-spread seller add value?"""

__version__ = "0.1.0"
