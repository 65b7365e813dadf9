"""Micro markets, checkable by eye, that hold tests/oracle.py to design/domain.md.

The put spread is 95/90 and the call spread 105/110 unless a test says otherwise. A spread is `offered` where
its short leg has the delta to be sold; on the other days the same quotes are there only to mark and close.
"""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from mahler.schema import CHAIN, Exit, Rejection, Side
from tests.oracle import Leg, Market, Rules, as_date, run

MON, TUE, WED, THU, FRI = (date(2021, 3, d) for d in range(1, 6))
MON2 = date(2021, 3, 8)
NAN = (float("nan"), float("nan"))
FAR = date(2021, 4, 1)                     # expires after every market here

# Sold at p = 0.75: 1.05 - 0.55 = 0.50. Mid: 1.10 - 0.50 = 0.60. Maximum loss 100 x 4.50 + 4 = 454.
SHORT, LONG = (1.00, 1.20), (0.40, 0.60)
# The same at p = 0.5, where fill and mid are both 1.25 - 0.75 = 0.50, exactly.
SHORT_MID, LONG_MID = (1.00, 1.50), (0.50, 1.00)

RULES = Rules(side="put", min_dte=1, max_dte=60, exit_dte=0, travel=0.75, fixed_contracts=1, min_credit_to_width=0.0,
              max_heat=10.0, max_heat_per_underlying=10.0, max_heat_group=10.0, assignment_fee=5.0)
AT_MID = replace(RULES, travel=0.5)


def chain_row(day, strike, *, put=NAN, call=NAN, delta=0.5, expiry=FAR, ticker="SPY", open_interest=100, volume=10):
    row = dict.fromkeys(CHAIN.names, 0)
    row.update(ticker=ticker, date=day, expiry=expiry, strike=strike, delta=delta, underlying=100.0,
               put_bid=put[0], put_ask=put[1], call_bid=call[0], call_ask=call[1],
               put_open_interest=open_interest, call_open_interest=open_interest,
               put_volume=volume, call_volume=volume)
    return row


def puts(day, short=SHORT, long=LONG, *, offered=False, **more):
    """Sell the 95 put, buy the 90 put; the call of the short strike has a delta of 0.90."""
    return [chain_row(day, 95.0, put=short, delta=0.90 if offered else 0.5, **more),
            chain_row(day, 90.0, put=long, delta=0.97, **more)]


def calls(day, short=SHORT, long=LONG, *, strike=105.0, put=(1.0, 1.1), offered=False, **more):
    """Sell a call, buy the one 5 above; `put` is the put of the short strike."""
    return [chain_row(day, strike, call=short, put=put, delta=0.10 if offered else 0.5, **more),
            chain_row(day, strike + 5, call=long, delta=0.03, **more)]


def market(sessions, *rows, close=None, **more):
    close = {(t, d): c for d, c in (close or {}).items() for t in ("SPY", "QQQ")}
    return Market(list(sessions), [row for group in rows for row in group], close, **more)


def books_balance(result, rules):
    """The invariants that hold of every run."""
    for row in result.account:
        assert row.cash + row.marks == pytest.approx(row.equity, abs=1e-9)
    total = sum(trade.pnl for trade in result.trades)
    assert total == pytest.approx(result.account[-1].equity - rules.initial_equity, abs=1e-6)
    for trade in result.trades:
        assert trade.pnl == pytest.approx(trade.contracts * trade.candidate.pnl_per_contract, abs=1e-6)
    assert {id(t.candidate) for t in result.trades} == {id(c) for c in result.candidates if c.contracts}


def reasons(result, day):
    return [(c.ticker, c.reason) for c in result.candidates if c.date == day]


def test_a_fill_travels_p_of_the_quoted_spread_and_nobody_bids_at_zero():
    leg = Leg(1.20, 1.40, 0, 0)
    assert leg.buy(0.75) == pytest.approx(1.35)
    assert leg.sell(0.75) == pytest.approx(1.25)
    leg = Leg(5.10, 5.90, 0, 0)
    assert leg.buy(0.66) == pytest.approx(5.628)
    assert leg.sell(0.66) == pytest.approx(5.372)
    nobody = Leg(0.0, 0.10, 0, 0)
    assert nobody.usable
    assert (nobody.sell(0.75), nobody.buy(0.75), nobody.mid) == (0.0, 0.10, 0.05)
    for bid, ask in [(0.0, 0.0), (0.2, 0.1), (-0.1, 0.1), NAN, (0.1, float("inf"))]:
        assert not Leg(bid, ask, 0, 0).usable


def test_the_put_sold_is_the_one_whose_call_has_a_delta_of_090_not_010():
    deep = [chain_row(MON, 120.0, put=(20.0, 20.2), delta=0.10), chain_row(MON, 115.0, put=(15.5, 15.7), delta=0.2)]
    result = run(market([MON, TUE], puts(MON, offered=True), deep), RULES)
    [c] = result.candidates
    assert (c.side, c.short_strike, c.long_strike, c.width) == (Side.PUT, 95.0, 90.0, 5.0)
    assert c.delta == pytest.approx(0.10)
    assert c.credit == pytest.approx(0.50)
    assert c.mid_credit == pytest.approx(0.60)
    assert c.max_loss == pytest.approx(4.50)
    assert c.score == pytest.approx((0.50 * 0.90 - 4.50 * 0.10) / 4.50, abs=1e-12)
    assert c.dte == 31
    # The entry day costs slippage to mid (10) and the commission of two legs (2), exactly.
    assert result.account[0].equity == pytest.approx(100_000 - 12)
    assert result.account[0].cash == pytest.approx(100_048)
    assert result.account[0].open_max_loss == pytest.approx(454)
    assert result.account[0].heat == pytest.approx(454 / 99_988)
    books_balance(result, RULES)


def test_the_funnel_says_at_which_stage_each_row_fell_out():
    rows = [
        chain_row(MON, 99.0, put=SHORT, delta=0.90, expiry=date(2021, 6, 18)),       # too far out
        chain_row(MON, 98.0, put=SHORT, delta=0.80),                                 # outside the delta window
        chain_row(MON, 97.0, put=SHORT, delta=0.90),                                 # no 92
        chain_row(MON, 96.0, put=(0.0, 1.2), delta=0.90), chain_row(MON, 91.0, put=LONG, delta=0.97),    # no bid
        chain_row(MON, 94.0, put=(0.5, 0.6), delta=0.90), chain_row(MON, 89.0, put=(0.5, 0.6), delta=0.97),  # no credit
        *puts(MON, offered=True),
    ]
    market_ = market([MON, TUE], rows, iv_percentile={("SPY", MON): 0.40})
    f = run(market_, RULES).funnel
    assert vars(f[MON]) == dict(in_dte_window=8, in_delta_window=4, with_long_leg=3, liquid=2, enough_credit=1,
                                past_iv_filter=1, ranked=1)
    assert set(vars(f[TUE]).values()) == {0}
    assert run(market_, replace(RULES, min_iv_percentile=0.40)).funnel[MON].past_iv_filter == 1
    assert run(market_, replace(RULES, min_iv_percentile=0.41)).funnel[MON].past_iv_filter == 0
    missing = replace(market_, iv_percentile={})
    assert run(missing, replace(RULES, min_iv_percentile=0.01)).funnel[MON].past_iv_filter == 0
    for tight in [dict(min_open_interest=101), dict(min_volume=11), dict(max_relative_spread=0.39)]:
        assert run(market_, replace(RULES, **tight)).funnel[MON].liquid <= 1     # LONG is 0.20 wide around 0.50
        assert run(market_, replace(RULES, **tight)).candidates == []


def test_the_profit_target_reads_the_mid_and_pays_the_fill():
    result = run(market(
        [MON, TUE, WED, THU],
        puts(MON, offered=True),
        puts(TUE, (0.30, 0.50), (0.15, 0.25)),      # mid 0.20 > 0.35 x 0.50
        puts(WED, (0.20, 0.40), (0.10, 0.20)),      # mid 0.15 <= 0.175; fill 0.35 - 0.125
        puts(THU, (0.01, 0.02), (0.00, 0.01)),
    ), RULES)
    [c] = result.candidates
    assert (c.exit_date, c.exit_reason) == (WED, Exit.PROFIT_TARGET)
    assert c.exit_cost == pytest.approx(0.225)
    assert c.exit_mid == pytest.approx(0.15)
    assert c.pnl_per_contract == pytest.approx(100 * (0.50 - 0.225) - 4)        # a round trip of one lot is 4.00
    assert [row.positions for row in result.account] == [1, 1, 0, 0]
    assert result.account[1].marks == pytest.approx(-20)
    books_balance(result, RULES)


def test_a_gap_through_the_stop_pays_the_market_not_the_stop():
    result = run(market(
        [MON, TUE],
        puts(MON, offered=True),
        puts(TUE, (4.00, 4.40), (1.00, 1.40)),      # mid 3.00, stop at 1.125; fill 4.30 - 1.10
    ), RULES)
    [c] = result.candidates
    assert (c.exit_date, c.exit_reason) == (TUE, Exit.STOP_LOSS)
    assert c.exit_cost == pytest.approx(3.20)
    assert c.pnl_per_contract == pytest.approx(100 * (0.50 - 3.20) - 4)
    books_balance(result, RULES)


def test_of_several_rules_on_one_day_the_first_in_order_closes_the_trade():
    def exit_of(rules, short, long):
        [c] = run(market([MON, TUE, WED], puts(MON, SHORT_MID, LONG_MID, offered=True), puts(TUE, short, long),
                         puts(WED, short, long)), rules).candidates
        return c.exit_reason if c.exit_date == TUE else None

    unchanged, doubled, nothing = (SHORT_MID, LONG_MID), ((1.75, 2.25), LONG_MID), ((0.1, 0.2), (0.1, 0.2))
    degenerate = replace(AT_MID, profit_target=0.0, stop_loss=0.0)
    assert exit_of(degenerate, *unchanged) == Exit.PROFIT_TARGET        # 0.50 <= 0.50 and 0 >= 0: both hold
    assert exit_of(replace(AT_MID, exit_dte=30), *nothing) == Exit.PROFIT_TARGET
    assert exit_of(replace(AT_MID, exit_dte=30), *doubled) == Exit.STOP_LOSS     # 1.25 - 0.50 >= 1.25 x 0.50
    assert exit_of(replace(AT_MID, exit_dte=30), *unchanged) == Exit.TIME        # 30 days left on Tuesday
    assert exit_of(replace(AT_MID, exit_dte=29), *unchanged) is None
    assert exit_of(replace(AT_MID, stop_loss=1.5), *doubled) == Exit.STOP_LOSS   # 0.75 >= 0.75: reaching is enough


@pytest.mark.parametrize("printed", [FRI, date(2021, 3, 6), date(2021, 3, 7)])
@pytest.mark.parametrize("close, cost, costs", [
    (95.00, 0.0, 0.0),      # at the money: worthless, and free
    (94.99, 0.01, 7.0),     # commission of two legs and the fee
    (93.00, 2.0, 7.0),
    (80.00, 5.0, 7.0),      # capped by the long leg
])
def test_expiry_settles_at_the_intrinsic_value_of_the_official_close(printed, close, cost, costs):
    # No quotes from Tuesday to Thursday, and on Friday quotes that would be a profit and are not read.
    result = run(market(
        [MON, TUE, WED, THU, FRI, MON2],
        puts(MON, offered=True, expiry=printed),
        puts(FRI, (0.01, 0.02), (0.00, 0.01), expiry=printed),
        close={FRI: close},
    ), RULES)
    [c] = result.candidates
    assert (c.expiry, c.dte) == (FRI, 4)
    assert (c.exit_date, c.exit_reason, c.stale_marks) == (FRI, Exit.EXPIRY, 3)
    assert c.exit_cost == pytest.approx(cost)
    assert c.pnl_per_contract == pytest.approx(100 * (0.50 - cost) - 2 - costs)
    books_balance(result, RULES)


def test_an_expiry_on_a_closed_day_settles_on_the_session_before_and_one_after_the_end_does_not():
    [c] = run(market([MON, TUE, THU], puts(MON, offered=True, expiry=WED), close={TUE: 96.0}), RULES).candidates
    assert (c.expiry, c.exit_date, c.exit_reason, c.stale_marks) == (WED, TUE, Exit.EXPIRY, 0)
    for printed, effective in [(FRI, FRI), (date(2021, 3, 6), FRI)]:
        [c] = run(market([MON, TUE, THU], puts(MON, offered=True, expiry=printed)), RULES).candidates
        assert (c.expiry, c.exit_date, c.exit_reason, c.stale_marks) == (effective, THU, Exit.END_OF_PERIOD, 2)
    good_friday, saturday = date(2021, 4, 2), date(2021, 4, 3)
    thursday, monday = date(2021, 4, 1), date(2021, 4, 5)
    [c] = run(market([MON, thursday, monday], puts(MON, offered=True, expiry=saturday), close={thursday: 96.0}),
              RULES).candidates
    assert c.expiry == thursday < good_friday
    assert (c.dte, c.exit_date, c.exit_reason) == (31, thursday, Exit.EXPIRY)
    with pytest.raises(ValueError, match="no session to expire on"):
        run(market([MON, TUE], puts(MON, offered=True, expiry=MON)), replace(RULES, min_dte=0))


ASSIGNABLE = replace(RULES, side="call", stop_loss=100.0)
EXPIRY = date(2021, 3, 19)


def call_trade(put, dividend, close, *, strike=319.0, short=(2.8, 3.0), long=(0.8, 1.0), eve=TUE, rate=0.01,
               rules=ASSIGNABLE, ex_date=None):
    dividends = {} if dividend is None else {"SPY": [(ex_date or {MON: TUE, TUE: WED, WED: THU}[eve], dividend)]}
    result = run(market(
        [MON, TUE, WED, THU],
        calls(MON, strike=strike, put=put, offered=True, expiry=EXPIRY),
        *[calls(d, short, long, strike=strike, put=put, expiry=EXPIRY) for d in (TUE, WED, THU)],
        close={MON: close, TUE: close, WED: close, THU: close}, dividends=dividends,
        rate={d: rate for d in (MON, TUE, WED, THU)},
    ), rules)
    [c] = result.candidates
    books_balance(result, rules)
    return c


def test_a_call_is_assigned_where_the_dividend_exceeds_the_put_and_the_interest():
    c = call_trade((0.36, 0.38), 1.53, 321.0)       # the 319 call, put 0.37, D 1.53: yes
    assert (c.exit_date, c.exit_reason) == (TUE, Exit.ASSIGNED)
    assert c.exit_cost == pytest.approx(2.00 + 1.53)
    assert c.pnl_per_contract == pytest.approx(100 * (0.50 - 3.53) - 2 - 7)
    c = call_trade((0.36, 0.38), 1.53, 330.0)       # both legs in the money: the loss exceeds width - credit
    assert c.exit_cost == pytest.approx(5.00 + 1.53)
    assert -c.pnl_per_contract > 100 * c.max_loss + 4
    c = call_trade((0.36, 0.38), 1.53, 321.0, rules=replace(ASSIGNABLE, profit_target=-10.0))   # before the target
    assert c.exit_reason == Exit.ASSIGNED


def test_a_call_whose_extrinsic_value_is_below_the_dividend_is_not_assigned_for_that_alone():
    # The 447 call at 450: extrinsic 0.41 < D 1.37, but the put is worth 2.00.
    c = call_trade((1.98, 2.02), 1.37, 450.0, strike=447.0, short=(3.36, 3.46), long=(0.8, 1.0))
    assert c.exit_reason == Exit.END_OF_PERIOD


def test_assignment_needs_the_eve_a_known_dividend_the_money_a_quote_and_cheap_interest():
    put, d = (0.36, 0.38), 1.53
    never = Exit.END_OF_PERIOD
    assert call_trade(put, None, 321.0).exit_reason == never                     # no dividend known
    assert call_trade(put, d, 319.0).exit_reason == never                        # not in the money
    assert call_trade(put, d, 321.0, eve=MON).exit_reason == never               # never on the entry day
    assert call_trade(put, d, 321.0, eve=WED).exit_date == WED
    assert call_trade(put, d, 321.0, rate=0.10).exit_reason == never             # 319 x (1 - e^(-0.1 x 17/365)) = 1.48
    assert call_trade(NAN, d, 321.0).exit_reason == never                        # the put has no quote
    assert call_trade(put, d, 321.0, short=(3.0, 2.8)).exit_reason == never      # crossed: the day is stale
    assert call_trade(put, d, 321.0, ex_date=date(2021, 3, 22)).exit_reason == never    # after the expiry


def test_a_day_without_a_quote_carries_the_mark_is_counted_and_fires_no_rule():
    short, long = puts(TUE, (0.01, 0.02), (0.00, 0.01))     # would be a full profit if a missing leg were zero
    long_without_quote = puts(WED, (0.01, 0.02), NAN)
    crossed = puts(THU, (4.4, 4.0), (1.0, 1.4))
    rules = replace(RULES, exit_dte=30)                      # time is up from Tuesday on
    result = run(market(
        [MON, TUE, WED, THU, FRI], puts(MON, offered=True), [short], long_without_quote, crossed, puts(FRI),
    ), rules)
    [c] = result.candidates
    assert [row.equity for row in result.account[:4]] == [result.account[0].equity] * 4
    assert [row.marks for row in result.account[:4]] == [pytest.approx(-60)] * 4
    assert (c.exit_date, c.exit_reason, c.stale_marks) == (FRI, Exit.TIME, 3)
    assert c.exit_cost == pytest.approx(1.15 - 0.45)
    books_balance(result, rules)
    result = run(market([MON, TUE, WED], puts(MON, offered=True)), rules)        # nothing more to the end
    [c] = result.candidates
    assert (c.exit_date, c.exit_reason, c.stale_marks) == (WED, Exit.END_OF_PERIOD, 2)
    assert c.pnl_per_contract == pytest.approx(100 * (0.50 - 0.60) - 2)


def test_a_candidate_is_shrunk_to_the_heat_that_is_left_and_rejected_by_the_limit_that_leaves_nothing():
    def contracts(rules, *tickers, **more):
        rows = [puts(MON, SHORT_MID, LONG_MID, offered=True, ticker=t) for t in tickers]
        result = run(market([MON, TUE], *rows, **more), rules)
        books_balance(result, rules)
        return [(c.ticker, c.contracts, c.reason.name) for c in result.candidates], result.account[0]

    # Maximum loss per contract 454. 10 % of 100,000 is 22 lots; 5 % is 11, which leaves room for none.
    risky = replace(AT_MID, fixed_contracts=None, fraction=0.10)
    assert contracts(risky, "SPY")[0] == [("SPY", 22, "ADMITTED")]
    admitted, account = contracts(replace(risky, max_heat=0.05), "SPY", "QQQ")
    assert admitted == [("QQQ", 11, "ADMITTED"), ("SPY", 0, "MAX_HEAT")]         # of equals, the alphabet
    assert account.open_max_loss == pytest.approx(11 * 454)
    assert account.heat == pytest.approx(11 * 454 / (100_000 - 22))
    assert contracts(replace(risky, max_heat_per_underlying=0.05), "SPY", "QQQ")[0] == [
        ("QQQ", 11, "ADMITTED"), ("SPY", 11, "ADMITTED")]
    assert contracts(replace(risky, max_heat_group=0.05), "SPY", "QQQ", "TLT")[0] == [
        ("QQQ", 11, "ADMITTED"), ("SPY", 0, "MAX_HEAT_GROUP"), ("TLT", 22, "ADMITTED")]   # 9,997.80 / 454 = 22.02
    assert contracts(replace(risky, max_heat_group=0.05), "GLD", "QQQ", "SPY")[0] == [
        ("GLD", 22, "ADMITTED"), ("QQQ", 11, "ADMITTED"), ("SPY", 0, "MAX_HEAT_GROUP")]   # GLD does not count
    # Current equity: after 11 lots the commissions (22) are gone, and 4.994 % of the rest is no longer 11 lots.
    assert contracts(replace(risky, max_heat_per_underlying=0.04994), "QQQ", "SPY")[0] == [
        ("QQQ", 11, "ADMITTED"), ("SPY", 10, "ADMITTED")]
    two = puts(MON, SHORT_MID, LONG_MID, offered=True) + puts(MON, SHORT_MID, LONG_MID, offered=True, expiry=EXPIRY)
    result = run(market([MON, TUE], two), replace(risky, max_heat_per_underlying=0.05))
    assert [(c.expiry, c.contracts, c.reason) for c in result.candidates] == [
        (EXPIRY, 11, Rejection.ADMITTED), (FAR, 0, Rejection.MAX_HEAT_PER_UNDERLYING)]
    # Never rounded up to one; and of size zero it breaches no heat limit.
    assert contracts(replace(risky, fraction=0.001, max_heat=0.001), "SPY")[0] == [("SPY", 0, "SIZE_ZERO")]
    assert contracts(replace(risky, fraction=0.0), "SPY")[0] == [("SPY", 0, "VETOED")]
    assert contracts(replace(AT_MID, fixed_contracts=250), "SPY")[0] == [("SPY", 0, "NO_CASH")]
    assert contracts(risky, "SPY", multiplier={("SPY", MON): 0.5})[0] == [("SPY", 11, "ADMITTED")]
    assert contracts(risky, "SPY", multiplier={("SPY", MON): 0.0})[0] == [("SPY", 0, "VETOED")]
    assert contracts(risky, "SPY", max_contracts=lambda ticker, day: 3)[0] == [("SPY", 3, "ADMITTED")]
    fixed = replace(AT_MID, fixed_contracts=3)
    assert contracts(fixed, "SPY", multiplier={("SPY", MON): 0.5})[0] == [("SPY", 1, "ADMITTED")]
    assert contracts(fixed, "SPY", multiplier={("SPY", MON): 0.3})[0] == [("SPY", 0, "SIZE_ZERO")]
    # The count limits come before the heat.
    assert contracts(replace(risky, max_positions=1), "SPY", "QQQ")[0][1] == ("SPY", 0, "MAX_POSITIONS")
    assert contracts(replace(risky, max_entries_per_day=1), "SPY", "QQQ")[0][1] == ("SPY", 0, "MAX_ENTRIES_PER_DAY")


def test_the_spread_that_is_open_is_not_opened_again_until_it_is_closed():
    rules = replace(RULES, max_positions=1)
    result = run(market(
        [MON, TUE, WED, THU],
        puts(MON, offered=True),
        puts(TUE, offered=True),
        puts(WED, (0.54, 0.60), (0.40, 0.44), offered=True),     # mid 0.15: closed, then sold again for 0.125
        puts(THU, (0.54, 0.60), (0.40, 0.44)),
    ), rules)
    assert [(c.date, c.reason) for c in result.candidates] == [
        (MON, Rejection.ADMITTED), (TUE, Rejection.ALREADY_OPEN), (WED, Rejection.ADMITTED)]
    first, second, third = result.candidates
    assert (first.exit_date, first.exit_reason) == (WED, Exit.PROFIT_TARGET)
    # Rejected, it says how it would have ended: as the one that was admitted, one day later.
    assert (second.contracts, second.exit_date, second.exit_reason) == (0, WED, Exit.PROFIT_TARGET)
    assert second.pnl_per_contract == pytest.approx(first.pnl_per_contract)
    # Sold today, it is not examined today.
    assert (third.exit_date, third.exit_reason) == (THU, Exit.END_OF_PERIOD)
    books_balance(result, rules)


def test_a_breaker_stops_admissions_while_its_measure_is_outside_and_no_longer():
    # Ten lots go from 0.50 to 3.50: 3,000 of 100,000 on Tuesday. They stay open.
    days = [MON, TUE, WED, THU, FRI, MON2]
    fallen = (4.00, 4.50), LONG_MID
    rows = [puts(MON, SHORT_MID, LONG_MID, offered=True)]
    rows += [puts(day, *fallen) for day in days[1:]]
    rows += [calls(day, SHORT_MID, LONG_MID, offered=True, ticker="QQQ", strike=105.0 + i)
             for i, day in enumerate(days[1:])]
    rules = replace(AT_MID, side="both", fixed_contracts=10, stop_loss=100.0, max_positions=100)

    def by_day(vix=(), **breakers):
        changed = replace(rules, **breakers)
        result = run(market(days, *rows, vix=dict(vix)), changed)
        books_balance(result, changed)
        return [reasons(result, day)[0][1].name for day in days[1:]]

    free = "ADMITTED"
    assert by_day() == [free] * 5
    assert by_day(max_day_loss=0.02) == ["BREAKER_DAY", free, free, free, free]
    assert by_day(max_day_loss=0.031) == [free] * 5
    assert by_day(max_week_loss=0.03) == ["BREAKER_WEEK"] * 4 + [free]       # against 100,000, then against Friday
    assert by_day(max_drawdown=0.03) == ["BREAKER_DRAWDOWN"] * 5
    assert by_day(max_day_loss=0.02, max_week_loss=0.03, max_drawdown=0.03) == [
        "BREAKER_DAY", "BREAKER_WEEK", "BREAKER_WEEK", "BREAKER_WEEK", "BREAKER_DRAWDOWN"]
    assert by_day(max_day_loss=0.03, commission=0.0)[:2] == ["BREAKER_DAY", free]     # 3,000 / 100,000: reached
    assert by_day(max_drawdown=0.031, commission=10.0) == ["BREAKER_DRAWDOWN"] * 5    # 3,200 from the initial equity
    assert by_day({WED: 50.0, THU: 49.9, FRI: float("nan")}, max_vix=50.0) == [free, "BREAKER_VIX", free, free, free]


def test_drawdown_is_from_the_highest_recorded_equity():
    # Ten lots: 100,250 on Tuesday, 99,750 on Wednesday.
    rows = [puts(MON, SHORT_MID, LONG_MID, offered=True), puts(TUE, (0.75, 1.25), LONG_MID),
            puts(WED, (1.25, 1.75), LONG_MID), calls(WED, SHORT_MID, LONG_MID, offered=True)]
    rules = replace(AT_MID, side="both", fixed_contracts=10, commission=0.0)
    for limit, reason in [(0.0049, Rejection.BREAKER_DRAWDOWN), (0.0050, Rejection.ADMITTED)]:    # 500 / 100,250
        result = run(market([MON, TUE, WED, THU], *rows), replace(rules, max_drawdown=limit))
        assert [row.equity for row in result.account[:3]] == [100_000, 100_250, 99_750]
        assert reasons(result, WED) == [("SPY", reason)]


def test_the_end_of_the_period_closes_at_the_last_mark_after_the_last_admissions():
    rows = [puts(MON, offered=True), puts(TUE, (0.90, 1.10), (0.40, 0.60)),
            puts(TUE, offered=True, ticker="QQQ")]
    result = run(market([MON, TUE], *rows), RULES)
    old, new = result.candidates
    assert (old.exit_date, old.exit_reason, old.exit_cost) == (TUE, Exit.END_OF_PERIOD, pytest.approx(0.50))
    assert old.pnl_per_contract == pytest.approx(100 * (0.50 - 0.50) - 2)       # at the mid, without costs
    assert (new.date, new.exit_date, new.exit_reason) == (TUE, TUE, Exit.END_OF_PERIOD)
    assert new.pnl_per_contract == pytest.approx(100 * (0.50 - 0.60) - 2)
    assert result.account[-1].positions == 0
    assert result.account[-1].marks == 0
    assert result.account[-1].exits == 2
    books_balance(result, RULES)
    # What is open on the last day still takes its place: a longer history admits the same.
    one = replace(RULES, max_positions=1)
    assert run(market([MON, TUE], *rows), one).candidates[1].reason == Rejection.MAX_POSITIONS
    assert run(market([MON, TUE, WED], *rows), one).candidates[1].reason == Rejection.MAX_POSITIONS


def test_candidates_rank_by_score_and_neither_ticker_nor_row_order_matters_nor_the_kind_of_row():
    better = [chain_row(MON, 95.0, put=(1.10, 1.30), delta=0.90, ticker="SPY"),
              chain_row(MON, 90.0, put=LONG, delta=0.97, ticker="SPY"),
              chain_row(MON, 94.0, put=SHORT, delta=0.90, ticker="SPY"),
              chain_row(MON, 89.0, put=LONG, delta=0.97, ticker="SPY")]
    rows = better + puts(MON, offered=True, ticker="QQQ") + calls(MON, offered=True, ticker="QQQ")
    rules = replace(RULES, side="both", per_day=2, max_positions=2)
    result = run(market([MON, TUE], rows), rules)
    assert [(c.ticker, c.short_strike, c.reason.name) for c in result.candidates] == [
        ("SPY", 95.0, "ADMITTED"), ("QQQ", 95.0, "ADMITTED"), ("SPY", 94.0, "MAX_POSITIONS"),
        ("QQQ", 105.0, "MAX_POSITIONS")]
    assert [c.ticker for c in run(market([MON, TUE], rows), replace(rules, per_day=1)).candidates].count("SPY") == 1
    assert run(market([MON, TUE], rows[::-1]), rules) == result
    dtype = np.dtype([("ticker", "U4"), *CHAIN.descr])
    records = np.array([tuple(row[name] for name in dtype.names) for row in rows], dtype)
    structured = run(market([MON, TUE], records), rules)
    assert [(c.ticker, c.short_strike) for c in structured.candidates][0] == ("SPY", 95.0)
    assert structured.candidates[0].delta == 1 - float(np.float32(0.90))
    assert as_date(np.datetime64("2021-03-01")) == structured.candidates[0].date == MON
