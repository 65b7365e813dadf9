"""The margin account: what may be sold with the cash there is, and how many lots of it.

Buying power is cash less the open maximum loss. Cash has the credits; marks, in whoever's favour, buy nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from mahler.exits import Costs
from mahler.schema import ConfigError, Side
from tests.conftest import default_config
from tests.handmade import AMPLE, FREE, Spread, market, of_spread, sessions, verdicts
from tests.markets import Run, random_market, run_market

DAYS = sessions("2019-03-04", 4)
EXPIRY = np.datetime64("2019-05-17")


def five_wide(short: float = 280.0, *, cost: float | list[float] = 0.25, offered=(0,), **changed) -> Spread:
    """A spread 5 wide: at a credit of 0.25 it can lose 475 dollars a lot, before commission."""
    return Spread(**{"short": short, "width": 5.0, "cost": cost, "offered": offered, "expiry": EXPIRY} | changed)


# ---- buying power ----------------------------------------------------------------------------------------------------


def inverted(width: float, *, lots: int = 10, initial_equity: float = 10_000.0) -> tuple[Run, int]:
    """Ten lots sold on Monday; on Tuesday their long leg is quoted 5 dollars above the short, and another is offered.

    That is the only way in which equity is above cash, so that heat would allow what cash does not pay for.
    Returns the run and the number of the candidate of Tuesday.
    """
    held = five_wide(cost=[1.0, -5.0, -5.0, -5.0], long=[0.25, 6.0, 6.0, 6.0])
    offered = Spread(short=200.0, width=width, cost=1.0, offered=[1], expiry=EXPIRY)
    run = run_market(market(DAYS, [held, offered], fixed_contracts=lots, initial_equity=initial_equity))
    assert run.contracts[0] == lots
    return run, of_spread(run, offered)


def test_buying_power_is_cash_less_open_maximum_loss_to_the_dollar() -> None:
    # 10,000 + 1,000 of credit - 4,000 at risk: 7,000 of buying power, where equity less risk is 12,000.
    fits, last = inverted(width=8.0)                             # 10 lots x 700
    account = fits.ledger.account
    assert account["cash"][0] - account["open_max_loss"][0] == pytest.approx(7_000)
    assert fits.contracts[last] == 10
    assert account["equity"][1] - account["open_max_loss"][1] > 4_000        # heat has room to spare
    overdraws, next_ = inverted(width=8.5)                       # 10 lots x 750
    assert verdicts(overdraws)[next_] == "no_cash" and overdraws.contracts[next_] == 0
    assert overdraws.ledger.counts["rejected.no_cash"] == 1


def test_a_dollar_more_of_equity_at_the_start_pays_for_what_a_dollar_less_does_not() -> None:
    # 750 x 10 at risk on Tuesday, 4,000 since Monday, 1,000 of credit: 10,500 is enough.
    assert [verdicts(run)[i] for run, i in (inverted(8.5, initial_equity=x) for x in (10_499.0, 10_500.0, 10_501.0))
            ] == ["no_cash", "admitted", "admitted"]


def test_what_cash_does_not_pay_for_is_rejected_whole_and_not_shrunk() -> None:
    run, offered = inverted(width=8.5)                           # nine lots, 6,750, would have been paid for
    assert run.contracts[offered] == 0
    assert run.ledger.account["cash"].tolist() == [11_000.0] * 4             # and nothing was spent on it


def test_every_admission_of_any_market_was_paid_for_by_the_buying_power_of_its_moment() -> None:
    admitted = refused = 0
    for seed in range(2000, 2060):
        made = replace(random_market(seed), limits=AMPLE)
        run = run_market(made)
        c, account = run.candidates, run.ledger.account
        max_loss = 100 * (c["width"] - c["credit"]) + 4 * made.costs.commission          # dollars per contract
        for d in np.flatnonzero(account["entries"]):
            cash, at_risk = account["cash"][d], account["open_max_loss"][d]
            for i in np.flatnonzero((c["day"] == d) & (run.contracts > 0))[::-1]:        # back to before each
                cash -= run.contracts[i] * (100 * c["credit"][i] - 2 * made.costs.commission)
                at_risk -= run.contracts[i] * max_loss[i]
                assert run.contracts[i] * max_loss[i] <= (cash - at_risk) * (1 + 1e-9) + 1e-6
                admitted += 1
        refused += int((run.ledger.rejections["reason"] == "no_cash").sum())
    assert admitted > 500 and refused > 0


# ---- a small account -------------------------------------------------------------------------------------------------

EVERYTHING = {"fixed_contracts": None, "fraction": 1.0}
WAYS = {
    "fifty lots are asked for": {"fixed_contracts": 50},
    "fifty lots, and there is no commission": {"fixed_contracts": 50, "costs": FREE},
    "all equity is risked on each trade": EVERYTHING,
    "the regime multiplies it by fifty": EVERYTHING | {"multiplier": np.full((4, 1), 50.0)},
    "an arm allows fifty": EVERYTHING | {"max_contracts": np.full((4, 1), 50, np.int32)},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_account_of_a_thousand_dollars_never_sells_fifty_lots(way: str) -> None:
    puts = [five_wide(280.0 - 12 * k, offered=[k]) for k in range(4)]
    calls = [five_wide(320.0 + 12 * k, offered=[k], side=Side.CALL) for k in range(4)]
    rich, poor = (run_market(market(DAYS, puts + calls, initial_equity=x, **WAYS[way])) for x in (1_000_000.0, 1_000.0))
    assert rich.contracts.max() >= 50                            # it is the account that binds, not the rule
    assert poor.contracts.sum() == 2                             # 475 dollars a lot, all days and sides together
    assert poor.ledger.account["open_max_loss"].max() == pytest.approx(2 * 475.0)
    assert poor.ledger.account["heat"].max() < 1.0


@pytest.mark.parametrize("way", WAYS)
def test_nor_does_it_where_fifty_narrow_spreads_are_offered_in_four_days(way: str) -> None:
    # At 87.50 dollars a lot eleven fit into a thousand, on however many strikes; the credits pay for no twelfth.
    spreads = [Spread(short=290.0 - 2 * k, width=1.0, cost=0.125, offered=[k % 4], expiry=EXPIRY) for k in range(50)]
    for changed in (WAYS[way], WAYS[way] | {"fixed_contracts": 1}):
        run = run_market(market(DAYS, spreads, initial_equity=1_000.0, **changed))
        assert run.contracts.sum() == 11, way


def test_a_lot_that_costs_more_than_the_account_is_not_sold_at_all() -> None:
    for spread, changed in ((five_wide(), {"fixed_contracts": 1}), (five_wide(), EVERYTHING)):
        run = run_market(market(DAYS, [spread], initial_equity=474.0, **changed))
        assert run.contracts.tolist() == [0]
        run = run_market(market(DAYS, [spread], initial_equity=476.0, **changed))
        assert run.contracts.tolist() == [1]


def test_a_size_below_one_lot_is_a_rejection_and_is_never_rounded_up() -> None:
    # Two percent of 23,700 is 474 dollars, of 23,800 it is 476; a lot can lose 475.
    runs = [run_market(market(DAYS, [five_wide()], initial_equity=x, fixed_contracts=None, fraction=0.02))
            for x in (23_700.0, 23_800.0)]
    assert [verdicts(run).tolist() for run in runs] == [["size_zero"], ["admitted"]]
    assert [run.contracts.tolist() for run in runs] == [[0], [1]]


def test_commission_is_part_of_what_a_lot_may_cost() -> None:
    dear = Costs(commission=10.0, assignment_fee=0.0)            # 475 + 4 x 10
    lots = [run_market(market(DAYS, [five_wide()], initial_equity=x, costs=dear, **EVERYTHING)).contracts[0]
            for x in (514.0, 516.0, 1_029.0, 1_031.0)]
    assert lots == [0, 1, 1, 2]


@pytest.mark.parametrize("equity", ["1e300", "0", "-1", "nan"])
def test_an_account_so_large_that_a_float_has_no_cents_of_it_is_refused_like_one_of_nothing(equity: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"initial_equity is dollars in (0, 1e+12], got {float(equity)}")):
        default_config(f"initial_equity={equity}")
    assert default_config("initial_equity=1e12").initial_equity == 1e12
