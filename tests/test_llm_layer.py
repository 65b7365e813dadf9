"""A veto inside the portfolio: the account without it is the backtest's, and coins are its null."""

from __future__ import annotations

import numpy as np
import pytest
from pytest import approx

from mahler import backtesting, metrics
from mahler.llm import layer
from mahler.llm.layer import Book, Judged
from tests.conftest import PERIOD, default_config
from tests.judged import table


@pytest.fixture(scope="module")
def walked(synthetic_home, request):
    """The control's book and its ledger."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MAHLER_HOME", str(synthetic_home))
    config = default_config("universe=spy", *PERIOD)
    prepared = backtesting.prepare(config, *backtesting.market(config))
    yield backtesting.book(config, prepared), backtesting.backtest(config, prepared)
    patch.undo()


def judged(book: Book, approve: np.ndarray, cost: float = 0.0) -> Judged:
    """Every candidate, decided."""
    found = table(approve, np.full(len(approve), 0.8))
    return Judged(book, np.arange(len(approve)), found | {"cost": np.full(len(approve), cost)})


def test_nothing_vetoed_is_the_backtest(walked):
    book, ledger = walked
    found = layer.measure(judged(book, np.ones(len(book.candidates["day"]), bool)), rng=np.random.default_rng(0), draws=5)
    summary = metrics.summary(ledger)
    for name in layer.MEASURES:
        assert found.filtered[name] == approx(summary[name]) and found.rank(name) == 0.5
    assert found.filtered["trades"] == len(ledger.trades["pnl"])


def test_everything_vetoed_is_an_account_that_never_moves(walked):
    book, _ = walked
    found = layer.measure(judged(book, np.zeros(len(book.candidates["day"]), bool)), rng=np.random.default_rng(0), draws=5)
    assert found.filtered["trades"] == 0 and found.filtered["max_drawdown"] == 0.0
    assert np.isnan(found.filtered["sharpe"]) and np.isnan(found.rank("sharpe")) and np.isnan(found.p_value("sharpe"))


def test_hindsight_beats_the_coins_and_its_opposite_beats_none(walked):
    book, _ = walked
    good, rng = book.exits["pnl"] > 0, np.random.default_rng(1)
    best, worst = (layer.measure(judged(book, kept), rng=rng, draws=100) for kept in (good, ~good))
    assert best.rank("sharpe") == 1.0 and best.p_value("sharpe") == approx(1 / 101)
    assert worst.rank("sharpe") == 0.0 and best.rank("max_drawdown") == 1.0


def test_a_coin_is_one_coin_among_coins(walked):
    book, rng = walked[0], np.random.default_rng(2)
    n = len(book.candidates["day"])
    ranks = [layer.measure(judged(book, rng.random(n) >= 0.3), rng=rng, draws=40).rank("cagr") for _ in range(20)]
    assert 0.3 < np.mean(ranks) < 0.7 and min(ranks) < 0.3 and max(ranks) > 0.7


def test_the_replies_are_paid_from_the_account(walked):
    book, _ = walked
    n, rng = len(book.candidates["day"]), np.random.default_rng(3)
    free, paid = (layer.measure(judged(book, np.ones(n, bool), cost), rng=rng, draws=2) for cost in (0.0, 0.05))
    assert paid.cost == approx(0.05 * (book.candidates["day"] >= book.first_day).sum())
    assert free.curves["filtered"][-1] - paid.curves["filtered"][-1] == approx(paid.cost)
    assert paid.filtered["cagr"] < free.filtered["cagr"] == free.everything["cagr"]


def test_a_cap_lowers_contracts_and_never_raises_them():
    assert layer.capped(np.array([0, 0, 3, 3]), np.array([0, 2, 0, 5])).tolist() == [0, 2, 3, 3]


def test_a_later_start_is_flat_and_asks_nothing_of_before(walked):
    book, _ = walked
    half = judged(book, np.ones(len(book.candidates["day"]), bool), 0.01).since(book.dates[len(book.dates) // 2])
    found = layer.measure(half, rng=np.random.default_rng(4), draws=2)
    assert found.curves["everything"][0] == approx(book.initial_equity, rel=0.02)
    assert found.cost == approx(0.01 * (book.candidates["day"] >= half.book.first_day).sum())
