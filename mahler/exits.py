"""Candidates, their paths and the exit rules -> how each candidate would end, whether or not it is admitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler import schema
from mahler.core.spreads import first_exits as first_exits_kernel
from mahler.paths import Paths
from mahler.schema import MULTIPLIER, Exit, Table, number


@dataclass
class ExitRule:
    """When a spread is closed before its expiry; None is never. The numbers are those of conf/exit/."""

    profit_target: float | None = number("a share of the credit that is kept", 0, 1, open_low=True)
    stop_loss: float | None = number("a multiple of the credit that is lost", 0, 100, open_low=True)
    exit_dte: int = number("calendar days to expiration", 0, 3650)

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of range."""
        schema.check_bounds(self, "exit")


@dataclass
class Costs:
    """What is paid beside the spread. The numbers are those of conf/costs/."""

    commission: float = number("dollars per contract and leg", 0, 1000)
    assignment_fee: float = number("dollars per contract", 0, 1000)

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of range."""
        schema.check_bounds(self, "costs")

    @property
    def entry(self) -> float:
        """Commission of an entry, both legs, dollars per contract."""
        return 2.0 * self.commission

    @property
    def round_trip(self) -> float:
        """Commission of an entry and an exit, dollars per contract."""
        return 4.0 * self.commission


def max_loss_per_contract(candidates: Table, costs: Costs) -> np.ndarray:
    """(width - credit) x 100 + commissions of the round trip, dollars: (n,)."""
    return MULTIPLIER * candidates["max_loss"] + costs.round_trip


def first_exits(candidates: Table, paths: Paths, rule: ExitRule, costs: Costs, sessions: np.ndarray) -> Table:
    """The first exit of every candidate: a Table of schema.EXIT, (n,); see `first_exits_at`."""
    return first_exits_at(candidates, paths, slice(None), paths.close, 0.0, rule, costs, sessions)


def first_exits_at(candidates: Table, paths: Paths, rows: np.ndarray | slice, far: np.ndarray, share: float, rule: ExitRule,
                   costs: Costs, sessions: np.ndarray) -> Table:
    """The first exit of every candidate: a Table of schema.EXIT, (n,).

    The paths of the candidates are those numbered `rows`; a close costs what lies `share` of the way from `paths.close`
    to `far` (m,), dollars per share.

    A close pays commission on both legs, but for a worthless expiry, which pays nothing, and for the end
    of the period, which is a valuation and not a trade. Where the short leg is assigned, at expiry or
    before, the assignment fee comes on top. On the eve of a split of the underlying time is up for every spread.
    """
    own, eve = _time_day(candidates["expiry"], rule, sessions), paths.split_eve[rows]
    time_day = np.where(eve >= 0, np.minimum(own, eve), own).astype(np.int32)
    day, reason, cost, mid, stale = first_exits_kernel(
        candidates["day"], candidates["credit"], paths.start[:-1][rows], paths.start[1:][rows], paths.mid, paths.close, far,
        share, paths.settlement[rows], paths.assigned_day[rows], paths.assigned_cost[rows], time_day,
        np.inf if rule.profit_target is None else rule.profit_target,
        np.inf if rule.stop_loss is None else rule.stop_loss)
    free = (reason == Exit.END_OF_PERIOD) | ((reason == Exit.EXPIRY) & (cost == 0.0))
    assigned = (reason == Exit.ASSIGNED) | ((reason == Exit.EXPIRY) & (cost > 0.0))
    fees = np.where(free, 0.0, 2.0 * costs.commission) + np.where(assigned, costs.assignment_fee, 0.0)
    pnl = MULTIPLIER * (candidates["credit"] - cost) - costs.entry - fees
    return {"day": day, "reason": reason, "cost": cost, "mid": mid, "costs": fees, "stale_marks": stale, "pnl": pnl}


def _time_day(expiry: np.ndarray, rule: ExitRule, sessions: np.ndarray) -> np.ndarray:
    """The first session on which `exit_dte` or fewer days are left, int32 (n,); maybe beyond the last."""
    return np.searchsorted(sessions, expiry - np.timedelta64(rule.exit_dte, "D")).astype(np.int32)


def closed_before_split(rows: np.ndarray, candidates: Table, exits: Table, paths: Paths, rule: ExitRule,
                        sessions: np.ndarray) -> np.ndarray:
    """Those of `rows` that are closed because their underlying splits the next session, and not by a rule: (k,)."""
    eve = paths.split_eve[rows]
    rows = rows[(eve >= 0) & (exits["day"][rows] == eve) & (exits["reason"][rows] == Exit.TIME)]
    return rows[_time_day(candidates["expiry"][rows], rule, sessions) > paths.split_eve[rows]]


def unreachable_stops(candidates: Table, rule: ExitRule) -> np.ndarray:
    """Whether a stop cannot fire, because it lies at or beyond the maximum loss: bool (n,)."""
    if rule.stop_loss is None:
        return np.zeros(len(candidates["credit"]), bool)
    return rule.stop_loss * candidates["credit"] >= candidates["max_loss"]
