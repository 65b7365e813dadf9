"""The quality report: each check on a chain whose fault a reader can count."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mahler.data import quality, store
from mahler.data.calendar import sessions
from mahler.data.files import Ingested
from mahler.schema import CHAIN, ConfigError, Flag, Table, empty

DAY = "2024-01-03"


def sound_chain(*days: str, spot: float = 100.0) -> Table:
    """Five strikes around 100 on each day, quoted so that parity holds with a forward of `spot`."""
    strikes = np.array([96.0, 98.0, 100.0, 102.0, 104.0])
    n = len(days) * len(strikes)
    chain = empty(CHAIN, n)
    chain["date"] = np.repeat(np.array(days, "datetime64[D]"), len(strikes))
    chain["expiry"][:] = np.datetime64("2026-02-20")
    chain["strike"] = np.tile(strikes, len(days))
    put = 6.0 + (chain["strike"] - spot) / 2
    call = put + spot - chain["strike"]
    for side, value in (("call", call), ("put", put)):
        chain[f"{side}_bid"], chain[f"{side}_ask"] = value - 0.1, value + 0.1
    chain["delta"] = 0.5 - (chain["strike"] - spot) / 40
    chain["underlying"][:] = spot
    return chain


def write(root: Path, chain: Table, ticker: str = "SPY", counts: store.Counts | None = None) -> None:
    years = chain["date"].astype("datetime64[Y]")
    for year in np.unique(years):
        part = {name: column[years == year] for name, column in chain.items()}
        store.write_partition(root, ticker, int(str(year)), part, source="test", max_dte=None, start=part["date"].min(),
                              end=part["date"].max(), counts=counts)


def checked(root: Path, chain: Table, **more) -> dict[str, float]:
    write(root, chain, **more)
    table = quality.report(root, ["SPY"]).table
    assert len(table["year"]) == 1
    return {name: column[0] for name, column in table.items()}


def test_a_sound_chain_has_nothing_out_of_the_usual(tmp_path: Path) -> None:
    row = checked(tmp_path, sound_chain(DAY, "2024-01-04"))
    assert (row["ticker"], row["year"], row["rows"]) == ("SPY", 2024, 10)
    assert (row["sessions"], row["sessions_missing"]) == (2, 0)
    assert row["parity_95"] == pytest.approx(0, abs=1e-12)
    assert row["delta_ordered_share"] == 1
    assert [row[f"{name}_share"] for name in ("crossed", "no_ask", "zero_bid", "no_delta", "expiry_moved")] == [0] * 5
    assert np.isnan(row["dropped_share"]), "the source did not say how many rows it read"
    assert quality.verdict(quality.report(tmp_path, ["SPY"])) == "test, SPY, 2024, 10 rows: nothing out of the usual"


def test_crossed_quotes_missing_asks_and_zero_bids_are_shares_of_two_quotes_a_row(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["call_bid"][0] = chain["call_ask"][0] + 1
    chain["put_ask"][1], chain["put_bid"][1] = 0.0, 0.0
    chain["put_bid"][2:4] = 0.0
    row = checked(tmp_path, chain)
    assert (row["crossed_share"], row["no_ask_share"], row["zero_bid_share"]) == (0.1, 0.1, 0.3)


def test_a_put_that_is_a_dollar_off_parity_is_a_hundredth_of_the_forward(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["put_bid"][0] += 1.0
    chain["put_ask"][0] += 1.0
    row = checked(tmp_path, chain)
    assert row["parity_median"] == pytest.approx(0, abs=1e-12)
    assert row["parity_95"] == pytest.approx(0.008)         # between the largest residual, 0.01, and the next, 0


def test_one_step_of_four_at_which_delta_rises(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["delta"][2] = chain["delta"][1] + 0.01
    row = checked(tmp_path, chain)
    assert row["delta_ordered_share"] == 0.75
    assert "delta rising with strike 25.0% (SPY 2024)" in quality.verdict(quality.report(tmp_path, ["SPY"]))


def test_delta_is_ordered_within_an_expiry_of_a_day_not_across(tmp_path: Path) -> None:
    chain = sound_chain(DAY, "2024-01-04")
    chain["delta"][5:] += np.float32(0.1)
    assert checked(tmp_path, chain)["delta_ordered_share"] == 1


def test_sessions_are_missing_against_the_calendar_between_first_and_last_day(tmp_path: Path) -> None:
    days = [str(day) for day in sessions("2023-12-28", "2024-01-10") if str(day) not in ("2024-01-02", "2024-01-05")]
    write(tmp_path, sound_chain(*days))
    report = quality.report(tmp_path, ["SPY"])
    assert report.table["year"].tolist() == [2023, 2024]
    assert report.table["sessions"].tolist() == [2, 5]
    assert report.table["sessions_missing"].tolist() == [0, 2]
    assert quality.verdict(report).endswith("rows: sessions missing 2 (SPY 2024)")


def test_a_year_without_a_partition_is_a_row_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2022-12-30", "2024-01-02"))
    table = quality.report(tmp_path, ["SPY"]).table
    assert table["year"].tolist() == [2022, 2023, 2024]
    assert table["rows"].tolist() == [5, 0, 5]
    assert table["sessions_missing"].tolist() == [0, 250, 0]
    assert np.isnan(table["parity_95"][1])


def test_expirations_on_a_saturday_are_counted(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["expiry"][:2] = np.datetime64("2026-02-21")
    assert checked(tmp_path, chain)["expiry_moved_share"] == 0.4


def test_rows_left_out_at_ingest_are_a_share_of_those_read_and_named_by_reason(tmp_path: Path) -> None:
    counts = {DAY: {"read": 8, "kept": 5, "dropped_expired": 2, "dropped_bad_price": 1, "greeks_clamped": 1}}
    row = checked(tmp_path, sound_chain(DAY), counts=counts)
    assert row["dropped_share"] == 3 / 8
    assert quality.report(tmp_path, ["SPY"]).dropped == {"SPY": {"expired": 2, "bad_price": 1}}


def test_rows_are_counted_by_flag(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["flags"][:3] = Flag.GREEKS_COMPUTED
    chain["delta"][4] = np.nan
    row = checked(tmp_path, chain)
    assert (row["greeks_computed_share"], row["no_delta_share"]) == (0.6, 0.2)
    assert quality.report(tmp_path, ["SPY"]).flagged["SPY"]["greeks_computed"] == 3


def test_the_report_of_nineteen_years_fits_a_hundred_columns(tmp_path: Path) -> None:
    for year in range(2007, 2026):
        write(tmp_path, sound_chain(f"{year}-06-01"))
    report = quality.report(tmp_path, ["SPY"])
    report.table["rows"][:] = 1_234_567                     # as wide as a year of SPY gets
    report.table["parity_95"][:] = 0.1234
    text = StringIO()
    Console(file=text, width=100).print(quality.render(report))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100 and "…" not in text.getvalue()
    assert sum("1,234,567" in line and "12.34%" in line for line in lines) == 19


def test_a_ticker_that_is_not_in_the_store_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, sound_chain(DAY), ticker="QQQ")
    with pytest.raises(ConfigError, match=r"SPY is not in the store .* \(there: QQQ\)"):
        quality.report(tmp_path, ["SPY"])


def test_an_ingest_says_what_it_left_out_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, sound_chain(DAY))
    counts = {"read": 8, "kept": 5, "dropped_expired": 2, "dropped_bad_price": 1, "greeks_clamped": 4}
    done = Ingested(root=tmp_path, source="test", files=3, files_outside=1, partitions=[],
                    counts={"SPY": counts, "QQQ": {}}, files_without={"QQQ": 3})
    quality.show(done)
    printed = capsys.readouterr().out
    assert printed.startswith("3 files read, 1 outside the period\n"
                              "SPY: 5 of 8 rows kept; left out: 1 bad price, 2 expired; noted: 4 greeks clamped\n"
                              "QQQ: 3 of 3 files have no row of it\n")
    assert "test, SPY, 2024, 5 rows: nothing out of the usual" in printed
