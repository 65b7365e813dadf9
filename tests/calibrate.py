"""`make calibrate`: is the verdict honest? Whole studies, of which the truth is known, through the rule itself.

A study is six configs with a common market in them: daily returns with fat tails, negative skew, clustered volatility
and some persistence, of a given correlation and a given true Sharpe ratio. In a null study all six are worth the same,
so `better than control` is a false positive. In a planted study one is better by a known difference, so anything else
is a miss. What judges them is `mahler.validation.study.weigh` and the rule, as in `mahler validate`, by the method of
conf/method/design.yaml with fewer bootstrap samples. A few null markets go the whole way, from quotes on.
Not part of the tests; writes experiments/calibration.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.signal import lfilter
from scipy.special import beta

from mahler.backtesting import make_synthetic
from mahler.config import Backtest, load
from mahler.grid import Axis, Cells, Grid
from mahler.home import conf_dir
from mahler.schema import SESSIONS_PER_YEAR
from mahler.validation.folds import folds
from mahler.validation.processes import alone, processes
from mahler.validation.scores import wilson
from mahler.validation.sharpe import detectable_difference, difference_past_deflation, sharpe_difference
from mahler.validation.method import Method
from mahler.validation.study import DEFLATION_POWER, Weighed, weigh
from mahler.validation.verdict import BETTER, NO_EVIDENCE, RULE_FACTOR, WORSE, verdict
from mahler.validation.walkforward import Trial, Walk

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "experiments" / "calibration.md"

SESSIONS, CONFIGS, CONTROL, PLANTED = 4_780, 6, 0, 3
EXPOSURES = np.array([1.0, 0.6, 0.8, 1.2, 1.4, 1.6])    # where configs differ in that, and in nothing else
VOLATILITY = 0.10 / np.sqrt(SESSIONS_PER_YEAR)      # a session, of every config
FREEDOM, SKEWING = 5.0, 0.80                        # Student's t and the two-piece skew of Fernandez & Steel
SKEW, KURTOSIS = -1.1, 10.0                         # which those, and the clustering, come to
PERSISTENCE, CLUSTERING, ROUGHNESS = 0.05, 0.97, 0.35
"""AR(1) of the shocks, AR(1) of the logarithm of volatility, and the standard deviation of that logarithm."""

HEAT, HOLDING = 0.15, 5                             # open maximum loss over equity; sessions that a trade lives
NATURAL_COST = 0.02 / SESSIONS_PER_YEAR             # a session, what crossing every quote costs either config
EQUITY = 100_000.0


# ---- a market of which the truth is known ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What a study is made of: the control's annual Sharpe ratio, what one config adds to it, and their correlation.

    `exposed` is whether the configs hold different amounts of the same thing, as a grid over multipliers does.
    """

    sharpe: float
    planted: float
    correlation: float
    exposed: bool
    seed: int


def shocks(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Fat-tailed, negatively skewed, slightly persistent shocks of mean 0 and variance 1: (n, count).

    References
    ----------
    Fernandez & Steel (1998), On Bayesian Modeling of Fat Tails and Skewness, for the two-piece t and its moments.
    """
    g = SKEWING
    sizes = np.abs(rng.standard_t(FREEDOM, (n, count)))
    raw = np.where(rng.random((n, count)) < g * g / (1.0 + g * g), g * sizes, -sizes / g)
    first = 2.0 * np.sqrt(FREEDOM) / ((FREEDOM - 1.0) * beta(FREEDOM / 2.0, 0.5))
    second = FREEDOM / (FREEDOM - 2.0)
    variance = (second - first ** 2) * (g ** 2 + g ** -2) + 2.0 * first ** 2 - second
    unit = (raw - first * (g - 1.0 / g)) / np.sqrt(variance)
    return lfilter([np.sqrt(1.0 - PERSISTENCE ** 2)], [1.0, -PERSISTENCE], unit, axis=0)


def daily_returns(truth: Truth, n: int = SESSIONS) -> np.ndarray:
    """Daily returns (n, CONFIGS) of a study; the configs differ in nothing but luck and what was planted."""
    rng = np.random.default_rng(truth.seed)
    innovations = rng.normal(0.0, ROUGHNESS * np.sqrt(1.0 - CLUSTERING ** 2), n)
    innovations[0] = rng.normal(0.0, ROUGHNESS)
    volatility = np.exp(lfilter([1.0], [1.0, -CLUSTERING], innovations) - ROUGHNESS ** 2)       # E[square] is 1
    common, own = shocks(rng, n, 1), shocks(rng, n, CONFIGS)
    mixed = np.sqrt(truth.correlation) * common + np.sqrt(1.0 - truth.correlation) * own
    worth = np.full(CONFIGS, truth.sharpe)
    worth[PLANTED] += truth.planted
    return VOLATILITY * (worth / np.sqrt(SESSIONS_PER_YEAR) + volatility[:, None] * mixed) * exposures(truth)


def exposures(truth: Truth) -> np.ndarray:
    """What each config holds, in units of the control: (CONFIGS,)."""
    return EXPOSURES if truth.exposed else np.ones(CONFIGS)


@dataclass(frozen=True)
class Daily:
    """A market of given daily returns (n_days, n_configs), as the walk-forward asks for it.

    Every window starts flat with the same dollars. Its P&L is cut into trades of HOLDING sessions that follow on one
    another, so that the trades' P&L adds up to the account's. Returns and heat are proportional to `scale`.
    """

    returns: np.ndarray
    exposures: np.ndarray        # (n_configs,)
    scale: float = 1.0
    natural: bool = False

    def __call__(self, number: int) -> Trial:
        size = self.scale * self.exposures[number]
        mine = self.scale * self.returns[:, number] - (size * NATURAL_COST if self.natural else 0.0)

        def walk(first_day: int, last_day: int) -> Walk:
            equity = EQUITY * np.cumprod(1.0 + mine[first_day:last_day])
            entry = np.arange(first_day, last_day, HOLDING)
            leave = np.minimum(entry + HOLDING, last_day) - 1
            pnl = np.diff(equity[leave - first_day], prepend=EQUITY)
            return Walk(first_day, EQUITY, equity, size * HEAT * equity, np.zeros(len(equity)), entry, leave, pnl)

        return walk


@lru_cache
def dates(n: int = SESSIONS) -> np.ndarray:
    """Consecutive weekdays from 2007 on: datetime64[D] (n,)."""
    return np.busday_offset(np.datetime64("2007-01-01"), np.arange(n), roll="forward")


# ---- a study of it ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the rule said of a study: the verdict, which criteria were passed, and how else the truth could be seen.

    `chosen` is the share of folds that chose the planted config; `alone` whether a single one-sided test at 5 % of
    that config against the control, told which one it is, says so on the same out-of-sample sessions.
    """

    truth: Truth
    verdict: str
    passed: dict[str, bool | None]
    chosen: float
    alone: bool
    difference: float
    control_sharpe: float


def method_of(replications: int, pbo_replications: int) -> Method:
    """conf/method/design.yaml, in one process and with other numbers of bootstrap samples."""
    design = OmegaConf.to_container(OmegaConf.load(conf_dir() / "method" / "design.yaml"))
    return Method(**{**design, "replications": replications, "pbo_replications": pbo_replications, "workers": 1})


@lru_cache
def out_of_sample(train: int, test: int, step: int, anchored: bool, embargo: int) -> np.ndarray:
    """The sessions that the scored start trades out of sample."""
    made = folds(dates(), start=dates()[0], train=train, test=test, step=step, anchored=anchored, shifts=[0],
                 embargo=embargo)
    return np.concatenate([np.arange(*fold.test) for fold in made])


def tested(method: Method) -> np.ndarray:
    return out_of_sample(method.train, method.test, method.step, method.anchored, method.embargo)


def examine(method: Method, truth: Truth) -> Outcome:
    """Make the study, and put it through the rule."""
    returns, size = daily_returns(truth), exposures(truth)
    found = weigh(alone(partial(Daily, returns, size)), lambda scale, natural: Daily(returns, size, scale, natural),
                  CONFIGS, CONTROL, dates(), 0, method, np.random.default_rng(truth.seed), n_trials=CONFIGS,
                  shape=(CONFIGS,), ordered=[False], risk_free=0.0, progress=lambda *_: None)
    days = tested(method)
    one_test = sharpe_difference(returns[days, PLANTED], returns[days, CONTROL], periods=SESSIONS_PER_YEAR, level=0.90)
    return outcome(truth, found, one_test.low > 0)


def outcome(truth: Truth, found: Weighed, alone: bool) -> Outcome:
    said = verdict(found.evidence)
    return Outcome(truth, said.verdict, {c.name: c.passed for c in said.criteria},
                   float(np.mean(found.walk.winners == PLANTED)), alone, found.evidence.difference.value,
                   found.evidence.control_sharpe.value)


def single_test(sharpe: float, correlation: float, method: Method) -> float:
    """The annual difference that one test of one config would see, with 80 % power at a one-sided 5 %."""
    better, scale = sharpe, np.sqrt(SESSIONS_PER_YEAR)
    for _ in range(5):                                  # it depends, a little, on the better one's own Sharpe ratio
        better = sharpe + detectable_difference(better / scale, sharpe / scale, correlation, len(tested(method)),
                                                periods=SESSIONS_PER_YEAR)
    return better - sharpe


def stated(sharpe: float, correlation: float, method: Method) -> float:
    """The annual difference that a study of these states the whole rule finds in four of five."""
    scale = np.sqrt(SESSIONS_PER_YEAR)
    luck = (1.0 - correlation) / SESSIONS               # variance of equal configs' Sharpe ratios per session
    deflation = difference_past_deflation(sharpe / scale, CONFIGS, luck, CONFIGS, len(tested(method)), SKEW, KURTOSIS,
                                          power=DEFLATION_POWER)
    return max(RULE_FACTOR * single_test(sharpe, correlation, method), deflation * scale)


# ---- which studies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """Studies of one kind, a row of the tables."""

    name: str
    sharpe: float
    multiple: float                    # of the stated difference
    correlations: tuple[float, ...]    # in turn
    exposed: bool
    studies: int

    def truths(self, method: Method, first_seed: int) -> list[Truth]:
        turns = [self.correlations[k % len(self.correlations)] for k in range(self.studies)]
        return [Truth(self.sharpe, self.multiple * stated(self.sharpe, rho, method), rho, self.exposed, first_seed + k)
                for k, rho in enumerate(turns)]


NULL_CORRELATIONS = (0.80, 0.90, 0.95, 0.99)
PLANTS = ((1.0, 0.90), (1.0, 0.95), (0.0, 0.90), (-0.7, 0.90))     # the control's Sharpe ratio, and the correlation
MULTIPLES = (2.0 / 3.0, 1.0)           # at a control that earns, the first is what a single test states
SEEDS = 10_000                         # between the first seeds of two cells


def nulls(studies: int) -> list[Cell]:
    """All configs are worth the same. The hard case is a control that is good: the others are then good as well."""
    half, quarter = -(-studies // 2), -(-studies // 4)
    return [Cell("equal, Sharpe 1", 1.0, 0.0, NULL_CORRELATIONS, False, studies),
            Cell("equal but for exposure, Sharpe 1", 1.0, 0.0, NULL_CORRELATIONS, True, half),
            Cell("equal, Sharpe 0", 0.0, 0.0, NULL_CORRELATIONS, False, quarter),
            Cell("equal, Sharpe -0.5", -0.5, 0.0, NULL_CORRELATIONS, False, quarter)]


def plants(studies: int) -> list[Cell]:
    return [Cell(f"control {sharpe:g}, correlation {rho:.2f}, {multiple:.2g} x the stated", sharpe, multiple, (rho,),
                 False, studies) for sharpe, rho in PLANTS for multiple in MULTIPLES]


def run(cells: Sequence[Cell], method: Method, workers: int) -> dict[Cell, list[Outcome]]:
    """The outcomes of every cell, in the order of its seeds, whatever the number of processes."""
    tasks = [(cell, truth) for k, cell in enumerate(cells) for truth in cell.truths(method, SEEDS * (k + 1))]
    found, begin = {}, time.perf_counter()
    with processes(partial(_same, method), workers) as spread:
        for done, (task, outcome) in enumerate(spread(_examine, tasks), 1):
            found[task] = outcome
            if done % 20 == 0 or done == len(tasks):
                seconds = time.perf_counter() - begin
                print(f"{done} of {len(tasks)} studies, {seconds:.0f} s: {task[0].name}", flush=True)
    return {cell: [found[task] for task in tasks if task[0] == cell] for cell in cells}


def _same(made: Any) -> Any:
    return made


def _examine(method: Method, task: tuple[Cell, Truth]) -> Outcome:
    return examine(method, task[1])


# ---- what came of it -------------------------------------------------------------------------------------------------

MOST_FALSE, STATED_POWER = 0.05, 0.80
"""The share of null studies that may be called better, and of stated differences that are to be found."""


def share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def called(outcomes: Sequence[Outcome], verdict: str) -> int:
    return sum(outcome.verdict == verdict for outcome in outcomes)


def interval(count: int, n: int) -> str:
    """A share of studies with its 95 % interval."""
    low, high = wilson(count, n)
    return f"{count / n:.1%} ({low:.1%} to {high:.1%})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def verdicts(found: dict[Cell, list[Outcome]]) -> str:
    """What the rule said, a row per kind of study."""
    rows = [["studies", "n", "planted difference", f"`{BETTER}` (95 %)", f"`{NO_EVIDENCE}`", f"`{WORSE}`"]]
    for cell, outcomes in found.items():
        n = len(outcomes)
        planted = f"{outcomes[0].truth.planted:.2f}" if cell.multiple else "none"
        rows.append([cell.name, str(n), planted, interval(called(outcomes, BETTER), n),
                     f"{called(outcomes, NO_EVIDENCE) / n:.1%}", f"{called(outcomes, WORSE) / n:.1%}"])
    return table(rows)


def by_correlation(outcomes: Sequence[Outcome]) -> str:
    """The null studies of Sharpe 1 by how alike the configs are."""
    rows = [["correlation", "n", f"`{BETTER}` (95 %)"]]
    for rho in NULL_CORRELATIONS:
        mine = [outcome for outcome in outcomes if outcome.truth.correlation == rho]
        rows.append([f"{rho:.2f}", str(len(mine)), interval(called(mine, BETTER), len(mine))])
    return table(rows)


def by_criterion(found: dict[Cell, list[Outcome]]) -> str:
    """How often each criterion alone was passed."""
    names = [name for name, passed in next(iter(found.values()))[0].passed.items() if passed is not None]
    rows = [["passed by", *(name.replace("_", " ") for name in names), "all of them"]]
    for cell, outcomes in found.items():
        rows.append([cell.name, *(f"{share([bool(o.passed[name]) for o in outcomes]):.0%}" for name in names),
                     f"{called(outcomes, BETTER) / len(outcomes):.0%}"])
    return table(rows)


def by_stage(found: dict[Cell, list[Outcome]]) -> str:
    """Where a planted difference is lost between the single test that is told where to look, and the rule."""
    rows = [["studies", "folds that chose the better one", "difference out of sample, mean", "the single test",
             "out-of-sample criterion", "the rule"]]
    for cell, outcomes in found.items():
        rows.append([cell.name, f"{np.mean([o.chosen for o in outcomes]):.0%}",
                     f"{np.mean([o.difference for o in outcomes]):+.2f}", f"{share([o.alone for o in outcomes]):.0%}",
                     f"{share([bool(o.passed['out_of_sample']) for o in outcomes]):.0%}",
                     f"{called(outcomes, BETTER) / len(outcomes):.0%}"])
    return table(rows)


def power_in_words(cell: Cell, outcomes: Sequence[Outcome]) -> str:
    """Whether a planted difference is found as often as is stated."""
    count, n = called(outcomes, BETTER), len(outcomes)
    if wilson(count, n)[1] < STATED_POWER:
        says = f"less often than {STATED_POWER:.0%}"
    elif count < STATED_POWER * n:
        says = f"below {STATED_POWER:.0%}, which its interval holds"
    else:
        says = f"at least as often as {STATED_POWER:.0%}"
    return f"{cell.name} ({outcomes[0].truth.planted:.2f} a year): {interval(count, n)}, {says}"


def is_honest(null: Mapping[Any, Sequence[Outcome]]) -> bool:
    """Whether no kind of null study is called better more often than it may be."""
    return all(called(outcomes, BETTER) <= MOST_FALSE * len(outcomes) for outcomes in null.values())


def split(found: dict[Cell, list[Outcome]]) -> tuple[dict[Cell, list[Outcome]], dict[Cell, list[Outcome]]]:
    """The null cells, and the planted ones."""
    return ({cell: outcomes for cell, outcomes in found.items() if not cell.multiple},
            {cell: outcomes for cell, outcomes in found.items() if cell.multiple})


def what_it_is(method: Method, command: str) -> list[str]:
    return [
        "# Is the verdict honest?",
        f"""Written by `{command}`; do not edit. Studies of which the truth is known go through
        `mahler.validation.study.weigh` and the rule, as in `mahler validate`, by `conf/method/design.yaml` with
        {method.replications} and {method.pbo_replications} bootstrap samples in place of the design's, to save time.
        All returns are drawn from a model: nothing here says anything about a market.""",
        f"""A study is {CONFIGS} configs over {SESSIONS:,} sessions (19 years) that share a market: daily returns of
        Student's t with {FREEDOM:g} degrees of freedom, made skew (about -1.1), with clustered volatility (raw
        kurtosis about 10) and an autocorrelation of {PERSISTENCE:g}; the control's volatility is 10 % a year. Their
        P&L is cut into trades of {HOLDING} sessions, and natural fills cost
        {NATURAL_COST * SESSIONS_PER_YEAR:.0%} a year at the control's exposure. N is {CONFIGS}, this study alone: a
        ledger's larger N makes the rule stricter. The configs are names, not numbers, so there are no neighbouring
        cells to ask, which makes the rule laxer.""",
        f"""The first seed of the k-th row, the rows of the two tables of verdicts counted together from 1, is
        {SEEDS:,} k; the studies of a row count on from there. The same command gives the same tables. Intervals
        are Wilson's, 95 %."""]


def of_nulls(null: dict[Cell, list[Outcome]]) -> list[str]:
    every, hard = [outcome for outcomes in null.values() for outcome in outcomes], next(iter(null))
    counts = {cell: called(outcomes, BETTER) for cell, outcomes in null.items()}
    kept = "No row has more." if is_honest(null) else "**A row has more: the rule is not honest here.**"
    return [
        "## Nothing there: how often is something found?", verdicts(null),
        f"""Of {len(every)} null studies {sum(counts.values())} were called `{BETTER}`:
        {interval(sum(counts.values()), len(every))}. Of the {len(null[hard])} in which a good control has five equals,
        {counts[hard]}: {interval(counts[hard], len(null[hard]))}. The rule may be wrong in {MOST_FALSE:.0%}. {kept}
        Where the control is worth nothing, the deflated Sharpe ratio alone keeps almost everything out, so those rows
        prove little.""",
        f"By correlation, of \"{hard.name}\":", by_correlation(null[hard]),
        "How often each criterion alone lets a null study through; none is a verdict by itself:", by_criterion(null)]


def of_plants(planted: dict[Cell, list[Outcome]], method: Method) -> list[str]:
    singles = [f"{single_test(sharpe, rho, method):.2f} at a control of {sharpe:g} and a correlation of {rho:.2f}"
               for sharpe, rho in PLANTS]
    return [
        "## Something there: how often is it found?",
        f"""One config is better than the control, and than the four others, by a multiple of the difference that a
        report of such a study states: what "this rule finds in four studies of five". It is the larger of two. The
        comparison needs {RULE_FACTOR:g} times what one test of one config on the {len(tested(method)):,} sessions out
        of sample would see with 80 % power at a one-sided 5 % ({"; ".join(singles)}), because the config must first be
        chosen, fold by fold, by the past, and then pass every criterion. The deflated Sharpe ratio needs an account
        that is itself good: at a control that earns nothing, or loses, that is the larger one by far, and it grows
        with N.""",
        verdicts(planted), "How often it is found, against the power that is stated:",
        "\n".join(f"- {power_in_words(cell, outcomes)}." for cell, outcomes in planted.items()),
        "Where it is lost. *The single test* is told which config is the better one:", by_stage(planted),
        by_criterion(planted),
        f"""So `{NO_EVIDENCE}` is not "no difference". Read it with the difference that could have been seen."""]


# ---- null markets, from quotes on ------------------------------------------------------------------------------------

LAST_YEAR = 2013
MARKET = ("universe=spy", "data.variance_premium=0", "data.drift=0", "data.workers=1", f"period.end={LAST_YEAR}-12-31",
          "fill=mid", "costs.commission=0", "costs.assignment_fee=0", "classifier=rule")
REGIMES = ("flat", "prod", "mild", "aggressive", "bear_boost", "inverse")
WINDOWS = {"train": 24, "test": 6, "step": 6}


def null_grid() -> Grid:
    """The regimes over a market without a variance premium and without drift, traded at the mid for nothing."""
    def config(*overrides: str) -> Backtest:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return load(compose("backtest", [*MARKET, *overrides]), Backtest)

    return Grid(config(), (Axis("regime", REGIMES, tuple(config(f"regime={name}").regime for name in REGIMES), False),))


def null_market(asked: tuple[Method, Grid], seed: int) -> Outcome:
    """The whole pipeline on the market of that seed, in a home of its own: every config of it is worth nothing."""
    method, grid = asked
    grid = replace(grid, base=replace(grid.base, data=partial(grid.base.data, seed=seed)))
    with TemporaryDirectory() as folder:
        os.environ["MAHLER_HOME"] = folder
        make_synthetic(grid.base)
        made = {natural: Cells(grid, natural=natural) for natural in (False, True)}

        def at(scale: float, natural: bool) -> Cells:
            made[natural].scale = scale
            return made[natural]

        found = weigh(alone(lambda: at(1.0, False)), at, len(grid), 0, made[False].chains.sessions, 0,
                      replace(method, **WINDOWS), np.random.default_rng(seed), n_trials=len(grid), shape=grid.shape,
                      ordered=[False], risk_free=0.0, progress=lambda *_: None)
    return outcome(Truth(0.0, 0.0, np.nan, True, seed), found, False)


def of_markets(outcomes: Sequence[Outcome]) -> list[str]:
    sharpes, n = np.array([o.control_sharpe for o in outcomes]), len(outcomes)
    return [
        "## Null markets, from quotes on",
        f"""{n} synthetic markets (SPY, 2007 to {LAST_YEAR}, seeds 1 to {n}) without a variance premium and without
        drift, each with its own path and quotes, through the whole pipeline: chains, candidates, exits, admission of
        the {len(REGIMES)} regime multipliers, and the rule, with {WINDOWS['train']} months of training and
        {WINDOWS['test']} of test. Fills are at the mid and cost nothing, so that nothing earns and nothing loses but by
        luck: the control's Sharpe ratio out of sample has a mean of {sharpes.mean():+.2f} and a standard deviation of
        {sharpes.std(ddof=1):.2f}. Called `{BETTER}`: {interval(called(outcomes, BETTER), n)}; `{NO_EVIDENCE}`:
        {called(outcomes, NO_EVIDENCE) / n:.1%}; `{WORSE}`: {called(outcomes, WORSE) / n:.1%}. They are few, for each
        is a market to be made; the rate of false positives rests on the studies above."""]


def report(found: dict[Cell, list[Outcome]], markets: Sequence[Outcome], method: Method, command: str) -> str:
    """The committed tables, with what they mean."""
    null, planted = split(found)
    blocks = [*what_it_is(method, command), *of_nulls(null), *of_plants(planted, method), *of_markets(markets)]
    return "\n\n".join(block if block.startswith(("|", "#", "- ")) else
                       fill(" ".join(block.split()), 120, break_on_hyphens=False) for block in blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nulls", type=int, default=200, help="null studies; of other kinds half, or a quarter")
    parser.add_argument("--planted", type=int, default=60, help="studies of each planted difference")
    parser.add_argument("--markets", type=int, default=60, help="null markets that are made, and traded")
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--pbo-replications", type=int, default=99)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=TARGET)
    given = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"     # of the worker processes, which are as many as the cores
    method = method_of(given.replications, given.pbo_replications)
    grid = null_grid()
    found = run([*nulls(given.nulls), *plants(given.planted)], method, given.workers)
    with processes(partial(_same, (method, grid)), given.workers) as spread:
        markets = dict(spread(null_market, range(1, given.markets + 1)))
    usual = {name: parser.get_default(name) for name in ("nulls", "planted", "markets", "replications",
                                                         "pbo_replications")}
    typed = [f"--{name.replace('_', '-')} {getattr(given, name)}" for name, default in usual.items()
             if getattr(given, name) != default]
    command = " ".join(["python tests/calibrate.py", *typed]) if typed else "make calibrate"
    given.output.write_text(report(found, [markets[seed] for seed in sorted(markets)], method, command))
    print(given.output)
    if not is_honest(split(found)[0] | {"null markets": list(markets.values())}):
        raise SystemExit(f"a null study is called {BETTER!r} more often than in {MOST_FALSE:.0%}")


if __name__ == "__main__":
    main()
