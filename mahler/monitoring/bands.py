"""What a promoted config is held to: bands of its backtest, written down before the first paper trade.

Stretches of the backtest's sessions are resampled in blocks, each with the trades that were opened in it, and every
check is the running mean of something along such a stretch. A band is around the whole path of that mean, so that it
may be looked at every day, and all bands together are left by one stretch in ten (`watch`) or in fifty (`stop`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mahler import metrics, schema
from mahler.fills import Fill
from mahler.ledger import Ledger
from mahler.schema import MULTIPLIER, ConfigError, Table, number
from mahler.validation import bootstrap, sequential

DECIDES = ("trades", "size", "exits.profit_target", "exits.stop_loss", "exits.time")
"""What converges in weeks and may stop an account. The rest, all of it money, is watched."""

TOO_LITTLE = ("growth", "pnl")
"""What is out of its band only below it: nobody stops because of a profit."""

FEWEST = 30              # trades of a regime, before its mean is one


OF_BANDS, OF_SEQUENCES = 0.7, 0.1
"""Shares of a false-alarm rate: all bands have seven tenths, fills, credit and win rate a tenth each."""


@dataclass
class BandRule:
    """How bands are drawn. The numbers are those of conf/bands/."""

    horizon: int = number("sessions", 20, 252)
    watch: float = number("a chance of a false alarm within the horizon", 0, 0.5, open_low=True)
    stop: float = number("a chance of a false alarm within the horizon", 0, 0.5, open_low=True)
    least: int = number("sessions or trades", 2, 100)
    replications: int = number("resampled stretches", 500, 100_000)
    seed: int = number("a seed", 0, 2**31 - 1)

    def sequence_alpha(self, rate: float) -> float:
        """What a confidence sequence, of which one side is looked at, is given of `rate`."""
        return 2.0 * OF_SEQUENCES * rate

    def __post_init__(self) -> None:
        schema.check_bounds(self, "bands")
        if self.stop > self.watch:
            raise ConfigError(f"bands.stop {self.stop} is a smaller chance than bands.watch {self.watch}")
        if self.least >= self.horizon:
            raise ConfigError(f"bands.least {self.least} is below bands.horizon {self.horizon} sessions")


@dataclass(frozen=True)
class Band:
    """The band of a running mean after n = 1 .. len(below) sessions or trades.

    `below` and `above` are the distances from the centre within which 95 % of the stretches lie after n; `watch` and
    `stop` multiply them, so that the whole path stays inside. `stop` is None for what is only watched. Beyond its
    length a distance falls with the square root of n.
    """

    centre: float
    below: list[float]
    above: list[float]
    watch: tuple[float, float]
    stop: tuple[float, float] | None

    def limits(self, n: int, multiples: tuple[float, float]) -> tuple[float, float]:
        """Lower and upper limit of the mean of n."""
        last = len(self.below)
        shrunk = min(float(np.sqrt(last / n)), 1.0)
        at = min(n, last) - 1
        return (self.centre - multiples[0] * shrunk * self.below[at],
                self.centre + multiples[1] * shrunk * self.above[at])


@dataclass(frozen=True)
class Cusum:
    """How low the returns of sessions rank, added up: normal scores of their ranks in the backtest, less k, from 0.

    Ranks and not returns, of which one crash is as large as a year. `h` is passed as rarely within the horizon as the
    other checks are out of their bands; `run_length` is the mean number of sessions until independent returns pass it.
    """

    k: float
    h: float
    run_length: float
    quantiles: list[float]       # of the log return of a session, at evenly spaced probabilities from 0 to 1

    def path(self, growth: np.ndarray) -> np.ndarray:
        """The CUSUM after each session of `growth` (..., n), log returns: up is bad."""
        return sequential.cusum(-normal_scores(growth, np.array(self.quantiles)), self.k)


@dataclass(frozen=True)
class Size:
    """What was put at risk in a regime: the median and the largest risk fraction, or lots where the rule knows no fraction."""

    usual: float
    largest: float
    lots: bool

    def contracts(self, equity: np.ndarray, max_loss: np.ndarray, multiplier: np.ndarray, largest: bool) -> np.ndarray:
        """Contracts, not yet whole, at `equity` (n,) and `max_loss` (n,), dollars and dollars per contract."""
        size = multiplier * (self.largest if largest else self.usual)
        return size * np.ones(len(equity)) if self.lots else size * equity / max_loss


@dataclass(frozen=True)
class Bands:
    """The promise: `plain` is what promotion stores, and `read` makes it again of that."""

    rule: BandRule
    sessions: int                # of the backtest
    trades: int
    block_length: float          # sessions
    fill_share: float            # of the bid-ask that the fill model travels
    win_rate: float              # mean over the weeks in which trades were opened
    contracts: dict[str, int]    # trades of each size
    sizes: dict[str, Size]       # by regime
    exits: dict[str, float]      # share of trades by reason
    size_zero: float             # share of candidates that did not come to one contract
    approved: float | None       # share that the LLM approves of what it is asked, by session; None without one
    mean_pnl: dict[str, float]   # dollars per contract, of all and by regime
    cusum: Cusum
    bands: dict[str, Band]       # by check; growth and trades are of sessions, the others of trades


def plain(promised: Bands) -> dict[str, Any]:
    """As JSON keeps it."""
    return asdict(promised)


def read(content: Mapping[str, Any]) -> Bands:
    """The Bands that `plain` wrote. Raises ConfigError where it is something else."""
    try:
        made = {name: Band(one["centre"], list(one["below"]), list(one["above"]), tuple(one["watch"]),
                           tuple(one["stop"]) if one["stop"] else None) for name, one in content["bands"].items()}
        return Bands(**{**content, "rule": BandRule(**content["rule"]), "cusum": Cusum(**content["cusum"]),
                        "sizes": {name: Size(**one) for name, one in content["sizes"].items()}, "bands": made})
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"the bands of the promotion cannot be read: {schema.one_line(error)}; promote again") from error


# ---- what is checked, of a backtest and of a paper account alike -----------------------------------------------------

@dataclass(frozen=True)
class History:
    """Sessions in a row and the trades that were opened in them, in that order.

    growth and entries are (n_sessions,): log return at the promoted size, and trades opened. `trades` (n,) has the
    columns day (index of the session), regime, contracts, max_loss (dollars per contract), equity (of the session
    before, dollars), size_multiplier, reason and pnl (dollars per contract, net); the reason is "" and the pnl NaN for
    what no rule has closed.
    """

    growth: np.ndarray
    entries: np.ndarray
    trades: Table


def of_backtest(ledger: Ledger) -> History:
    """The History of a run."""
    account, t = ledger.account, ledger.trades
    day = np.searchsorted(account["date"], t["date"])
    before = np.concatenate(([ledger.initial_equity], account["equity"][:-1]))
    closed = metrics.closed_by_rule(t)
    trades = {"day": day, "regime": t["regime"], "contracts": t["contracts"], "max_loss": MULTIPLIER * t["max_loss"],
              "equity": before[day], "size_multiplier": np.ones(len(day)), "reason": np.where(closed, t["exit_reason"], ""),
              "pnl": np.where(closed, t["pnl_per_contract"], np.nan)}
    return History(np.log1p(metrics.simple_returns(account["equity"], ledger.initial_equity)),
                   np.bincount(day, minlength=len(before)).astype(float), trades)


def by_session(history: History) -> dict[str, np.ndarray]:
    """What is averaged over sessions, (n_sessions,) each."""
    return {"growth": history.growth, "trades": history.entries}


def by_trade(trades: Table, sizes: Mapping[str, Size], regimes: list[str]) -> dict[str, np.ndarray]:
    """What is averaged over trades in the order of their opening, (n,) each; NaN where a trade has no say.

    size is the contracts over those that the usual risk fraction of the regime buys at the equity of the account.
    """
    closed = trades["reason"] != ""
    values = {"size": trades["contracts"] / np.maximum(np.floor(asked(trades, sizes, largest=False) + 1e-9), 1.0),
              "pnl": trades["pnl"]}
    for name in DECIDES:
        if name.startswith("exits."):
            values[name] = np.where(closed, trades["reason"] == name.removeprefix("exits."), np.nan)
    return values | {f"pnl.{regime}": np.where(trades["regime"] == regime, trades["pnl"], np.nan) for regime in regimes}


def asked(trades: Table, sizes: Mapping[str, Size], *, largest: bool) -> np.ndarray:
    """Contracts, not yet whole, that the usual or the largest size of each trade's regime buys: (n,); NaN of no size."""
    contracts = np.full(len(trades["day"]), np.nan)
    for regime, size in sizes.items():
        mine = trades["regime"] == regime
        contracts[mine] = size.contracts(trades["equity"][mine], trades["max_loss"][mine], trades["size_multiplier"][mine],
                                         largest)
    return contracts


def weekly_wins(day: np.ndarray, pnl: np.ndarray) -> np.ndarray:
    """Share of winners among the trades opened in each calendar week that has any, (n_weeks,).

    `day` (n,) is of the opening, datetime64[D]: trades of a week share their luck, and count once.
    """
    week = np.unique((day.astype("datetime64[D]").astype(int) + 3) // 7, return_inverse=True)[1]
    return np.bincount(week, weights=pnl > 0) / np.bincount(week)


def normal_scores(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Standard normal deviates with the ranks that `values` have among `quantiles` (m,), which ascend.

    Equal values get the middle of their ranks. What lies beyond all quantiles gets the deviate of half a step.
    """
    from scipy.special import ndtri

    below, upto = (np.searchsorted(quantiles, values, side=side) for side in ("left", "right"))
    return ndtri((0.5 * (below + upto) + 0.5) / (len(quantiles) + 1))


def outside(band: Band, name: str, mean: float, n: int, verdict: str) -> bool:
    """Whether the mean of n values of check `name` calls for a `verdict`, watch or stop; of money, only losses do."""
    multiples = getattr(band, verdict)
    if multiples is None:
        return False
    low, high = band.limits(n, multiples)
    return mean < low or (mean > high and not name.startswith(TOO_LITTLE))


# ---- the promise -----------------------------------------------------------------------------------------------------

CUSUM_K = 0.5
QUANTILES = 201
AHEAD = 3                # horizons that a stretch is drawn for, so that few end before they have a horizon's trades


def bands(ledger: Ledger, *, fill: Fill, rule: BandRule, rng: np.random.Generator,
          approved: float | None = None) -> Bands:
    """What `ledger`, the run that is promoted, promises of a paper account that trades like it.

    Parameters
    ----------
    fill
        The fill model of the run.
    approved
        Share that the LLM layer approved of what it was asked, the mean of sessions, where it was judged; None
        without one. `ledger` is then the one with its vetoes.

    Raises
    ------
    ConfigError
        Where the backtest is too short, or has too few trades, to promise anything.
    """
    history, t = of_backtest(ledger), ledger.trades
    n, closed = len(history.growth), metrics.closed_by_rule(t)
    if n < 4 * rule.horizon or closed.sum() < FEWEST:
        raise ConfigError(f"bands need a backtest of {4 * rule.horizon} sessions and {FEWEST} closed trades, "
                          f"got {n} and {closed.sum()}")
    pnl = {"all": t["pnl_per_contract"][closed]}
    pnl |= {name: mine for name in sorted(set(t["regime"].tolist()))
            if len(mine := t["pnl_per_contract"][closed & (t["regime"] == name)]) >= FEWEST}
    sizes = _sizes(t)
    block = min(max(map(bootstrap.optimal_block_length, (history.growth, history.entries))), float(rule.horizon))
    drawn = sequential.stretches(n, AHEAD * rule.horizon, block, rule.replications, rng)
    cusum, made = _calibrated(history, drawn, sizes, [name for name in pnl if name != "all"], rule)
    return Bands(
        rule=rule, sessions=n, trades=len(t["pnl"]), block_length=block, fill_share=share_of(fill),
        win_rate=float(weekly_wins(t["date"][closed], t["pnl"][closed]).mean()),
        contracts=_counts(t["contracts"]), sizes=sizes,
        exits={reason: count / int(closed.sum()) for reason, count in _counts(t["exit_reason"][closed]).items()},
        size_zero=ledger.counts.get("rejected.size_zero", 0.0) / max(ledger.counts["candidates"], 1.0),
        approved=approved, mean_pnl={name: float(mine.mean()) for name, mine in pnl.items()}, cusum=cusum, bands=made)


def share_of(fill: Fill) -> float:
    """Share of the bid-ask that a fill model travels: 0.5 is the mid, 1 crosses."""
    sell, _ = fill(np.array([1.0]), np.array([2.0]))
    return float(2.0 - sell[0])


def _counts(column: np.ndarray) -> dict[str, int]:
    return {str(value): int(n) for value, n in sorted(Counter(column.tolist()).items())}


def _sizes(trades: Table) -> dict[str, Size]:
    """Of each regime in which trades were opened."""
    found = {}
    for regime in sorted(set(trades["regime"].tolist())):
        mine = trades["regime"] == regime
        lots = not np.isfinite(trades["risk_fraction"][mine]).all()
        size = trades["contracts" if lots else "risk_fraction"][mine]
        found[regime] = Size(float(np.median(size)), float(size.max()), lots)
    return found


def _calibrated(history: History, drawn: np.ndarray, sizes: Mapping[str, Size], regimes: list[str],
                rule: BandRule) -> tuple[Cusum, dict[str, Band]]:
    """The CUSUM, and a Band around each check, so that all share the rates of the rule along the stretches drawn."""
    paths = {name: sequential.running_means(values[drawn[:, :rule.horizon]])
             for name, values in by_session(history).items()}
    around = {name: sequential.spread(mine, float(mine[:, -1].mean())) for name, mine in paths.items()}
    rows, in_horizon = _trades_of(history.trades["day"], drawn, rule.horizon)
    for name, values in by_trade(history.trades, sizes, regimes).items():
        with_a_say = np.where(rows >= 0, values[rows], np.nan)
        order = np.argsort(np.isnan(with_a_say), axis=1, kind="stable")
        along, inside = np.take_along_axis(with_a_say, order, axis=1), np.take_along_axis(in_horizon, order, axis=1)
        longest = max(int((inside & ~np.isnan(along)).sum(axis=1).max()), 1)
        means = sequential.running_means(along[:, :longest])
        around[name], paths[name] = sequential.spread(means, float(np.nanmean(means[:, -1]))), np.where(inside[:, :longest], means, np.nan)
    worst = {name: sequential.extremes(mine, around[name], rule.least) for name, mine in paths.items()}

    cusum = Cusum(CUSUM_K, np.inf, np.inf, _rounded(np.quantile(history.growth, np.linspace(0, 1, QUANTILES))))
    passed = cusum.path(history.growth[drawn[:, :rule.horizon]]).max(axis=1)
    judged = [ends[:, :1] if name.startswith(TOO_LITTLE) else ends for name, ends in worst.items()]
    watch = sequential.shared_rate(np.column_stack([*judged, passed]), OF_BANDS * rule.watch)
    stop = sequential.shared_rate(np.column_stack([worst[name] for name in DECIDES]), OF_BANDS * rule.stop)
    h = float(np.quantile(passed, 1.0 - watch))
    made = {name: Band(float(around[name].centre[-1]), _rounded(around[name].below), _rounded(around[name].above),
                       _just_above(sequential.multipliers(ends, watch)),
                       _just_above(sequential.multipliers(ends, stop)) if name in DECIDES else None)
            for name, ends in worst.items()}
    return replace(cusum, h=h, run_length=sequential.run_length(CUSUM_K, h)), made


def _just_above(multiples: np.ndarray) -> tuple[float, float]:
    """Where many paths end at one value, as a share of none does, that value is inside, whatever the rounding."""
    return tuple((multiples * (1.0 + 1e-6)).tolist())


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{x:.8g}") for x in values.tolist()]


def _trades_of(day: np.ndarray, drawn: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The trades of each stretch, in order, and whether they are of its first `horizon` sessions: (b, n), padded by -1."""
    start = np.searchsorted(day, np.arange(drawn.max() + 2))
    opened = np.diff(start)[drawn]                                              # trades by session of each stretch
    sessions, n = drawn.ravel(), opened.ravel()
    rows = np.repeat(start[sessions] - (np.cumsum(n) - n), n) + np.arange(n.sum())
    of_stretch, in_horizon = opened.sum(axis=1, keepdims=True), opened[:, :horizon].sum(axis=1, keepdims=True)
    place = np.arange(of_stretch.max())
    padded = np.full((len(drawn), len(place)), -1)
    padded[place < of_stretch] = rows
    return padded, place < in_horizon
