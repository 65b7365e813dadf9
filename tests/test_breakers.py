"""Breakers, both options of conf/breaker/, on markets in which a reader sees the measure and the session it recovers.

Ten lots of one spread, sold on the first session, are the whole account: a dollar on their cost is 1,000 dollars,
one percent of the initial 100,000. On every session a small spread is offered whose price never moves, and what
is said of it is what a test looks at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mahler.commands import backtest as command
from mahler.schema import Rejection
from mahler.simulate import Breaker, stopped_for_good
from tests.conftest import default_config
from tests.handmade import OFF, Spread, market, sessions, verdicts
from tests.markets import Market, run_market

YES, DAY, WEEK, DRAWDOWN, VIX = "admitted", "breaker_day", "breaker_week", "breaker_drawdown", "breaker_vix"


@pytest.fixture(scope="module")
def options() -> dict[str, Breaker]:
    """The options of conf/breaker/, as a user picks them."""
    return {"default": default_config().breaker, "off": default_config("breaker=off").breaker,
            "production": default_config("breaker=production").breaker}


def book(first: str, costs: list[float], **changed) -> Market:
    """The market of the head of this file: `costs`, dollars per share, from the session `first` on."""
    days = sessions(first, len(costs))
    expiry = sessions(first, len(costs) + 40)[-1]
    held = Spread(short=280.0, width=50.0, cost=costs, offered=[0], expiry=expiry)
    probes = [Spread(short=200.0 - 2 * d, width=1.0, cost=0.125, offered=[d], expiry=expiry)
              for d in range(1, len(costs))]
    return market(days, [held, *probes], **changed)


def said(made: Market, breaker: Breaker) -> list[str]:
    """What is said of the small spread of each session, from the second on."""
    run = run_market(replace(made, breaker=breaker))
    assert run.contracts[0] == 10 and run.candidates["short_strike"][0] == 280.0
    assert run.candidates["day"].tolist() == list(range(len(made.sessions)))
    return verdicts(run)[1:].tolist()


def equity(made: Market) -> list[float]:
    """Recorded equity, dollars, where nothing stops an admission."""
    return run_market(made).ledger.account["equity"].round(6).tolist()


FALLS_IN_A_DAY = "2019-03-04", [1.0, 3.0, 3.0, 3.0, 3.0]                              # Monday to Friday
FALLS_IN_A_WEEK = "2019-03-04", [1.0, 2.9, 4.7, 6.4, 6.4, 6.4, 6.4]                   # Monday to Tuesday week
FALLS_FROM_ITS_PEAK = "2019-03-06", [11.0, 1.0, 17.5, 17.5, 17.5, 17.25, 17.5]         # Wednesday to Thursday week
CRASHES = "2019-03-05", [17.0, 33.0, 33.0, 33.0, 33.0, 31.5, 31.5]                    # Tuesday to Wednesday week
CRASH_VIX = [20.0, 60.0, 60.0, 60.0, 60.0, 60.0, 20.0]


# ---- each measure, and its recovery ----------------------------------------------------------------------------------


def test_the_options_are_off_by_default_and_what_production_stopped_at(options) -> None:
    assert options["default"] == options["off"] == OFF
    assert options["production"] == Breaker(max_day_loss=0.02, max_week_loss=0.05, max_drawdown=0.15, max_vix=50.0)


@pytest.mark.parametrize("fall", [FALLS_IN_A_DAY, FALLS_IN_A_WEEK, FALLS_FROM_ITS_PEAK, CRASHES])
def test_off_admits_whatever_was_lost_and_whatever_vix_says(options, fall) -> None:
    made = book(*fall, vix=[20.0] + [90.0] * (len(fall[1]) - 1))
    assert set(said(made, options["off"])) == {YES}
    assert YES not in said(made, options["production"])


def test_a_day_loss_of_two_percent_stops_that_day_and_admissions_resume_on_the_next(options) -> None:
    made = book(*FALLS_IN_A_DAY)
    assert equity(made) == [100_000, 98_000, 98_000, 98_000, 98_000]
    assert said(made, options["production"]) == [DAY, YES, YES, YES]
    assert said(made, Breaker(max_day_loss=0.02, max_week_loss=None, max_drawdown=None, max_vix=None)) == [
        DAY, YES, YES, YES]


def test_a_day_loss_just_inside_the_limit_stops_nothing(options) -> None:
    assert said(book("2019-03-04", [1.0, 2.99, 2.99]), options["production"]) == [YES, YES]


def test_a_week_loss_of_five_percent_stops_until_the_calendars_next_week(options) -> None:
    made = book(*FALLS_IN_A_WEEK)
    assert equity(made)[:5] == [100_000, 98_100, 96_300, 94_600, 94_600]     # never two percent in a day
    assert said(made, options["production"]) == [YES, YES, WEEK, WEEK, YES, YES]


def test_a_week_recovers_on_the_session_on_which_its_loss_is_back_inside(options) -> None:
    assert said(book("2019-03-04", [1.0, 2.9, 4.7, 6.4, 5.9]), options["production"]) == [YES, YES, WEEK, YES]


def test_a_drawdown_of_fifteen_percent_of_the_peak_stops_until_equity_is_back_inside(options) -> None:
    # Of a peak of 110,000, 93,500 is 15 % less; of the initial 100,000 it is 6.5 %.
    made = book(*FALLS_FROM_ITS_PEAK)
    assert equity(made) == [100_000, 110_000, 93_500, 93_500, 93_500, 93_750, 93_500]
    assert said(made, options["production"]) == [YES, DAY, DRAWDOWN, DRAWDOWN, YES, DRAWDOWN]


def test_vix_at_fifty_stops_that_day_only_and_a_missing_vix_stops_nothing(options) -> None:
    made = book("2019-03-04", [1.0] * 7, vix=[20.0, 49.99, 50.0, 82.69, np.nan, 49.99, 50.0])
    assert said(made, options["production"]) == [YES, VIX, VIX, YES, YES, VIX]


@pytest.mark.parametrize(("name", "expected"), [
    ("max_day_loss", [DAY, YES, YES, YES, YES, YES]),                        # 16 % on Wednesday
    ("max_week_loss", [WEEK, WEEK, WEEK, YES, YES, YES]),                    # until Monday
    ("max_drawdown", [DRAWDOWN, DRAWDOWN, DRAWDOWN, DRAWDOWN, YES, YES]),    # 14.5 % on Tuesday week
    ("max_vix", [VIX, VIX, VIX, VIX, VIX, YES]),                             # 20 on Wednesday week
])
def test_each_breaker_alone_follows_its_own_measure_through_a_crash_and_no_other(options, name, expected) -> None:
    alone = replace(OFF, **{name: getattr(options["production"], name)})
    assert said(book(*CRASHES, vix=CRASH_VIX), alone) == expected


# ---- against what a loss is measured ---------------------------------------------------------------------------------


def test_the_days_loss_is_against_yesterdays_recorded_equity_not_the_initial(options) -> None:
    made = book("2019-03-04", [1.0, 2.5, 4.0, 4.0, 1.0, 2.9])
    assert equity(made) == [100_000, 98_500, 97_000, 97_000, 100_000, 98_100]
    assert said(made, options["production"]) == [YES] * 5                    # 1.5 % twice is not 3 % in a day
    gained = book("2019-03-04", [3.0, 1.0, 3.1])                             # 102,000, then 99,900: 2.06 % down
    assert said(gained, options["production"]) == [YES, DAY]


def test_yesterdays_equity_is_recorded_after_yesterdays_admissions_have_paid_their_fill(options) -> None:
    # Quotes of the held spread are a dollar wide on Monday and taken whole: 1,000 dollars are gone on entry, and
    # 99,000 are recorded. On Tuesday 97,500: 1.52 % of the recorded, 2.5 % of what there was before the fill.
    made = book("2019-03-04", [2.5, 3.0, 4.0])
    days = made.sessions
    wide = Spread(short=280.0, width=50.0, cost=[2.0, 3.5, 3.5], offered=[0], expiry=made.tables["SPY"]["expiry"][0],
                  half=[0.5, 0.0, 0.0], long=[0.75, 0.25, 0.25])
    probe = Spread(short=200.0, width=1.0, cost=0.125, offered=[1], expiry=wide.expiry)
    made = market(days, [wide, probe], fill_travel=1.0)
    assert equity(made) == [99_000, 97_500, 97_500]
    run = run_market(replace(made, breaker=options["production"]))
    assert verdicts(run).tolist() == [YES, YES]
    just_outside = Spread(**{**vars(wide), "cost": [2.0, 4.0, 4.0]})         # 97,000: 2.02 % of the recorded
    run = run_market(replace(market(days, [just_outside, probe], fill_travel=1.0), breaker=options["production"]))
    assert verdicts(run).tolist() == [YES, DAY]


def test_the_weeks_loss_is_against_the_last_equity_of_the_week_before(options) -> None:
    # 110,000 on Friday; 104,500 on Wednesday is 5 % of that, and more than the account began with.
    made = book("2019-03-07", [11.0, 1.0, 3.0, 5.0, 6.5, 6.5])               # Thursday to Thursday week
    assert equity(made) == [100_000, 110_000, 108_000, 106_000, 104_500, 104_500]
    assert said(made, options["production"]) == [YES, YES, YES, WEEK, WEEK]


def test_the_same_losses_over_a_weekend_are_of_two_weeks(options) -> None:
    in_a_week, over_a_weekend = (book(first, [1.0, 2.9, 4.7, 6.4]) for first in ("2019-03-04", "2019-03-06"))
    assert equity(in_a_week) == equity(over_a_weekend)
    assert said(in_a_week, options["production"]) == [YES, YES, WEEK]
    assert said(over_a_weekend, options["production"]) == [YES, YES, YES]    # Wednesday to Monday


def test_a_week_with_a_holiday_begins_on_its_first_session_and_a_new_year_begins_none(options) -> None:
    labor_day = book("2019-08-30", [1.0, 2.9, 4.7, 6.4, 6.4, 6.4])           # Friday; the Monday is closed
    assert str(labor_day.sessions[1]) == "2019-09-03"
    assert said(labor_day, options["production"]) == [YES, YES, WEEK, WEEK, YES]     # until Monday 9 September
    new_year = book("2018-12-28", [1.0, 2.9, 4.7, 6.4, 6.4])                 # Friday, Monday 31st, Wednesday 2nd, ...
    assert [str(d)[5:] for d in new_year.sessions] == ["12-28", "12-31", "01-02", "01-03", "01-04"]
    assert said(new_year, options["production"]) == [YES, YES, WEEK, WEEK]


def test_a_first_week_that_begins_on_a_thursday_is_against_the_initial_equity(options) -> None:
    made = book("2019-03-06", [1.0, 2.9, 6.1])                               # Wednesday to Friday
    weekly = replace(OFF, max_week_loss=options["production"].max_week_loss)
    assert said(made, weekly) == [YES, WEEK]                                 # 94,900 of 100,000


# ---- several at once -------------------------------------------------------------------------------------------------


def test_of_several_breakers_the_first_in_the_order_of_the_reasons_is_named(options) -> None:
    # 16 % are lost on Wednesday, with VIX at 60: day, week, drawdown and VIX all trip, and let go one by one.
    made = book(*CRASHES, vix=CRASH_VIX)
    assert equity(made) == [100_000, 84_000, 84_000, 84_000, 84_000, 85_500, 85_500]
    assert said(made, options["production"]) == [DAY, WEEK, WEEK, DRAWDOWN, VIX, YES]
    order = [Rejection[name.upper()] for name in (DAY, WEEK, DRAWDOWN, VIX)]
    assert order == sorted(order)


def test_the_reason_is_the_same_every_time_and_in_whatever_order_the_rows_come(options) -> None:
    made = book(*CRASHES, vix=CRASH_VIX)
    expected = said(made, options["production"])
    assert len(set(expected)) == 5
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = rng.permutation(len(made.tables["SPY"]["date"]))
        shuffled = replace(made, tables={"SPY": {c: v[order] for c, v in made.tables["SPY"].items()}})
        assert said(shuffled, options["production"]) == expected


def test_a_veto_and_an_open_spread_come_before_a_breaker_and_every_limit_after_it(options) -> None:
    days = sessions("2019-03-04", 2)
    expiry = np.datetime64("2019-05-17")
    held = Spread(short=280.0, width=50.0, cost=[1.0, 3.0], offered=[0, 1], expiry=expiry)        # offered again
    probe = Spread(short=200.0, width=1.0, cost=0.125, offered=[1], expiry=expiry)
    made = market(days, [held, probe], limits=replace(market(days, [held]).limits, max_positions=1))
    run = run_market(replace(made, breaker=options["production"]))
    assert dict(zip(run.candidates["short_strike"][1:], verdicts(run)[1:])) == {280.0: "already_open", 200.0: DAY}
    assert verdicts(run_market(made))[1:].tolist().count("max_positions") == 1
    vetoed = replace(made, multiplier=np.array([[1.0], [0.0]]), breaker=options["production"])
    assert verdicts(run_market(vetoed))[1:].tolist() == ["vetoed", "vetoed"]


# ---- what a breaker does not do --------------------------------------------------------------------------------------


def test_a_breaker_closes_nothing_and_what_it_refused_keeps_the_outcome_it_would_have_had(options) -> None:
    made = book(*FALLS_IN_A_DAY)
    run = run_market(replace(made, breaker=options["production"]))
    assert run.ledger.account["positions"].tolist() == [1, 1, 2, 3, 4] and not run.ledger.account["exits"].any()
    refused = run.ledger.rejections
    assert refused["reason"].tolist() == [DAY] and run.ledger.counts["rejected.breaker_day"] == 1
    assert refused["date"].tolist() == [made.sessions[1]] and np.isfinite(refused["pnl_per_contract"]).all()


def test_a_loss_that_is_taken_counts_like_one_that_is_marked(options) -> None:
    days = sessions("2019-03-04", 4)
    expiry = days[1]                                             # the held spread settles on Tuesday, 2 in the money
    held = Spread(short=280.0, width=50.0, cost=1.0, offered=[0], expiry=expiry)
    probes = [Spread(short=200.0 - 2 * d, width=1.0, cost=0.125, offered=[d], expiry=np.datetime64("2019-05-17"))
              for d in (1, 2)]
    made = market(days, [held, *probes], close=[300.0, 277.0, 300.0, 300.0])
    assert equity(made)[:3] == [100_000, 98_000, 98_000]
    run = run_market(replace(made, breaker=options["production"]))
    assert verdicts(run).tolist() == [YES, DAY, YES]
    assert run.ledger.account["positions"].tolist() == [1, 0, 1, 1]


def test_a_drawdown_breaker_with_nothing_open_never_recovers_and_the_run_says_since_when(options) -> None:
    days = sessions("2019-03-04", 5)                             # settles on Tuesday, 17 in the money: 16 % are lost
    held = Spread(short=280.0, width=50.0, cost=1.0, offered=[0], expiry=days[1])
    probes = [Spread(short=200.0 - 2 * d, width=1.0, cost=0.125, offered=[d], expiry=np.datetime64("2019-05-17"))
              for d in (1, 2, 3, 4)]
    made = market(days, [held, *probes], close=[300.0, 263.0, 300.0, 300.0, 300.0])
    shut = run_market(replace(made, breaker=options["production"])).ledger
    assert shut.account["entries"].tolist() == [1, 0, 0, 0, 0] and shut.account["equity"][-1] == 84_000
    assert stopped_for_good(shut, options["production"]) == days[1]
    config = default_config("breaker=production")
    [words] = command.stopped(config, shut)
    assert f"from {days[1]} on" in words and "16.0% below its peak for the last 4 of 5 sessions" in words

    assert stopped_for_good(run_market(made).ledger, OFF) is None                          # off: it sells on
    weekly = replace(OFF, max_week_loss=0.05)                    # a new week comes
    assert stopped_for_good(run_market(replace(made, breaker=weekly)).ledger, weekly) is None
    with_one_open = run_market(replace(book(*FALLS_FROM_ITS_PEAK), breaker=options["production"])).ledger
    assert stopped_for_good(with_one_open, options["production"]) is None                  # its mark may recover
    assert command.stopped(config, with_one_open) == []
