"""Early assignment of short calls on the eve of an ex-dividend date: who exercises, what it costs, and when it is off.

Exercise is rational where D > P(K) + K (1 - e^(-r t)): the dividend against the put that is given up and the interest
on the strike. "The call's extrinsic value is below the dividend" is another rule, and wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mahler.exits import Costs, ExitRule
from mahler.schema import Exit, Side
from tests.handmade import HOLD, Spread, market, of_spread, sessions
from tests.markets import Market, Run, run_market

DAYS = sessions("2019-12-09", 12)            # Monday 9 to Tuesday 24 December; the 12th is a Thursday
EVE, EX_DATE = 3, DAYS[4]                    # Thursday and Friday
EXPIRY = DAYS[9]                             # Friday 20 December, 8 calendar days after the eve
COSTS = Costs(commission=1.0, assignment_fee=5.0)


def call(**changed) -> Spread:
    """The 319/324 call of domain.md, sold for 0.50 on Monday: on the eve it is 2.00 in the money, its put is 0.37."""
    prices = {"short": 319.0, "width": 5.0, "offered": [0], "expiry": EXPIRY, "side": Side.CALL, "put": 0.37,
              "cost": [0.5, *[2.0] * 11]}
    return Spread(**prices | changed)


def traced(spread: Spread, *, ex_date: np.datetime64 | None = EX_DATE, dividend: float = 1.53, close=321.0,
           **changed) -> tuple[Market, Run]:
    """The market of one call spread whose ticker pays `dividend` on `ex_date`, and what becomes of it."""
    paid = (np.array([] if ex_date is None else [ex_date], dtype="datetime64[D]"),
            np.array([] if ex_date is None else [dividend]))
    made = market(DAYS, [spread], close=close, **{"costs": COSTS, "dividends": {"SPY": paid}, "rate": 0.015} | changed)
    return made, run_market(made)


def exit_of(run: Run, name: str):
    """One column of the exit of the only candidate."""
    value, = run.exits[name]
    return value


# ---- the two worked cases of domain.md -------------------------------------------------------------------------------


def test_the_319_call_with_a_put_of_37_cents_is_assigned_before_a_dividend_of_1_53() -> None:
    made, run = traced(call())
    carry = 319.0 * (1.0 - np.exp(-0.015 * 8 / 365))
    assert 0.37 + carry == pytest.approx(0.475, abs=0.001)                   # far less than 1.53
    assert run.paths.assigned_day.tolist() == [EVE] and exit_of(run, "day") == EVE
    assert Exit(exit_of(run, "reason")) is Exit.ASSIGNED
    _, without = traced(call(), ex_date=None)                                # it is the dividend that did it
    assert Exit(exit_of(without, "reason")) is Exit.EXPIRY


def test_the_447_call_whose_extrinsic_value_is_below_the_dividend_but_whose_put_is_not_is_kept() -> None:
    # At 450 the call is worth 3.41: extrinsic 0.41 < D = 1.37, which "extrinsic below the dividend" would exercise.
    spread = call(short=447.0, put=2.00, cost=[0.5, *[3.41 - 0.25] * 11], long=0.25)
    made, run = traced(spread, dividend=1.37, close=450.0)
    short = made.tables["SPY"]["call_ask"][(made.tables["SPY"]["strike"] == 447.0)
                                           & (made.tables["SPY"]["date"] == DAYS[EVE])]
    assert short.tolist() == [pytest.approx(3.41)] and 3.41 - (450.0 - 447.0) < 1.37
    assert run.paths.assigned_day.tolist() == [-1] and np.isnan(run.paths.assigned_cost).all()
    assert Exit(exit_of(run, "reason")) is Exit.EXPIRY
    _, cheaper = traced(replace(spread, put=1.00), dividend=1.37, close=450.0)      # the put decides, not the call
    assert Exit(exit_of(cheaper, "reason")) is Exit.ASSIGNED


def test_the_interest_on_the_strike_until_expiry_counts_against_exercise() -> None:
    # 319 (1 - e^(-r 8/365)) is 1.16 at r = 16.62 %: with the put, 1.53.
    _, below = traced(call(), rate=0.166)
    _, above = traced(call(), rate=0.1665)
    assert [Exit(exit_of(run, "reason")) for run in (below, above)] == [Exit.ASSIGNED, Exit.EXPIRY]


# ---- what it costs ---------------------------------------------------------------------------------------------------


def test_an_assigned_spread_pays_intrinsic_value_and_the_dividend_two_commissions_and_the_fee() -> None:
    _, run = traced(call())
    assert exit_of(run, "cost") == pytest.approx(2.00 + 1.53)                # 321 - 319, and the dividend owed
    assert exit_of(run, "costs") == pytest.approx(2 * 1.00 + 5.00)
    assert exit_of(run, "pnl") == pytest.approx(100 * (0.50 - 3.53) - 2.00 - 7.00)
    trade = run.ledger.trades
    assert trade["exit_reason"].tolist() == ["assigned"] and trade["contracts"].tolist() == [10]
    assert trade["pnl"] == pytest.approx([10 * (100 * (0.50 - 3.53) - 9.00)])
    assert trade["commission"] == pytest.approx([10 * 9.00])                 # the fee is a cost, not slippage
    assert trade["slippage"] == pytest.approx([0.0])
    assert run.ledger.account["equity"][-1] == pytest.approx(100_000 - 10 * 312.0)


def test_the_loss_of_an_assigned_spread_may_exceed_width_less_credit() -> None:
    _, run = traced(call(cost=[0.5, *[5.0] * 11]), close=330.0)              # both legs in the money
    assert exit_of(run, "cost") == pytest.approx(5.00 + 1.53)
    max_loss = 100 * (5.00 - 0.50) + 4 * 1.00
    assert -exit_of(run, "pnl") == pytest.approx(max_loss + 153.00 + 5.00)


def test_the_quote_is_not_asked_what_an_assigned_spread_costs() -> None:
    wide = call(half=[0.0, *[0.2] * 11])
    runs = [traced(spread, fill_travel=p)[1] for spread, p in ((wide, 0.5), (wide, 1.0), (call(), 1.0))]
    assert [exit_of(run, "cost") for run in runs] == pytest.approx([3.53] * 3)


# ---- when ------------------------------------------------------------------------------------------------------------


def test_assignment_is_known_and_paid_on_the_eve_which_may_be_a_friday() -> None:
    monday = DAYS[5]
    assert str(monday) == "2019-12-16" and str(DAYS[4]) == "2019-12-13"
    _, run = traced(call(), ex_date=monday)
    assert exit_of(run, "day") == 4
    account = run.ledger.account
    assert account["positions"].tolist() == [1] * 4 + [0] * 8                # its capacity and heat are free that day
    assert account["open_max_loss"][4] == 0.0 and account["exits"][4] == 1


def test_assignment_comes_before_a_target_a_stop_and_the_last_day_of_the_same_session() -> None:
    at_once = ExitRule(profit_target=0.01, stop_loss=0.01, exit_dte=8)       # of which each fires on the eve
    quiet = [0.5, 0.499, 0.499]                                              # and none before it
    for on_the_eve in (0.1, 2.0):
        spread = call(cost=[*quiet, *[on_the_eve] * 9])
        _, run = traced(spread, exit=at_once)
        _, other = traced(spread, exit=at_once, ex_date=None)
        assert Exit(exit_of(run, "reason")) is Exit.ASSIGNED and exit_of(run, "day") == EVE
        assert Exit(exit_of(other, "reason")) in (Exit.PROFIT_TARGET, Exit.STOP_LOSS) and exit_of(other, "day") == EVE


def test_what_was_closed_before_the_eve_is_not_assigned() -> None:
    _, run = traced(call(), exit=replace(HOLD, stop_loss=1.0))               # 2.00 against 0.50 on Tuesday
    assert Exit(exit_of(run, "reason")) is Exit.STOP_LOSS and exit_of(run, "day") == 1


@pytest.mark.parametrize(("ex_date", "assigned"), [
    (EXPIRY, True),                          # the shares are called on the eve of the last day
    (EXPIRY + 1, False),                     # ex on the day after: the option is gone
    (EXPIRY + 3, False),
    (DAYS[1], False),                        # the eve is the day of entry: what is sold today is not examined today
    (DAYS[0], False),
])
def test_an_ex_date_counts_from_the_session_after_entry_to_the_expiry(ex_date, assigned) -> None:
    _, run = traced(call(), ex_date=ex_date)
    assert (Exit(exit_of(run, "reason")) is Exit.ASSIGNED) == assigned
    assert (run.paths.assigned_day[0] >= 0) == assigned


def test_an_eve_that_does_not_pay_is_followed_by_one_that_does() -> None:
    made = market(DAYS, [call()], close=321.0, costs=COSTS, rate=0.015,
                  dividends={"SPY": (DAYS[[2, 4, 6]], np.array([0.10, 1.53, 9.00]))})
    run = run_market(made)
    assert exit_of(run, "day") == 3 and exit_of(run, "cost") == pytest.approx(3.53)


# ---- when not --------------------------------------------------------------------------------------------------------


def test_without_a_known_dividend_nothing_is_ever_assigned_and_the_calls_sold_blindly_are_counted() -> None:
    _, run = traced(call(), ex_date=None)
    assert run.paths.assignment_known.tolist() == [False] and run.paths.assigned_day.tolist() == [-1]
    assert run.ledger.counts["calls_without_dividends"] == 1.0
    other = replace(call(), ticker="QQQ")
    paid = {"SPY": (np.array([EX_DATE]), np.array([1.53])), "QQQ": (DAYS[:0], np.zeros(0))}
    run = run_market(market(DAYS, [call(), other], close=321.0, dividends=paid, rate=0.015))
    assert run.paths.assignment_known.tolist() == [False, True]              # in the order of tickers: QQQ, SPY
    ended = {run.candidates["ticker"][i]: Exit(run.exits["reason"][i]) for i in range(2)}
    assert ended == {0: Exit.EXPIRY, 1: Exit.ASSIGNED}
    assert run.ledger.counts["calls_without_dividends"] == 1.0               # of the two that were sold


def test_a_call_out_of_the_money_at_the_official_close_is_not_assigned_whatever_the_quotes_say() -> None:
    closes = np.full(len(DAYS), 321.0)
    closes[EVE] = 319.0                                                      # at the money, not in it
    _, run = traced(call(put=0.05), close=closes)
    assert exit_of(run, "day") != EVE
    closes[EVE] = 319.01
    _, run = traced(call(put=0.05), close=closes)
    assert exit_of(run, "day") == EVE and exit_of(run, "cost") == pytest.approx(0.01 + 1.53)


@pytest.mark.parametrize(("close", "cost"), [(310.0, 2.0), (321.0, 0.0625), (330.0, 0.0625)])
def test_a_short_put_is_never_assigned_early_however_little_it_is_worth(close, cost) -> None:
    put = Spread(short=319.0, width=5.0, cost=[0.5, *[cost] * 11], offered=[0], expiry=EXPIRY, side=Side.PUT)
    _, run = traced(put, close=close)
    assert Exit(exit_of(run, "reason")) is Exit.EXPIRY and run.paths.assigned_day.tolist() == [-1]
    assert run.paths.assignment_known.all()


def without(made: Market, strike: float, day: int, **cells: float) -> Market:
    """`made` with the quotes of one strike and day replaced by `cells`, or without that row."""
    table = made.tables["SPY"]
    row = (table["strike"] == strike) & (table["date"] == DAYS[day])
    assert row.sum() == 1
    if not cells:
        return replace(made, tables={"SPY": {c: v[~row] for c, v in table.items()}})
    return replace(made, tables={"SPY": {c: np.where(row, cells[c], v) if c in cells else v for c, v in table.items()}})


@pytest.mark.parametrize(("strike", "cells"), [
    (319.0, {}), (324.0, {}),                                # no row of the short leg, of the long leg
    (319.0, {"call_bid": 0.0, "call_ask": 0.0}),             # a row, but nobody asks
    (324.0, {"call_bid": 0.5, "call_ask": 0.25}),            # crossed
    (319.0, {"put_bid": 0.0, "put_ask": 0.0}),               # the put that decides has no quote
    (319.0, {"put_bid": 0.5, "put_ask": 0.25}),
])
def test_a_quote_that_is_missing_on_the_eve_leaves_the_call_unassigned(strike, cells) -> None:
    made, whole = traced(call())
    run = run_market(without(made, strike, EVE, **cells))
    assert exit_of(whole, "day") == EVE
    assert Exit(exit_of(run, "reason")) is Exit.EXPIRY and run.paths.assigned_day.tolist() == [-1]
    the_put_is = any(name.startswith("put") for name in cells)               # and the spread itself is quoted
    assert exit_of(run, "stale_marks") == (0 if the_put_is else 1)
    marks = run.ledger.account["marks"]
    assert marks[EVE] == pytest.approx(marks[EVE - 1]) == pytest.approx(-2_000.0)    # 2.00 before, 2.00 carried


def test_a_missing_quote_on_any_other_day_changes_no_assignment() -> None:
    made, whole = traced(call())
    for day in (1, 2, 5):
        run = run_market(without(made, 319.0, day))
        assert exit_of(run, "day") == EVE and exit_of(run, "pnl") == exit_of(whole, "pnl")


def test_of_two_spreads_only_the_one_whose_own_put_is_cheap_is_assigned() -> None:
    deep, shallow = call(short=300.0, put=0.02, cost=[0.5, *[5.0] * 11]), call(short=319.0, put=1.50)
    made = market(DAYS, [deep, shallow], close=321.0, costs=COSTS, rate=0.015,
                  dividends={"SPY": (np.array([EX_DATE]), np.array([1.53]))})
    run = run_market(made)
    assert run.paths.assigned_day[of_spread(run, deep)] == EVE
    assert run.paths.assigned_day[of_spread(run, shallow)] == -1             # 1.50 + 0.105 of interest > 1.53
