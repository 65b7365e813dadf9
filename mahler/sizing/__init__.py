"""Sizing rules, one a file: `(candidates, panel, multiplier) -> the columns risk_fraction and max_contracts`.

`risk_fraction` (n,) is the share of equity put at risk, 0 is a veto, inf is "so many lots, whatever the
equity". `max_contracts` (n,) caps the contracts, 0 is no cap; with an infinite risk fraction it is the
number of lots. `multiplier` (n,) is the regime's. Rounding to whole contracts, always down, happens at admission.
"""
