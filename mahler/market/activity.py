"""Volume and open interest of the made-up market."""

from __future__ import annotations

import numpy as np

from mahler.market.rows import Groups
from mahler.schema import Table

# Logarithm of the contracts of an at-the-money call in 2016: traded a day, and open.
AT_THE_MONEY = {"IWM": (5.6, 7.0), "QQQ": (6.0, 7.2), "SPY": (7.0, 8.2)}
PUT_VOLUME, PUT_OPEN_INTEREST = 1.4, 1.9    # over a call's
ROUND_STRIKES = ((10, 0.5), (5, 0.7))       # dollars; ln of what a strike on it has more, cumulative
GROWTH = 0.06                               # a year
SESSIONS_PER_WEEK = 5


def activity(ticker: str, groups: Groups, of: np.ndarray, dates: np.ndarray, dte: np.ndarray, delta: np.ndarray,
             noise: np.ndarray) -> Table:
    """Volume and open interest in contracts, (n,) each: most at round strikes, at |delta| 0.1-0.5 and in puts.

    `of` is the group of a row (n,), `dates` and `dte` are of the groups (g,), `delta` is the call's (n,), `noise`
    standard normal (n, 2).

    Open interest lies where the spot has been since the listing, and grows with the weeks; volume has news every day.
    """
    volume, open_interest = AT_THE_MONEY[ticker]
    year = (dates + dte.astype("timedelta64[D]") - np.datetime64("2016-01-01")).astype(float) / 365.25   # of expiry
    level = (GROWTH * year)[of] + sum(more * (groups.strike % dollars == 0) for dollars, more in ROUND_STRIKES)
    traded = volume + level - 0.25 * np.log(dte / 7.0)[of] + 0.8 * np.log(4.0 * delta * (1.0 - delta) + 0.002)
    away = np.maximum(np.log(groups.low[of] / groups.strike), np.log(groups.strike / groups.high[of]))
    away = np.floor(np.maximum(away, 0.0) / groups.reach[of] * 4.0) / 4.0       # quarters of a standard deviation
    weeks = groups.age // SESSIONS_PER_WEEK
    held = open_interest + level - 0.5 * (away / 0.8) ** 2 + np.log((1.0 + weeks) / (4.0 + weeks))[of]
    out = {}
    for k, (side, more, more_held) in enumerate((("call", 1.0, 1.0), ("put", PUT_VOLUME, PUT_OPEN_INTEREST))):
        liked = groups.popularity[:, k]
        out[f"{side}_volume"] = np.floor(more * np.exp(traded + 0.5 * liked + 1.1 * noise[:, k]))
        out[f"{side}_open_interest"] = np.floor(more_held * np.exp(held + 0.9 * liked))
    return out
