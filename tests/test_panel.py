"""The panel: its formulas by hand and against pandas, its kernel against a literal twin, and its causality."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mahler import panel
from mahler.core import features
from mahler.data.daily import Daily
from mahler.data.store import Chain, Chains
from mahler.schema import CHAIN, ConfigError, Table, empty

START = np.datetime64("2020-01-02")


# ---------------------------------------------------------------------------------------------- markets


def weekdays(n: int) -> np.ndarray:
    return np.busday_offset(START, np.arange(n), roll="forward")


def rows(*quotes: tuple) -> Table:
    """A chain table of (date, expiry, strike, call mid, put mid, call iv, put iv); quotes are 2 cents wide."""
    table = empty(CHAIN, len(quotes))
    for i, (day, expiry, strike, call, put, call_iv, put_iv) in enumerate(quotes):
        table["date"][i], table["expiry"][i], table["strike"][i] = day, expiry, strike
        table["call_bid"][i], table["call_ask"][i] = call - 0.01, call + 0.01
        table["put_bid"][i], table["put_ask"][i] = put - 0.01, put + 0.01
        table["call_iv"][i], table["put_iv"][i] = call_iv, put_iv
        table["underlying"][i] = 100.0
    return table


def random_table(rng: np.random.Generator, sessions: np.ndarray) -> Table:
    """A chain with gaps: rows, quotes and IVs missing or unusable, expiries too near, too far and in between."""
    dtes = rng.choice([0, 3, 6, 7, 8, 20, 29, 30, 31, 40, 59, 60, 61, 90], rng.integers(1, 6), replace=False)
    strikes = np.sort(rng.choice(np.arange(90.0, 111.0, 2.5), rng.integers(1, 8), replace=False))
    expiries = np.unique(np.concatenate([sessions[rng.integers(len(sessions), size=1)] + dte for dte in dtes]))
    grid = [(day, expiry, strike) for day in sessions for expiry in expiries for strike in strikes
            if expiry >= day and rng.random() < 0.9]
    table = empty(CHAIN, len(grid))
    for i, (day, expiry, strike) in enumerate(grid):
        table["date"][i], table["expiry"][i], table["strike"][i] = day, expiry, strike
    n, forward = len(grid), 100 + rng.normal(0, 3)
    value = rng.uniform(1, 5, n)
    for side, intrinsic in (("call", forward - table["strike"]), ("put", table["strike"] - forward)):
        mid, half = np.maximum(intrinsic, 0) + value, rng.uniform(0, 0.2, n)
        table[f"{side}_bid"], table[f"{side}_ask"] = mid - half, mid + half
        table[f"{side}_iv"] = rng.uniform(0.1, 0.6, n).astype("f4")
        table[f"{side}_iv"][rng.random(n) < 0.2] = np.nan
        table[f"{side}_iv"][rng.random(n) < 0.1] = 0
        for column, missing in ((f"{side}_bid", -1.0), (f"{side}_bid", np.nan), (f"{side}_ask", 0.0),
                                (f"{side}_ask", np.nan), (f"{side}_bid", 99.0), (f"{side}_bid", 0.0)):
            table[column][rng.random(n) < 0.04] = missing
    table["underlying"][:] = forward
    return table


def simple_table(sessions: np.ndarray, spot: np.ndarray, iv: np.ndarray) -> Table:
    """On each session two expiries around 30 days with one IV, so that atm_iv is `iv` (n_days,)."""
    quotes = [(day, expiry, strike, 5 + max(s - strike, 0), 5 + max(strike - s, 0), v, v)
              for day, s, v in zip(sessions, spot, iv)
              for expiry in (day + 20, day + 40) for strike in (np.floor(s) - 1, np.floor(s) + 2)]
    table = rows(*quotes)
    table["underlying"] = np.repeat(spot, 4)
    return table


def chains_of(sessions: np.ndarray, tables: dict[str, Table], fingerprint: str = "chains") -> Chains:
    loaded = {ticker: Chain.from_table(ticker, sessions, table) for ticker, table in tables.items()}
    return Chains(tickers=tuple(tables), sessions=sessions, dropped={}, years_missing={}, fingerprint=fingerprint,
                  source="test", max_dte=None, partitions={}, _loaded=loaded)


def random_market(seed: int, n_days: int, tickers: tuple[str, ...] = ("QQQ", "SPY")) -> dict[str, Table]:
    rng, sessions = np.random.default_rng(seed), weekdays(n_days)
    return {ticker: simple_table(sessions, 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n_days))),
                                 rng.uniform(0.1, 0.5, n_days)) for ticker in tickers}


def atm_iv_of(table: Table, sessions: np.ndarray) -> np.ndarray:
    return panel.build(chains_of(sessions, {"SPY": table}), None).atm_iv[:, 0]


# ---------------------------------------------------------------------------------------------- the twin


def usable_mid(bid: float, ask: float) -> float:
    return (bid + ask) / 2 if ask > 0 and ask >= bid and bid >= 0 else np.nan


def twin_of_expiry(quotes: list[dict]) -> float:
    """ATM IV of one expiry on one day, from its rows by strike; NaN where it cannot be had."""
    parity = [(usable_mid(q["call_bid"], q["call_ask"]) - usable_mid(q["put_bid"], q["put_ask"]), q["strike"])
              for q in quotes]
    parity = [(gap, strike) for gap, strike in parity if np.isfinite(gap)]
    if not parity:
        return np.nan
    gap, strike = min(parity, key=lambda pair: (abs(pair[0]), pair[1]))
    forward = strike + gap
    ivs = {}
    for q in quotes:
        there = [float(iv) for iv in (q["call_iv"], q["put_iv"]) if np.isfinite(iv) and iv > 0]
        if there:
            ivs[q["strike"]] = sum(there) / len(there)
    if forward in ivs:
        return ivs[forward]
    below, above = [k for k in ivs if k < forward], [k for k in ivs if k > forward]
    if not below or not above:
        return np.nan
    return float(np.interp(forward, [max(below), min(above)], [ivs[max(below)], ivs[min(above)]]))


def twin(table: Table, sessions: np.ndarray) -> tuple[np.ndarray, set[str]]:
    """ATM IV of each session by walking over dictionaries, and which cases were met."""
    by_day = defaultdict(lambda: defaultdict(list))
    for i in np.argsort(table["strike"], kind="stable"):
        by_day[table["date"][i]][table["expiry"][i]].append({name: table[name][i] for name in table})
    out, cases = np.full(len(sessions), np.nan), set()
    for d, day in enumerate(sessions):
        term = {}
        for expiry, quotes in by_day[day].items():
            dte = int((expiry - day).astype(int))
            iv = twin_of_expiry(quotes)
            if 7 <= dte <= 60 and np.isfinite(iv):
                term[dte] = iv
        near, far = [dte for dte in term if dte <= 30], [dte for dte in term if dte > 30]
        cases.add(f"{'near' if near else ''}{'far' if far else ''}" or "none")
        if near and far:
            total = np.interp(30, [max(near), min(far)], [term[dte] ** 2 * dte for dte in (max(near), min(far))])
            out[d] = np.sqrt(total / 30)
        elif term:
            out[d] = term[max(near) if near else min(far)]
    return out, cases


def test_the_atm_iv_kernel_equals_its_literal_twin_on_random_chains():
    met = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sessions = weekdays(int(rng.integers(1, 25)))
        table = random_table(rng, sessions)
        expected, cases = twin(table, sessions)
        np.testing.assert_allclose(atm_iv_of(table, sessions), expected, rtol=1e-12, err_msg=f"seed {seed}")
        met |= cases
    assert met == {"near", "far", "nearfar", "none"}


# ---------------------------------------------------------------------------------------------- ATM IV by hand

DAY = weekdays(1)


def at(dte: int, *quotes: tuple) -> list[tuple]:
    return [(DAY[0], DAY[0] + dte, *quote) for quote in quotes]


def test_total_variance_is_interpolated_to_30_days():
    flat = lambda iv: ((99.0, 3, 2, iv, iv), (101.0, 2, 3, iv, iv))     # noqa: E731  forward 100
    table = rows(*at(20, *flat(0.2)), *at(40, *flat(0.3)))
    # 0.04 x 20 = 0.8 and 0.09 x 40 = 3.6: half way is 2.2, and 2.2 / 30 = 0.0733.
    assert atm_iv_of(table, DAY)[0] == pytest.approx(np.sqrt(2.2 / 30), rel=1e-6)


def test_iv_is_linear_in_strike_to_the_forward_of_put_call_parity():
    # |call - put| is smallest at 100, where 3.5 - 2 puts the forward at 101.5: three quarters from 100 to 102.
    table = rows(*at(30, (98.0, 5.2, 1.6, 0.9, 0.9), (100.0, 3.5, 2.0, 0.20, 0.24), (102.0, 2.0, 3.7, 0.30, 0.34)))
    assert atm_iv_of(table, DAY)[0] == pytest.approx(0.22 + 0.75 * 0.10, rel=1e-6)


def test_a_strike_with_one_iv_uses_the_one_there_is():
    table = rows(*at(30, (99.0, 3, 2, 0.2, np.nan), (101.0, 2, 3, 0.0, 0.4)))
    assert atm_iv_of(table, DAY)[0] == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize("column, value",
                         [("call_ask", 0.0), ("call_bid", 9.0), ("call_bid", -0.5), ("put_ask", np.nan)])
def test_an_unusable_quote_does_not_place_the_forward(column, value):
    table = rows(*at(30, (99.0, 3, 2, 0.2, 0.2), (100.0, 7.0, 7.0, 0.9, 0.9), (101.0, 2.2, 3.0, 0.4, 0.4)))
    at_100 = atm_iv_of(table, DAY)[0]
    table[column][1] = value
    # Without 100 parity is nearest at 101, and 101 + 2.2 - 3.0 is 100.2; the IV at 100 is still one.
    assert at_100 == pytest.approx(0.9, rel=1e-6)
    assert atm_iv_of(table, DAY)[0] == pytest.approx(0.9 - 0.2 * 0.5, rel=1e-6)


def test_a_forward_at_the_lowest_strike_takes_its_iv():
    table = rows(*at(30, (100.0, 2.5, 2.5, 0.2, 0.2), (102.0, 1.5, 3.5, 0.9, 0.9)))
    assert atm_iv_of(table, DAY)[0] == pytest.approx(0.2, rel=1e-6)


def test_of_two_strikes_equally_near_parity_the_lower_places_the_forward():
    # 99 says 99 + 0.5, 101 says 101 - 0.5: at 99.5 the IV is a quarter of the way.
    table = rows(*at(30, (99.0, 3.0, 2.5, 0.2, 0.2), (101.0, 2.5, 3.0, 0.4, 0.4)))
    assert atm_iv_of(table, DAY)[0] == pytest.approx(0.25, rel=1e-6)


def test_nothing_is_extrapolated_beyond_the_listed_strikes():
    table = rows(*at(30, (101.0, 2, 3, 0.2, 0.2), (102.0, 1.5, 3.5, 0.2, 0.2)))
    assert np.isnan(atm_iv_of(table, DAY)[0])


@pytest.mark.parametrize("dte, used", [(6, False), (7, True), (30, True), (60, True), (61, False)])
def test_a_lone_expiry_stands_for_30_days_if_it_is_7_to_60_days_away(dte, used):
    iv = atm_iv_of(rows(*at(dte, (99.0, 3, 2, 0.2, 0.2), (101.0, 2, 3, 0.4, 0.4))), DAY)[0]
    assert iv == pytest.approx(0.3, rel=1e-6) if used else np.isnan(iv)


def test_the_nearest_expiry_on_each_side_that_has_an_iv_is_used():
    flat = lambda iv: ((99.0, 3, 2, iv, iv), (101.0, 2, 3, iv, iv))     # noqa: E731
    near, far = rows(*at(25, *flat(0.2)), *at(35, *flat(0.3))), rows(
        *at(10, *flat(0.8)), *at(25, *flat(0.2)), *at(28, *flat(np.nan)), *at(35, *flat(0.3)), *at(50, *flat(0.7)))
    assert atm_iv_of(near, DAY)[0] == atm_iv_of(far, DAY)[0] == pytest.approx(np.sqrt((1.0 + 3.15) / 2 / 30), rel=1e-6)


def test_the_kernel_refuses_arrays_that_do_not_belong_together():
    chain = Chain.from_table("SPY", DAY, rows(*at(20, (99.0, 3, 2, 0.2, 0.2), (101.0, 2, 3, 0.2, 0.2))))
    with pytest.raises(ValueError, match="one length"):
        panel._atm_iv(replace(chain, put_iv=chain.put_iv[:1]))
    with pytest.raises(ValueError, match="ascends from 0 to the 2 rows"):
        panel._atm_iv(replace(chain, contract_start=np.array([0, 1, 3])))
    with pytest.raises(ValueError, match="1 strikes"):
        panel._atm_iv(replace(chain, contract_strike=chain.contract_strike[:1]))
    with pytest.raises(ValueError, match="sorted by expiry"):
        panel._atm_iv(replace(chain, contract_expiry=np.array(["2020-02-03", "2020-02-01"], "datetime64[D]")))
    none = np.empty(0)
    assert len(features.atm_iv(none.astype(np.int64), none.astype(np.int32), np.zeros(1, np.int64),
                               none.astype(np.int64), *[none] * 5, *[none.astype("f4")] * 2)) == 0


# ---------------------------------------------------------------------------------------------- formulas


def test_features_of_closes_equal_pandas():
    close = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, (300, 2)), axis=0))
    series = pd.DataFrame(close)
    sma = {n: series.rolling(n).mean() for n in (20, 50)}
    expected = {"realized_vol": np.log(series).diff().rolling(20).std(ddof=0) * np.sqrt(252),
                "momentum": series.pct_change(20), "trend": (sma[20] - sma[50]) / sma[50]}
    for name, frame in expected.items():
        np.testing.assert_allclose(getattr(panel, name)(close), frame.to_numpy(), rtol=1e-8, atol=1e-12, err_msg=name)
    assert [int(np.argmax(np.isfinite(getattr(panel, name)(close)[:, 0]))) for name in expected] == [20, 20, 49]


def test_realized_vol_of_alternating_one_percent_days_is_sixteen_percent():
    close = 100 * np.exp(0.01 * (np.arange(60) % 2))[:, None]      # log returns +-0.01, mean 0, so the sd is 0.01
    assert panel.realized_vol(close)[-1, 0] == pytest.approx(0.01 * np.sqrt(252))


def test_iv_percentile_is_the_share_of_previous_sessions_that_were_below_today():
    iv = np.tile([[0.1], [0.2], [0.3], [0.4]], (100, 1))
    share = panel.iv_percentile(iv)[:, 0]
    # Of any 252 sessions a quarter has each value; equal is not below, and today is not among them.
    np.testing.assert_allclose(share[252:], np.tile([0, 0.25, 0.5, 0.75], 37))
    assert np.isnan(share[:126]).all() and np.isfinite(share[126:]).all()


def test_iv_percentile_counts_only_sessions_that_have_an_iv():
    iv = np.full((400, 1), 0.2)
    iv[100:250] = np.nan
    iv[[300, 399]] = 0.3
    share = panel.iv_percentile(iv)[:, 0]
    assert np.isnan(share[300])                 # of 48 to 299, 52 before the gap and 50 after it: 102 are too few
    assert share[399] == 148 / 149              # 250 to 398, of which 300 was no lower
    assert np.isnan(share[100:250]).all(), "no percentile of an IV that is not there"
    known = np.array([np.isfinite(iv[max(0, t - 252):t]).sum() for t in range(400)])
    assert (np.isfinite(share) == ((known >= 126) & np.isfinite(iv[:, 0]))).all()


def test_build_fills_every_array_of_the_panel():
    sessions, tables = weekdays(320), random_market(2, 320)
    built = panel.build(chains_of(sessions, tables), None)
    spot = np.column_stack([tables[t]["underlying"][::4] for t in built.tickers])
    np.testing.assert_array_equal(built.spot, spot)
    np.testing.assert_array_equal(built.close, spot)
    np.testing.assert_array_equal(built.momentum, panel.momentum(spot))
    iv = np.column_stack([tables[t]["call_iv"][::4] for t in built.tickers])
    np.testing.assert_allclose(built.atm_iv, iv, rtol=1e-6)
    np.testing.assert_array_equal(built.iv_percentile, panel.iv_percentile(built.atm_iv))
    np.testing.assert_array_equal(built.iv_rv_spread, built.atm_iv - built.realized_vol)
    assert built.tickers == ("QQQ", "SPY") and (built.dates == sessions).all()
    for name in panel.Panel.__annotations__:
        if isinstance(getattr(built, name), np.ndarray) and name not in ("dates", "rate"):
            assert getattr(built, name).shape == (320, 2) and getattr(built, name).dtype == np.float64, name


# ---------------------------------------------------------------------------------------------- causality


def features_of(built: panel.Panel) -> dict[str, np.ndarray]:
    return {name: value for name, value in vars(built).items() if isinstance(value, np.ndarray) and name != "dates"}


def test_a_ticker_has_the_same_features_in_any_company():
    sessions, tables = weekdays(400), random_market(4, 400, ("IWM", "QQQ", "SPY"))
    together = panel.build(chains_of(sessions, tables), None)
    for i, ticker in enumerate(tables):
        alone = panel.build(chains_of(sessions, {ticker: tables[ticker]}), None)
        for name in ("atm_iv", "iv_percentile", "realized_vol", "momentum", "trend", "iv_rv_spread"):
            np.testing.assert_array_equal(getattr(together, name)[:, i], getattr(alone, name)[:, 0], err_msg=name)


def test_the_panel_of_a_truncated_history_is_the_same_up_to_its_end():
    sessions, tables = weekdays(420), random_market(3, 420)
    whole = features_of(panel.build(chains_of(sessions, tables), None))
    for n in np.random.default_rng(4).integers(1, 420, 20):
        for name, values in features_of(panel.build(chains_of(sessions[:n], tables), None)).items():
            np.testing.assert_array_equal(values, whole[name][:n], err_msg=f"{name} on {n} sessions")


def test_rows_after_a_day_do_not_change_the_panel_up_to_it():
    sessions, tables = weekdays(420), random_market(5, 420)
    whole = features_of(panel.build(chains_of(sessions, tables), None))
    for n in np.random.default_rng(6).integers(1, 420, 5):
        poisoned = {t: {name: column.copy() for name, column in table.items()} for t, table in tables.items()}
        for table in poisoned.values():
            later = table["date"] > sessions[n]
            for name in ("call_bid", "call_ask", "put_bid", "call_iv", "put_iv", "underlying"):
                table[name][later] *= 3
        for name, values in features_of(panel.build(chains_of(sessions, poisoned), None)).items():
            np.testing.assert_array_equal(values[:n + 1], whole[name][:n + 1], err_msg=f"{name} at {n}")


def test_a_session_without_quotes_is_nan_and_is_not_carried():
    sessions, tables = weekdays(120), random_market(7, 120, ("SPY",))
    table = {name: column[tables["SPY"]["date"] != sessions[60]] for name, column in tables["SPY"].items()}
    built = panel.build(chains_of(sessions, {"SPY": table}), None)
    missing = {"spot": [60], "close": [60], "atm_iv": [60], "vix": [60],
               "realized_vol": range(60, 81), "iv_rv_spread": range(60, 81),    # 20 returns, of 21 closes
               "momentum": [60, 80], "trend": range(60, 110)}                   # 50 closes
    for name, days in missing.items():
        assert list(np.flatnonzero(np.isnan(getattr(built, name)[50:, 0])) + 50) == list(days), name


# ---------------------------------------------------------------------------------------------- sources


def daily_of(sessions: np.ndarray, **columns: np.ndarray) -> Daily:
    return Daily(sessions, {name: np.asarray(values, float) for name, values in columns.items()}, "daily")


def test_a_daily_series_with_every_session_is_used_and_named():
    sessions, tables = weekdays(30), random_market(8, 30)
    close = tables["SPY"]["underlying"][::4] * 1.001
    built = panel.build(chains_of(sessions, tables), daily_of(sessions, SPY_close=close, VIX=np.full(30, 17.5)))
    np.testing.assert_array_equal(built.close[:, 1], close)
    np.testing.assert_array_equal(built.close[:, 0], built.spot[:, 0])
    assert (built.vix == 17.5).all() and built.vix.shape == (30, 2)
    assert built.sources["close"] == "QQQ chain, SPY daily"
    assert built.sources["vix"] == "daily"


def test_a_daily_series_with_a_gap_is_not_used_at_all_and_the_panel_says_why():
    sessions, tables = weekdays(30), random_market(9, 30)
    close, vix = tables["SPY"]["underlying"][::4].copy(), np.full(30, 17.5)
    close[[4, 9]], vix[0] = np.nan, np.nan
    built = panel.build(chains_of(sessions, tables), daily_of(sessions, SPY_close=close, VIX=vix))
    np.testing.assert_array_equal(built.close, built.spot)
    np.testing.assert_array_equal(built.vix, np.tile(100 * built.atm_iv[:, 1:], (1, 2)))
    assert f"SPY chain (daily SPY_close lacks 2 of 30 sessions, first {sessions[4]})" in built.sources["close"]
    assert built.sources["vix"] == f"atm_iv of SPY (daily VIX lacks 1 of 30 sessions, first {sessions[0]})"


def test_without_spy_the_first_ticker_stands_in_for_the_vix():
    sessions, tables = weekdays(5), random_market(10, 5, ("IWM", "QQQ"))
    built = panel.build(chains_of(sessions, tables), None)
    np.testing.assert_array_equal(built.vix[:, 0], 100 * built.atm_iv[:, 0])
    assert built.sources["vix"] == "atm_iv of IWM"
    assert built.sources["close"] == "chain"


@pytest.mark.parametrize("n_days, factor, refused",
                         [(80, 0.98, True), (80, 0.995, False), (20, 1.2, True), (20, 1.03, False)])
def test_a_close_of_another_market_is_refused_with_both_prices(n_days, factor, refused):
    sessions, tables = weekdays(n_days), random_market(11, n_days, ("SPY",))
    chains = chains_of(sessions, tables)
    series = daily_of(sessions, SPY_close=tables["SPY"]["underlying"][::4] * factor)
    if refused:
        with pytest.raises(ConfigError, match=r"SPY_close is .* dollars on 2020-.* underlying is .* not adjusted"):
            panel.build(chains, series)
    else:
        assert panel.build(chains, series).sources["close"] == "daily"


def test_the_bill_rate_is_the_last_one_published_and_zero_where_it_is_too_old():
    sessions, tables = weekdays(10), random_market(12, 10, ("SPY",))
    percent = np.full(10, np.nan)
    percent[[0, 5]] = 4.0, 5.0
    built = panel.build(chains_of(sessions, tables), daily_of(sessions, DTB3=percent))
    np.testing.assert_allclose(built.rate, [0.04] * 5 + [0.05] * 5)
    assert built.sources["rate"] == "daily DTB3"
    percent[0] = np.nan
    built = panel.build(chains_of(sessions, tables), daily_of(sessions, DTB3=percent))
    assert (built.rate == 0).all() and built.sources["rate"].startswith("0 (daily DTB3 lacks 5 of 10 sessions, first")
    assert panel.build(chains_of(sessions, tables), None).sources["rate"] == "0"


def test_dividends_are_the_positive_amounts_of_each_ticker():
    sessions, tables = weekdays(10), random_market(13, 10)
    paid = np.zeros(10)
    paid[[3, 8]] = 1.5, 1.6
    built = panel.build(chains_of(sessions, tables), daily_of(sessions, SPY_div=paid))
    np.testing.assert_array_equal(built.dividends["SPY"][0], sessions[[3, 8]])
    np.testing.assert_array_equal(built.dividends["SPY"][1], [1.5, 1.6])
    assert [len(column) for column in built.dividends["QQQ"]] == [0, 0]
    assert built.sources["dividends"] == "QQQ none, SPY daily"


def test_the_fingerprint_changes_with_the_chains_and_with_the_daily_series():
    sessions, tables = weekdays(5), random_market(14, 5, ("SPY",))
    daily = daily_of(sessions, VIX=np.full(5, 20.0))
    prints = {panel.build(chains_of(sessions, tables, name), series).fingerprint
              for name in ("a", "b") for series in (None, daily, replace(daily, fingerprint="other"))}
    assert len(prints) == 6 and all(len(text) == 64 for text in prints)
    assert panel.build(chains_of(sessions, tables, "a"), daily).fingerprint in prints
