"""Splits: prices from before in today's shares, and nothing held from one kind of share to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mahler import panel as panels
from mahler.data import daily, splits, store
from mahler.data.calendar import sessions as exchange_sessions
from mahler.data.daily import Daily
from mahler.exits import Costs, ExitRule
from mahler.schema import CHAIN, ConfigError, Exit, Side, Table, empty
from tests.handmade import Spread, market, sessions
from tests.markets import Market, MemoryChains, Run, random_market, run_market

AAPL = "ticker,date,divisor\nAAPL,2014-06-09,7\nAAPL,2020-08-31,4\n"


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


def folder(tmp_path: Path, text: str) -> Path:
    """A data/daily with this splits.csv."""
    (tmp_path / "daily").mkdir(exist_ok=True)
    (tmp_path / "daily" / "splits.csv").write_text(text)
    return tmp_path / "daily"


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_price_is_divided_by_the_splits_strictly_after_its_date(tmp_path: Path) -> None:
    known = splits.load(folder(tmp_path, AAPL))["AAPL"]
    dates = days("2013-01-01", "2014-06-08", "2014-06-09", "2019-01-01", "2020-08-30", "2020-08-31", "2021-01-01")
    assert splits.factor(dates, known).tolist() == [28, 28, 4, 4, 4, 1, 1]
    assert splits.factor(dates, splits.NONE).tolist() == [1] * 7


def test_rows_may_stand_in_any_order_and_twice(tmp_path: Path) -> None:
    text = ("divisor, date, ticker, note\n4, 2020-08-31, aapl, x\n20,2022-07-18,GOOG,\n"
            "7,2014-06-09,AAPL,\n7.0,2014-06-09,AAPL,\n")
    known = splits.load(folder(tmp_path, text))
    assert list(known) == ["AAPL", "GOOG"]
    assert known["AAPL"][0].tolist() == days("2014-06-09", "2020-08-31").tolist()
    assert known["AAPL"][1].tolist() == [7, 4]


def test_splits_that_the_orats_api_told_count_as_well(tmp_path: Path) -> None:
    store.write_table(tmp_path / "splits" / "AAPL.parquet", {"date": days("2014-06-09"), "divisor": np.array([7.0])})
    known = splits.load(folder(tmp_path, "ticker,date,divisor\nAAPL,2014-06-09,7\nAAPL,2020-08-31,4\n"))
    assert known["AAPL"][1].tolist() == [7, 4]
    with pytest.raises(ConfigError, match="AAPL.parquet: divisor of AAPL on 2014-06-09 is 7, but 6 in another row"):
        splits.load(folder(tmp_path, "ticker,date,divisor\nAAPL,2014-06-09,6\n"))


@pytest.mark.parametrize(("text", "words"), [
    ("ticker,date\nAAPL,2014-06-09\n", "needs the columns ticker, date, divisor"),
    ("ticker,date,divisor\nAAPL,9.6.2014,7\n", "row 2: a split is a ticker, a date YYYY-MM-DD and a divisor"),
    ("ticker,date,divisor\nAAPL,2014-06-09,7\nAAPL,2020-08-31,four\n", "row 3: a split is"),
    ("ticker,date,divisor\nAAPL,2014-06-09\n", "row 2: a split is"),
    ("ticker,date,divisor\n,2014-06-09,7\n", "row 2: ticker is missing"),
    ("ticker,date,divisor\nAAPL,2014-06-09,0\n", "row 2: divisor is shares for one of before in"),
    ("ticker,date,divisor\nAAPL,2014-06-09,nan\n", "row 2: divisor is shares for one of before in"),
])
def test_a_row_that_is_no_split_is_refused_with_file_and_row(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        splits.load(folder(tmp_path, text))
    assert "splits.csv" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_splits_come_with_the_daily_series_and_are_part_of_their_fingerprint(tmp_path: Path) -> None:
    place = folder(tmp_path, AAPL)
    alone = daily.load(place)
    assert list(alone.splits) == ["AAPL"] and not alone.columns and not len(alone.dates)
    (place / "closes.csv").write_text("date,AAPL_close\n2014-06-06,645.57\n2014-06-09,93.70\n")
    with_splits = daily.load(place)
    assert with_splits.columns["AAPL_close"].tolist() == [645.57, 93.70], "the series stays as it was published"
    (place / "splits.csv").unlink()
    without = daily.load(place)
    assert without.splits == {} and len({alone.fingerprint, with_splits.fingerprint, without.fingerprint}) == 3


# ---- features --------------------------------------------------------------------------------------------------------


def split_market(n: int = 120, at: int = 80, divisor: float = 7.0) -> tuple[np.ndarray, dict, dict, Daily]:
    """A random walk as it is quoted through a split, the same in new shares throughout, and the split."""
    dates = sessions("2014-02-18", n)
    walk = 90.0 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, n)))
    raw = walk * np.where(np.arange(n) < at, divisor, 1.0)

    def quoted(prices: np.ndarray) -> dict:
        table = empty(CHAIN, n)
        table["date"], table["underlying"] = dates, prices
        table["expiry"][:], table["strike"] = dates[-1] + 30, np.round(prices)
        return {"AAPL": table}

    known = Daily(dates[:0], {}, "splits", {"AAPL": (dates[at:at + 1], np.array([divisor]))})
    return dates, quoted(raw), quoted(walk), known


def chains(dates: np.ndarray, tables: dict):
    made = MemoryChains(dates, tables)
    made.fingerprint = "chains"
    return made


@pytest.mark.parametrize("divisor", [7.0, 4.0, 1.5, 0.125])
def test_no_feature_jumps_at_a_split(divisor: float) -> None:
    dates, raw, new_shares, known = split_market(divisor=divisor)
    across = panels.build(chains(dates, raw), known)
    smooth = panels.build(chains(dates, new_shares), None)
    for name in ("realized_vol", "momentum", "trend"):
        np.testing.assert_allclose(getattr(across, name), getattr(smooth, name), rtol=1e-9, err_msg=name)
    if divisor == 7.0:
        blind = panels.build(chains(dates, raw), None)
        assert blind.realized_vol[90, 0] > 5 and blind.momentum[90, 0] < -0.8, "which they do where it is not known"


def test_prices_of_the_panel_stay_those_at_which_options_settle() -> None:
    dates, raw, _, known = split_market()
    across = panels.build(chains(dates, raw), known)
    np.testing.assert_array_equal(across.spot[:, 0], raw["AAPL"]["underlying"])
    np.testing.assert_array_equal(across.close, across.spot)
    assert across.sources["splits"] == "1 known"
    assert panels.build(chains(dates, raw), None).sources["splits"] == "none"


def test_a_panel_from_the_cache_knows_its_splits() -> None:
    dates, raw, _, known = split_market()
    across = panels.build(chains(dates, raw), known)
    again = panels.from_arrays(panels.to_arrays(across), across.fingerprint)
    for one, other in zip(across.splits["AAPL"], again.splits["AAPL"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_split_that_nobody_named_is_refused_at_the_door_and_a_divisor_of_one_says_that_it_is_none() -> None:
    dates, raw, _, known = split_market()
    panels.check_splits(panels.build(chains(dates, raw), known))
    with pytest.raises(ConfigError, match=rf"AAPL went from .* on {dates[79]} to .* on {dates[80]}: if that is a split"
                                          r", name it in data/daily/splits.csv .*the divisor 1"):
        panels.check_splits(panels.build(chains(dates, raw), None))
    said = replace(known, splits={"AAPL": (dates[80:81], np.ones(1))})
    panels.check_splits(panels.build(chains(dates, raw), said))


def test_a_split_that_the_chain_does_not_show_is_refused_at_the_door() -> None:
    dates, raw, new_shares, known = split_market()
    with pytest.raises(ConfigError, match="where a split by 7 is known: its date is wrong, or the chain is adjusted"):
        panels.check_splits(panels.build(chains(dates, new_shares), known))
    late = replace(known, splits={"AAPL": (dates[82:83], np.array([7.0]))})
    with pytest.raises(ConfigError, match="AAPL went from"):
        panels.check_splits(panels.build(chains(dates, raw), late))


def test_a_fall_by_a_third_is_no_split() -> None:
    dates, raw, *_ = split_market(divisor=1.5)
    panels.check_splits(panels.build(chains(dates, raw), None))


# ---- positions -------------------------------------------------------------------------------------------------------

DAYS = sessions("2014-05-29", 12)            # Thursday 29 May to Friday 13 June 2014; the split is on Monday the 9th
SPLIT, EVE = 7, 6                            # numbers of sessions
EXPIRY = DAYS[11]
COSTS = Costs(commission=1.0, assignment_fee=5.0)
NEW_SHARES = 0.02                            # what the contract of the same strike costs after the split: another one
HALF = 0.03                                  # half a quote of either leg


def put(**changed) -> Spread:
    """A 600/595 put sold for 1.00 on the first session; after the split the strikes are listed, and mean nothing."""
    prices = {"short": 600.0, "width": 5.0, "offered": [0], "expiry": EXPIRY, "ticker": "AAPL", "half": HALF,
              "cost": [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, *[NEW_SHARES] * 5]}
    return Spread(**prices | changed)


def held(spread: Spread, divisor: float = 7.0, on: np.datetime64 = DAYS[SPLIT], n: int = len(DAYS), **changed) -> Run:
    """What becomes of a spread whose underlying splits; its official close falls from 645 to 92."""
    close = np.where(DAYS < on, 645.0, 645.0 / divisor)[:n]
    spread = replace(spread, cost=list(np.broadcast_to(spread.cost, len(DAYS)))[:n])
    known = {"AAPL": (np.array([on]), np.array([divisor]))}
    return run_market(market(DAYS[:n], [spread], close=close, **{"costs": COSTS, "splits": known} | changed))


def exit_of(run: Run, name: str):
    value, = run.exits[name]
    return value


def test_a_position_open_across_a_split_is_closed_the_day_before_at_the_fill_and_said_so() -> None:
    run = held(put(), fill_travel=0.75)
    assert (exit_of(run, "day"), Exit(exit_of(run, "reason"))) == (EVE, Exit.TIME)
    assert exit_of(run, "mid") == pytest.approx(0.8)
    assert exit_of(run, "cost") == pytest.approx(0.8 + 2 * HALF / 2), "both legs travel half of half a quote"
    assert exit_of(run, "costs") == 2.0, "commission on both legs"
    assert run.ledger.counts["closed_before_split"] == 1
    assert str(run.ledger.trades["exit_date"][0]) == "2014-06-06"


def test_without_the_split_it_would_have_been_held_on_other_contracts_until_a_settlement_in_other_shares() -> None:
    """What the table of splits is for: 92 dollars a share is no loss of five dollars on a put of 600."""
    run = held(put(), divisor=1.0)
    assert Exit(exit_of(run, "reason")) is Exit.EXPIRY and run.ledger.counts["closed_before_split"] == 0
    priced = held(put(), divisor=7.0, splits={})
    assert Exit(exit_of(priced, "reason")) is Exit.EXPIRY and exit_of(priced, "cost") == 5.0


def test_what_another_rule_closes_on_the_eve_or_before_is_not_closed_by_the_split() -> None:
    for rule, reason, day in (
            (ExitRule(0.15, None, 0), Exit.PROFIT_TARGET, EVE), (ExitRule(0.05, None, 0), Exit.PROFIT_TARGET, 1),
            (ExitRule(None, None, 7), Exit.TIME, EVE), (ExitRule(None, None, 9), Exit.TIME, 4)):
        run = held(put(), exit=rule)
        assert (Exit(exit_of(run, "reason")), exit_of(run, "day")) == (reason, day), rule
        assert run.ledger.counts["closed_before_split"] == 0


def test_no_rule_sees_the_prices_of_the_other_contract() -> None:
    """Its two cents would be a profit target of nine tenths, and a day later than the eve."""
    run = held(put(), exit=ExitRule(0.9, None, 0))
    assert (exit_of(run, "day"), Exit(exit_of(run, "reason"))) == (EVE, Exit.TIME)
    assert np.diff(run.paths.start).tolist() == [EVE + 1]


def test_nothing_that_lives_through_the_split_is_sold_on_its_eve_and_what_expires_before_is() -> None:
    on_the_eve = held(put(offered=[EVE]))
    assert len(on_the_eve.candidates["day"]) == 0
    the_day_before = held(put(offered=[EVE - 1]))
    assert exit_of(the_day_before, "day") == EVE
    before = held(put(offered=[0], expiry=DAYS[EVE]))
    assert Exit(exit_of(before, "reason")) is Exit.EXPIRY and exit_of(before, "day") == EVE
    on_the_day = held(put(offered=[0], expiry=DAYS[SPLIT]))
    assert Exit(exit_of(on_the_day, "reason")) is Exit.TIME and exit_of(on_the_day, "day") == EVE


def test_what_is_sold_in_new_shares_is_held_to_the_end() -> None:
    run = held(put(short=85.0, offered=[SPLIT], cost=[*[np.nan] * 7, 1.0, 0.9, 0.9, 0.9, 0.9]))
    assert Exit(exit_of(run, "reason")) is Exit.EXPIRY and exit_of(run, "cost") == 0.0
    assert run.ledger.counts["closed_before_split"] == 0


def test_an_eve_without_a_quote_is_closed_at_the_last_one() -> None:
    run = held(put(cost=[1.0, 0.9, 0.9, 0.9, 0.7, np.nan, np.nan, *[NEW_SHARES] * 5]), fill_travel=0.75)
    assert (exit_of(run, "day"), Exit(exit_of(run, "reason"))) == (EVE, Exit.TIME)
    assert exit_of(run, "mid") == pytest.approx(0.7) and exit_of(run, "cost") == pytest.approx(0.7 + HALF)
    never = held(put(cost=[1.0, *[np.nan] * 11]), fill_travel=0.75)
    assert exit_of(never, "mid") == pytest.approx(1.0) and exit_of(never, "day") == EVE


def test_a_history_that_ends_on_the_eve_ends_like_the_whole_one() -> None:
    """The split is known, and so is the calendar: the last session is the eve although Monday is not there."""
    whole, ends = held(put()), held(put(), n=EVE + 1)
    for name in ("day", "reason", "cost", "mid", "costs", "pnl"):
        np.testing.assert_array_equal(whole.exits[name], ends.exits[name], err_msg=name)
    assert len(held(put(offered=[EVE]), n=EVE + 1).candidates["day"]) == 0
    earlier = held(put(), n=EVE)
    assert Exit(exit_of(earlier, "reason")) is Exit.END_OF_PERIOD


def test_a_short_call_may_be_assigned_on_the_eve_itself() -> None:
    call = put(short=640.0, side=Side.CALL, put=0.01, cost=[1.0, *[2.0] * 11])
    paid = {"AAPL": (DAYS[SPLIT:SPLIT + 1], np.array([3.29]))}
    run = held(call, dividends=paid)
    assert (exit_of(run, "day"), Exit(exit_of(run, "reason"))) == (EVE, Exit.ASSIGNED)
    assert run.ledger.counts["closed_before_split"] == 0


def test_the_eve_is_the_last_session_of_the_run_before_the_split_whatever_lies_between() -> None:
    run_sessions = exchange_sessions("2014-05-27", "2014-06-20")
    known = (days("2014-06-09", "2014-06-16"), np.array([7.0, 2.0]))
    day = np.searchsorted(run_sessions, days("2014-06-02", "2014-06-02", "2014-06-06", "2014-06-09", "2014-06-17"))
    expiry = days("2014-06-08", "2014-06-09", "2014-06-20", "2014-06-20", "2014-06-20")
    eves = splits.eve(run_sessions, day, expiry, known)
    assert [str(run_sessions[e]) if e >= 0 else "" for e in eves] == [
        "", "2014-06-06", "2014-06-06", "2014-06-13", ""]
    gap = run_sessions[run_sessions != np.datetime64("2014-06-06")]
    (eve,) = splits.eve(gap, np.array([0]), days("2014-06-20"), known)
    assert str(gap[eve]) == "2014-06-05"


def meets_a_split(made: Market, candidates: Table, end: np.ndarray) -> np.ndarray:
    """Whether a split lies between the entry of each candidate and `end`, datetime64[D] (n,), that day included."""
    out = np.zeros(len(end), bool)
    for t, ticker in enumerate(made.tickers):
        mine = candidates["ticker"] == t
        entry, known = made.sessions[candidates["day"][mine]], made.splits[ticker]
        out[mine] = splits.factor(entry, known) != splits.factor(end[mine], known)
    return out


def identities(candidates: Table) -> list[tuple]:
    return list(zip(*(candidates[name].tolist() for name in (
        "day", "ticker", "side", "expiry", "short_strike", "long_strike")), strict=True))


def test_in_random_markets_nothing_lives_through_a_split_and_what_meets_none_ends_as_it_did() -> None:
    closed = untouched = 0
    for seed in range(30):
        rng, plain = np.random.default_rng(seed), random_market(seed)
        made = replace(plain, splits={ticker: (np.sort(rng.choice(plain.sessions[2:], 2, replace=False)),
                                               np.array([7.0, 0.5])) for ticker in plain.tickers})
        without, run = run_market(plain), run_market(made)
        assert not meets_a_split(made, run.candidates, made.sessions[run.exits["day"]]).any()
        assert (run.paths.split_eve != run.candidates["day"]).all()
        closed += run.ledger.counts["closed_before_split"]

        at = {who: i for i, who in enumerate(identities(run.candidates))}
        alive = np.flatnonzero(~meets_a_split(made, without.candidates, without.candidates["expiry"]))
        who = identities(without.candidates)
        there = np.array([at[who[i]] for i in alive], int)
        untouched += len(alive)
        for name in ("day", "reason", "cost", "mid", "costs", "stale_marks", "pnl"):
            np.testing.assert_array_equal(run.exits[name][there], without.exits[name][alive], err_msg=f"{seed} {name}")
    assert closed > 20 and untouched > 500
