"""What a broker did joins to its tickets, once, whole or not at all, and what belongs to none is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from mahler.paper import account as accounts, alpaca_client, joining, records
from mahler.paper.filled import filled
from mahler.paper.importers import alpaca, csv as csv_importer
from mahler.schema import ConfigError
from tests import paper
from tests.alpaca_server import KEY, LONG, SECRET, SHORT, AlpacaServer, event, fill, order

STARTED = np.datetime64("2024-03-04")
OPENED = paper.POSITION


@pytest.fixture
def folder(tmp_path):
    """A ledger with the open ticket of two SPY 480/475 puts and the close ticket of ten days later."""
    paper.write(tmp_path / "paper", ("account", paper.account()), ("tickets", paper.opened()), ("tickets", paper.closing()))
    return tmp_path / "paper"


def take(folder: Path, *objects: dict, **read) -> joining.Joined:
    """Import Alpaca's objects from a file."""
    path = folder / "alpaca.json"
    path.write_text(json.dumps(list(objects)))
    return write(folder, alpaca.read(STARTED, path=path, base_url=None, timeout=5.0))


def write(folder: Path, imported) -> joining.Joined:
    joined = joining.join(imported, records.read_all(folder, *joining.NEEDED))
    records.write(folder, joined.rows)
    return joined


def take_csv(folder: Path, text: str) -> joining.Joined:
    path = folder / "fills.csv"
    path.write_text(text)
    return write(folder, csv_importer.read(STARTED, path=path))


PARTS = [order("o1", "2024-03-04"),
         fill("a", "o1-0", "2024-03-04", SHORT, "sell", 1, 1.31, second=3, leaves=1),
         fill("b", "o1-1", "2024-03-04", LONG, "buy", 1, 0.94, second=3, leaves=1),
         fill("c", "o1-0", "2024-03-04", SHORT, "sell", 1, 1.29, second=5),
         fill("d", "o1-1", "2024-03-04", LONG, "buy", 1, 0.94, second=5)]
CLOSE = [order("o2", "2024-03-14", opens=False, prices=(0.50, 0.36)),
         fill("e", "o2-0", "2024-03-14", SHORT, "buy", 2, 0.50), fill("f", "o2-1", "2024-03-14", LONG, "sell", 2, 0.36)]


# ---- Alpaca: orders and fills ----------------------------------------------------------------------------------------

def test_partial_fills_of_both_legs_join_to_one_ticket_and_to_one_position(folder):
    joined = take(folder, *PARTS)
    held = accounts.load(folder).positions
    assert held["position"].tolist() == [OPENED] and held["contracts"].tolist() == [2]
    assert held["credit"][0] == pytest.approx((1.31 + 1.29) / 2 - 0.94)
    orders = records.read(folder, "orders")
    assert (orders["ticket_id"][0], orders["filled"][0], orders["legs"][0]) == (OPENED, 2, "o1-0,o1-1")
    assert orders["limit_price"][0] == pytest.approx(0.36)              # a credit, which Alpaca writes -0.36
    assert joined.differing == [] and str(records.read(folder, "fills")["date"][0]) == "2024-03-04"


def test_a_close_joins_to_the_close_ticket_and_ends_the_position_for_its_reason(folder):
    take(folder, *PARTS, *CLOSE)
    exits = records.read(folder, "exits")
    assert exits["reason"].tolist() == ["profit_target"]
    assert exits["pnl"][0] == pytest.approx(200 * (0.36 - 0.14))
    assert filled(*(records.read(folder, name) for name in ("tickets", "fills", "quotes")))["price"].tolist() == (
        pytest.approx([0.36, 0.14]))


def test_the_same_again_is_nothing_new(folder):
    take(folder, *PARTS, *CLOSE)
    before = {name: records.read(folder, name) for name in records.TABLES}
    joined = take(folder, *CLOSE, *PARTS)
    assert joined.known == 6
    for name, table in before.items():
        for column, values in records.read(folder, name).items():
            np.testing.assert_array_equal(values, table[column])


def test_an_order_that_is_filled_further_moves_on(folder):
    take(folder, order("o1", "2024-03-04", filled=1), *PARTS[1:3])
    assert accounts.load(folder).positions["contracts"].tolist() == [1]
    take(folder, *PARTS)
    assert accounts.load(folder).positions["contracts"].tolist() == [2]
    assert records.read(folder, "orders")["status"].tolist() == ["filled"]


def test_activities_alone_find_the_order_that_was_imported_before(folder):
    take(folder, PARTS[0] | {"client_order_id": f"{OPENED}_2", "status": "new", "filled_qty": "0"} | {"legs": [
        leg | {"filled_qty": "0", "filled_avg_price": None} for leg in PARTS[0]["legs"]]})
    take(folder, *PARTS[1:])
    assert set(records.read(folder, "fills")["order_id"].tolist()) == {"o1"}


def test_orders_alone_are_filled_at_the_average_of_their_legs_and_not_twice(folder):
    take(folder, PARTS[0])
    assert accounts.load(folder).positions["contracts"].tolist() == [2]
    joined = take(folder, *PARTS)                                       # now with the activities
    assert joined.known == 4 and accounts.load(folder).positions["contracts"].tolist() == [2]


def test_an_order_still_at_work_is_not_filled_from_its_average(folder):
    joined = take(folder, order("o1", "2024-03-04", filled=1))
    assert not len(records.read(folder, "fills")["fill_id"])
    assert joined.differing == [f"order o1: {leg} is filled 1, the ledger has 0" for leg in (SHORT, LONG)]


def test_an_order_carries_the_name_of_its_ticket_in_client_order_id(folder):
    other = paper.opened(ticket_id=OPENED.replace("03-04", "03-05"), position=OPENED.replace("03-04", "03-05"),
                         date="2024-03-05")
    records.write(folder, {"tickets": other})
    take(folder, order("o1", "2024-03-06", client_id=OPENED), order("o3", "2024-03-06", client_id="whatever"))
    orders = records.read(folder, "orders")
    assert dict(zip(orders["order_id"].tolist(), orders["ticket_id"].tolist())) == {
        "o1": OPENED, "o3": other["ticket_id"][0]}


def test_an_order_of_legs_that_no_ticket_has_is_named(folder):
    legs = ("QQQ240419P00430000", "QQQ240419P00425000")
    with pytest.raises(ConfigError, match="order o9 of 2024-03-04 .QQQ240419P00430000 sold, QQQ240419P00425000 bought. is "
                                          "of no ticket"):
        take(folder, order("o9", "2024-03-04", legs=legs))
    assert not len(records.read(folder, "orders")["order_id"])


def test_a_leg_that_is_not_its_tickets_is_named(folder):
    strange = order("o1", "2024-03-04", client_id=OPENED, legs=(SHORT, "SPY240419P00470000"))
    with pytest.raises(ConfigError, match="order o1: SPY240419P00470000 is no leg of its ticket 2024-03-04-open"):
        take(folder, strange)


def test_a_fill_of_no_ticket_and_no_position_is_named_and_nothing_is_written(folder):
    with pytest.raises(ConfigError, match="IWM240419P00200000 sold 1 at 0.5 on 2024-03-05 .* is of no ticket of the paper"):
        take(folder, *PARTS, fill("x", "unknown", "2024-03-05", "IWM240419P00200000", "sell", 1, 0.5))
    assert not len(records.read(folder, "fills")["fill_id"])


def test_a_fill_the_other_way_round_than_its_ticket_is_named(folder):
    with pytest.raises(ConfigError, match=f"{SHORT} bought 1 .* is the other way round than its ticket"):
        take(folder, PARTS[0], fill("a", "o1-0", "2024-03-04", SHORT, "buy", 1, 1.31))


def test_a_close_by_hand_is_manual(folder):
    records_before = paper.opened()
    take(folder, *PARTS)
    by_hand = "2024-03-11"                                              # before there is a close ticket
    take(folder, fill("e", "own", by_hand, SHORT, "buy", 2, 0.70), fill("f", "own", by_hand, LONG, "sell", 2, 0.50))
    exits = records.read(folder, "exits")
    assert exits["reason"].tolist() == ["manual"] and exits["cost"][0] == pytest.approx(0.20)
    assert records_before["position"][0] == exits["position"][0]


def test_a_fill_that_is_recorded_otherwise_is_refused(folder):
    take(folder, *PARTS)
    with pytest.raises(ConfigError, match="is recorded as -1 at 1.31: what is recorded is not changed"):
        take(folder, PARTS[0], PARTS[1] | {"price": "1.32"})


# ---- Alpaca: expirations, assignments, cash --------------------------------------------------------------------------

def test_a_worthless_expiry_ends_the_position_at_nothing(folder):
    take(folder, *PARTS, event("g", "OPEXP", "2024-04-19", SHORT, 2), event("h", "OPEXP", "2024-04-19", LONG, -2))
    exits = records.read(folder, "exits")
    assert exits["reason"].tolist() == ["expiry"] and exits["cost"][0] == 0.0
    assert exits["pnl"][0] == pytest.approx(200 * 0.36)


def test_an_expiry_of_another_number_than_is_open_is_named(folder):
    with pytest.raises(ConfigError, match=f"{SHORT} expired 3 .* the paper ledger has -2 contracts of it"):
        take(folder, *PARTS, event("g", "OPEXP", "2024-04-19", SHORT, 3))


def test_assigned_and_exercised_together_cost_the_width(folder):
    both = [event("g", "OPASN", "2024-04-19", SHORT, 2), event("g", "OPTRD", "2024-04-19", "SPY", 200, 480.0, -96000.0),
            event("h", "OPEXC", "2024-04-19", LONG, -2), event("h", "OPTRD", "2024-04-19", "SPY", -200, 475.0, 95000.0)]
    take(folder, *PARTS, *both)
    exits = records.read(folder, "exits")
    assert exits["cost"][0] == pytest.approx(5.0) and exits["reason"].tolist() == ["expiry"]
    assert take(folder, *both).known == 2


def test_shares_of_an_assignment_are_of_the_position_until_they_are_sold(folder):
    take(folder, *PARTS, event("g", "OPASN", "2024-04-02", SHORT, 2), event("g", "OPTRD", "2024-04-02", "SPY", 200, 480.0))
    with pytest.raises(ConfigError, match=f"position {OPENED} has 0 short and 2 long contracts and 200 shares"):
        accounts.load(folder)
    take(folder, fill("s", "shares", "2024-04-03", "SPY", "sell", 200, 478.0),
         fill("l", "long", "2024-04-03", LONG, "sell", 2, 0.90))
    exits = records.read(folder, "exits")
    assert exits["cost"][0] == pytest.approx(2.0 - 0.9)
    assert not len(accounts.load(folder).positions["position"])


def test_fees_and_transfers_are_cash_but_not_the_money_that_the_account_started_with(folder):
    take(folder, event("1", "JNLC", "2024-03-01", "", 0, net_amount=100_000.0),
         event("2", "FEE", "2024-03-05", "", 0, net_amount=-0.13), event("3", "CSD", "2024-03-06", "", 0, net_amount=500.0))
    cash = records.read(folder, "cash")
    assert dict(zip(cash["kind"].tolist(), cash["amount"].tolist())) == {"fee": -0.13, "transfer": 500.0}
    assert accounts.load(folder).cash == pytest.approx(100_499.87)


def test_what_is_not_understood_is_counted(folder):
    path = folder / "a.json"
    path.write_text(json.dumps([event("1", "SPLIT", "2024-03-05", "SPY", 3)]))
    assert dict(alpaca.read(STARTED, path=path, base_url=None, timeout=5.0).left_out) == {"activities 'SPLIT'": 1}


@pytest.mark.parametrize("broken, says", [
    (PARTS[1] | {"side": "hold"}, "the object with id .* has the side 'hold'"),
    ({k: v for k, v in PARTS[1].items() if k != "price"}, "has price 'None', which is no number"),
    ({k: v for k, v in PARTS[1].items() if k != "symbol"}, "lacks 'symbol'"),
    (PARTS[1] | {"qty": "0.5"}, "has qty 0.5, which is no whole number of contracts"),
    (PARTS[0] | {"legs": None}, "list orders with nested=true"),
    (PARTS[0] | {"qty": "1"}, "in another ratio than 1"),
    (PARTS[1] | {"transaction_time": "2024-03-04T19:46:00"}, "without an offset"),
    ({"hello": 1}, "neither an order nor an activity"),
    (event("g", "OPEXP", "2024-04-19", "SPY", 2), "which is no option"),
])
def test_a_broken_object_is_refused_in_a_line_that_names_the_file(folder, broken, says):
    with pytest.raises(ConfigError, match=f"alpaca.json.*{says}"):
        take(folder, broken)


def test_a_file_may_hold_both_kinds_or_a_folder_may_have_several(folder):
    (folder / "json").mkdir()
    (folder / "json" / "a.json").write_text(json.dumps({"orders": PARTS[:1], "activities": PARTS[1:3]}))
    (folder / "json" / "b.json").write_text(json.dumps(PARTS[2:]))                 # one of them again
    imported = alpaca.read(STARTED, path=folder / "json", base_url=None, timeout=5.0)
    assert len(imported.orders) == 1 and len(imported.events) == 4


# ---- Alpaca: the API -------------------------------------------------------------------------------------------------

@pytest.fixture
def keys(monkeypatch):
    for name, value in zip(alpaca_client.KEYS, (KEY, SECRET), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(alpaca_client.time, "sleep", lambda _: None)


def test_the_api_gives_all_pages_of_orders_and_activities(folder, keys, monkeypatch):
    monkeypatch.setattr(alpaca_client, "ORDERS", 1)
    monkeypatch.setattr(alpaca_client, "ACTIVITIES", 2)
    with AlpacaServer([PARTS[0], CLOSE[0]], [*PARTS[1:], *CLOSE[1:]]) as server:
        write(folder, alpaca.read(STARTED, path=None, base_url=server.base_url, timeout=5.0))
        asked = [path for path, _ in server.asked]
        assert asked.count("/v2/orders") == 3 and asked.count("/v2/account/activities") == 4
        assert all(query["nested"] == "true" for path, query in server.asked if path == "/v2/orders")
    assert records.read(folder, "exits")["reason"].tolist() == ["profit_target"]


def test_a_busy_api_is_asked_again(folder, keys):
    with AlpacaServer([PARTS[0]], PARTS[1:]) as server:
        server.faults = [429, 503]
        assert len(alpaca.read(STARTED, path=None, base_url=server.base_url, timeout=5.0).events) == 4


@pytest.mark.parametrize("fault, says", [(404, "HTTP 404"), (b"<html>", "the answer is no list"), (b"{}", "no list")])
def test_an_api_that_is_none_is_refused_in_one_line(folder, keys, fault, says):
    with AlpacaServer([], []) as server:
        server.faults = [fault]
        with pytest.raises(ConfigError, match=says):
            alpaca.read(STARTED, path=None, base_url=server.base_url, timeout=5.0)


def test_a_refused_key_is_not_repeated_in_the_error(folder, keys, monkeypatch):
    monkeypatch.setenv(alpaca_client.KEYS[1], "another-5ecret")
    with AlpacaServer([], []) as server, pytest.raises(ConfigError, match="HTTP 403: Alpaca refuses the key") as error:
        alpaca.read(STARTED, path=None, base_url=server.base_url, timeout=5.0)
    assert "another-5ecret" not in str(error.value) and KEY not in str(error.value)


@pytest.mark.parametrize("base_url, says", [("http://paper-api.alpaca.markets", "is https"), ("ftp://x", "is an address"),
                                            ("https://k:s@host", "without query or password")])
def test_keys_travel_only_to_a_safe_address(keys, base_url, says):
    with pytest.raises(ConfigError, match=says):
        alpaca.read(STARTED, path=None, base_url=base_url, timeout=5.0)


def test_without_keys_nothing_is_asked(monkeypatch):
    monkeypatch.delenv(alpaca_client.KEYS[0], raising=False)
    monkeypatch.setenv(alpaca_client.KEYS[1], SECRET)
    with pytest.raises(ConfigError, match="APCA_API_KEY_ID not set"):
        alpaca.read(STARTED, path=None, base_url="https://paper-api.alpaca.markets", timeout=5.0)


def test_a_path_or_an_address_and_not_both():
    with pytest.raises(ConfigError, match="give one of the two"):
        alpaca.read(STARTED, path=None, base_url=None, timeout=5.0)


# ---- CSV -------------------------------------------------------------------------------------------------------------

HEAD = "fill_id,at,symbol,side,contracts,price,fees,kind,bid,ask\n"
ROWS = f"""1,2024-03-04T14:46:01-05:00,{SHORT},sell,2,1.30,2.00,,1.28,1.36
2,2024-03-04T14:46:01-05:00,SPY   240419P00475000,buy,2,0.94,2.00,trade,0.88,0.96
"""


def test_a_csv_of_fills_joins_with_its_quotes(folder):
    take_csv(folder, HEAD + ROWS)
    fills = records.read(folder, "fills")
    assert fills["ticket_id"].tolist() == [OPENED] * 2 and str(fills["at"][0]) == "2024-03-04T19:46:01"
    assert fills["fees"].sum() == 4.0
    assert filled(paper.opened(), fills, records.read(folder, "quotes"))["travel"][0] == pytest.approx(0.75)


def test_a_csv_again_is_nothing_new_and_columns_may_stand_in_any_order(folder):
    take_csv(folder, HEAD + ROWS)
    other = "price,contracts,side,symbol,at,fill_id\n" + f"1.30,2,sell,{SHORT},2024-03-04T14:46:01-05:00,1\n"
    assert take_csv(folder, other).known == 1


def test_an_expiry_by_hand(folder):
    take_csv(folder, HEAD + ROWS + f"3,2024-04-19,{SHORT},buy,2,0,0,expired,,\n4,2024-04-19,{LONG},sell,2,0,0,expired,,\n")
    assert records.read(folder, "exits")["reason"].tolist() == ["expiry"]


@pytest.mark.parametrize("row, says", [
    (f"1,yesterday,{SHORT},sell,2,1.3", "line 2: at is a date, or a time with its offset"),
    (f"1,2024-03-04 14:46,{SHORT},sell,2,1.3", "line 2: at is a date"),
    (f"1,2024-03-04,{SHORT},short,2,1.3", "line 2: side is buy or sell, got 'short'"),
    (f"1,2024-03-04,{SHORT},sell,2.5,1.3", "line 2: contracts is a whole number"),
    (f"1,2024-03-04,{SHORT},sell,2,-1", "line 2: price is a number >= 0"),
    (f"1,2024-03-04,{SHORT},sell,2,x", "line 2: price is a number >= 0, got 'x'"),
    (f",2024-03-04,{SHORT},sell,2,1.3", "line 2: fill_id is missing"),
    ("1,2024-03-04,SPY240419Q00480000,sell,2,1.3", "closes no position"),
])
def test_a_broken_row_is_refused_by_its_line(folder, row, says):
    with pytest.raises(ConfigError, match=says):
        take_csv(folder, f"fill_id,at,symbol,side,contracts,price\n{row}\n")


def test_columns_that_are_missing_or_unknown_are_named(folder):
    with pytest.raises(ConfigError, match="lacks price; the columns are fill_id"):
        take_csv(folder, "fill_id,at,symbol,side,contracts\n1,2024-03-04,X,sell,1\n")
    with pytest.raises(ConfigError, match="has the unknown column 'strike'"):
        take_csv(folder, HEAD.strip() + ",strike\n" + ROWS.splitlines()[0] + ",480\n")


def test_a_leg_of_two_tickets_of_a_day_must_be_named(folder):
    wider = OPENED.replace("475", "470")
    records.write(folder, {"tickets": paper.opened(ticket_id=wider, position=wider, long_strike=470.0, width=10.0)})
    row = f"1,2024-03-04,{SHORT},sell,2,1.30,,,,"
    with pytest.raises(ConfigError, match="may be of .* or of .*: name its ticket_id or its order"):
        take_csv(folder, HEAD + row + "\n")
    take_csv(folder, HEAD.strip() + ",ticket_id\n" + row + f",{wider}\n")
    assert records.read(folder, "fills")["ticket_id"].tolist() == [wider]


def test_shared_legs_of_two_positions_expire_together_though_the_broker_nets_them(folder):
    lower = OPENED.replace("480-475", "475-470")
    records.write(folder, {"tickets": paper.opened(ticket_id=lower, position=lower, short_strike=475.0, long_strike=470.0)})
    low = "SPY240419P00470000"
    take(folder, order("o1", "2024-03-04"), order("o3", "2024-03-04", legs=(LONG, low), contracts=1))
    take(folder, event("g", "OPEXP", "2024-04-19", SHORT, 2), event("h", "OPEXP", "2024-04-19", LONG, -1),
         event("i", "OPEXP", "2024-04-19", low, -1))
    assert sorted(records.read(folder, "exits")["contracts"].tolist()) == [1, 2]


