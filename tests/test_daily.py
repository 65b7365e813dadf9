"""Daily series as users bring them: which files and columns are read, and what is refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mahler.data import daily
from mahler.data.store import write_table
from mahler.schema import ConfigError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "daily_2007_2025.csv.gz"


def folder(tmp_path: Path, **texts: str) -> Path:
    """A directory of files: `a="..."` is a.csv."""
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


def test_a_folder_without_series_is_none(tmp_path):
    (tmp_path / "README.md").write_text("put your series here")
    (tmp_path / "._VIX_History.csv").write_text("a file manager's droppings")
    assert daily.load(tmp_path) is None
    assert daily.load(tmp_path / "absent") is None


def test_known_columns_are_read_by_name_and_others_ignored(tmp_path):
    text = "SKEW,SPY_close,date,SPY_open\n118,141.37,2007-01-03,x\n119,141.67,2007-01-04,y\n"
    loaded = daily.load(folder(tmp_path, a=text))
    assert list(loaded.columns) == ["SPY_close"]
    np.testing.assert_array_equal(loaded.dates, days("2007-01-03", "2007-01-04"))
    np.testing.assert_array_equal(loaded.columns["SPY_close"], [141.37, 141.67])


def test_cboe_history_is_read_as_it_comes_and_the_file_name_says_the_index(tmp_path):
    header = "DATE,OPEN,HIGH,LOW,CLOSE\n"
    loaded = daily.load(folder(tmp_path, VIX_History=header + "01/02/1990,17,18,16,17.24\n1/3/1990,18,19,17,18.19\n",
                               VIX9D_History=header + "01/03/1990,14.0,16.0,13.0,15.5\n"))
    np.testing.assert_array_equal(loaded.dates, days("1990-01-02", "1990-01-03"))
    np.testing.assert_array_equal(loaded.columns["VIX"], [17.24, 18.19])
    np.testing.assert_array_equal(loaded.columns["VIX9D"], [np.nan, 15.5])


YAHOO = "Date,Open,High,Low,Close,Adj Close,Volume\n"


@pytest.mark.parametrize("name, text", [
    ("SPY.csv", YAHOO + "2020-01-02,323.54,324.89,322.53,324.87,301.05,59151200\n2020-01-03,,,,null,,\n"),
    ("spy.csv", YAHOO.lower() + "2020-01-02,323.54,324.89,322.53,324.87,301.05,59151200\n2020-01-03,,,,,,\n"),
    ("SPY.csv", "date,adj_close,close\n1/2/2020,301.05,324.87\n1/3/2020,,\n"),
    ("SPY.csv", "Date,Adj Close,Close\n2020-01-02 00:00:00-05:00,301.05,324.87\n2020-01-03 00:00:00-05:00,,\n"),
], ids=["as it comes", "in lower case", "with underscores", "with times"])
def test_yahoos_close_is_read_as_the_file_name_says_and_not_the_adjusted_one(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    loaded = daily.load(tmp_path)
    assert list(loaded.columns) == ["SPY_close"]
    np.testing.assert_array_equal(loaded.dates, days("2020-01-02", "2020-01-03"))
    np.testing.assert_array_equal(loaded.columns["SPY_close"], [324.87, np.nan])


def test_yahoos_dividends_and_indices_are_read_too(tmp_path):
    (tmp_path / "QQQ.csv").write_text("Date,Close,Adj Close,Dividends,Stock Splits\n2020-03-23,170.7,165.2,0.363,0\n")
    (tmp_path / "^VIX.csv").write_text(YAHOO + "2020-03-23,67.2,76.3,60.5,61.59,61.59,0\n")
    loaded = daily.load(tmp_path)
    assert {name: column.tolist() for name, column in loaded.columns.items()} == {
        "QQQ_close": [170.7], "QQQ_div": [0.363], "VIX": [61.59]}


def test_a_name_that_does_not_say_whose_closes_they_are_is_refused(tmp_path):
    (tmp_path / "my_prices.csv").write_text(YAHOO + "2020-01-02,1,1,1,1,1,1\n")
    with pytest.raises(ConfigError, match=r"my_prices\.csv has the column Close and a name that does not say of what"):
        daily.load(tmp_path)


@pytest.mark.parametrize("blank", ["", " ", ".", "nan", "NaN"])
def test_a_blank_is_missing_and_not_zero(tmp_path, blank):
    loaded = daily.load(folder(tmp_path, a=f"date,DTB3\n2007-01-03,{blank}\n2007-01-04,-0.05\n"))
    np.testing.assert_array_equal(loaded.columns["DTB3"], [np.nan, -0.05])


def test_csv_gzip_and_parquet_say_the_same(tmp_path):
    text = "date,VIX,SPY_div\n2020-03-16,82.69,0\n2020-03-20,66.04,1.4056\n"
    kinds = {kind: tmp_path / kind for kind in ("csv", "gz", "parquet")}
    for path in kinds.values():
        path.mkdir()
    (kinds["csv"] / "a.csv").write_text(text)
    (kinds["gz"] / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    write_table(kinds["parquet"] / "c.parquet", {
        "date": days("2020-03-16", "2020-03-20"), "VIX": np.array([82.69, 66.04]), "SPY_div": np.array([0, 1.4056])})
    assert len({daily.load(path).fingerprint for path in kinds.values()}) == 1


def test_parquet_dates_may_be_timestamps_or_text(tmp_path):
    write_table(tmp_path / "a.parquet", {"DATE": days("2020-03-16").astype("datetime64[ns]"), "VIX": np.array([82.69])})
    write_table(tmp_path / "b.parquet", {"date": np.array(["2020-03-17", "2020-03-18"], dtype=object),
                                         "VIX": np.array(["75.91", None], dtype=object)})
    loaded = daily.load(tmp_path)
    np.testing.assert_array_equal(loaded.dates, days("2020-03-16", "2020-03-17", "2020-03-18"))
    np.testing.assert_array_equal(loaded.columns["VIX"], [82.69, 75.91, np.nan])


def test_files_that_agree_are_joined_and_a_number_fills_a_gap(tmp_path):
    loaded = daily.load(folder(tmp_path, a="date,VIX\n2020-01-03,14.02\n2020-01-02,12.47\n",
                               b="date,VIX\n2020-01-03,14.020\n2020-01-06,\n", c="date,VIX\n2020-01-06,13.85\n"))
    np.testing.assert_array_equal(loaded.dates, days("2020-01-02", "2020-01-03", "2020-01-06"))
    np.testing.assert_array_equal(loaded.columns["VIX"], [12.47, 14.02, 13.85])


def test_the_fingerprint_is_of_the_content_and_not_of_the_files(tmp_path):
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for path in (one, two, other):
        path.mkdir()
    (one / "a.csv").write_text("date,VIX\n2020-01-03,14.02\n2020-01-02,12.47\n")
    (two / "a.csv").write_text("DATE,VIX,junk\n1/2/2020,12.47,\n")
    (two / "b.csv").write_text("date,VIX\n2020-01-03,14.02\n")
    (other / "a.csv").write_text("date,VIX\n2020-01-03,14.03\n2020-01-02,12.47\n")
    assert daily.load(one).fingerprint == daily.load(two).fingerprint != daily.load(other).fingerprint


@pytest.mark.parametrize("text, message", [
    ("date,VIX\n2020-01-02,12.47\n2020-01-02,12.48\n",
     r"a\.csv row 3: VIX on 2020-01-02 is 12\.48, but 12\.47 in a\.csv row 2"),
    ("date,VIX\n2020-01-02,twelve\n", r"a\.csv row 2: VIX is a number, got 'twelve'"),
    ("date,VIX\n2020-01-02,1_4\n", r"a\.csv row 2: VIX is a number, got '1_4'"),
    ("date,VIX\n\n2020-01-02,0.1247\n", r"a\.csv row 3: VIX is percentage points in \[1, 500\], got 0\.1247"),
    ("date,SPY_close\n2020-01-02,0\n", r"a\.csv row 2: SPY_close is dollars in \(0, inf\), got 0"),
    ("date,SPY_close\n2020-01-02,inf\n", r"a\.csv row 2: SPY_close is dollars .* got inf"),
    ("date,SPY_div\n2020-01-02,-1\n", r"a\.csv row 2: SPY_div is dollars per share in \[0, inf\), got -1"),
    ("date,VIX\n2020-13-02,12.47\n", r"a\.csv row 2: date is YYYY-MM-DD or M/D/YYYY, got '2020-13-02'"),
    ("date,VIX\n13/1/2020,12.47\n", r"a\.csv row 2: date is YYYY-MM-DD or M/D/YYYY, got '13/1/2020'"),
    ("date,VIX\n,12.47\n", r"a\.csv row 2: date is .* got ''"),
    ("date,VIX\n2020-01-02\n", r"a\.csv row 2: 1 cells under 2 columns"),
    ("day,VIX\n2020-01-02,12.47\n", r"a\.csv needs one column date, got the columns day, VIX"),
    ("date,VIX,VIX\n2020-01-02,12.47,12.47\n", r"a\.csv names a column twice"),
    ("DATE,OPEN,HIGH,LOW\n2020-01-02,1,1,1\n", r"a\.csv has no column that Mahler knows .* got DATE, OPEN"),
    ("Date,Open,Close,Volume\n2020-01-02,1,1,1\n", r"a\.csv has the column Close without an Adj Close, so it may be "
     r"adjusted for dividends .* name it A_close"),
    ("", r"a\.csv needs one column date"),
], ids=lambda value: None if value.startswith(("date", "DATE", "day")) or not value else value[:30])
def test_what_cannot_be_read_is_refused_by_file_row_and_column(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        daily.load(folder(tmp_path, a=text))
    assert "\n" not in str(refused.value)


def test_two_files_that_contradict_are_both_named(tmp_path):
    with pytest.raises(ConfigError, match=r"b\.csv row 3: VIX on 2020-01-03 is 15, but 14\.02 in a\.csv row 2"):
        daily.load(folder(tmp_path, a="date,VIX\n2020-01-03,14.02\n", b="date,VIX\n2020-01-02,12.47\n2020-01-03,15\n"))


def test_a_price_in_single_precision_is_the_one_in_cents_beside_it(tmp_path):
    """Yahoo's closes and those that ORATS's API brings lie side by side, whatever the files are called."""
    for first, second in (("a", "b"), ("b", "a")):
        loaded = daily.load(folder(tmp_path, **{first: "date,SPY_close\n2020-01-02,141.369995\n",
                                                second: "date,SPY_close\n2020-01-02,141.37\n"}))
        assert loaded.columns["SPY_close"].tolist() == [141.37]
    folder(tmp_path, b="date,SPY_close\n2020-01-02,141.3702\n")
    with pytest.raises(ConfigError, match=r"SPY_close on 2020-01-02 is 141\.3702, but 141\.369995 in a\.csv row 2"):
        daily.load(folder(tmp_path, a="date,SPY_close\n2020-01-02,141.369995\n"))


def test_the_bill_rate_is_read_as_fred_gives_it(tmp_path):
    loaded = daily.load(folder(tmp_path, DTB3="observation_date,DTB3\n2020-01-01,\n2020-01-02,1.51\n"))
    np.testing.assert_array_equal(loaded.columns["DTB3"], [np.nan, 1.51])


def test_a_file_whose_name_is_in_capitals_is_not_overlooked(tmp_path):
    (tmp_path / "VIX_HISTORY.CSV").write_text("DATE,OPEN,HIGH,LOW,CLOSE\n01/02/2020,12,13,11,12.47\n")
    assert daily.load(tmp_path).columns["VIX"].tolist() == [12.47]


@pytest.mark.parametrize("name, content", [
    ("a.csv.gz", b"date,VIX\n2020-01-02,12.47\n"), ("a.csv.gz", gzip.compress(b"date,VIX\n" * 99)[:-9]),
    ("a.csv", b"date,VIX\n2020-01-02,\xff\xfe\n"), ("a.parquet", b"PAR1 of a sort"),
], ids=["not gzip", "cut gzip", "not UTF-8", "not Parquet"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name} cannot be read as (CSV|Parquet)"):
        daily.load(tmp_path)


def test_a_series_is_looked_up_on_exactly_the_days_asked_for(tmp_path):
    loaded = daily.load(folder(tmp_path, a="date,VIX\n2020-01-02,12.47\n2020-01-06,13.85\n"))
    asked = days("2019-12-31", "2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07")
    np.testing.assert_array_equal(loaded.on("VIX", asked), [np.nan, 12.47, np.nan, 13.85, np.nan])
    assert np.isnan(loaded.on("VXN", asked)).all()


def test_the_latest_value_looks_back_only_and_not_too_far(tmp_path):
    loaded = daily.load(folder(tmp_path, a="date,DTB3\n2020-01-02,1.5\n2020-01-03,\n2020-01-06,1.6\n"))
    asked = days("2020-01-01", "2020-01-02", "2020-01-03", "2020-01-05", "2020-01-06", "2020-01-13", "2020-01-14")
    np.testing.assert_array_equal(loaded.latest("DTB3", asked, 7), [np.nan, 1.5, 1.5, 1.5, 1.6, 1.6, np.nan])
    np.testing.assert_array_equal(loaded.latest("DTB3", asked, 2), [np.nan, 1.5, 1.5, np.nan, 1.6, np.nan, np.nan])


def test_the_real_series_are_read_whole(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is absent: real daily series are not committed")
    (tmp_path / SHARED.name).symlink_to(SHARED)
    loaded = daily.load(tmp_path)
    assert len(loaded.dates) == 4780 and loaded.dates[0] == np.datetime64("2007-01-03")
    of_tickers = [f"{ticker}_{kind}" for ticker in ("SPY", "QQQ", "IWM") for kind in ("close", "div")]
    assert sorted(loaded.columns) == sorted([*daily.INDICES, "DTB3", *of_tickers])
    assert loaded.on("SPY_close", days("2007-01-03", "2025-12-31")).tolist() == [141.37, 681.92]
    assert loaded.columns["VIX"].max() == 82.69                         # 2020-03-16
    assert np.isfinite(loaded.columns["VIX"]).all() and np.isnan(loaded.columns["VIX9D"]).sum() == 1009
    ex_dates, amounts = loaded.dividends("SPY")
    assert len(ex_dates) == 76 and ex_dates[-1] == np.datetime64("2025-12-19") and amounts[-1] == 1.993
