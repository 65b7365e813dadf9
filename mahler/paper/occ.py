"""Option symbols as the OCC writes them, without the padding: QQQ240419P00425000."""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from mahler.schema import ConfigError, Side, shown

_SYMBOL = re.compile(r"([A-Z][A-Z0-9.]{0,5}) *(\d{6})([CP])(\d{8})")


class Contract(NamedTuple):
    """One option."""

    ticker: str
    expiration: date             # as it is printed
    side: Side
    strike: float                # dollars


def symbol(ticker: str, expiration: date, side: Side, strike: float) -> str:
    """The symbol of an option; the strike is in dollars and at most to a tenth of a cent."""
    return f"{ticker}{expiration:%y%m%d}{side.name[0]}{round(1000 * strike):08d}"


def is_option(text: str) -> bool:
    """Whether `text` has the form of an option symbol; a stock's has not."""
    return _SYMBOL.fullmatch(text) is not None


def parse(text: str) -> Contract:
    """The option that a symbol names, padded or not. Raises ConfigError, showing it, where it is none."""
    found = _SYMBOL.fullmatch(text)
    try:
        ticker, day, side, strike = found.groups() if found else ("", "", "", "")
        expiration = date(2000 + int(day[:2]), int(day[2:4]), int(day[4:]))
    except ValueError:
        raise ConfigError(f"{shown(text)} is no option symbol (as QQQ240419P00425000 is)") from None
    return Contract(ticker, expiration, Side.CALL if side == "C" else Side.PUT, int(strike) / 1000.0)
