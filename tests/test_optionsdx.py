"""OptionsDX text: brackets, blanks, months in a file, and greeks that are none."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from mahler import bsm
from mahler.data import optionsdx, store
from mahler.data.files import Ingested
from mahler.schema import ConfigError, Flag, Table

COLUMNS = ("QUOTE_UNIXTIME QUOTE_READTIME QUOTE_DATE QUOTE_TIME_HOURS UNDERLYING_LAST EXPIRE_DATE EXPIRE_UNIX DTE "
           "C_DELTA C_GAMMA C_VEGA C_THETA C_RHO C_IV C_VOLUME C_LAST C_SIZE C_BID C_ASK STRIKE P_BID P_ASK P_SIZE "
           "P_LAST P_DELTA P_GAMMA P_VEGA P_THETA P_RHO P_IV P_VOLUME STRIKE_DISTANCE STRIKE_DISTANCE_PCT").split()
HEADER = ", ".join(f"[{name}]" for name in COLUMNS)
SPOT, RATE, IV = 450.0, 0.01, 0.2

# As a file of the vendor has it: SPY on its last day, deep in the money, the call's IV given.
REAL = ("1638392400, 2021-12-01 16:00, 2021-12-01, 16.000000, 450.440000, 2021-12-01, 1638392400, 0.000000, 0.985740, "
        "0.000470, 0.007560, -0.415280, 0.006070, 3.964130, 0.000000, 147.870000, 300 x 300, 139.610000, 142.100000, "
        "310.000000, 0.000000, 0.010000, 0 x 4522, 0.030000, 0.000000, 0.000030, 0.000430, -0.004940, 0.000000, "
        "2.521350, 0.000000, 140.400000, 0.312000")


def row(strike: float, day: str = "2021-12-01", expiry: str = "2022-01-21", **cells: str) -> dict[str, str]:
    """One strike, quoted to a thousandth around its value at an IV of 20 %; its IVs and greeks are the vendor's."""
    dte = (np.datetime64(expiry) - np.datetime64(day)).astype(int)
    years = max(dte, 1) / 365
    out = {"QUOTE_UNIXTIME": "1638392400", "QUOTE_READTIME": f"{day} 16:00", "QUOTE_DATE": day,
           "QUOTE_TIME_HOURS": "16.0", "UNDERLYING_LAST": f"{SPOT:.6f}", "EXPIRE_DATE": expiry, "EXPIRE_UNIX": "0",
           "DTE": f"{dte:.6f}", "STRIKE": f"{strike:.6f}", "STRIKE_DISTANCE": "0", "STRIKE_DISTANCE_PCT": "0"}
    for letter in "CP":
        value = float(bsm.price(SPOT, strike, years, RATE, 0.0, IV, letter == "C"))
        greeks = bsm.greeks(SPOT, strike, years, RATE, 0.0, IV, letter == "C")
        side = {"DELTA": greeks.delta, "GAMMA": greeks.gamma, "VEGA": greeks.vega, "THETA": greeks.theta, "RHO": 0.0,
                "IV": IV, "VOLUME": 12.0, "LAST": value, "BID": 0.999 * value, "ASK": 1.001 * value}
        out |= {f"{letter}_{name}": f"{number:.6f}" for name, number in side.items()} | {f"{letter}_SIZE": "300 x 300"}
    return out | cells


LADDER = [row(strike) for strike in np.arange(420.0, 481.0, 5.0)]


def write(folder: Path, rows: Iterable[dict[str, str] | str], name: str = "spy_eod_202112.txt",
          end: str = "\n") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else ", ".join(row[column] for column in COLUMNS) for row in rows]
    path.write_bytes((end.join([HEADER, *lines]) + end).encode())
    return path


def silent(done: int, total: int, label: str) -> None:
    """No progress bar."""


def ingest(path: Path, root: Path, **options: object) -> Ingested:
    defaults = dict(tickers=["SPY"], start=None, end=None, max_dte=None, rate=RATE, workers=1)
    return optionsdx.ingest(root, silent, path=path, **(defaults | options))


def stored(root: Path, ticker: str = "SPY", year: int = 2021) -> Table:
    return store.read_partition(store.partition_path(root / "optionsdx", ticker, year))


def at(chain: Table, strike: float) -> dict[str, object]:
    (number,) = np.flatnonzero(chain["strike"] == strike)
    return {name: column[number] for name, column in chain.items()}


def refusal(path: Path, root: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        ingest(path, root, **options)
    assert "\n" not in str(error.value) and not list(root.rglob("*.parquet"))
    return str(error.value)


# ---------------------------------------------------------------------------------------------- the format


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_in_brackets_and_cells_after_spaces_are_read_by_name(tmp_path: Path, end: str) -> None:
    done = ingest(write(tmp_path, LADDER, end=end), tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert len(chain["strike"]) == len(LADDER)
    found = at(chain, 430.0)
    years = 51 / 365
    put = float(bsm.price(SPOT, 430.0, years, RATE, 0.0, IV, False))
    call, own = (bsm.greeks(SPOT, 430.0, years, RATE, 0.0, IV, is_call) for is_call in (True, False))
    assert (str(found["date"]), str(found["expiry"])) == ("2021-12-01", "2022-01-21")
    assert [found["put_bid"], found["put_ask"]] == pytest.approx([0.999 * put, 1.001 * put], abs=1e-6)
    assert (found["call_iv"], found["put_iv"], found["underlying"]) == (np.float32(IV), np.float32(IV), SPOT)
    assert [found[name] for name in ("delta", "gamma", "theta", "vega")] == pytest.approx(
        [float(call.delta), float(own.gamma), float(own.theta), float(own.vega)], abs=1e-5), "the put's, but delta"
    assert (found["call_volume"], found["put_volume"]) == (12, 12)
    assert not chain["flags"].any(), "everything is the vendor's"
    assert (done.counts["SPY"]["read"], done.counts["SPY"]["kept"]) == (13, 13)


def test_a_row_of_the_vendor_is_read_as_it_stands(tmp_path: Path) -> None:
    ingest(write(tmp_path, [REAL]), tmp_path / "store")
    found = at(stored(tmp_path / "store"), 310.0)
    assert (found["call_bid"], found["call_ask"], found["put_bid"], found["put_ask"]) == (139.61, 142.1, 0.0, 0.01)
    assert (found["call_iv"], found["put_iv"]) == (np.float32(3.96413), np.float32(2.52135))
    assert (found["delta"], found["vega"]) == (1.0, np.float32(0.00043)), "of the put, which is out of the money"
    assert found["underlying"] == 450.44


def test_there_is_no_open_interest_and_it_is_missing_rather_than_zero(tmp_path: Path) -> None:
    done = ingest(write(tmp_path, LADDER), tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert set(chain["call_open_interest"]) == set(chain["put_open_interest"]) == {-1}
    assert np.isnan(chain["smooth_iv"]).all()
    assert not any("open_interest" in name for name in done.counts["SPY"]), "of every row, which is no news"


def test_columns_may_stand_in_any_order_and_others_are_not_read(tmp_path: Path) -> None:
    order = [*reversed(COLUMNS), "NEW"]
    lines = [", ".join([*(row_[name] for name in reversed(COLUMNS)), "garbage"]) for row_ in LADDER]
    path = tmp_path / "spy_eod_202112.txt"
    path.write_text("\n".join([",".join(f"[{name}]" for name in order), *lines]) + "\n")
    ingest(path, tmp_path / "store")
    assert at(stored(tmp_path / "store"), 430.0)["underlying"] == SPOT


def test_a_file_of_several_days_and_a_block_smaller_than_a_day_give_every_day(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(optionsdx, "BLOCK", 2000)
    days = ["2021-12-01", "2021-12-02", "2021-12-31"]
    rows = [row(float(strike), day) for day in days for strike in range(430, 471, 5)]
    done = ingest(write(tmp_path, rows[::2] + rows[1::2]), tmp_path / "store")
    info = done.partitions[0]
    assert info.sessions.astype(str).tolist() == days
    assert [info.counts[day]["kept"] for day in days] == [9] * 3
    assert done.files_without == {}


def test_months_and_tickers_come_from_the_names_and_go_to_their_partitions(tmp_path: Path) -> None:
    for ticker, month in (("spy", "202111"), ("spy", "202112"), ("qqq", "202112")):
        day = f"{month[:4]}-{month[4:]}-01"
        write(tmp_path, [row(float(k), day) for k in range(430, 471, 5)], f"{ticker}_eod_{month}.txt")
    done = ingest(tmp_path, tmp_path / "store", tickers=["SPY", "QQQ", "IWM"])
    assert sorted((info.ticker, info.year, len(info.sessions)) for info in done.partitions) == [
        ("QQQ", 2021, 1), ("SPY", 2021, 2)]
    assert done.files_without == {"IWM": 0}
    assert "no file of IWM (there: QQQ, SPY)" in refusal(tmp_path, tmp_path / "none", tickers=["IWM"])


def test_a_file_of_several_years_is_read_too(tmp_path: Path) -> None:
    rows = [row(float(k), day, expiry) for day, expiry in (("2020-12-01", "2021-01-15"), ("2022-03-01", "2022-04-14"))
            for k in range(430, 471, 5)]
    done = ingest(write(tmp_path, rows, "spy_2020_2022.csv"), tmp_path / "store", start="2022-01-01")
    assert [(info.year, info.rows) for info in done.partitions] == [(2022, 9)]


def test_a_period_leaves_out_days_and_months(tmp_path: Path) -> None:
    write(tmp_path, [row(float(k), day) for day in ("2021-12-01", "2021-12-15") for k in range(430, 471, 5)])
    write(tmp_path, [row(float(k), "2021-11-01") for k in range(430, 471, 5)], "spy_eod_202110.txt")
    done = ingest(tmp_path, tmp_path / "store", start="2021-12-10", end="2021-12-31")
    assert done.partitions[0].sessions.astype(str).tolist() == ["2021-12-15"]
    assert (done.files, done.files_outside) == (1, 1)
    assert done.counts["SPY"]["read"] == 9


def test_the_same_files_in_one_go_or_in_two_leave_the_same_bytes(tmp_path: Path) -> None:
    for month in ("202111", "202112"):
        write(tmp_path, [row(float(k), f"2021-{month[4:]}-01", "2022-01-22") for k in range(430, 471, 5)],
              f"spy_eod_{month}.txt")
    ingest(tmp_path, tmp_path / "one")
    for month in ("202112", "202111", "202112"):
        ingest(tmp_path / f"spy_eod_{month}.txt", tmp_path / "two")
    paths = [store.partition_path(tmp_path / name / "optionsdx", "SPY", 2021) for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


# ---------------------------------------------------------------------------------------------- defects


def test_a_blank_iv_makes_the_greeks_of_its_side_placeholders_and_both_are_computed_and_flagged(tmp_path: Path) -> None:
    """The vendor's call deep in the money: a delta of 0.1, no gamma, no IV."""
    nothing = {"C_IV": " ", "C_DELTA": " 0.100000", "C_GAMMA": " 0.020000", "C_VEGA": "0", "C_THETA": "0"}
    rows = [row(float(k), **(nothing if k in (425, 475) else {})) for k in range(420, 481, 5)]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    chain = stored(tmp_path / "store")
    inside, outside = at(chain, 425.0), at(chain, 475.0)
    assert inside["flags"] == Flag.IV_COMPUTED, "the put's greeks are there, and the put is out of the money"
    assert outside["flags"] == Flag.IV_COMPUTED | Flag.GREEKS_COMPUTED
    true = bsm.greeks(SPOT, 475.0, 51 / 365, RATE, 0.0, IV, True)
    assert [outside["call_iv"], outside["delta"]] == pytest.approx([IV, float(true.delta)], abs=2e-3)
    counts = done.counts["SPY"]
    assert (counts["iv_computed"], counts["greeks_computed"]) == (2, 1)
    assert done.partitions[0].quality["iv_computed"] == 2 and done.partitions[0].quality["greeks_computed"] == 1
    assert done.partitions[0].counts["2021-12-01"]["greeks_computed"] == 1


def test_a_period_that_begins_with_a_year_leaves_out_the_year_before_and_its_files(tmp_path: Path) -> None:
    """December's file cannot have a day of January, nor the file of two years one of the third."""
    new = [row(float(strike), "2022-01-03", "2022-02-18") for strike in range(420, 481, 5)]
    for name, rows in (("spy_eod_202112.txt", LADDER), ("spy_2020_2021.csv", LADDER), ("spy_eod_202201.txt", new)):
        write(tmp_path, rows, name)
    done = ingest(tmp_path, tmp_path / "store", start="2022-01-01")
    assert (done.files, done.files_outside, done.counts["SPY"]["kept"]) == (1, 2, 13)


def test_a_file_without_a_row_of_the_period_is_one_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    assert "none of 1 optionsdx files has a row of SPY from 2021-12-02 to None" in refusal(
        path, tmp_path / "store", start="2021-12-02")


def test_a_row_whose_underlying_is_not_that_of_the_day_has_the_days_and_is_counted(tmp_path: Path) -> None:
    """Nor does one that is absurd make an absurd quote possible."""
    done = ingest(write(tmp_path, [*LADDER, row(400.0, UNDERLYING_LAST="45.0"),
                                   row(410.0, UNDERLYING_LAST="1e300", P_ASK="1e9")]), tmp_path / "store")
    chain, counts = stored(tmp_path / "store"), done.counts["SPY"]
    assert (chain["underlying"] == SPOT).all() and 410.0 not in chain["strike"] and 400.0 in chain["strike"]
    assert (counts["underlying_mended"], counts["dropped_bad_price"]) == (2, 1)


def test_a_saturday_expiration_is_settled_and_counted_on_the_friday(tmp_path: Path) -> None:
    rows = [row(float(k), "2014-12-01", "2014-12-20", C_IV="", P_IV="") for k in range(430, 471, 5)]
    done = ingest(write(tmp_path, rows, "spy_eod_201412.txt"), tmp_path / "store")
    chain = stored(tmp_path / "store", year=2014)
    assert set(chain["expiry"].astype(str)) == {"2014-12-19"}
    assert done.counts["SPY"]["expiry_moved"] == 9
    assert "dte_mismatch" not in done.counts["SPY"], "the vendor counts to the Saturday that it prints"


def test_dte_has_fractions_of_daylight_saving_and_is_checked_against_the_dates(tmp_path: Path) -> None:
    rows = [*LADDER[:9], LADDER[9] | {"DTE": "50.960000"}, LADDER[10] | {"DTE": "15"}, LADDER[11] | {"DTE": ""}]
    assert ingest(write(tmp_path, rows), tmp_path / "store").counts["SPY"]["dte_mismatch"] == 1


def test_rows_of_a_day_without_a_session_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*(row(450.0, day) for day in ("2021-12-25", "2021-12-26")), *LADDER]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    assert done.partitions[0].sessions.astype(str).tolist() == ["2021-12-01"]
    assert (done.counts["SPY"]["read"], done.counts["SPY"]["dropped_not_a_session"]) == (15, 2)


def test_rows_out_of_reason_are_left_out_and_counted_and_what_can_be_mended_is(tmp_path: Path) -> None:
    rows = [*LADDER, row(500.0, C_BID="-1"), row(505.0, P_ASK="1e15"), row(500.0) | {"STRIKE": "0"},
            row(510.0, expiry="2021-11-30"), row(515.0, expiry="2022-12-16"), row(520.0), row(520.0), row(525.0),
            row(525.0, C_BID="0.01"),
            row(530.0, C_IV="1e9", C_DELTA="7", P_VOLUME="", UNDERLYING_LAST=""), row(390.0, P_DELTA="0.004"),
            row(385.0, P_DELTA="-3", P_IV="0.2")]
    counts = ingest(write(tmp_path, rows), tmp_path / "store", max_dte=90).counts["SPY"]
    chain = stored(tmp_path / "store")
    dropped = {name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")}
    assert dropped == {"bad_price": 2, "bad_strike": 1, "expired": 1, "beyond_max_dte": 1, "duplicate": 1,
                       "contradictory": 2}
    assert counts["read"] == len(rows) == counts["kept"] + sum(dropped.values())
    assert (counts["call_iv_out_of_range"], counts["put_volume_missing"], counts["underlying_mended"]) == (1, 1, 1)
    assert (counts["greeks_clamped"], counts["greeks_out_of_range"]) == (1, 1)
    mended, clamped, computed = at(chain, 530.0), at(chain, 390.0), at(chain, 385.0)
    assert (mended["underlying"], mended["put_volume"]) == (SPOT, -1)
    assert mended["call_iv"] == pytest.approx(IV, abs=2e-3)
    assert clamped["delta"] == 1.0 and clamped["flags"] == Flag.GREEKS_CLAMPED
    assert 0.9 < computed["delta"] < 1 and computed["flags"] == Flag.GREEKS_COMPUTED


def test_a_day_that_tells_no_underlying_is_left_out_and_counted(tmp_path: Path) -> None:
    blind = [row(float(k), "2021-12-02", UNDERLYING_LAST="0", C_BID="0") for k in range(430, 471, 5)]
    done = ingest(write(tmp_path, [*LADDER, *blind]), tmp_path / "store")
    assert done.partitions[0].sessions.astype(str).tolist() == ["2021-12-01"]
    counts = done.counts["SPY"]
    assert (counts["read"], counts["kept"], counts["dropped_no_underlying"]) == (22, 13, 9)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("cells", "words"), [
    ({"C_BID": "abc"}, ("row 15 column C_BID must be a number", "'abc'")),
    ({"P_IV": "0,2"}, ("row 15 has 34 columns, the header 33",)),
    ({"STRIKE": "4_50"}, ("row 15 column STRIKE must be a number", "'4_50'")),
    ({"QUOTE_DATE": "12/01/2021"}, ("row 15 column QUOTE_DATE must be a date, YYYY-MM-DD", "'12/01/2021'")),
    ({"EXPIRE_DATE": "2022-02-30"}, ("row 15 column EXPIRE_DATE must be a date", "'2022-02-30'")),
    ({"EXPIRE_DATE": ""}, ("row 15 column EXPIRE_DATE is blank",)),
])
def test_what_cannot_be_read_is_refused_with_file_row_and_column(tmp_path: Path, cells, words) -> None:
    path = write(tmp_path, [*LADDER, row(500.0) | cells])
    message = refusal(path, tmp_path / "store")
    assert all(word in message for word in (str(path), *words)), message


def test_foreign_damaged_and_misnamed_files_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    whole = path.read_bytes()
    for data, words in ((b"date,close\n2021-12-01,450\n", "lacks the columns QUOTE_DATE, EXPIRE_DATE"),
                        (HEADER.encode() + b"\n", "has no row"), (b"", "lacks the columns"),
                        (whole[:len(whole) // 2], "columns, the header 33"),
                        (HEADER.encode() + b", [STRIKE]\n", "has the columns STRIKE twice"),
                        (bytes(range(256)) * 40, "lacks the columns")):
        path.write_bytes(data)
        message = refusal(path, tmp_path / "store")
        assert str(path) in message and words in message, message
    path.write_bytes(whole)
    for name in ("chains.txt", "spy_eod_202113.txt", "spy_eod_2021-12.txt"):
        assert "the name must be like spy_eod_202303.txt" in refusal(path.rename(tmp_path / name), tmp_path / "store")
        path = tmp_path / name


def test_a_day_in_two_files_is_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path, LADDER)
    write(tmp_path, LADDER, "spy_eod_2021.txt")
    message = refusal(tmp_path, tmp_path / "store")
    assert all(word in message for word in ("spy_eod_2021.txt", "spy_eod_202112.txt", "both hold SPY on 2021-12-01"))


def test_ten_thousand_mutated_rows_give_a_wrong_row_or_a_traceback_never(tmp_path: Path) -> None:
    """An error of one line that names the file, or rows that the store may hold, all of them accounted for."""
    rng = np.random.default_rng(8)
    nonsense = ["", " ", "nan", "inf", "-inf", "1e308", "-1", "0", "x", "1_0", "2021-12-32", "٣", "1e-320", '"',
                "9" * 400]
    told = 0
    for case in range(100):
        rows = [dict(row) for row in itertools.islice(itertools.cycle(LADDER), 100)]
        for i, strike in enumerate(np.arange(400.0, 500.0)):
            rows[i]["STRIKE"] = f"{strike}"
        for _ in range(1 + case % 5):
            rows[rng.integers(100)][COLUMNS[rng.integers(33)]] = nonsense[rng.integers(len(nonsense))]
        path = write(tmp_path, rows)
        try:
            done = ingest(path, tmp_path / f"{case}")
        except ConfigError as error:
            assert str(path) in str(error) or "optionsdx files" in str(error), error
            told += 1
            continue
        counts, chain = done.counts["SPY"], stored(tmp_path / f"{case}")
        assert counts["read"] == 100 == counts["kept"] + sum(n for k, n in counts.items() if k.startswith("dropped_"))
        assert np.isin(chain["strike"], np.arange(400.0, 500.0)).all() and (chain["underlying"] > 0).all()
        assert (chain["put_ask"][np.isfinite(chain["put_ask"])] >= 0).all()
    assert 10 < told < 90


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_reads_a_file_and_a_backtest_finds_the_store(tmp_path: Path) -> None:
    """mahler ingest data=optionsdx, end to end: what was read, left out and computed is said."""
    write(tmp_path, [*LADDER, row(500.0, C_IV="", C_BID="-1"), row(505.0, C_IV="")])
    mahler = str(Path(sys.executable).with_name("mahler"))
    done = subprocess.run([mahler, "ingest", "data=optionsdx", f"data.path={tmp_path}", "data.workers=1"],
                          env=os.environ | {"MAHLER_HOME": str(tmp_path / "home")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "SPY: 14 of 15 rows kept; left out: 1 bad price" in said
    assert "1 greeks computed" in said and "Next: ingest more: a backtest needs two sessions of SPY" in said
    assert len(stored(tmp_path / "home" / "data" / "chains")["strike"]) == 14
