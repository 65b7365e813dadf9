"""Walk-forward: choose a trial on the past, trade it on the future, move on; chain the futures into one account.

A fold is re-walked, never cut out of a longer equity curve: admission is path-dependent, and a year that begins with
another year's positions is not a year of its own. Train and test both start flat, with what was known by then.

The trials may be a product of axes with thousands of cells. They are numbers, 0 to n_trials - 1, and never a list:
`numpy.unravel_index(trial, shape)` is the cell. Neighbours in that order are worked on by the same process one after
the other, so an axis that is dear to change (an exit rule) belongs first, where it changes last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mahler import metrics
from mahler.schema import ConfigError, Table
from mahler.validation import pbo
from mahler.validation.folds import Fold
from mahler.validation.processes import Spread

Progress = Callable[[int, int, str], None]
"""Called with the units done, the units in all, and what is being done."""


@dataclass(frozen=True)
class Walk:
    """What one trial did on the sessions [first_day, last_day), flat before the first.

    `equity` and `open_max_loss` (n_days,) are dollars at the end of each session. Trades are in the order of
    admission: `entry_day` and `exit_day` (n_trades,) are sessions, the exit at or beyond last_day where the trade is
    still open at the end; `pnl` (n_trades,) are dollars, marked at the end where it is. `unclosed` (n_days,) is the
    part of equity, dollars, that belongs to those open trades.
    """

    first_day: int
    initial_equity: float
    equity: np.ndarray
    open_max_loss: np.ndarray
    unclosed: np.ndarray
    entry_day: np.ndarray
    exit_day: np.ndarray
    pnl: np.ndarray


Trial = Callable[[int, int], Walk]
"""Walks one trial over the sessions [first_day, last_day)."""

Market = Callable[[int], Trial]
"""The trial of a number. It is asked for once, and then walked over every window. A `processes.Setup` makes it."""


def returns_of(walk: Walk) -> np.ndarray:
    """Daily returns of the whole account, open positions at their marks: (n_days,)."""
    return metrics.simple_returns(walk.equity, walk.initial_equity)


def purged_returns(walk: Walk) -> np.ndarray:
    """Daily returns without the trades that outlive the window: (n_days,).

    A train trade whose life overlaps the test window has no part in the choice, neither its marks up to then nor
    its entry costs. It still took its place in the book: what it kept out stays out.
    """
    return metrics.simple_returns(walk.equity - walk.unclosed, walk.initial_equity)


# ---- choosing --------------------------------------------------------------------------------------------------------

def _cagr(returns: np.ndarray, risk_free: float) -> float:
    return metrics.cagr(np.cumprod(1.0 + returns), 1.0)


def _calmar(returns: np.ndarray, risk_free: float) -> float:
    equity = np.cumprod(1.0 + returns)
    return metrics.ratio(metrics.cagr(equity, 1.0), float(-metrics.drawdowns(equity, 1.0).min()))


OBJECTIVES: dict[str, Callable[[np.ndarray, float], float]] = {
    "sharpe": metrics.sharpe, "sortino": metrics.sortino, "cagr": _cagr, "calmar": _calmar}
"""What a trial is chosen by: (daily returns, annual risk-free rate) -> a number, higher is better, NaN undefined."""


def choose(in_sample: np.ndarray, control: int) -> np.ndarray:
    """The trial of the highest objective on each fold: int (n_folds,), of `in_sample` (n_trials, n_folds).

    The control where it is among the best, or where no trial has an objective at all (no trade in the train
    window); of others that are equal, the first.
    """
    known = np.where(np.isnan(in_sample), -np.inf, in_sample)
    best = known.max(axis=0)
    return np.where(known[control] >= best - pbo.TIE, control, known.argmax(axis=0))


# ---- the search ------------------------------------------------------------------------------------------------------

TOGETHER = 8
"""Neighbours that a process has in its hands at a time: as many candidates and exits as they differ in are kept."""


@dataclass(frozen=True)
class Search:
    """Every trial on every train window and on the whole span; nothing here has the size of trials x days.

    `in_sample` (n_trials, n_folds) is the purged objective. `trials` has, of the span and per trial, sharpe and cagr
    (annual), max_drawdown (a positive fraction), trades and mean_heat. `blocks` are the span's block sums for CSCV.
    """

    in_sample: np.ndarray
    trials: Table
    blocks: pbo.BlockSums


@dataclass(frozen=True)
class _Plan:
    """What is asked of each trial."""

    windows: tuple[tuple[int, int], ...]
    span: tuple[int, int]
    objective: str
    risk_free: float


def search(spread: Spread, n_trials: int, folds: Sequence[Fold], *, span: tuple[int, int], objective: str,
           risk_free: float, progress: Progress) -> Search:
    """Walk every trial over every train window, and once over the span.

    Parameters
    ----------
    spread
        Of `processes`.
    span : (int, int)
        Sessions [first, last) of the whole study.
    objective : str
        One of OBJECTIVES.

    Raises
    ------
    ConfigError
        Of an unknown objective or of no trials.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(f"objective is one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if n_trials < 1:
        raise ConfigError(f"a walk-forward has one trial or more, got {n_trials}")
    plan = _Plan(tuple(fold.train for fold in folds), span, objective, risk_free)
    size = max(1, min(64, n_trials // 32))
    chunks = [range(begin, min(begin + size, n_trials)) for begin in range(0, n_trials, size)]
    in_sample = np.empty((n_trials, len(folds)))
    trials = {name: np.empty(n_trials) for name in ("sharpe", "cagr", "max_drawdown", "trades", "mean_heat")}
    counts = np.diff(pbo.blocks(span[1] - span[0])).astype(float)
    blocks = pbo.BlockSums(counts, np.empty((len(counts), n_trials)), np.empty((len(counts), n_trials)))
    done = 0
    for chunk, found in spread(partial(_look, plan), chunks):
        for trial, (objectives, span_metrics, sums) in zip(chunk, found):
            in_sample[trial] = objectives
            for name, value in span_metrics.items():
                trials[name][trial] = value
            blocks.sums[:, trial], blocks.squares[:, trial] = sums.sums, sums.squares
        done += len(chunk)
        progress(done, n_trials, "trials")
    return Search(in_sample, trials, blocks)


def _look(plan: _Plan, market: Market, chunk: Sequence[int]) -> list[tuple]:
    """The objectives, the span's metrics and block sums of each trial of a chunk."""
    return [found for begin in range(0, len(chunk), TOGETHER)
            for found in _look_at(plan, [market(number) for number in chunk[begin:begin + TOGETHER]])]


def _look_at(plan: _Plan, trials: Sequence[Trial]) -> list[tuple]:
    """Window by window, not trial by trial: what is asked of a window's candidates stays in the processor's cache."""
    value = OBJECTIVES[plan.objective]
    objectives = [[value(purged_returns(walk(*window)), plan.risk_free) for walk in trials] for window in plan.windows]
    return [([of_window[k] for of_window in objectives], *_of_span(walk(*plan.span), plan.risk_free))
            for k, walk in enumerate(trials)]


def _of_span(whole: Walk, risk_free: float) -> tuple[dict[str, float], pbo.BlockSums]:
    returns = returns_of(whole)
    return {"sharpe": metrics.sharpe(returns, risk_free), "cagr": metrics.cagr(whole.equity, whole.initial_equity),
            "max_drawdown": float(-metrics.drawdowns(whole.equity, whole.initial_equity).min()),
            "trades": len(whole.pnl), "mean_heat": float((whole.open_max_loss / whole.equity).mean())
            }, pbo.block_sums(returns)


# ---- the test --------------------------------------------------------------------------------------------------------

def walk_tests(spread: Spread, folds: Sequence[Fold], trials: np.ndarray, *, progress: Progress) -> list[Walk]:
    """Walk `trials` (n_folds,) over the test windows of their folds, whole and flat at their start.

    With another setup, of natural fills say, this is how the same choices would have done there.
    """
    by_trial = [(int(trial), np.flatnonzero(trials == trial)) for trial in np.unique(trials)]
    walks: list[Walk | None] = [None] * len(folds)
    done = 0
    for (_, at), found in spread(partial(_test, [fold.test for fold in folds]), by_trial):
        for fold, walk in zip(at, found):
            walks[fold] = walk
        done += len(at)
        progress(done, len(folds), "test windows")
    return walks


def _test(windows: Sequence[tuple[int, int]], market: Market, task: tuple[int, np.ndarray]) -> list[Walk]:
    number, at = task
    trial = market(number)
    return [trial(*windows[fold]) for fold in at]


@dataclass(frozen=True)
class WalkForward:
    """A walk-forward, fold by fold: what was found, what was chosen, and how that and the control then did."""

    folds: list[Fold]
    control: int
    objective: str
    risk_free: float
    search: Search
    winners: np.ndarray          # (n_folds,) trial
    chosen: list[Walk]           # of the winners, on the test windows
    controls: list[Walk]         # of the control, on the same


def walk_forward(spread: Spread, n_trials: int, control: int, folds: Sequence[Fold], *, span: tuple[int, int],
                 objective: str, risk_free: float, progress: Progress) -> WalkForward:
    """Search the train windows, choose on each, and walk the chosen and the control over the test windows.

    `control` is a trial. Other arguments are those of `search`. Raises ConfigError where the control is not a trial.
    """
    if not 0 <= control < n_trials:
        raise ConfigError(f"the control is a trial in [0, {n_trials - 1}], got {control}")
    found = search(spread, n_trials, folds, span=span, objective=objective, risk_free=risk_free, progress=progress)
    winners = choose(found.in_sample, control)
    both = walk_tests(spread, [*folds, *folds], np.concatenate([winners, np.full(len(folds), control)]),
                      progress=progress)
    return WalkForward(list(folds), control, objective, risk_free, found, winners, both[:len(folds)],
                       both[len(folds):])


# ---- what came of it -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Stitched:
    """The test windows of one staggered start as one account: sessions (n,), its returns and the control's (n,)."""

    days: np.ndarray
    returns: np.ndarray
    control: np.ndarray


def stitched(result: WalkForward, shift: int) -> Stitched:
    """The out-of-sample account of one staggered start.

    Every fold begins with the same dollars and is chained by its returns, so the account is what compounding the
    folds one after the other would give. What is open at the end of a test window stays at its mark: a valuation,
    in the same way for the control.
    """
    mine = [i for i, fold in enumerate(result.folds) if fold.shift == shift]
    if not mine:
        raise ValueError(f"there is no staggered start {shift}")
    return Stitched(np.concatenate([np.arange(*result.folds[i].test) for i in mine]),
                    np.concatenate([returns_of(result.chosen[i]) for i in mine]),
                    np.concatenate([returns_of(result.controls[i]) for i in mine]))


def account(returns: np.ndarray, initial_equity: float) -> np.ndarray:
    """Equity, dollars, that daily returns compound to: (n,)."""
    return initial_equity * np.cumprod(1.0 + returns)


def fold_table(result: WalkForward) -> Table:
    """A row per fold: shift, windows, winner, and the objective of winner and control in and out of sample.

    `in_sample` and `out_of_sample` are the winner's, `control_in_sample` and `control_out_of_sample` the control's
    (NaN where undefined); `trades` is the winner's count on the test window; `trials_seen` how many (trial, train
    window) pairs had been looked at when that fold's choice was made, which is what a choice so far is the best of.
    """
    value, n = OBJECTIVES[result.objective], len(result.folds)
    out = [[value(returns_of(walk), result.risk_free) for walk in walks] for walks in (result.chosen, result.controls)]
    order = {shift: 0 for shift in dict.fromkeys(fold.shift for fold in result.folds)}
    seen = []
    for fold in result.folds:
        order[fold.shift] += 1
        seen.append(order[fold.shift] * len(result.search.in_sample))
    return {
        "shift": np.array([fold.shift for fold in result.folds]),
        **{f"{name}_{end}": np.array([getattr(fold, name)[i] for fold in result.folds])
           for name in ("train", "test") for i, end in enumerate(("first", "last"))},
        "winner": result.winners, "in_sample": result.search.in_sample[result.winners, np.arange(n)],
        "out_of_sample": np.array(out[0]), "control_in_sample": result.search.in_sample[result.control],
        "control_out_of_sample": np.array(out[1]), "trades": np.array([len(walk.pnl) for walk in result.chosen]),
        "trials_seen": np.array(seen),
    }


def winner_frequency(result: WalkForward) -> list[tuple[int, float]]:
    """The trials that won a fold, with the share of folds that they won; the most frequent first."""
    counts = Counter(result.winners.tolist())
    return [(trial, count / len(result.folds)) for trial, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))]


def efficiency(result: WalkForward) -> float:
    """Mean objective of the winners out of sample over that in sample: descriptive, a ratio without a test.

    Folds without either are left out; NaN where the mean in sample is not positive.
    """
    table = fold_table(result)
    both = np.isfinite(table["in_sample"]) & np.isfinite(table["out_of_sample"])
    if not both.any():
        return np.nan
    return metrics.ratio(float(table["out_of_sample"][both].mean()), float(table["in_sample"][both].mean()))
