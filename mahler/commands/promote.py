"""Put a run into production, through the gates; list what was, go back, compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import OmegaConf

from mahler import (
    cache, config as configs, evaluated, home, ledger as ledgers, production, promotion, tracking, trials)
from mahler.backtesting import book, identity, settings, store_root, walked
from mahler.commands import backtest, explain
from mahler.config import Backtest, Promote, load
from mahler.data import store
from mahler.ledger import Ledger
from mahler.llm import layer
from mahler.monitoring import bands
from mahler.promotion import Gate, Judged
from mahler.schema import ConfigError
from mahler.stages import Prepared
from mahler.terminal import say, table
from mahler.validation.verdict import BETTER

Row = dict[str, Any]

LAYERS = ("entry", "exit", "regime", "limits", "sizing", "breaker")
"""The groups of a config that are a choice, and not the market, its costs or how it is seen."""


def run(config: Promote) -> None:
    """Do the action."""
    ACTIONS[config.action](config)


# ---- promote ---------------------------------------------------------------------------------------------------------

def promote(config: Promote) -> None:
    """Walk the run again, ask every gate, and write it down as the production config."""
    row, judged = _of_study(config) if config.study else (explain.find(explain.typed(config.run)), None)
    ledger = ledgers.read(row["artifacts"])
    told, prepared = explain.again(row, ledger)
    judged = judged or _judged(row, told)
    evaluation = None if config.llm_run is None else _evaluation(explain.typed(config.llm_run, "llm_run"), row)
    state = tracking.git_state(tracking.PACKAGE)
    asked = _ask(config, row, told, judged, evaluation, state)
    for gate in asked:
        verdict = "passed" if gate.passed else "OVERRIDDEN" if gate.name in config.override.gates else "REFUSES"
        say(f"  {verdict:10}  {gate.name:15}  {gate.words}")
    provenance = promotion.provenance(
        row, judged, asked, config.override, promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=state[0] if state else "none", code_version=cache.code_version(),
        llm_run=evaluation["run_id"] if evaluation else "off")
    ledger, approved = _vetoed(told, prepared, evaluation) if evaluation else (ledger, None)
    promised = bands.bands(ledger, fill=told.fill, rule=config.bands, rng=np.random.default_rng(config.bands.seed),
                           approved=approved)
    _install(row, told, provenance, _layer(evaluation), bands.plain(promised))
    _warn_of_losses(row)
    if evaluation:
        say(f"Its LLM layer, {evaluation['tags.model']}, approves {approved:.1%} of what a session asks it, and mahler scan "
            "asks it before it writes a ticket.")


def _of_study(config: Promote) -> tuple[Row, Judged]:
    """The run of what the newest validation of a study found: its winner where that is better, else its control."""
    newest = {row["tags.universe"]: row for row in
              sorted(tracking.runs(config.study, kind="validation"), key=lambda row: row["started"])}
    judged_on = [universe for universe in sorted(newest)
                 if not config.tickers or universe == ",".join(sorted(config.tickers))]
    if not newest:
        raise ConfigError(f"study={config.study}: no validation; mahler validate study={config.study}")
    if len(judged_on) != 1:
        raise ConfigError(f"study={config.study}: which universe is meant? "
                          + " or ".join(f"tickers=[{universe}]" for universe in sorted(newest)))
    validation = newest[judged_on[0]]
    role = "winner" if validation["tags.verdict"] == BETTER else "control"
    path = validation["artifacts"] / f"{role}.yaml"
    if not path.is_file():
        raise ConfigError(f"study={config.study}: {path} is missing; run mahler validate study={config.study} again")
    told = load(OmegaConf.load(path), Backtest)
    judged = Judged(validation, _judgement(validation), role, _treated(told))
    told = replace(told, name=judged.name)
    say(f"{config.study}, {validation['tags.universe']}: {validation['tags.verdict']}; what is promoted is the {role}, "
        f"{judged.name}")
    backtest.run(told)                             # found where it was run before; the cell of a grid never was
    same = [row for row in tracking.runs(told.study) if row.get("tags.config") == identity(told)
            and row["params.period.end"] == str(told.period.end) and row["params.period.start"] == str(told.period.start)]
    return max(same, key=lambda row: (judged.on_the_data_of(row), row["started"])), judged


def _judged(run: Row, told: Backtest) -> Judged | None:
    """The newest validation that chose the config of a run, or looked at it: on its data and days, if there is one."""
    found = list(_of_config(run, told))
    return next((one for one in found if one.on_the_data_of(run)), found[0] if found else None)


def _of_config(run: Row, told: Backtest) -> Iterator[Judged]:
    """What every validation has to say of a config, whatever days it looked at, the newest first."""
    config, treated = identity(told), _treated(told)
    for row in tracking.finished("validation"):
        if any(row[key] != run[key] for key in ("tags.data_source", "tags.universe")):
            continue
        role = next((role for role in ("control", "winner") if row.get(f"tags.{role}_config") == config), None)
        if role or run["run_id"] in row.get("tags.judged", "").split(","):
            yield Judged(row, _judgement(row), role or "others", treated)


def _treated(told: Backtest) -> tuple[str, ...]:
    """The settings of a config's layers that are not those of the control, every group's default."""
    control, own = configs.flatten(load(compose("backtest"), Backtest)), configs.flatten(told)
    return tuple(f"{key}={value}" for key, value in own.items()
                 if key.partition(".")[0] in LAYERS and value != control.get(key))


def _judgement(validation: Row) -> dict[str, Any]:
    return json.loads((validation["artifacts"] / "judgement.json").read_text(encoding="utf-8"))


def _ask(config: Promote, row: Row, told: Backtest, judged: Judged | None, evaluation: Row | None,
         state: tuple[str, list[str]] | None) -> list[Gate]:
    period, held_out = told.period, config.holdout
    return [promotion.real_data(row), promotion.clean_tree(state), promotion.validation(judged, row),
            promotion.deflated_sharpe(judged), promotion.overfitting(judged), promotion.natural_fill(judged),
            promotion.llm(evaluation, _verdict(evaluation)),
            promotion.holdout(identity(told), (str(period.start), str(period.end)),
                              (str(held_out.start), str(held_out.end)), trials.read(store_root(told.data)))]


def _evaluation(llm_run: str, run: Row) -> Row:
    """The evaluation of the LLM layer. Raises ConfigError where there is no layer in it to promote: no override makes one."""
    found = tracking.get(llm_run)
    if found.get("tags.kind") != "evaluation" or found.get("tags.arm") != "model" or found.get("tags.model") == "none":
        what = f"of arm={found['tags.arm']}" if "tags.arm" in found else "no evaluation"
        raise ConfigError(f"llm_run={llm_run}: {found['name']} is {what}, and a layer is a model: mahler evaluate arm=model")
    if found.get("tags.judged") != run["run_id"]:
        raise ConfigError(f"llm_run={llm_run}: judged the trades of another run; mahler evaluate arm=model "
                          f"run={run['run_id'][:8]}")
    return found


def _verdict(evaluation: Row | None) -> str | None:
    """Of an evaluation among all that was asked in its study."""
    if evaluation is None:
        return None
    return next((one.judgement.verdict.verdict for one in evaluated.read(evaluation["study"]).found
                 if one.row["run_id"] == evaluation["run_id"]), None)


def _layer(evaluation: Row | None) -> dict[str, Any] | None:
    """The LLM layer of production.json: as it was asked when it was judged."""
    if evaluation is None:
        return None
    asked = OmegaConf.to_container(OmegaConf.load(evaluation["artifacts"] / "config.yaml"), resolve=True)
    return production.settings_of_layer(evaluation["tags.prompt"], evaluation["tags.context"], asked)


def _vetoed(told: Backtest, prepared: Prepared, evaluation: Row) -> tuple[Ledger, float]:
    """The run with the vetoes of its layer, which is what the paper account will trade, and the share that it approved."""
    path = evaluation["artifacts"] / "loop.parquet"
    if not path.is_file():
        raise ConfigError(f"llm_run={evaluation['run_id'][:8]}: was not judged inside the portfolio, so what its vetoes leave "
                          "cannot be promised; mahler evaluate arm=model in_loop=true")
    decided = store.read_table(path)
    judged = layer.Judged(book(told, prepared), decided["row"], decided)
    return walked(told, judged.book, judged.vetoed()), judged.approved()


def _install(row: Row, told: Backtest, provenance: dict[str, str], layer: dict[str, Any] | None,
             promised: dict[str, Any]) -> None:
    """Write the files of the version, register it, crown it, and put its files where they are read: one at a time."""
    values = {"data": configs.plain(told.data), **settings(told), "study": "production"}
    groups = [name for name, value in values.items() if isinstance(value, dict)]
    yaml = production.to_yaml(provenance, groups, OmegaConf.to_yaml(OmegaConf.create(values)))
    with tracking.promoting():
        folder = row["artifacts"] / "production" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        production.write(folder, yaml, production.flat(values, provenance, layer), promised)
        version = tracking.register(folder, row["run_id"], provenance)
        tracking.crown(version)
        production.install(folder, _experiments())
    say(f"Version {version} of {tracking.REGISTERED} is the champion: {row['name']}, run {row['run_id'][:8]}.")
    say(f"  {_experiments() / production.YAML}, and beside it {production.JSON} and {production.BANDS}")
    say("Next:  mahler backtest experiment=production   mahler scan   mahler promote list")


def _experiments() -> Path:
    """Where the promoted config is read."""
    return home.project_conf() / "experiment"


def _warn_of_losses(row: Row) -> None:
    """Bands that promise a loss are kept by losing."""
    if row.get("cagr", 0.0) < 0.0:
        say(f"It LOST money in its own backtest, {row['cagr']:.2%} a year, Sharpe {row['sharpe']:.2f}: that is what "
            "its paper account is held to.")


# ---- what is there ---------------------------------------------------------------------------------------------------

def listed(config: Promote) -> None:
    """Every version, the newest first."""
    versions = tracking.versions()
    if not versions:
        raise ConfigError("nothing was promoted yet; mahler promote run=ID or study=NAME")
    table([{"version": f"{one['version']}{' *' if one['champion'] else '  '} {one['tags.run']}",
            "promoted": one["tags.promoted"][:16], "run": one["run_id"][:8], "study": one["tags.study"],
            "market": one["tags.market"], "verdict": one.get("tags.verdict", "-"),
            "overridden": one["tags.gates_overridden"]} for one in versions],
          title=f"{tracking.REGISTERED}: * is the champion")
    for one in versions:
        if one["champion"] and not production.installed(one["source"], _experiments()):
            say(f"{_experiments()} has not the files of the champion: mahler promote rollback version={one['version']}")


def rollback(config: Promote) -> None:
    """Make another version the champion, and its files the ones that are read."""
    one = _version(config.version, "version")
    with tracking.promoting():
        production.install(one["source"], _experiments())
        tracking.crown(one["version"], {"rolled_back": datetime.now(UTC).isoformat(timespec="seconds")})
    say(f"Version {one['version']} is the champion: {one['tags.run']}, run {one['run_id'][:8]}.")


def diff(config: Promote) -> None:
    """The values that differ between two versions."""
    a, b = _version(config.a, "a"), _version(config.b, "b")
    rows = production.difference(production.read(a["source"]), production.read(b["source"]))
    table([{"key": key, f"version {a['version']}": left, f"version {b['version']}": right} for key, left, right in rows]
          or [{"key": "nothing differs"}], title=f"{tracking.REGISTERED}, {a['version']} and {b['version']}")


def _version(number: int, key: str) -> Row:
    versions = {one["version"]: one for one in tracking.versions()}
    if number not in versions:
        raise ConfigError(f"{key}={number}: no such version; there is {', '.join(map(str, sorted(versions))) or 'none'}")
    return versions[number]


ACTIONS: dict[str, Callable[[Promote], None]] = {"promote": promote, "list": listed, "rollback": rollback, "diff": diff}
