"""The kernels against tests/oracle.py, on random markets that are shown to reach every branch."""

from collections import Counter
from datetime import date

import numpy as np
import pytest

from mahler import paths
from mahler.core.spreads import match_legs
from mahler.schema import Exit, Rejection
from tests import oracle
from tests.markets import Market, Run, random_market, run_market

N_MARKETS = 280


@pytest.fixture(autouse=True, scope="module")
def many_pieces():
    """Markets of a test are small: their paths are traced in several pieces, as those of a large one are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ENTRIES", 100)
        yield


def _date(day: np.datetime64) -> date:
    return day.astype("datetime64[D]").astype(object)


def _oracle(market: Market) -> oracle.Result:
    days = [_date(d) for d in market.sessions]
    by_day = lambda array: {  # noqa: E731
        (t, day): float(array[d, i]) for i, t in enumerate(market.tickers) for d, day in enumerate(days)}
    rows = []
    for ticker, table in market.tables.items():
        names = list(table)
        rows += [dict(zip(names, row, strict=True)) | {"ticker": ticker} for row in zip(*table.values(), strict=True)]
    rules = {**vars(market.entry), **vars(market.exit), **vars(market.costs), **vars(market.limits),
             **vars(market.breaker)}
    rules["profit_target"] = np.inf if market.exit.profit_target is None else market.exit.profit_target
    rules["widths"], rules["group"] = tuple(rules["widths"]), tuple(rules["group"])
    return oracle.run(
        oracle.Market(
            sessions=days, rows=rows, close=by_day(market.close), vix=dict(zip(days, market.vix.tolist(), strict=True)),
            iv_percentile=by_day(market.iv_percentile), multiplier=by_day(market.multiplier),
            max_contracts={key: int(v) for key, v in by_day(market.max_contracts).items()},
            dividends={t: [(_date(d), float(x)) for d, x in zip(*pairs, strict=True)]
                       for t, pairs in market.dividends.items()},
            rate=dict(zip(days, market.rate.tolist(), strict=True))),
        oracle.Rules(**rules, travel=market.fill_travel, fraction=market.fraction,
                     fixed_contracts=market.fixed_contracts, initial_equity=market.initial_equity))


def _compare(market: Market, run: Run, truth: oracle.Result) -> None:
    c, x, ours = run.candidates, run.exits, truth.candidates
    assert len(c["day"]) == len(ours)
    expected = {
        "date": [k.date for k in ours], "ticker": [k.ticker for k in ours], "side": [int(k.side) for k in ours],
        "expiry": [k.expiry for k in ours], "short": [k.short_strike for k in ours],
        "long": [k.long_strike for k in ours], "dte": [k.dte for k in ours]}
    got = {
        "date": [_date(market.sessions[d]) for d in c["day"]], "ticker": [market.tickers[t] for t in c["ticker"]],
        "side": c["side"].tolist(), "expiry": [_date(e) for e in c["expiry"]], "short": c["short_strike"].tolist(),
        "long": c["long_strike"].tolist(), "dte": c["dte"].tolist()}
    assert got == expected
    for name in ("delta", "credit", "mid_credit", "max_loss", "score"):
        np.testing.assert_allclose(c[name], [getattr(k, name) for k in ours], rtol=1e-12, atol=1e-12, err_msg=name)

    assert [Exit(r).name for r in x["reason"]] == [k.exit_reason.name for k in ours]
    assert [_date(market.sessions[d]) for d in x["day"]] == [k.exit_date for k in ours]
    assert x["stale_marks"].tolist() == [k.stale_marks for k in ours]
    for name, attribute in (("cost", "exit_cost"), ("costs", "exit_costs"), ("pnl", "pnl_per_contract")):
        np.testing.assert_allclose(x[name], [getattr(k, attribute) for k in ours], rtol=1e-10, atol=1e-9, err_msg=name)

    reasons = np.zeros(len(ours), int)
    rejected = run.ledger.rejections
    reasons[np.flatnonzero(run.contracts == 0)] = [Rejection[r.upper()] for r in rejected["reason"]]
    assert [Rejection(r).name for r in reasons] == [k.reason.name for k in ours]
    assert run.contracts.tolist() == [k.contracts for k in ours]

    account = run.ledger.account
    last = slice(0, -1)                  # the oracle closes what is open before it records the last session
    for name in ("cash", "marks", "open_max_loss", "positions", "entries", "exits"):
        np.testing.assert_allclose(account[name][last], [getattr(row, name) for row in truth.account][last],
                                   rtol=1e-9, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(account["equity"], [row.equity for row in truth.account], rtol=1e-9, atol=1e-6)
    solvent = account["equity"][last] > 1.0
    np.testing.assert_allclose(account["heat"][last][solvent],
                               np.array([row.heat for row in truth.account])[last][solvent], rtol=1e-7, atol=1e-9)
    for stage, name in (("in_dte_window",) * 2, ("in_delta_window",) * 2, ("with_long_leg",) * 2, ("liquid",) * 2,
                        ("paid_enough", "enough_credit"), ("past_iv_filter",) * 2, ("ranked",) * 2):
        want = [getattr(truth.funnel[_date(d)], name) for d in market.sessions]
        assert run.funnel[stage].sum(axis=1).tolist() == want, stage


@pytest.mark.parametrize("block", range(4))
def test_the_kernels_equal_the_day_loop(block: int) -> None:
    reached = Counter()
    for seed in range(block * N_MARKETS // 4, (block + 1) * N_MARKETS // 4):
        market = random_market(seed)
        run = run_market(market)
        try:
            _compare(market, run, _oracle(market))
        except AssertionError as error:
            raise AssertionError(f"market {seed}: {error}") from error
        reached.update(Exit(r).name for r in run.exits["reason"])
        reached.update(f"rejected {r}" for r in run.ledger.rejections["reason"])
        reached.update(f"traded {r}" for r in run.ledger.trades["exit_reason"])
        reached["stale"] += int(run.exits["stale_marks"].sum())
        reached["several tickers"] += len(market.tickers) > 1
        reached["saturdays"] += sum(int(np.any((t["expiry"].astype("datetime64[D]").astype(int) + 3) % 7 == 5))
                                    for t in market.tables.values())
    print(dict(reached))
    for exit in Exit:                    # every block reaches every exit, as a trade
        assert reached[f"traded {exit.name.lower()}"] > 0, f"no trade ended by {exit.name}"
    for reason in list(Rejection)[1:]:
        assert reached[f"rejected {reason.name.lower()}"] > 0, f"no candidate was rejected for {reason.name}"
    for accident in ("stale", "several tickers", "saturdays"):
        assert reached[accident] > 0


def _legs(chain: dict, session: np.ndarray, is_call: bool, width: float, first_day: int, dte: tuple[int, int],
          most: float) -> tuple[list[int], list[int], list[int]]:
    """What `match_legs` finds, asked of every row for itself."""
    place = {key: row for row, key in enumerate(zip(chain["expiry"], chain["strike"], chain["day"], strict=True))}
    short, long, in_window = [], [], [0] * len(session)
    for (expiry, strike, day), row in place.items():
        if day >= first_day and dte[0] <= expiry - session[day] <= dte[1]:
            in_window[day] += 1
            delta = float(chain["delta"][row])
            if 0.05 <= (delta if is_call else 1.0 - delta) <= most:
                short.append(row)
                long.append(place.get((expiry, strike + width if is_call else strike - width, day), -1))
    return short, long, in_window


def test_legs_are_matched_as_by_asking_every_row_for_itself() -> None:
    """Whatever the chain lacks: sessions, strikes, days of a contract, expiries near the sessions, all of it."""
    rng = np.random.default_rng(1)
    met = Counter()
    for _ in range(3000):
        session = np.sort(rng.choice(np.arange(100, 130), rng.integers(0, 12), replace=False))
        contracts = [(e, k) for e in np.sort(rng.choice(np.arange(80, 190), rng.integers(0, 6), replace=False))
                     for k in np.arange(90.0, 100.0, rng.choice([0.5, 2.5])) if rng.random() < 0.4]
        days = [np.flatnonzero(rng.random(len(session)) < 0.6) for _ in contracts]
        start = np.cumsum([0, *map(len, days)])
        expiry, strike = np.array(contracts, float).reshape(-1, 2).T.copy()
        day = np.concatenate([[], *days]).astype(np.int32)
        chain = {"expiry": np.repeat(expiry, np.diff(start)), "strike": np.repeat(strike, np.diff(start)), "day": day,
                 "delta": rng.choice([0.0, 0.1, 0.5, 0.9, 1.0, np.nan], len(day)).astype(np.float32)}
        least = int(rng.integers(0, 40))
        dte, first_day = (least, least + int(rng.choice([0, 5, 30]))), int(rng.integers(0, len(session) + 2))
        is_call, width, most = bool(rng.integers(2)), float(rng.choice([0.5, 2.5])), float(rng.choice([0.15, 0.95]))
        found = match_legs(day, chain["delta"], start.astype(np.int64), expiry.astype(np.int64), strike,
                           session.astype(np.int64), is_call, width, first_day, *dte, 0.05, most)
        asked = _legs(chain, session, is_call, width, first_day, dte, most)
        assert tuple(column.tolist() for column in found) == asked
        met += Counter(spreads=sum(row >= 0 for row in asked[1]), alone=asked[1].count(-1),
                       one_dte=dte[0] == dte[1] and len(asked[0]) > 0, late=first_day > 0 and len(asked[0]) > 0)
    assert min(met[name] for name in ("spreads", "alone", "one_dte", "late")) > 20, met
