"""Yahoo's chains, and what quotes imply: forwards, the underlying, IVs and greeks."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mahler import bsm, implied
from mahler.data import quality, store, yahoo
from mahler.data.files import Ingested
from mahler.schema import CHAIN, ConfigError, Flag, Table, empty
from tests.conftest import default_config

REAL = Path(__file__).parents[2] / "shared" / "data" / "chains_2026-08"
real_chains = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real chains are not at {REAL}")

COLUMNS = ("contractSymbol,expiry,type,strike,lastPrice,bid,ask,volume,openInterest,impliedVolatility,inTheMoney,"
           "lastTradeDate,spot,session").split(",")
RATE = 0.04
SPOT = 100.0


def contract(side: str, strike: float, expiry: str = "2026-09-18", **cells: str) -> dict[str, str]:
    """One row: priced at an IV of 20 % and a spot of 100 on 13 August, half a cent around its value."""
    years = max((np.datetime64(expiry) - np.datetime64("2026-08-13")).astype(int), 0) / 365
    value = float(bsm.price(SPOT, strike, years, RATE, 0.0, 0.2, side == "C"))
    symbol = f"SPY{expiry[2:4]}{expiry[5:7]}{expiry[8:]}{side}{strike * 1000:08.0f}"
    return dict(contractSymbol=symbol, expiry=expiry, type=side, strike=f"{strike}", lastPrice="77",
                bid=f"{value - 0.005:.9f}", ask=f"{value + 0.005:.9f}", volume="5", openInterest="7",
                impliedVolatility="0.00001", inTheMoney="False", lastTradeDate="2026-08-13 15:58:32+00:00",
                spot="98.5", session="2026-08-12") | cells


def both(*strikes: float, **cells: str) -> list[dict[str, str]]:
    return [contract(side, strike, **cells) for strike in strikes for side in "CP"]


LADDER = both(*np.arange(90.0, 111.0, 2.0))


def write(folder: Path, rows: list[dict[str, str]], name: str = "2026-08-12-SPY.csv.gz") -> Path:
    path = folder / name
    text = "\n".join([",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def silent(done: int, total: int, label: str) -> None:
    """No progress bar."""


def ingest(path: Path, root: Path, **options: object) -> Ingested:
    defaults = dict(tickers=["SPY"], start=None, end=None, max_dte=None, rate=RATE, workers=1)
    return yahoo.ingest(root, silent, path=path, **(defaults | options))


def stored(root: Path, year: int = 2026) -> Table:
    return store.read_partition(store.partition_path(root / "yahoo", "SPY", year))


def at(chain: Table, strike: float) -> dict[str, object]:
    (row,) = np.flatnonzero(chain["strike"] == strike)
    return {name: column[row] for name, column in chain.items()}


def refusal(path: Path, root: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        ingest(path, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------------------- what quotes imply


def test_a_forward_is_the_median_vote_of_the_strikes_nearest_to_the_money() -> None:
    strike = np.array([98.0, 99.0, 100.0, 101.0, 102.0])
    call, put = 101 - strike + 5, np.full(5, 5.0)
    call[1] += 40                                           # a stale quote does not get a say
    forward = implied.forwards(np.zeros(5, int), 2, strike, call, put, np.ones(5))
    assert forward[0] == pytest.approx(101.0)
    assert np.isnan(forward[1]), "a group without rows"


def test_strikes_far_from_the_money_do_not_vote() -> None:
    """There a put is worth its early exercise too, and parity is off to one side."""
    strike = np.arange(95.0, 141.0)
    call, put = np.maximum(101 - strike, 0) + 5, np.maximum(strike - 101, 0) + 5
    put[strike > 106] += 3.0
    forward = implied.forwards(np.zeros(46, int), 1, strike, call, put, np.ones(46))
    assert forward[0] == pytest.approx(101.0)


def test_two_strikes_are_too_few_for_a_forward() -> None:
    forward = implied.forwards(np.zeros(3, int), 1, np.array([99.0, 100.0, 101.0]), np.array([2.0, 1.0, np.nan]),
                               np.ones(3), np.ones(3))
    assert np.isnan(forward[0])


def test_a_wrong_rate_does_not_move_the_forward() -> None:
    years, strike = 90 / 365, np.arange(80.0, 121.0)
    call, put = (bsm.price(SPOT, strike, years, RATE, 0.013, 0.25, is_call) for is_call in (True, False))
    wrong = implied.forwards(np.zeros(41, int), 1, strike, call, put, np.full(41, np.exp(-0.02 * years)))
    assert wrong[0] == pytest.approx(SPOT * np.exp((RATE - 0.013) * years), abs=0.005)


def test_a_crossed_or_one_sided_quote_has_no_mid() -> None:
    mid = implied.mid(np.array([1.0, 1.3, 0.0, np.nan]), np.array([1.2, 1.2, 0.1, 0.1]))
    np.testing.assert_array_equal(mid, [1.1, np.nan, np.nan, np.nan])


def priced(spot: float, dividend_yield: float, iv: float) -> Table:
    """A chain of two days and two expiries, quoted two cents wide around Black-Scholes-Merton values."""
    days = np.array(["2024-01-03", "2024-01-04"], "datetime64[D]")
    expiries = np.array(["2024-01-05", "2024-02-16"], "datetime64[D]")
    strikes = np.arange(0.8 * spot, 1.2 * spot)
    grid = [x.ravel() for x in np.meshgrid(days, expiries, strikes, indexing="ij")]
    chain = empty(CHAIN, len(grid[0]))
    chain["date"], chain["expiry"], chain["strike"] = grid
    years = (chain["expiry"] - chain["date"]).astype(int) / 365
    for side in ("call", "put"):
        value = bsm.price(spot, chain["strike"], years, RATE, dividend_yield, iv, side == "call")
        chain[f"{side}_bid"], chain[f"{side}_ask"] = value - 0.01, value + 0.01
    for name in ("underlying", "call_iv", "put_iv", *implied.GREEKS):
        chain[name][:] = np.nan
    return chain


@pytest.mark.parametrize("dividend_yield", [0.0, 0.015])
def test_iv_and_greeks_are_those_that_the_quotes_were_priced_with(dividend_yield: float) -> None:
    chain = priced(400.0, dividend_yield, 0.22)
    done = implied.fill(chain, RATE)
    assert done["underlying"] == pytest.approx(400.0, rel=1e-4)     # off by the dividend yield of two days
    years = (chain["expiry"] - chain["date"]).astype(int) / 365
    true = bsm.greeks(400.0, chain["strike"], years, RATE, dividend_yield, 0.22, True)
    known = np.isfinite(done["delta"])
    assert known.sum() > 350        # of 640: two days from expiry the wings are worth nothing
    far = known & (years > 0.1)
    np.testing.assert_allclose(done["put_iv"][far], 0.22, atol=2e-4)
    for name, tolerance in (("delta", 1e-3), ("gamma", 1e-5), ("theta", 1e-3), ("vega", 1e-3)):
        np.testing.assert_allclose(done[name][far], getattr(true, name)[far], atol=tolerance)
    np.testing.assert_array_equal(done["flags"][known] & Flag.GREEKS_COMPUTED, Flag.GREEKS_COMPUTED)
    assert not (done["flags"][~known] & Flag.GREEKS_COMPUTED).any()


def test_a_row_whose_out_of_the_money_side_nobody_bids_for_has_no_delta() -> None:
    chain = priced(400.0, 0.0, 0.22)
    low = chain["strike"] == 350
    chain["put_bid"][low] = 0.0
    done = implied.fill(chain, RATE)
    assert np.isnan(done["delta"][low]).all()
    assert np.isfinite(done["call_iv"][low & (done["expiry"] == np.datetime64("2024-02-16"))]).all()


def test_on_the_day_of_expiry_there_is_no_iv_but_an_underlying() -> None:
    chain = priced(400.0, 0.0, 0.22)
    chain["date"][:] = chain["expiry"]
    done = implied.fill(chain, RATE)
    assert np.isnan(done["call_iv"]).all() and np.isnan(done["delta"]).all()
    assert (done["underlying"] > 0).all()


# ---------------------------------------------------------------------------------------------- the format


def test_call_and_put_of_a_strike_are_one_row_with_iv_and_greeks_computed(tmp_path: Path) -> None:
    done = ingest(write(tmp_path, LADDER), tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert len(chain["strike"]) == 11
    row = at(chain, 104.0)
    assert row["call_ask"] - row["call_bid"] == pytest.approx(0.01)
    assert row["put_bid"] > row["call_bid"]
    years = 36 / 365
    assert row["call_iv"] == pytest.approx(0.2, abs=1e-4)
    assert row["delta"] == pytest.approx(float(bsm.greeks(SPOT, 104.0, years, RATE, 0.0, 0.2, True).delta), abs=1e-4)
    assert row["flags"] == Flag.IV_COMPUTED | Flag.GREEKS_COMPUTED
    assert (row["call_volume"], row["put_open_interest"]) == (5, 7)
    assert np.isnan(row["smooth_iv"])
    assert (done.counts["SPY"]["read"], done.counts["SPY"]["kept"], done.counts["SPY"]["strikes"]) == (22, 22, 11)


def test_quotes_are_dated_by_the_newest_trade_not_by_the_session_of_the_close(tmp_path: Path) -> None:
    """`session` is the last complete day; a trade at 15:58 UTC of the 13th is the morning of the 13th."""
    rows = both(*np.arange(90.0, 111.0, 2.0), lastTradeDate="2026-08-06 15:00:00+00:00")
    rows[3]["lastTradeDate"] = "2026-08-13 15:58:32+00:00"
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    assert np.unique(stored(tmp_path / "store")["date"]).astype(str).tolist() == ["2026-08-13"]
    assert done.counts["SPY"]["quotes_newer_than_session"] == 22


def test_quotes_older_than_their_session_keep_its_day_and_evenings_are_new_yorks(tmp_path: Path) -> None:
    for stamp in ("2026-08-11 19:59:00+00:00", "2026-08-13 01:30:00+00:00"):
        done = ingest(write(tmp_path, both(*np.arange(90.0, 111.0, 2.0), lastTradeDate=stamp)), tmp_path / stamp[:10])
        assert np.unique(stored(tmp_path / stamp[:10])["date"]).astype(str).tolist() == ["2026-08-12"]
        assert "quotes_newer_than_session" not in done.counts["SPY"]


def test_the_underlying_is_what_the_quotes_imply_not_the_close_before_them(tmp_path: Path) -> None:
    ingest(write(tmp_path, LADDER), tmp_path / "store")
    assert stored(tmp_path / "store")["underlying"] == pytest.approx(SPOT, abs=1e-3)        # the file says 98.5


def test_a_strike_with_one_side_has_no_quote_on_the_other(tmp_path: Path) -> None:
    ingest(write(tmp_path, [*LADDER, contract("P", 85.0)]), tmp_path / "store")
    row = at(stored(tmp_path / "store"), 85.0)
    assert np.isnan([row["call_bid"], row["call_ask"], row["call_iv"]]).all()
    assert (row["call_volume"], row["call_open_interest"]) == (-1, -1)
    assert row["flags"] & Flag.CALL_NO_ASK and not row["flags"] & Flag.PUT_NO_ASK
    assert 0.9 < row["delta"] < 1


def test_an_empty_volume_is_no_trade_and_an_empty_open_interest_or_bid_is_missing(tmp_path: Path) -> None:
    rows = [*LADDER, contract("P", 85.0, volume="", openInterest="", bid="")]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    row = at(stored(tmp_path / "store"), 85.0)
    assert (row["put_volume"], row["put_open_interest"]) == (0, -1)
    assert np.isnan(row["put_bid"]) and row["put_ask"] > 0
    assert done.counts["SPY"]["put_open_interest_missing"] == 1


def test_of_identical_contracts_one_stays_of_contradictory_ones_none(tmp_path: Path) -> None:
    rows = [*LADDER, contract("P", 85.0), contract("P", 85.0), contract("C", 86.0), contract("C", 86.0, bid="3")]
    done = ingest(write(tmp_path, rows), tmp_path / "store")
    chain = stored(tmp_path / "store")
    assert 85.0 in chain["strike"] and 86.0 not in chain["strike"]
    counts = done.counts["SPY"]
    assert (counts["read"], counts["kept"]) == (26, 23)
    assert (counts["dropped_duplicate"], counts["dropped_contradictory"]) == (1, 2)


def test_an_expiration_on_a_saturday_is_moved_and_counted(tmp_path: Path) -> None:
    counts = ingest(write(tmp_path, [*LADDER, contract("P", 85.0, expiry="2026-09-19")]), tmp_path / "store").counts
    assert counts["SPY"]["expiry_moved"] == 1
    assert np.unique(stored(tmp_path / "store")["expiry"]).astype(str).tolist() == ["2026-09-18"]


def test_contracts_out_of_reason_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*LADDER, contract("P", 85.0, bid="-1"), contract("P", 86.0, ask="1e15"),
            contract("P", 87.0, expiry="2026-08-12"), contract("P", 88.0, expiry="2027-01-15")]
    counts = ingest(write(tmp_path, rows), tmp_path / "store", max_dte=90).counts["SPY"]
    assert (counts["read"], counts["kept"]) == (26, 22)
    assert [counts[f"dropped_{reason}"] for reason in ("bad_price", "expired", "beyond_max_dte")] == [2, 1, 1]


@pytest.mark.parametrize(("cells", "words"), [
    ({"bid": "abc"}, ("row 24 column bid must be a number", "'abc'")),
    ({"expiry": "18.09.2026"}, ("row 24 column expiry must be a date", "'18.09.2026'")),
    ({"session": "2026-08-11"}, ("row 24 column session must be 2026-08-12", "2026-08-11")),
    ({"type": "X"}, ("row 24 column type must be C or P", "X")),
    ({"strike": "86"}, ("row 24 column contractSymbol must be SPY260918P00086000", "SPY260918P00085000")),
    ({"contractSymbol": "QQQ260918P00085000"}, ("row 24 column contractSymbol must be SPY", "QQQ")),
    ({"lastTradeDate": "yesterday"}, ("row 24 column lastTradeDate must be an ISO time", "'yesterday'")),
    ({"lastTradeDate": "2026-08-12 15:00:00"}, ("row 24 column lastTradeDate", "offset from UTC")),
    ({"lastTradeDate": "2026-09-12 15:00:00+00:00"},
     ("row 24 column lastTradeDate is the newest trade, of 2026-09-12", "at most 5 calendar days")),
    ({"lastTradeDate": "9999-12-31 23:59:59-12:00"}, ("row 24 column lastTradeDate must be an ISO time", "9999")),
])
def test_what_cannot_be_what_it_says_is_refused_with_file_row_and_column(tmp_path: Path, cells, words) -> None:
    path = write(tmp_path, [*LADDER, contract("P", 85.0) | cells])
    message = refusal(path, tmp_path / "store")
    assert all(word in message for word in (str(path), *words)), message


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    whole = path.read_bytes()
    for data, words in ((whole[:300], "cannot be read"), (b"not gzip", "cannot be read"),
                        (gzip.compress(b"a,b\n1,2\n"), "lacks the columns contractSymbol"),
                        (gzip.compress((",".join(COLUMNS) + "\n").encode()), "has no row")):
        path.write_bytes(data)
        message = refusal(path, tmp_path / "store")
        assert str(path) in message and words in message
    path.write_bytes(whole)
    assert "has no day in its name" in refusal(path.rename(tmp_path / "SPY.csv.gz"), tmp_path / "store")


def test_a_chain_that_implies_no_underlying_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [row for row in LADDER if row["type"] == "C"])
    assert "to imply the underlying" in refusal(path, tmp_path / "store")


def test_a_ticker_without_a_file_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    path = write(tmp_path, LADDER)
    assert "no file of IWM (there: SPY)" in refusal(path, tmp_path / "store", tickers=["IWM"])


def test_a_period_is_of_the_quotes_not_of_the_names(tmp_path: Path) -> None:
    write(tmp_path, LADDER)
    done = ingest(tmp_path, tmp_path / "store", start="2026-08-13", end="2026-08-13")
    assert done.partitions[0].rows == 11
    assert "none of 1 yahoo files has a row of SPY" in refusal(tmp_path, tmp_path / "none", start="2026-08-14")


# ---------------------------------------------------------------------------------------------- real chains


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    return ingest(REAL, tmp_path_factory.mktemp("real"), tickers=["SPY", "QQQ", "IWM"], max_dte=60)


@real_chains
def test_real_chains_are_read_without_losing_a_contract_silently(real: Ingested) -> None:
    assert real.files == 18 and not real.files_without
    for ticker, counts in real.counts.items():
        dropped = {name: n for name, n in counts.items() if name.startswith("dropped_")}
        assert counts["read"] == counts["kept"] + sum(dropped.values()), ticker
        assert set(dropped) <= {"dropped_beyond_max_dte"}


@real_chains
def test_real_quotes_are_of_the_morning_after_the_session_in_the_name(real: Ingested) -> None:
    """The close in the file is off by up to 6 dollars of QQQ from what its quotes imply."""
    chains = store.scan(real.root, ["SPY", "QQQ", "IWM"], None, None)
    assert chains.sessions.astype(str).tolist() == [
        "2026-08-13", "2026-08-14", "2026-08-17", "2026-08-19", "2026-08-20", "2026-08-21"]
    assert chains["QQQ"].spot[0] - 723.70 == pytest.approx(6.4, abs=0.3)


@real_chains
def test_real_quotes_imply_sane_volatilities_and_ordered_deltas(real: Ingested) -> None:
    checked = quality.report(quality.partitions(real.root, ["SPY", "QQQ", "IWM"]), default_config().quality, None,
                             silent).years
    assert (checked["parity_95"] < 0.002).all()
    assert (checked["delta_rising"] < 0.01).all()
    assert (checked["crossed"] == 0).all()
    for ticker in ("SPY", "QQQ", "IWM"):
        chain = store.read_partition(store.partition_path(real.root, ticker, 2026))
        dte = (chain["expiry"] - chain["date"]).astype(int)
        short_put = (dte >= 28) & (chain["delta"] > 0.85) & (chain["delta"] < 0.95)
        assert short_put.sum() > 20
        assert (chain["strike"] < chain["underlying"])[short_put].all()
        assert ((chain["put_iv"] > 0.1) & (chain["put_iv"] < 0.6))[short_put].all()
