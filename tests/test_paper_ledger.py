"""The paper ledger: written once, read back as it was, and what its fills come to."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from mahler import schema
from mahler.paper import account as accounts, occ, records
from mahler.paper.filled import filled
from mahler.schema import ConfigError, Side
from tests import paper


@pytest.fixture
def traded(tmp_path):
    """Two spreads sold in two parts for 0.37 and 0.35, marked twice, bought back for 0.14."""
    opened, close = paper.opened(), paper.closing()
    paper.write(tmp_path, ("account", paper.account()), ("tickets", opened), ("tickets", close),
                ("fills", paper.fills(opened, 1, 1.30, 0.93, day="2024-03-04", tag="-1")),
                ("fills", paper.fills(opened, 1, 1.30, 0.95, day="2024-03-05", tag="-2")),
                ("marks", paper.marked("2024-03-04", 0.40)), ("marks", paper.marked("2024-03-05", 0.60)),
                ("marks", paper.marked("2024-03-08", 0.30)),
                ("fills", paper.fills(close, 2, 0.50, 0.36, day="2024-03-14", fees=4.0)))
    return tmp_path


# ---- records ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", records.TABLES)
def test_a_row_is_read_back_as_it_was_written(tmp_path, name):
    dtype, key = records.TABLES[name]
    full = {"f": 0.1 + 0.2, "M": np.datetime64("2024-03-04"), "O": "x", "i": 3, "b": True}
    row = {column: full[dtype[column].kind] for column in dtype.names}
    missing = {column: value for column, value in row.items() if dtype[column].kind not in "fMO" or column in key}
    missing |= {column: np.datetime64("2025-01-01") if dtype[column].kind == "M" else row[column] for column in key[:1]}
    if dtype[key[0]].kind == "O":
        missing[key[0]] = "y"
    written = paper.table(dtype, row, missing)
    assert records.write(tmp_path, {name: written}) == {name: 2}
    found = records.read(tmp_path, name)
    order = np.argsort(found[key[0]])
    for column in dtype.names:
        assert found[column].dtype == dtype[column]
        np.testing.assert_array_equal(found[column][order], written[column][np.argsort(written[key[0]])])


def test_the_same_row_again_changes_nothing(traded):
    assert records.write(traded, {"tickets": paper.opened()}) == {"tickets": 0}
    assert len(records.read(traded, "tickets")["ticket_id"]) == 2


def test_what_was_filled_is_not_changed(traded):
    other = paper.fills(paper.opened(), 1, 1.31, 0.93, day="2024-03-04", tag="-1")
    with pytest.raises(ConfigError, match="fills have .* with price 1.3, not 1.31: what is recorded is not changed"):
        records.write(traded, {"fills": other})


def test_a_refused_row_takes_the_whole_write_with_it(traded):
    with pytest.raises(ConfigError):
        records.write(traded, {"marks": paper.marked("2024-03-11", 0.2), "tickets": paper.opened(contracts=7)})
    assert "2024-03-11" not in records.read(traded, "marks")["date"].astype(str)


def test_an_order_moves_on(tmp_path):
    order = {"order_id": "o", "ticket_id": paper.POSITION, "submitted_at": "2024-03-04T19:45:00", "contracts": 2}
    for filled_so_far, status in ((1, "partially_filled"), (2, "filled")):
        new = paper.table(schema.ORDER, order | {"filled": filled_so_far, "status": status})
        assert records.write(tmp_path, {"orders": new}) == {"orders": 1}
    assert records.read(tmp_path, "orders")["status"].tolist() == ["filled"]


def test_a_ledger_that_is_not_there_is_empty_and_is_not_made_by_reading(tmp_path):
    assert len(records.read(tmp_path, "exits")["position"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_another_version_or_another_file_is_refused_by_name(traded):
    with closing(sqlite3.connect(traded / records.FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="ledger.sqlite is no paper ledger of version 2"):
        records.read(traded, "fills")
    (traded / records.FILE).write_text("no database at all" * 100)
    with pytest.raises(ConfigError, match="ledger.sqlite cannot be used: file is not a database"):
        records.read(traded, "fills")


def test_many_writers_at_once_lose_nothing(tmp_path):
    def write(k):
        records.write(tmp_path, {"marks": paper.marked(str(np.datetime64("2024-01-01") + k), 0.1 * k)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert len(records.read(tmp_path, "marks")["date"]) == 40
    with closing(sqlite3.connect(tmp_path / records.FILE)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---- what it comes to ------------------------------------------------------------------------------------------------

def test_partial_fills_join_into_one_position_and_one_exit(traded):
    exits = records.read(traded, "exits")
    assert exits["position"].tolist() == [paper.POSITION]
    assert (str(exits["entry_date"][0]), str(exits["date"][0]), exits["reason"][0]) == (
        "2024-03-04", "2024-03-14", "profit_target")
    assert exits["contracts"][0] == 2
    np.testing.assert_allclose([exits["credit"][0], exits["cost"][0], exits["fees"][0], exits["pnl"][0]],
                               [0.36, 0.14, 8.0, 2 * 100 * (0.36 - 0.14) - 8.0])


def test_the_account_is_cash_and_marks_day_by_day(traded):
    history = accounts.load(traded).history
    assert history["date"].astype(str).tolist() == ["2024-03-04", "2024-03-05", "2024-03-08", "2024-03-14"]
    np.testing.assert_allclose(history["cash"], [100_035.0, 100_068.0, 100_068.0, 100_036.0])
    np.testing.assert_allclose(history["marks"], [-40.0, -120.0, -60.0, 0.0])
    np.testing.assert_allclose(history["open_max_loss"], [467.0, 2 * 468.0, 2 * 468.0, 0.0])
    assert history["positions"].tolist() == [1, 1, 1, 0]
    assert history["entries"].tolist() == [1, 0, 0, 0] and history["exits"].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(history["heat"], history["open_max_loss"] / history["equity"])


def test_before_a_session_nothing_of_it_has_happened(traded):
    before = accounts.load(traded, np.datetime64("2024-03-14"))
    assert before.positions["contracts"].tolist() == [2]
    np.testing.assert_allclose([before.positions["credit"][0], before.positions["mark"][0], before.cash],
                               [0.36, 0.30, 100_068.0])
    assert accounts.load(traded).positions["contracts"].tolist() == []
    assert accounts.load(traded, np.datetime64("2024-03-04")).equity == 100_000.0


def test_an_order_of_yesterday_that_is_filled_today_is_there_when_today_is_scanned(traded):
    assert accounts.load(traded, np.datetime64("2024-03-05")).positions["contracts"].tolist() == [2]


def test_last_week_ends_before_monday_and_the_peak_is_the_highest_day(traded):
    before = accounts.load(traded, np.datetime64("2024-03-14"))
    assert before.yesterday == before.last_week(np.datetime64("2024-03-14")) == pytest.approx(100_008.0)
    assert before.last_week(np.datetime64("2024-03-08")) == 100_000.0
    assert before.peak == pytest.approx(100_008.0)


def test_levels_move_with_the_credit_that_was_got(traded):
    before = accounts.load(traded, np.datetime64("2024-03-05"))
    np.testing.assert_allclose(before.positions["stop_cost"], 0.81 * 0.36 / 0.36)
    alone = paper.fills(paper.opened(), 2, 1.30, 1.00, day="2024-03-04")       # for 0.30
    found = accounts.positions(paper.opened(), alone, schema.empty(schema.MARK), 1.0)
    np.testing.assert_allclose(found["target_cost"], 0.126 * 0.30 / 0.36)


def test_a_leg_alone_is_named(tmp_path):
    both = paper.fills(paper.opened(), 2, 1.3, 0.9, day="2024-03-04")
    short = {name: column[:1] for name, column in both.items()}
    paper.write(tmp_path, ("account", paper.account()), ("tickets", paper.opened()), ("fills", short))
    with pytest.raises(ConfigError, match=f"position {paper.POSITION} has -2 short and 0 long contracts"):
        accounts.load(tmp_path)


def test_an_assignment_and_an_exercise_cost_the_width(tmp_path):
    opened = paper.opened()
    event = {"position": paper.POSITION, "ticket_id": paper.POSITION, "date": "2024-04-19", "at": "2024-04-19T21:00:00",
             "reason": "expiry", "fees": 0.0}
    legs = [("short", "assigned", 2, 0.0), ("shares", "assigned", 200, 480.0),
            ("long", "exercised", -2, 0.0), ("shares", "exercised", -200, 475.0)]
    events = paper.table(schema.FILL, *(event | {"fill_id": str(k), "leg": leg, "kind": kind, "quantity": quantity,
                                                 "price": price} for k, (leg, kind, quantity, price) in enumerate(legs)))
    paper.write(tmp_path, ("account", paper.account()), ("tickets", opened),
                ("fills", paper.fills(opened, 2, 1.3, 0.9, day="2024-03-04", fees=0.0)), ("fills", events))
    exits = records.read(tmp_path, "exits")
    np.testing.assert_allclose([exits["cost"][0], exits["pnl"][0]], [5.0, 200 * (0.4 - 5.0)])
    assert exits["reason"].tolist() == ["expiry"]


def test_money_without_a_fill_is_in_the_cash(traded):
    fee = paper.table(schema.CASH, {"cash_id": "1", "date": "2024-03-06", "kind": "FEE", "amount": -0.12})
    records.write(traded, {"cash": fee})
    assert accounts.load(traded).cash == pytest.approx(100_036.0 - 0.12)
    assert accounts.load(traded, np.datetime64("2024-03-06")).cash == pytest.approx(100_068.0)


# ---- fills against quotes --------------------------------------------------------------------------------------------

def _quotes(source, at, short, long):
    return paper.table(schema.QUOTE, *({"ticket_id": paper.POSITION, "symbol": symbol, "at": at, "bid": bid, "ask": ask,
                                        "source": source} for symbol, (bid, ask) in zip(paper.LEGS, (short, long))))


def test_travel_is_half_at_the_mid_and_one_across(traded):
    opened, fills = paper.opened(), records.read(traded, "fills")
    scanned = _quotes("chain", "2024-03-04T19:45:00", (1.28, 1.36), (0.88, 0.96))       # mid 0.40, natural 0.32
    [row] = filled(opened, fills, scanned)["travel"]
    assert row == pytest.approx(0.75)                                                   # 0.36
    assert filled(opened, fills, scanned)["modelled_travel"][0] == pytest.approx(0.75)


def test_quotes_at_the_fill_are_preferred_to_those_of_the_scan(traded):
    quotes = {name: np.concatenate(columns) for name, *columns in (
        (name, _quotes("chain", "2024-03-04T19:45:00", (1.28, 1.36), (0.88, 0.96))[name],
         _quotes("csv", "2024-03-05T19:45:30", (1.28, 1.32), (0.90, 0.98))[name]) for name in schema.QUOTE.names)}
    found = filled(paper.opened(), records.read(traded, "fills"), quotes)               # mid 0.36
    assert found["travel"][0] == pytest.approx(0.5) and found["modelled_travel"][0] == pytest.approx(0.75)


def test_without_quotes_the_travel_is_missing(traded):
    found = filled(paper.opened(), records.read(traded, "fills"), schema.empty(schema.QUOTE))
    assert np.isnan(found["travel"][0]) and found["price"][0] == pytest.approx(0.36)


# ---- symbols ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", ["QQQ240419P00425000", "QQQ   240419P00425000"])
def test_a_symbol_is_read_padded_or_not(text):
    contract = occ.parse(text)
    assert (contract.ticker, str(contract.expiration), contract.side, contract.strike) == (
        "QQQ", "2024-04-19", Side.PUT, 425.0)
    assert occ.symbol(*contract) == "QQQ240419P00425000"


@pytest.mark.parametrize("text", ["SPY", "QQQ241399P00425000", "", "QQQ240419X00425000", "QQQ240419P0042500"])
def test_what_is_no_symbol_is_shown(text):
    with pytest.raises(ConfigError, match="is no option symbol"):
        occ.parse(text)
