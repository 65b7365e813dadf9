"""The config tree, and `load`, the only door from a composed config to checked values.

A group of the config is *data*, a dataclass that lives beside the code it parameterises, or a
*component*, a function chosen by `_target_` and checked against its own signature:

    def fixed_fraction(candidates, *, fraction: Annotated[float, Bound("a fraction of equity", 0, 1)]): ...

Everything is checked before anything is read: unknown and missing keys, types, units and ranges.
Every refusal is one line that names the key, the value, the unit and what is valid.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mahler.data.quality import Thresholds
from mahler.exits import Costs, ExitRule
from mahler.home import user_path
from mahler.llm.context import Context
from mahler.llm.model import Llm
from mahler.llm.prompt import Prompt
from mahler.monitoring.bands import BandRule
from mahler.paper.stage import Stage, check as check_stages
from mahler.promotion import Override
from mahler.regime import Multipliers
from mahler.schema import Bound, ConfigError, check_bounds, choice, number
from mahler.screen import Entry
from mahler.simulate import Breaker, Limits
from mahler.validation.method import Method

T = TypeVar("T")

Component = Callable[..., Any]
"""A config field whose group names a function: a `functools.partial` once it is loaded."""

_UNSET = "???"   # a value that YAML leaves to the user

_NOUNS = {bool: "true or false", int: "an integer", float: "a number", str: "a string",
          date: "a date YYYY-MM-DD", Path: "a path"}


# --- The door ---------------------------------------------------------------------------------------------------

def load(cfg: DictConfig, schema: type[T]) -> T:
    """The composed config `cfg`, without its `hydra` node, as a checked `schema`.

    Parameters
    ----------
    cfg : DictConfig
        Exactly the fields of `schema`; interpolations are resolved.
    schema : dataclass
        Its fields are bool, int, float, str, date, Path (made absolute against where the user stands),
        Literal, lists, tuples and dicts of them, other dataclasses, `Component`, `X | None`, and
        Annotated with a `Bound`; `schema.number` and `schema.choice` declare a unit, a range, options.

    Raises
    ------
    ConfigError
        One line: an unknown or missing key, a wrong type, a value out of its range.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    return _group(schema, "", content)


def unknown_key(key: str, value: Any, valid: Collection[str], owner: str = "") -> ConfigError:
    """The refusal of `key`, which is not among the `valid` last parts of it; `owner` is who has those."""
    parent, _, name = key.rpartition(".")
    owner = owner or parent or "the config"
    has = f"has {_one_of(valid)}" if valid else "has no keys"
    return ConfigError(f"{key}: unknown key (value {value}); {owner} {has}{_did_you_mean(name, valid)}")


def unknown_option(group: str, option: str, valid: Collection[str]) -> ConfigError:
    """The refusal of `group=option`, which is not one of the `valid` files of the group."""
    return ConfigError(f"{group}={option}: no such option; {group} is one of {_one_of(valid)}"
                       f"{_did_you_mean(option, valid)}")


def unknown_action(verb: str, action: str, valid: Collection[str]) -> ConfigError:
    """The refusal of `mahler verb action`."""
    return ConfigError(f"{verb} {action}: no such action; {verb} has {_one_of(valid)}{_did_you_mean(action, valid)}")


def _group(schema: type[T], key: str, raw: Any) -> T:
    """The dataclass `schema` from the mapping `raw` of the config group `key`; the root's key is empty."""
    declared = {f.name: f for f in fields(schema)}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{key} is a group with {_one_of(declared)}, got {raw!r}")
    hints = typing.get_type_hints(schema, include_extras=True)
    for name, value in raw.items():
        if name not in declared:
            raise unknown_key(_join(key, name), value, declared)
    values = {}
    for name, declaration in declared.items():
        bound = declaration.metadata.get("bound")
        if name in raw:
            values[name] = _value(hints[name], _join(key, name), raw[name], bound)
        elif not _has_default(declaration):
            raise ConfigError(f"{_join(key, name)} is missing: {_expected(hints[name], bound)}")
    params = schema(**values)
    check_bounds(params, key)
    return params


def _component(key: str, raw: Any) -> functools.partial:
    """The function that `raw` names by `_target_`, with the options beside it bound."""
    if not isinstance(raw, Mapping) or "_target_" not in raw:
        raise ConfigError(f"{key} is a component, a group with `_target_: mahler...`, got {raw!r}")
    if raw.get("_partial_") is not True:
        raise ConfigError(f"{key}._partial_ must be true: a component is called later, with data")
    target = raw["_target_"]
    function = _function(f"{key}._target_", target)
    options = {name: value for name, value in raw.items() if name not in ("_target_", "_partial_")}
    parameters = {name: parameter for name, parameter in inspect.signature(function).parameters.items()
                  if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    hints = typing.get_type_hints(function, include_extras=True)
    for name, value in options.items():
        if name not in parameters:
            raise unknown_key(_join(key, name), value, parameters, owner=f"{key} ({target})")
    for name, parameter in parameters.items():
        if name not in hints:
            raise TypeError(f"{target} does not annotate its argument {name}")
        if name not in options and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{_join(key, name)} is missing: {_expected(hints[name])}")
    return functools.partial(function, **{name: _value(hints[name], _join(key, name), value)
                                          for name, value in options.items()})


def _function(key: str, target: Any) -> Callable[..., Any]:
    """The function of Mahler at the dotted path `target`. A config cannot name code from elsewhere."""
    if not isinstance(target, str) or not target.startswith("mahler."):
        raise ConfigError(f"{key} is the path of a function of Mahler, `mahler...`, got {target!r}")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("mahler"):   # a vendor that is not installed
            raise ConfigError(f"{key}={target} needs the package {error.name}, which is not installed") from error
        raise ConfigError(f"{key}={target}: there is no module {error.name}") from error
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name]
        raise ConfigError(f"{key}={target}: {module_name} has the functions {_one_of(functions)}")
    return function


# --- Values -----------------------------------------------------------------------------------------------------

def _value(hint: Any, key: str, raw: Any, bound: Bound | None = None) -> Any:
    """`raw` as the annotated type `hint`, its bound checked where the type carries one."""
    if raw == _UNSET:
        raise ConfigError(f"{key} is missing: {_expected(hint, bound)}; give it as {key}=...")
    kind, own_bound = _unwrap(hint)
    value = _convert(kind, key, raw, bound or own_bound)
    if own_bound is not None and value is not None:
        for x in value if isinstance(value, (list, tuple)) else [value]:
            own_bound.check(key, x)
    return value


def _convert(kind: Any, key: str, raw: Any, bound: Bound | None) -> Any:
    """`raw` as the bare type `kind`; `bound` is only for the words of a refusal."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    origin = {Sequence: list, Mapping: dict}.get(origin, origin)
    expected = _expected(kind, bound)
    if kind is Any and not (isinstance(raw, Mapping) and "_target_" in raw):
        return raw
    if kind is Any or kind is Callable or origin is Callable:
        return _component(key, raw)
    if kind is list and isinstance(raw, list):     # of anything: who asked for it checks what is in it
        return raw
    if is_dataclass(kind):
        return _group(kind, key, raw)
    if origin in (Union, types.UnionType):
        return _either(arguments, key, raw, bound)
    if origin is Literal:
        if raw in arguments:
            return raw
    elif origin in (list, tuple) and isinstance(raw, list):
        return _sequence(origin, arguments, key, raw, bound)
    elif origin is dict and isinstance(raw, Mapping):
        return {name: _value(arguments[1], _join(key, name), value) for name, value in raw.items()}
    elif kind in _NOUNS:
        return _scalar(kind, key, raw, expected)
    elif kind is not list and origin not in (list, tuple, dict):
        raise TypeError(f"{key}: a config cannot hold the type {kind}")
    raise ConfigError(f"{key} is {expected}, got {raw!r}")


def _scalar(kind: type, key: str, raw: Any, expected: str) -> Any:
    """A bool, int, float, str, date or path. A number is never a bool, an integer never has a fraction."""
    if kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return float(raw)
    if kind is date and isinstance(raw, str):
        try:
            return date.fromisoformat(raw)
        except ValueError:
            pass                           # refused below, with the key
    elif kind is Path and isinstance(raw, str):
        return user_path(raw)
    elif type(raw) is kind:
        return raw
    raise ConfigError(f"{key} is {expected}, got {raw!r}")


def _sequence(kind: type, arguments: tuple[Any, ...], key: str, raw: list[Any], bound: Bound | None) -> Any:
    """A list, a tuple of any length (`tuple[float, ...]`) or of a fixed one (`tuple[float, float]`)."""
    if kind is list or arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(raw)
    if len(arguments) != len(raw):
        raise ConfigError(f"{key} is {_expected(kind[arguments], bound)}, got {raw!r}")
    return kind(_value(hint, f"{key}[{i}]", item, bound) for i, (hint, item) in enumerate(zip(arguments, raw)))


def _either(arguments: tuple[Any, ...], key: str, raw: Any, bound: Bound | None) -> Any:
    """The first type of a union that takes `raw`; where none does, the refusal of the last."""
    if raw is None and type(None) in arguments:
        return None
    *others, last = [hint for hint in arguments if hint is not type(None)]
    for hint in others:
        try:
            return _value(hint, key, raw, bound)
        except ConfigError:
            continue
    return _value(last, key, raw, bound)


# --- Words ------------------------------------------------------------------------------------------------------

def _expected(hint: Any, bound: Bound | None = None) -> str:
    """What a value must be, in words: `a count of positions in [1, inf), an integer`."""
    kind, own_bound = _unwrap(hint)
    bound = bound or own_bound
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    origin = {Sequence: list, Mapping: dict}.get(origin, origin)
    if is_dataclass(kind):
        words = f"a group with {_one_of(f.name for f in fields(kind))}"
    elif origin in (Union, types.UnionType):
        words = " or ".join("null" if a is type(None) else _expected(a) for a in arguments)
    elif origin is Literal:
        words = f"one of {_one_of(map(str, arguments))}"
    elif origin is tuple and arguments[-1] is not Ellipsis:
        words = f"a list of {len(arguments)}, each {_expected(arguments[0])}"
    elif kind is list:
        words = "a list"
    elif origin in (list, tuple):
        words = f"a list, each {_expected(arguments[0])}"
    elif origin is dict:
        words = f"a mapping, each value {_expected(arguments[1])}"
    else:
        words = _NOUNS.get(kind, "a component (`_target_: mahler...`)")
    return f"{bound}, {words}" if bound else words


def _unwrap(hint: Any) -> tuple[Any, Bound | None]:
    """The type under Annotated, and the bound that is written on it."""
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    kind, *notes = typing.get_args(hint)
    return kind, next((note for note in notes if isinstance(note, Bound)), None)


def _has_default(declaration: Field) -> bool:
    return declaration.default not in (MISSING, _UNSET) or declaration.default_factory is not MISSING


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


def _one_of(names: Iterable[str]) -> str:
    return ", ".join(names)


def _did_you_mean(name: str, valid: Iterable[str]) -> str:
    close = get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]}?" if close else ""


# --- Back to what can be stored ---------------------------------------------------------------------------------

def plain(config: Any) -> Any:
    """A loaded config as dicts, lists and scalars, with the keys of the YAML: `load` of it gives it back."""
    if is_dataclass(config):
        return {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, functools.partial):
        target = f"{config.func.__module__}.{config.func.__qualname__}"
        return {"_target_": target, "_partial_": True, **plain(config.keywords)}
    if isinstance(config, Mapping):
        return {str(name): plain(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if isinstance(config, (date, Path)):
        return str(config)
    return config


def to_yaml(config: Any) -> str:
    """The YAML of a loaded config, for the artifact of a run."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def flatten(config: Any) -> dict[str, bool | int | float | str | None]:
    """A loaded config by dotted key, for the parameters of a run; a list is its JSON."""
    flat: dict[str, bool | int | float | str | None] = {}

    def descend(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name != "_partial_":    # true of every component
                    descend(_join(key, name), inner)
        else:
            flat[key] = json.dumps(value) if isinstance(value, list) else value

    descend("", plain(config))
    return flat


# --- The tree: a dataclass per verb, assembled from those that live beside the code -------------------------------

@dataclass
class Universe:
    """What is traded, together, by one portfolio. conf/universe/."""

    tickers: list[str]

    def __post_init__(self) -> None:
        if not self.tickers or len(set(self.tickers)) != len(self.tickers):
            raise ConfigError(f"universe.tickers is a list of different tickers, got {self.tickers!r}")


@dataclass
class Period:
    """First and last session on which a run may trade. conf/period/."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ConfigError(f"period.start {self.start} is not before period.end {self.end}")


NOT_THE_RESULT = ("study", "name", "force", "export_trades", "quality")     # of a backtest: they change no number


@dataclass
class Backtest:
    """`mahler backtest`: one config is one run. conf/backtest.yaml."""

    data: Component
    universe: Universe
    period: Period
    entry: Entry
    exit: ExitRule
    fill: Component
    costs: Costs
    classifier: Component
    regime: Multipliers
    sizing: Component
    limits: Limits
    breaker: Breaker
    quality: Thresholds
    study: str                                  # the MLflow experiment
    name: str | None                            # of the run; None says what was overridden
    initial_equity: float = number("dollars", 0, 1e12, open_low=True)      # above it a float has no cents
    risk_free: float = number("a decimal rate a year", -1, 1)
    force: bool = field()                       # run again what was run before
    export_trades: Path | None = field()        # a JSON file of the trades

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.study):
            raise ConfigError(f"study is a name of letters, digits, dots, dashes and underscores, got {self.study!r}")


@dataclass
class Ingest:
    """`mahler ingest`: a source into the store. conf/ingest.yaml."""

    data: Component
    quality: Thresholds


@dataclass
class DataReport:
    """`mahler data-report`: the quality of a store as a page. conf/data_report.yaml."""

    data: Component
    quality: Thresholds
    out: Path | None                            # an HTML file; None is data/reports/<store>.html


@dataclass
class Runs:
    """`mahler runs`: the table of a study's runs. conf/runs.yaml."""

    study: str
    order_by: str                               # a metric
    limit: int = number("runs", 1, 10_000)


@dataclass
class Compare:
    """`mahler compare`: the runs of a study side by side. conf/compare.yaml."""

    study: str


@dataclass
class Explain:
    """`mahler explain`: a day of a run in words and numbers. conf/explain.yaml."""

    run: str | int | float                      # an id, its beginning, or last; digits alone come as a number
    date: date


@dataclass
class Evaluate:
    """`mahler evaluate`: the trades of a run put to an arm, and what its decisions were worth. conf/evaluate.yaml."""

    run: str | int | float | None               # an id, its beginning, or last; None is the last, unless there are trades
    trades: Path | None                         # a JSON file of trades, in place of a run
    arm: Component
    against: Component                          # the arm that a claim has to beat
    llm: Llm
    prompt: Prompt
    context: Context
    study: str                                  # the MLflow experiment
    name: str | None                            # of the evaluation; None says what was asked
    in_loop: bool                               # simulate the book again with the vetoes
    force: bool                                 # evaluate again what was evaluated before
    seed: int = number("a seed of every chance", 0)
    draws: int = number("coin-flip accounts", 1)
    replications: int = number("bootstrap samples of an interval", 100)
    level: float = number("a share of an interval", 0, 1, open_low=True, open_high=True)

    def __post_init__(self) -> None:
        if self.run is not None and self.trades is not None:
            raise ConfigError(f"run={self.run} and trades={self.trades}: give one of them")


@dataclass
class ScanOptions:
    """What becomes of a scan. `scan` in conf/scan.yaml."""

    record: bool                                # append it to the paper ledger
    json: Path | None                           # a file of the same, for a program
    cache_only: bool                            # a promoted LLM layer answers from the replies that are kept, or not at all
    max_cost: float | None = number("dollars", 0)      # that it may spend on a scan


@dataclass
class Scan(Backtest):
    """`mahler scan`: the production config on one session. conf/scan.yaml."""

    date: str                                   # today, or YYYY-MM-DD
    scan: ScanOptions
    stages: dict[str, Stage]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages)
        if self.date != "today":
            try:
                date.fromisoformat(self.date)
            except ValueError:
                raise ConfigError(f"date is today or a date YYYY-MM-DD, got {self.date!r}") from None


@dataclass
class Graduate:
    """Which stage is asked for, and why. `graduate` in conf/monitor.yaml."""

    to: str | None                              # a stage; None only says what is met and missing
    reason: str | None
    who: str | None                             # None is the user who runs it

    def __post_init__(self) -> None:
        if self.to is not None and not (self.reason or "").strip():
            raise ConfigError(f'graduate.to={self.to}: a move is recorded with its reason: graduate.reason="..."')


@dataclass
class Simulate:
    """A paper account that is rehearsed. `simulate` in conf/monitor.yaml."""

    start: date | None                          # None begins `sessions` before the end of the chains
    sessions: int = number("sessions", 20, 252)
    seed: int = number("a seed", 0, 2**31 - 1)


@dataclass
class Monitor(Backtest):
    """`mahler monitor`: the paper account against what was promised. conf/monitor.yaml."""

    action: str = choice("run", "graduate", "simulate")
    date: str                                   # last, today, or YYYY-MM-DD
    stages: dict[str, Stage]
    graduate: Graduate
    simulate: Simulate

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages)
        _check_date(self.date, "last", "today")
        if self.graduate.to is not None and self.graduate.to not in self.stages:
            raise ConfigError(f"graduate.to is one of {', '.join(self.stages)}, got {self.graduate.to!r}")


def _check_date(value: str, *words: str) -> None:
    """Raise ConfigError unless `value` is one of the words that stand for a date, or one."""
    if value in words:
        return
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"date is {', '.join(words)} or a date YYYY-MM-DD, got {value!r}") from None


@dataclass
class Paper:
    """`mahler paper`: the paper ledger: show, list, import, fill. conf/paper.yaml."""

    action: str = choice("show", "list", "import", "fill")
    source: Component
    table: str                                  # of the ledger, for list
    limit: int = number("rows", 1, 1_000_000)


@dataclass
class Validate(Backtest):
    """`mahler validate`: the runs of a study, or a grid over a config, judged. conf/validate.yaml."""

    method: Method
    grid: dict[str, list]                       # axis: options
    control: dict[str, str | int | float | bool]          # axis: option; the default where it is not named


@dataclass
class Promote:
    """`mahler promote`: a run into production, and what is there. conf/promote.yaml."""

    action: str = choice("promote", "list", "rollback", "diff")
    run: str | int | float | None               # what is promoted: an id, its beginning, or last; or
    study: str | None                           # the validated winner of a study,
    tickers: list[str]                          # of one of its universes, where it has several
    llm_run: str | int | float | None           # the evaluation of the LLM layer; None is off
    holdout: Period                             # days on which one config may be looked at, once
    bands: BandRule
    override: Override
    version: int | None                         # rollback: to which
    a: int | None                               # diff: of which two versions
    b: int | None

    def __post_init__(self) -> None:
        if self.action == "promote" and (self.run is None) == (self.study is None):
            raise ConfigError("mahler promote takes run=ID or study=NAME, one of the two")
        if self.action == "rollback" and self.version is None:
            raise ConfigError("mahler promote rollback takes version=N; mahler promote list has them")
        if self.action == "diff" and None in (self.a, self.b):
            raise ConfigError("mahler promote diff takes a=N b=M, two versions; mahler promote list has them")


@dataclass
class Report:
    """`mahler report`: a judged study as a README with figures, and as one page. conf/report.yaml."""

    study: str
    axes: list[str]                             # two axes of the heat map; none for the first two that vary

    def __post_init__(self) -> None:
        if len(set(self.axes)) != len(self.axes) or len(self.axes) not in (0, 2):
            raise ConfigError(f"axes is two axes of a grid, or [] for the first two that vary; got {self.axes!r}")
