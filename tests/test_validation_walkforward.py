"""Walk-forward: windows, purge, choice, the chained account, and re-walks that are what simulate would have done."""

from __future__ import annotations

import os
import time
import tracemalloc
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from mahler import metrics
from mahler.exits import Costs
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import ConfigError, Exit
from mahler.simulate import Breaker, Limits, simulate
from mahler.validation import folds as windows, rewalk, walkforward as wf
from mahler.validation.folds import Fold
from mahler.validation.processes import Setup, processes
from tests.markets import Market, Run, random_market, run_market
from tests.test_invariants import truncated

DATES = np.arange(np.datetime64("2007-01-03"), np.datetime64("2015-01-01"))
DATES = DATES[np.is_busday(DATES)]


def silent(done: int, total: int, label: str) -> None:
    pass


def folds(dates: np.ndarray = DATES, **options) -> list[Fold]:
    options = {"start": np.datetime64("2007-01-01"), "train": 24, "test": 12, "step": 12, "anchored": False,
               "shifts": [0], "embargo": 0} | options
    return windows.folds(dates, **options)


def of_returns(returns: np.ndarray, first: int, last: int) -> wf.Walk:
    """A walk without trades whose account made the given daily returns (n_days,)."""
    none = np.zeros(0, int)
    return wf.Walk(first, 100.0, 100.0 * np.cumprod(1.0 + returns[first:last]), np.zeros(last - first),
                   np.zeros(last - first), none, none, np.zeros(0))


def fixed_market(returns: np.ndarray) -> wf.Market:
    """Trials that made the returns (n_trials, n_days), whatever the window."""
    return lambda trial: partial(of_returns, returns[trial])


def noise_market(n_trials: int, seed: int) -> wf.Market:
    """Trials whose returns are made when they are asked for."""
    def market(trial: int) -> wf.Trial:
        return partial(of_returns, np.random.default_rng([seed, trial]).normal(0, 5e-3, len(DATES)))

    return market


def broken_market() -> wf.Market:
    raise ConfigError("entry.max_dte: nothing is so far away")


def deadly_market() -> wf.Market:
    os._exit(9)


def run(setup: Setup, n_trials: int, folds: list[Fold], **options) -> wf.WalkForward:
    options = {"control": 0, "span": (0, len(DATES)), "objective": "sharpe", "risk_free": 0.0,
               "workers": 1, "progress": silent} | options
    with processes(setup, options.pop("workers")) as spread:
        return wf.walk_forward(spread, n_trials, options.pop("control"), folds, **options)


# ---- windows ---------------------------------------------------------------------------------------------------------

def test_test_windows_cover_every_session_after_the_first_train_window_once():
    first = int(np.searchsorted(DATES, np.datetime64("2009-07-01")))
    for shift in (0, 5):
        tested = np.concatenate([np.arange(*f.test) for f in folds(shifts=[shift], train=30, test=6, step=6)])
        assert tested.tolist() == list(range(first + shift, len(DATES)))


def test_the_last_test_window_is_cut_by_the_end_of_the_data_but_not_to_less_than_half():
    for last, count in (("2014-12-31", 6), ("2014-07-10", 6), ("2014-06-20", 5), ("2013-12-31", 5)):
        dates = DATES[DATES <= np.datetime64(last)]
        made = folds(dates)
        assert len(made) == count and len(dates) - 130 < made[-1].test[1] <= len(dates)


def test_windows_begin_with_their_months_and_a_train_window_ends_where_its_test_begins():
    first = folds()[0]
    assert [str(DATES[day]) for day in (*first.train, *first.test)] == [
        "2007-01-03", "2009-01-01", "2009-01-01", "2010-01-01"]
    assert all(f.train[1] == f.test[0] for f in folds())
    assert np.ptp([f.train[1] - f.train[0] for f in folds()]) < 5


def test_anchored_train_windows_grow_from_the_start():
    assert {f.train[0] for f in folds(anchored=True)} == {0}
    assert [f.test for f in folds(anchored=True)] == [f.test for f in folds()]


def test_an_embargo_keeps_sessions_before_the_test_out_of_training():
    assert [f.test[0] - f.train[1] for f in folds(embargo=10)] == [10] * len(folds())


def test_a_staggered_start_moves_every_boundary_by_so_many_sessions():
    whole = folds(shifts=[0, 5])
    plain, later = ([f for f in whole if f.shift == shift] for shift in (0, 5))
    assert [(f.train[0] + 5, f.test[0] + 5) for f in plain] == [(f.train[0], f.test[0]) for f in later]
    assert later[-1].test[1] == len(DATES)


def test_history_before_the_start_is_in_no_window():
    begin = int(np.searchsorted(DATES, np.datetime64("2010-06-15")))
    assert folds(start=np.datetime64("2010-06-15"))[0].train[0] == begin
    assert folds(start=np.datetime64("1999-01-01"))[0].train[0] == 0


def test_a_month_without_the_day_ends_on_its_last():
    assert str(windows._months_later(np.datetime64("2008-01-31"), 1)) == "2008-02-29"
    assert str(windows._months_later(np.datetime64("2007-11-30"), 3)) == "2008-02-29"


@pytest.mark.parametrize(("options", "message"), [
    ({"step": 6}, r"step is months, at least test \(12\).*got 6"),
    ({"train": 0}, r"train is a count of months in \[1, inf\), got 0"),
    ({"train": 120}, "train 120 and test 12 months needs more sessions than the 2086 from 2007-01-01 to"),
    ({"start": np.datetime64("2012-12-31"), "train": 36}, "more sessions than the 523 from 2012-12-31 to 2014-12-31"),
    ({"embargo": -1}, "embargo and shifts are sessions"), ({"shifts": []}, "embargo and shifts are sessions"),
    ({"embargo": 1000}, "window is empty")])
def test_windows_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        folds(**options)


# ---- choice ----------------------------------------------------------------------------------------------------------

def test_ties_go_to_the_control_and_then_to_the_first():
    in_sample = np.array([[1.0, 2.0, 1.0, np.nan, np.nan],
                          [1.0, 1.0, 3.0, np.nan, 0.5],
                          [1.0, 2.0, 3.0, np.nan, np.nan]])
    assert wf.choose(in_sample, 2).tolist() == [2, 2, 2, 2, 1]
    assert wf.choose(in_sample, 0).tolist() == [0, 0, 1, 0, 1]


def test_noise_is_good_in_sample_and_nothing_out_of_sample():
    result = run(lambda: noise_market(60, 1), 60, folds())
    table, out = wf.fold_table(result), wf.stitched(result, 0)
    assert table["in_sample"].min() > 0.8                       # the best of sixty
    assert abs(metrics.sharpe(out.returns, 0.0)) < 0.8 and abs(wf.efficiency(result)) < 0.5


def test_what_was_only_good_in_sample_does_not_look_good_out_of_sample():
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 2e-3, (6, len(DATES)))
    for trial, fold in zip(range(1, 7), folds()):               # each is splendid in one train window, then loses
        if trial < 6:
            returns[trial, slice(*fold.train)] += 2e-3
            returns[trial, slice(*fold.test)] -= 1e-3
    result = run(lambda: fixed_market(returns), 6, folds())
    assert metrics.sharpe(wf.stitched(result, 0).returns, 0.0) < 0 < wf.fold_table(result)["in_sample"].min()
    assert wf.efficiency(result) < 0


def test_a_trial_that_is_better_is_found_and_stays_better():
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 5e-3, (20, len(DATES)))
    returns[13] += 3 / np.sqrt(252) * 5e-3
    result = run(lambda: fixed_market(returns), 20, folds())
    assert wf.winner_frequency(result) == [(13, 1.0)]
    assert metrics.sharpe(wf.stitched(result, 0).returns, 0.0) > 2
    assert wf.efficiency(result) > 0.6


def test_the_choice_does_not_see_the_test_window():
    returns = np.random.default_rng(3).normal(0, 5e-3, (10, len(DATES)))
    first = folds()[0]
    changed = returns.copy()
    changed[:, first.test[0]:] = np.random.default_rng(4).normal(0, 5e-2, (10, len(DATES) - first.test[0]))
    one, two = (run(lambda r=r: fixed_market(r), 10, folds()) for r in (returns, changed))
    assert one.search.in_sample[:, 0].tolist() == two.search.in_sample[:, 0].tolist()
    assert one.winners[0] == two.winners[0] and one.winners.tolist() != two.winners.tolist()


def test_windows_without_a_trade_keep_the_control_and_have_no_objective():
    result = run(lambda: fixed_market(np.zeros((3, len(DATES)))), 3, folds(), control=1)
    assert set(result.winners) == {1} and np.isnan(wf.fold_table(result)["out_of_sample"]).all()
    assert not wf.stitched(result, 0).returns.any() and np.isnan(wf.efficiency(result))


@pytest.mark.parametrize("objective", wf.OBJECTIVES)
def test_every_objective_prefers_the_account_that_is_better_in_all(objective):
    calm = np.random.default_rng(0).normal(0, 3e-3, len(DATES))
    result = run(lambda: fixed_market(np.stack([calm, calm + 1e-3, 2 * calm])), 3, folds(), objective=objective)
    assert set(result.winners) == {1}


def test_an_unknown_objective_control_or_number_of_trials_is_refused():
    for options, message in (({"objective": "luck"}, "objective is one of sharpe, sortino, cagr, calmar, got 'luck'"),
                             ({"control": 9}, r"the control is a trial in \[0, 1\], got 9")):
        with pytest.raises(ConfigError, match=message):
            run(lambda: noise_market(2, 0), 2, folds(), **options)
    with processes(lambda: noise_market(2, 0), 1) as spread, pytest.raises(ConfigError, match="one trial or more"):
        wf.search(spread, 0, folds(), span=(0, 99), objective="sharpe", risk_free=0.0, progress=silent)


# ---- the chained account ---------------------------------------------------------------------------------------------

def test_test_windows_are_chained_by_their_returns():
    def walk(first: int, equity: list[float]) -> wf.Walk:
        n = len(equity)
        none = np.zeros(0, int)
        return wf.Walk(first, 100.0, np.array(equity), np.zeros(n), np.zeros(n), none, none, np.zeros(0))

    search = wf.Search(np.array([[0.5, 0.1], [1.0, 2.0]]), {}, None)
    result = wf.WalkForward([Fold(0, (0, 10), (10, 12)), Fold(0, (2, 12), (12, 14))], 0, "cagr", 0.0, search,
                            np.array([1, 1]), [walk(10, [110.0, 99.0]), walk(12, [100.0, 120.0])],
                            [walk(10, [100.0, 100.0]), walk(12, [50.0, 100.0])])
    out = wf.stitched(result, 0)
    assert out.days.tolist() == [10, 11, 12, 13]
    assert out.returns.tolist() == approx([0.10, -0.10, 0.0, 0.20])
    assert wf.account(out.returns, 1000.0).tolist() == approx([1100.0, 990.0, 990.0, 1188.0])
    assert wf.account(out.control, 1000.0).tolist() == approx([1000.0, 1000.0, 500.0, 1000.0])
    assert wf.fold_table(result)["trials_seen"].tolist() == [2, 4]          # the best of ever more
    assert wf.winner_frequency(result) == [(1, 1.0)]
    with pytest.raises(ValueError, match="no staggered start 5"):
        wf.stitched(result, 5)


# ---- the search ------------------------------------------------------------------------------------------------------

def test_the_span_of_a_search_is_scored_whole_and_its_blocks_are_those_of_its_returns():
    result = run(lambda: noise_market(5, 2), 5, folds(), span=(20, 1000)).search
    returns = np.random.default_rng([2, 3]).normal(0, 5e-3, len(DATES))[20:1000]
    assert result.trials["sharpe"][3] == approx(metrics.sharpe(returns, 0.0))
    assert result.blocks.sums[:, 3] == approx(wf.pbo.block_sums(returns).sums, abs=1e-12)
    assert 0.0 <= wf.pbo.overfitting_of_blocks(result.blocks).pbo <= 1.0


def test_trials_are_made_one_at_a_time_and_not_kept():
    n_trials = 1500                                   # 25 MB of returns, were they ever there together
    run(lambda: noise_market(2, 0), 2, folds())
    tracemalloc.start()
    result = run(lambda: noise_market(n_trials, 0), n_trials, folds(train=60, test=36, step=36))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result.search.in_sample) == n_trials and peak < 3e6


def test_processes_give_what_one_process_gives_and_report_their_progress():
    seen = []
    setup = partial(noise_market, 40, 7)
    alone = run(setup, 40, folds(shifts=[0, 5]))
    together = run(setup, 40, folds(shifts=[0, 5]), workers=2, progress=lambda *x: seen.append(x))
    assert together.search.in_sample.tolist() == alone.search.in_sample.tolist()
    assert together.winners.tolist() == alone.winners.tolist()
    assert wf.stitched(together, 5).returns.tolist() == wf.stitched(alone, 5).returns.tolist()
    assert seen[-1] == (24, 24, "test windows") and (40, 40, "trials") in seen
    done = [units for units, _, label in seen if label == "trials"]
    assert done == sorted(done) and len(done) > 20


def marked_market(path: Path):
    path.touch()
    return noise_market(2, 0)


def test_processes_make_their_markets_before_they_are_asked_for_anything(tmp_path):
    with processes(partial(marked_market, tmp_path / "made"), 2):
        for _ in range(600):
            if (tmp_path / "made").exists():
                return
            time.sleep(0.05)
    raise AssertionError("thirty seconds, and no market")


def test_what_a_worker_refuses_is_refused_here():
    with pytest.raises(ConfigError, match="nothing is so far away"):
        run(broken_market, 8, folds(), workers=2)


def test_a_worker_that_is_killed_is_said_to_be():
    with pytest.raises(ConfigError, match="workers=2: a worker process was killed, most likely for want of memory"):
        run(deadly_market, 8, folds(), workers=2)


# ---- the purge -------------------------------------------------------------------------------------------------------

def hand_made() -> tuple[wf.Trial, Panel]:
    """Forty sessions; A is sold for 1.00 on session 1 and bought back for 0.40 on 3, B on 2 for 1.00 and on 7 for 3.00.

    B's marks are 1.00, 0.50, missing, 0.20 on sessions 2 to 5: at session 5 it looks like a splendid trade.
    """
    n, dates = 40, DATES[:40]
    none = {f.name: None for f in fields(Panel)}
    panel = Panel(**none | {"tickers": ("SPY",), "dates": dates, "vix": np.full((n, 1), 15.0)})
    candidates = {"day": np.array([1, 2], np.int32), "ticker": np.zeros(2, np.int16),
                  "spread_id": np.array([0, 1], np.int32), "credit": np.ones(2), "mid_credit": np.ones(2),
                  "max_loss": np.full(2, 4.0), "risk_fraction": np.full(2, np.inf),
                  "max_contracts": np.ones(2, np.int32)}
    marks = [[1.0, 0.7, 0.4], [1.0, 0.5, np.nan, 0.2, 2.0, 3.0]]
    start = np.array([0, 3, 9])
    paths = Paths(**{f.name: None for f in fields(Paths)} | {"start": start, "mid": np.concatenate(marks)})
    exits = {"day": np.array([3, 7], np.int32), "reason": np.full(2, Exit.STOP_LOSS, np.int8),
             "cost": np.array([0.4, 3.0]), "costs": np.full(2, 2.0), "pnl": np.array([60.0 - 4.0, -200.0 - 4.0])}
    limits = Limits(5, 1.0, 1.0, 1.0, 5, ["SPY"])
    return rewalk.trial(candidates, paths, exits, panel, limits, Breaker(None, None, None, None), Costs(1.0, 0.0),
                        initial_equity=1000.0), panel


def test_a_train_trade_that_reaches_into_the_test_window_is_purged():
    trial, _ = hand_made()
    walk = trial(0, 6)                                                     # the test window begins on session 6
    assert walk.exit_day.tolist() == [3, 7] and walk.entry_day.tolist() == [1, 2]
    assert walk.unclosed.tolist() == [0.0, 0.0, -2.0, 48.0, 48.0, 78.0]    # B less its commission, by session
    assert walk.equity.tolist() == [1000.0, 998.0, 1026.0, 1104.0, 1104.0, 1134.0]
    bought_back = 1000.0 + 60.0 - 4.0                                      # A alone
    assert np.cumprod(1 + wf.purged_returns(walk)) * 1000 == approx([1000.0, 998.0, 1028.0] + 3 * [bought_back])
    assert walk.pnl.tolist() == [56.0, 78.0]


def test_the_choice_is_made_without_the_purged_trade():
    trial, _ = hand_made()
    with processes(lambda: lambda number: trial, 1) as spread:
        found = wf.search(spread, 1, [Fold(0, (0, 6), (6, 8)), Fold(0, (0, 8), (8, 40))], span=(0, 40),
                          objective="cagr", risk_free=0.0, progress=silent)
    assert found.in_sample[0].tolist() == approx([1.056 ** (252 / 6) - 1, 0.852 ** (252 / 8) - 1])
    assert found.trials["trades"].tolist() == [2.0]
    assert found.trials["max_drawdown"][0] == approx(1 - 852 / 1134)


def test_a_trade_that_ends_before_the_test_window_is_not_purged():
    trial, _ = hand_made()
    walk = trial(0, 8)                                                     # both have ended
    assert not walk.unclosed.any() and walk.pnl.tolist() == [56.0, -204.0]
    assert wf.purged_returns(walk).tolist() == wf.returns_of(walk).tolist()


def test_a_window_begins_flat():
    trial, _ = hand_made()
    walk = trial(2, 8)
    assert walk.entry_day.tolist() == [2] and walk.equity[0] == 998.0 and walk.equity[-1] == 796.0


# ---- a re-walk is what simulate would have done ----------------------------------------------------------------------

def panel_of(market: Market) -> Panel:
    none = {f.name: None for f in fields(Panel)}
    return Panel(**none | {"tickers": market.tickers, "dates": market.sessions,
                           "vix": np.repeat(market.vix[:, None], len(market.tickers), axis=1)})


def simulated(market: Market, run: Run, first_day: int):
    return simulate(run.candidates, run.paths, run.exits, panel_of(market), market.exit, market.limits, market.breaker,
                    market.costs, initial_equity=market.initial_equity, first_day=first_day)


def test_a_rewalk_of_a_window_equals_a_simulation_that_knows_nothing_beyond_it():
    open_at_end = 0
    for seed in range(2000, 2025):
        market = random_market(seed)
        # Without dividends: on the eve of an ex-date only who knows the day after knows that it is one.
        market.dividends = {t: (market.sessions[:0], np.zeros(0)) for t in market.tickers}
        run, n_days = run_market(market), len(market.sessions)
        trial = rewalk.trial(run.candidates, run.paths, run.exits, panel_of(market), market.limits, market.breaker,
                             market.costs, initial_equity=market.initial_equity)
        for first, last in ((0, n_days), (n_days // 3, n_days), (0, n_days // 2), (n_days // 4, 2 * n_days // 3)):
            cut = truncated(market, last)
            ledger, walk = simulated(cut, run_market(cut), first), trial(first, last)
            assert walk.equity.tolist() == approx(ledger.account["equity"].tolist(), abs=1e-6)
            assert walk.open_max_loss == approx(ledger.account["open_max_loss"], abs=1e-6)
            assert walk.pnl == approx(ledger.trades["pnl"], abs=1e-6)
            still = ledger.trades["exit_reason"] == "end_of_period"
            assert (walk.exit_day >= last).tolist() == still.tolist()
            assert walk.unclosed[-1] == approx(ledger.trades["pnl"][still].sum(), abs=1e-6)
            assert walk.equity[-1] - walk.initial_equity == approx(walk.pnl.sum(), abs=1e-6)
            open_at_end += still.sum()
    assert open_at_end > 50


def test_a_purged_train_window_knows_nothing_of_the_test_window():
    for seed in range(2000, 2010):
        market = random_market(seed)
        run, cut = run_market(market), len(market.sessions) // 2
        other = replace(market, close=market.close.copy())
        other.close[cut:] *= 1.5
        changed = run_market(other)

        def train(x: Run) -> list[float]:
            trial = rewalk.trial(x.candidates, x.paths, x.exits, panel_of(market), market.limits, market.breaker,
                                 market.costs, initial_equity=market.initial_equity)
            return wf.purged_returns(trial(0, cut)).tolist()

        assert train(run) == train(changed)
