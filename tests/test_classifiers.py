"""Both classifiers: labels by hand, on a planted market, and the same on a truncated history."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from mahler import cache, panel as panels, workers
from mahler.classifiers import gmm as gmm_module
from mahler.classifiers.gmm import gmm
from mahler.classifiers.rule import rule
from mahler.panel import Panel
from mahler.schema import Bound, Regime

CONF = Path(__file__).resolve().parents[1] / "conf" / "classifier"
quick_gmm = partial(gmm, seed=0, n_init=2, min_days=252)
CLASSIFIERS = [pytest.param(rule, id="rule"), pytest.param(quick_gmm, id="gmm")]


def panel_of(close: np.ndarray, atm_iv: np.ndarray) -> Panel:
    """A panel of closes and ATM IVs (n_days, n_tickers) over weekdays from 2020-01-02."""
    n_days, n_tickers = close.shape
    volatility = panels.realized_vol(close)
    return Panel(
        tickers=("IWM", "QQQ", "SPY")[:n_tickers], dates=np.busday_offset("2020-01-02", np.arange(n_days)),
        spot=close, close=close, atm_iv=atm_iv, iv_percentile=panels.iv_percentile(atm_iv), vix=100 * atm_iv,
        realized_vol=volatility, momentum=panels.momentum(close), trend=panels.trend(close),
        iv_rv_spread=atm_iv - volatility, rate=np.zeros(n_days), dividends={}, sources={}, fingerprint="")


def planted(seed: int, n_days: int, n_tickers: int = 1) -> tuple[Panel, np.ndarray]:
    """Calm rises (+0.15 % a day, sd 0.5 %) and stormy falls (-0.5 %, sd 2.5 %) of 90 days each; and which is which."""
    rng = np.random.default_rng(seed)
    stormy = (np.arange(n_days) // 90 % 2 == 1)[:, None].repeat(n_tickers, axis=1)
    returns = np.where(stormy, rng.normal(-0.005, 0.025, stormy.shape), rng.normal(0.0015, 0.005, stormy.shape))
    atm_iv = np.where(stormy, 0.42, 0.11) * np.exp(rng.normal(0, 0.1, stormy.shape))
    return panel_of(100 * np.exp(np.cumsum(returns, axis=0)), atm_iv), stormy[:, 0]


def truncated(panel: Panel, n: int) -> Panel:
    arrays = {f.name: getattr(panel, f.name)[:n] for f in fields(Panel)
              if isinstance(getattr(panel, f.name), np.ndarray)}
    return replace(panel, **arrays)


def settled(n_days: int) -> np.ndarray:
    """Days whose 20-day and 50-day windows lie within one planted regime."""
    return np.arange(n_days) % 90 >= 55


# ---------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_a_planted_market_is_labelled_calm_bull_and_stormy_bear(classify):
    panel, stormy = planted(0, 720)
    labels = classify(panel)[:, 0]
    late = settled(720) & (np.arange(720) >= 360)
    assert (labels[late & ~stormy] == Regime.BULL_LOW_VOL).mean() > 0.9
    assert (labels[late & stormy] == Regime.BEAR_HIGH_VOL).mean() > 0.9


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_labels_are_int8_regimes_for_every_day_and_ticker(classify):
    panel, _ = planted(1, 420, n_tickers=3)
    labels = classify(panel)
    assert labels.shape == (420, 3) and labels.dtype == np.int8
    assert set(np.unique(labels)) <= set(Regime) and Regime.NONE in labels


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_labels_on_a_truncated_history_are_the_same_up_to_its_end(classify):
    panel, _ = planted(2, 500)
    whole = classify(panel)
    for n in np.random.default_rng(3).choice(range(280, 500), 20, replace=False):
        np.testing.assert_array_equal(classify(truncated(panel, n)), whole[:n], err_msg=f"{n} days")


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_what_comes_after_a_day_does_not_change_labels_up_to_it(classify):
    panel, _ = planted(4, 440)
    whole = classify(panel)
    rng = np.random.default_rng(5)
    for n in (330, 400):
        wild = {name: getattr(panel, name).copy()
                for name in ("realized_vol", "momentum", "trend", "atm_iv", "iv_rv_spread")}
        for values in wild.values():
            values[n:] = rng.normal(0, 9, values[n:].shape)
        np.testing.assert_array_equal(classify(replace(panel, **wild))[:n], whole[:n])


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_a_ticker_is_labelled_by_its_own_series_only(classify):
    panel, _ = planted(6, 380, n_tickers=2)
    both = classify(panel)
    for i in range(2):
        alone = {f.name: getattr(panel, f.name)[:, [i]] for f in fields(Panel)
                 if getattr(getattr(panel, f.name), "ndim", 0) == 2}
        np.testing.assert_array_equal(classify(replace(panel, tickers=("X",), **alone))[:, 0], both[:, i])


@pytest.mark.parametrize("classify", CLASSIFIERS)
def test_a_short_history_has_no_label(classify):
    panel, _ = planted(7, 252)
    assert (classify(panel) == Regime.NONE).all()


@pytest.mark.parametrize("name, function", [("rule", rule), ("gmm", gmm)])
def test_the_yaml_of_a_classifier_gives_every_number_within_its_bound(name, function):
    option = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert option.pop("_target_") == f"{function.__module__}.{function.__name__}" and option.pop("_partial_") is True
    numbers = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert option.keys() == numbers.keys() and all(p.default is p.empty for p in numbers.values())
    hints = typing.get_type_hints(function, include_extras=True)
    for key, value in option.items():
        kind, bound = typing.get_args(hints[key])
        assert isinstance(bound, Bound) and isinstance(value, kind) and bound.holds(value), key


# ---------------------------------------------------------------------------------------------- rule


def rule_on(volatility: np.ndarray, trend: np.ndarray) -> np.ndarray:
    blank = panel_of(np.full((len(volatility), 1), 100.0), np.full((len(volatility), 1), 0.2))
    return rule(replace(blank, realized_vol=volatility[:, None], trend=trend[:, None]))[:, 0]


def test_the_rule_compares_with_the_median_of_the_last_252_days():
    # Ever higher, so today is above the median of its window; the first window is full on day 251.
    labels = rule_on(np.linspace(0.1, 0.2, 300), np.full(300, 0.01))
    assert (labels[:251] == Regime.NONE).all() and (labels[251:] == Regime.BULL_HIGH_VOL).all()
    labels = rule_on(np.linspace(0.2, 0.1, 300), np.full(300, -0.01))
    assert (labels[251:] == Regime.BEAR_LOW_VOL).all()


def test_the_rule_calls_the_median_itself_low_and_a_flat_trend_bear():
    assert (rule_on(np.full(260, 0.2), np.zeros(260))[251:] == Regime.BEAR_LOW_VOL).all()


def test_the_rule_equals_a_loop_over_observed_days():
    rng = np.random.default_rng(8)
    volatility, trend = rng.uniform(0.1, 0.3, 600), rng.normal(0, 0.01, 600)
    volatility[rng.random(600) < 0.1] = np.nan
    trend[rng.random(600) < 0.1] = np.nan
    expected = np.full(600, int(Regime.NONE))
    for t in range(600):
        past = [v for v in volatility[:t + 1] if np.isfinite(v)][-252:]
        if np.isfinite(volatility[t]) and np.isfinite(trend[t]) and len(past) == 252:
            high, bull = volatility[t] > np.median(past), trend[t] > 0
            expected[t] = {(True, False): 0, (True, True): 1, (False, False): 2, (False, True): 3}[bull, high]
    np.testing.assert_array_equal(rule_on(volatility, trend), expected)
    assert set(expected) == {-1, 0, 1, 2, 3}


# ---------------------------------------------------------------------------------------------- gmm


def test_the_mixture_labels_from_the_first_month_that_252_complete_days_precede():
    panel, _ = planted(9, 400)
    labels = quick_gmm(panel)[:, 0]
    month = panel.dates.astype("datetime64[M]")
    # Day 49 is the first with a 50-day average: 252 complete days are known after day 300.
    expected = np.flatnonzero(month > month[300])[0]
    assert (labels[:expected] == Regime.NONE).all() and (labels[expected:] != Regime.NONE).all()
    # Exactly as many complete days as are asked for are enough, one fewer is not.
    exactly = gmm(panel, seed=0, n_init=2, min_days=int(expected) - 49)[:, 0]
    assert np.flatnonzero(exactly != Regime.NONE)[0] == expected
    one_more = gmm(panel, seed=0, n_init=2, min_days=int(expected) - 48)[:, 0]
    assert np.flatnonzero(one_more != Regime.NONE)[0] == np.flatnonzero(month > month[expected])[0]


def test_a_day_with_a_missing_feature_has_no_label_and_counts_for_no_fit():
    panel, _ = planted(10, 400)
    whole = quick_gmm(panel)[:, 0]
    first = np.flatnonzero(whole != Regime.NONE)[0]
    atm_iv = panel.atm_iv.copy()
    atm_iv[[first + 3, 399]] = np.nan
    labels = quick_gmm(replace(panel, atm_iv=atm_iv, iv_rv_spread=atm_iv - panel.realized_vol))[:, 0]
    assert (np.flatnonzero(labels[first:] == Regime.NONE) + first).tolist() == [first + 3, 399]
    atm_iv[60:100] = np.nan                                 # 40 days fewer: the first label comes later
    later = quick_gmm(replace(panel, atm_iv=atm_iv, iv_rv_spread=atm_iv - panel.realized_vol))[:, 0]
    assert np.flatnonzero(later != Regime.NONE)[0] > first


def test_the_mixture_is_the_same_in_every_run_with_one_seed():
    panel, _ = planted(11, 400)
    np.testing.assert_array_equal(quick_gmm(panel), quick_gmm(panel))


def test_the_mixture_does_not_depend_on_the_units_of_a_feature():
    panel, _ = planted(12, 360)
    percent = replace(panel, momentum=100 * panel.momentum)
    np.testing.assert_array_equal(quick_gmm(percent), quick_gmm(panel))


def test_a_start_from_the_month_before_is_the_same_mixture_in_other_units():
    rng = np.random.default_rng(14)
    known = rng.normal(0, 1, (300, 5)) * [1, 2, 3, 4, 5] + 7
    model = gmm_module._fresh((known, 0, 1))
    mean, scale = rng.normal(0, 1, 5), rng.uniform(0.5, 2, 5)
    start = gmm_module._start_from(model, mean, scale)

    def distances(points: np.ndarray, means: np.ndarray, precisions: np.ndarray) -> np.ndarray:
        away = points[:, None] - means
        return np.einsum("nki,kij,nkj->nk", away, precisions, away)

    np.testing.assert_allclose(
        distances((known - mean) / scale, start["means_init"], start["precisions_init"]),
        distances((known - model.mean) / model.scale, model.mixture.means_, model.mixture.precisions_), rtol=1e-9)


def test_a_feature_that_never_moved_does_not_stop_the_mixture():
    panel, _ = planted(13, 360)
    labels = quick_gmm(replace(panel, atm_iv=np.full_like(panel.atm_iv, 0.2), iv_rv_spread=0.2 - panel.realized_vol))
    assert (labels[-1] != Regime.NONE).all()


def test_a_gmm_goes_on_from_the_month_before_and_labels_the_same(tmp_path, monkeypatch):
    panel, _ = planted(7, 500, 2)
    fits = []
    fresh = gmm_module._fresh
    monkeypatch.setattr(gmm_module, "_fresh", lambda start: fits.append(0) or fresh(start))
    whole = quick_gmm(panel)
    from_scratch, months = len(fits), panel.dates.astype("datetime64[M]")
    month_ends = np.flatnonzero(months[1:] != months[:-1])[-2:] + 1
    counts = []
    with cache.remembering(tmp_path):
        for n in (month_ends[0] - 1, month_ends[0] + 1, month_ends[0] + 2, month_ends[1] + 3, len(panel.dates)):
            fits.clear()
            np.testing.assert_array_equal(quick_gmm(truncated(panel, n)), whole[:n])
            counts.append(len(fits))
    assert counts[0] == from_scratch - 2 * 2        # two tickers, two months more
    assert counts[1:] == [2, 0, 2, 0]               # a fit for each ticker and new month, and no other


def test_a_gmm_that_is_fitted_in_two_processes_labels_the_same(monkeypatch):
    panel, _ = planted(7, 420, 2)
    here, pool, started = quick_gmm(panel), workers.pool, []
    monkeypatch.setattr(workers, "pool", lambda *a: started.append(a[0]) or pool(*a))
    with workers.allowing(2):
        np.testing.assert_array_equal(quick_gmm(panel), here)
        assert started == []                        # so few fits are not worth a process
        monkeypatch.setattr(gmm_module, "WORTH_A_PROCESS", 1)
        np.testing.assert_array_equal(quick_gmm(panel), here)
    assert started == [2]


def test_a_gmm_does_not_go_on_from_other_days(tmp_path):
    panel, _ = planted(7, 420)
    other = replace(panel, atm_iv=panel.atm_iv * 1.5, iv_rv_spread=panel.atm_iv * 1.5 - panel.realized_vol)
    with cache.remembering(tmp_path):
        quick_gmm(panel)
        np.testing.assert_array_equal(quick_gmm(other), planted_alone := quick_gmm(other))
    np.testing.assert_array_equal(planted_alone, quick_gmm(other))
