"""The door of the config: what it lets in, and the one line with which it refuses the rest."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, is_dataclass
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, get_type_hints

import pytest
import yaml
from omegaconf import OmegaConf

from mahler import config
from mahler.config import Component, flatten, load, plain, to_yaml
from mahler.schema import Bound, ConfigError, choice, number


def haircut(prices, *, share: Annotated[float, Bound("a share of the price", 0, 1)],
            rounding: Literal["up", "down"], steps: tuple[int, ...] = (), calendar: str | None = None):
    return prices, share, rounding, steps, calendar


@pytest.fixture(autouse=True)
def made_up_component(monkeypatch):
    """`mahler.made_up.haircut`, a component with every kind of option."""
    module = ModuleType("mahler.made_up")
    haircut.__module__ = "mahler.made_up"
    module.haircut = haircut
    monkeypatch.setitem(sys.modules, "mahler.made_up", module)
    monkeypatch.setattr("mahler.made_up", module, raising=False)


@dataclass(frozen=True)
class Limits:
    max_positions: int = number("open positions", 1)
    max_heat: float = number("a fraction of equity", 0, 1, open_low=True)
    drawdown: float | None = number("a fraction of peak equity", 0, 1)


@dataclass
class Tree:
    limits: Limits
    fill: Component
    start: date
    multipliers: tuple[float, float]
    tickers: list[str]
    path: Path | None
    side: str = choice("put", "call")
    equity: float = number("dollars", 0, open_low=True)
    force: bool = field()


GOOD = """
limits: {max_positions: 5, max_heat: 0.2, drawdown: null}
fill: {_target_: mahler.made_up.haircut, _partial_: true, share: 0.5, rounding: down}
start: 2007-01-03
multipliers: [1, 0.5]
tickers: [SPY, QQQ]
path: null
side: put
equity: 100000
force: false
"""


def tree(*changes: str) -> Tree:
    """GOOD with `key=value` changes; a key that is not there is added."""
    cfg = OmegaConf.create(GOOD)
    for change in changes:
        key, _, value = change.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value), merge=False, force_add=True)
    return load(cfg, Tree)


def refusal(*changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        tree(*changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_config_comes_out_with_the_types_of_its_schema():
    loaded = tree()
    assert loaded.limits == Limits(max_positions=5, max_heat=0.2, drawdown=None)
    assert loaded.start == date(2007, 1, 3)
    assert loaded.multipliers == (1.0, 0.5) and type(loaded.multipliers[0]) is float
    assert loaded.equity == 100_000.0 and type(loaded.equity) is float


def test_a_component_comes_out_with_its_options_bound_and_takes_data():
    fill = tree().fill
    assert isinstance(fill, partial)
    assert fill([1.0]) == ([1.0], 0.5, "down", (), None)
    assert tree("fill.steps=[1, 2]").fill([]) == ([], 0.5, "down", (1, 2), None)


@pytest.mark.parametrize("change, said", [
    ("limits.max_heat=20", "limits.max_heat is a fraction of equity in (0, 1], got 20.0"),
    ("limits.max_heat=.nan", "limits.max_heat is a fraction of equity in (0, 1], got nan"),
    ("limits.drawdown=2", "limits.drawdown is a fraction of peak equity in [0, 1], got 2.0"),
    ("limits.max_positions=five", "limits.max_positions is open positions in [1, inf), an integer, got 'five'"),
    ("limits.max_positions=5.0", "limits.max_positions is open positions in [1, inf), an integer, got 5.0"),
    ("limits.max_positions=true", "limits.max_positions is open positions in [1, inf), an integer, got True"),
    ("limits.max_positions=null", "limits.max_positions is open positions in [1, inf), an integer, got None"),
    ("limits.max_pos=5", "limits.max_pos: unknown key (value 5); limits has max_positions, max_heat, drawdown; "
                         "did you mean max_positions?"),
    ("limit=5", "limit: unknown key (value 5); the config has limits, fill, start, multipliers, tickers, path, side, "
                "equity, force; did you mean limits?"),
    ("limits=5", "limits is a group with max_positions, max_heat, drawdown, got 5"),
    ("equity=0", "equity is dollars in (0, inf), got 0.0"),
    ("side=puts", "side is one of put, call, got 'puts'"),
    ("force=1", "force is true or false, got 1"),
    ("start='2007-02-30'", "start is a date YYYY-MM-DD, got '2007-02-30'"),
    ("multipliers=[1]", "multipliers is a list of 2, each a number, got [1]"),
    ("multipliers=[1, a]", "multipliers[1] is a number, got 'a'"),
    ("tickers=SPY", "tickers is a list, each a string, got 'SPY'"),
    ("tickers=[SPY, NO]", "tickers[1] is a string, got False"),   # YAML's no; a ticker is quoted
])
def test_a_bad_value_of_a_data_group_is_refused_with_its_key_value_and_unit(change, said):
    assert refusal(change) == said


@pytest.mark.parametrize("change, said", [
    ("fill.share=2", "fill.share is a share of the price in [0, 1], got 2.0"),
    ("fill.share=half", "fill.share is a share of the price in [0, 1], a number, got 'half'"),
    ("fill.rounding=sideways", "fill.rounding is one of up, down, got 'sideways'"),
    ("fill.steps=[1, x]", "fill.steps[1] is an integer, got 'x'"),
    ("fill.shar=1", "fill.shar: unknown key (value 1); fill (mahler.made_up.haircut) has share, rounding, steps, "
                    "calendar; did you mean share?"),
    ("fill._partial_=false", "fill._partial_ must be true: a component is called later, with data"),
    ("fill._target_=os.system", "fill._target_ is the path of a function of Mahler, `mahler...`, got 'os.system'"),
    ("fill._target_=mahlerx.f", "fill._target_ is the path of a function of Mahler, `mahler...`, got 'mahlerx.f'"),
    ("fill._target_=mahler.made_up.trim", "fill._target_=mahler.made_up.trim: mahler.made_up has the functions "
                                          "haircut"),
    ("fill._target_=mahler.nothing.f", "fill._target_=mahler.nothing.f: there is no module mahler.nothing"),
    ("fill={share: 1}", "fill is a component, a group with `_target_: mahler...`, got {'share': 1}"),
])
def test_a_bad_component_is_refused_by_its_own_signature(change, said):
    assert refusal(change) == said


@pytest.mark.parametrize("key, said", [
    ("limits.max_heat", "limits.max_heat is missing: a fraction of equity in (0, 1], a number"),
    ("limits", "limits is missing: a group with max_positions, max_heat, drawdown"),
    ("fill.share", "fill.share is missing: a share of the price in [0, 1], a number"),
])
def test_a_missing_key_is_named_with_what_it_should_be(key, said):
    cfg = OmegaConf.create(GOOD)
    parent, _, name = key.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
    with pytest.raises(ConfigError) as caught:
        load(cfg, Tree)
    assert str(caught.value) == said


def test_a_value_that_the_yaml_leaves_open_says_how_to_give_it():
    assert refusal("path='???'") == "path is missing: a path or null; give it as path=..."


def test_an_interpolation_that_leads_nowhere_is_refused_with_its_key():
    assert refusal("equity=${cash}").startswith("equity: Interpolation key 'cash' not found")


def test_an_argument_without_a_type_is_a_bug_of_the_component(monkeypatch):
    monkeypatch.setattr(sys.modules["mahler.made_up"], "haircut", lambda prices, *, share, rounding: None)
    with pytest.raises(TypeError, match="does not annotate its argument share"):
        tree()


def test_a_path_is_relative_to_where_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tree("path=ledgers/a.json").path == tmp_path / "ledgers" / "a.json"
    assert tree("path=/abs/a.json").path == Path("/abs/a.json")


def test_a_loaded_config_stored_and_loaded_again_is_the_same():
    loaded = tree("path=/tmp/x", "fill.steps=[1, 2]")
    again = load(OmegaConf.create(to_yaml(loaded)), Tree)
    assert plain(again) == plain(loaded)
    assert again.limits == loaded.limits and again.start == loaded.start


def test_the_parameters_of_a_run_are_scalars_by_dotted_key():
    assert flatten(tree()) == {
        "limits.max_positions": 5, "limits.max_heat": 0.2, "limits.drawdown": None,
        "fill._target_": "mahler.made_up.haircut", "fill.share": 0.5, "fill.rounding": "down",
        "start": "2007-01-03", "multipliers": "[1.0, 0.5]", "tickers": '["SPY", "QQQ"]', "path": None,
        "side": "put", "equity": 100_000.0, "force": False,
    }


def test_a_type_that_a_config_cannot_hold_is_a_bug_of_the_schema():
    @dataclass
    class Odd:
        what: complex

    with pytest.raises(TypeError, match="a config cannot hold the type"):
        load(OmegaConf.create({"what": 1}), Odd)


@pytest.mark.parametrize("schema", [schema for schema in vars(config).values() if is_dataclass(schema)])
def test_the_schemas_of_the_verbs_are_made_of_types_that_a_config_can_hold(schema):
    for name, hint in get_type_hints(schema, include_extras=True).items():
        for odd in (object(), [object()]):
            with pytest.raises(ConfigError):
                config._value(hint, name, odd)
