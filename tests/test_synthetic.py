"""The synthetic market as a source: what is listed, how it is quoted, and that nothing depends on how it is made."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mahler import bsm, home
from mahler.data import store, synthetic
from mahler.data.calendar import is_session, sessions
from mahler.market import listings, quotes, surface, turning_points
from mahler.market.chain import chain
from mahler.market.simulation import simulate
from mahler.market.turning_points import TICKERS
from mahler.schema import CHAIN, ConfigError

OPTIONS = yaml.safe_load((home.conf_dir() / "data" / "synthetic.yaml").read_text())
PARAMS = {key: OPTIONS[key] for key in ("seed", "max_dte", "variance_premium", "drift", "anchor")}
SEED = PARAMS["seed"]


def quiet(done: int, total: int, label: str) -> None:
    """Progress that nobody watches."""


def on(path, *dates: str) -> np.ndarray:
    """Indices into the path of the sessions `dates`."""
    return np.searchsorted(path.sessions, np.array(dates, dtype="datetime64[D]"))


def rows(table: dict, where: np.ndarray) -> dict:
    return {name: column[where] for name, column in table.items()}


def equal(left: dict, right: dict) -> bool:
    return all(np.array_equal(left[n], right[n], equal_nan=CHAIN[n].kind == "f") for n in CHAIN.names)


@pytest.fixture(scope="module")
def path():
    return simulate(SEED, premium=1.0, drift=1.0)


@pytest.fixture(scope="module")
def sample(path):
    """Chains of all tickers on every 40th session: {ticker: table}."""
    return {ticker: chain(path, SEED, ticker, np.arange(3, len(path.sessions), 40), 60) for ticker in TICKERS}


# --- The path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [SEED, 1, 2])
def test_every_path_goes_through_the_turning_points(seed):
    path = simulate(seed, premium=1.0, drift=1.0)
    at = np.searchsorted(path.sessions, turning_points.DATES)
    np.testing.assert_array_equal(path.sessions[at], turning_points.DATES)
    np.testing.assert_array_equal(path.closes[at], turning_points.CLOSES)
    np.testing.assert_allclose(path.tenors[at, 1], turning_points.VIX, atol=0.005)


def test_the_sessions_are_those_of_the_exchange(path):
    np.testing.assert_array_equal(path.sessions, sessions("2007-01-01", "2025-12-31"))
    assert len(path.sessions) == 4780


def test_a_path_is_a_function_of_its_seed(path):
    again, other = simulate(SEED, premium=1.0, drift=1.0), simulate(SEED + 1, premium=1.0, drift=1.0)
    assert np.array_equal(again.closes, path.closes) and np.array_equal(again.tenors, path.tenors)
    assert not np.array_equal(other.closes, path.closes)


def test_vix_stays_within_what_vix_does(path):
    assert path.tenors[:, 1].min() > 8.0 and path.tenors[:, 1].max() < 95.0


# --- Days are made in any order ---------------------------------------------------------------------------------


def test_a_day_is_the_same_alone_in_any_order_and_in_a_year(path):
    days = on(path, "2024-03-01", "2024-03-04", "2024-05-31")
    year = chain(path, SEED, "QQQ", np.flatnonzero(path.sessions.astype("datetime64[Y]") == np.datetime64("2024")), 60)
    backwards = chain(path, SEED, "QQQ", days[::-1], 60)
    assert equal(backwards, rows(year, np.isin(year["date"], path.sessions[days])))
    for day in days:
        assert equal(chain(path, SEED, "QQQ", np.array([day]), 60), rows(year, year["date"] == path.sessions[day]))


def test_a_longer_horizon_adds_rows_and_changes_none(path):
    days = on(path, "2011-07-05", "2011-07-06")
    long = chain(path, SEED, "SPY", days, 90)
    dte = (long["expiry"] - long["date"]).astype(int)
    assert equal(chain(path, SEED, "SPY", days, 30), rows(long, dte <= 30)) and dte.max() > 60


def test_another_seed_is_another_market_and_tickers_differ(path):
    day = on(path, "2015-03-02")
    assert not equal(chain(path, SEED, "SPY", day, 60), chain(path, SEED + 1, "SPY", day, 60))
    assert chain(path, SEED, "IWM", day, 60)["underlying"][0] == path.closes[day[0], TICKERS.index("IWM")]


# --- Listings ---------------------------------------------------------------------------------------------------


def expirations(path, ticker: str, first: str, last: str) -> np.ndarray:
    known = path.calendar[listings.expiries(ticker, path.calendar).session]
    return known[(known >= np.datetime64(first)) & (known <= np.datetime64(last))]


def weekdays(dates: np.ndarray) -> set[int]:
    return set(((dates.astype(int) + 3) % 7).tolist())


def test_before_weeklies_there_are_monthlies_and_quarter_ends(path):
    assert [str(day) for day in expirations(path, "SPY", "2008-01-01", "2008-07-31")] == [
        "2008-01-18", "2008-02-15", "2008-03-20", "2008-03-31",      # Good Friday: the monthly is a Thursday
        "2008-04-18", "2008-05-16", "2008-06-20", "2008-06-30", "2008-07-18"]


@pytest.mark.parametrize("ticker, first, last, days", [
    ("SPY", "2010-06-04", "2016-08-31", {4}), ("SPY", "2016-09-01", "2018-01-31", {2, 4}),
    ("SPY", "2018-02-01", "2022-11-11", {0, 2, 4}), ("SPY", "2022-11-14", "2025-12-31", {0, 1, 2, 3, 4}),
    ("QQQ", "2018-02-01", "2022-11-11", {4}), ("QQQ", "2022-11-14", "2025-12-31", {0, 1, 2, 3, 4}),
    ("IWM", "2022-11-14", "2025-12-31", {4})])
def test_the_weekdays_of_the_expiries(path, ticker, first, last, days):
    known = expirations(path, ticker, first, last)
    before_a_holiday = ~is_session(known + 1) & (weekday_of(known) < 4)
    quarter_end = (known + 1).astype("datetime64[M]") > known.astype("datetime64[M]")
    quarter_end |= ~is_session(known + 1) & ((known + 4).astype("datetime64[M]") > known.astype("datetime64[M]"))
    assert weekdays(known[~before_a_holiday & ~quarter_end]) == days


def weekday_of(dates: np.ndarray) -> np.ndarray:
    return (dates.astype(int) + 3) % 7


def test_an_expiry_is_a_session_and_no_chain_is_beyond_its_dte(sample):
    for table in sample.values():
        dte = (table["expiry"] - table["date"]).astype(int)
        assert is_session(table["expiry"]).all() and dte.min() >= 1 and dte.max() <= 60


def test_a_strike_once_listed_stays_listed_until_it_expires(path):
    days = np.arange(*on(path, "2008-08-01", "2008-12-31"))        # the spot falls from 127 to 75
    table = chain(path, SEED, "SPY", days, 60)
    for expiry in np.unique(table["expiry"]):
        of = rows(table, table["expiry"] == expiry)
        traded = path.sessions[days][path.sessions[days] < expiry]
        for strike in np.unique(of["strike"]):
            lived = of["date"][of["strike"] == strike]
            assert np.array_equal(lived, traded[traded >= lived[0]]), (expiry, strike)


def test_strikes_are_a_dollar_apart_near_the_money_and_five_in_the_wings(sample):
    for table in sample.values():
        near = np.abs(table["strike"] / table["underlying"] - 1) < 0.03
        start = np.r_[True, (table["expiry"][1:] != table["expiry"][:-1]) | (table["date"][1:] != table["date"][:-1])]
        step = np.diff(table["strike"])[~start[1:]]
        assert set(step[near[1:][~start[1:]]]) == {1.0} and set(step) <= {1.0, 2.0, 3.0, 4.0, 5.0}
        assert (step == 5.0).any()


@pytest.mark.parametrize("side, sign", [("put", -1), ("call", 1)])
def test_a_five_wide_spread_that_the_strategy_sells_has_both_legs(sample, side, sign):
    for ticker, table in sample.items():
        dte = (table["expiry"] - table["date"]).astype(int)
        delta = np.abs(table["delta"] - (side == "put"))
        wanted = (dte >= 30) & (dte <= 45) & (delta >= 0.05) & (delta <= 0.15)
        contracts = set(zip(table["date"].tolist(), table["expiry"].tolist(), table["strike"].tolist()))
        have = [(d, e, k + 5 * sign) in contracts for d, e, k in zip(
            table["date"][wanted].tolist(), table["expiry"][wanted].tolist(), table["strike"][wanted].tolist())]
        # What is missing: strikes of a dollar at the end of their range, after a jump of volatility.
        assert len(have) > 400 and np.mean(have) > 0.97, (ticker, side)


def test_the_wings_reach_to_where_delta_is_negligible(sample):
    for table in sample.values():
        key = table["date"].astype(np.int64) * 100_000 + table["expiry"].astype(np.int64)
        first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        last = np.r_[first[1:] - 1, len(key) - 1]
        edges = np.concatenate([1 - table["delta"][first], table["delta"][last]])
        assert np.median(edges) < 0.005 and np.quantile(edges, 0.99) < 0.03


# --- Quotes -----------------------------------------------------------------------------------------------------


def test_no_quote_is_crossed_and_none_is_without_an_ask(sample):
    for table in sample.values():
        for side in ("call", "put"):
            assert (table[f"{side}_bid"] >= 0).all() and (table[f"{side}_ask"] > table[f"{side}_bid"]).all()


def test_there_is_no_vertical_arbitrage_at_mid(sample):
    """A lower strike's call and a higher strike's put are worth as much or more, and by no more than the width."""
    for table in sample.values():
        same = (table["expiry"][1:] == table["expiry"][:-1]) & (table["date"][1:] == table["date"][:-1])
        width = np.diff(table["strike"])[same]
        for side, sign in (("call", -1), ("put", 1)):
            mid = 0.5 * (table[f"{side}_bid"] + table[f"{side}_ask"])
            worth = sign * np.diff(mid)[same]
            # At 3 dollars, where the tick changes, mids are rounded differently: by half a coarse tick at most.
            assert worth.min() > -1e-9 and (worth - width).max() < 0.05


def test_no_option_is_worth_less_than_its_exercise(sample):
    for table in sample.values():
        for side, exercise in (("call", table["underlying"] - table["strike"]),
                               ("put", table["strike"] - table["underlying"])):
            mid = 0.5 * (table[f"{side}_bid"] + table[f"{side}_ask"])
            assert (mid - exercise).min() > -0.026                  # a quarter of the coarsest tick


def test_prices_are_on_the_tick_of_their_day(sample):
    for ticker, table in sample.items():
        fine, coarse = quotes.ticks(ticker, table["date"])
        for name in ("call_bid", "call_ask", "put_bid", "put_ask"):
            cents = 100 * table[name]
            tick = np.where(table[name] < 3.0, fine, coarse)
            np.testing.assert_allclose(cents / tick, np.rint(cents / tick), atol=1e-6)


def test_the_penny_pilot_began_on_three_dates():
    days = np.array(["2007-01-25", "2007-01-26", "2007-09-28", "2010-02-01"], dtype="datetime64[D]")
    assert [list(zip(*quotes.ticks(ticker, days))) for ticker in ("IWM", "QQQ", "SPY")] == [
        [(5, 10), (1, 5), (1, 5), (1, 1)], [(5, 10), (1, 1), (1, 1), (1, 1)], [(5, 10), (5, 10), (1, 5), (1, 1)]]


@given(st.lists(st.floats(0.0, 400.0), min_size=2, max_size=8), st.floats(1e-4, 20.0),
       st.sampled_from([(1.0, 1.0), (1.0, 5.0), (5.0, 10.0)]))
def test_a_quote_is_around_its_value_and_on_the_tick(values, width, ticks):
    value = np.sort(np.array(values))
    bid, ask = quotes.quote(value, np.full(len(value), width), *(np.full(len(value), t) for t in ticks))
    mid, tick = 0.5 * (bid + ask), np.where(value < 3.0, *ticks) / 100
    assert (bid >= 0).all() and (ask > bid).all() and (np.diff(mid) >= -1e-9).all()
    assert (np.abs(mid - np.maximum(value, tick / 2)) <= tick / 2 + 1e-9).all()
    assert (ask - bid >= np.minimum(width, 2 * mid) - np.max(ticks) / 100 - 1e-9).all()
    for price in (bid, ask):
        steps = 100 * price / np.where(price < 3.0 - 1e-9, *ticks)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


def test_widths_follow_the_ticker_volatility_and_time():
    spy, iwm = (quotes.width_scale(t, np.array([18.0]), np.array([30.0]), np.array([2016.0])) for t in ("SPY", "IWM"))
    assert spy[0] == pytest.approx(np.exp(-3.83)) and iwm[0] == pytest.approx(2.6 * spy[0])
    wild = quotes.width_scale("SPY", np.array([72.0]), np.array([30.0]), np.array([2016.0]))
    assert wild[0] == pytest.approx(spy[0] * 4 ** 0.37)


def test_the_iv_of_a_quote_is_that_of_its_mid_and_missing_where_nobody_bids(path):
    table = chain(path, SEED, "SPY", on(path, "2019-06-03"), 60)
    out_of_the_money = table["strike"] < table["underlying"]
    years = (table["expiry"] - table["date"]).astype(int) / 365
    rate, dividend_yield = path.rates[on(path, "2019-06-03")[0]], path.dividend_yields[TICKERS.index("SPY")]
    told = out_of_the_money & np.isfinite(table["put_iv"])
    value = bsm.price(table["underlying"], table["strike"], years, rate, dividend_yield, table["put_iv"], False)
    mid = 0.5 * (table["put_bid"] + table["put_ask"])
    np.testing.assert_allclose(value[told], mid[told], atol=0.01)
    assert np.array_equal(np.isnan(table["put_iv"])[out_of_the_money], (table["put_bid"] == 0)[out_of_the_money])
    assert (table["put_bid"] == 0).any()


def test_a_row_carries_the_calls_delta_and_the_puts_is_one_less(path):
    table = chain(path, SEED, "SPY", on(path, "2019-06-03"), 60)
    years = (table["expiry"] - table["date"]).astype(int) / 365
    rate, q = path.rates[on(path, "2019-06-03")[0]], path.dividend_yields[TICKERS.index("SPY")]
    put = bsm.greeks(table["underlying"], table["strike"], years, rate, q, table["smooth_iv"], False).delta
    np.testing.assert_allclose(table["delta"] - 1, put * np.exp(q * years), atol=2e-3)
    assert table["delta"].min() >= 0 and table["delta"].max() <= 1


def test_volume_and_open_interest_prefer_puts_round_strikes_and_the_money(sample):
    table = sample["SPY"]
    near = np.abs(table["delta"] - 0.5) < 0.4
    for name, ratio in (("volume", 1.4), ("open_interest", 1.9)):
        call, put = table[f"call_{name}"], table[f"put_{name}"]
        assert np.median(put[near]) / np.median(call[near]) == pytest.approx(ratio, rel=0.1)
        assert np.median(put[near]) > 2 * np.median(put[~near])
        tens, others = table["strike"] % 10 == 0, table["strike"] % 5 != 0
        assert np.median(put[near & tens]) > 2 * np.median(put[near & others])


# --- The surface ------------------------------------------------------------------------------------------------


def test_the_smile_has_no_butterfly():
    """Gatheral & Jacquier's condition, and prices that are convex in the strike."""
    for v in np.linspace(0.08, 1.0, 24):
        for dte in (1.0, 9.0, 30.0, 90.0):
            psi = surface.curvature(v, dte)
            assert psi ** 2 * (1 + abs(surface.RHO)) <= 4
            atm, strike = surface.atm_volatility(v, dte), 100 * np.exp(np.linspace(-6, 6, 400) * v * np.sqrt(dte / 365))
            strike = np.linspace(strike[0], strike[-1], 400)
            iv = surface.smile(np.log(strike / 100), dte / 365, atm, psi)
            call = bsm.price(100.0, strike, dte / 365, 0.0, 0.0, iv, True)
            assert np.diff(call, 2).min() > -1e-9


def test_total_variance_never_falls_with_time():
    tenors = np.vstack([surface.term_structure(np.array([9.0, 20.0, 80.0])), [[90.0, 60.0, 30.0, 15.0]]])
    dte = np.arange(1.0, 200.0)
    for day in range(4):
        v = surface.term_volatility(tenors, np.full(len(dte), day), dte)
        assert (np.diff(v ** 2 * dte) >= -1e-12).all()


def test_the_surface_is_vix_at_its_tenors():
    tenors = np.array([[18.0, 20.0, 22.0, 23.0]])
    assert surface.term_volatility(tenors, np.zeros(4, int), surface.TENORS) == pytest.approx(tenors[0] / 100)
    assert surface.term_structure(np.array([20.0]))[0] == pytest.approx([19.38, 20.0, 21.94, 23.40])


# --- The source -------------------------------------------------------------------------------------------------


def made(root: Path, start: str, end: str, tickers: tuple[str, ...] = ("IWM",), workers: int = 1):
    return synthetic.ingest(root, quiet, tickers=tickers, start=date.fromisoformat(start), end=date.fromisoformat(end),
                            workers=workers, **PARAMS)


def test_two_processes_make_the_same_store_as_one(tmp_path):
    alone = made(tmp_path / "a", "2007-11-01", "2008-01-31")
    shared = made(tmp_path / "b", "2007-11-01", "2008-01-31", workers=2)
    assert {(i.year, i.digest) for i in alone.partitions} == {(i.year, i.digest) for i in shared.partitions}
    assert [i.year for i in shared.partitions] == [2008, 2007]


def test_a_partition_says_what_market_it_is_of_and_what_it_holds(tmp_path):
    done = made(tmp_path, "2007-01-01", "2007-03-31")
    [info] = done.partitions
    assert done.root == tmp_path / synthetic.store_name(**PARAMS) and info.source == done.source == done.root.name
    assert (str(info.start), str(info.end), info.max_dte) == ("2007-01-01", "2007-03-30", 60)     # to the last session
    assert done.counts == {"IWM": {"read": info.rows, "kept": info.rows}}
    chain = store.read_partition(info.path)
    assert (chain["expiry"] - chain["date"]).astype(int).max() <= 60
    assert np.unique(chain["date"]).tolist() == sessions("2007-01-01", "2007-03-31").tolist()


def test_what_is_there_is_left_alone_what_is_damaged_is_made_again_and_what_is_short_is_extended(tmp_path):
    [first] = made(tmp_path, "2007-01-01", "2007-02-28").partitions
    content = first.path.read_bytes()
    seen = []
    again = synthetic.ingest(tmp_path, lambda *what: seen.append(what), tickers=["IWM"], start=date(2007, 1, 8),
                             end=date(2007, 2, 1), workers=1, **PARAMS)
    assert again.partitions == [] and first.path.read_bytes() == content and seen == [(1, 1, "already there")]

    first.path.write_bytes(content[:1000])
    made(tmp_path, "2007-01-01", "2007-02-28")
    assert first.path.read_bytes() == content

    [longer] = made(tmp_path, "2007-03-01", "2007-03-31").partitions
    assert (longer.sessions[0], longer.sessions[-1]) == (np.datetime64("2007-01-03"), np.datetime64("2007-03-30"))


def test_a_year_is_complete_whatever_the_days_on_which_it_was_asked_for(tmp_path):
    [info] = made(tmp_path, "2006-12-30", "2007-12-31").partitions
    assert (str(info.start), str(info.end), len(info.sessions)) == ("2007-01-01", "2007-12-31", 251)


def test_partitions_are_tickers_times_years():
    assert synthetic.partitions(["SPY", "IWM"], "2008-12-31", "2010-01-02", **PARAMS) == [
        ("SPY", 2008), ("SPY", 2009), ("IWM", 2008), ("IWM", 2009)]
    assert len(synthetic.partitions(OPTIONS["tickers"], OPTIONS["start"], OPTIONS["end"], **PARAMS)) == 57


def test_the_store_is_named_by_what_changes_a_row():
    name = synthetic.store_name(**PARAMS)
    assert name.startswith("synthetic-") and len(name) == 18
    assert synthetic.store_name(**PARAMS, tickers=["SPY"], start=None, end=None, workers=8) == name
    others = {synthetic.store_name(**PARAMS | change) for change in (
        {"seed": SEED + 1}, {"max_dte": 45}, {"variance_premium": 0.0}, {"drift": 0.0})}
    assert len(others | {name}) == 5


def test_the_daily_series_are_those_of_the_chains(sample):
    table = synthetic.closes(["QQQ"], **PARAMS)
    assert list(table) == ["date", "QQQ_close", "VIX9D", "VIX", "VIX3M", "VIX6M", "VXN", "DTB3"]
    chains = sample["QQQ"]
    at = np.searchsorted(table["date"], chains["date"])
    np.testing.assert_array_equal(table["QQQ_close"][at], chains["underlying"])
    series = synthetic.series(**PARAMS, tickers=["QQQ"], start=None, end=None, workers=2)
    np.testing.assert_array_equal(series.on("QQQ_close", table["date"]), table["QQQ_close"])


@pytest.mark.parametrize("change, message", [
    ({"tickers": ["DIA"]}, "data.tickers: the synthetic market has IWM, QQQ, SPY, got 'DIA'"),
    ({"tickers": []}, "data.tickers is empty"),
    ({"start": "2006-06-01"}, "data.start is a date within 2007-01-03 to 2025-12-31"),
    ({"end": "2026-01-05"}, "data.end is a date within 2007-01-03 to 2025-12-31"),
    ({"start": "2012-02-04", "end": "2012-02-05"}, "no session of the exchange"),
    ({"start": "2012-02-04", "end": "2011-02-05"}, "data.start is a date on or before data.end"),
    ({"seed": -1}, "data.seed is a number of the random generator"),
    ({"max_dte": 91}, "data.max_dte is calendar days to expiration in [1, 90], got 91"),
    ({"variance_premium": 1.5}, "data.variance_premium is a share"), ({"drift": -0.1}, "data.drift is a share"),
    ({"anchor": "no/such/file.csv"}, "No such file"),
    ({"anchor": "any.csv", "drift": 0.0}, "data.variance_premium and data.drift must be 1")])
def test_what_the_market_does_not_have_is_refused(change, message):
    where = {"tickers": ["SPY"], "start": "2012-01-01", "end": "2012-12-31"}
    where |= {key: change[key] for key in where if key in change}
    params = PARAMS | {key: value for key, value in change.items() if key not in where}
    with pytest.raises(ConfigError) as refusal:
        synthetic.partitions(**where, **params)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


# --- The anchor -------------------------------------------------------------------------------------------------

HEADER = "date,IWM_close,QQQ_close,SPY_close,VIX,VIX3M,DTB3\n"
DAYS = ["2015-07-01,124.9,107.8,207.5,16.1,17.5,0.01", "2015-07-02,123.9,107.9,207.3,16.8,,0.01",
        "2015-07-06,123.8,107.3,206.7,17.0,18.0,0.01"]


def anchored(tmp_path: Path, days: list[str], header: str = HEADER) -> dict:
    file = tmp_path / "daily.csv"
    file.write_text(header + "\n".join(days) + "\n")
    return PARAMS | {"anchor": str(file)}


def test_an_anchor_takes_the_place_of_the_path(tmp_path):
    params = anchored(tmp_path, DAYS)
    [info] = synthetic.ingest(tmp_path, quiet, tickers=["SPY"], start=None, end=None, workers=1, **params).partitions
    table = store.read_partition(info.path)
    assert sorted(set(table["underlying"])) == [206.7, 207.3, 207.5]
    series = synthetic.closes(["SPY"], **params)
    assert series["VIX3M"][0] == 17.5 and series["VIX3M"][1] == pytest.approx(16.8 * (1.097 - 0.194 * np.log(0.84)))


def test_the_content_of_an_anchor_names_the_store_not_its_path(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    here, there = anchored(tmp_path / "a", DAYS), anchored(tmp_path / "b", DAYS)
    assert synthetic.store_name(**here) == synthetic.store_name(**there) != synthetic.store_name(**PARAMS)
    assert synthetic.store_name(**anchored(tmp_path / "a", DAYS[:2])) != synthetic.store_name(**there)


@pytest.mark.parametrize("days, header, message", [
    ([DAYS[0], DAYS[2]], HEADER, "one row for every session of XNYS from its first to its last, got 2 rows; see "
     "2015-07-02"),
    ([*DAYS, DAYS[2]], HEADER, "got 4 rows"),
    ([DAYS[0].replace("207.5", "")], HEADER, "has no SPY_close on 2015-07-01"),
    (DAYS, HEADER.replace("VIX,", "VXX,"), "lacks the column VIX")])
def test_an_anchor_that_is_not_whole_is_refused(tmp_path, days, header, message):
    with pytest.raises(ConfigError, match="data.anchor") as refusal:
        synthetic.closes(["SPY"], **anchored(tmp_path, days, header))
    assert message in str(refusal.value)
