"""What a backtest does before its portfolio: chains -> panel -> candidates -> paths, found again by fingerprint.

Everything here depends on the data, the entry rules, the fill and the code of the stage itself, and on nothing else, so
any two configs that share them share these arrays: in memory within a process, on disk between processes. An edit of
what comes after them, a sizing rule, a limit, a metric, leaves them to be found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mahler import cache, repricing
from mahler import panel as panels
from mahler.data import quality as qualities
from mahler.data.daily import Daily
from mahler.data.files import Progress
from mahler.data.quality import Quality, Thresholds
from mahler.data.store import Chains
from mahler.exits import Costs, ExitRule
from mahler.fills import Fill
from mahler.panel import Panel
from mahler.paths import Paths, trace
from mahler.repricing import Offers
from mahler.regime import Multipliers
from mahler.schema import CANDIDATE, ConfigError, Table
from mahler.screen import QUOTES, STAGES, Entry, screen

_PATHS = ("start", "mid", "close", "settlement", "assigned_day", "assigned_cost", "assignment_known", "split_eve")
_recent: dict[str, Opportunities | Offers | Quality] = {}
MOST_RECENT = 9
MOST_ENDS = 4            # two of each universe of a sweep that has two
_ends: dict[str, tuple[Table, Paths, Table]] = {}


@dataclass(frozen=True)
class Opportunities:
    """What could have been sold, and how each of it would have gone on."""

    candidates: Table
    paths: Paths
    funnel: Table                # int64 (n_days, n_tickers) for each of screen.STAGES
    fingerprint: str


def _code(*modules: str) -> str:
    """Digest of the code that arrays come of: the panel, `modules` and what they import, and how they are kept."""
    return cache.code_version("mahler.panel", "mahler.cache", *modules, alone=__name__)


def component_key(component: partial) -> list:
    """What identifies a component in a fingerprint: its dotted name and its numbers."""
    return [f"{component.func.__module__}.{component.func.__qualname__}", component.keywords]


def opportunities(chains: Chains, panel: Panel, entry: Entry, fill: Fill, first_day: int,
                  folder: Path | None) -> Opportunities:
    """Screen and trace, unless the same data, entry rules and fill were screened before.

    `folder` is where the arrays are kept; None keeps nothing. `fill` is a functools.partial of a fill model.
    """
    key = cache.fingerprint("opportunities", _code("mahler.screen", "mahler.paths", fill.func.__module__),
                            panel.fingerprint, asdict(entry), component_key(fill), int(first_day))
    if key in _recent:
        return _recent[key]

    def make() -> Table:
        candidates, funnel = screen(chains, panel, entry, fill, first_day)
        paths = trace(candidates, chains, panel, fill)
        return ({f"candidate.{name}": candidates[name] for name in CANDIDATE.names}
                | {f"path.{name}": getattr(paths, name) for name in _PATHS}
                | {f"funnel.{stage}": funnel[stage] for stage in STAGES})

    arrays = cache.kept(folder, key, make)
    found = Opportunities({name: arrays[f"candidate.{name}"] for name in CANDIDATE.names},
                          Paths(*(arrays[f"path.{name}"] for name in _PATHS)),
                          {stage: arrays[f"funnel.{stage}"] for stage in STAGES}, key)
    _remember(_recent, MOST_RECENT, key, found)
    return found


def offers(chains: Chains, panel: Panel, entry: Entry, first_day: int, folder: Path | None) -> Offers:
    """What could be sold at any travel of the quote, with its prices at both ends; kept like the rest."""
    key = cache.fingerprint("offers", _code("mahler.repricing"), panel.fingerprint, asdict(entry), int(first_day))
    if key in _recent:
        return _recent[key]

    def make() -> Table:
        read = repricing.read(chains, panel, entry, first_day)
        return ({f"spread.{name}": read.spreads[name] for name in CANDIDATE.names}
                | {f"path.{name}": getattr(read.paths, name) for name in _PATHS}
                | read.quotes | {"close_natural": read.close_natural})

    arrays = cache.kept(folder, key, make)
    found = Offers({name: arrays[f"spread.{name}"] for name in CANDIDATE.names}, {name: arrays[name] for name in QUOTES},
                   Paths(*(arrays[f"path.{name}"] for name in _PATHS)), arrays["close_natural"])
    _remember(_recent, MOST_RECENT, key, found)
    return found


def repriced(chains: Chains, panel: Panel, entry: Entry, rule: ExitRule, costs: Costs, first_day: int, share: float,
             folder: Path | None) -> tuple[Table, Paths, Table]:
    """`repricing.at` of `offers`. What is at either end of the fill axis, where every config looks, stays in memory."""
    offered = offers(chains, panel, entry, first_day, folder)
    key = cache.fingerprint("repriced", panel.fingerprint, asdict(entry), asdict(rule), asdict(costs), int(first_day), share)
    if key in _ends:
        return _ends[key]
    found = repricing.at(share, offered, entry, rule, costs, chains.sessions)
    if share in (repricing.MID, repricing.NATURAL):
        _remember(_ends, MOST_ENDS, key, found)
    return found


def _remember(made: dict[str, Any], most: int, key: str, found: Any) -> None:
    """Keep `found` in memory among the last `most` that were made."""
    while len(made) >= most:
        made.pop(next(iter(made)))
    made[key] = found


def panel(chains: Chains, series: Daily | None, folder: Path | None) -> Panel:
    """The panel of `chains`, built or, where `folder` has it under the same fingerprint, found again."""
    key = cache.fingerprint("panel", _code(), panels.fingerprint(chains, series))
    arrays = cache.kept(folder, key, lambda: panels.to_arrays(panels.build(chains, series)))
    return panels.from_arrays(arrays, panels.fingerprint(chains, series))


def labels(classifier: Callable[[Panel], np.ndarray], panel: Panel, folder: Path | None) -> np.ndarray:
    """Regime labels, int8 (n_days, n_tickers), of a functools.partial of a classifier; kept on disk like the rest."""
    key = cache.fingerprint("labels", _code(classifier.func.__module__), panel.fingerprint, component_key(classifier))
    arrays = cache.load(folder, key) if folder else None
    if arrays is None:
        with cache.remembering(folder):        # a slow one shares its tickers out among processes that want them
            arrays = {"labels": classifier(panel)}
        if folder:
            cache.store(folder, key, arrays)
    return arrays["labels"]


def quality(chains: Chains, thresholds: Thresholds, folder: Path | None, progress: Progress) -> Quality:
    """The quality of every partition that `chains` are of; what was measured of each is kept on disk."""
    key = cache.fingerprint("quality", chains.fingerprint, asdict(thresholds))
    if key not in _recent:
        with cache.alone(folder, key) if folder else nullcontext():
            _remember(_recent, MOST_RECENT, key, qualities.report(chains.partitions, thresholds, folder, progress))
    return _recent[key]


@dataclass(frozen=True)
class Prepared:
    """All of a backtest that comes before its portfolio."""

    chains: Chains
    panel: Panel
    found: Opportunities
    labels: np.ndarray           # schema.Regime, int8 (n_days, n_tickers)
    first_day: int               # the session on which the period starts


def prepare(chains: Chains, series: Daily | None, entry: Entry, fill: Fill, classifier: Callable[[Panel], np.ndarray],
            start: np.datetime64, folder: Path | None) -> Prepared:
    """Panel, opportunities and labels of `chains`, for a period that starts at `start`.

    Raises ConfigError where the store ends before it.
    """
    first_day = int(np.searchsorted(chains.sessions, start))
    if first_day == len(chains.sessions):
        raise ConfigError(f"period.start={start}: the chains end on {chains.sessions[-1]}")
    of_days = panel(chains, series, folder)
    found = opportunities(chains, of_days, entry, fill, first_day, folder)
    return Prepared(chains, of_days, found, labels(classifier, of_days, folder), first_day)


def sized(prepared: Prepared, regime: Multipliers, sizing: Callable[..., Table],
          candidates: Table | None = None) -> Table:
    """The candidates with the columns of a config: regime, multiplier, risk_fraction, max_contracts (n,) each.

    Those that were found, or, at another fill, the `candidates` that are given.
    """
    candidates = prepared.found.candidates if candidates is None else candidates
    label = prepared.labels[candidates["day"], candidates["ticker"]]
    columns = candidates | {"regime": label, "multiplier": regime.multiplier(label)}
    return columns | sizing(columns, prepared.panel, columns["multiplier"])
