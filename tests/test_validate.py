"""What `mahler validate` judges, and what it refuses in a sentence; and once, a whole study."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mahler import config as configs, tracking, trials
from mahler.commands import validate as command
from mahler.config import Validate, load
from mahler.grid import Axis, Grid
from mahler.home import conf_dir
from mahler.schema import ConfigError
from tests.conftest import PERIOD, mahler


def composed(verb: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, overrides)


def config(*overrides: str) -> Validate:
    return load(composed("validate", list(overrides)), Validate)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes tracking.runs answer with runs of the given overrides, each (overrides, changes to its row)."""
    def made(*runs: tuple[list[str], dict]) -> None:
        rows = []
        for k, (overrides, changes) in enumerate(runs):
            folder = tmp_path / str(k)
            folder.mkdir()
            cell = load(composed("backtest", overrides), configs.Backtest)
            (folder / "config.yaml").write_text(configs.to_yaml(cell))
            rows.append({"run_id": f"{k}", "name": f"SPY {' '.join(overrides) or 'control'}", "order": f"2026-01-0{k + 1}",
                         "tags.universe": "SPY", "tags.data_digest": "d", "sessions": 100.0, "artifacts": folder} | changes)
        monkeypatch.setattr(tracking, "runs", lambda *_: rows)
        monkeypatch.setattr(tracking, "count_failed", lambda *_: 1)
        monkeypatch.setattr(command, "_composed", composed)
    return made


def test_one_run_is_left_out_in_the_singular(study, capsys) -> None:
    study(([], {}), (["regime=prod"], {}), (["regime=mild"], {"sessions": 99.0, "order": "2026-01-01"}))
    list(command._of_runs(config()))
    said = capsys.readouterr().out
    assert "1 failed run of" in said and "is left out" in said and "1 run of SPY on other data" in said


@pytest.mark.parametrize("runs, said", [
    ([], "no finished run"),
    ([([], {})], "one run of SPY"),
    ([([], {}), (["regime=prod"], {"tags.data_digest": "other"})], "on the same data and of the same length"),
    ([([], {}), (["regime=prod"], {"sessions": 99.0})], "on the same data and of the same length"),
    ([(["regime=mild"], {}), (["regime=prod"], {})], "has the control's settings"),
])
def test_a_study_that_cannot_be_judged_is_refused_in_a_sentence(study, runs, said) -> None:
    study(*runs)
    with pytest.raises(ConfigError, match=said):
        list(command._of_runs(config()))


def test_the_control_is_the_run_with_the_default_settings_and_failed_runs_are_said(study, capsys) -> None:
    study((["regime=prod"], {}), ([], {}), (["regime=mild"], {}))
    family, = command._of_runs(config())
    assert family.grid.name(family.control) == "SPY control" and len(family.grid) == 3
    assert "1 failed run of backtest is left out" in capsys.readouterr().out


def test_runs_on_other_data_or_of_another_length_than_the_newest_are_left_out_and_said(study, capsys) -> None:
    study((["regime=inverse"], {"sessions": 99.0}), (["regime=mild"], {"tags.data_digest": "other"}),
          (["regime=prod"], {}), ([], {}))
    family, = command._of_runs(config())
    assert family.judged == ("2", "3")
    assert "2 runs of SPY on other data or of another length" in capsys.readouterr().out


def test_of_two_runs_of_one_name_the_newest_is_judged(study) -> None:
    study(([], {}), (["regime=prod"], {}), (["regime=prod"], {}))
    family, = command._of_runs(config())
    assert family.judged == ("0", "2")


def test_a_cell_of_a_grid_is_the_base_with_one_option_of_each_axis() -> None:
    base = config("universe=spy")
    prod = config("regime=prod").regime
    grid = Grid(base, (Axis("regime", ("flat", "prod"), (base.regime, prod), False),
                       Axis("limits.max_heat", ("0.1", "0.2", "0.3"), (0.1, 0.2, 0.3), True),
                       Axis("sizing.fraction", ("0.01", "0.02"), (0.01, 0.02), True)))
    assert len(grid) == 12 and grid.shape == (2, 3, 2)
    cell = grid[int(np.ravel_multi_index((1, 2, 0), grid.shape))]
    assert cell.regime == prod and cell.limits.max_heat == 0.3 and cell.sizing.keywords == {"fraction": 0.01}
    assert cell.limits.max_positions == base.limits.max_positions and base.limits.max_heat == 0.2
    assert grid.name(11) == "regime=prod, max_heat=0.3, fraction=0.02"


def test_a_key_of_a_group_has_its_option_wherever_the_group_is_an_axis_too() -> None:
    base, tight = config("universe=spy"), config("limits=tight").limits
    heat = Axis("limits.max_heat", ("0.1", "0.3"), (0.1, 0.3), True)
    group = Axis("limits", ("moderate", "tight"), (base.limits, tight), False)
    for axes in ((heat, group), (group, heat)):
        grid = Grid(base, axes)
        for k in range(4):
            assert f"max_heat={grid[k].limits.max_heat}" in grid.name(k)
            assert (grid[k].limits.max_positions == tight.max_positions) == ("limits=tight" in grid.name(k))


def test_a_grid_with_a_cell_that_contradicts_itself_is_refused_whole() -> None:
    base, none = config("universe=spy"), config("regime=prod").regime
    low = Axis("entry.min_delta", ("0.05", "0.12"), (0.05, 0.12), True)
    high = Axis("entry.max_delta", ("0.15", "0.1"), (0.15, 0.1), True)
    with pytest.raises(ConfigError, match="entry.min_delta 0.12 is above entry.max_delta 0.1"):
        Grid(base, (low, Axis("regime", ("prod",), (none,), False), high)).check()
    Grid(base, (low,)).check()


def test_a_search_is_counted_by_what_its_options_are_and_not_by_what_they_are_called_or_how_samples_are_drawn() -> None:
    def signature(*typed: str, prod: str = "[1.0,0.75,0.5,0.4]", data: str = "d") -> str:
        told = config("universe=spy", *typed)
        axis = Axis("regime", ("flat", "prod"), (told.regime, config(f"regime.multipliers={prod}").regime), False)
        return command._searched(told, command.Family(Grid(told, (axis,)), 0, "SPY", ()), data)

    same = {signature(), signature("method.workers=1"), signature("method.seed=1", "method.replications=500"),
            signature("study=y")}
    others = {signature(prod="[1.0,0.2,0.5,0.4]"), signature("method.objective=cagr"), signature("method.train=24"),
              signature("limits=tight"), signature(data="e")}
    assert len(same) == 1 and len(others) == 5 and not same & others


def test_an_experiment_has_the_last_word_on_the_numbers_of_its_method(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\nstudy: own\nmethod: {train: 36, shifts: [0]}\ngrid: {limits.max_positions: [1, 5]}\n")
    own = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=own"]
    assert (config(*own).method.train, config(*own).method.shifts) == (36, [0])
    assert config(*own, "method.train=24").method.train == 24 and config(*own).grid == {"limits.max_positions": [1, 5]}


def test_the_market_of_a_grid_reaches_as_far_as_its_farthest_cell(monkeypatch) -> None:
    from mahler import grid as grids

    base, far = config("universe=spy"), config("entry.max_dte=75").entry
    asked = []
    monkeypatch.setattr(grids, "market", lambda asking: asked.append(asking.entry.max_dte) or (None, None))
    for grid in (Grid(base, (Axis("entry.max_dte", ("45", "75", "60"), (45, 75, 60), True),)),
                 Grid(base, (Axis("entry", ("seed", "far"), (base.entry, far), False),)),
                 Grid(base, (), (base, config("entry.max_dte=75")), ("a", "b")),
                 Grid(base, (Axis("regime", ("flat",), (base.regime,), False),))):
        grids.Cells(grid)
    assert asked == [75, 75, 75, 45] and base.entry.max_dte == 45


GRIDS = [
    (["grid.limits.max_heet=[0.1]"], "max_heet"), (["grid.nothing=[1]"], "grid.nothing: changes no account"),
    (["grid.method.train=[12,24]"], "changes no account"), (["grid.universe=[spy,qqq]"], "compared on the same data"),
    (["grid.regime=[flat,nope]"], "regime=nope: no such option"), (["grid.regime=[flat,flat]"], "there twice"),
    (["grid.exit.stop_loss=[1.25,2,2.0]"], "there twice in [1.25, 2, 2.0]"),
    (["grid.regime=[flat,null]"], "name of a file of conf/regime"), (["grid.regime=[]"], "has no option"),
    (["grid.regime=[prod,mild]"], "the control's option flat is not one of prod, mild"),
    (["grid.regime=flat"], "grid.regime is a list, got 'flat'"), (["grid.regime=flat,prod"], "written grid.regime=[flat,prod]"),
    (["grid.limits.max_heat=[20,0.2]"], "limits.max_heat is a fraction of equity"), (["grid=5"], "grid is a mapping"),
    (["grid.regime=[flat,prod]", "control.limits=tight"], "control.limits: is no axis of the grid"),
]


@pytest.mark.parametrize("typed, said", GRIDS, ids=[" ".join(typed) for typed, _ in GRIDS])
def test_a_grid_that_cannot_be_is_refused_in_one_line(typed, said, capfd) -> None:
    from mahler import launch

    assert launch.run("validate", ["study=x", *typed]) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("typed, axes", [
    (["grid.regime=[flat,inverse]"], {"regime": ["flat", "inverse"]}),
    (["grid={regime: [flat, inverse]}"], {"regime": ["flat", "inverse"]}),
    (["grid.exit.stop_loss=[2,3]", "grid.limits=[moderate]"], {"exit.stop_loss": [2, 3], "limits": ["moderate"]}),
    (["+grid.exit.stop_loss=[2,3]"], {"exit.stop_loss": [2, 3]}),
    (["experiment=walk_forward", "grid.exit.stop_loss=[2,3]", "~grid.limits", "~grid.regime"],
     {"exit.profit_target": [0.5, 0.65, 0.8], "exit.stop_loss": [2, 3]}),
])
def test_an_axis_may_be_typed_as_any_other_key(typed, axes, monkeypatch) -> None:
    from mahler import launch

    seen = []
    monkeypatch.setattr(command, "run", seen.append)
    monkeypatch.setattr(launch, "get_type_hints", lambda _: {"config": Validate})
    assert launch.run("validate", ["study=x", *typed]) == 0
    assert seen[0].grid == axes


@pytest.mark.parametrize("option", ["2", "2.0"])
def test_the_control_of_an_axis_of_numbers_is_a_number(option, monkeypatch) -> None:
    from mahler import launch

    seen = []
    monkeypatch.setattr(command, "run", lambda config: seen.append(command._of_grid(config)))
    monkeypatch.setattr(launch, "get_type_hints", lambda _: {"config": Validate})
    assert launch.run("validate", ["study=x", "grid.exit.stop_loss=[1.25,2,3]", f"control.exit.stop_loss={option}"]) == 0
    assert seen[0].control == 1 and seen[0].grid[1].exit.stop_loss == 2.0


def test_a_study_is_judged_from_the_command_line_and_written_up(at_home) -> None:
    short = [*PERIOD, "classifier=rule"]
    done = mahler(at_home, "backtest", "-m", *short, "universe=spy", "study=judged", "limits=moderate,tight,single_only")
    assert done.returncode == 0, done.stderr
    judged = mahler(at_home, "validate", "study=judged", "method.train=12", "method.test=6", "method.step=6",
                    "method.replications=100", "method.pbo_replications=19", "method.shifts=[0,10]", "method.workers=1")
    assert judged.returncode == 0, judged.stderr
    assert "VERDICT: " in judged.stdout and "configurations tried" in judged.stdout
    row, = tracking.runs("judged", kind="validation")
    found = json.loads((row["artifacts"] / "judgement.json").read_text())
    assert found["configs"] == 3 and found["control"].endswith("limits=moderate") and len(found["judged"]) == 3
    assert found["verdict"] in ("better than control", "no evidence", "worse than control")
    assert row["tags.market"] == "synthetic" and row["n_trials"] >= 3
    written = mahler(at_home, "report", "study=judged")
    assert written.returncode == 0, written.stderr
    text = (at_home / "experiments" / "judged" / "README.md").read_text()
    assert text.startswith("# SYNTHETIC") and "(control)" in text
    assert row["params.data.anchor"] == "null" and "The path is bridged" in text
    root = command.store_root(load(composed("backtest", []), configs.Backtest).data)
    before = trials.read(root)
    for typed, said in ((["study=judged"], "needs more sessions"),        # five years to train on: there are three
                        (["study=g", *PERIOD, "universe=spy", "grid.regime=[flat,prod]"], "needs more sessions"),
                        (["study=g", *PERIOD, "universe=spy", "grid.entry.min_delta=[0.05,0.12]", "method.train=12",
                          "grid.entry.max_delta=[0.15,0.1]"], "is above entry.max_delta 0.1"),
                        (["study=g", *PERIOD, "universe=spy", "grid.regime=[flat]"], "two configs or more")):
        refused = mahler(at_home, "validate", *typed)
        assert refused.returncode == 2 and said in refused.stderr
    assert before and trials.read(root) == before
    assert OmegaConf.load(next(p["artifacts"] for p in tracking.runs("judged")) / "config.yaml").study == "judged"
