"""Chains and daily series from their vendors: one file per source, and the one store that they fill."""
