"""What a promoted backtest promises, and how rarely that is broken by a world that is the backtest."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from mahler.fills.travel import travel
from mahler.monitoring import bands as promise
from mahler.monitoring.bands import BandRule, History, Size, bands, by_session, by_trade, of_backtest
from mahler.schema import ConfigError, Exit
from mahler.validation import sequential
from tests.ledgers import random_ledger

RULE = BandRule(horizon=60, watch=0.10, stop=0.02, least=10, replications=2000, seed=0)
FILL = partial(travel, travel=0.66)


def ledger(n_days: int = 1500, n_trades: int = 900):
    made = random_ledger(np.random.default_rng(0), n_days=n_days, n_trades=n_trades)
    made.counts["candidates"] = 5000.0
    return made


@pytest.fixture(scope="module")
def promised():
    return bands(ledger(), fill=FILL, rule=RULE, rng=np.random.default_rng(0))


def test_what_is_promised_survives_json(promised):
    assert promise.read(json.loads(json.dumps(promise.plain(promised), allow_nan=False))) == promised


def test_what_is_no_promise_is_refused():
    with pytest.raises(ConfigError, match="promote again"):
        promise.read({"bands": {"growth": {}}})


def test_the_promise_says_what_the_backtest_did(promised):
    t = ledger().trades
    closed = t["exit_reason"] != Exit.END_OF_PERIOD.name.lower()
    assert promised.fill_share == pytest.approx(0.66)
    assert promised.mean_pnl["all"] == pytest.approx(t["pnl_per_contract"][closed].mean())
    assert promised.exits["stop_loss"] == pytest.approx((t["exit_reason"][closed] == "stop_loss").mean())
    assert sum(promised.contracts.values()) == len(t["pnl"]) == promised.trades
    assert promised.bands["trades"].centre == pytest.approx(900 / 1500, rel=0.03)


def test_only_what_is_no_money_may_stop_an_account(promised):
    assert {name for name, band in promised.bands.items() if band.stop} == set(promise.DECIDES)


def test_a_stop_is_further_out_than_a_watch(promised):
    for name in promise.DECIDES:
        band = promised.bands[name]
        assert band.stop[0] >= band.watch[0] and band.stop[1] >= band.watch[1]


def test_a_band_narrows_as_trades_come_in(promised):
    band = promised.bands["pnl"]
    widths = [np.diff(band.limits(n, band.watch)).item() for n in (10, 30, 300)]
    assert widths[0] > 1.3 * widths[1] > 1.3 * widths[2]
    last = len(band.below)
    assert np.diff(band.limits(4 * last, band.watch)) == pytest.approx(np.diff(band.limits(last, band.watch)) / 2)


def test_a_size_is_what_the_risk_of_the_regime_buys_at_the_equity_of_the_account():
    trades = {"day": np.arange(3), "regime": np.array(["bull_low_vol", "bull_low_vol", "none"], object),
              "contracts": np.array([4, 2, 1]), "max_loss": np.full(3, 480.0), "equity": np.array([100_000.0, 99_000.0, 1.0]),
              "size_multiplier": np.array([1.0, 0.5, 1.0]), "reason": np.full(3, "", object), "pnl": np.full(3, np.nan)}
    sizes = {"bull_low_vol": Size(0.02, 0.02, lots=False)}
    assert by_trade(trades, sizes, [])["size"].tolist()[:2] == [1.0, 1.0]      # floor(4.17) and floor(2.06)
    assert np.isnan(by_trade(trades, sizes, [])["size"][2])
    assert by_trade(trades, {"bull_low_vol": Size(8.0, 8.0, lots=True)}, [])["size"].tolist()[:2] == [0.5, 0.5]


def ever_out(promised, history: History, stretch: np.ndarray) -> tuple[bool, bool]:
    """Whether any band, or the CUSUM, is left for a watch, or for a stop, somewhere along a stretch of the backtest."""
    n, start = len(history.growth), np.searchsorted(history.trades["day"], np.arange(len(history.growth) + 1))
    rows = np.concatenate([np.arange(start[s], start[s + 1]) for s in stretch]).astype(int)
    mine = {name: column[rows] for name, column in history.trades.items()}
    regimes = [name for name in promised.mean_pnl if name != "all"]
    values = {k: v[stretch] for k, v in by_session(history).items()} | by_trade(mine, promised.sizes, regimes)
    watch, stop = bool((promised.cusum.path(history.growth[stretch]) > promised.cusum.h).any()), False
    for name, column in values.items():
        means = sequential.running_means(column[~np.isnan(column)][None])[0]
        for k in range(promised.rule.least, len(means) + 1):
            watch |= promise.outside(promised.bands[name], name, means[k - 1], k, "watch")
            stop |= promise.outside(promised.bands[name], name, means[k - 1], k, "stop")
    return watch, stop


def test_all_bands_together_are_left_as_rarely_as_is_promised():
    made = ledger()
    promised, history = bands(made, fill=FILL, rule=RULE, rng=np.random.default_rng(0)), of_backtest(made)
    rng = np.random.default_rng(1)
    new = sequential.stretches(len(history.growth), RULE.horizon, promised.block_length, 400, rng)
    watch, stop = np.mean([ever_out(promised, history, stretch) for stretch in new], axis=0)
    assert 0.04 <= watch <= 0.16                               # 0.10, and three standard errors and what was estimated
    assert stop <= 0.05                                        # 0.02


@pytest.mark.parametrize("n_days, n_trades", [(200, 120), (1500, 20)])
def test_a_backtest_that_is_too_short_promises_nothing(n_days, n_trades):
    with pytest.raises(ConfigError, match="bands need a backtest of 240 sessions and 30 closed trades"):
        bands(ledger(n_days, n_trades), fill=FILL, rule=RULE, rng=np.random.default_rng(0))


@pytest.mark.parametrize("changed, words", [({"stop": 0.2}, "bands.stop 0.2 is a smaller chance"),
                                            ({"least": 60}, "bands.least 60 is below"),
                                            ({"horizon": 5}, "bands.horizon is sessions in")])
def test_a_rule_that_makes_no_sense_is_refused(changed, words):
    fields = {**vars(RULE), **changed}
    with pytest.raises(ConfigError, match=words):
        BandRule(**fields)
