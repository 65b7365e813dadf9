"""Sizing rules, one a file: `(candidates, panel, multiplier) -> the columns risk_fraction and max_contracts`.

`risk_fraction` (n,) is the share of equity put at risk, 0 is a veto, inf is "so many lots, whatever the
equity". `max_contracts` (n,) caps the contracts, 0 is no cap; with an infinite risk fraction it is the
number of lots. `multiplier` (n,) is the regime's. Rounding to whole contracts, always down, happens at admission.
"""

from __future__ import annotations

import numpy as np

from mahler.schema import Regime, Table


def lots(sized: Table, equity: np.ndarray, max_loss: np.ndarray) -> np.ndarray:
    """Whole contracts that a sizing rule asks for before any limit: float64 (n,).

    `equity` (n,) and `max_loss` (n,) are dollars, the latter per contract.
    """
    cap = np.where(sized["max_contracts"] > 0, sized["max_contracts"], np.inf)
    with np.errstate(invalid="ignore"):
        asked = np.where(np.isinf(sized["risk_fraction"]), cap, sized["risk_fraction"] * equity / max_loss)
    return np.floor(np.minimum(np.maximum(asked, 0.0), cap) + 1e-9)


def scaled(sized: Table, multiplier: float) -> Table:
    """The columns risk_fraction and max_contracts of every size times `multiplier`; 1.0 leaves them as they are.

    A size that is so many lots, whatever the equity, is floored; where that leaves none it is `size_zero`, no veto.
    """
    fixed = np.isinf(sized["risk_fraction"])
    cap = np.where(fixed, np.floor(multiplier * sized["max_contracts"] + 1e-9), sized["max_contracts"]).astype(np.int32)
    least = np.where(sized["risk_fraction"] > 0, np.nextafter(0.0, 1.0), 0.0)
    risk = np.where(fixed & (cap == 0), least, np.maximum(multiplier * sized["risk_fraction"], least))
    return {"risk_fraction": risk, "max_contracts": cap}


def effective_multipliers(sized: Table, base: Table, regime: np.ndarray, equity: np.ndarray,
                          max_loss: np.ndarray) -> dict[str, float]:
    """What a regime's multiplier is after rounding to whole contracts: 0.4 x 1 contract is not 0.4.

    Contracts asked for over the contracts that a multiplier of one would have asked for (`base`), over all
    candidates (n,) of each regime; absent for a regime in which not one contract fits.
    """
    asked, whole = lots(sized, equity, max_loss), lots(base, equity, max_loss)
    return {r.name.lower(): asked[mine].sum() / whole[mine].sum()
            for r in Regime if r >= 0 and whole[mine := regime == r].sum() > 0}


def erased(nominal: dict[str, float], effective: dict[str, float], tolerance: float = 0.02) -> list[tuple[str, str]]:
    """Pairs of regimes whose multipliers differ, but whose effective multipliers are the same within `tolerance`."""
    names = sorted(nominal.keys() & effective.keys())
    return [(a, b) for k, a in enumerate(names) for b in names[k + 1:]
            if abs(nominal[a] - nominal[b]) > 1e-12 and abs(effective[a] - effective[b]) <= tolerance]
