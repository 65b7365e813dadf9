"""The fill axis: the same candidates at other fills."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from mahler import repricing, stages
from mahler.commands import backtest as command
from mahler.core.spreads import best_of_groups
from mahler.exits import first_exits
from mahler.fills.travel import travel
from mahler.paths import trace
from mahler.schema import CANDIDATE
from mahler.screen import score, screen
from mahler.sizing import effective_multipliers, erased, lots
from tests.conftest import PERIOD, default_config
from tests.markets import MemoryChains, random_market


@pytest.mark.parametrize("share", [0.5, 0.66, 0.83, 1.0])
def test_what_is_read_once_gives_what_screening_and_tracing_at_any_travel_give(share: float) -> None:
    met, lost = 0, 0
    for seed in range(30):
        market = random_market(seed)
        chains = MemoryChains(market.sessions, market.tables)
        panel = SimpleNamespace(close=market.close, dividends=market.dividends, rate=market.rate, splits={},
                                iv_percentile=market.iv_percentile)
        entry = replace(market.entry, per_day=2, min_credit_to_width=0.02)       # so that ranks and floors bind
        fill = partial(travel, travel=share)
        candidates, _ = screen(chains, panel, entry, fill)
        paths = trace(candidates, chains, panel, fill)
        exits = first_exits(candidates, paths, market.exit, market.costs, market.sessions)
        offered = repricing.read(chains, panel, entry, 0)
        again, where, ends = repricing.at(share, offered, entry, market.exit, market.costs, market.sessions)
        for name in CANDIDATE.names:
            if name != "spread_id":
                np.testing.assert_array_equal(again[name], candidates[name], err_msg=name)
        assert len(set(zip(again["spread_id"].tolist(), candidates["spread_id"].tolist(), strict=True))) == len(
            set(candidates["spread_id"].tolist()))                               # other numbers for the same legs
        for name in exits:
            np.testing.assert_allclose(ends[name], exits[name], atol=1e-9, err_msg=name)
        for k, (here, there) in enumerate(zip(where.start[:-1], paths.start[:-1], strict=True)):
            n = paths.start[k + 1] - there
            np.testing.assert_array_equal(where.mid[here:here + n], paths.mid[there:there + n])
        met += len(candidates["day"])
        lost += len(offered.spreads["day"]) - len(candidates["day"])
    assert met > 300 and lost > 0, (met, lost)


def test_a_credit_of_all_of_the_width_has_a_score_without_bound_and_no_warning() -> None:
    with np.errstate(all="raise"):
        assert score(np.array([5.0]), np.array([5.0]), np.array([0.1])).tolist() == [np.inf]


def test_the_break_even_travel_is_where_the_pnl_changes_its_sign() -> None:
    found = repricing.break_even(lambda p: 100.0 * (0.7312 - p))
    assert found["break_even_travel"] == pytest.approx(0.7312, abs=5e-4)
    assert found["pnl_at_mid"] == pytest.approx(23.12) and found["pnl_at_natural"] == pytest.approx(-26.88)


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_book_that_loses_at_the_mid_or_earns_across_the_quote_has_no_break_even_travel(level: float) -> None:
    assert set(repricing.break_even(lambda p: level - 0.1 * p)) == {"pnl_at_mid", "pnl_at_natural"}


BOOK = [*PERIOD, "universe=spy", "classifier=rule", "entry.side=put", "costs.commission=0", "sizing.fraction=0.05"]


def _run(*overrides: str):
    config = default_config(*BOOK, *overrides)
    return config, command.prepare(config, *command.market(config))


def _pnl(*overrides: str) -> float:
    config, prepared = _run(*overrides)
    return float(command.backtest(config, prepared).trades["pnl"].sum())


@pytest.fixture
def axis(at_home) -> dict[str, float]:
    found = command.fill_axis(*_run())
    assert "break_even_travel" in found, "this book does not cross zero: the test needs another"
    return found


def test_a_run_at_the_break_even_travel_earns_about_nothing(axis) -> None:
    """About: within a fiftieth of what lies between the mid and the natural fill, for whole trades come and go."""
    at = axis["break_even_travel"]
    earned = _pnl(f"fill.travel={at}")
    assert abs(earned) < 0.02 * (axis["pnl_at_mid"] - axis["pnl_at_natural"]), (at, earned, axis)
    assert _pnl(f"fill.travel={at - 0.001}") > 0 >= _pnl(f"fill.travel={at + 0.001}")


def test_the_ends_of_the_axis_are_runs_at_the_mid_and_across_the_quote(axis) -> None:
    assert axis["pnl_at_mid"] == pytest.approx(_pnl("fill=mid"), abs=0.005)
    assert axis["pnl_at_natural"] == pytest.approx(_pnl("fill=natural"), abs=0.005)


def test_the_axis_does_not_depend_on_the_fill_of_the_run(axis) -> None:
    for fill in ("mid", "natural"):
        assert command.fill_axis(*_run(f"fill={fill}")) == axis


def test_what_was_kept_on_disk_gives_the_same_axis(axis, at_home) -> None:
    stages._recent.clear()
    assert command.fill_axis(*_run()) == axis


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


def test_the_ends_of_the_axis_are_priced_once_for_all_multipliers_and_anew_for_another_exit(at_home, monkeypatch) -> None:
    priced, at = [], repricing.at
    monkeypatch.setattr(repricing, "at", lambda share, *rest: priced.append(share) or at(share, *rest))
    monkeypatch.setattr(stages, "_ends", {})
    alone = [command.fill_axis(*_run(*o)) for o in ((), ("regime=aggressive",), ("exit.profit_target=0.4",))]
    assert [priced.count(end) for end in (0.5, 1.0)] == [2, 2]
    monkeypatch.setattr(stages, "MOST_ENDS", 1)
    assert [command.fill_axis(*_run(*o)) for o in ((), ("regime=aggressive",), ("exit.profit_target=0.4",))] == alone


@pytest.mark.parametrize("most", [1, 2, 5, 50])
def test_the_best_of_each_group_are_those_of_a_sort_and_of_equals_the_earlier(most: int) -> None:
    rng = np.random.default_rng(most)
    group, score = rng.integers(0, 40, 2000), rng.integers(-9, 30, 2000) / 8.0
    group[group == 7] = 8                                                                  # one group has no row
    kept, last = best_of_groups(group, score, 41, most)
    for g in range(41):
        rows = np.flatnonzero(group == g)
        ranked = rows[np.argsort(-score[rows], kind="stable")]
        assert set(np.flatnonzero(kept & (group == g))) == set(ranked[:most])
        assert last[g] == (score[ranked[most - 1]] if len(rows) >= most else -np.inf)
