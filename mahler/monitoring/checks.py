"""The checks: what paper trading does beside what was promised, with a verdict and what to do about it.

What converges in weeks decides: data, parity, sizes, exits, fills, credit, trades a session, the mix of exits. Money is
watched: no month of it says anything, and its bands only say how odd the month was. Every band and every interval may
be looked at on every session; see bands.py. Halts are no tests but limits of what may be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mahler import metrics
from mahler.figures import dollars, percent, plain
from mahler.monitoring.bands import Bands, asked, by_session, by_trade, outside, weekly_wins
from mahler.monitoring.paper import Watched
from mahler.monitoring.replay import Parity
from mahler.paper.stage import Stage
from mahler.schema import MULTIPLIER, Table
from mahler.validation.sequential import confidence_sequence

OFTEN = ("daily", "weekly", "monthly", "halt")
"""How often a check is worth a look; it may be looked at always."""

TOLERANCE = {"fills": 0.05, "credit": 0.05}      # share of the bid-ask, and of the modelled credit, beyond which: stop
REACH = {"fills": 0.15, "credit": 0.15}          # from what was promised, beyond which a session counts no more: robust
GRACE = 1                # sessions between a rule that fires and the fill that closes: orders of a scan after the close
SIZE_SLACK = 1.10        # of the largest size: equity moves within a session


class Verdict(Enum):
    """What a check says, the worst last."""

    TOO_EARLY = "not enough data"
    OK = "ok"
    WATCH = "watch"
    STOP = "stop"


SEVERITY = list(Verdict)

ADVICE = {
    "data": "Find out why the scan did not run or had no new quotes; until then open nothing.",
    "parity": "Compare the tickets with `mahler scan` of the day: another config, other data or other code was traded.",
    "size": "Compare contracts, equity and the regime's multiplier with the tickets; open nothing until they agree.",
    "size_zero": "Candidates that one contract fits were sized to nothing: look at equity, risk fraction and multiplier.",
    "exits": "Close what is due. Then find out why: an exit a session late is a risk that was never tested.",
    "trades": "Read the funnel of the scans: which stage or limit lets through other than in the backtest?",
    "fills": "Work orders at a better limit or trade less liquid strikes less; then backtest at the share that was paid.",
    "credit": "What is sold pays less than its ticket says: look at the delay between scan and order.",
    "wins": "Nothing to do but wait: an odd month. If fills, exits and parity are right, the market did it.",
    "pnl": "Nothing to do but wait: an odd month. If fills, exits and parity are right, the market did it.",
    "cusum": "Returns have ranked low for long: read the exits, and compare the regime with those of the backtest.",
    "growth": "The account left the cone that all of it lies in: read the exits, and halve the size if in doubt.",
    "regimes": "One regime does other than in the backtest: read its trades before the next in it.",
    "mix": "Other rules close the trades than in the backtest: compare the exit levels of tickets with the config.",
    "approvals": "The LLM decides otherwise than where it was judged: has the provider changed the model? Evaluate again.",
    "drawdown": "Halt: the stage is moved back. Open nothing, close by the rules, find the reason.",
    "profit_factor": "Halt: the stage is moved back. Open nothing, close by the rules, find the reason.",
    "loss": "Halt: the stage is moved back. A spread cannot lose so much: look at the fills and the assignment.",
}


@dataclass(frozen=True)
class Check:
    """One check. value, low and high are NaN where there is nothing to compare, or no limit on that side."""

    name: str
    label: str
    often: str
    verdict: Verdict
    value: float
    low: float
    high: float
    n: int                       # sessions, trades or fills behind the value
    write: Callable[[float], str]
    note: str = ""

    @property
    def advice(self) -> str:
        """What to do; nothing where nothing is wrong."""
        return ADVICE[self.name] if self.verdict in (Verdict.WATCH, Verdict.STOP) else ""

    @property
    def band(self) -> str:
        """The limits in words."""
        low, high = (self.write(x) if np.isfinite(x) else "" for x in (self.low, self.high))
        return f"{low} to {high}" if low and high else f"from {low}" if low else f"to {high}" if high else "–"

    @property
    def shown(self) -> str:
        """The value in words."""
        return self.write(self.value) if np.isfinite(self.value) else "–"


def checks(seen: Watched, whole: Watched, promised: Bands, parity: Parity, stage: Stage) -> list[Check]:
    """All checks of an account, in the order in which they are to be read.

    `seen` is the stretch that the bands are for, `whole` the stage that it is in, which halts are judged by.
    """
    found = [data(seen), decisions(parity, stage), _size(seen, promised), size_zero(seen, promised), exits(whole, seen.start),
             *_banded_all(seen, promised), fills(seen, promised), credit(seen, promised), wins(seen, promised),
             cusum(seen, promised), *approvals(seen, promised), *halts(whole, stage)]
    return sorted(found, key=lambda check: OFTEN.index(check.often))


def worst(found: list[Check]) -> Verdict:
    """The worst verdict of all."""
    return max((check.verdict for check in found), key=SEVERITY.index)


def _count(x: float) -> str:
    return f"{x:,.0f}"


# ---- daily -----------------------------------------------------------------------------------------------------------

def data(seen: Watched) -> Check:
    """Sessions without a scan, or with the prices of the session before. One is a watch, two in a row are a stop."""
    bad = np.isin(seen.sessions, seen.missing) | (seen.unchanged == 1.0)
    old = seen.oldest_mark
    verdict = (Verdict.TOO_EARLY if not len(bad) else Verdict.STOP if bad[-2:].sum() == 2 or old > 3
               else Verdict.WATCH if bad[-1] or bad[-20:].sum() > 1 or old > 1 else Verdict.OK)
    frozen = int((seen.unchanged == 1.0).sum())
    note = f"{len(seen.missing)} not scanned, {frozen} with unmoved quotes, oldest mark {old} sessions"
    return Check("data", "sessions without new data", "daily", verdict, float(bad.sum()), np.nan, 0.0, len(bad), _count, note)


def decisions(parity: Parity, stage: Stage) -> Check:
    """Share of sessions whose every decision the promoted config makes again."""
    if not parity.sessions:
        return Check("parity", "decision parity", "daily", Verdict.TOO_EARLY, np.nan, stage.parity, np.nan, 0, percent)
    share = parity.agreed / parity.sessions
    verdict = Verdict.STOP if share < stage.parity else Verdict.WATCH if share < 1.0 else Verdict.OK
    return Check("parity", "decision parity", "daily", verdict, share, stage.parity, np.nan, parity.sessions, percent,
                 "; ".join(parity.differences[:3]))


def _size(seen: Watched, promised: Bands) -> Check:
    """Contracts over those of the regime's usual risk at the account's equity; and none above its largest."""
    trades, regimes = seen.history.trades, [name for name in promised.mean_pnl if name != "all"]
    ratio = by_trade(trades, promised.sizes, regimes)["size"]
    found = _banded("size", "contracts over the usual", "daily", ratio, promised, plain)
    above = trades["contracts"] > np.maximum(SIZE_SLACK * asked(trades, promised.sizes, largest=True), 1.0)
    if not above.any():
        return found
    return _with(found, Verdict.STOP, f"{above.sum()} of {len(above)} trades are larger than the config ever asks for")


def size_zero(seen: Watched, promised: Bands) -> Check:
    """Candidates that came to no contract although one fits, by their own risk fraction and equity.

    One that none fits is explained by them. Its share is the regime's, and comes and goes with it for months: it is
    shown, and not held against the backtest's.
    """
    zero = seen.scanned["reason"] == "size_zero"
    n, share = len(zero), float(zero.mean()) if len(zero) else np.nan
    at = np.clip(np.searchsorted(seen.sessions, seen.scanned["date"]), 0, max(len(seen.sessions) - 1, 0))
    fits = (seen.scanned["risk_fraction"] * seen.equity[at] > 1.1 * MULTIPLIER * seen.scanned["max_loss"]
            if n else np.zeros(0, bool))
    unexplained = int((zero & fits).sum())
    verdict = Verdict.TOO_EARLY if not n else Verdict.STOP if unexplained else Verdict.OK
    return Check("size_zero", "unexplained candidates of no size", "daily", verdict, float(unexplained), np.nan, 0.0, n,
                 _count, f"of no size are {percent(share)}, in the backtest {percent(promised.size_zero)}" if n else "")


def exits(whole: Watched, since: np.datetime64) -> Check:
    """Positions whose exit came, or is still to come, more than GRACE sessions after its rule fired, or before it.

    Of all that were open on `since` or later: what was opened in the stretch before is closed in this one.
    """
    t = whole.trades
    still_open, late, early = t["reason"] == "", t["late"], t["early"]
    now = still_open | (t["exit_date"] >= since)
    n_late, n_early = int((now & (late > GRACE)).sum()), int((now & early).sum())
    due, n = int((now & (~still_open | (late > 0))).sum()), int((now & ((late > GRACE) | early)).sum())
    verdict = (Verdict.STOP if n > 1 else Verdict.WATCH if n else Verdict.OK if due else Verdict.TOO_EARLY)
    return Check("exits", "exits off their levels", "daily", verdict, float(n), np.nan, 0.0, due, _count,
                 f"{n_late} late, {n_early} early" if n else "")


# ---- running means in their bands ------------------------------------------------------------------------------------

def _banded(name: str, label: str, often: str, values: np.ndarray, promised: Bands, write: Callable[[float], str],
            check: str = "") -> Check:
    """The mean of `values` (n,), those that are no NaN, against the band `name`."""
    known, band = values[~np.isnan(values)], promised.bands[name]
    n, mean = len(known), float(known.mean()) if (~np.isnan(values)).any() else np.nan
    low, high = band.limits(max(n, 1), band.watch)
    if name.startswith("exits.") or name == "trades":            # a share, a count: a distance may reach beyond what can be
        low, high = max(low, 0.0), min(high, 1.0) if name.startswith("exits.") else high
    if n < promised.rule.least:
        verdict = Verdict.TOO_EARLY
    elif outside(band, name, mean, n, "stop"):
        verdict = Verdict.STOP
    else:
        verdict = Verdict.WATCH if outside(band, name, mean, n, "watch") else Verdict.OK
    return Check(check or name, label, often, verdict, mean, low, high, n, write)


def _banded_all(seen: Watched, promised: Bands) -> list[Check]:
    """Trades a session, P&L, the cone, the mix of exits and the regimes; of the last two the oddest."""
    regimes = [name for name in promised.mean_pnl if name != "all"]
    values = by_session(seen.history) | by_trade(seen.history.trades, promised.sizes, regimes)
    mix = [_banded(f"exits.{reason}", f"closed by {reason.replace('_', ' ')}", "monthly", values[f"exits.{reason}"], promised,
                   percent, "mix") for reason in ("profit_target", "stop_loss", "time")]
    by_regime = [_banded(f"pnl.{regime}", f"P&L a contract, {regime.replace('_', ' ')}", "monthly", values[f"pnl.{regime}"],
                         promised, dollars, "regimes") for regime in regimes]
    cone = _banded("growth", "growth in its cone", "monthly", values["growth"], promised, percent)
    return [_banded("trades", "trades a session", "weekly", values["trades"], promised, plain),
            _banded("pnl", "P&L a contract", "weekly", values["pnl"], promised, dollars),
            _scaled(cone), max(mix, key=_oddness), *([max(by_regime, key=_oddness)] if by_regime else [])]


def _oddness(check: Check) -> tuple[int, float]:
    """How bad a check is, and then how near the end of its band."""
    half = 0.5 * (check.high - check.low)
    near = abs(check.value - 0.5 * (check.high + check.low)) / half if half > 0 and np.isfinite(check.value) else -1.0
    return SEVERITY.index(check.verdict), near


def _scaled(cone: Check) -> Check:
    """The growth of all sessions instead of that of the mean one."""
    value, low, high = (np.expm1(x * cone.n) for x in (cone.value, cone.low, cone.high))
    return Check(cone.name, cone.label, cone.often, cone.verdict, value, low, high, cone.n, percent)


def _with(check: Check, verdict: Verdict, note: str) -> Check:
    return Check(check.name, check.label, check.often, verdict, check.value, check.low, check.high, check.n, check.write, note)


# ---- weekly: means with an interval that holds at every peek ---------------------------------------------------------

def _by_session(dates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of `values` by session: fills of one session share its quotes, and count once."""
    day = np.unique(dates, return_inverse=True)[1]
    return np.bincount(day, weights=values) / np.bincount(day) if len(day) else np.zeros(0)


def _sequence(x: np.ndarray, low: float, high: float, alpha: float) -> tuple[float, float]:
    """Confidence sequence for the mean of x, cut to [low, high]."""
    ends = confidence_sequence(np.clip((x - low) / (high - low), 0.0, 1.0), alpha)
    return low + ends[0] * (high - low), low + ends[1] * (high - low)


def _compared(name: str, label: str, x: np.ndarray, reach: float, promise: float, sign: float, promised: Bands,
              write: Callable[[float], str]) -> Check:
    """The mean of x against `promise` from one side: too high is bad for a `sign` of 1, too low for one of -1.

    Watch where the interval excludes the promise, stop where a stricter one excludes it by the tolerance. Values are
    cut at promise +- reach. The table shows the interval of the watch.
    """
    ends = (promise - reach, promise + reach)
    watch, stop = (_sequence(x, *ends, promised.rule.sequence_alpha(rate)) for rate in (promised.rule.watch, promised.rule.stop))
    beyond = promise + sign * TOLERANCE.get(name, np.inf)

    def proven(interval: tuple[float, float], against: float) -> bool:
        return interval[0] > against if sign > 0 else interval[1] < against

    verdict = (Verdict.TOO_EARLY if len(x) < 3 else Verdict.STOP if proven(stop, beyond)
               else Verdict.WATCH if proven(watch, promise) else Verdict.OK)
    value = float(np.clip(x, *ends).mean()) if len(x) else np.nan
    return Check(name, label, "weekly", verdict, value, promise if sign < 0 else np.nan, promise if sign > 0 else np.nan,
                 len(x), write, f"interval {write(watch[0])} to {write(watch[1])}" if len(x) else "")


def fills(seen: Watched, promised: Bands) -> Check:
    """Share of the bid-ask travelled against the model's, by session."""
    known = np.isfinite(seen.fills["travel"])
    x = _by_session(seen.fills["date"][known], seen.fills["travel"][known])
    share = promised.fill_share
    return _compared("fills", "bid-ask travelled", x, REACH["fills"], share, 1.0, promised, percent)


def credit(seen: Watched, promised: Bands) -> Check:
    """Credit received over the credit that the ticket says, by session."""
    x = _by_session(seen.trades["date"], seen.trades["credit"] / seen.trades["modelled"])
    return _compared("credit", "credit over the ticket's", x, REACH["credit"], 1.0, -1.0, promised, plain)


def wins(seen: Watched, promised: Bands) -> Check:
    """Share of winners by week of entry, of trades before the first that is open."""
    settled = seen.settled
    x = weekly_wins(settled["date"], settled["pnl"]) if len(settled["date"]) else np.zeros(0)
    alpha, share = promised.rule.sequence_alpha(promised.rule.watch), promised.win_rate
    low, high = confidence_sequence(x, alpha)
    verdict = Verdict.TOO_EARLY if len(x) < 3 else Verdict.WATCH if high < share else Verdict.OK
    return Check("wins", "win rate, by week", "weekly", verdict, float(x.mean()) if len(x) else np.nan, share, np.nan,
                 len(x), percent, f"interval {percent(low)} to {percent(high)}" if len(x) else "")


def cusum(seen: Watched, promised: Bands) -> Check:
    """Returns that rank low, added up."""
    path = promised.cusum.path(seen.history.growth)
    n, last = len(path), float(path[-1]) if len(path) else np.nan
    verdict = (Verdict.TOO_EARLY if n < promised.rule.least else Verdict.WATCH if last > promised.cusum.h else Verdict.OK)
    return Check("cusum", "CUSUM of returns", "weekly", verdict, last, np.nan, promised.cusum.h, n, plain)


def approvals(seen: Watched, promised: Bands) -> list[Check]:
    """Share of the candidates that the LLM was asked about which it approved, by session, where there is one."""
    if promised.approved is None:
        return []
    x = _by_session(seen.decisions["date"], seen.decisions["approve"].astype(float))
    low, high = confidence_sequence(x, promised.rule.sequence_alpha(promised.rule.watch))
    share = promised.approved
    verdict = Verdict.TOO_EARLY if len(x) < 3 else Verdict.OK if low <= share <= high else Verdict.WATCH
    return [Check("approvals", "approved by the LLM", "monthly", verdict, float(x.mean()) if len(x) else np.nan, share,
                  share, len(x), percent, f"interval {percent(low)} to {percent(high)}")]


# ---- halts -----------------------------------------------------------------------------------------------------------

def halts(seen: Watched, stage: Stage) -> list[Check]:
    """What ends a stage, whatever its reason: drawdown, profit factor, a loss that a spread cannot make."""
    index, t = seen.index, seen.trades
    depth = float(-metrics.drawdowns(index, 1.0).min()) if len(index) else np.nan
    closed = _closed(t)
    factor = metrics.profit_factor(closed["pnl"])
    multiple = -closed["pnl"] / (closed["max_loss"] * closed["contracts"])
    largest = float(multiple.max()) if len(multiple) else np.nan
    n = len(closed["pnl"])

    def halt(name: str, label: str, value: float, low: float, high: float, bad: bool, n: int, known: bool,
             write: Callable[[float], str]) -> Check:
        verdict = Verdict.STOP if bad else Verdict.OK if known else Verdict.TOO_EARLY
        return Check(name, label, "halt", verdict, value, low, high, n, write)

    return [
        halt("drawdown", "drawdown", depth, np.nan, stage.halt_drawdown, depth > stage.halt_drawdown, len(index),
             len(index) > 0, percent),
        halt("profit_factor", "profit factor", factor, stage.halt_profit_factor, np.nan,
             n >= stage.halt_trades and factor < stage.halt_profit_factor, n, n >= stage.halt_trades, plain),
        halt("loss", "largest loss over maximum", largest, np.nan, stage.halt_loss, largest > stage.halt_loss, n, n > 0,
             plain)]


def _closed(trades: Table) -> Table:
    closed = np.isfinite(trades["pnl"])
    return {name: column[closed] for name, column in trades.items()}
