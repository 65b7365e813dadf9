"""The defects of other engines of this kind, each a test by its name. Where it can be, the market is made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mahler.data.calendar import last_session_on_or_before
from mahler.exits import Costs, ExitRule
from mahler.fills.travel import travel
from mahler.paths import intrinsic
from mahler.schema import Exit, Side
from tests.handmade import AMPLE, FREE, HOLD, OFF, Spread, market, sessions
from tests.markets import Market, MemoryChains, Run, random_market, run_market

DAYS = sessions("2019-03-04", 10)            # Monday 4 to Friday 15 March
EXPIRY = DAYS[9]
SEEDS = range(3000, 3030)


def spread(**changed) -> Spread:
    """The 280/275 put, sold on Monday for 0.50, whose cost to close stays there."""
    return Spread(**{"short": 280.0, "width": 5.0, "cost": 0.5, "offered": [0], "expiry": EXPIRY} | changed)


def sane_market(seed: int, **changed) -> Market:
    """A random market, one lot a trade, in an account that nothing limits."""
    made = random_market(seed)
    return replace(made, initial_equity=1_000_000.0, fixed_contracts=1, multiplier=np.ones_like(made.multiplier),
                   max_contracts=np.zeros_like(made.max_contracts), limits=AMPLE, breaker=OFF, **changed)


def exit_of(run: Run) -> tuple[int, Exit]:
    """Session and reason of the exit of the only candidate."""
    return int(run.exits["day"][0]), Exit(run.exits["reason"][0])


# ---- rows of an expiry day removed at random do not remove trades ----------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_rows_of_an_expiry_day_removed_at_random_do_not_remove_trades(share: float) -> None:
    rng = np.random.default_rng(1)
    expired = removed = 0
    for seed in SEEDS:
        made = sane_market(seed, exit=HOLD)
        tables = {}
        for ticker, table in made.tables.items():
            last = table["date"] == last_session_on_or_before(table["expiry"])
            gone = last & (rng.random(len(last)) < share)
            tables[ticker] = {name: column[~gone] for name, column in table.items()}
            removed += int(gone.sum())
        whole, thinned = run_market(made).ledger, run_market(replace(made, tables=tables)).ledger
        for name in ("ticker", "side", "date", "short_strike", "exit_date", "exit_reason", "contracts", "pnl"):
            np.testing.assert_array_equal(thinned.trades[name], whole.trades[name], err_msg=name)
        np.testing.assert_array_equal(thinned.account["equity"], whole.account["equity"])
        expired += int((whole.trades["exit_reason"] == "expiry").sum())
    assert expired > 200 and removed > 1000


def test_a_trade_without_one_quote_after_its_entry_still_settles_at_the_official_close() -> None:
    gone = [0.5, *[np.nan] * 9]
    run = run_market(market(DAYS, [spread(cost=gone, long=[0.25, *[np.nan] * 9])], close=[300.0] * 9 + [277.0]))
    assert exit_of(run) == (9, Exit.EXPIRY) and run.exits["cost"].tolist() == [3.0]
    assert run.exits["stale_marks"].tolist() == [8] and run.ledger.counts["stale_marks"] == 8.0
    assert len(run.ledger.trades["pnl"]) == 1


# ---- commission changes the P&L --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cost", "close", "legs"), [
    ([0.5, *[0.125] * 9], 300.0, 4),         # closed at its target: both legs, in and out
    (0.5, 300.0, 2),                         # expires worthless: in, and nothing more
    (0.5, 277.0, 4),                         # is exercised
])
def test_commissions_of_0_and_65_cents_and_10_dollars_give_three_pnls_apart_by_just_that(cost, close, legs) -> None:
    made = market(DAYS, [spread(cost=cost)], close=close, exit=replace(HOLD, profit_target=0.65), fixed_contracts=3)
    trades = [run_market(replace(made, costs=Costs(commission=c, assignment_fee=0.0))).ledger.trades
              for c in (0.0, 0.65, 10.0)]
    paid = [0.0, 3 * legs * 0.65, 3 * legs * 10.0]
    assert [t["commission"].item() for t in trades] == pytest.approx(paid)
    assert [trades[0]["pnl"].item() - t["pnl"].item() for t in trades] == pytest.approx(paid)


def test_a_whole_run_earns_less_by_exactly_the_commissions_where_its_trades_are_the_same() -> None:
    same = 0
    for seed in SEEDS:
        free, cheap, dear = (run_market(sane_market(seed, costs=Costs(commission=c, assignment_fee=0.0)))
                             for c in (0.0, 0.65, 10.0))
        if not len(free.ledger.trades["pnl"]):
            continue
        gains = [run.ledger.account["equity"][-1] for run in (free, cheap, dear)]
        assert gains[0] > gains[1] > gains[2]
        for run in (cheap, dear):
            assert run.ledger.trades["candidate"].tolist() == free.ledger.trades["candidate"].tolist()
            assert gains[0] - run.ledger.account["equity"][-1] == pytest.approx(run.ledger.trades["commission"].sum())
        same += len(free.ledger.trades["pnl"])
    assert same > 300


def test_commission_is_part_of_the_size_so_that_three_commissions_are_three_sizes() -> None:
    # 450 dollars a lot and four commissions; two percent of a million is 20,000.
    made = market(DAYS, [spread()], fixed_contracts=None, fraction=0.02, initial_equity=1_000_000.0)
    lots = [run_market(replace(made, costs=Costs(commission=c, assignment_fee=0.0))).contracts[0]
            for c in (0.0, 0.65, 10.0)]
    assert lots == [44, 44, 40] == [20_000 // x for x in (450, 452.6, 490)]


# ---- profit-target and stop exits pay the fill -----------------------------------------------------------------------


@pytest.mark.parametrize(("on_tuesday", "reason"), [
    (0.125, Exit.PROFIT_TARGET), (1.25, Exit.STOP_LOSS), (0.375, Exit.TIME)])
def test_profit_target_and_stop_exits_pay_the_fill_and_not_the_price_that_triggered_them(on_tuesday, reason) -> None:
    # On Tuesday both legs are quoted 0.10 wide, half a width of 0.05 about their mids.
    exits = ExitRule(profit_target=0.65, stop_loss=1.25, exit_dte=10 if reason is Exit.TIME else 0)
    made = market(DAYS, [spread(cost=[0.5, *[on_tuesday] * 9], half=[0.0, *[0.05] * 9])], exit=exits)
    paid = {}
    for share, slippage in ((0.5, 0.0), (0.75, 0.05), (1.0, 0.10)):         # dollars per share, of two legs
        run = run_market(replace(made, fill_travel=share))
        assert exit_of(run) == (1, reason)
        paid[share] = run.exits["cost"][0]
        assert run.exits["mid"][0] == pytest.approx(on_tuesday)
        assert paid[share] == pytest.approx(on_tuesday + slippage)
        assert run.ledger.trades["slippage"] == pytest.approx([10 * 100 * slippage])
        assert run.ledger.trades["pnl"] == pytest.approx([10 * 100 * (0.5 - on_tuesday - slippage)])


def test_a_gap_through_the_stop_pays_the_markets_price_and_not_the_stops() -> None:
    made = market(DAYS, [spread(cost=[0.5, *[4.0] * 9])], exit=replace(HOLD, stop_loss=1.25))
    run = run_market(made)
    assert exit_of(run) == (1, Exit.STOP_LOSS)
    assert run.exits["cost"].tolist() == [4.0]               # the stop was at 0.50 + 1.25 x 0.50 = 1.125


def test_a_profit_target_gapped_through_keeps_what_the_market_gave() -> None:
    run = run_market(market(DAYS, [spread(cost=[0.5, *[0.0625] * 9])], exit=replace(HOLD, profit_target=0.65)))
    assert exit_of(run) == (1, Exit.PROFIT_TARGET) and run.exits["cost"].tolist() == [0.0625]    # not 0.175


# ---- one leg's quote missing for a day forces nothing ----------------------------------------------------------------

MISSING = {
    "no row": {},
    "no bid and no ask": {"put_bid": 0.0, "put_ask": 0.0},
    "a bid and no ask": {"put_bid": 0.25, "put_ask": 0.0},
    "a crossed quote": {"put_bid": 3.0, "put_ask": 0.01},
    "an ask that is no number": {"put_bid": 0.25, "put_ask": np.nan},
    "a bid that is no number": {"put_bid": np.nan, "put_ask": 0.5},
    "an endless ask": {"put_bid": 0.25, "put_ask": np.inf},
}


@pytest.mark.parametrize("leg", [280.0, 275.0])
@pytest.mark.parametrize("missing", MISSING)
def test_one_legs_quote_missing_for_a_day_forces_nothing(leg: float, missing: str) -> None:
    """The other leg alone would be a full profit, or a stop: neither is booked, the mark is carried and counted."""
    made = market(DAYS, [spread(cost=0.375)], exit=ExitRule(profit_target=0.65, stop_loss=1.25, exit_dte=0))
    table = made.tables["SPY"]
    gap = (table["strike"] == leg) & (table["date"] == DAYS[2])
    assert gap.sum() == 1
    cells = MISSING[missing]
    table = ({c: np.where(gap, cells.get(c, 0.0), v) if c in cells else v for c, v in table.items()} if cells
             else {c: v[~gap] for c, v in table.items()})
    whole, run = run_market(made), run_market(replace(made, tables={"SPY": table}))
    assert exit_of(run) == exit_of(whole) == (9, Exit.EXPIRY)
    assert run.exits["pnl"].tolist() == whole.exits["pnl"].tolist()
    assert run.exits["stale_marks"].tolist() == [1] and whole.exits["stale_marks"].tolist() == [0]
    np.testing.assert_array_equal(run.ledger.account["equity"], whole.ledger.account["equity"])


def test_a_target_reached_on_a_day_without_a_quote_is_taken_on_the_next_day_that_has_one() -> None:
    cost = [0.5, 0.5, 0.125, 0.125, *[0.5] * 6]              # the target is at 0.175, on Wednesday and Thursday
    rule = replace(HOLD, profit_target=0.65)
    long = [0.25, 0.25, np.nan, *[0.25] * 7]
    assert exit_of(run_market(market(DAYS, [spread(cost=cost)], exit=rule))) == (2, Exit.PROFIT_TARGET)
    assert exit_of(run_market(market(DAYS, [spread(cost=cost, long=long)], exit=rule))) == (3, Exit.PROFIT_TARGET)
    only_wednesday = [0.5, 0.5, 0.125, *[0.5] * 7]
    assert exit_of(run_market(market(DAYS, [spread(cost=only_wednesday, long=long)], exit=rule))) == (9, Exit.EXPIRY)


# ---- size follows maximum loss, not credit ---------------------------------------------------------------------------


def test_size_follows_maximum_loss_and_not_credit() -> None:
    def lots(**changed) -> int:
        made = market(DAYS, [spread(**changed)], fixed_contracts=None, fraction=0.10)
        return int(run_market(made).contracts[0])            # of 10,000 dollars at risk

    assert lots(width=5.0, cost=0.50) == 22                  # 450 dollars a lot
    assert lots(width=10.0, cost=0.50) == 10                 # the same credit, 950 dollars
    assert lots(width=5.0, cost=1.00) == 25                  # twice the credit, 400 dollars
    assert lots(width=5.0, cost=0.25) == 21                  # half the credit, 475 dollars: not 44, and not 11
    assert lots(width=1.0, cost=0.50) == 200                 # 50 dollars


def test_heat_is_of_maximum_loss_and_not_of_credit_or_width() -> None:
    run = run_market(market(DAYS, [spread()]))
    assert run.ledger.account["open_max_loss"][0] == pytest.approx(10 * 450)
    assert run.ledger.account["heat"][0] == pytest.approx(4_500 / 100_000)


# ---- both legs share an expiration -----------------------------------------------------------------------------------


def test_both_legs_share_an_expiration() -> None:
    # The 280 put is listed for Friday the 15th, the 275 put for the 22nd only.
    later = DAYS[9] + 7
    short, long = spread(), spread(expiry=later)
    made = market(DAYS, [short])
    sold, bought = made.tables["SPY"], market(DAYS, [long]).tables["SPY"]
    rows = {c: np.concatenate([sold[c][sold["strike"] == 280.0], bought[c][bought["strike"] == 275.0]]) for c in sold}
    run = run_market(replace(made, tables={"SPY": rows}))
    assert len(run.candidates["day"]) == 0
    assert run.funnel["in_delta_window"].sum() == 1 and run.funnel["with_long_leg"].sum() == 0
    assert len(run_market(made).candidates["day"]) == 1


def test_the_rows_of_both_legs_are_of_one_expiration_one_day_and_strikes_a_width_apart() -> None:
    looked = 0
    for seed in SEEDS:
        made = random_market(seed)
        c, chains = run_market(made).candidates, MemoryChains(made.sessions, made.tables)
        for t, ticker in enumerate(chains.tickers):
            chain, mine = chains[ticker], c["ticker"] == t
            short, long = (np.searchsorted(chain.contract_start, c[leg][mine], side="right") - 1
                           for leg in ("short_row", "long_row"))
            np.testing.assert_array_equal(chain.contract_expiry[short], chain.contract_expiry[long])
            np.testing.assert_array_equal(chain.contract_expiry[short], c["expiry"][mine])
            for leg in ("short_row", "long_row"):
                np.testing.assert_array_equal(chain.day[c[leg][mine]], c["day"][mine])
            apart = np.where(c["side"][mine] == Side.CALL, 1, -1) * c["width"][mine]
            np.testing.assert_allclose(chain.contract_strike[long] - chain.contract_strike[short], apart)
            looked += int(mine.sum())
    assert looked > 1000


# ---- 0 <= settlement <= width, with one price for both legs ----------------------------------------------------------


def test_settlement_lies_between_nothing_and_the_width_with_one_price_for_both_legs() -> None:
    price = np.arange(260.0, 300.0, 0.25)
    for side, long in ((Side.PUT, 275.0), (Side.CALL, 285.0)):
        value = intrinsic(np.full(len(price), side), np.full(len(price), 280.0), np.full(len(price), 5.0), price)
        sign = 1.0 if side is Side.CALL else -1.0
        legs = np.maximum(sign * (price - 280.0), 0.0) - np.maximum(sign * (price - long), 0.0)
        np.testing.assert_allclose(value, legs, atol=1e-12)
        assert value.min() == 0.0 and value.max() == 5.0 and ((value > 0) & (value < 5)).sum() == 19


@pytest.mark.parametrize(("close", "cost"), [(300.0, 0.0), (280.0, 0.0), (277.5, 2.5), (275.0, 5.0), (200.0, 5.0)])
def test_a_put_spread_settles_at_the_official_close_and_never_at_its_last_quote(close: float, cost: float) -> None:
    made = market(DAYS, [spread(cost=[0.5] * 9 + [3.75], half=[0.0] * 9 + [0.125])], close=[300.0] * 9 + [close])
    made.tables["SPY"]["underlying"][:] = 276.0              # at the time of the quotes, 14 minutes before
    run = run_market(made)
    assert exit_of(run) == (9, Exit.EXPIRY)
    assert run.exits["cost"].tolist() == run.exits["mid"].tolist() == [cost]


def test_settlements_of_random_markets_are_those_of_the_official_close_of_their_last_session() -> None:
    settled = 0
    for seed in SEEDS:
        made = random_market(seed)
        run = run_market(made)
        c, known = run.candidates, ~np.isnan(run.paths.settlement)
        last = np.searchsorted(made.sessions, c["expiry"], side="right") - 1
        close = made.close[last, c["ticker"]]
        sign = np.where(c["side"] == Side.CALL, 1.0, -1.0)
        legs = np.maximum(sign * (close - c["short_strike"]), 0) - np.maximum(sign * (close - c["long_strike"]), 0)
        np.testing.assert_allclose(run.paths.settlement[known], legs[known], atol=1e-9)
        assert ((legs >= 0) & (legs <= c["width"] + 1e-9))[known].all()
        settled += int(known.sum())
    assert settled > 1000


# ---- long plus short of the same spread earn minus the costs ---------------------------------------------------------


def buyers_pnl(made: Market, run: Run, k: int) -> float:
    """Dollars a contract of one who buys the spread of trade `k` and is out when we are: from the rows, by the fill."""
    trade = {name: column[k] for name, column in run.ledger.trades.items()}
    in_and_out = 4 * made.costs.commission
    (_, buys), (sells, _) = _prices(made, trade, trade["date"])
    pays = buys - sells
    if trade["exit_reason"] == "expiry":
        gets = trade["exit_cost"]
        return 100 * (gets - pays) - (in_and_out if gets > 0 else in_and_out / 2)
    (sells, _), (_, buys) = _prices(made, trade, trade["exit_date"])
    return 100 * (sells - buys - pays) - in_and_out


def _prices(made: Market, trade: dict, day: np.datetime64) -> list[tuple[float, float]]:
    """At what one sells and buys the option of the short strike, and that of the long one, on `day`."""
    table, side = made.tables[trade["ticker"]], trade["side"]
    of_day = (table["date"] == day) & (last_session_on_or_before(table["expiry"]) == trade["expiration"])
    prices = []
    for strike in (trade["short_strike"], trade["long_strike"]):
        row = np.flatnonzero(of_day & (np.abs(table["strike"] - strike) < 1e-6))
        sell, buy = travel(table[f"{side}_bid"][row], table[f"{side}_ask"][row], travel=made.fill_travel)
        prices.append((sell.item(), buy.item()))
    return prices


def test_long_plus_short_of_the_same_spread_earn_minus_the_costs() -> None:
    met = {"expiry": 0, "profit_target": 0, "stop_loss": 0, "time": 0}
    for seed in SEEDS:
        made = sane_market(seed, costs=Costs(commission=1.0, assignment_fee=0.0))
        run = run_market(made)
        for k, reason in enumerate(run.ledger.trades["exit_reason"]):
            if reason in met:
                seller = run.ledger.trades["pnl"][k]
                costs = run.ledger.trades["commission"][k] + run.ledger.trades["slippage"][k]
                assert seller + buyers_pnl(made, run, k) == pytest.approx(-2 * costs, abs=1e-9)
                assert costs > 0
                met[reason] += 1
    assert min(met.values()) > 20, met


def test_at_the_mid_and_without_commission_long_plus_short_earn_nothing() -> None:
    made = market(DAYS, [spread(cost=[0.5, 0.125, *[0.5] * 8], half=0.05)], exit=replace(HOLD, profit_target=0.65),
                  costs=FREE, fill_travel=0.5, fixed_contracts=1)
    run = run_market(made)
    assert run.ledger.trades["pnl"] == pytest.approx([37.5])
    assert buyers_pnl(made, run, 0) == pytest.approx(-37.5)
