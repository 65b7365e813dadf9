"""A study, judged: walk-forward, deflation, overfitting, superiority, robustness, and the verdict of the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any
from zlib import crc32

import numpy as np

from mahler import metrics
from mahler.schema import SESSIONS_PER_YEAR, ConfigError, Table
from mahler.validation import bootstrap, folds as windows, pbo, robustness, sharpe, superiority, walkforward
from mahler.validation.bootstrap import Interval
from mahler.validation.method import Method
from mahler.validation.processes import Spread
from mahler.validation.verdict import RULE_FACTOR, Evidence, Verdict, verdict
from mahler.validation.walkforward import Market, Progress, Walk, WalkForward, returns_of
from mahler.workers import threads

YEAR = float(SESSIONS_PER_YEAR)
DEFLATION_POWER = 0.90   # of passing the deflation alone, so that the whole rule is left with sharpe.POWER
COLUMNS = ("config", "is_control", "trades", "mean_heat", *(f"{name}{end}" for name in ("cagr", "sharpe", "max_drawdown")
           for end in ("", "_low", "_high")), "psr", "min_track_record_years", "difference", "difference_low",
           "difference_high", "detectable", "equal_heat_scale", "equal_heat_cagr", "equal_heat_max_drawdown")
MOST_SHOWN = 24          # configs that get intervals of their own; of more, the best and the control
MOST_TESTED = 128        # configs whose daily returns are held together, for SPA and for the null of PBO


@dataclass(frozen=True)
class Worth:
    """What an out-of-sample account's Sharpe ratio is worth; NaN where it never moved, or was ruined.

    `probabilistic` (PSR of 0) and `deflated` (DSR) are probabilities; the track record (MinTRL) is that after which
    its Sharpe ratio is above 0 with 95 %, inf where it is not above 0. The backtest (MinBTL) is that below which the
    best of N worthless trials is expected to show the Sharpe ratio of the best here; `years` are those that there are.
    """

    probabilistic: float
    deflated: float
    min_track_record_years: float
    min_backtest_years: float
    years: float


@dataclass(frozen=True)
class Weighed:
    """A walk-forward with the evidence that the rule asks for, and what that was computed from."""

    walk: WalkForward
    evidence: Evidence
    worth: Worth
    shown: list[int]                     # the trials that get intervals
    tested: list[int]                    # those that SPA and the null of PBO are of: all, or of too many the shown
    walks: dict[int, Walk]               # of the tested, on the whole span
    returns: np.ndarray                  # theirs, (n_days, n_tested)
    scored: walkforward.Stitched         # the first start's account out of sample
    years: dict[int, float]              # the difference without each year
    overfitting: pbo.Overfitting         # of the tested
    null: np.ndarray                     # PBO of equal configs, as many as are tested, (replications,)
    heat: robustness.HeatMatch | None    # at which the chosen configs have the control's mean heat


@dataclass(frozen=True)
class Judgement:
    """What a study came to; tables have a row per config or per fold, `accounts` a row per out-of-sample session."""

    verdict: Verdict
    weighed: Weighed
    names: tuple[str, ...]
    control: int
    configs: Table
    folds: Table
    accounts: Table
    spread: Table                        # the difference on each staggered start
    robust: sharpe.SharpeDifference | None   # the difference out of sample with its HAC error; None: one has no Sharpe ratio
    winners: list[tuple[str, float]]     # how often each won a fold
    efficiency: float
    overfitting: pbo.Overfitting         # of all trials
    spa_p_value: float                   # NaN where there are too many trials to test them together
    superior: tuple[str, ...]            # by StepM, on the whole period; likewise
    n_trials: int


def judge(spread: Spread, at: Callable[[float, bool], Market], names: Sequence[str], control: int, dates: np.ndarray,
          first_day: int, method: Method, *, n_trials: int, shape: Sequence[int], ordered: Sequence[bool],
          risk_free: float, progress: Progress) -> Judgement:
    """Validate the trials 0 .. len(names) - 1, of which `control` is the control: `weigh`, the rule, and the tables.

    Intervals and the overfitting of all trials are computed in `method.workers` threads: NumPy and the kernels let go
    of the GIL.
    """
    rng = np.random.default_rng(method.seed)
    w = weigh(spread, at, len(names), control, dates, first_day, method, rng, n_trials=n_trials, shape=shape,
              ordered=ordered, risk_free=risk_free, progress=progress)
    whole = _any_superior(w, len(names), control, method, rng)
    starts = [walkforward.stitched(w.walk, shift) for shift in method.shifts]
    with threads(method.workers) as pool:
        of_all = pool.submit(pbo.overfitting_of_blocks, w.walk.search.blocks)
        configs = _configs(w, names, control, dates[first_day:], at, method, rng, risk_free, pool)
    return Judgement(
        verdict=verdict(w.evidence), weighed=w, names=tuple(names), control=control, configs=configs,
        folds=_fold_table(w.walk, names, dates),
        accounts={"date": dates[w.scored.days], "chosen": w.scored.returns, "control": w.scored.control},
        spread={"shift": np.array(method.shifts), "difference": np.array(
            [robustness.difference(s.returns, s.control, periods=YEAR) for s in starts])},
        robust=_robust(w.scored, method),
        winners=[(names[k], share) for k, share in walkforward.winner_frequency(w.walk)],
        efficiency=walkforward.efficiency(w.walk), overfitting=of_all.result(),
        spa_p_value=whole.p_value, superior=tuple(names[k] for k in whole.superior), n_trials=n_trials)


def plan(n_configs: int, dates: np.ndarray, first_day: int, method: Method) -> list[windows.Fold]:
    """The folds of a study. Raises ConfigError where there is nothing to choose from, or the data are too short."""
    if n_configs < 2:
        raise ConfigError("a study to validate has two configs or more: with one there is nothing to choose from")
    return windows.folds(dates, start=dates[first_day], train=method.train, test=method.test, step=method.step,
                         anchored=method.anchored, shifts=method.shifts, embargo=method.embargo)


def weigh(spread: Spread, at: Callable[[float, bool], Market], n_configs: int, control: int, dates: np.ndarray,
          first_day: int, method: Method, rng: np.random.Generator, *, n_trials: int, shape: Sequence[int],
          ordered: Sequence[bool], risk_free: float, progress: Progress) -> Weighed:
    """Walk the trials 0 .. n_configs - 1 forward, and compute all that the rule asks for.

    Parameters
    ----------
    spread
        Of `processes` or `alone`, over whatever makes the market.
    at
        (scale, natural fills) -> the market in this process, with every risk fraction times scale.
    n_trials
        N: all configurations that were ever tried on the data, these included.
    shape, ordered
        Of the grid, for the neighbours; see robustness.neighbours.

    Raises
    ------
    ConfigError
        Of `plan`.
    """
    made, span = plan(n_configs, dates, first_day, method), (first_day, len(dates))
    Thread(target=bootstrap.load).start()
    result = walkforward.walk_forward(
        spread, n_configs, control, made, span=span, objective=method.objective, risk_free=risk_free, progress=progress)
    modelled, shown = at(1.0, False), _shown(result)
    tested = list(range(n_configs)) if n_configs <= MOST_TESTED else shown
    walks = {k: modelled(k)(*span) for k in tested}
    returns = np.stack([returns_of(walks[k]) for k in tested], axis=1)               # (n_days, n_tested)
    scored = walkforward.stitched(result, 0)
    matched, equal_heat = _equal_heat(result, at)
    p_value, null = pbo.null_test(returns, rng=rng, replications=method.pbo_replications)
    chosen, base = _of_start(result, 0)
    years = robustness.leave_one_year_out(dates[scored.days], scored.returns, scored.control, periods=YEAR)
    worth = _worth(scored.returns, result, n_trials, risk_free, span)
    single = _single_test(returns, tested.index(control), scored.days - first_day)
    favourite = walkforward.winner_frequency(result)[0][0]
    evidence = Evidence(
        is_control=bool((result.winners == control).all()),
        difference=_difference(scored.returns, scored.control, method, rng),
        superior=_superior(scored.returns, scored.control, method, rng),
        deflated_sharpe=worth.deflated, n_trials=n_trials, pbo_p_value=p_value,
        drawdown=_drawdown(equal_heat or chosen), control_drawdown=_drawdown(base),
        natural_fill=_natural(result, at), without_best_year=float(np.min(list(years.values()))) if years else np.nan,
        without_best_trades=robustness.difference(robustness.without_best_trades(chosen),
                                                  robustness.without_best_trades(base), periods=YEAR),
        neighbours=robustness.stability(result.search.trials["sharpe"], control, favourite, shape, ordered),
        control_sharpe=_sharpe(scored.control, method, rng), single_test=single,
        detectable=_detectable(single, scored.control, result, n_trials, risk_free))
    return Weighed(result, evidence, worth, shown, tested, walks, returns, scored, years, pbo.overfitting(returns),
                   null, matched)


def _shown(result: WalkForward) -> list[int]:
    """The trials that get intervals: all of a small study; of a large one the control, the winners and the best."""
    known = np.nan_to_num(result.search.trials["sharpe"], nan=-np.inf)
    first = [result.control, *(trial for trial, _ in walkforward.winner_frequency(result))]
    ranked = dict.fromkeys([*first, *np.argsort(-known, kind="stable").tolist()])
    return sorted(list(ranked)[:MOST_SHOWN])


def _of_start(result: WalkForward, shift: int) -> tuple[list[Walk], list[Walk]]:
    """The test walks of one staggered start: the chosen, and the control's."""
    mine = [i for i, fold in enumerate(result.folds) if fold.shift == shift]
    return [result.chosen[i] for i in mine], [result.controls[i] for i in mine]


def _again(result: WalkForward, market: Market, trials: np.ndarray) -> list[Walk]:
    """The test windows of the first start, walked again in another market."""
    return [market(int(trials[i]))(*fold.test) for i, fold in enumerate(result.folds) if fold.shift == 0]


def _returns(walks: Sequence[Walk]) -> np.ndarray:
    return np.concatenate([returns_of(walk) for walk in walks])


def _drawdown(walks: Sequence[Walk]) -> float:
    return float(0.0 - metrics.drawdowns(walkforward.account(_returns(walks), 1.0), 1.0).min())


def _mean_heat(walks: Sequence[Walk]) -> float:
    return float(np.concatenate([walk.open_max_loss / walk.equity for walk in walks]).mean())


def _equal_heat(result: WalkForward, at: Callable[[float, bool], Market]
                ) -> tuple[robustness.HeatMatch | None, list[Walk] | None]:
    """The chosen configs scaled to the control's mean heat, and their walks; None where that cannot be reached."""
    target = _mean_heat(_of_start(result, 0)[1])
    if target <= 0 or (result.winners == result.control).all():
        return None, None
    matched = robustness.match_heat(lambda scale: _mean_heat(_again(result, at(scale, False), result.winners)), target)
    return matched, _again(result, at(matched.scale, False), result.winners) if matched.reached else None


def _natural(result: WalkForward, at: Callable[[float, bool], Market]) -> float:
    """The difference out of sample where every leg of both crosses its quote."""
    market = at(1.0, True)
    both = [_returns(_again(result, market, trials)) for trials in
            (result.winners, np.full(len(result.folds), result.control))]
    return robustness.difference(*both, periods=YEAR)


def _difference(returns: np.ndarray, control: np.ndarray, method: Method, rng: np.random.Generator) -> Interval:
    return bootstrap.sharpe_difference_intervals(
        returns[:, None], control, rng=rng, replications=method.replications, level=method.level, periods=YEAR)[0]


def _has_sharpe(returns: np.ndarray) -> bool:
    """Whether an account moved, and was never ruined: else it has no Sharpe ratio."""
    return bool(-1.0 < returns.min() < returns.max())


def _sharpe(returns: np.ndarray, method: Method, rng: np.random.Generator) -> Interval:
    """The annual Sharpe ratio of an account; NaN where it never moved, or was ruined."""
    if not _has_sharpe(returns):
        return Interval(np.nan, np.nan, np.nan, method.level)
    return bootstrap.account_intervals(returns, rng=rng, replications=method.replications, level=method.level,
                                       periods=YEAR)["sharpe"]


def _robust(scored: walkforward.Stitched, method: Method) -> sharpe.SharpeDifference | None:
    if not all(_has_sharpe(account) for account in (scored.returns, scored.control)):
        return None
    return sharpe.sharpe_difference(scored.returns, scored.control, periods=YEAR, level=method.level)


def _superior(returns: np.ndarray, control: np.ndarray, method: Method, rng: np.random.Generator) -> bool:
    scaled = superiority.at_control_volatility(returns[:, None], control)
    return bool(superiority.superiority(scaled, control, rng=rng, replications=method.replications).superior)


def _any_superior(w: Weighed, n_configs: int, control: int, method: Method,
                  rng: np.random.Generator) -> superiority.Superiority:
    """SPA and StepM of all configs against the control on the whole span.

    Undefined, and none, where not all are tested: what was chosen for being the best cannot be corrected for that.
    """
    if len(w.tested) < n_configs:
        return superiority.Superiority(np.nan, (), sharpe.SIZE, 0)
    of_control = w.returns[:, control]
    return superiority.superiority(superiority.at_control_volatility(w.returns, of_control), of_control, rng=rng,
                                   replications=method.replications)


def _trial_variance(result: WalkForward) -> float:
    """Variance across the study's trials of their Sharpe ratios per session."""
    return sharpe.trial_variance(result.search.trials["sharpe"], periods=YEAR)


def _worth(returns: np.ndarray, result: WalkForward, n_trials: int, risk_free: float, span: tuple[int, int]) -> Worth:
    """PSR, DSR and MinTRL of the stitched account; MinBTL of the best trial on the whole span."""
    years, best = (span[1] - span[0]) / YEAR, float(np.nanmax(result.search.trials["sharpe"], initial=-np.inf))
    length = sharpe.min_backtest_length(best, max(n_trials, 2)) if best > 0 else np.nan
    if not _has_sharpe(returns):
        return Worth(np.nan, np.nan, np.nan, length, years)
    found = sharpe.sample(returns, risk_free)
    return Worth(
        sharpe.probabilistic_sharpe(found.sharpe, 0.0, found.n, found.skew, found.kurtosis),
        sharpe.deflated_sharpe(found.sharpe, max(n_trials, 2), _trial_variance(result), found.n, found.skew,
                               found.kurtosis),
        sharpe.min_track_record(found.sharpe, 0.0, found.skew, found.kurtosis) / YEAR, length, years)


def _single_test(returns: np.ndarray, control: int, days: np.ndarray) -> float:
    """The largest difference that a single test of a config (n_days, n_configs) against the control needs on `days`.

    Of the configs' own returns, not of the stitched account: where the past chose the control, that is the control.
    """
    others = [sharpe.detectable_by(returns[days, k], returns[days, control], periods=YEAR)
              for k in range(returns.shape[1]) if k != control]
    known = [x for x in others if np.isfinite(x) and x > 0.0]        # 0 is of a config that is the control itself
    return max(known, default=np.nan)


def _detectable(single: float, control: np.ndarray, result: WalkForward, n_trials: int, risk_free: float) -> float:
    """The difference that the whole rule finds in four studies of five: that of the comparison, or of the deflation."""
    if np.isnan(single) or not _has_sharpe(control):
        return np.nan
    of_control = sharpe.sample(control, risk_free)
    deflation = sharpe.difference_past_deflation(
        of_control.sharpe, max(n_trials, 2), _trial_variance(result), len(result.search.in_sample), of_control.n,
        of_control.skew, of_control.kurtosis, power=DEFLATION_POWER)
    return max(RULE_FACTOR * single, deflation * np.sqrt(YEAR))


def _configs(w: Weighed, names: Sequence[str], control: int, dates: np.ndarray, at: Callable[[float, bool], Market],
             method: Method, rng: np.random.Generator, risk_free: float, pool: Executor) -> Table:
    """A row per shown config: metrics of the whole period with their intervals, and the difference from the control.

    The samples of a config are its own, whatever is in the study beside it: its name is part of their seed.
    """
    returns, walks = w.returns[:, [w.tested.index(k) for k in w.shown]], w.walks
    base = returns[:, w.shown.index(control)]
    draws = {"replications": method.replications, "level": method.level, "periods": YEAR}
    paired = pool.submit(bootstrap.sharpe_difference_intervals, returns, base, rng=rng, **draws)
    intervals = {trial: pool.submit(bootstrap.account_intervals, mine, rng=np.random.default_rng(
        [method.seed, crc32(names[trial].encode())]), **draws) for trial, mine in zip(w.shown, returns.T) if _has_sharpe(mine)}
    target = _mean_heat([walks[control]])
    rows: list[dict[str, Any]] = []
    for column, trial in enumerate(w.shown):
        mine = returns[:, column]
        row = {"config": names[trial], "is_control": trial == control, "trades": float(len(walks[trial].pnl)),
               "mean_heat": _mean_heat([walks[trial]])}
        moved = trial in intervals
        for name, found in intervals[trial].result().items() if moved else ():
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        if moved:
            sample = sharpe.sample(mine, risk_free)
            row |= {"psr": sharpe.probabilistic_sharpe(sample.sharpe, 0.0, sample.n, sample.skew, sample.kurtosis),
                    "min_track_record_years": sharpe.min_track_record(
                        sample.sharpe, 0.0, sample.skew, sample.kurtosis) / YEAR}
        difference = paired.result()[column]
        row |= {"difference": difference.value, "difference_low": difference.low, "difference_high": difference.high,
                "detectable": sharpe.detectable_by(mine, base, periods=YEAR)}
        if trial != control and target > 0 and row["mean_heat"] > 0:
            row |= _at_equal_heat(trial, target, walks[trial].first_day, len(dates), at)
        rows.append(row)
    columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=object if name == "config" else float)
            for name in columns}


def _at_equal_heat(trial: int, target: float, first_day: int, n_days: int,
                   at: Callable[[float, bool], Market]) -> dict[str, float]:
    """CAGR and drawdown of a config whose risk is scaled to the control's mean heat; nothing where it cannot be."""
    walk = partial(_whole, trial, first_day, first_day + n_days, at)
    matched = robustness.match_heat(lambda scale: _mean_heat([walk(scale)]), target)
    if not matched.reached:
        return {}
    equal = walk(matched.scale)
    return {"equal_heat_scale": matched.scale, "equal_heat_cagr": metrics.cagr(equal.equity, equal.initial_equity),
            "equal_heat_max_drawdown": float(0.0 - metrics.drawdowns(equal.equity, equal.initial_equity).min())}


def _whole(trial: int, first_day: int, last_day: int, at: Callable[[float, bool], Market], scale: float) -> Walk:
    return at(scale, False)(trial)(first_day, last_day)


def _fold_table(result: WalkForward, names: Sequence[str], dates: np.ndarray) -> Table:
    """walkforward.fold_table with names and dates in place of numbers."""
    table = dict(walkforward.fold_table(result))
    for edge in ("train_first", "test_first"):
        table[edge] = dates[table[edge]]
    for edge in ("train_last", "test_last"):
        table[edge] = dates[table[edge] - 1]
    return table | {"winner": np.array([names[k] for k in table["winner"]], dtype=object)}
