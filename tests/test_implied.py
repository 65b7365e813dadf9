"""What quotes imply: accuracy and speed of the solver, and which rows of a chain are filled from it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import ndtri

from mahler import bsm, implied
from mahler.implied import GREEKS
from mahler.schema import CHAIN, Flag, Table, empty

RATE = 0.03


def random_options(n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arguments of a price without the volatility, and volatilities of 3 to 200 %; |delta| is uniform."""
    rng = np.random.default_rng(seed)
    spot, years = rng.uniform(10, 700, n), rng.integers(1, 731, n) / 365
    rate, dividend_yield = rng.uniform(-0.01, 0.08, n), rng.uniform(0, 0.05, n)
    iv, is_call = np.exp(rng.uniform(np.log(0.03), np.log(2), n)), rng.random(n) < 0.5
    deviation, d1 = iv * np.sqrt(years), ndtri(rng.uniform(0.001, 0.999, n))
    strike = spot * np.exp((rate - dividend_yield) * years - d1 * deviation + 0.5 * deviation ** 2)
    return dict(spot=spot, strike=strike, years=years, rate=rate, dividend_yield=dividend_yield, is_call=is_call), iv


# ---- the solver ------------------------------------------------------------------------------------------------------


def test_a_million_volatilities_come_back_to_1e_8_at_deltas_from_0_001_to_0_999() -> None:
    options, iv = random_options(1_000_000, seed=1)
    value = bsm.price(**options, iv=iv)
    began = time.process_time()
    found = bsm.implied_volatility(value, **options)
    seconds = time.process_time() - began
    assert np.abs(found - iv).max() < 1e-8
    assert seconds < 5, "make bench asks for 2 M a second"


def test_prices_far_from_the_money_come_back_as_well_as_their_digits_tell() -> None:
    """|delta| down to 1e-9, a day to three years, IVs of 0.1 to 990 %: the error is that of the price's last digit."""
    rng, n = np.random.default_rng(2), 200_000
    years, iv, d1 = rng.choice([1 / 365, 7 / 365, 0.5, 3.0], n), np.exp(rng.uniform(np.log(1.1e-3), np.log(9.9), n)), \
        rng.uniform(-6, 6, n)
    spot, is_call = rng.uniform(1, 5000, n), rng.random(n) < 0.5
    strike = spot * np.exp(-d1 * iv * np.sqrt(years) + 0.5 * iv ** 2 * years)
    value = bsm.price(spot, strike, years, 0.0, 0.0, iv, is_call)
    found = bsm.implied_volatility(value, spot, strike, years, 0.0, 0.0, is_call)
    digit = np.finfo(float).eps * np.maximum(spot, strike)
    told = digit / (100 * bsm.greeks(spot, strike, years, 0.0, 0.0, iv, is_call).vega)
    fine = told < 1e-10
    assert fine.mean() > 0.7
    assert (np.abs(found - iv)[fine] <= 1e-9 + 20 * told[fine]).all()
    solved = np.isfinite(found)
    again = bsm.price(spot, strike, years, 0.0, 0.0, np.where(solved, found, 0.2), is_call)
    assert (np.abs(again - value)[solved] <= 20 * digit[solved]).all()


@pytest.mark.parametrize("moneyness", [-0.3, -0.01, 0.0, 0.2])
@pytest.mark.parametrize(("iv", "there"), [(0.0009, False), (0.0011, True), (9.9, True), (10.1, False)])
def test_a_volatility_outside_of_a_thousandth_and_ten_is_none(moneyness: float, iv: float, there: bool) -> None:
    strike = 100 * np.exp(moneyness * iv)
    value = bsm.price(100.0, strike, 1.0, 0.0, 0.0, iv, True)
    found = float(bsm.implied_volatility(value, 100.0, strike, 1.0, 0.0, 0.0, True))
    assert found == pytest.approx(iv, rel=1e-6) if there else np.isnan(found)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    """Options are solved a block at a time, and those that are solved leave it."""
    options, iv = random_options(20_000, seed=3)
    value = bsm.price(**options, iv=iv)
    value[::7] = 0.0
    whole = bsm.implied_volatility(value, **options)
    for rows in (slice(8_000, 8_400), slice(0, 1)):
        part = bsm.implied_volatility(value[rows], **{name: column[rows] for name, column in options.items()})
        np.testing.assert_array_equal(part, whole[rows])


# ---- what is filled --------------------------------------------------------------------------------------------------


def priced(*, spot: float = 400.0, iv: float = 0.22, dividend_yield: float = 0.01) -> Table:
    """A chain of two days and two expiries, quoted tightly, with the underlying, IVs and greeks that made it."""
    days, expiries = (np.array(texts, "datetime64[D]") for texts in
                      (["2024-01-03", "2024-01-04"], ["2024-01-19", "2024-02-16"]))
    grid = np.meshgrid(days, expiries, np.arange(340.0, 465.0, 5.0), indexing="ij")
    chain = empty(CHAIN, grid[0].size)
    chain["date"], chain["expiry"], chain["strike"] = (axis.ravel() for axis in grid)
    years = (chain["expiry"] - chain["date"]).astype(int) / 365
    for side in ("call", "put"):
        value = bsm.price(spot, chain["strike"], years, RATE, dividend_yield, iv, side == "call")
        chain[f"{side}_bid"], chain[f"{side}_ask"] = 0.999 * value, 1.001 * value
        chain[f"{side}_iv"] = np.full(len(value), iv)
    greeks = bsm.greeks(spot, chain["strike"], years, RATE, dividend_yield, iv, True)
    chain |= {name: getattr(greeks, name) for name in GREEKS}
    chain["underlying"][:] = spot
    return chain


def without(chain: Table, rows: np.ndarray | slice, *names: str) -> Table:
    chain = {name: column.copy() for name, column in chain.items()}
    for name in names:
        chain[name][rows] = np.nan
    return chain


def test_a_chain_that_lacks_nothing_is_left_alone_and_has_no_flag() -> None:
    chain = priced()
    filled = implied.fill(chain, RATE)
    for name in CHAIN.names:
        np.testing.assert_array_equal(filled[name], chain[name].astype(CHAIN[name]), err_msg=name)
    assert not filled["flags"].any()


def test_only_what_is_missing_is_computed_and_its_rows_are_flagged() -> None:
    chain = priced()
    lacking = without(without(chain, slice(0, 10), "call_iv"), slice(20, 30), "gamma")
    lacking["put_iv"][0] = 0.5                          # the vendor's own, right or wrong
    filled = implied.fill(lacking, RATE)
    assert np.flatnonzero(filled["flags"] & Flag.IV_COMPUTED).tolist() == list(range(10))
    assert np.flatnonzero(filled["flags"] & Flag.GREEKS_COMPUTED).tolist() == list(range(20, 30))
    np.testing.assert_allclose(filled["call_iv"][:10], 0.22, atol=2e-3)
    assert filled["put_iv"][0] == 0.5
    np.testing.assert_allclose(filled["gamma"], chain["gamma"], rtol=2e-2)
    assert implied.counts(filled) == {"iv_computed": 10, "greeks_computed": 10, "without_greeks": 0}


def test_greeks_are_made_with_the_vendors_iv_where_it_has_one() -> None:
    chain = without(priced(), slice(None), *GREEKS)
    puts = chain["strike"] < 380
    chain["put_iv"][puts] = 0.40                        # not what the quotes say
    filled = implied.fill(chain, RATE)
    years = (chain["expiry"] - chain["date"]).astype(int) / 365
    true = bsm.greeks(400.0, chain["strike"], years, RATE, 0.01, chain["put_iv"].astype(float), True)
    for name in GREEKS:
        np.testing.assert_allclose(filled[name][puts], getattr(true, name)[puts], rtol=2e-2, err_msg=name)


def test_a_given_underlying_is_kept_and_a_missing_one_is_implied() -> None:
    chain = priced()
    first_day = chain["date"] == np.datetime64("2024-01-03")
    chain["underlying"][:] = 401.0
    filled = implied.fill(without(chain, first_day, "underlying"), RATE)
    assert (filled["underlying"][~first_day] == 401.0).all()
    np.testing.assert_allclose(filled["underlying"][first_day], 400.0, atol=0.25)      # less the dividends of 16 days


def test_where_the_underlying_is_stale_ivs_are_still_those_of_the_forward() -> None:
    """IVs of calls and puts agree: both are of the forward that the quotes imply, not of a price a dollar off."""
    chain = without(priced(), slice(None), "call_iv", "put_iv", *GREEKS)
    chain["underlying"][:] = 401.5
    filled = implied.fill(chain, RATE)
    calls = chain["strike"] >= 400
    np.testing.assert_allclose(filled["call_iv"][calls], 0.22, atol=5e-3)
    np.testing.assert_allclose(filled["put_iv"][~calls], 0.22, atol=5e-3)


def test_what_the_quotes_do_not_tell_stays_missing() -> None:
    chain = without(priced(), slice(None), "call_iv", "put_iv", *GREEKS)
    january = chain["expiry"] == np.datetime64("2024-01-19")
    chain["call_bid"][january] = 0.0                    # no two-sided call: no forward
    filled = implied.fill(chain, RATE)
    for name in ("call_iv", "put_iv", *GREEKS):
        assert np.isnan(filled[name][january]).all() and np.isfinite(filled[name][~january]).all(), name
    assert not filled["flags"][january].any()
