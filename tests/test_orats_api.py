"""The ORATS Data API as a source, against a real HTTP server on this machine: tests/orats_server.py."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from mahler import home
from mahler.data import daily, orats_api, store
from mahler.data.calendar import sessions
from mahler.data.files import Ingested
from mahler.data.orats_api import Alias
from mahler.data.orats_client import Api, CallFailed, CallLog, Client, TokenBucket, seconds_to_wait, \
    token_from_environment
from mahler.schema import ConfigError, Flag, Table
from tests.orats_server import FIRST, ROWS, TOKEN, OratsServer, made_up, spot

DAY, WEEK = date(2024, 1, 3), (date(2024, 1, 2), date(2024, 1, 8))
QQQQ = {"QQQQ": Alias(ticker="QQQ", until=date(2011, 3, 22))}

# The row of the vendor's documentation, as far as data.md has it.
DOC_ROW = {"ticker": "AAPL", "tradeDate": "2017-08-28", "expirDate": "2017-09-01", "dte": 5, "strike": 95,
           "stockPrice": 161.3827, "callBidPrice": 66.35, "callAskPrice": 66.45, "putBidPrice": 0, "putAskPrice": 0.01,
           "callBidIv": 0, "callMidIv": 1.9435290391604259, "smvVol": 0.29255660522135446, "delta": 1.0000000000000133}


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own and a token in the environment."""
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ORATS_TOKEN", TOKEN)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return tmp_path / "home"


@pytest.fixture
def server() -> Iterator[OratsServer]:
    with OratsServer() as running:
        yield running


def api(server: OratsServer, **changes: object) -> Api:
    """An API that is asked fast and given up soon."""
    return Api(**dict(base_url=server.base_url, calls_per_minute=1_000_000, calls_per_month=20_000, connections=4,
                      attempts=3, timeout=0.4, backoff=0.01, max_wait=5.0) | changes)


def ingest(server: OratsServer, tickers: list[str] = ["SPY"], start: date = WEEK[0], end: date | None = WEEK[1], *,
           progress: Callable = lambda *_: None, limits: dict = {}, **options: object) -> Ingested:
    defaults = dict(max_dte=90, aliases=QQQQ, skip=[], closes=False, dry_run=False, workers=1)
    return orats_api.ingest(home.store_dir(), progress, tickers=tickers, start=start, end=end,
                            api=api(server, **limits), **(defaults | options))


def one_day(server: OratsServer, *rows: dict, ticker: str = "SPY", day: date = DAY, **options: object) -> Table:
    """The store after the server answered a day with these rows."""
    server.faults[ticker, str(day)] = [lambda _: {"data": list(rows)}]
    ingest(server, [ticker], day, day, **options)
    return stored(ticker, day.year)


def stored(ticker: str = "SPY", year: int = 2024) -> Table:
    return store.read_partition(store.partition_path(home.store_dir() / "orats_api", ticker, year))


def stored_days(ticker: str = "SPY", year: int = 2024) -> list[str]:
    return np.unique(stored(ticker, year)["date"]).astype(str).tolist()


def refusal(server: OratsServer, *arguments: object, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        ingest(server, *arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def tree(folder: Path) -> dict[str, bytes]:
    """Everything under data/ by path, but for what is of one run: the log of calls, the lock, the server's address.

    And but for the exchange's calendar, which a process keeps that had to build it.
    """
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and "calls" not in p.parts and p.name not in ("lock", "addresses")
            and not (p.parent / "sessions.npy").exists()}


def week() -> list[str]:
    return sessions(*WEEK).astype(str).tolist()


# ---------------------------------------------------------------------------------------------- rows


def test_the_row_of_the_documentation_is_read_as_it_is_meant(server: OratsServer) -> None:
    chain = one_day(server, DOC_ROW, ticker="AAPL", day=date(2017, 8, 28))
    row = {name: column[0] for name, column in chain.items()}
    assert (row["expiry"] - row["date"]).astype(int) == 4                   # its dte says 5
    assert (row["strike"], row["underlying"]) == (95.0, 161.3827)
    assert (row["call_bid"], row["call_ask"], row["put_bid"], row["put_ask"]) == (66.35, 66.45, 0.0, 0.01)
    assert row["call_iv"] == np.float32(1.9435290391604259) and row["smooth_iv"] == np.float32(0.29255660522135446)
    assert row["delta"] == 1.0 and row["flags"] == Flag.GREEKS_CLAMPED      # it was a little more
    assert np.isnan([row["put_iv"], row["gamma"], row["theta"], row["vega"]]).all()     # the row has none
    assert row["call_volume"] == row["put_open_interest"] == -1


def test_every_field_comes_under_the_name_that_the_store_has_for_it(server: OratsServer) -> None:
    theirs = made_up("SPY", str(DAY))[6]
    chain = one_day(server, theirs)
    names = dict(call_bid="callBidPrice", call_ask="callAskPrice", put_bid="putBidPrice", put_ask="putAskPrice",
                 call_iv="callMidIv", put_iv="putMidIv", smooth_iv="smvVol", call_volume="callVolume",
                 call_open_interest="callOpenInterest", put_volume="putVolume", put_open_interest="putOpenInterest",
                 delta="delta", gamma="gamma", theta="theta", vega="vega", underlying="stockPrice", strike="strike")
    assert {ours: chain[ours][0] for ours in names} == pytest.approx({o: theirs[t] for o, t in names.items()})
    assert str(chain["expiry"][0]) == theirs["expirDate"] and str(chain["date"][0]) == theirs["tradeDate"]


def test_an_index_has_a_forward_on_every_row_and_its_price_in_spotprice(server: OratsServer) -> None:
    rows = [DOC_ROW | {"stockPrice": 161.38, "spotPrice": 160.0}, DOC_ROW | {"strike": 100, "stockPrice": 161.9,
                                                                             "spotPrice": 160.0}]
    assert one_day(server, *rows, ticker="AAPL", day=date(2017, 8, 28))["underlying"].tolist() == [160.0, 160.0]


def test_the_dte_of_the_api_is_not_believed_and_where_it_is_wrong_counted(server: OratsServer) -> None:
    rows = [made_up("SPY", str(DAY))[0] | {"dte": 99, "strike": 100}, made_up("SPY", str(DAY))[0]]
    chain = one_day(server, *rows)
    assert (chain["expiry"] - chain["date"]).astype(int).tolist() == [9, 9]
    info = store.partition_info(store.partition_path(home.store_dir() / "orats_api", "SPY", 2024))
    assert info.counts[str(DAY)]["dte_mismatch"] == 1


def test_the_filter_is_one_day_wider_than_dte_and_two_more_for_saturdays_and_good_fridays(server: OratsServer) -> None:
    monday = date(2014, 1, 13)
    rows = [made_up("SPY", str(monday))[0] | {"expirDate": "2014-04-19", "dte": 97}]    # the Saturday after Good Friday
    server.chain = lambda ticker, day: rows
    ingest(server, ["SPY"], monday, monday, max_dte=94)
    assert server.asked[0][1]["dte"] == "0,97"
    assert stored("SPY", 2014)["expiry"].astype(str).tolist() == ["2014-04-17"]         # 94 days ahead
    server.chain = made_up
    ingest(server, ["SPY"], DAY, DAY, max_dte=None)
    assert "dte" not in server.asked[-1][1]


def test_only_what_is_used_is_asked_for(server: OratsServer) -> None:
    ingest(server, end=WEEK[0])
    fields = server.asked[0][1]["fields"].split(",")
    assert {"ticker", "tradeDate", "expirDate", "strike", "callBidPrice", "delta"} < set(fields)
    assert not {"extSmvVol", "updatedAt", "callBidSize", "rho"} & set(fields)


@pytest.mark.parametrize("change, said", [
    (lambda rows: {"data": [rows[0], {k: v for k, v in rows[1].items() if k != "strike"}]}, "row 2 of 2 has no strike"),
    (lambda rows: {"data": [rows[0] | {"callBidPrice": "1.2"}]}, "row 1 of 1 has a str for the number callBidPrice"),
    (lambda rows: {"data": [rows[0] | {"delta": True}]}, "row 1 of 1 has a bool for the number delta"),
    (lambda rows: {"data": [rows[0] | {"strike": 10 ** 400}]}, "a number of strike is too large to be one"),
    (lambda rows: {"data": [rows[0], rows[1] | {"ticker": "QQQ"}]}, "row 2 of 2 is not of ticker SPY"),
    (lambda rows: {"data": [rows[0] | {"tradeDate": "2024-01-04"}]}, "row 1 of 1 is not of tradeDate 2024-01-03"),
    (lambda rows: {"data": [rows[0] | {"expirDate": "1/19/2024"}]}, "row 1 of 1 has no date YYYY-MM-DD as expirDate"),
    (lambda rows: {"data": [rows[0] | {"expirDate": [1]}]}, "row 1 of 1 has no date YYYY-MM-DD as expirDate"),
    (lambda rows: {"data": [[1, 2]]}, "row 1 of 1 is not of ticker SPY"),
    (lambda rows: {"data": {"ticker": "SPY"}}, "the answer has no list of rows under `data`"),
    (lambda rows: {"message": "maintenance"}, "the answer has no list of rows under `data`"),
    (lambda rows: rows, "the answer has no list of rows under `data`"),
])
def test_an_answer_that_is_not_one_of_this_api_is_refused_at_once_and_not_kept(server, desk, change, said) -> None:
    server.faults["SPY", str(DAY)] = [change]
    line = refusal(server, ["SPY"], DAY, DAY)
    assert line == (f"hist/strikes SPY 2024-01-03: {said}; SPY 2024 not written: the same command asks for what is "
                    f"missing only, data.skip=[2024-01-03] goes on without a day (1 calls; 1 of 20,000 are used in "
                    f"{datetime.now(timezone.utc):%Y-%m})")
    assert len(server.asked) == 1 and not list(desk.rglob("*.parquet"))


def test_a_price_of_null_is_missing_and_an_absurd_one_drops_its_row(server: OratsServer) -> None:
    first, second = made_up("SPY", str(DAY))[:2]
    chain = one_day(server, first | {"callBidPrice": None}, second | {"callAskPrice": 1e9})
    assert np.isnan(chain["call_bid"]).tolist() == [True]
    info = store.partition_info(store.partition_path(home.store_dir() / "orats_api", "SPY", 2024))
    assert info.counts[str(DAY)] == {"read": 2, "kept": 1, "dropped_bad_price": 1}


# ---------------------------------------------------------------------------------------------- what is asked for


def test_sessions_are_asked_for_and_no_other_days_one_ticker_a_call(server: OratsServer, monkeypatch) -> None:
    many = [f"T{n:02}" for n in range(12)]
    for ticker in many:
        monkeypatch.setitem(FIRST, ticker, "2007-01-03")
    done = ingest(server, many, date(2023, 12, 30), date(2024, 1, 16))      # New Year's Day, two weekends, Dr King
    days = sessions("2023-12-30", "2024-01-16").astype(str).tolist()
    assert len(days) == 10
    assert sorted(server.days()) == sorted(f"{ticker} {day}" for ticker in many for day in days)
    assert len(done.partitions) == len(many)


def test_a_day_under_the_old_name_is_the_days_of_the_new_one(server: OratsServer) -> None:
    done = ingest(server, ["QQQ"], date(2011, 3, 21), date(2011, 3, 24))
    assert sorted(server.days()) == ["QQQ 2011-03-21", "QQQ 2011-03-22", "QQQ 2011-03-23", "QQQ 2011-03-24",
                                     "QQQQ 2011-03-21", "QQQQ 2011-03-22"]
    assert stored_days("QQQ", 2011) == ["2011-03-21", "2011-03-22", "2011-03-23", "2011-03-24"]
    assert done.counts["QQQ"] == {"read": 40, "kept": 40, "filed_as_QQQQ": 20}
    chain = stored("QQQ", 2011)
    assert set(chain["underlying"][chain["date"] == np.datetime64("2011-03-21")]) == {spot("QQQQ", "2011-03-21")}
    server.asked.clear()
    ingest(server, ["QQQ"], date(2011, 3, 21), date(2011, 3, 24))
    assert server.asked == []


def test_what_is_kept_of_a_longer_dte_serves_a_shorter_one_but_not_the_reverse(server: OratsServer) -> None:
    ingest(server, max_dte=60)
    assert (stored()["expiry"] - stored()["date"]).astype(int).max() < 60
    server.asked.clear()
    ingest(server, max_dte=30)
    assert server.asked == [] and (stored()["expiry"] - stored()["date"]).astype(int).max() < 30
    ingest(server, max_dte=None)
    assert sorted(server.days("SPY")) == week() and (stored()["expiry"] - stored()["date"]).astype(int).max() > 100


def test_a_day_that_is_downloaded_again_takes_the_place_of_what_it_was(server: OratsServer, desk: Path) -> None:
    ingest(server)
    server.chain = lambda ticker, day: [row | {"callVolume": 7} for row in made_up(ticker, day)]
    next(desk.rglob("2024-01-04.parquet")).unlink()
    server.asked.clear()
    ingest(server)
    again = stored()["date"] == np.datetime64("2024-01-04")
    assert server.days("SPY") == ["2024-01-04"]
    assert (stored()["call_volume"][again] == 7).all() and not (stored()["call_volume"][~again] == 7).all()


def test_an_old_name_that_is_kept_is_not_asked_for_when_only_the_new_one_is_not(server: OratsServer, desk) -> None:
    ingest(server, ["QQQ"], date(2011, 3, 21), date(2011, 3, 24))
    next(desk.rglob("QQQ/dte=90/2011-03-21.none")).unlink()                 # killed between the two answers
    server.asked.clear()
    ingest(server, ["QQQ"], date(2011, 3, 21), date(2011, 3, 24))
    assert server.days() == ["QQQ 2011-03-21"]


def test_a_period_in_two_parts_leaves_what_the_whole_does(server: OratsServer, desk: Path, clean_week) -> None:
    ingest(server, end=date(2024, 1, 4))
    ingest(server, start=date(2024, 1, 5))
    assert sorted(server.days("SPY")) == week() and tree(desk / "data") == clean_week


@pytest.mark.parametrize("options, said", [
    (dict(tickers=["SPY,QQQ"]), "data.tickers is a list, each a ticker such as SPY, got 'SPY,QQQ'"),
    (dict(tickers=["../SPY"]), "data.tickers is a list, each a ticker such as SPY, got '../SPY'"),
    (dict(start=date(2024, 1, 6), end=date(2024, 1, 7)),
     "data.start=2024-01-06, data.end=2024-01-07: no session of SPY from 2007-01-03 to yesterday lies in it"),
    (dict(start=date(2999, 1, 6), end=None),
     "data.start=2999-01-06, data.end=None: no session of SPY from 2007-01-03 to yesterday lies in it"),
])
def test_what_cannot_be_asked_for_is_refused_before_the_first_call(server: OratsServer, options, said) -> None:
    assert refusal(server, **options) == said
    assert server.asked == []


def test_today_is_not_asked_for_because_it_may_not_be_whole(server: OratsServer, monkeypatch) -> None:
    monkeypatch.setattr(orats_api, "_yesterday", lambda: date(2024, 1, 4))
    ingest(server, end=None)
    assert sorted(server.days("SPY")) == ["2024-01-02", "2024-01-03", "2024-01-04"]


# ---------------------------------------------------------------------------------------------- nothing there


def test_a_day_without_data_is_said_and_never_asked_for_again(server: OratsServer) -> None:
    server.nothing.add(("SPY", "2024-01-04"))
    server.faults["SPY", "2024-01-05"] = [lambda rows: {"data": []}]            # no rows is no data too
    said = ["SPY: nothing of 2 of 5 sessions: 2024-01-04, 2024-01-05"]
    assert ingest(server).notes[:-1] == said
    assert stored_days() == ["2024-01-02", "2024-01-03", "2024-01-08"]
    server.asked.clear()
    assert ingest(server).notes[:-1] == said
    assert server.asked == []


def test_a_day_that_may_not_be_there_yet_is_asked_for_again(server: OratsServer, monkeypatch) -> None:
    monkeypatch.setattr(orats_api, "_yesterday", lambda: date(2024, 1, 8))
    server.nothing.add(("SPY", "2024-01-08"))
    assert "SPY: not there yet, asked for again next time: 2024-01-08" in ingest(server, end=None).notes
    server.nothing.clear()
    server.asked.clear()
    ingest(server, end=None)
    assert server.days("SPY") == ["2024-01-08"] and stored_days() == week()


def test_an_address_that_has_nothing_at_all_is_not_believed(server: OratsServer, desk: Path) -> None:
    right, wrong = server.base_url, server.base_url + "2"           # answers 404 with HTML to everything
    line = refusal(server, limits={"base_url": wrong})
    assert re.fullmatch(re.escape(wrong) + r" has nothing of all that was asked for \(SPY 2024-01-0\d and 4 more, HTTP "
                        r"404\): check data.tickers, data.start and data.api.base_url", line)
    server.asked.clear()
    ingest(server, end=WEEK[0], limits={"base_url": right})
    assert refusal(server, limits={"base_url": wrong}).startswith(wrong)    # nor because another address had data
    ingest(server, limits={"base_url": right})
    assert stored_days() == week()


def test_a_ticker_that_does_not_exist_costs_a_year_of_calls_and_no_more(server: OratsServer) -> None:
    line = refusal(server, ["SPY", "SYP"], date(2023, 12, 28), date(2024, 1, 5), closes=True)
    assert line == ("ORATS has no close of SYP and no chain until 2023-12-29: is it a ticker? (data.closes=false goes "
                    "on without its closes)")
    assert sorted(server.days("SYP")) == ["2023-12-28", "2023-12-29"]


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("fault, said", [
    ("500", "1 x HTTP 500 Internal Server Error"), ("503", "1 x HTTP 503 Service Unavailable"),
    ("html 502", "1 x HTTP 502 Bad Gateway with an HTML page"),
    ("429 after 0", "1 x HTTP 429 Too Many Requests"), ("429", "1 x HTTP 429 Too Many Requests"),
    ("html 200", "1 x HTML instead of JSON (is data.api.base_url right, is there a login page in between?)"),
    ("truncated", "1 x JSON that is cut off or damaged"), ("cut", "1 x the connection was cut (RemoteProtocolError)"),
    ("bad gzip", "1 x the connection was cut (DecodingError)"), ("reset", "1 x the connection was cut"),
    ("trickle", "1 x no whole answer within 0.4 s"), ("hang", "1 x no answer within 0.4 s"),
])
def test_what_may_pass_is_tried_again_and_leaves_no_trace(server, desk, clean_week, fault, said) -> None:
    server.faults["SPY", "2024-01-04"] = [fault]
    done = ingest(server)
    assert done.notes[-1].startswith("6 calls (1 repeated: " + said), done.notes
    assert Counter(server.days("SPY")) == Counter([*week(), "2024-01-04"])
    assert tree(desk / "data") == clean_week


@pytest.fixture(scope="module")
def clean_week(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data of SPY in WEEK from a server without faults."""
    folder, patch = tmp_path_factory.mktemp("clean"), pytest.MonkeyPatch()
    with OratsServer() as server, patch.context() as environment:
        environment.setenv("MAHLER_HOME", str(folder))
        environment.setenv("ORATS_TOKEN", TOKEN)
        ingest(server)
    return tree(folder / "data")


def test_every_call_waits_as_long_as_retry_after_says(server: OratsServer) -> None:
    server.faults["SPY", "2024-01-02"] = ["429 after 1"]
    ingest(server, limits={"connections": 1})
    first, second = server.times[:2]
    assert second - first >= 0.95
    assert server.days("SPY")[:2] == ["2024-01-02", "2024-01-02"]


def test_a_wait_that_is_too_long_ends_the_download_in_one_line(server: OratsServer) -> None:
    server.faults["SPY", "2024-01-04"] = ["429 after 86400"]
    assert refusal(server) == ("hist/strikes SPY 2024-01-04: HTTP 429 Too Many Requests: the server asks to wait "
                               "86,400 s, data.api.max_wait is 5: the same command goes on from here later")


def test_a_day_that_fails_for_good_keeps_its_year_out_of_the_store_and_nothing_else(server: OratsServer) -> None:
    server.faults["SPY", "2024-01-04"] = ["500"] * 3
    line = refusal(server, ["QQQ", "SPY"], date(2023, 12, 28), WEEK[1])
    assert line.startswith("hist/strikes SPY 2024-01-04: HTTP 500 Internal Server Error (tries: 3); SPY 2024 not "
                           "written: the same command asks for what is missing only")
    assert stored_days("SPY", 2023) == ["2023-12-28", "2023-12-29"] and stored_days("QQQ") == week()
    with pytest.raises(ConfigError):
        stored("SPY", 2024)
    server.asked.clear()
    ingest(server, ["QQQ", "SPY"], date(2023, 12, 28), WEEK[1])
    assert server.days() == ["SPY 2024-01-04"] and stored_days() == week()


def test_a_day_that_the_vendor_cannot_deliver_can_be_left_out(server: OratsServer) -> None:
    server.faults["SPY", "2024-01-04"] = ["500"] * 99
    ingest(server, skip=[date(2024, 1, 4)])
    assert stored_days() == [day for day in week() if day != "2024-01-04"]


def test_a_server_that_is_down_is_given_up_soon(server: OratsServer) -> None:
    server.always = "500"
    line = refusal(server, end=date(2024, 6, 28))
    assert "and 7 more; SPY 2024 not written" in line
    assert len(server.asked) <= 3 * (orats_api.GIVE_UP + 4)


def test_a_port_that_nobody_listens_on_is_said(server: OratsServer) -> None:
    line = refusal(server, end=WEEK[0], limits={"base_url": "http://127.0.0.1:9"})
    assert "no connection (is data.api.base_url right, is there a network, a proxy?) (tries: 3)" in line
    assert "0 calls" in line and "; 0 of 20,000 are used" in line, "nothing was sent"


@pytest.mark.parametrize("fault, said", [
    ("401", "HTTP 401 Unauthorized: ORATS refuses the token in ORATS_TOKEN: is it right, and does its plan include "
            "hist/strikes?"),
    ("html 403", "HTTP 403 Forbidden with an HTML page: ORATS refuses the token in ORATS_TOKEN: is it right, and does "
                 "its plan include hist/strikes?"),
    ("302", "HTTP 302 Found from {url}: is data.api.base_url right?"),
    ("400", "HTTP 400 Bad Request from {url}: is data.api.base_url right?"),
])
def test_what_no_other_call_can_do_better_ends_the_download_in_one_line(server, fault, said) -> None:
    server.always = fault
    line = refusal(server, end=date(2024, 6, 28))
    assert line.startswith("hist/strikes SPY 2024-0") and line.endswith(": " + said.format(url=server.base_url))
    assert len(server.asked) <= 4                       # those on their way


def test_a_zip_bomb_is_not_unpacked(server: OratsServer) -> None:
    server.faults["SPY", "2024-01-02"] = ["bomb"]
    assert "the answer is larger than 268,435,456 bytes" in refusal(server, end=WEEK[0], limits={"timeout": 30.0})


def test_a_file_that_was_damaged_later_is_named(server: OratsServer, desk: Path) -> None:
    ingest(server)
    path = next(desk.rglob("2024-01-04.parquet"))
    path.write_bytes(path.read_bytes()[:-50])
    assert refusal(server).startswith(f"{path} cannot be read as Parquet (truncated, damaged or foreign)")


# ---------------------------------------------------------------------------------------------- limits


def test_no_minute_has_more_calls_than_are_allowed() -> None:
    now, sent = [1000.0], []
    bucket = TokenBucket(7, clock=lambda: now[0])
    rng = random.Random(1)
    while now[0] < 1600.0:
        wait = bucket.take()
        if wait == 0.0:
            sent.append(now[0])
        now[0] += wait or rng.choice([0.0, 0.0, 0.01, 30.0])
    assert max(sum(start <= t < start + 60.0 for t in sent) for start in sent) == 7


def test_nothing_goes_while_the_server_asks_to_wait() -> None:
    now = [0.0]
    bucket = TokenBucket(60, clock=lambda: now[0])
    assert bucket.take() == 0.0
    bucket.hold(30.0)
    bucket.hold(5.0)                                    # the longer one stands
    assert bucket.take() == 30.0
    now[0] = 30.0
    assert bucket.take() == 0.0 and bucket.take() == 1.0


def test_calls_are_spaced_as_the_plan_allows(server: OratsServer) -> None:
    started = time.monotonic()
    ingest(server, limits={"calls_per_minute": 600, "connections": 8})
    assert time.monotonic() - started >= 0.4            # five calls, a tenth of a second between any two


def test_connections_are_bounded(server: OratsServer) -> None:
    server.latency = 0.03
    ingest(server, ["SPY", "QQQ", "IWM"], date(2024, 1, 2), date(2024, 1, 31), limits={"connections": 3})
    assert server.most_at_once == 3


def test_the_order_in_which_answers_come_changes_nothing(server: OratsServer, desk: Path, monkeypatch) -> None:
    trees = []
    for connections in (1, 8):
        monkeypatch.setenv("MAHLER_HOME", str(desk / str(connections)))
        rng = random.Random(connections)
        server.chain = lambda ticker, day: (time.sleep(rng.uniform(0, 0.01)), made_up(ticker, day))[1]
        ingest(server, ["QQQ", "SPY"], date(2023, 12, 18), date(2024, 1, 12), limits={"connections": connections})
        trees.append(tree(desk / str(connections) / "data"))
    assert trees[0] == trees[1] and len(trees[0]) > 30


def test_calls_are_counted_by_calendar_month_and_outlive_the_process(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 30, 23, 59, tzinfo=timezone.utc)]
    log = CallLog(tmp_path, 2, now=lambda: now[0])
    log.add("hist/strikes SPY 2024-01-03")
    log.add("hist/strikes SPY 2024-01-04")
    assert CallLog(tmp_path, 2, now=lambda: now[0]).used() == ("2026-11", 2)
    with pytest.raises(ConfigError, match="all 2 calls of 2026-11 are used"):
        log.add("one more")
    now[0] += timedelta(minutes=2)
    assert log.used() == ("2026-12", 0)
    log.add("hist/strikes SPY 2024-01-05")
    assert (tmp_path / "2026-12.log").read_text() == "2026-12-01T00:01:00Z hist/strikes SPY 2024-01-05\n"


def test_a_call_that_could_not_be_sent_is_taken_back_from_the_month_in_which_it_was_counted(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 30, 23, 59, tzinfo=timezone.utc)]
    log = CallLog(tmp_path, 2, now=lambda: now[0])
    log.add("hist/strikes SPY 2024-01-03")
    log.take_back("hist/strikes SPY 2024-01-04", log.add("hist/strikes SPY 2024-01-04"))
    assert log.used() == CallLog(tmp_path, 2, now=lambda: now[0]).used() == ("2026-11", 1)
    month = log.add("hist/strikes SPY 2024-01-04")
    now[0] += timedelta(minutes=2)
    log.add("hist/strikes SPY 2024-01-05")
    log.take_back("hist/strikes SPY 2024-01-04", month)
    assert log.used() == ("2026-12", 1)
    now[0] -= timedelta(minutes=2)
    assert CallLog(tmp_path, 2, now=lambda: now[0]).used() == ("2026-11", 1)


def test_a_download_that_uses_up_the_month_goes_on_in_the_next(server, desk, clean_week) -> None:
    assert refusal(server, limits={"calls_per_month": 3}).startswith("all 3 calls of ")
    next((desk / "data/raw/orats_api/calls").iterdir()).unlink()            # a month later
    ingest(server, limits={"calls_per_month": 3})
    assert sorted(server.days("SPY")) == week() and tree(desk / "data") == clean_week


@pytest.mark.parametrize("header, seconds", [
    ("7", 7.0), (" 0 ", 0.0), ("Wed, 03 Jan 2024 12:00:30 GMT", 30.0), ("Wed, 03 Jan 2024 11:00:00 GMT", 0.0),
    (None, None), ("", None), ("soon", None), ("-3", None), ("nan", None), ("1e9", None),
])
def test_retry_after_is_seconds_or_a_date_and_anything_else_says_nothing(header, seconds) -> None:
    assert seconds_to_wait(header, datetime(2024, 1, 3, 12, tzinfo=timezone.utc)) == seconds


@pytest.mark.parametrize("url", ["api.orats.io/datav2", "ftp://api.orats.io", "https://", "https://me:secret@orats.io",
                                 "https://api.orats.io/?token=1", "http://api.orats.io/datav2"])
def test_an_address_that_is_none_or_would_show_the_token_is_refused(server: OratsServer, url: str) -> None:
    with pytest.raises(ConfigError, match="data.api.base_url is "):
        api(server, base_url=url)


# ---------------------------------------------------------------------------------------------- the dry run


def test_the_dry_run_says_what_it_would_take_and_asks_for_nothing(server, desk, monkeypatch) -> None:
    monkeypatch.delenv("ORATS_TOKEN")
    done = ingest(server, ["SPY", "QQQ"], date(2011, 3, 1), date(2011, 3, 31), closes=True, dry_run=True,
                  limits={"calls_per_month": 1000, "calls_per_minute": 60, "connections": 1})
    assert done.planned and server.asked == [] and not desk.exists()
    assert done.notes == [
        "SPY: 23 of 23 sessions from 2011-03-01 to 2011-03-31 to ask for, 0 are here",
        "QQQ: 23 of 23 sessions from 2011-03-01 to 2011-03-31 to ask for, 0 are here",
        "50 calls: 46 for chains, 4 for closes and splits; up to 16 more where a ticker is filed under its old name",
        "time: about 50 s (at most 60 calls a minute; 1 s an answer over 1 connections)",
        f"month: 5.0% of the 1,000 calls a month; 0 are used in {datetime.now(timezone.utc):%Y-%m}, 950 would be left",
        "dry run: nothing was asked for; ORATS_TOKEN is not set, and a download needs it"]


def test_the_dry_run_knows_what_is_here_and_what_the_month_has_left(server: OratsServer) -> None:
    ingest(server, end=date(2024, 1, 3))
    lines = ingest(server, dry_run=True, limits={"calls_per_month": 4}).notes
    assert lines[:2] == ["SPY: 3 of 5 sessions from 2024-01-02 to 2024-01-08 to ask for, 2 are here",
                         "3 calls: 3 for chains, 0 for closes and splits"]
    assert lines[3].endswith("only 2 are left: the download stops there and goes on next month")


def test_what_is_complete_needs_neither_a_call_nor_a_token(server: OratsServer, desk: Path, monkeypatch) -> None:
    ingest(server, closes=True)
    before = tree(desk / "data")
    server.asked.clear()
    monkeypatch.delenv("ORATS_TOKEN")
    done = ingest(server, closes=True)
    assert (done.partitions, server.asked, tree(desk / "data")) == ([], [], before)
    assert done.notes == [f"0 calls; 7 of 20,000 are used in {datetime.now(timezone.utc):%Y-%m}"]


# ---------------------------------------------------------------------------------------------- closes and splits


def test_closes_are_those_that_were_traded_and_splits_are_kept(server: OratsServer) -> None:
    day = date(2020, 8, 28)                             # the last day before a split of four to one
    done = ingest(server, ["AAPL"], day, day, closes=True)
    series = daily.load(home.daily_dir())
    assert series.on("AAPL_close", np.array([day], "datetime64[D]")).tolist() == [spot("AAPL", "2020-08-28")]
    splits = store.read_table(home.data_dir() / "splits" / "AAPL.parquet")
    assert splits["date"].astype(str).tolist() == ["2014-06-09", "2020-08-31"]
    assert splits["divisor"].tolist() == [7.0, 4.0]
    assert done.notes[0] == f"AAPL: 5,216 closes in {home.daily_dir() / 'orats_api_AAPL.parquet'}, 2 splits"


def test_a_ticker_without_closes_has_its_chains_all_the_same(server: OratsServer, monkeypatch) -> None:
    monkeypatch.setitem(ROWS, "hist/dailies", lambda *_: [])
    assert ingest(server, closes=True).notes[0] == "SPY: ORATS has no closes (hist/dailies)"
    assert stored_days() == week()


# ---------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("token", ["", "  ", "two words", "caf\u00e9", "bell\x07"])
def test_a_token_that_cannot_be_one_is_refused_without_saying_it(monkeypatch, token: str) -> None:
    monkeypatch.setenv("ORATS_TOKEN", token)
    with pytest.raises(ConfigError) as error:
        token_from_environment()
    assert "ORATS_TOKEN" in str(error.value) and (not token.strip() or token not in str(error.value))


FAULTS = ["500", "html 503", "hang", "cut", "truncated", "html 200", "bad gzip", "reset", "429", "401", "403", "302",
          "400", "echo 200", "echo 302", "echo 401", "echo 403", "echo 404", "echo 429", "echo 500"]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_error_carries_the_token_not_even_in_what_it_was_raised_from(server, tmp_path, caplog, fault) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    server.always = fault
    client = Client(api(server, attempts=2, timeout=0.2), TOKEN, CallLog(tmp_path, 100))
    try:
        client.rows("hist/strikes", ticker="SPY", tradeDate="2024-01-03")
        said = ""
    except (CallFailed, ConfigError) as error:
        said = "".join(everything(error))
    client.close()
    assert len(server.asked) >= 1
    assert TOKEN not in said + caplog.text + repr(vars(client)) + repr(client.repeated)


def everything(error: BaseException | None) -> Iterator[str]:
    """What can be printed of an exception and of those behind it."""
    while error is not None:
        yield f"{error!r} {error} {error.args} {vars(error)}"
        yield str(getattr(getattr(error, "_request", None), "url", ""))
        error = error.__cause__ or error.__context__


def test_nothing_that_is_printed_or_written_has_the_token(server: OratsServer, zygote: Zygote, desk: Path) -> None:
    """The whole command, with Hydra's loudest logging, against a server that repeats the token wherever it can."""
    command = [*COMMAND, f"data.api.base_url={server.base_url}", "data.api.timeout=0.3", "hydra.verbose=true",
               "data.start=2024-01-02", "data.end=2024-01-08", "data.tickers=[SPY]"]
    outputs = []
    for fault in ("echo 200", "echo 403", "echo 404", "cut"):
        server.always = fault
        status, output = zygote.run(command, desk)
        assert status == 2, output
        outputs.append(output)
    server.always = None
    status, output = zygote.run(command, desk)
    assert status == 0, output
    assert "HTTP Request: GET" in output                # the loudest logging was on, and httpx shows its URLs
    status, refused = zygote.run(command, desk, token="another-5ecret")
    files = [p.read_bytes() for p in desk.rglob("*") if p.is_file()]
    assert len(files) > 8
    for secret in (TOKEN, "another-5ecret"):
        assert not any(secret in text for text in [*outputs, output, refused])
        assert not any(secret.encode() in content for content in files)


# ---------------------------------------------------------------------------------------------- kills


COMMAND = ["ingest", "data=orats_api", "data.api.calls_per_minute=1000000", "data.api.connections=4",
           "data.api.backoff=0.01", "data.api.attempts=2", "data.workers=1"]

ZYGOTE = """
import json, os, sys
from mahler import cli, launch
from mahler.commands import ingest
from mahler.data import orats_api, quality
from mahler.data.calendar import sessions
import httpx, rich.console, rich.progress, rich.table
sessions("2024-01-02", "2024-01-02")
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if (pid := os.fork()) == 0:
        os.environ.update(order["environment"])
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        status = 1
        try:
            status = cli.main(order["arguments"])
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(status)
    print(pid, flush=True)
    assert sys.stdin.readline() == "wait\\n"
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Zygote:
    """Runs `mahler` in processes that begin with everything imported: a real process, without a second's start."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        self._output = folder / "output.txt"
        self._process = subprocess.Popen([sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, env=environment, cwd=folder)
        assert self._process.stdout.readline() == "ready\n"

    def start(self, arguments: list[str], home: Path, token: str = TOKEN) -> int:
        """Start a command; its process id."""
        order = dict(arguments=arguments, output=str(self._output),
                     environment={"MAHLER_HOME": str(home), "ORATS_TOKEN": token})
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """The exit status of the command that was started, the negative signal where it was killed.

        Until then it has its process id, even if it is dead, so that nothing else can be killed in its place.
        """
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def run(self, arguments: list[str], home: Path, token: str = TOKEN) -> tuple[int, str]:
        """Exit status and output of a command that is not killed."""
        self.start(arguments, home, token)
        return self.wait(), self._output.read_text()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    running = Zygote(tmp_path_factory.mktemp("zygote"))
    yield running
    running.close()


def mahler(arguments: list[str], home: Path) -> subprocess.Popen:
    """The command as a user starts it."""
    program = str(Path(sys.executable).with_name("mahler"))
    return subprocess.Popen([program, *arguments], env=os.environ | {"MAHLER_HOME": str(home)}, cwd=home.parent,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


KILLS = 20
PERIOD = ["data.start=2010-12-20", "data.end=2011-04-08", "data.tickers=[SPY,QQQ]"]     # a new year, the end of QQQQ


def kill_at_random(rng: random.Random, server: OratsServer, pid: int, wait: Callable[[], int]) -> bool:
    """SIGKILL a process at a moment between its start and its tenth call or so; False if it was done before."""
    until = len(server.asked) + rng.randrange(9)
    deadline = time.monotonic() + 20.0
    while len(server.asked) < until and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.08))
    os.kill(pid, signal.SIGKILL)
    return wait() == -signal.SIGKILL


def test_a_download_killed_twenty_times_leaves_what_an_uninterrupted_one_does(zygote: Zygote, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nothing = {("SPY", "2011-02-01"), ("QQQ", "2011-04-01")}
    with OratsServer() as server:
        server.nothing = nothing
        status, output = zygote.run([*COMMAND, *PERIOD, f"data.api.base_url={server.base_url}"], whole)
        assert status == 0, output
        once = Counter(server.days())
    assert set(once.values()) == {1} and len(once) > 200
    rng, in_flight = random.Random(3), Counter()
    with OratsServer(latency=0.1) as server:
        server.nothing = nothing
        command = [*COMMAND, *PERIOD, f"data.api.base_url={server.base_url}"]
        for kill in range(KILLS):
            asked = len(server.days())
            if kill % 10 == 3:              # two of them as a user would start it, which takes a second
                process = mahler(command, killed)
                was_killed = kill_at_random(rng, server, process.pid, process.wait)
            else:
                was_killed = kill_at_random(rng, server, zygote.start(command, killed), zygote.wait)
            assert was_killed, "the download was done before it was killed often enough"
            server.wait_until_idle()        # what it still has in hand of the dead process is answered
            lost = [day for day in server.days()[asked:] if not kept(killed, *day.split())]
            assert len(lost) <= 4           # no more than there are connections
            in_flight.update(lost)
        server.latency = 0.0
        status, output = zygote.run(command, killed)
        assert status == 0, output
        assert Counter(server.days()) == once + in_flight and sum(in_flight.values()) > 5
        assert tree(killed / "data") == tree(whole / "data")

        shutil.rmtree(killed / "data" / "chains")       # and where nothing is left to do but to make the partitions
        asked = len(server.asked)
        for _ in range(3):
            pid = zygote.start(command, killed)
            time.sleep(rng.uniform(0.2, 0.5))
            os.kill(pid, signal.SIGKILL)
            zygote.wait()
        assert zygote.run(command, killed)[0] == 0
        assert len(server.asked) == asked and tree(killed / "data") == tree(whole / "data")


def kept(folder: Path, name: str, day: str) -> bool:
    raw = folder / "data/raw/orats_api" / name / "dte=90"
    return (raw / f"{day}.parquet").exists() or (raw / f"{day}.none").exists()


def test_a_kill_between_writing_and_renaming_leaves_nothing_behind(server: OratsServer, desk: Path, clean_week) -> None:
    left = [desk / "data/raw/orats_api/SPY/dte=90/.2024-01-04.parquet.1f.tmp",
            desk / "data/chains/orats_api/ticker=SPY/.year=2024.parquet.1f.tmp",
            desk / "data/daily/.orats_api_SPY.parquet.1f.tmp"]
    others = desk / "data/daily/.mine.tmp"
    for path in (*left, others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    ingest(server)
    assert not any(path.exists() for path in left) and others.read_bytes() == b"half"
    others.unlink()
    assert tree(desk / "data") == clean_week


def test_two_downloads_at_once_are_refused(server: OratsServer, desk: Path) -> None:
    lines = []
    ingest(server, progress=lambda *_: lines.append(refusal(server)) if not lines else None)
    assert lines == [f"another download is running in {desk / 'data/raw/orats_api'}: wait for it"]
    assert len(server.asked) == 5
