"""The fill axis: the same candidates at other fills."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mahler import repricing, stages
from mahler.commands import backtest as command
from mahler.exits import first_exits
from mahler.fills.travel import travel
from mahler.sizing import effective_multipliers, erased, lots
from tests.conftest import PERIOD, default_config
from tests.markets import MemoryChains, random_market
from types import SimpleNamespace


@pytest.mark.parametrize("share", [0.5, 0.66, 0.83, 1.0])
def test_prices_at_any_travel_are_those_of_the_fill_itself(share: float) -> None:
    met = 0
    for seed in range(30):
        market = random_market(seed)
        chains = MemoryChains(market.sessions, market.tables)
        panel = SimpleNamespace(close=market.close, dividends=market.dividends, rate=market.rate, splits={},
                                iv_percentile=market.iv_percentile)
        fill = partial(travel, travel=share)
        from mahler.paths import trace
        from mahler.screen import screen
        candidates, _ = screen(chains, panel, market.entry, fill)
        paths = trace(candidates, chains, panel, fill)
        known = repricing.prices(candidates, chains, panel)
        again, moved = repricing.at(share, candidates | {"risk_fraction": np.ones(len(candidates["day"]))}, paths, known)
        np.testing.assert_allclose(again["credit"], candidates["credit"], atol=1e-12)
        np.testing.assert_allclose(moved.close, paths.close, atol=1e-12)
        met += len(candidates["day"])
    assert met > 1000


def test_the_break_even_travel_is_where_the_pnl_changes_its_sign() -> None:
    found = repricing.break_even(lambda p: 100.0 * (0.7312 - p))
    assert found["break_even_travel"] == pytest.approx(0.7312, abs=1e-4)
    assert found["pnl_at_mid"] == pytest.approx(23.12) and found["pnl_at_natural"] == pytest.approx(-26.88)


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_book_that_loses_at_the_mid_or_earns_across_the_quote_has_no_break_even_travel(level: float) -> None:
    assert set(repricing.break_even(lambda p: level - 0.1 * p)) == {"pnl_at_mid", "pnl_at_natural"}


def test_at_the_break_even_travel_the_rewalked_ledger_earns_nothing(at_home) -> None:
    config = default_config(*PERIOD, "universe=spy", "classifier=rule", "entry.side=put", "costs.commission=0",
                            "sizing.fraction=0.05")
    prepared = command.prepare(config, *command.market(config))
    found = command.fill_axis(config, prepared)
    assert found["pnl_at_mid"] > 0 > found["pnl_at_natural"], "this book does not cross zero: the test needs another"
    candidates = stages.sized(prepared, config.regime, config.sizing)
    known = stages.prices(prepared.found, prepared.chains, prepared.panel, None)

    def pnl(share: float) -> float:
        from mahler.simulate import simulate
        repriced, paths = repricing.at(share, candidates, prepared.found.paths, known)
        exits = first_exits(repriced, paths, config.exit, config.costs, prepared.chains.sessions)
        return simulate(repriced, paths, exits, prepared.panel, config.exit, config.limits, config.breaker, config.costs,
                        initial_equity=config.initial_equity, first_day=prepared.first_day).trades["pnl"].sum()

    at = found["break_even_travel"]
    assert pnl(at - 2e-4) > 0 >= pnl(at + 2e-4)


# ---- multipliers after rounding --------------------------------------------------------------------------------------


def _sized(fraction, cap=0):
    n = len(fraction)
    return {"risk_fraction": np.array(fraction, float), "max_contracts": np.full(n, cap, np.int32)}


def test_four_tenths_of_one_contract_is_none() -> None:
    equity, max_loss = np.full(4, 25_000.0), np.full(4, 480.0)          # 2 % is one contract
    regime = np.array([0, 1, 2, 3], np.int8)
    base, prod = _sized([0.02] * 4), _sized([0.02, 0.015, 0.01, 0.008])
    assert lots(base, equity, max_loss).tolist() == [1, 1, 1, 1]
    assert effective_multipliers(prod, base, regime, equity, max_loss) == {
        "bull_low_vol": 1.0, "bull_high_vol": 0.0, "bear_low_vol": 0.0, "bear_high_vol": 0.0}


def test_rounding_that_erases_a_difference_is_named_and_one_that_keeps_it_is_not() -> None:
    nominal = {"bull_low_vol": 1.0, "bear_low_vol": 0.5, "bear_high_vol": 0.4}
    assert erased(nominal, {"bull_low_vol": 1.0, "bear_low_vol": 0.0, "bear_high_vol": 0.0}) == [
        ("bear_high_vol", "bear_low_vol")]
    assert erased(nominal, {"bull_low_vol": 1.0, "bear_low_vol": 0.5, "bear_high_vol": 0.41}) == []


def test_a_cap_and_a_number_of_lots_are_contracts_asked_for() -> None:
    equity, max_loss = np.full(3, 100_000.0), np.full(3, 500.0)
    assert lots(_sized([0.1, 0.1, np.inf], cap=7), equity, max_loss).tolist() == [7, 7, 7]
    assert lots(_sized([0.0, 0.019, 5e-324]), equity, max_loss).tolist() == [0, 3, 0]
