"""The quality report: each check on a chain whose fault a reader can count, and what is made of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from mahler import data_page, terminal
from mahler.data import checks, quality, store
from mahler.data.calendar import sessions
from mahler.data.files import Ingested
from mahler.data.quality import Quality, State, Thresholds, Verdict
from mahler.schema import CHAIN, ConfigError, Flag, Table, empty
from tests.conftest import default_config

DAY = "2024-01-03"
STRIKES = np.arange(90.0, 111.0)                            # 21 of them


@cache
def thresholds() -> Thresholds:
    """Those of the desk, which are the default, but that a year may be of a few days, as the chains of a test are."""
    return replace(default_config().quality, absent_days=(1.0, 1.0))


def silent(done: int, total: int, label: str) -> None:
    """No progress bar."""


def sound_chain(*days: str, spot: float = 100.0) -> Table:
    """A strike a dollar from 90 to 110 on each day, quoted so that parity holds with a forward of `spot`.

    Every day's quotes are a cent above those of the day before, as are its underlying and its forward.
    """
    n = len(days) * len(STRIKES)
    chain = empty(CHAIN, n)
    chain["date"] = np.repeat(np.array(days, "datetime64[D]"), len(STRIKES))
    chain["expiry"][:] = np.datetime64("2026-02-20")
    chain["strike"] = np.tile(STRIKES, len(days))
    of_day = spot + np.repeat(np.arange(len(days)), len(STRIKES)) / 100
    put = 16.0 + (chain["strike"] - of_day) / 2
    for side, value in (("call", put + of_day - chain["strike"]), ("put", put)):
        chain[f"{side}_bid"], chain[f"{side}_ask"], chain[f"{side}_iv"][:] = value - 0.1, value + 0.1, 0.2
    chain["delta"] = 0.5 - (chain["strike"] - spot) / 40
    chain["underlying"] = of_day
    return chain


def write(root: Path, chain: Table, ticker: str = "SPY", counts: store.Counts | None = None) -> None:
    years = chain["date"].astype("datetime64[Y]")
    for year in np.unique(years):
        part = {name: column[years == year] for name, column in chain.items()}
        store.write_partition(root, ticker, int(str(year)), part, source="test", max_dte=None, start=part["date"].min(),
                              end=part["date"].max(), counts=counts)


def report(root: Path, *tickers: str, folder: Path | None = None, **other: float) -> Quality:
    limits = replace(thresholds(), **other)
    return quality.report(quality.partitions(root, tickers or ["SPY"]), limits, folder, silent)


def of_year(root: Path, chain: Table, **more) -> dict[str, float]:
    write(root, chain, **more)
    years = report(root).years
    assert len(years["year"]) == 1
    return {name: column[0] for name, column in years.items()}


def of_day(chain: Table, before: Table | None = None) -> dict[str, float]:
    """What is measured of the only day of a chain."""
    days = checks.measure({name: chain[name] for name in checks.COLUMNS}, before)
    assert len(days) == 1
    return dict(zip(days.dtype.names, days[0].tolist(), strict=True))


def states(root: Path, **other: float) -> list[str]:
    return [State(state).name for state in report(root, **other).days["SPY"]["state"]]


def weeks(start: str = "2024-01-02", end: str = "2024-02-29") -> list[str]:
    return [str(day) for day in sessions(start, end)]


# ---------------------------------------------------------------------------------------------- what is measured


def test_a_sound_chain_is_good(tmp_path: Path) -> None:
    row = of_year(tmp_path, sound_chain(DAY, "2024-01-04"))
    assert (row["ticker"], row["year"], row["rows"]) == ("SPY", 2024, 42)
    assert (row["sessions"], row["missing"], row["verdict"], row["reasons"]) == (2, 0, Verdict.GOOD, "")
    zero = ("crossed", "no_ask", "zero_bids", "no_delta", "expiry_moved", "delta_rising", "iv_gaps", "greeks_computed")
    assert [row[name] for name in zero] == [0] * 8
    assert [row[name] for name in ("parity", "parity_95", "underlying_off")] == pytest.approx([0] * 3, abs=1e-12)
    assert np.isnan([row[name] for name in ("dropped", "faulty_rows", "dte_mismatches")]).all(), "nothing was said"


def test_crossed_quotes_missing_asks_and_bids_of_zero_are_shares_of_the_quotes(tmp_path: Path) -> None:
    """21 strikes have 42 quotes."""
    chain = sound_chain(DAY)
    chain["put_bid"][0] = chain["put_ask"][0] + 1
    chain["call_ask"][1] = 0
    chain["call_bid"][:3] = 0
    row = of_year(tmp_path, chain)
    assert [row[name] for name in ("crossed", "no_ask", "zero_bids")] == [1 / 42, 1 / 42, 3 / 42]


def test_an_option_that_is_not_there_has_no_quote_and_one_without_an_ask_has(tmp_path: Path) -> None:
    """Of 42 options 12 are not listed, so 30 have a quote: two bid nothing, one of them and another ask nothing."""
    chain = sound_chain(DAY)
    for name in ("call_bid", "call_ask"):
        chain[name][:12] = np.nan
    chain["put_bid"][:2] = 0
    chain["put_ask"][1], chain["put_ask"][2] = 0, np.nan
    chain["put_bid"][20] = chain["put_ask"][20] + 1
    row = of_year(tmp_path, chain)
    assert [row[name] for name in ("crossed", "no_ask", "zero_bids")] == [1 / 30, 2 / 30, 2 / 30]
    assert report(tmp_path).days["SPY"]["crossed"].tolist() == [1 / 30]


def test_the_parity_residual_is_that_of_the_strikes_near_the_money() -> None:
    """The median of ten votes is the forward; one quote is two dollars off, one far from the money is 40 off."""
    chain = sound_chain(DAY)
    for strike, off in ((96, 2.0), (90, 40.0)):
        for side in ("call_bid", "call_ask"):
            chain[side][STRIKES == strike] += off
    day = of_day(chain)
    assert day["parity"] == pytest.approx(0, abs=1e-12)
    near = [0.0] * 8 + [0.02]                               # strikes 96 to 104: 95 and 105 are not within 5 %
    assert day["parity_95"] == pytest.approx(np.quantile(near, 0.95))


def test_an_underlying_that_is_not_that_of_the_quotes_is_seen_by_its_forward() -> None:
    chain = sound_chain(DAY)
    chain["underlying"][:] = 97.0
    assert of_day(chain)["underlying_off"] == pytest.approx(0.03)


def test_a_step_of_twenty_at_which_delta_rises() -> None:
    chain = sound_chain(DAY)
    chain["delta"][10] = chain["delta"][9] + 0.001
    day = of_day(chain)
    assert (day["delta_steps"], day["delta_rising"]) == (20, 1)
    chain["delta"][10] = chain["delta"][9] + 5e-5           # the vendor's rounding
    assert of_day(chain)["delta_rising"] == 0
    chain["delta"][10] = np.nan
    assert (of_day(chain)["delta_steps"], of_day(chain)["no_delta"]) == (19, 1)


def test_delta_is_ordered_within_an_expiry_of_a_day_not_across() -> None:
    chain = {name: np.concatenate([column, column]) for name, column in sound_chain(DAY).items()}
    chain["expiry"][21:] = np.datetime64("2026-03-20")
    day = of_day(chain)
    assert (day["expiries"], day["delta_steps"], day["delta_rising"]) == (2, 40, 0)


def test_an_iv_gap_is_a_strike_without_iv_between_two_that_have_one() -> None:
    """On the side that is out of the money: below the forward the put's, above it the call's."""
    chain = sound_chain(DAY)
    chain["put_iv"][[0, 1, 3]] = np.nan                     # 90 and 91 are the wing, 93 is a gap
    chain["call_iv"][[3, 4]] = np.nan                       # in the money
    chain["call_iv"][[18, 20]] = np.nan                     # 108 is a gap, 110 the wing
    day = of_day(chain)
    assert (day["iv_strikes"], day["iv_gaps"]) == (18, 2)


def test_a_repeated_chain_is_told_by_the_quotes_of_the_contracts_that_somebody_bids_for() -> None:
    chain = sound_chain(DAY, "2024-01-04", "2024-01-05")
    third = chain["date"] == np.datetime64("2024-01-05")
    for name in checks.QUOTES:
        chain[name][third] = chain[name][chain["date"] == np.datetime64("2024-01-04")]
    chain["put_bid"][63 - 21] = 0.0
    order = np.lexsort((chain["date"], chain["strike"]))    # as in the store
    days = checks.measure({name: chain[name][order] for name in checks.COLUMNS}, None)
    assert days["shared"].tolist() == [0, 21, 20]
    assert days["repeated"].tolist() == [0, 0, 20]


def test_the_first_day_of_a_year_is_compared_with_the_last_of_the_year_before(tmp_path: Path) -> None:
    old, new = sound_chain("2023-12-28", "2023-12-29"), sound_chain("2024-01-02", "2024-01-03", spot=101.0)
    for name in checks.QUOTES:
        new[name][:21] = old[name][21:]
    write(tmp_path, old)
    write(tmp_path, new)
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "REPEATED", "COMPLETE"]


# ---------------------------------------------------------------------------------------------- days


def test_sessions_are_missing_against_the_calendar_between_first_and_last_day(tmp_path: Path) -> None:
    days = [str(day) for day in sessions("2023-12-28", "2024-01-10") if str(day) not in ("2024-01-02", "2024-01-05")]
    write(tmp_path, sound_chain(*days))
    found = report(tmp_path)
    assert found.years["year"].tolist() == [2023, 2024]
    assert found.years["sessions"].tolist() == [2, 5]
    assert found.years["missing"].tolist() == [0, 2]
    assert found.years["missing_days"].tolist() == [0, 2 / 7]
    missing = found.days["SPY"]["date"][found.days["SPY"]["state"] == State.MISSING]
    assert missing.astype(str).tolist() == ["2024-01-02", "2024-01-05"]


def test_a_year_without_a_partition_is_a_row_of_its_own_and_not_to_be_used(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2022-12-30", "2024-01-02"))
    years = report(tmp_path).years
    assert years["year"].tolist() == [2022, 2023, 2024]
    assert years["rows"].tolist() == [21, 0, 21]
    assert years["missing"].tolist() == [0, 250, 0]
    assert np.isnan(years["parity_95"][1])
    assert [str(Verdict(verdict)) for verdict in years["verdict"]] == ["good", "do not use", "good"]
    assert years["reasons"][1] == "250 of 250 days missing"


def test_a_day_without_a_session_in_the_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2024-01-05", "2024-01-06"))
    with pytest.raises(ConfigError, match="the store has SPY on 2024-01-06, which is not a session of XNYS"):
        report(tmp_path)


def test_few_rows_are_few_against_the_sessions_around(tmp_path: Path) -> None:
    chain = sound_chain(*weeks())
    thin = (chain["date"] == np.datetime64("2024-01-17")) & (chain["strike"] > 97)        # 8 of 21 rows are left
    write(tmp_path, {name: column[~thin] for name, column in chain.items()})
    found = report(tmp_path)
    at = weeks().index("2024-01-17")
    assert np.flatnonzero(found.days["SPY"]["state"]).tolist() == [at]
    assert quality.why(found.days["SPY"], at, found.thresholds) == "62% fewer rows than usual"
    assert states(tmp_path, rows_short=0.62)[at] == "COMPLETE"


def test_the_worst_of_several_faults_is_the_state_of_a_day_and_all_are_said(tmp_path: Path) -> None:
    chain = sound_chain(DAY, "2024-01-04")
    today = chain["date"] == np.datetime64(DAY)
    chain["call_iv"][today & np.isin(chain["strike"], np.arange(101, 110))] = np.nan
    write(tmp_path / "greeks", chain)
    chain["put_bid"][:2] += 1.0
    write(tmp_path / "quotes", chain)
    assert states(tmp_path / "greeks") == ["GREEKS", "COMPLETE"]
    assert states(tmp_path / "quotes") == ["QUOTES", "COMPLETE"]
    found = report(tmp_path / "quotes")
    assert quality.why(found.days["SPY"], 0, found.thresholds) == (
        "4.8% of the quotes crossed; no IV at 43% of the strikes that should have one")


@pytest.mark.parametrize(("names", "state"), [
    (("call_bid", "call_ask", "put_bid", "put_ask"), "QUOTES"), (("call_bid", "put_bid"), "QUOTES"),
    (("put_bid", "put_ask"), "QUOTES"), (("call_iv", "put_iv"), "GREEKS"),
])
def test_what_is_missing_altogether_is_in_doubt_and_not_good_for_want_of_a_fault(tmp_path: Path, names, state) -> None:
    chain = sound_chain(DAY, "2024-01-04")
    for name in names:
        chain[name][:] = np.nan
    row = of_year(tmp_path, chain)
    assert states(tmp_path) == [state, state] and row["verdict"] == Verdict.DO_NOT_USE


# ---------------------------------------------------------------------------------------------- years


@pytest.mark.parametrize(("missing", "verdict"), [(0, "good"), (2, "good"), (3, "usable"), (12, "usable"),
                                                  (13, "do not use")])
def test_a_year_is_good_to_one_percent_of_missing_sessions_and_usable_to_five(tmp_path, missing, verdict) -> None:
    """Of 252 sessions."""
    days = weeks("2024-01-02", "2024-12-31")
    write(tmp_path, sound_chain(*(day for i, day in enumerate(days) if not 1 <= i <= missing)))
    found = report(tmp_path)
    assert quality.worst(found, 2024, 2024) == verdict + ("" if verdict == "good" else ": SPY 2024")


@pytest.mark.parametrize(("first", "last", "verdict"), [
    ("2024-01-02", "2024-12-31", "good"), ("2024-07-03", "2024-12-31", "good"), ("2024-01-02", "2024-07-02", "good"),
    ("2024-07-05", "2024-12-31", "usable: SPY 2024"), ("2024-01-02", "2024-07-01", "usable: SPY 2024"),
    ("2024-05-01", "2024-05-14", "usable: SPY 2024"), (DAY, DAY, "usable: SPY 2024")])
def test_the_year_in_which_a_store_begins_or_ends_is_good_if_most_of_it_is_there(tmp_path, first, last, verdict) -> None:
    """Of 252 sessions the 126th is that of 2 July."""
    days = weeks(first, last)
    write(tmp_path, sound_chain(*days))
    found = report(tmp_path, absent_days=default_config().quality.absent_days)
    assert quality.worst(found, 2024, 2024) == verdict
    of_year = {name: found.years[name][0] for name in ("sessions", "of_year", "expected", "missing", "reasons")}
    assert of_year == {"sessions": len(days), "of_year": 252, "expected": len(days), "missing": 0,
                       "reasons": "" if verdict == "good" else f"only {len(days)} of 252 days"}
    assert data_page.cells(found)[0]["days"] == f"{len(days)} of 252"


def test_missing_sessions_are_held_against_the_span_that_the_store_has(tmp_path: Path) -> None:
    """Six of seven sessions are there, the rest of the year is absent."""
    write(tmp_path, sound_chain(*(day for day in weeks("2025-08-14", "2025-08-22") if day != "2025-08-19")))
    found = report(tmp_path, absent_days=default_config().quality.absent_days)
    assert quality.judged(found, Verdict.DO_NOT_USE, 2025, 2025) == {
        "SPY 2025": "only 6 of 250 days; 1 of 7 days missing"}


def test_verdicts_follow_the_thresholds_of_the_config(tmp_path: Path) -> None:
    chain = sound_chain(*weeks())
    chain["put_bid"][chain["date"] == np.datetime64("2024-01-17")] += 5.0
    write(tmp_path, chain)
    assert quality.worst(report(tmp_path), 2024, 2024) == "usable: SPY 2024"                # one of 41 days
    assert quality.worst(report(tmp_path, quote_days=(0.03, 0.1)), 2024, 2024) == "good"
    assert quality.worst(report(tmp_path, quote_days=(0.0, 0.02)), 2024, 2024) == "do not use: SPY 2024"
    assert quality.worst(report(tmp_path, crossed=0.5, no_forward=1.0), 2024, 2024) == "good"


def test_a_threshold_that_is_usable_before_it_is_good_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"quality.missing_days is a list of 2, good up to .* got \[0.2, 0.1\]"):
        default_config("quality.missing_days=[0.2,0.1]")
    with pytest.raises(ConfigError, match=r"quality.crossed is a share of a day's quotes in \[0, 1\], got 2.0"):
        default_config("quality.crossed=2")


def test_only_years_of_the_period_are_held_against_a_run(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2022-12-30", "2024-01-02"))
    found = report(tmp_path)
    assert quality.judged(found, Verdict.DO_NOT_USE, 2022, 2024) == {"SPY 2023": "250 of 250 days missing"}
    assert quality.worst(found, 2024, 2025) == "good"


def test_expirations_on_a_saturday_are_counted_by_the_store_or_by_the_source(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["expiry"][:7] = np.datetime64("2026-02-21")
    assert of_year(tmp_path / "store", chain)["expiry_moved"] == 7 / 21
    counts = {DAY: {"read": 42, "kept": 42, "expiry_moved": 14}}          # a source whose rows are options
    assert of_year(tmp_path / "source", sound_chain(DAY), counts=counts)["expiry_moved"] == 14 / 42


def test_rows_left_out_at_ingest_are_faulty_unless_expired_too_far_or_identical(tmp_path: Path) -> None:
    counts = {DAY: {"read": 60, "kept": 21, "dropped_expired": 4, "dropped_beyond_max_dte": 30, "dropped_duplicate": 2,
                    "dropped_bad_price": 3, "greeks_clamped": 1, "dte_mismatch": 6}}
    row = of_year(tmp_path, sound_chain(DAY), counts=counts)
    assert (row["dropped"], row["faulty_rows"], row["dte_mismatches"]) == (39 / 60, 3 / 30, 6 / 60)
    assert row["verdict"] == Verdict.DO_NOT_USE
    assert row["reasons"] == "10.0% of the rows left out as faulty; days to expiration wrong in 10.0% of the rows"
    assert report(tmp_path).dropped == {"SPY": {"expired": 4, "beyond_max_dte": 30, "duplicate": 2, "bad_price": 3}}


def test_rows_are_counted_by_flag(tmp_path: Path) -> None:
    chain = sound_chain(DAY)
    chain["flags"][:3] = Flag.GREEKS_COMPUTED
    row = of_year(tmp_path, chain)
    assert row["greeks_computed"] == 3 / 21
    assert report(tmp_path).flagged["SPY"]["greeks_computed"] == 3


# ---------------------------------------------------------------------------------------------- measured once


def test_a_partition_is_measured_once_and_again_when_it_or_the_year_before_changed(tmp_path: Path, monkeypatch) -> None:
    measured = []
    monkeypatch.setattr(checks, "measure", lambda chain, before, do=checks.measure: (
        measured.append(str(chain["date"][0])[:4]), do(chain, before))[1])
    root, folder = tmp_path / "store", tmp_path / "cache"
    write(root, sound_chain("2022-12-30", "2023-06-01", "2024-01-02"))
    first = report(root, folder=folder)
    assert sorted(measured) == ["2022", "2023", "2024"]
    again = report(root, folder=folder)
    assert len(measured) == 3 and quality.to_json(again) == quality.to_json(first)
    assert quality.to_json(report(root)) == quality.to_json(first)
    del measured[:]
    write(root, sound_chain("2023-06-01", spot=101.0))
    report(root, folder=folder)
    assert sorted(measured) == ["2023", "2024"]
    del measured[:]
    report(root, folder=folder, crossed=0.5)
    assert measured == [], "thresholds judge what was measured"


def test_what_is_kept_of_nineteen_years_of_three_tickers_is_read_in_a_blink(tmp_path: Path) -> None:
    """57 partitions in 50 ms on two idle cores; here with room for a busy machine, by its CPU."""
    root, folder = tmp_path / "store", tmp_path / "cache"
    for ticker in ("IWM", "QQQ", "SPY"):
        days = [day for year in range(2007, 2026) for day in weeks(f"{year}-06-01", f"{year}-06-10")]
        write(root, sound_chain(*days), ticker)
    parts = quality.partitions(root, ["IWM", "QQQ", "SPY"])
    quality.report(parts, thresholds(), folder, silent)
    began = time.process_time()
    quality.report(parts, thresholds(), folder, silent)
    assert time.process_time() - began < 0.15


# ---------------------------------------------------------------------------------------------- words


def test_the_report_of_nineteen_years_fits_a_hundred_columns(tmp_path: Path, monkeypatch) -> None:
    for year in range(2007, 2026):
        write(tmp_path, sound_chain(*weeks(f"{year}-06-01", f"{year}-06-10")[:1]))
    found = report(tmp_path)
    found.years["rows"][:] = 1_234_567                      # as wide as a year of SPY gets
    found.years["parity_95"][:] = 0.1234
    found.years["verdict"][:] = Verdict.DO_NOT_USE
    text = StringIO()
    monkeypatch.setattr("sys.stdout", text)
    terminal.table(data_page.cells(found))
    lines = text.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100 and "…" not in text.getvalue()
    assert sum("1,234,567" in line and "12.34%" in line and "do not use" in line for line in lines) == 19


def test_the_headline_counts_the_verdicts_and_names_what_is_not_to_be_used(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2022-12-30", "2024-01-02"))
    assert quality.headline(report(tmp_path)) == (
        "test, SPY, 2022-2024, 42 rows. Years of a ticker: 2 good, 1 do not use: "
        "SPY 2023 (250 of 250 days missing)")


def test_the_report_as_json_says_thresholds_years_and_marked_days(tmp_path: Path) -> None:
    write(tmp_path, sound_chain("2024-01-02", "2024-01-04"))
    said = json.loads(quality.to_json(report(tmp_path)))
    assert said["thresholds"]["missing_days"] == [0.01, 0.05]
    assert said["marked_days"] == [
        {"ticker": "SPY", "date": "2024-01-03", "state": "missing", "why": "not in the store"}]
    (year,) = said["years"]
    assert (year["ticker"], year["year"], year["verdict"], year["dropped"]) == ("SPY", 2024, "do not use", None)


def test_a_ticker_that_is_not_in_the_store_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, sound_chain(DAY), ticker="QQQ")
    with pytest.raises(ConfigError, match=r"SPY is not in the store .* \(there: QQQ\)"):
        quality.partitions(tmp_path, ["SPY"])


def test_an_ingest_says_what_it_left_out_and_why(tmp_path: Path) -> None:
    counts = {"read": 8, "kept": 5, "dropped_expired": 2, "dropped_bad_price": 1, "greeks_clamped": 4}
    done = Ingested(root=tmp_path, source="test", files=3, files_outside=1, partitions=[],
                    counts={"SPY": counts, "QQQ": {}}, files_without={"QQQ": 3})
    assert quality.summary(done) == [
        "3 files read, 1 outside the period",
        "SPY: 5 of 8 rows kept; left out: 1 bad price, 2 expired; noted: 4 greeks clamped",
        "QQQ: 3 of 3 files have no row of it"]
