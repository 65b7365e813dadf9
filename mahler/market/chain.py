"""Chains of the made-up market: a pure function of (path, seed, ticker, day), in whatever order days are made.

The quotes are those at the close, so that the underlying is the day's close. There is no row on the day of expiry.
Options are worth at least what exercising them brings; otherwise early exercise is not priced.
"""

from __future__ import annotations

import numpy as np

from mahler import bsm
from mahler.market import quotes, surface
from mahler.market.activity import activity
from mahler.market.path import Path
from mahler.market.rows import NOISE, Groups, chunks, generator, listed
from mahler.market.turning_points import TICKERS
from mahler.schema import CHAIN, Table, empty

CURVATURE = {"IWM": 0.80, "QQQ": 0.80, "SPY": 1.0}
"""Curvature of the smile over SPY's."""

# Steps of the rounding: the 4 or 5 decimals of a vendor's file, but powers of 2, which compress better.
_STEP = {"call_iv": 2.0 ** -13, "put_iv": 2.0 ** -13, "smooth_iv": 2.0 ** -14, "delta": 2.0 ** -16,
         "gamma": 2.0 ** -19, "theta": 2.0 ** -13, "vega": 2.0 ** -13}


def chain(path: Path, seed: int, ticker: str, days: np.ndarray, max_dte: int) -> Table:
    """All quotes of `ticker` on the sessions `days`, indices into the path (d,), up to `max_dte` calendar days.

    Returns a table of schema.CHAIN, sorted by date, expiry and strike. A longer `max_dte` adds rows and changes none.
    """
    groups = listed(path, seed, ticker, np.unique(days), max_dte)
    if groups is None:
        return empty(CHAIN)
    parts = [_quotes(path, seed, ticker, part) for part in chunks(groups)]
    return {name: np.concatenate([part[name] for part in parts]) for name in CHAIN.names}


def _quotes(path: Path, seed: int, ticker: str, groups: Groups) -> Table:
    """The rows of whole days."""
    column = TICKERS.index(ticker)
    of = np.repeat(np.arange(len(groups.day)), groups.count)            # (n,) group of a row
    dates, expiries = path.sessions[groups.day], path.calendar[groups.expiry]
    dte = (expiries - dates).astype(float)
    strike = groups.strike.astype(float)
    spot, rate, years = path.closes[groups.day, column][of], path.rates[groups.day][of], dte[of] / 365.0
    dividend_yield = path.dividend_yields[column]
    iv = _volatility(path, ticker, groups, dte, np.log(strike / spot) - (rate - dividend_yield) * years, of)

    option = (spot, strike, years, rate, dividend_yield)
    greeks = bsm.greeks(*option, iv, True)
    call = bsm.price(*option, iv, True)
    put = call - spot * np.exp(-dividend_yield * years) + strike * np.exp(-rate * years)
    noise = np.concatenate([generator(seed, NOISE, column, date).standard_normal((n, 4), dtype=np.float32)
                            for date, n in zip(*_rows_of_days(groups, dates))])    # (n, 4)
    fine, coarse = (tick[of] for tick in quotes.ticks(ticker, dates))
    year = dates.astype("datetime64[Y]").astype(int) + 1970.0
    scale = quotes.width_scale(ticker, path.tenors[groups.day, 1], dte, year)

    table = {"date": dates[of], "expiry": expiries[of], "strike": strike, "smooth_iv": iv, "underlying": spot,
             "flags": np.zeros(len(of), np.uint8), "gamma": greeks.gamma, "theta": greeks.theta, "vega": greeks.vega,
             # Without the yield's exp(-q T), at most 0.3 %: so that call delta - put delta = 1, as a chain row has it.
             "delta": np.clip(greeks.delta * np.exp(dividend_yield * years), 0.0, 1.0)}
    for k, (side, value, exercise) in enumerate((("call", call, spot - strike), ("put", put, strike - spot))):
        value = np.maximum(value, np.maximum(exercise, 0.0))
        width = scale[of] * value ** 0.27 * np.exp(quotes.WIDTH_NOISE * noise[:, k])
        bid, ask = quotes.quote(value, width * (quotes.CALL_WIDTH if side == "call" else 1.0), fine, coarse)
        table[f"{side}_bid"], table[f"{side}_ask"] = bid, ask
        table[f"{side}_iv"] = _mid_iv(bid, ask, option, side == "call", np.where(value < 3.0, fine, coarse))
    table |= activity(ticker, groups, of, dates, dte, table["delta"], noise[:, 2:])
    return {name: _rounded(table[name], name) for name in CHAIN.names}


def _rows_of_days(groups: Groups, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct dates and how many rows each has."""
    first = np.flatnonzero(np.r_[True, dates[1:] != dates[:-1]])
    return dates[first], np.add.reduceat(groups.count, first)


def _volatility(path: Path, ticker: str, groups: Groups, dte: np.ndarray, log_moneyness: np.ndarray,
                of: np.ndarray) -> np.ndarray:
    """The volatility (n,) that prices a row: the surface's, and without a premium what is to come, in variance."""
    column = TICKERS.index(ticker)
    years = dte / 365.0
    v = surface.term_volatility(path.tenors, groups.day, dte)           # (g,)
    atm = surface.atm_volatility(v, dte) * path.ratios[groups.day, column]
    psi = surface.curvature(v, dte) * CURVATURE[ticker]
    iv = surface.smile(log_moneyness, years[of], atm[of], psi[of])
    if path.premium == 1.0:
        return iv
    fair = (path.variance[groups.expiry, column] - path.variance[groups.day, column]) / years   # (g,)
    return np.sqrt(path.premium * iv ** 2 + (1.0 - path.premium) * fair[of])


def _mid_iv(bid: np.ndarray, ask: np.ndarray, option: tuple, is_call: bool, tick: np.ndarray) -> np.ndarray:
    """Volatility at the mid (n,); NaN where nobody bids, or where half a tick is all that is paid beyond intrinsic."""
    spot, strike, years, rate, dividend_yield = option
    mid = 0.5 * (bid + ask)
    forward = spot * np.exp(-dividend_yield * years) - strike * np.exp(-rate * years)
    beyond = mid - np.maximum(forward if is_call else -forward, 0.0)
    told = (bid > 0.0) & (beyond > 0.005 * tick)
    iv = np.full(len(mid), np.nan)
    dividend_yields = np.broadcast_to(dividend_yield, mid.shape)
    iv[told] = bsm.implied_volatility(mid[told], spot[told], strike[told], years[told], rate[told],
                                      dividend_yields[told], is_call)
    return iv


def _rounded(column: np.ndarray, name: str) -> np.ndarray:
    if name in _STEP:
        column = np.rint(column / _STEP[name]) * _STEP[name]
    return column.astype(CHAIN[name])
