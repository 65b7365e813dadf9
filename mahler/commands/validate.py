"""Judge a study, or a grid: walk-forward, overfitting, and a verdict by the rule written down before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from functools import partial

import numpy as np
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from mahler import cache, config as configs, findings, tracking, trials
from mahler.backtesting import identity, market, settings, source_module, store_root
from mahler.config import Backtest, Validate, load
from mahler.grid import Axis, Cells, Grid, check_axis, read
from mahler.report import of_samples
from mahler.schema import SESSIONS_PER_YEAR, ConfigError
from mahler.terminal import progress, say, table
from mahler.trials import Trial
from mahler.validation.method import NOT_CHOSEN_BY
from mahler.validation.processes import processes
from mahler.validation.study import Judgement, judge, plan
from mahler.validation.verdict import number


SAME = ("tags.data_digest", "sessions")       # what runs must share to be compared
MOST_PRINTED = 12        # configs; all are in the artifacts


@dataclass(frozen=True)
class Family:
    """Configs that are compared with one control on one market."""

    grid: Grid
    control: int
    universe: str
    judged: tuple[str, ...]      # ids of the runs; none for a grid


def run(config: Validate) -> None:
    """Judge each family of the study and log what came of it."""
    families = [_of_grid(config)] if config.grid else list(_of_runs(config))
    for family in families:
        _judge(config, family)


def _judge(config: Validate, family: Family) -> None:
    base = family.grid.base
    chains, series = market(family.grid.farthest)
    root, names = store_root(base.data), [family.grid.name(k) for k in range(len(family.grid))]
    digest = cache.fingerprint(chains.fingerprint, cache.code_version(), names, configs.plain(config.method),
                               configs.plain(base), family.control, family.judged)
    first_day = int(np.searchsorted(chains.sessions, np.datetime64(base.period.start)))
    plan(len(names), chains.sessions, first_day, config.method)         # what is refused is not a trial
    family.grid.check()
    if not family.judged:
        signature = _searched(config, family, f"{chains.fingerprint} {series.fingerprint if series else None}")
        trials.record(root, [Trial(signature, config.study, "search", family.universe, len(names),
                                   start=str(base.period.start), end=str(base.period.end))])
    here = Cells(family.grid)

    def at(scale: float, natural: bool) -> Cells:
        here.scale, here.natural = scale, natural
        return here

    with processes(partial(Cells, family.grid), config.method.workers) as spread:
        tried = trials.merged(trials.read(root), [Trial(*run, 1) for run in tracking.logged(root.name)])
        say(f"N = {trials.total(tried)} configurations tried on {root.name}: "
            + ", ".join(f"{study} {n}" for study, n in trials.by_study(tried).items()))
        with progress("validate") as bar:
            bar(0, len(names), "market")
            here(family.control)             # what each process would else make for itself: it finds it in the cache
            found = judge(spread, at, names, family.control, chains.sessions, first_day, config.method,
                          n_trials=trials.total(tried), shape=family.grid.shape,
                          ordered=[axis.ordered for axis in family.grid.axes] or [False], risk_free=config.risk_free,
                          progress=bar)
    synthetic = source_module(base.data).SYNTHETIC
    tags = tracking.describe(kind="validation", data_source=chains.source, data_digest=chains.fingerprint,
                             synthetic=synthetic, universe=chains.tickers, overrides=HydraConfig.get().overrides.task)
    tags |= {"judged": ",".join(family.judged), "verdict": found.verdict.verdict, "control": names[family.control],
             "period": f"{base.period.start} to {base.period.end}"}
    ends = {"winner": names.index(found.winners[0][0]), "control": family.control}      # what may be promoted
    tags["layers"] = ",".join(_layers(family.grid))
    tags |= {f"{end}_config": identity(family.grid[k]) for end, k in ends.items()}
    name = f"validation {family.universe}: {found.verdict.verdict}"
    with tracking.run(study=config.study, name=name, signature=digest,
                      params=configs.plain(config.method) | configs.flatten({"data": base.data}), tags=tags) as active:
        tracking.log_tables(active, metrics=_metrics(found), tables=_tables(found),
                            files={"judgement.json": json.dumps(_summary(found, tried, family), indent=1)}
                            | {f"{end}.yaml": configs.to_yaml(_backtest(family.grid[k])) for end, k in ends.items()})
    _print(config, family, found, synthetic)
    say(f"  {active.artifacts}")


def _searched(config: Validate, family: Family, data: str) -> str:
    """Signature of a search: of what it looked at and chose by, as it is and not as it is called.

    An option whose file was edited is another trial. The same grid with other samples, or on more cores, is not.
    """
    chosen_by = {key: value for key, value in configs.plain(config.method).items() if key not in NOT_CHOSEN_BY}
    options = [[axis.key, configs.plain(axis.values)] for axis in family.grid.axes]
    return cache.fingerprint(data, cache.code_version(), settings(family.grid.base), options, family.control, chosen_by)


# ---- what is judged --------------------------------------------------------------------------------------------------


def _of_runs(config: Validate) -> Iterator[Family]:
    """A family per universe of the study's runs; the newest of each config."""
    rows = tracking.runs(config.study)
    failed = tracking.count_failed(config.study)
    if failed:
        say(f"{failed} failed {'run' if failed == 1 else 'runs'} of {config.study} {'is' if failed == 1 else 'are'} left out")
    if not rows:
        raise ConfigError(f"study={config.study}: no finished run; "
                          f"mahler backtest study={config.study}, or experiment=... of one in conf")
    by_universe: dict[str, list[dict]] = {}
    for row in findings.newest(rows):             # a name is what was typed
        by_universe.setdefault(row["tags.universe"], []).append(row)
    for universe, members in sorted(by_universe.items()):
        last = members[-1]
        alike = [row for row in members if all(row[key] == last[key] for key in SAME)]
        if len(alike) < len(members):
            other = len(members) - len(alike)
            say(f"{other} {'run' if other == 1 else 'runs'} of {universe} on other data or of another length than the newest "
                f"{'is' if other == 1 else 'are'} left out")
        if len(alike) < 2:
            raise ConfigError(f"study={config.study}: one run of {universe} on the same data and of the same length is "
                              "nothing to choose from; a study has two configs or more")
        yield _family(config, universe, alike)


def _family(config: Validate, universe: str, members: list[dict]) -> Family:
    cells = tuple(load(OmegaConf.load(row["artifacts"] / "config.yaml"), Backtest) for row in members)
    flat = [configs.flatten(cell) for cell in cells]
    varying = [key for key in flat[0] if len({json.dumps(f.get(key)) for f in flat}) > 1 and key != "name"]
    standard = configs.flatten(load(_composed("backtest", [f"{k}={v}" for k, v in config.control.items()]), Backtest))
    control = [k for k, f in enumerate(flat) if all(f[key] == standard.get(key) for key in varying)]
    if not control:
        wanted = ", ".join(f"{key}={standard.get(key)}" for key in varying)
        raise ConfigError(f"study={config.study}: no run of {universe} has the control's settings ({wanted}); "
                          "run it, or name another one: control={group: option}")
    names = tuple(row["name"] for row in members)
    return Family(Grid(cells[control[0]], (), cells, names), control[0], universe,
                  tuple(row["run_id"] for row in members))


def _of_grid(config: Validate) -> Family:
    """The product of the axes that `grid` names."""
    axes, typed = [], [o for o in HydraConfig.get().overrides.task if not o.lstrip("+").startswith(("grid", "control"))]
    plain = _composed("validate", typed)
    for key, options in config.grid.items():
        check_axis(key)
        read(config, key)
        if not options:
            raise ConfigError(f"grid.{key} has no option")
        if key in HydraConfig.get().runtime.choices and not all(isinstance(option, str) for option in options):
            raise ConfigError(f"grid.{key}: an option is the name of a file of conf/{key}, got {options}")
        words = tuple(map(_word, options))
        if key in HydraConfig.get().runtime.choices:
            cells = [_composed("validate", [*typed, f"{key}={word}"]) for word in words]
        else:
            cells = [_changed(plain, key, option) for option in options]
        values = tuple(read(load(cell, Validate), key) for cell in cells)
        if len(set(words)) < len(words) or isinstance(values[0], (int, float)) and len(set(values)) < len(values):
            raise ConfigError(f"grid.{key}: an option is there twice in {options}")
        axes.append(Axis(key, words, values, all(isinstance(o, (int, float)) for o in options)))
    for key in config.control:
        if key not in config.grid:
            raise ConfigError(f"control.{key}: is no axis of the grid, which has {', '.join(config.grid)}")
    grid = Grid(config, tuple(axes))
    at = []
    for axis in axes:
        word = _word(config.control[axis.key]) if axis.key in config.control else None
        same = [k for k, value in enumerate(axis.values) if axis.options[k] == word or (
            repr(value) == repr(read(config, axis.key)) if word is None else axis.ordered and word == repr(value))]
        if not same:
            default = HydraConfig.get().runtime.choices.get(axis.key, read(config, axis.key))
            raise ConfigError(f"grid.{axis.key}: the control's option {word or default} is not one of "
                              f"{', '.join(axis.options)}; add it, or name one of them in control")
        at.append(same[0])
    return Family(grid, int(np.ravel_multi_index(at, grid.shape)), ",".join(sorted(config.universe.tickers)), ())


def _word(option: object) -> str:
    """An option as it is typed."""
    return option if isinstance(option, str) else json.dumps(option)


def _layers(grid: Grid) -> list[str]:
    """The groups of the config in which the cells differ."""
    if grid.axes:
        return sorted({axis.key.partition(".")[0] for axis in grid.axes})
    plain = [configs.plain(cell) for cell in grid.cells]
    return sorted(key for key, value in plain[0].items() if isinstance(value, dict)
                  and any(other[key] != value for other in plain))


def _backtest(cell: Backtest) -> Backtest:
    """A cell of a grid without what is the validation's."""
    return Backtest(**{f.name: getattr(cell, f.name) for f in fields(Backtest)})


def _composed(primary: str, overrides: list[str]) -> DictConfig:
    """A config as the command line would compose it. Raises ConfigError where it cannot be composed."""
    try:
        return compose(primary, overrides)
    except MissingConfigException as error:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        raise configs.unknown_option(group, option, error.options or []) from error
    except HydraException as error:
        raise ConfigError(f"{overrides[-1] if overrides else primary}: {str(error).splitlines()[0]}") from error


def _changed(composed: DictConfig, key: str, value: object) -> DictConfig:
    """`composed` with another value at a dotted key, forty times quicker than to compose it again."""
    changed = deepcopy(composed)
    OmegaConf.update(changed, key, value)
    return changed


# ---- what came of it -------------------------------------------------------------------------------------------------


def _metrics(found: Judgement) -> dict[str, float]:
    e, worth = found.weighed.evidence, found.weighed.worth
    return {"difference": e.difference.value, "difference_low": e.difference.low, "difference_high": e.difference.high,
            "difference_hac_p_value": found.robust.p_value if found.robust else np.nan,
            "probabilistic_sharpe": worth.probabilistic, "deflated_sharpe": worth.deflated,
            "min_track_record_years": worth.min_track_record_years, "min_backtest_years": worth.min_backtest_years,
            "n_trials": e.n_trials, "pbo": found.overfitting.pbo, "pbo_p_value": e.pbo_p_value,
            "spa_p_value": found.spa_p_value, "single_test": e.single_test, "detectable": e.detectable,
            "natural_fill_difference": e.natural_fill, "without_best_year": e.without_best_year,
            "without_best_trades": e.without_best_trades, "efficiency": found.efficiency}


def _tables(found: Judgement) -> dict:
    return {"configs": found.configs, "folds": found.folds, "accounts": found.accounts, "spread": found.spread,
            "trials": {"config": np.array(found.names, dtype=object), **found.weighed.walk.search.trials},
            "pbo_null": {"pbo": found.weighed.null}, "pbo_logits": {"logit": found.weighed.overfitting.logits}}


def _summary(found: Judgement, tried: list[Trial], family: Family) -> dict:
    """The judgement in JSON: what a report is written from. What is not finite is null."""
    w = found.weighed
    whole = {"verdict": found.verdict.verdict, "reasons": list(found.verdict.reasons),
             "criteria": [asdict(c) for c in found.verdict.criteria], "evidence": asdict(w.evidence),
             "worth": asdict(w.worth), "out_of_reach": bool(np.isinf(w.evidence.detectable)),
             "control": found.names[found.control], "configs": len(found.names), "universe": family.universe,
             "robust": asdict(found.robust) if found.robust else None, "winners": found.winners,
             "years": {str(y): d for y, d in w.years.items()},
             "efficiency": found.efficiency, "pbo": found.overfitting.pbo, "tested": len(w.tested),
             "pbo_tested": w.overfitting.pbo,
             "degradation": found.overfitting.degradation,
             "probability_of_loss": found.overfitting.probability_of_loss, "spa_p_value": found.spa_p_value,
             "superior": list(found.superior), "heat": asdict(w.heat) if w.heat else None,
             "n_trials": found.n_trials, "n_by_study": trials.by_study(tried), "judged": list(family.judged)}
    return json.loads(json.dumps(whole, default=float), parse_constant=lambda _: None)


def _print(config: Validate, family: Family, found: Judgement, synthetic: bool) -> None:
    c = found.configs
    rows = [k for k in range(len(c["config"])) if c["is_control"][k] or len(c["config"]) <= MOST_PRINTED]
    if len(rows) < len(c["config"]):              # of many, the control and the best
        rows += [k for k in np.argsort(-np.nan_to_num(c["sharpe"], nan=-np.inf))[:MOST_PRINTED] if k not in rows]

    def value(name: str, row: int, form: str) -> str:
        return f"{c[name][row]:{form}}" if name in c and np.isfinite(c[name][row]) else "-"

    def interval(name: str, row: int, form: str) -> str:
        parts = [value(f"{name}{end}", row, form) for end in ("", "_low", "_high")]
        return "-" if "-" in parts else "{} ({} to {})".format(*parts)

    level = f"{found.weighed.evidence.difference.level:.0%}".replace("%", " %")
    table([{"config": ("* " if c["is_control"][row] else "  ") + c["config"][row],
            f"Sharpe ({level})": interval("sharpe", row, ".2f"),
            f"less control ({level})": "control" if c["is_control"][row] else interval("difference", row, "+.2f"),
            "seen from": "-" if c["is_control"][row] else value("detectable", row, ".2f"),
            "max DD": value("max_drawdown", row, ".1%"),
            "at equal heat": value("equal_heat_max_drawdown", row, ".1%"), "heat": value("mean_heat", row, ".1%")}
           for row in rows],
          title=f"{config.study}, {family.universe}, {'SYNTHETIC market' if synthetic else 'real chains'}: * is the control")
    e, worth = found.weighed.evidence, found.weighed.worth
    say(f"  out of sample, {len(found.folds['winner'])} folds in {len(found.spread['shift'])} starts; the winner most "
        f"often: {found.winners[0][0]} ({found.winners[0][1]:.0%}); difference by start "
        + ", ".join(number(d, "+.2f") for d in found.spread["difference"]))
    say(f"  {_together(found, config.method.replications)}, DSR {number(worth.deflated, '.2f')} of N = {found.n_trials}, "
        f"PSR {number(worth.probabilistic, '.2f')}")
    say(f"  MinTRL {_years(worth.min_track_record_years)}; out of sample there are "
        f"{len(found.accounts['date']) / SESSIONS_PER_YEAR:.1f}. MinBTL {_years(worth.min_backtest_years)}; in all "
        f"there are {worth.years:.1f}")
    say(f"  VERDICT: {found.verdict.verdict.upper()}")
    for reason in found.verdict.reasons:
        say(f"    {reason}")


def _together(found: Judgement, replications: int) -> str:
    """PBO and SPA, and of how many configs they are."""
    w, p_value = found.weighed, f"p of equal configs {found.weighed.evidence.pbo_p_value:.2f}"
    if len(w.tested) == len(found.names):
        return f"PBO {w.overfitting.pbo:.2f} ({p_value}), SPA p {of_samples(found.spa_p_value, replications)}"
    return (f"PBO {found.overfitting.pbo:.2f}, of the {len(w.tested)} best alone {w.overfitting.pbo:.2f} ({p_value}), "
            f"SPA not asked of {len(found.names):,} configs")


def _years(years: float) -> str:
    """A length of time that would be enough; for a Sharpe ratio that is not above zero there is none."""
    return f"{years:.1f} years" if np.isfinite(years) else "no length, for it is not above zero"
