"""The invariants of the domain, each by its name. Random markets; each test says that it met the case it is about."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mahler import ledger as ledgers
from mahler.fills.travel import travel
from mahler.schema import Exit, Side
from mahler.simulate import Breaker, Limits
from tests.markets import Market, Run, random_market, run_market

SEEDS = range(1000, 1040)


def sane_market(seed: int) -> Market:
    """A random market with a well-behaved account: no breakers, ample limits and cash, no accidents of sizing."""
    market = random_market(seed)
    return dataclasses.replace(
        market, initial_equity=1_000_000.0, fraction=0.02, fixed_contracts=None,
        multiplier=np.ones_like(market.multiplier), max_contracts=np.zeros_like(market.max_contracts),
        limits=Limits(50, 1.0, 1.0, 1.0, 50, ["QQQ", "SPY"]), breaker=Breaker(None, None, None, None))


def with_tables(market: Market, change) -> Market:
    """A copy of `market` whose chains went through `change(table)`."""
    return dataclasses.replace(market, tables={t: change(copy.deepcopy(table)) for t, table in market.tables.items()})


def truncated(market: Market, n_days: int) -> Market:
    """What was known at the close of session `n_days` - 1."""
    last = market.sessions[n_days - 1]
    cut = with_tables(market, lambda table: {c: v[table["date"] <= last] for c, v in table.items()})
    arrays = ("close", "vix", "iv_percentile", "multiplier", "max_contracts", "rate")
    return dataclasses.replace(cut, sessions=market.sessions[:n_days],
                               **{name: getattr(market, name)[:n_days] for name in arrays})


def poisoned(market: Market, n_days: int, rng: np.random.Generator) -> Market:
    """The same market up to session `n_days` - 1, and nonsense after it."""
    last = market.sessions[n_days - 1]

    def poison(table):
        after = table["date"] > last
        for leg in ("call", "put"):
            bid = rng.uniform(0, 10, after.sum()).round(2)
            table[f"{leg}_bid"][after], table[f"{leg}_ask"][after] = bid, bid + rng.uniform(0, 3, after.sum()).round(2)
        table["delta"][after] = rng.random(after.sum())
        return table

    changed = with_tables(market, poison)
    close = market.close.copy()
    close[n_days:] *= rng.uniform(0.5, 1.5, close[n_days:].shape)
    return dataclasses.replace(changed, close=close)


def entries(run: Run, market: Market, n_days: int) -> list[tuple]:
    """What was screened and admitted on the first `n_days` sessions: everything that is known at entry."""
    keep = run.candidates["day"] < n_days
    columns = [run.candidates[c][keep].tolist() for c in
               ("day", "ticker", "side", "expiry", "dte", "short_strike", "long_strike", "delta", "credit", "score")]
    return list(zip(*columns, run.contracts[keep].tolist(), strict=True))


@pytest.fixture(scope="module")
def runs() -> list[tuple[Market, Run]]:
    made = [(market, run_market(market)) for market in map(random_market, SEEDS)]
    assert sum(len(run.ledger.trades["pnl"]) for _, run in made) > 300
    return made


def test_the_put_delta_of_a_candidate_is_the_call_delta_less_one(runs) -> None:
    for market, run in runs:
        for i in np.flatnonzero(run.candidates["side"] == Side.PUT)[:50]:
            table = market.tables[market.tickers[run.candidates["ticker"][i]]]
            row = np.flatnonzero((table["date"] == market.sessions[run.candidates["day"][i]])
                                 & (table["strike"] == run.candidates["short_strike"][i])
                                 & (abs(table["expiry"] - run.candidates["expiry"][i]) <= np.timedelta64(2, "D")))
            assert run.candidates["delta"][i] in [abs(float(table["delta"][r]) - 1.0) for r in row]


def test_credit_lies_between_nothing_and_the_width_and_max_loss_is_positive(runs) -> None:
    for _, run in runs:
        c = run.candidates
        assert (c["credit"] > 0).all() and (c["credit"] < c["width"]).all() and (c["max_loss"] > 0).all()
        np.testing.assert_allclose(c["max_loss"], c["width"] - c["credit"])


def test_a_fill_lies_within_its_own_quote() -> None:
    rng = np.random.default_rng(0)
    bid = np.where(rng.random(10_000) < 0.2, 0.0, rng.uniform(0, 9, 10_000))
    ask = bid + rng.uniform(0, 2, 10_000)
    for p in (0.5, 0.66, 1.0):
        sell, buy = travel(bid, ask, travel=p)
        for price in (sell, buy):
            assert (price >= bid - 1e-12).all() and (price <= ask + 1e-12).all()


@given(bid=st.floats(0, 1000), spread=st.floats(0, 100), p=st.floats(0, 1))
def test_any_fill_sells_no_higher_than_it_buys_when_it_travels_half_or_more(bid: float, spread: float, p: float) -> None:
    sell, buy = travel(np.array([bid]), np.array([bid + spread]), travel=p)
    assert bid - 1e-9 <= sell[0] <= bid + spread + 1e-9 and bid - 1e-9 <= buy[0] <= bid + spread + 1e-9
    assert p < 0.5 or sell[0] <= buy[0] + 1e-9


def test_the_worked_fills_of_the_design() -> None:
    sell, buy = travel(np.array([1.20, 5.10]), np.array([1.40, 5.90]), travel=0.75)
    assert (round(sell[0], 9), round(buy[0], 9)) == (1.25, 1.35)
    sell, buy = travel(np.array([1.20, 5.10]), np.array([1.40, 5.90]), travel=0.66)
    assert (round(sell[1], 9), round(buy[1], 9)) == (5.372, 5.628)


def test_a_long_leg_nobody_bids_for_is_worth_nothing_to_a_seller_and_its_ask_to_a_buyer() -> None:
    sell, buy = travel(np.array([0.0]), np.array([0.05]), travel=0.5)
    assert sell[0] == 0.0 and buy[0] == 0.05


def test_the_pnl_of_all_trades_is_what_the_account_gained_and_cash_plus_marks_is_equity(runs) -> None:
    solvent = [run for _, run in runs if run.ledger.account["equity"].max() < 1e9]
    assert len(solvent) > 20
    for run in solvent:
        ledgers.check(run.ledger)


def test_on_a_day_with_entries_only_equity_falls_by_slippage_to_mid_and_commission() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)
        run = run_market(market)
        account, c = run.ledger.account, run.candidates
        first = np.flatnonzero(account["entries"])[:1]
        if not len(first):
            continue
        d, lots = first[0], run.contracts
        today = (c["day"] == d) & (lots > 0)
        cost = (lots * (100 * (c["mid_credit"] - c["credit"]) + 2 * market.costs.commission))[today].sum()
        assert account["equity"][d] - market.initial_equity == pytest.approx(-cost, abs=1e-6)
        met += 1
    assert met > 20


def test_a_missing_quote_leaves_the_mark_unchanged_is_counted_and_closes_nothing() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)
        run = run_market(market)
        for trade in range(len(run.ledger.trades["pnl"])):
            i = run.ledger.trades["candidate"][trade]
            c, entry, leave = run.candidates, run.candidates["day"][i], run.exits["day"][i]
            if leave - entry < 2 or run.exits["reason"][i] == Exit.EXPIRY:
                continue
            gap = market.sessions[leave]              # the very day on which it was closed
            ticker = market.tickers[c["ticker"][i]]

            def drop(table, t=ticker, leg=c["long_strike"][i], gap=gap):
                keep = ~((table["date"] == gap) & (table["strike"] == leg))
                return {name: column[keep] for name, column in table.items()} if t == ticker else table

            without = run_market(with_tables(market, drop))
            j = _same(without.candidates, c, i)
            if j is None:
                continue
            assert without.exits["day"][j] > leave or leave == len(market.sessions) - 1
            assert without.exits["stale_marks"][j] >= run.exits["stale_marks"][i] + (leave < len(market.sessions) - 1)
            k = without.paths.start[j] + leave - entry
            assert np.isnan(without.paths.mid[k]) and np.isnan(without.paths.close[k])
            met += 1
            break
    assert met > 15


def _same(candidates, others, i) -> int | None:
    same = np.ones(len(candidates["day"]), bool)
    for name in ("day", "ticker", "side", "expiry", "short_strike", "long_strike"):
        same &= candidates[name] == others[name][i]
    return int(np.flatnonzero(same)[0]) if same.any() else None


def test_removing_every_quote_of_a_day_leaves_the_account_where_it_was() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)
        run = run_market(market)
        open_days = np.flatnonzero(run.ledger.account["positions"][1:-1] > 0) + 1
        for d in open_days[:1]:
            gap = market.sessions[d]
            bare = with_tables(market, lambda table, gap=gap: {
                name: (np.where(table["date"] == gap, 0.0, column) if name.endswith(("bid", "ask")) else column)
                for name, column in table.items()})
            without = run_market(bare)
            account, x = without.ledger.account, without.exits
            closed = ((x["day"] == d) & (without.contracts > 0))
            assert (x["reason"][closed] == Exit.EXPIRY).all()
            if not closed.any():
                assert account["equity"][d] == pytest.approx(account["equity"][d - 1], abs=1e-6)
                met += 1
    assert met > 15


def test_the_commission_of_a_one_lot_round_trip_is_four_dollars() -> None:
    met = 0
    for seed in SEEDS:
        market = dataclasses.replace(sane_market(seed), fixed_contracts=1)
        market.costs = dataclasses.replace(market.costs, commission=1.0)
        trades = run_market(market).ledger.trades
        closed = np.isin(trades["exit_reason"], ["profit_target", "stop_loss", "time"])
        assert (trades["contracts"] == 1).all() and (trades["commission"][closed] == 4.0).all()
        worthless = (trades["exit_reason"] == "expiry") & (trades["exit_cost"] == 0)
        assert (trades["commission"][worthless] == 2.0).all()
        met += closed.sum() * worthless.sum()
    assert met > 0


def test_doubling_the_lots_doubles_the_pnl() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)
        one, two = (run_market(dataclasses.replace(market, fixed_contracts=n)).ledger.trades for n in (1, 2))
        if (one["contracts"] == 1).all() and (two["contracts"] == 2).all() and len(one["pnl"]) == len(two["pnl"]) > 0:
            np.testing.assert_allclose(two["pnl"], 2 * one["pnl"], rtol=1e-12)
            met += 1
    assert met > 20


def test_halving_a_multiplier_changes_size_where_size_is_above_one() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)
        full = run_market(market)
        half = run_market(dataclasses.replace(market, multiplier=market.multiplier / 2))
        first = np.flatnonzero(full.contracts)[:1]            # the first admission sees the same account in both
        if len(first) and full.contracts[first[0]] > 1:
            assert half.contracts[first[0]] == pytest.approx(full.contracts[first[0]] / 2, abs=1)
            assert half.contracts[first[0]] < full.contracts[first[0]]
            met += 1
    assert met > 20


def test_history_truncated_at_t_gives_the_same_candidates_and_admissions_up_to_t() -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for seed in SEEDS:
        market = random_market(seed)
        whole = run_market(market)
        n_days = int(rng.integers(8, len(market.sessions)))
        cut = run_market(truncated(market, n_days))
        known = market.sessions[n_days - 1]
        assert entries(cut, market, n_days) == entries(whole, market, n_days), f"market {seed} cut at {known}"
        np.testing.assert_array_equal(cut.ledger.account["equity"], whole.ledger.account["equity"][:n_days])
        compared += len(cut.candidates["day"])
    assert compared > 1000


def test_nonsense_after_t_changes_nothing_up_to_t() -> None:
    rng = np.random.default_rng(8)
    compared = 0
    for seed in SEEDS:
        market = random_market(seed)
        n_days = int(rng.integers(8, len(market.sessions)))
        whole, odd = run_market(market), run_market(poisoned(market, n_days, rng))
        assert entries(odd, market, n_days) == entries(whole, market, n_days)
        compared += len(whole.candidates["day"])
    assert compared > 1000


def test_widening_every_quote_never_increases_the_pnl_of_the_same_trades() -> None:
    met = 0
    for seed in SEEDS:
        market = sane_market(seed)

        def widen(table):
            for leg in ("call", "put"):
                bid, ask = table[f"{leg}_bid"], table[f"{leg}_ask"]
                room = np.where((ask > bid) | (bid > 0), np.minimum(0.05, bid), 0.0)   # a bid stays a bid
                room = np.where(bid - room <= 0, 0.0, room)
                table[f"{leg}_bid"], table[f"{leg}_ask"] = bid - room, np.where(ask > 0, ask + room, ask)
            return table

        tight, wide = run_market(market), run_market(with_tables(market, widen))
        for i in np.flatnonzero(tight.contracts):
            j = _same(wide.candidates, tight.candidates, i)
            if j is None:
                continue
            assert wide.candidates["credit"][j] <= tight.candidates["credit"][i] + 1e-12
            a, b = tight.paths.close[slice(*tight.paths.start[i:i + 2])], wide.paths.close[slice(*wide.paths.start[j:j + 2])]
            both = ~np.isnan(a) & ~np.isnan(b)
            assert (b[both] >= a[both] - 1e-12).all()
            met += 1
    assert met > 100


def test_the_order_of_tickers_never_changes_a_result() -> None:
    met = 0
    for seed in SEEDS:
        market = random_market(seed)
        if len(market.tables) < 2:
            continue
        again = dataclasses.replace(market, tables=dict(reversed(market.tables.items())))
        a, b = run_market(market), run_market(again)
        for name in a.ledger.account:
            np.testing.assert_array_equal(a.ledger.account[name], b.ledger.account[name])
        met += 1
    assert met > 10


def test_the_same_market_gives_the_same_run_to_the_byte(tmp_path) -> None:
    for k in range(2):
        ledgers.write(run_market(random_market(1003)).ledger, tmp_path / str(k))
    names = sorted(p.name for p in (tmp_path / "0").iterdir())
    assert "trades.parquet" in names
    for name in names:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name
