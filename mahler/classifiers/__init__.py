"""Panel -> regime labels: one file per classifier, and one YAML in conf/classifier/ that picks it.

A classifier is a function `(panel, *, <numbers of its YAML>) -> int8 (n_days, n_tickers)` of schema.Regime.
The label of day t is known at the close of t: the same on history truncated at t. A day that cannot be
labelled is Regime.NONE.
"""
