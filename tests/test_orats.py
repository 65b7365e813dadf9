"""ORATS near-EOD files: every trap of the format, by name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mahler.data import files, orats, store
from mahler.data.files import DROPPED, Ingested, Progress
from mahler.schema import ConfigError, Flag, Table

COLUMNS_39 = ("ticker,cOpra,pOpra,stkPx,expirDate,yte,strike,cVolu,cOi,pVolu,pOi,cBidPx,cValue,cAskPx,pBidPx,pValue,"
              "pAskPx,cBidIv,cMidIv,cAskIv,smoothSmvVol,pBidIv,pMidIv,pAskIv,iRate,divRate,residualRateData,delta,"
              "gamma,theta,vega,rho,phi,driftlessTheta,extVol,extCTheo,extPTheo,spot_px,trade_date").split(",")
COLUMNS_37 = [name for name in COLUMNS_39 if name not in ("cOpra", "pOpra")]
COLUMNS_36 = [name for name in COLUMNS_37 if name != "cMidIv"]

PLAIN = dict(ticker="SPY", stkPx="468.79", expirDate="2/16/2024", yte="0.12055", strike="450", cVolu="10", cOi="20",
             pVolu="30", pOi="40", cBidPx="21.5", cValue="21.6", cAskPx="21.7", pBidPx="2.1", pValue="2.15",
             pAskPx="2.2", cBidIv="0.14", cMidIv="0.15", cAskIv="0.16", smoothSmvVol="0.151", pBidIv="0.15",
             pMidIv="0.16", pAskIv="0.17", iRate="0.053", divRate="0", residualRateData="0.001", delta="0.82",
             gamma="0.01", theta="-0.05", vega="0.4", rho="0.1", phi="-0.1", driftlessTheta="-0.04", extVol="0.15",
             extCTheo="21.6", extPTheo="2.15", spot_px="", trade_date="1/3/2024")

SPX = ("SPX,2125.24,8/7/2015,0.05753,2185,107,1032,0,0,0.7,1,0.9,58.1,62.26,65.3,0.0706283,0.07246,0.0742882,0.0760111,"
       ",,0.109708,0.00013,0.0213,-0.00862239,0.06017066,0.00309224,-0.1061186,0.58755839,0.07,-0.07,-0.1,0.0761,"
       "1,62.2,2124.29,7/17/2015")


def csv_text(rows: Iterable[dict[str, str]], columns: list[str] = COLUMNS_39, end: str = "\n") -> str:
    """A day's file: each row is PLAIN with other cells; columns that PLAIN lacks (OPRA codes) are filled."""
    lines, rows = [",".join(columns)], [{"yte": yte(PLAIN | row)} | row for row in rows]
    lines += [",".join((PLAIN | row).get(name, "SPY240216C00450000") for name in columns) for row in rows]
    return end.join(lines) + end


def yte(row: dict[str, str]) -> str:
    """Days to expiration / 365, as the vendor rounds it; that of PLAIN where a date is none."""
    try:
        first, last = (datetime.strptime(row[name], "%m/%d/%Y") for name in ("trade_date", "expirDate"))
    except ValueError:
        return PLAIN["yte"]
    return f"{(last - first).days / 365:.5f}"


def write_csv(folder: Path, *rows: dict[str, str], day: str = "20240103", columns: list[str] = COLUMNS_39,
              end: str = "\n") -> Path:
    path = folder / f"ORATS_SMV_Strikes_{day}.csv"
    path.write_bytes(csv_text(rows, columns, end).encode())
    return path


def write_zip(folder: Path, *rows: dict[str, str], day: str = "20240103", columns: list[str] = COLUMNS_39) -> Path:
    path = folder / f"ORATS_SMV_Strikes_{day}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"ORATS_SMV_Strikes_{day}.csv", csv_text(rows, columns))
    return path


def silent(done: int, total: int, label: str) -> None:
    """No progress bar."""


def ingest(path: Path | None, root: Path, progress: Progress = silent, **options: object) -> Ingested:
    defaults = dict(tickers=["SPY", "QQQ", "IWM"], start=None, end=None, max_dte=None, aliases={"QQQQ": "QQQ"},
                    workers=1)
    return orats.ingest(root, progress, path=path, **(defaults | options))


def stored(root: Path, ticker: str = "SPY", year: int = 2024) -> Table:
    return store.read_partition(store.partition_path(root / "orats", ticker, year))


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Table]:
    """Ingest rows as one zipped day and read them back."""
    def through(*rows: dict[str, str], columns: list[str] = COLUMNS_39) -> Table:
        ingest(write_zip(tmp_path, *rows, columns=columns), tmp_path / "store")
        return stored(tmp_path / "store")
    return through


def refusal(path: Path, root: Path, **options: object) -> str:
    """The one line with which an ingest is refused; nothing may have been written."""
    with pytest.raises(ConfigError) as error:
        ingest(path, root, **options)
    assert "\n" not in str(error.value)
    assert not list(root.rglob("*.parquet"))
    return str(error.value)


# ---------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("columns", [COLUMNS_36, COLUMNS_37, COLUMNS_39, COLUMNS_39[::-1]],
                         ids=["36", "37", "39", "39 reversed"])
def test_columns_are_read_by_name_whatever_their_number_and_order(read, columns) -> None:
    chain = read({}, {"strike": "455", "ticker": "SPYX"}, columns=columns)
    row = {name: column[0] for name, column in chain.items()}
    assert len(chain["strike"]) == 1
    assert (str(row["date"]), str(row["expiry"]), row["strike"]) == ("2024-01-03", "2024-02-16", 450.0)
    assert (row["call_bid"], row["call_ask"], row["put_bid"], row["put_ask"]) == (21.5, 21.7, 2.1, 2.2)
    assert (row["call_volume"], row["call_open_interest"]) == (10, 20)
    assert (row["put_volume"], row["put_open_interest"]) == (30, 40)
    assert row["underlying"] == 468.79
    greeks = [row[name] for name in ("call_iv", "put_iv", "smooth_iv", "delta", "gamma", "theta", "vega")]
    assert greeks == pytest.approx([0.15, 0.16, 0.151, 0.82, 0.01, -0.05, 0.4])
    assert row["flags"] == 0


def test_the_spx_row_of_2015_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "ORATS_SMV_Strikes_20150717.csv"
    path.write_text(",".join(COLUMNS_37) + "\n" + SPX + "\n")
    ingest(path, tmp_path / "store", tickers=["SPX"])
    row = {name: column[0] for name, column in stored(tmp_path / "store", "SPX", 2015).items()}
    assert (row["expiry"] - row["date"]).astype(int) == 21                  # yte 0.05753 x 365
    assert (row["call_bid"], row["call_ask"]) == (0.7, 0.9)                  # its value, 1, lies above its ask
    assert (row["put_bid"], row["put_ask"]) == (58.1, 65.3)
    assert row["call_iv"] == np.float32(0.07246)
    assert np.isnan(row["put_iv"])                                           # pBidIv and pMidIv are empty
    assert (row["delta"], row["vega"]) == (np.float32(0.06017066), np.float32(0.58755839))
    assert row["underlying"] == 2124.29                                      # an index: stkPx is a forward


def test_without_a_mid_iv_column_the_mid_is_the_mean_of_bid_and_ask_where_both_are(read) -> None:
    chain = read({"strike": "440"}, {"strike": "450", "cBidIv": "0"}, {"strike": "460", "cAskIv": ""},
                 columns=COLUMNS_36)
    np.testing.assert_array_equal(chain["call_iv"], np.array([0.15, np.nan, np.nan], np.float32))


def test_both_date_formats_are_read(tmp_path: Path) -> None:
    write_csv(tmp_path, {"expirDate": "2024-02-16", "trade_date": "2024-01-03"},
              {"expirDate": "02/16/2024", "strike": "460"})
    ingest(tmp_path, tmp_path / "store")
    assert stored(tmp_path / "store")["expiry"].astype(str).tolist() == ["2024-02-16"] * 2


def test_what_is_not_read_may_be_garbage(read) -> None:
    """The ext columns, yte, divRate and the rows of other tickers."""
    chain = read({"extVol": "1e15", "extCTheo": "garbage", "extPTheo": "-inf", "yte": "99", "divRate": "-7"},
                 {"ticker": "AAPL", "strike": "none", "cBidPx": "?", "trade_date": "yesterday"})
    assert chain["strike"].tolist() == [450.0]


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("spot_px", ["", "0"])
def test_the_underlying_of_an_etf_is_stkpx_because_spot_px_is_blank_or_zero(read, spot_px) -> None:
    assert read({"spot_px": spot_px})["underlying"].tolist() == [468.79]


def test_an_iv_of_zero_or_an_empty_one_is_missing(read) -> None:
    chain = read({"cMidIv": "0", "pMidIv": "", "smoothSmvVol": "0", "cBidPx": "0", "cBidIv": "0"})
    assert np.isnan([chain["call_iv"][0], chain["put_iv"][0], chain["smooth_iv"][0]]).all()
    assert chain["call_bid"].tolist() == [0.0], "a bid of zero is a bid, not a missing one"


def test_the_capped_iv_is_kept_and_what_is_above_the_cap_is_missing_and_counted(tmp_path: Path) -> None:
    write_csv(tmp_path, {"cMidIv": "9.999999", "pMidIv": "1e15"})
    done = ingest(tmp_path, tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert chain["call_iv"][0] == np.float32(9.999999)
    assert np.isnan(chain["put_iv"][0])
    assert done.counts["SPY"]["put_iv_out_of_range"] == 1


def test_delta_just_above_one_and_gamma_just_below_zero_are_clamped_and_flagged(read) -> None:
    chain = read({"delta": "1.0000000000000133", "gamma": "-0.000001"}, {"strike": "460"})
    assert (chain["delta"][0], chain["gamma"][0]) == (1.0, 0.0)
    assert chain["flags"].tolist() == [Flag.GREEKS_CLAMPED, 0]


def test_greeks_out_of_reason_are_missing_and_counted_and_the_quotes_stay(tmp_path: Path) -> None:
    write_csv(tmp_path, {"delta": "1e15", "gamma": "-5", "theta": "1e15", "vega": ""})
    done = ingest(tmp_path, tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert np.isnan([chain[name][0] for name in ("delta", "gamma", "theta", "vega")]).all()
    assert chain["put_bid"].tolist() == [2.1]
    assert [done.counts["SPY"][f"{name}_out_of_range"] for name in ("delta", "gamma", "theta")] == [1, 1, 1]


def test_zero_bids_crossed_quotes_and_asks_of_zero_are_kept_and_flagged(read) -> None:
    chain = read({"strike": "440", "pBidPx": "0"}, {"strike": "450", "pBidPx": "2.3"},
                 {"strike": "460", "cBidPx": "0", "cAskPx": "0"})
    assert chain["flags"].tolist() == [0, Flag.PUT_CROSSED, Flag.CALL_NO_ASK]
    assert chain["put_bid"].tolist() == [0.0, 2.3, 2.1]


def test_an_empty_quote_is_missing_not_zero(read) -> None:
    chain = read({"cBidPx": "", "cAskPx": ""})
    assert np.isnan([chain["call_bid"][0], chain["call_ask"][0]]).all()
    assert chain["flags"].tolist() == [Flag.CALL_NO_ASK]


@pytest.mark.parametrize("text", ["", "-3", "12.5", "1e15"])
def test_a_volume_that_is_no_number_of_contracts_is_missing_and_counted(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path, {"pVolu": text})
    done = ingest(tmp_path, tmp_path / "store")
    assert stored(tmp_path / "store")["put_volume"].tolist() == [-1]
    assert done.counts["SPY"]["put_volume_missing"] == 1


def test_a_saturday_expiration_counts_and_settles_on_the_friday(tmp_path: Path) -> None:
    write_csv(tmp_path, {"trade_date": "1/3/2012", "expirDate": "1/21/2012"}, {"trade_date": "1/3/2012",
              "expirDate": "1/28/2012"}, day="20120103")
    ingest(tmp_path, tmp_path / "store", max_dte=17)                        # 18 days to the Saturday, 17 to the Friday
    chain = stored(tmp_path / "store", year=2012)
    assert chain["expiry"].astype(str).tolist() == ["2012-01-20"]


def test_qqqq_is_qqq_on_days_that_have_no_qqq(tmp_path: Path) -> None:
    write_csv(tmp_path, {"ticker": "QQQQ", "trade_date": "3/22/2011", "expirDate": "4/15/2011"}, day="20110322")
    write_csv(tmp_path, {"ticker": "QQQQ", "trade_date": "3/24/2011", "expirDate": "4/15/2011", "cBidPx": "1"},
              {"ticker": "QQQ", "trade_date": "3/24/2011", "expirDate": "4/15/2011"}, day="20110324")
    done = ingest(tmp_path, tmp_path / "store")
    chain = stored(tmp_path / "store", "QQQ", 2011)
    assert chain["date"].astype(str).tolist() == ["2011-03-22", "2011-03-24"]
    assert chain["call_bid"].tolist() == [21.5, 21.5]
    assert done.counts["QQQ"] == {"read": 2, "kept": 2, "alias_rows_unused": 1}


def test_days_to_expiration_that_the_vendor_counts_otherwise_are_counted(tmp_path: Path) -> None:
    """`yte` is never used: it may be missing, or garbage, or a day off."""
    write_csv(tmp_path, {}, {"strike": "455", "yte": "0.12329"}, {"strike": "460", "yte": ""},
              {"strike": "465", "yte": "n/a"}, {"strike": "470", "yte": "1e400"})
    done = ingest(tmp_path, tmp_path / "store")
    assert done.counts["SPY"] == {"read": 5, "kept": 5, "dte_mismatch": 2}
    assert np.unique(stored(tmp_path / "store")["expiry"]).astype(str).tolist() == ["2024-02-16"]


def test_saturday_expirations_are_counted_where_they_are_moved(tmp_path: Path) -> None:
    write_csv(tmp_path, {"trade_date": "1/3/2012", "expirDate": "1/21/2012"}, {"trade_date": "1/3/2012",
              "expirDate": "1/27/2012"}, day="20120103")
    assert ingest(tmp_path, tmp_path / "store").counts["SPY"]["expiry_moved"] == 1


# ---------------------------------------------------------------------------------------------- dropped rows


@pytest.mark.parametrize(("cells", "reason"), [
    ({"pBidPx": "-0.1"}, "bad_price"), ({"cAskPx": "1e15"}, "bad_price"), ({"cAskPx": "inf"}, "bad_price"),
    ({"strike": ""}, "bad_strike"), ({"strike": "nan"}, "bad_strike"), ({"strike": "0"}, "bad_strike"),
    ({"strike": "1e15"}, "bad_strike"), ({"stkPx": "0"}, "bad_underlying"), ({"stkPx": "1e15"}, "bad_underlying"),
    ({"stkPx": ""}, "bad_underlying"), ({"expirDate": "1/2/2024"}, "expired"), ({"expirDate": "1/2/1024"}, "expired"),
    ({"expirDate": "6/21/2024"}, "beyond_max_dte"),
])
def test_a_row_out_of_reason_is_left_out_and_counted(tmp_path: Path, cells: dict[str, str], reason: str) -> None:
    write_csv(tmp_path, {"strike": "455"}, cells)
    done = ingest(tmp_path, tmp_path / "store", max_dte=90)
    assert stored(tmp_path / "store")["strike"].tolist() == [455.0]
    assert done.counts["SPY"] == {"read": 2, "kept": 1, f"{DROPPED}{reason}": 1}
    info = store.partition_info(store.partition_path(tmp_path / "store" / "orats", "SPY", 2024))
    assert info.counts == {"2024-01-03": done.counts["SPY"]}


def test_a_row_whose_underlying_is_not_of_its_day_is_left_out_and_counted(tmp_path: Path) -> None:
    """Forwards of an index differ from one expiry to the next, but not by half."""
    rows = [{"strike": str(strike)} for strike in range(470, 480)]
    rows[0]["stkPx"], rows[1]["stkPx"] = "46.879", "520.1"
    rows.append({"strike": "480", "stkPx": "1.797e307"})
    done = ingest(write_csv(tmp_path, *rows), tmp_path / "store")
    assert (done.counts["SPY"]["kept"], done.counts["SPY"]["dropped_bad_underlying"]) == (9, 2)


def test_of_identical_rows_one_stays_and_of_contradictory_rows_none(tmp_path: Path) -> None:
    write_csv(tmp_path, {}, {}, {"pMidIv": ""}, {"strike": "455", "pMidIv": ""}, {"strike": "455", "pMidIv": ""},
              {"strike": "460"}, {"strike": "460", "pBidPx": "2.0"}, {"strike": "465"})
    done = ingest(tmp_path, tmp_path / "store")
    assert stored(tmp_path / "store")["strike"].tolist() == [455.0, 465.0]
    assert done.counts["SPY"] == {"read": 8, "kept": 2, "dropped_duplicate": 1, "dropped_contradictory": 5}


# ---------------------------------------------------------------------------------------------- refused files


@pytest.mark.parametrize(("cells", "words"), [
    ({"pBidPx": "2,1"}, ("row 4", "columns")),
    ({"pBidPx": "abc"}, ("row 4", "column pBidPx", "a number", "'abc'")),
    ({"cOi": "1_000"}, ("row 4", "column cOi", "a number", "'1_000'")),
    ({"delta": "0.5x"}, ("row 4", "column delta", "a number", "'0.5x'")),
    ({"expirDate": "16.2.2024"}, ("row 4", "column expirDate", "a date", "'16.2.2024'")),
    ({"expirDate": "13/45/2024"}, ("row 4", "column expirDate", "a date")),
    ({"expirDate": ""}, ("row 4", "column expirDate", "a date", "''")),
    ({"trade_date": "1/4/2024"}, ("row 4", "column trade_date", "2024-01-03 as in the file's name", "'1/4/2024'")),
])
def test_what_cannot_be_parsed_is_refused_with_file_row_and_column(tmp_path: Path, cells, words) -> None:
    path = write_zip(tmp_path, {"ticker": "AAPL"}, {"strike": "440"}, cells)
    message = refusal(path, tmp_path / "store")
    assert all(word in message for word in (str(path), *words)), message


@pytest.mark.parametrize("missing", ["stkPx", "strike", "delta", "trade_date", "pBidPx"])
def test_a_missing_column_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    path = write_csv(tmp_path, {}, columns=[name for name in COLUMNS_39 if name != missing])
    assert refusal(path, tmp_path / "store").endswith(f"lacks the columns {missing}: not a near-EOD file of ORATS")


def test_a_web_page_saved_as_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ORATS_SMV_Strikes_20240103.csv"
    path.write_text("<html><body>Access denied</body></html>")
    assert "not a near-EOD file of ORATS" in refusal(path, tmp_path / "store")
    path.write_bytes(b"")
    assert "not a near-EOD file of ORATS" in refusal(path, tmp_path / "store")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, {}, columns=[*COLUMNS_39, "delta"])
    assert "has the columns delta twice" in refusal(path, tmp_path / "store")


def test_a_file_without_a_day_in_its_name_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, {}).rename(tmp_path / "strikes.csv")
    assert "strikes.csv has no day in its name" in refusal(path, tmp_path / "store")
    path = path.rename(tmp_path / "strikes_20241345.csv")
    assert "strikes_20241345.csv has no day in its name" in refusal(path, tmp_path / "store")


def test_a_day_without_a_session_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, {"trade_date": "1/6/2024"}, day="20240106")
    assert "2024-01-06 is not a session of XNYS" in refusal(path, tmp_path / "store")


def test_a_zip_without_exactly_one_csv_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path, {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.csv", "a,b\n")
    assert "must hold one CSV, it holds 2" in refusal(path, tmp_path / "store")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "must hold one CSV, it holds 0" in refusal(path, tmp_path / "store")


def test_a_truncated_or_damaged_zip_is_refused_by_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path, *({"strike": f"{k}"} for k in range(300, 600)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path} cannot be read" in refusal(path, tmp_path / "store")
    path.write_bytes(whole[:200] + bytes(b ^ 0x55 for b in whole[200:400]) + whole[400:])
    assert f"{path} cannot be read" in refusal(path, tmp_path / "store")


def test_a_zip_that_says_it_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch) -> None:
    path = write_zip(tmp_path, {})
    monkeypatch.setattr(orats, "MAX_BYTES", 100)
    monkeypatch.setattr(orats, "_lines_of", lambda *arguments: pytest.fail("it was read"))
    assert "at most 100 are read" in refusal(path, tmp_path / "store")


def test_a_zip_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path, *({"strike": f"{k}"} for k in range(300, 600)))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24                    # the uncompressed size in the central directory
    data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert f"{path} cannot be read" in refusal(path, tmp_path / "store")


def test_a_csv_that_is_too_large_or_one_endless_line_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = write_csv(tmp_path, *({"strike": f"{k}"} for k in range(300, 600)))
    monkeypatch.setattr(orats, "MAX_BYTES", 10_000)
    assert "is larger than 10,000 bytes" in refusal(path, tmp_path / "store")
    monkeypatch.undo()
    path.write_bytes((",".join(COLUMNS_39) + "\n").encode() + b"SPY," * 200_000)
    assert "has a line of more than 65,536 bytes" in refusal(path, tmp_path / "store")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path, {})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1               # the flag that says so
    path.write_bytes(data)
    assert "is encrypted" in refusal(path, tmp_path / "store")


def test_no_path_no_file_and_no_row_are_refused_with_what_is_wanted(tmp_path: Path) -> None:
    assert "data.path is required" in refusal(None, tmp_path / "store")
    assert "has no *.zip or *.csv" in refusal(tmp_path / "nowhere", tmp_path / "store")
    write_csv(tmp_path, {"ticker": "AAPL"})
    assert "none of 1 orats files has a row of SPY, QQQ, IWM" in refusal(tmp_path, tmp_path / "store")
    assert "none of 1 orats files is of a day from 2020-01-01 to 2020-12-31" in refusal(
        tmp_path, tmp_path / "store", start="2020-01-01", end="2020-12-31")


def test_two_files_of_a_day_are_refused_by_name(tmp_path: Path) -> None:
    one, other = write_csv(tmp_path, {}), write_zip(tmp_path, {})
    assert refusal(tmp_path, tmp_path / "store") == f"{one} and {other} both hold SPY on 2024-01-03: keep one"


# ---------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("chunk", [7, 300, 1000, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_lines_of_a_ticker_are_found_wherever_a_chunk_ends(tmp_path: Path, monkeypatch, chunk, end) -> None:
    monkeypatch.setattr(orats, "CHUNK", chunk)
    rows = [{"ticker": ticker, "strike": f"{strike}"} for ticker in ("SPX", "SPY", "SPYX", "ASPY", "QQQ", "AAPL", "SPY")
            for strike in range(400, 405)]
    rows = [row | {"strike": f"{400 + i}"} for i, row in enumerate(rows)]
    path = write_csv(tmp_path, *rows, end=end)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip())          # a byte order mark, no line end at the end
    done = ingest(path, tmp_path / "store")
    assert stored(tmp_path / "store")["strike"].tolist() == [405, 406, 407, 408, 409, 430, 431, 432, 433, 434]
    assert done.counts["QQQ"]["kept"] == 5
    assert done.files_without == {"IWM": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(column=st.sampled_from(["stkPx", "expirDate", "strike", "cOi", "pBidPx", "cAskPx", "pMidIv", "delta", "gamma",
                               "spot_px", "trade_date"]),
       text=st.one_of(st.floats().map(repr), st.integers().map(str), st.text("0123456789.-+eE/ naif", max_size=12)))
def test_any_text_in_a_cell_is_refused_in_one_line_or_read_or_counted(tmp_path_factory, column: str, text: str) -> None:
    folder = tmp_path_factory.mktemp("orats")
    write_csv(folder, {"strike": "455"}, {column: text})
    try:
        done = ingest(folder, folder / "store")
    except ConfigError as error:
        assert column in str(error) and "\n" not in str(error)
        return
    counts, chain = done.counts["SPY"], stored(folder / "store")
    assert counts["read"] == 2 == counts["kept"] + sum(n for name, n in counts.items() if name.startswith(DROPPED))
    assert len(chain["strike"]) == counts["kept"]
    assert ((chain["underlying"] > 0) & (chain["underlying"] < 1e6) & (chain["strike"] < 1e6)).all()
    assert not ((chain["delta"] < 0) | (chain["delta"] > 1) | (chain["put_bid"] < 0)).any()


# ---------------------------------------------------------------------------------------------- ingest


def days(folder: Path, n: int, **cells: str) -> None:
    """The first `n` (at most 8) sessions of January 2024, a file each."""
    for day in ("02", "03", "04", "05", "08", "09", "10", "11")[:n]:
        write_zip(folder, {"trade_date": f"1/{int(day)}/2024"} | cells, day=f"202401{day}")


def all_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_files_twice_leave_the_same_bytes(tmp_path: Path) -> None:
    days(tmp_path, 3)
    ingest(tmp_path, tmp_path / "store")
    before = all_bytes(tmp_path / "store")
    ingest(tmp_path, tmp_path / "store")
    assert all_bytes(tmp_path / "store") == before
    ingest(tmp_path / "ORATS_SMV_Strikes_20240103.zip", tmp_path / "store")
    assert all_bytes(tmp_path / "store") == before


def test_days_ingested_one_by_one_are_the_days_ingested_together(tmp_path: Path) -> None:
    days(tmp_path, 3)
    for path in sorted(tmp_path.glob("*.zip"), reverse=True):
        ingest(path, tmp_path / "one by one")
    ingest(tmp_path / "ORATS*.zip", tmp_path / "together")
    assert all_bytes(tmp_path / "one by one") == all_bytes(tmp_path / "together")
    assert list(all_bytes(tmp_path / "together")) == ["orats/ticker=SPY/year=2024.parquet"]


def test_a_day_that_is_read_again_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    days(tmp_path, 3)
    ingest(tmp_path, tmp_path / "store")
    ingest(write_zip(tmp_path, {"pBidPx": "2.0"}), tmp_path / "store")
    assert stored(tmp_path / "store")["put_bid"].tolist() == [2.1, 2.0, 2.1]


def test_several_processes_write_what_one_writes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "WORTH_A_POOL", 0.0)
    days(tmp_path, 6)
    seen = []
    ingest(tmp_path, tmp_path / "two", lambda *args: seen.append(args), workers=2)
    ingest(tmp_path, tmp_path / "one")
    assert all_bytes(tmp_path / "two") == all_bytes(tmp_path / "one")
    assert [(done, total) for done, total, _ in seen] == [(i, 6) for i in range(1, 7)]
    assert seen[-1][2] == "orats 2024-01-09"


def test_a_bad_file_among_several_is_refused_by_name_from_another_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "WORTH_A_POOL", 0.0)
    days(tmp_path, 5)
    bad = write_zip(tmp_path, {"pBidPx": "abc"})
    assert f"{bad}: row 2 column pBidPx" in refusal(tmp_path, tmp_path / "store", workers=2)


def test_years_are_partitions_and_folders_are_searched(tmp_path: Path) -> None:
    for year, day in ((2023, "1229"), (2024, "0103")):
        (tmp_path / f"{year}").mkdir()
        write_zip(tmp_path / f"{year}", {"trade_date": f"{int(day[:2])}/{int(day[2:])}/{year}"}, day=f"{year}{day}")
    done = ingest(tmp_path, tmp_path / "store")
    assert [info.year for info in done.partitions] == [2023, 2024]
    chain = store.scan(done.root, ["SPY"], None, None)["SPY"]
    assert chain.contract_start.tolist() == [0, 2], "one contract, on both sides of the year"


def test_only_days_of_the_period_are_read(tmp_path: Path) -> None:
    days(tmp_path, 4)
    done = ingest(tmp_path, tmp_path / "store", start="2024-01-03", end="2024-01-04")
    assert (done.files, done.files_outside) == (2, 2)
    assert np.unique(stored(tmp_path / "store")["date"]).astype(str).tolist() == ["2024-01-03", "2024-01-04"]


def test_days_of_another_max_dte_do_not_join_a_partition_unless_they_replace_it(tmp_path: Path) -> None:
    days(tmp_path, 2)
    ingest(tmp_path, tmp_path / "store", max_dte=60)
    with pytest.raises(ConfigError, match="year=2024.parquet holds 1 other days with data.max_dte=60"):
        ingest(tmp_path / "ORATS_SMV_Strikes_20240103.zip", tmp_path / "store", max_dte=90)
    done = ingest(tmp_path, tmp_path / "store", max_dte=90)
    assert done.partitions[0].max_dte == 90
