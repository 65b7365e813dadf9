"""Judging inside the simulation: only what would have been asked is asked, and it ends."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from mahler import backtesting, ledger as ledgers
from mahler.llm import asking, loop
from mahler.llm.records import entry
from mahler.simulate import simulate
from tests.conftest import PERIOD, default_config


@pytest.fixture(scope="module")
def book(synthetic_home: Path):
    """The book of SPY and QQQ from 2017 to 2020, and the function that walks it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MAHLER_HOME", str(synthetic_home))
    told = default_config(*PERIOD, "classifier=rule")
    made = backtesting.book(told, backtesting.prepare(told, *backtesting.market(told)))
    patch.undo()

    def walk(candidates):
        return simulate(candidates, made.paths, made.exits, made.panel, told.exit, made.limits, made.breaker, made.costs,
                        initial_equity=made.initial_equity, first_day=made.first_day)

    return made, walk


def coin(rate: float, seed: int, seen: list | None = None):
    """Rejects a share of trades, each always or never, whenever it is asked."""
    def decide(records):
        if seen is not None:
            seen.append(records)
        draws = [crc32(f"{seed} {entry(record)}".encode()) / 2 ** 32 for record in records]
        return asking.blank(len(records)) | {"approve": np.array(draws) >= rate}
    return decide


def test_without_a_veto_the_book_is_judged_once_and_stays_as_it_is(book):
    made, walk = book
    ended = loop.judge(made.candidates, walk, coin(0.0, 1))
    alone = walk(made.candidates)
    assert (ended.rounds, ended.vetoes) == (1, 0) and ledgers.difference(ended.ledger, alone) is None
    np.testing.assert_array_equal(ended.rows, alone.trades["candidate"])


def test_the_first_round_is_the_trades_that_the_rules_alone_admit_and_nothing_is_asked_twice(book):
    made, walk = book
    seen = []
    ended = loop.judge(made.candidates, walk, coin(0.3, 2, seen))
    assert seen[0] == ledgers.export(walk(made.candidates))
    assert len(ended.rows) == len(np.unique(ended.rows)) == sum(map(len, seen)) == len(ended.decisions["approve"])


def test_when_it_ends_every_trade_was_approved_and_every_veto_is_out_of_the_book(book):
    made, walk = book
    ended = loop.judge(made.candidates, walk, coin(0.4, 3))
    approved = set(ended.rows[ended.decisions["approve"]].tolist())
    assert ended.vetoes > 50 and set(ended.ledger.trades["candidate"].tolist()) <= approved


def test_each_round_makes_a_longer_beginning_of_the_book_final(book):
    made, walk = book
    books = []
    def walked(candidates):
        books.append(walk(candidates))
        return books[-1]
    seen = []
    loop.judge(made.candidates, walked, coin(0.4, 4, seen))
    last = books[-1].trades
    for before, asked in zip(books, seen):
        first = min(record["date"] for record in asked)          # the earliest trade that had no decision yet
        now, end = (t["date"].astype(str) < first for t in (before.trades, last))
        np.testing.assert_array_equal(before.trades["candidate"][now], last["candidate"][end])


def test_a_cap_only_ever_lowers_the_contracts(book):
    made, walk = book
    def two(records):
        return asking.blank(len(records)) | {"approve": np.ones(len(records), bool),
                                             "contracts": np.full(len(records), 2, np.int32)}
    ended, alone = loop.judge(made.candidates, walk, two), walk(made.candidates)
    assert alone.trades["contracts"].max() > 2 and set(np.unique(ended.ledger.trades["contracts"])) <= {1, 2}


def test_a_hundred_vetoes_take_at_most_five_simulations_in_the_median(book):
    made, walk = book
    costs = []
    for seed in range(4):
        for rate in (0.2, 0.35, 0.5):
            ended = loop.judge(made.candidates, walk, coin(rate, seed))
            costs.append(100.0 * ended.rounds / ended.vetoes)
    assert np.median(costs) <= 5.0, costs
