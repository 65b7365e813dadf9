"""The panel: the state of the market on each session, as far as it is known at that session's close.

Every feature of day t reads rows up to t and nothing else, so it is the same on history truncated at t.
A feature is NaN where an input of its window is missing: nothing is carried forward or filled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mahler.core import features
from mahler.data import splits as splits_
from mahler.data.daily import Daily
from mahler.data.splits import Splits
from mahler.schema import SESSIONS_PER_YEAR, ConfigError, Table

if TYPE_CHECKING:
    from mahler.data.store import Chain, Chains

PANEL_VERSION = 3
"""Part of every panel's fingerprint: goes up when a formula below, or the kernel's, changes a number."""

ATM_IV_DTE = 60
"""Calendar days to expiration up to which atm_iv looks; rows beyond do not change it."""

FAST, SLOW = 20, 50                 # sessions of the short and the long moving average
IV_WINDOW, IV_MIN = 252, 126        # sessions that iv_percentile looks back on, and fewest of them with an ATM IV
RATE_MAX_AGE = 7                    # calendar days that a bill rate stands for: bond markets have more holidays

# The quotes are from about 14 minutes before the close. In those the S&P 500 moved 16 bp in the median of
# 2020 and 3.1 % at most; a series farther away is of another market, or adjusted for splits or dividends.
CLOSE_MEDIAN_GAP, CLOSE_MAX_GAP = 0.01, 0.10
MEDIAN_MIN = 60                     # sessions before the median is looked at: a week of a crash proves nothing

SPLIT_JUMP = np.log(1.8)            # log return between sessions that only a split explains, or a user who says not
SPLIT_ROOM = np.log(1.25)           # log return that may remain of a split's
SPLIT_GAP = 7                       # calendar days between neighbouring sessions: over a longer gap prices may go far


@dataclass(frozen=True)
class Panel:
    """Daily market state; arrays are float64 (n_days, n_tickers), NaN where it is not known."""

    tickers: tuple[str, ...]
    dates: np.ndarray           # datetime64[D] (n_days,), the sessions of the chains
    spot: np.ndarray            # dollars, the underlying at the time of the quotes
    close: np.ndarray           # dollars, official close, not adjusted; `sources` says where it is the spot
    atm_iv: np.ndarray          # decimal a year, at 30 calendar days
    iv_percentile: np.ndarray   # share of the previous 252 sessions whose atm_iv was below today's, 0 to 1
    vix: np.ndarray             # percentage points; one series, the same in every column
    realized_vol: np.ndarray    # decimal a year, of 20 sessions
    momentum: np.ndarray        # return of 20 sessions
    trend: np.ndarray           # (SMA20 - SMA50) / SMA50
    iv_rv_spread: np.ndarray    # atm_iv - realized_vol
    rate: np.ndarray            # (n_days,), decimal a year
    dividends: dict[str, tuple[np.ndarray, np.ndarray]]   # by ticker: ex-dates and dollars per share, or empty
    sources: dict[str, str]     # where close, vix, rate and dividends come from, and why not from a daily series
    fingerprint: str            # SHA-256 of chains, daily series and PANEL_VERSION
    splits: Splits = field(default_factory=dict)          # of shares, by ticker that had any


def build(chains: Chains, daily: Daily | None) -> Panel:
    """The panel of all sessions and tickers of `chains`.

    Parameters
    ----------
    chains
        Complete to at least ATM_IV_DTE calendar days, or atm_iv has fewer expiries to interpolate between.
    daily
        Series of the same market, or None. A close or the VIX is taken from it only where it has every
        session; otherwise the chain's own stands in on every session, and `sources` says why.

    Raises
    ------
    ConfigError
        Where a daily close is not that of the chain's market: over 10 % from the underlying on any session
        or, over 60 sessions or more, 1 % in the median.
    """
    spot = np.column_stack([chains[ticker].spot for ticker in chains.tickers])   # (n_days, n_tickers)
    spot = np.where(spot > 0, spot, np.nan)         # an underlying of 0 is a vendor's blank
    atm_iv = np.column_stack([_atm_iv(chains[ticker]) for ticker in chains.tickers])
    close, close_source = _closes(chains, spot, daily)
    vix, vix_source = _vix(chains, atm_iv, daily)
    rate, rate_source = _rate(chains.sessions, daily)
    dividends, dividend_source = _dividends(chains.tickers, daily)
    splits, split_source = _splits(chains.tickers, daily)
    comparable = close / np.column_stack([splits_.factor(chains.sessions, splits.get(ticker, splits_.NONE))
                                          for ticker in chains.tickers])         # a return across a split is no jump
    volatility = realized_vol(comparable)
    return Panel(
        tickers=tuple(chains.tickers), dates=chains.sessions, spot=spot, close=close, atm_iv=atm_iv,
        iv_percentile=iv_percentile(atm_iv), vix=vix, realized_vol=volatility,
        momentum=momentum(comparable), trend=trend(comparable), iv_rv_spread=atm_iv - volatility, rate=rate,
        dividends=dividends, splits=splits, fingerprint=fingerprint(chains, daily),
        sources={"close": close_source, "vix": vix_source, "rate": rate_source, "dividends": dividend_source,
                 "splits": split_source})


# ---------------------------------------------------------------------------------------------- features


def realized_vol(close: np.ndarray) -> np.ndarray:
    """Standard deviation (ddof 0) of the last 20 daily log returns x sqrt(252); float64 like `close` (n_days, n)."""
    returns = np.diff(np.log(close), axis=0)
    return _rolling(returns, FAST, np.std, len(close)) * np.sqrt(SESSIONS_PER_YEAR)


def momentum(close: np.ndarray) -> np.ndarray:
    """close_t / close_{t-20} - 1; float64 like `close` (n_days, n)."""
    out = np.full(close.shape, np.nan)
    out[FAST:] = close[FAST:] / close[:-FAST] - 1
    return out


def trend(close: np.ndarray) -> np.ndarray:
    """(SMA20 - SMA50) / SMA50 of the closes up to t; float64 like `close` (n_days, n)."""
    slow = _rolling(close, SLOW, np.mean, len(close))
    return (_rolling(close, FAST, np.mean, len(close)) - slow) / slow


def iv_percentile(atm_iv: np.ndarray) -> np.ndarray:
    """Share of the previous 252 sessions, today excluded, whose ATM IV was below today's; like `atm_iv` (n_days, n).

    Sessions without an ATM IV are not counted. NaN where fewer than 126 of the 252 have one, or today has none.
    """
    before = np.vstack([np.full((IV_WINDOW, atm_iv.shape[1]), np.nan), atm_iv[:-1]])
    windows = sliding_window_view(before, IV_WINDOW, axis=0)                # (n_days, n, 252)
    below = np.count_nonzero(windows < atm_iv[:, :, None], axis=-1)         # NaN is below nothing
    known = np.vstack([np.zeros((1, atm_iv.shape[1]), int), np.cumsum(np.isfinite(before), axis=0)])
    observed = known[IV_WINDOW:] - known[:-IV_WINDOW]
    with np.errstate(invalid="ignore"):
        share = below / observed
    return np.where((observed >= IV_MIN) & np.isfinite(atm_iv), share, np.nan)


def _rolling(values: np.ndarray, window: int, statistic: Callable[..., np.ndarray], n_days: int) -> np.ndarray:
    """`statistic` of the last `window` rows of `values`, aligned with the end of n_days rows; NaN before it is full.

    Column by column: how numpy adds depends on what lies beside a number, and a ticker is the same in any company.
    """
    out = np.full((n_days, values.shape[1]), np.nan)
    if len(values) >= window:
        for k, column in enumerate(np.ascontiguousarray(values.T)):
            out[n_days - len(values) + window - 1:, k] = statistic(sliding_window_view(column, window), axis=-1)
    return out


def _atm_iv(chain: Chain) -> np.ndarray:
    return features.atm_iv(chain.sessions.astype(np.int64), chain.day, chain.contract_start,
                           chain.contract_expiry.astype(np.int64), chain.contract_strike,
                           chain.call_bid, chain.call_ask, chain.put_bid, chain.put_ask, chain.call_iv, chain.put_iv)


# ---------------------------------------------------------------------------------------------- sources


def _closes(chains: Chains, spot: np.ndarray, daily: Daily | None) -> tuple[np.ndarray, str]:
    """Closes (n_days, n_tickers), each ticker's wholly from one source, and which."""
    close, sources = spot.copy(), []
    for i, ticker in enumerate(chains.tickers):
        series, why_not = _whole(f"{ticker}_close", chains.sessions, daily)
        if series is not None:
            _check_same_market(ticker, chains.sessions, series, spot[:, i])
            close[:, i] = series
        sources.append(f"chain{why_not}" if series is None else "daily")
    return close, _by_ticker(chains.tickers, sources)


def _vix(chains: Chains, atm_iv: np.ndarray, daily: Daily | None) -> tuple[np.ndarray, str]:
    """Percentage points, the same for every ticker (n_days, n_tickers), and the source."""
    series, why_not = _whole("VIX", chains.sessions, daily)
    source = "daily"
    if series is None:
        stand_in = "SPY" if "SPY" in chains.tickers else chains.tickers[0]
        series = 100 * atm_iv[:, chains.tickers.index(stand_in)]
        source = f"atm_iv of {stand_in}{why_not}"
    return np.tile(series[:, None], (1, len(chains.tickers))), source


def _rate(sessions: np.ndarray, daily: Daily | None) -> tuple[np.ndarray, str]:
    """Decimal a year (n_days,), the last bill rate published, or 0 throughout; and the source."""
    if daily is None or "DTB3" not in daily.columns:
        return np.zeros(len(sessions)), "0"
    percent = daily.latest("DTB3", sessions, RATE_MAX_AGE)
    if np.isnan(percent).any():
        return np.zeros(len(sessions)), "0" + _gaps("DTB3", percent, sessions)
    return percent / 100, "daily DTB3"


def _dividends(tickers: tuple[str, ...], daily: Daily | None) -> tuple[dict, str]:
    none = (np.empty(0, dtype="datetime64[D]"), np.empty(0))
    found = {ticker: none if daily is None else daily.dividends(ticker) for ticker in tickers}
    return found, _by_ticker(tickers, ["daily" if len(found[ticker][0]) else "none" for ticker in tickers])


def _splits(tickers: tuple[str, ...], daily: Daily | None) -> tuple[Splits, str]:
    known = {} if daily is None else {t: daily.splits[t] for t in tickers if t in daily.splits}
    return known, _by_ticker(tickers, [f"{len(known[t][0])} known" if t in known else "none" for t in tickers])


def _whole(name: str, sessions: np.ndarray, daily: Daily | None) -> tuple[np.ndarray | None, str]:
    """The daily series `name` (n_days,) if it has every session, else None and, where it has gaps, a word of them."""
    if daily is None or name not in daily.columns:
        return None, ""
    series = daily.on(name, sessions)
    return (None, _gaps(name, series, sessions)) if np.isnan(series).any() else (series, "")


def _gaps(name: str, series: np.ndarray, sessions: np.ndarray) -> str:
    missing = np.isnan(series)
    return f" (daily {name} lacks {missing.sum()} of {len(sessions)} sessions, first {sessions[np.argmax(missing)]})"


def _check_same_market(ticker: str, sessions: np.ndarray, close: np.ndarray, spot: np.ndarray) -> None:
    """Raise ConfigError where `close` (n_days,) cannot be the official close of the market that `spot` quotes."""
    gap = np.abs(close / spot - 1)
    if np.isnan(gap).all():
        return
    worst, median = int(np.nanargmax(gap)), float(np.nanmedian(gap))
    if gap[worst] > CLOSE_MAX_GAP or (len(gap) >= MEDIAN_MIN and median > CLOSE_MEDIAN_GAP):
        raise ConfigError(
            f"daily {ticker}_close is {close[worst]:g} dollars on {sessions[worst]} where the chain's underlying is "
            f"{spot[worst]:g} (median gap {median:.2%}, at most {CLOSE_MEDIAN_GAP:.0%}; any day {CLOSE_MAX_GAP:.0%}): "
            "it must be this market's official close, not adjusted for splits or dividends")


def check_splits(panel: Panel) -> None:
    """Raise ConfigError where an underlying jumps as it does at a split and none is known, or does not where one is.

    A split that is not known makes nonsense of every feature that looks back across it, and of every position that is
    held across it: its strikes are gone. This looks at all of the panel, at the door; no number comes of it.
    """
    for i, ticker in enumerate(panel.tickers):
        days, divisors = panel.splits.get(ticker, splits_.NONE)
        known = panel.spot[:, i] > 0
        spot, dates = panel.spot[known, i], panel.dates[known]
        jump, neighbours = np.diff(np.log(spot)), np.diff(dates).astype(int) <= SPLIT_GAP
        listed = np.diff(np.searchsorted(days, dates, side="right")) > 0
        factors = splits_.factor(dates, (days, divisors))
        left = np.abs(jump + np.log(factors[:-1] / factors[1:]))
        unknown = neighbours & ~listed & (np.abs(jump) > SPLIT_JUMP)
        wrong = neighbours & listed & (left > SPLIT_ROOM) & (left > np.abs(jump))
        for k in np.flatnonzero(unknown | wrong)[:1]:
            moved = f"{ticker} went from {spot[k]:g} dollars on {dates[k]} to {spot[k + 1]:g} on {dates[k + 1]}"
            if wrong[k]:
                raise ConfigError(f"{moved}, where a split by {factors[k] / factors[k + 1]:g} is known: its date is "
                                  "wrong, or the chain is adjusted already")
            row = f"{ticker},{dates[k + 1]},{spot[k] / spot[k + 1]:.3g}"
            raise ConfigError(f"{moved}: if that is a split, name it in data/daily/{splits_.FILE} (ticker,date,divisor:"
                              f" {row}); if not, name it with the divisor 1")


def _by_ticker(tickers: tuple[str, ...], sources: list[str]) -> str:
    """One text if all tickers have one source, else each one's."""
    return sources[0] if len(set(sources)) == 1 else ", ".join(map(" ".join, zip(tickers, sources)))


# ---------------------------------------------------------------------------------------------- keeping


def fingerprint(chains: Chains, daily: Daily | None) -> str:
    """What a panel depends on, as 64 hex digits, without reading a row."""
    parts = [PANEL_VERSION, chains.fingerprint, None if daily is None else daily.fingerprint]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


FEATURES = ("spot", "close", "atm_iv", "iv_percentile", "vix", "realized_vol", "momentum", "trend", "iv_rv_spread", "rate")


def to_arrays(panel: Panel) -> Table:
    """A panel as named arrays, to be kept in a cache."""
    arrays = {name: getattr(panel, name) for name in FEATURES} | {"dates": panel.dates}
    for ticker, (dates, amounts) in panel.dividends.items():
        arrays |= {f"dividend_dates.{ticker}": dates, f"dividends.{ticker}": amounts}
    for ticker, (dates, divisors) in panel.splits.items():
        arrays |= {f"split_dates.{ticker}": dates, f"splits.{ticker}": divisors}
    return arrays | {"sources": np.array([json.dumps(panel.sources)]), "tickers": np.array(panel.tickers)}


def from_arrays(arrays: Table, fingerprint: str) -> Panel:
    """The panel that `to_arrays` took apart."""
    tickers = tuple(str(ticker) for ticker in arrays["tickers"])
    return Panel(
        tickers=tickers, dates=arrays["dates"], **{name: arrays[name] for name in FEATURES}, fingerprint=fingerprint,
        dividends={t: (arrays[f"dividend_dates.{t}"], arrays[f"dividends.{t}"]) for t in tickers},
        splits={t: (arrays[f"split_dates.{t}"], arrays[f"splits.{t}"]) for t in tickers if f"splits.{t}" in arrays},
        sources=json.loads(str(arrays["sources"][0])))
