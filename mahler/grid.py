"""The cells of a grid: a base config with one option of each axis, made when it is asked for and never listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mahler import home, stages
from mahler.backtesting import market
from mahler.config import Backtest
from mahler.exits import first_exits
from mahler.fills.travel import travel
from mahler.schema import ConfigError
from mahler.validation.rewalk import trial
from mahler.validation.walkforward import Trial as Walker

AXES = ("entry", "exit", "fill", "costs", "classifier", "regime", "sizing", "limits", "breaker", "initial_equity")
NATURAL = partial(travel, travel=1.0)
KEPT = {"prepared": 1, "exits": 8, "candidates": 8}     # of each in memory: the configs that won a fold take turns


@dataclass(frozen=True)
class Axis:
    """A key of the config, what may be written for it, and what each of those is once it is loaded."""

    key: str                     # regime, limits.max_heat, ...
    options: tuple[str, ...]
    values: tuple[Any, ...]
    ordered: bool                # numbers have neighbours, names have not


@dataclass(frozen=True)
class Grid:
    """The product of the axes over a base, or, where `cells` are given, just those configs."""

    base: Backtest
    axes: tuple[Axis, ...]
    cells: tuple[Backtest, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.cells),) if self.cells else tuple(len(axis.options) for axis in self.axes)

    def __len__(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, number: int) -> Backtest:
        if self.cells:
            return self.cells[number]
        config, at = self.base, zip(self.axes, np.unravel_index(number, self.shape), strict=True)
        for axis, option in sorted(at, key=lambda one: one[0].key.count(".")):      # a group before a key of it
            config = _with(config, axis.key.split("."), axis.values[option])
        return config

    def check(self) -> None:
        """Raise ConfigError where the options of one group contradict each other in some cell."""
        for group in {axis.key.partition(".")[0] for axis in self.axes}:
            own = Grid(self.base, tuple(axis for axis in self.axes if axis.key.partition(".")[0] == group))
            for number in range(len(own)):
                own[number]

    @property
    def farthest(self) -> Backtest:
        """The base with the longest `entry.max_dte` of any cell: the market that is read for it has the rows of all."""
        entries = [cell.entry for cell in self.cells]
        entries += [value for axis in self.axes if axis.key == "entry" for value in axis.values]
        days = [value for axis in self.axes if axis.key == "entry.max_dte" for value in axis.values]
        longest = max([self.base.entry.max_dte, *(entry.max_dte for entry in entries), *days])
        return replace(self.base, entry=replace(self.base.entry, max_dte=longest))

    def name(self, number: int) -> str:
        """The option of each axis, by the last part of its key."""
        if self.cells:
            return self.names[number]
        at = np.unravel_index(number, self.shape)
        return ", ".join(f"{axis.key.rpartition('.')[2]}={axis.options[k]}" for axis, k in zip(self.axes, at, strict=True))


def _with(node: Any, keys: Sequence[str], value: Any) -> Any:
    """`node` with the value at the dotted key: a dataclass, or an option of a component."""
    first, *rest = keys
    if isinstance(node, partial):
        return partial(node.func, **{**node.keywords, first: value})
    return replace(node, **{first: _with(getattr(node, first), rest, value) if rest else value})


def read(config: Any, key: str) -> Any:
    """The value at a dotted key of a loaded config. Raises ConfigError where there is none."""
    node = config
    for name in key.split("."):
        known = node.keywords if isinstance(node, partial) else (
            {f.name: getattr(node, f.name) for f in fields(node)} if is_dataclass(node) else {})
        if name not in known:
            raise ConfigError(f"grid.{key}: unknown key; there is {', '.join(known) or 'nothing below that'}")
        node = known[name]
    return node


def check_axis(key: str) -> None:
    """Raise ConfigError for an axis that would change the data, or no account at all."""
    group = key.split(".")[0]
    if group in ("data", "universe", "period"):
        raise ConfigError(f"grid.{key}: the cells of a grid are compared on the same data; a grid has no axis {key}")
    if group not in AXES:
        raise ConfigError(f"grid.{key}: changes no account; the axes of a grid are keys of {', '.join(AXES)}")


class Cells:
    """What a process walks: the market is read once, and what neighbours share is made once.

    `scale` multiplies every risk fraction; `natural` crosses every quote in place of the config's fill.
    """

    def __init__(self, grid: Grid, scale: float = 1.0, natural: bool = False) -> None:
        self.grid, self.scale, self.natural = grid, scale, natural
        self.chains, self.series = market(grid.farthest)
        self._made: dict[str, dict[Any, Any]] = {}

    def _once(self, what: str, key: Any, make: Any) -> Any:
        """What was made of `key`, if that is among the last of its kind."""
        made = self._made.setdefault(what, {})
        if key not in made:
            while len(made) >= KEPT[what]:
                made.pop(next(iter(made)))
            made[key] = make()
        return made[key]

    def __call__(self, number: int) -> Walker:
        config = self.grid[number]
        fill = NATURAL if self.natural else config.fill
        first = np.datetime64(config.period.start)
        before = (repr(config.entry), repr(fill), repr(config.classifier))
        prepared = self._once("prepared", before, lambda: stages.prepare(
            self.chains, self.series, config.entry, fill, config.classifier, first, home.cache_dir()))
        ending = (before, repr(config.exit), repr(config.costs))
        exits = self._once("exits", ending, lambda: first_exits(
            prepared.found.candidates, prepared.found.paths, config.exit, config.costs, self.chains.sessions))
        sizing = (before, repr(config.regime), repr(config.sizing))
        candidates = self._once("candidates", sizing, lambda: stages.sized(prepared, config.regime, config.sizing))
        if self.scale != 1.0:
            candidates = candidates | {"risk_fraction": candidates["risk_fraction"] * self.scale}
        return trial(candidates, prepared.found.paths, exits, prepared.panel, config.limits, config.breaker,
                     config.costs, initial_equity=config.initial_equity)
