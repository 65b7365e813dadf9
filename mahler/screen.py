"""Chains, panel and entry rules -> the candidates of every day, and the funnel that says what was lost where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mahler import schema
from mahler.core.spreads import best_of_groups, match_legs
from mahler.data import splits
from mahler.data.store import Chain, Chains
from mahler.fills import Fill, usable
from mahler.panel import Panel
from mahler.schema import STAGES, Side, Table, choice, number

QUOTES = ("short_bid", "short_ask", "long_bid", "long_ask")

DELTA_RESOLUTION = 1e-6
"""A delta is a float32 in the store: 0.15 is within a window that ends at 0.15."""


@dataclass
class Entry:
    """What may be sold. The numbers are those of conf/entry/."""

    side: str = choice("put", "call", "both")
    min_delta: float = number("an absolute delta of the short leg", 0, 1)
    max_delta: float = number("an absolute delta of the short leg", 0, 1)
    widths: list[float] = number("dollars between the strikes", 0, open_low=True)
    min_dte: int = number("calendar days to expiration", 1, 3650)
    max_dte: int = number("calendar days to expiration", 1, 3650)
    min_open_interest: int = number("contracts, on each leg", 0)
    min_volume: int = number("contracts, on each leg", 0)
    max_relative_spread: float = number("(ask - bid) / mid of a leg", 0, 2, open_low=True)
    min_credit_to_width: float = number("a share of the width", 0, 1, open_high=True)
    min_iv_percentile: float = number("a share of the previous 252 sessions", 0, 1)
    per_day: int = number("candidates per ticker, side and day", 1, 50)

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of range or two numbers contradict each other."""
        schema.check_bounds(self, "entry")
        if not self.widths:
            raise schema.ConfigError("entry.widths is empty: name at least one width in dollars, e.g. [5.0]")
        if len(set(self.widths)) < len(self.widths):
            raise schema.ConfigError(f"entry.widths names a width twice: {list(self.widths)!r}")
        if self.min_delta > self.max_delta:
            raise schema.ConfigError(f"entry.min_delta {self.min_delta} is above entry.max_delta {self.max_delta}")
        if self.min_dte > self.max_dte:
            raise schema.ConfigError(f"entry.min_dte {self.min_dte} days is above entry.max_dte {self.max_dte} days")

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that are sold."""
        return {"put": (Side.PUT,), "call": (Side.CALL,), "both": (Side.PUT, Side.CALL)}[self.side]


def score(credit: np.ndarray, width: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Expected value per dollar of maximum loss, |delta| being the odds of losing all of it.

    EV = credit (1 - |delta|) - (width - credit) |delta|, over width - credit; dollars per share.
    """
    max_loss = width - credit
    with np.errstate(divide="ignore"):     # a credit of all of the width: nothing can be lost
        return (credit * (1.0 - delta) - max_loss * delta) / max_loss


def _narrow(bid: np.ndarray, ask: np.ndarray, entry: Entry) -> np.ndarray:
    """Whether one leg can be traded at all, within the ceiling of the entry rules."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return usable(bid, ask) & ((ask - bid) / (0.5 * (bid + ask)) <= entry.max_relative_spread)


def _enough(chain: Chain, count: str, rows: np.ndarray, floor: int) -> np.ndarray | bool:
    """Whether one leg meets a floor. A count that the vendor does not give is -1: enough for a floor of zero only."""
    return floor == 0 or chain.activity[count][rows] >= floor


def pays_enough(most: np.ndarray, least: np.ndarray, width: np.ndarray | float, entry: Entry) -> np.ndarray:
    """Whether some credit from `least` to `most`, dollars per share, is worth a spread's width, and less than it."""
    return (most > 0.0) & (least < width) & (most >= entry.min_credit_to_width * width)


def _spreads_of_side(chain: Chain, side: Side, width: float, entry: Entry, fills: tuple[Fill, Fill],
                     iv_percentile: np.ndarray, first_day: int, count: Callable[[str, np.ndarray], None]) -> Table:
    """All spreads of one side and width that the rules would sell, in chain order, before ranking."""
    expiry = chain.contract_expiry.astype("datetime64[D]").astype(np.int64)
    session = chain.sessions.astype("datetime64[D]").astype(np.int64)
    short, long, in_window = match_legs(
        chain.day, chain.delta, chain.contract_start, expiry, chain.contract_strike, session,
        side is Side.CALL, width, first_day, entry.min_dte, entry.max_dte,
        entry.min_delta - DELTA_RESOLUTION, entry.max_delta + DELTA_RESOLUTION)
    count("in_dte_window", in_window)
    count("in_delta_window", chain.day[short])
    keep = long >= 0
    short, long = short[keep], long[keep]
    count("with_long_leg", chain.day[short])

    leg = "call" if side is Side.CALL else "put"
    bid, ask = getattr(chain, f"{leg}_bid"), getattr(chain, f"{leg}_ask")
    sb, sa, lb, la = bid[short], ask[short], bid[long], ask[long]
    keep = (sb > 0.0) & _narrow(sb, sa, entry) & _narrow(lb, la, entry)
    for rows in (short, long):
        keep &= _enough(chain, f"{leg}_volume", rows, entry.min_volume)
        keep &= _enough(chain, f"{leg}_open_interest", rows, entry.min_open_interest)
    short, long, sb, sa, lb, la = (column[keep] for column in (short, long, sb, sa, lb, la))
    count("liquid", chain.day[short])

    credit, least = (fill(sb, sa)[0] - fill(lb, la)[1] for fill in fills)
    keep = pays_enough(credit, least, width, entry)
    short, long, credit = short[keep], long[keep], credit[keep]
    count("paid_enough", chain.day[short])

    if entry.min_iv_percentile > 0.0:
        keep = iv_percentile[chain.day[short]] >= entry.min_iv_percentile      # NaN blocks
        short, long, credit = short[keep], long[keep], credit[keep]
    count("past_iv_filter", chain.day[short])

    delta = chain.delta[short].astype(np.float64)
    delta = delta if side is Side.CALL else 1.0 - delta
    return {"day": chain.day[short], "side": np.full(len(short), side, np.int8), "width": np.full(len(short), width),
            "delta": delta, "credit": credit, "score": score(credit, width, delta), "short_row": short, "long_row": long}


def best(spreads: Table, per_day: int) -> np.ndarray:
    """Indices of the best `per_day` spreads of each ticker, side and day, by day and then score, the best first.

    Ties keep the order of the rows.
    """
    group = groups(spreads)
    kept = np.flatnonzero(best_of_groups(group, spreads["score"], int(group.max(initial=-1)) + 1, per_day)[0])
    return kept[np.lexsort((-spreads["score"][kept], spreads["day"][kept]))]


def groups(spreads: Table) -> np.ndarray:
    """A number from 0 on for each ticker, day and side, int64 (n,): among the spreads of one the best are candidates."""
    ticker, day = spreads["ticker"].astype(np.int64), spreads["day"].astype(np.int64)
    return ((ticker * (day.max(initial=-1) + 1)) + day) * 2 + spreads["side"]


def screen(chains: Chains, panel: Panel, entry: Entry, fill: Fill, first_day: int = 0) -> tuple[Table, Table]:
    """The candidates of every session from `first_day` on, in the order of admission, and the funnel.

    The order is by day, then score (descending), ticker, expiry, short strike, side, width.

    Returns
    -------
    candidates : Table of schema.CANDIDATE, (n,)
    funnel : Table with an int64 array (n_days, n_tickers) for each of STAGES
    """
    funnel = _nothing_counted(chains)
    kept = []
    for t in range(len(chains.tickers)):
        offered = offers(chains, t, panel, entry, (fill, fill), first_day, funnel)
        rows = best(offered, entry.per_day)
        kept.append(described({name: column[rows] for name, column in offered.items()}, chains, t, panel))
    candidates = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    order = np.lexsort((-candidates["score"], candidates["day"]))
    candidates = {name: column[order] for name, column in candidates.items()}
    candidates["spread_id"] = identity(candidates)
    np.add.at(funnel["ranked"], (candidates["day"], candidates["ticker"]), 1)
    return {name: np.ascontiguousarray(candidates[name], dtype=schema.CANDIDATE[name])
            for name in schema.CANDIDATE.names}, funnel


def _nothing_counted(chains: Chains) -> Table:
    return {stage: np.zeros((len(chains.sessions), len(chains.tickers)), np.int64) for stage in STAGES}


def offers(chains: Chains, t: int, panel: Panel, entry: Entry, fills: tuple[Fill, Fill], first_day: int,
           funnel: Table | None = None) -> Table:
    """Every spread of ticker `t` that the rules would sell, whatever its rank, at a fill between the best and the worst.

    In the order of expiry, short strike, day, side and width. The columns are those of schema.CANDIDATE that tell one
    spread from another, as `described` wants them, the credit that at the best of the two `fills`. `funnel` is counted
    up to the rank.
    """
    chain, counted = chains[chains.tickers[t]], _nothing_counted(chains) if funnel is None else funnel

    def count(stage: str, day: np.ndarray) -> None:
        if stage == "in_dte_window":                       # the same strikes for each side and width
            counted[stage][:, t] = day
        else:
            counted[stage][:, t] += np.bincount(day, minlength=len(chains.sessions))

    parts = [_spreads_of_side(chain, side, float(width), entry, fills, panel.iv_percentile[:, t], first_day, count)
             for side in entry.sides for width in sorted(entry.widths)]
    counted["in_delta_window"][:, t] //= len(entry.widths)             # each width found the same short legs
    spreads = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Row order is (expiry, strike, day); the sort is stable, so sides and widths stay in their order.
    order = np.argsort(spreads["short_row"], kind="stable")
    spreads = {name: column[order] for name, column in spreads.items()} | {"ticker": np.full(len(order), t, np.int16)}
    last_day = np.searchsorted(chains.sessions, chain.contract_expiry, side="right") - 1
    contract = _contract(chain, spreads["short_row"])
    keep = (last_day[contract] > spreads["day"]) | (chain.contract_expiry > chains.sessions[-1])[contract]
    if chain.ticker in panel.splits:        # on the eve of a split every spread is closed: none that lives through it is opened
        keep &= splits.eve(chains.sessions, spreads["day"], chain.contract_expiry[contract],
                           panel.splits[chain.ticker]) != spreads["day"]
    return spreads if keep.all() else {name: column[keep] for name, column in spreads.items()}


def described(spreads: Table, chains: Chains, t: int, panel: Panel) -> Table:
    """Spreads of ticker `t` that `offers` found, with all columns of schema.CANDIDATE but `spread_id`."""
    chain, day, is_call = chains[chains.tickers[t]], spreads["day"], spreads["side"] == Side.CALL
    contract, quoted = _contract(chain, spreads["short_row"]), entry_quotes(spreads, chain)
    expiry, strike, width = chain.contract_expiry[contract], chain.contract_strike[contract], spreads["width"]
    return spreads | {
        "expiry": expiry, "dte": (expiry - chains.sessions[day]).astype(np.int64).astype(np.int16),
        "short_strike": strike, "long_strike": np.where(is_call, strike + width, strike - width),
        "mid_credit": 0.5 * (quoted["short_bid"] + quoted["short_ask"]) - 0.5 * (quoted["long_bid"] + quoted["long_ask"]),
        "max_loss": width - spreads["credit"], "underlying": chain.spot[day],
        "iv_percentile": panel.iv_percentile[day, t]}


def entry_quotes(spreads: Table, chain: Chain) -> Table:
    """The quotes of both legs at entry, dollars per share: (n,) each of QUOTES."""
    found = {name: np.full(len(spreads["day"]), np.nan) for name in QUOTES}
    for side, leg in ((Side.PUT, "put"), (Side.CALL, "call")):
        i = np.flatnonzero(spreads["side"] == side)
        for name in QUOTES:
            which, _, what = name.partition("_")
            found[name][i] = getattr(chain, f"{leg}_{what}")[spreads[f"{which}_row"][i]]
    return found


def _contract(chain: Chain, row: np.ndarray) -> np.ndarray:
    """The contract that has each row, (n,)."""
    return np.searchsorted(chain.contract_start, row, side="right") - 1


def identity(candidates: Table) -> np.ndarray:
    """A small integer for each distinct pair of legs: int32 (n,)."""
    legs = np.stack([candidates["ticker"].astype(np.float64), candidates["side"].astype(np.float64),
                     candidates["expiry"].astype(np.int64).astype(np.float64),
                     candidates["short_strike"], candidates["long_strike"]])
    if legs.shape[1] == 0:
        return np.zeros(0, np.int32)
    order = np.lexsort(legs)
    new = np.any(np.diff(legs[:, order], axis=1, prepend=np.nan) != 0.0, axis=0)
    identity = np.empty(legs.shape[1], np.int32)
    identity[order] = np.cumsum(new) - 1
    return identity
