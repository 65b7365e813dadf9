"""Black-Scholes-Merton against published examples, parity, finite differences and itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mahler import bsm

HULL = dict(spot=49.0, strike=50.0, years=0.3846, rate=0.05, dividend_yield=0.0, iv=0.20)   # Hull, chapter on greeks

markets = st.fixed_dictionaries({
    "spot": st.floats(10.0, 700.0), "moneyness": st.floats(-0.5, 0.5), "years": st.floats(1 / 365, 1.0),
    "rate": st.floats(0.0, 0.06), "dividend_yield": st.floats(0.0, 0.03), "iv": st.floats(0.05, 1.5),
    "is_call": st.booleans()})


def option(market: dict) -> tuple[dict, float]:
    """Arguments of a pricing function without the volatility, and the volatility."""
    terms = {k: v for k, v in market.items() if k not in ("moneyness", "iv")}
    return terms | {"strike": market["spot"] * np.exp(market["moneyness"])}, market["iv"]


@pytest.mark.parametrize("is_call, expected", [(True, 4.76), (False, 0.81)])
def test_prices_are_those_of_hulls_example(is_call, expected):
    value = bsm.price(42.0, 40.0, 0.5, 0.10, 0.0, 0.20, is_call)
    assert value == pytest.approx(expected, abs=0.005)


def test_the_price_with_a_yield_is_that_of_hulls_index_option():
    assert bsm.price(930.0, 900.0, 2 / 12, 0.08, 0.03, 0.20, True) == pytest.approx(51.83, abs=0.005)


def test_greeks_are_those_of_hulls_example():
    greeks = bsm.greeks(**HULL, is_call=True)
    assert greeks.delta == pytest.approx(0.522, abs=5e-4)
    assert greeks.gamma == pytest.approx(0.066, abs=5e-4)
    assert greeks.theta * 365 == pytest.approx(-4.31, abs=5e-3)
    assert greeks.vega * 100 == pytest.approx(12.1, abs=5e-2)


@given(markets)
def test_call_minus_put_is_the_forward(market):
    terms, iv = option(market)
    call, put = (bsm.price(**terms | {"is_call": side}, iv=iv) for side in (True, False))
    forward = (terms["spot"] * np.exp(-terms["dividend_yield"] * terms["years"])
               - terms["strike"] * np.exp(-terms["rate"] * terms["years"]))
    assert call - put == pytest.approx(forward, abs=1e-9 * terms["spot"])


@given(markets)
def test_greeks_are_the_slopes_of_the_price(market):
    terms, iv = option(market)
    greeks = bsm.greeks(**terms, iv=iv)

    def slope(name: str, step: float) -> float:
        at = terms | {"iv": iv}
        up, down = (bsm.price(**at | {name: at[name] + move}) for move in (step, -step))
        return (up - down) / (2 * step)

    dollar = 1e-5 * terms["spot"]
    assert greeks.delta == pytest.approx(slope("spot", dollar), abs=1e-4)
    assert greeks.vega * 100 == pytest.approx(slope("iv", 1e-5), abs=1e-4 * terms["spot"])
    step = 1e-4 * terms["years"]
    assert greeks.theta * 365 == pytest.approx(-slope("years", step), abs=2e-4 * (1 + abs(greeks.theta * 365)))


def test_gamma_is_the_slope_of_delta():
    up, down = (bsm.greeks(**HULL | {"spot": 49.0 + move}, is_call=False).delta for move in (1e-4, -1e-4))
    assert bsm.greeks(**HULL, is_call=False).gamma == pytest.approx((up - down) / 2e-4, rel=1e-5)


def test_deltas_of_call_and_put_differ_by_the_discounted_share():
    call, put = (bsm.greeks(100.0, 95.0, 0.25, 0.04, 0.02, 0.3, side).delta for side in (True, False))
    assert call - put == pytest.approx(np.exp(-0.02 * 0.25))


@pytest.mark.parametrize("is_call, expected", [(True, 10.0), (False, 0.0)])
def test_without_time_or_volatility_the_price_is_the_intrinsic_value(is_call, expected):
    assert bsm.price(110.0, 100.0, 0.0, 0.05, 0.01, 0.2, is_call) == expected
    assert bsm.price(110.0, 100.0, 1.0, 0.0, 0.0, 0.0, is_call) == pytest.approx(expected)


@given(markets)
def test_implied_volatility_reprices_the_option(market):
    terms, iv = option(market)
    value = bsm.price(**terms, iv=iv)
    found = float(bsm.implied_volatility(value, **terms))
    other = bsm.price(**terms | {"is_call": not terms["is_call"]}, iv=iv)
    if min(value, other) < 1e-8:         # nothing but intrinsic value: no volatility is told
        return
    assert np.isfinite(found)
    assert bsm.price(**terms, iv=found) == pytest.approx(value, abs=1e-9 * terms["spot"])


@pytest.mark.parametrize("value", [0.0, -1.0, 9.99, 110.0, 200.0, np.nan])
def test_a_price_outside_its_bounds_implies_no_volatility(value):
    found = bsm.implied_volatility(value, 110.0, 100.0, 0.25, 0.0, 0.0, True)   # worth 10 at least, 110 at most
    assert np.isnan(found)


def test_an_expired_option_implies_no_volatility():
    assert np.isnan(bsm.implied_volatility(11.0, 110.0, 100.0, 0.0, 0.0, 0.0, True))


def test_arguments_broadcast():
    strike, is_call = np.array([90.0, 100.0, 110.0]), np.array([[True], [False]])
    value = bsm.price(100.0, strike, 0.5, 0.02, 0.0, 0.2, is_call)
    assert value.shape == (2, 3)
    assert bsm.implied_volatility(value, 100.0, strike, 0.5, 0.02, 0.0, is_call).shape == (2, 3)
