"""options-dataset-hist: one row per option, placeholders on a lattice, dates of every type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mahler import bsm
from mahler.data import options_hist, quality, store
from mahler.data.files import Ingested
from mahler.implied import GREEKS
from mahler.schema import ConfigError, Flag, Table

SPOT, RATE, IV, DAY = 140.0, 0.015, 0.2512, "2008-10-01"      # 0.2512 is not on the lattice
FLOOR = 0.01488


def option(kind: str, strike: float, expiry: str = "2008-11-21", day: str = DAY, **cells: object) -> dict[str, object]:
    """One option, quoted to a thousandth around its value at an IV of 25.12 %; IV and greeks are the vendor's."""
    years = max((np.datetime64(expiry) - np.datetime64(day)).astype(int), 1) / 365
    value = float(bsm.price(SPOT, strike, years, RATE, 0.0, IV, kind == "call"))
    greeks = bsm.greeks(SPOT, strike, years, RATE, 0.0, IV, kind == "call")
    out = {"contract_id": f"SPY{expiry[2:4]}{expiry[5:7]}{expiry[8:]}{kind[0].upper()}{strike * 1000:08.0f}",
           "symbol": "SPY", "expiration": expiry, "strike": strike, "type": kind, "last": 77.0, "mark": value,
           "bid": 0.999 * value, "bid_size": 10, "ask": 1.001 * value, "ask_size": 11, "volume": 5, "open_interest": 7,
           "date": day, "implied_volatility": IV, "rho": 0.1, "in_the_money": 1}
    return out | {name: float(getattr(greeks, name)) for name in GREEKS} | cells


def both(*strikes: float, **cells: object) -> list[dict[str, object]]:
    return [option(kind, float(strike), **cells) for strike in strikes for kind in ("call", "put")]


LADDER = both(*range(130, 151, 2))
PLACEHOLDER = {"implied_volatility": FLOOR, "delta": 0.0, "gamma": 5.251, "theta": 3.393, "vega": 0.0}


def write(folder: Path, rows: list[dict[str, object]], year: int = 2008, ticker: str = "spy", close: float = SPOT,
          **casts: pa.DataType) -> Path:
    """options_YYYY.parquet as the archive has it, and the closes beside it; `casts` change the types of columns."""
    place = folder / f"parquet_{ticker}"
    place.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows)
    for name, kind in casts.items():
        column = table[name]
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.date32())
        table = table.set_column(table.column_names.index(name), name, column.cast(kind))
    pq.write_table(table, place / f"options_{year}.parquet", row_group_size=7)
    days = sorted({str(row["date"])[:10] for row in rows})
    prices = pa.table({"symbol": ["SPY"] * len(days), "date": days, "close": [close] * len(days),
                       "adjusted_close": [0.8 * close] * len(days), "split_coefficient": [1.0] * len(days)})
    pq.write_table(prices, place / "underlying_prices.parquet")
    return place / f"options_{year}.parquet"


def silent(done: int, total: int, label: str) -> None:
    """No progress bar."""


def ingest(path: Path, root: Path, **options: object) -> Ingested:
    defaults = dict(tickers=["SPY"], start=None, end=None, max_dte=None, rate=RATE, workers=1)
    return options_hist.ingest(root, silent, path=path, **(defaults | options))


def stored(root: Path, ticker: str = "SPY", year: int = 2008) -> Table:
    return store.read_partition(store.partition_path(root / "options_hist", ticker, year))


def at(chain: Table, strike: float) -> dict[str, object]:
    (number,) = np.flatnonzero(chain["strike"] == strike)
    return {name: column[number] for name, column in chain.items()}


def refusal(path: Path, root: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        ingest(path, root, **options)
    assert "\n" not in str(error.value) and not list(root.rglob("year=*.parquet"))
    return str(error.value)


# ---------------------------------------------------------------------------------------------- the lattice


def test_the_lattice_is_that_of_ten_halvings_from_1_percent_to_1000() -> None:
    """The bisection itself, rounded to five decimals as the archive is, and the rounded lattice of the design."""
    rng = np.random.default_rng(1)
    low, high = np.full(2000, 0.01), np.full(2000, 10.0)
    for _ in range(10):
        middle, up = (low + high) / 2, rng.random(2000) < 0.5
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    assert options_hist.on_lattice((low + high) / 2).all()
    assert options_hist.on_lattice(np.round((low + high) / 2, 5)).all()
    assert options_hist.on_lattice(np.round((low + high) / 2, 5).astype(np.float32).astype(float)).all()
    assert options_hist.on_lattice(0.01488 + 0.00976 * np.arange(200)).all()
    np.testing.assert_allclose(0.01 + (np.array([0, 1023]) + 0.5) * 9.99 / 1024, [0.01488, 9.99512], atol=5e-6)


def test_an_iv_that_was_measured_is_seldom_on_the_lattice_and_a_missing_one_never() -> None:
    measured = np.random.default_rng(2).uniform(0.05, 1.0, 100_000)
    assert options_hist.on_lattice(measured).mean() < 0.005
    assert not options_hist.on_lattice(np.array([np.nan, 0.0, -0.00976, 0.00512, IV, np.inf])).any()


def test_placeholders_are_computed_again_and_the_store_says_which(tmp_path: Path) -> None:
    rows = [row | (PLACEHOLDER if row["strike"] <= 136 else {}) for row in LADDER]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    chain = stored(tmp_path / "store")
    computed = chain["strike"] <= 136
    assert computed.sum() == 4
    assert (chain["flags"] == np.where(computed, Flag.IV_COMPUTED | Flag.GREEKS_COMPUTED, 0)).all()
    true = bsm.greeks(SPOT, chain["strike"], 51 / 365, RATE, 0.0, IV, True)
    np.testing.assert_allclose(chain["put_iv"], IV, atol=1e-3)
    np.testing.assert_allclose(chain["delta"], true.delta, atol=1e-3)
    np.testing.assert_allclose(chain["vega"], true.vega, atol=1e-3)
    counts, info = done.counts["SPY"], done.partitions[0]
    assert (counts["placeholder_iv"], counts["iv_computed"], counts["greeks_computed"]) == (8, 4, 4)
    assert (info.quality["iv_computed"], info.quality["greeks_computed"]) == (4, 4)
    assert info.counts[DAY]["placeholder_iv"] == 8


def test_a_placeholder_that_no_quote_replaces_is_missing_rather_than_believed(tmp_path: Path) -> None:
    rows = [*LADDER, option("put", 100.0, bid=0.0, ask=0.05, **PLACEHOLDER), option("call", 100.0, **PLACEHOLDER)]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    found = at(stored(tmp_path / "store"), 100.0)
    assert np.isnan([found["put_iv"], *(found[name] for name in GREEKS)]).all()
    assert done.counts["SPY"]["without_greeks"] == 1


# ---------------------------------------------------------------------------------------------- rows


def test_call_and_put_of_a_strike_are_one_row(tmp_path: Path) -> None:
    done = ingest(write(tmp_path, LADDER[::-1]), tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert chain["strike"].tolist() == list(range(130, 151, 2))
    found = at(chain, 134.0)
    put = float(bsm.price(SPOT, 134.0, 51 / 365, RATE, 0.0, IV, False))
    assert (found["put_bid"], found["put_ask"]) == (pytest.approx(0.999 * put), pytest.approx(1.001 * put))
    assert found["call_bid"] > 6 and found["underlying"] == SPOT
    assert (found["call_volume"], found["put_open_interest"]) == (5, 7)
    own = bsm.greeks(SPOT, 134.0, 51 / 365, RATE, 0.0, IV, False)
    assert [found[name] for name in GREEKS] == pytest.approx(
        [1 + float(own.delta), float(own.gamma), float(own.theta), float(own.vega)], abs=1e-6)
    assert not chain["flags"].any(), "quotes, IVs and greeks are the vendor's"
    assert (done.counts["SPY"]["read"], done.counts["SPY"]["kept"], done.counts["SPY"]["strikes"]) == (22, 22, 11)


def test_a_strike_with_one_side_has_no_quote_on_the_other(tmp_path: Path) -> None:
    ingest(write(tmp_path, [*LADDER, option("put", 120.0)]), tmp_path / "store")
    found = at(stored(tmp_path / "store"), 120.0)
    assert np.isnan([found["call_bid"], found["call_ask"], found["call_iv"]]).all() and found["call_volume"] == -1
    assert found["flags"] & Flag.CALL_NO_ASK and 0.9 < found["delta"] < 1


@pytest.mark.parametrize("casts", [
    {}, {"date": pa.date32(), "expiration": pa.date32()},
    {"date": pa.timestamp("ns"), "expiration": pa.timestamp("us")},
    {"date": pa.large_string(), "expiration": pa.timestamp("ms", tz="UTC")},
    {"date": pa.dictionary(pa.int32(), pa.string()), "type": pa.dictionary(pa.int8(), pa.string())},
    {"strike": pa.float32(), "volume": pa.float64(), "open_interest": pa.string()},
], ids=["text", "dates", "timestamps", "large text and UTC", "dictionaries", "numbers"])
def test_dates_and_numbers_may_have_any_type(tmp_path: Path, casts) -> None:
    ingest(write(tmp_path, LADDER), tmp_path / "plain")
    ingest(write(tmp_path, LADDER, **casts), tmp_path / "store")
    plain, cast = (store.partition_path(tmp_path / name / "options_hist", "SPY", 2008) for name in ("plain", "store"))
    assert plain.read_bytes() == cast.read_bytes()


def test_dates_with_a_time_of_day_are_that_day(tmp_path: Path) -> None:
    ingest(write(tmp_path, [row | {"date": f"{DAY} 00:00:00"} for row in LADDER]), tmp_path / "store")
    assert set(stored(tmp_path / "store")["date"].astype(str)) == {DAY}


def test_saturday_expirations_are_settled_and_counted_on_the_friday(tmp_path: Path) -> None:
    done = ingest(write(tmp_path, both(*range(130, 151, 2), expiry="2008-11-22")), tmp_path / "store")
    assert set(stored(tmp_path / "store")["expiry"].astype(str)) == {"2008-11-21"}
    assert done.counts["SPY"]["expiry_moved"] == 22


def test_the_underlying_is_the_unadjusted_close_beside_the_file_or_what_the_quotes_imply(tmp_path: Path) -> None:
    ingest(write(tmp_path, LADDER, close=140.5), tmp_path / "store")
    assert set(stored(tmp_path / "store")["underlying"]) == {140.5}
    (tmp_path / "parquet_spy" / "underlying_prices.parquet").unlink()
    done = ingest(tmp_path / "parquet_spy", tmp_path / "alone")
    np.testing.assert_allclose(stored(tmp_path / "alone")["underlying"], SPOT, atol=1e-3)
    assert done.counts["SPY"]["underlying_implied"] == 11


def test_rows_of_a_holiday_and_rows_out_of_reason_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*LADDER, *both(140, day="2008-11-27"), option("put", 120.0, bid=-1.0), option("put", 118.0, ask=1e15),
            option("put", 116.0, expiry="2008-09-20"), option("put", 114.0, expiry="2009-12-18"),
            option("put", 112.0) | {"strike": 0.0}, *[option("put", 110.0)] * 2, option("put", 108.0),
            option("put", 108.0, bid=0.001)]
    done = ingest(write(tmp_path, rows), tmp_path / "store", max_dte=90)
    counts = done.counts["SPY"]
    dropped = {name.removeprefix("dropped_"): n for name, n in counts.items() if name.startswith("dropped_")}
    assert dropped == {"not_a_session": 2, "bad_price": 2, "expired": 1, "beyond_max_dte": 1, "bad_strike": 1,
                       "duplicate": 1, "contradictory": 2}
    assert counts["read"] == len(rows) == counts["kept"] + sum(dropped.values())
    assert done.partitions[0].sessions.astype(str).tolist() == [DAY]


def test_years_and_tickers_go_to_their_partitions_and_a_period_leaves_days_out(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for ticker, year in (("spy", 2008), ("spy", 2009), ("iwm", 2009)):
        rows = [row | {"symbol": ticker.upper()} for day in (f"{year}-10-01", f"{year}-10-02")
                for row in both(*range(130, 151, 2), day=day, expiry=f"{year}-11-20")]
        write(raw, rows, year, ticker)
    done = ingest(raw, tmp_path / "store", tickers=["SPY", "QQQ"], start="2008-10-02", end="2009-10-01")
    assert [(info.ticker, info.year, info.sessions.astype(str).tolist()) for info in done.partitions] == [
        ("SPY", 2008, ["2008-10-02"]), ("SPY", 2009, ["2009-10-01"])]
    assert done.files_without == {"QQQ": 0}
    assert "QQQ: no file of it" in quality.summary(done)
    assert ingest(raw, tmp_path / "later", start="2009-01-01").files_outside == 1, "2008 was a leap year"
    assert "no file of QQQ (there: IWM, SPY)" in refusal(raw, tmp_path / "none", tickers=["QQQ"])


def test_memory_is_bounded_by_the_batch_and_not_by_the_columns_that_are_not_read(tmp_path: Path, monkeypatch) -> None:
    """Rows come a batch at a time, whatever the row groups; `last`, `mark`, sizes and identifiers are never decoded."""
    monkeypatch.setattr(store, "BATCH", 4)
    seen: list[tuple[int, tuple[str, ...]]] = []
    original = pq.ParquetFile.iter_batches

    def recorded(self: pq.ParquetFile, size: int, columns: list[str], **more: object):
        for batch in original(self, size, columns=columns, **more):
            seen.append((batch.num_rows, tuple(columns)))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    ingest(write(tmp_path, LADDER), tmp_path / "store")
    assert len(stored(tmp_path / "store")["strike"]) == 11
    assert max(rows for rows, _ in seen) <= 4
    assert not {name for _, columns in seen for name in columns} & {"contract_id", "last", "mark", "bid_size", "rho",
                                                                   "in_the_money", "adjusted_close"}


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("cells", "words"), [
    ({"symbol": "QQQ"}, "row 23 column symbol must be SPY as in the first row, got 'QQQ'"),
    ({"type": "C"}, "row 23 column type must be call or put, got 'C'"),
    ({"date": "2009-01-02"}, "row 23 column date must be a date of 2008 as in the file's name, got '2009-01-02'"),
    ({"date": None}, "row 23 column date must be a date of 2008"),
    ({"expiration": None}, "row 23 column expiration must be a date"),
    ({"date": "01/02/2008"}, "column date must be a date, it is string"),
])
def test_a_row_that_cannot_be_of_its_file_is_refused_by_name(tmp_path: Path, cells, words) -> None:
    path = write(tmp_path, [*LADDER, option("put", 120.0) | cells])
    message = refusal(path, tmp_path / "store")
    assert str(path) in message and words in message, message


def test_foreign_damaged_and_misnamed_files_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:78ac\nsize 7562100\n"
    for data in (whole[:len(whole) // 2], b"PAR1", b"", pointer):
        path.write_bytes(data)
        message = refusal(path, tmp_path / "store")
        assert str(path) in message and "cannot be read as Parquet" in message
    pq.write_table(pa.table({"symbol": ["SPY"], "date": [DAY]}), path)
    assert "lacks the columns strike" in refusal(path, tmp_path / "store")
    pq.write_table(pa.table({"symbol": pa.array([], pa.string())}), path)
    assert "has no row" in refusal(path, tmp_path / "store")
    write(tmp_path, LADDER, strike=pa.string())
    pq.write_table(pq.read_table(path).set_column(3, "strike", pa.array(["x"] * 22)), path)
    assert "column strike must be a number, it is string" in refusal(path, tmp_path / "store")
    write(tmp_path, LADDER, date=pa.string())
    pq.write_table(pq.read_table(path).drop(["date"]).append_column("date", pa.array([20080101] * 22)), path)
    assert "column date must be a date, it is int64" in refusal(path, tmp_path / "store")
    path.write_bytes(whole)
    other = path.rename(path.with_name("spy.parquet"))
    assert "must be like options_2024.parquet" in refusal(other, tmp_path / "store")


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_reads_a_folder_and_says_what_it_left_out_and_computed(tmp_path: Path) -> None:
    rows = [row | (PLACEHOLDER if row["strike"] <= 136 else {}) for row in LADDER]
    write(tmp_path, [*rows, option("put", 120.0, bid=-1.0)])
    mahler = str(Path(sys.executable).with_name("mahler"))
    done = subprocess.run([mahler, "ingest", "data=options_hist", f"data.path={tmp_path}", "data.workers=1"],
                          env=os.environ | {"MAHLER_HOME": str(tmp_path / "home")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "SPY: 22 of 23 rows kept; left out: 1 bad price" in said
    assert "8 placeholder iv" in said and "4 greeks computed" in said
    assert len(stored(tmp_path / "home" / "data" / "chains")["strike"]) == 11
