"""A day of a run in words and numbers: the market, what was offered, what became of it and why.

`replay` tells one session again, in plain Python, from the account and the positions of its eve: what core.admission
does, and beside it what each limit left. It must come to what the ledger says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mahler.exits import Costs, max_loss_per_contract
from mahler.figures import count, percent
from mahler.ledger import CENT, Ledger
from mahler.panel import Panel
from mahler.paths import Paths
from mahler.schema import MULTIPLIER, STAGES, ConfigError, Exit, Regime, Rejection, Side, Table
from mahler.screen import Entry
from mahler.simulate import Breaker, Limits, weeks

EPSILON = 1e-9                   # contracts: 3.9999999999 is four, as in core.admission


# ---- the day told again ----------------------------------------------------------------------------------------------

@dataclass
class Book:
    """An account and what is open in it; dollars, `marks` negative when owed."""

    cash: float
    marks: float
    open_max_loss: float
    of_ticker: np.ndarray        # (n_tickers,) open maximum loss
    of_group: float              # open maximum loss of the correlated group
    positions: int

    @property
    def equity(self) -> float:
        """Cash and marks."""
        return self.cash + self.marks

    def hold(self, ticker: int, in_group: bool, mark: float, max_loss: float) -> None:
        """Count a position, by its mark and its maximum loss, in dollars."""
        self.marks -= mark
        self.open_max_loss += max_loss
        self.of_ticker[ticker] += max_loss
        self.of_group += max_loss if in_group else 0.0
        self.positions += 1


@dataclass(frozen=True)
class Position:
    """A spread that is open, or was until today."""

    candidate: int
    contracts: int
    mark: float                  # dollars per share, the last usable mid
    age: int                     # sessions since that mid


@dataclass(frozen=True)
class Decision:
    """What became of a candidate, and the limit that had a say in its size."""

    candidate: int
    reason: Rejection
    contracts: int = 0
    asked: int = 0               # contracts that the risk fraction asks for; 0 where it did not come to that
    limit: Rejection = Rejection.ADMITTED      # the tightest limit that left less than was asked; ADMITTED is none
    room: float = math.nan       # dollars of maximum loss that this limit, the risk fraction or the cash left


@dataclass(frozen=True)
class Day:
    """One session: the account on its eve, after its exits, and at its end, and what happened between."""

    day: int                     # index into the panel's dates
    eve: Book
    before: Book                 # after the exits, when the first candidate is looked at
    after: Book
    closed: list[Position]
    open: list[Position]
    losses: dict[Rejection, float]     # each breaker's measure: fractions, and VIX points
    decisions: list[Decision]    # in the order of admission


def replay(day: int, ledger: Ledger, candidates: Table, paths: Paths, exits: Table, panel: Panel, limits: Limits,
           breaker: Breaker, costs: Costs) -> Day:
    """Walk session `day` (an index into the panel's dates) again, from the ledger's account of its eve.

    `candidates` are those that were simulated, with their sizes.

    Raises
    ------
    ValueError
        Where the day does not come to the trades, the rejections and the account of the ledger.
    """
    max_loss = max_loss_per_contract(candidates, costs)
    in_group = [ticker in limits.group for ticker in panel.tickers]
    eve, held = _eve(day, ledger, candidates, exits, panel)
    before = Book(eve.cash, 0.0, 0.0, np.zeros(len(panel.tickers)), 0.0, 0)
    closed, still_open = [], []
    for c, contracts in held:
        position = Position(c, contracts, *_mark(candidates, paths, c, day))
        if exits["day"][c] == day and exits["reason"][c] != Exit.END_OF_PERIOD:
            before.cash -= contracts * (MULTIPLIER * exits["cost"][c] + exits["costs"][c])
            closed.append(position)
        else:
            ticker = candidates["ticker"][c]
            before.hold(ticker, in_group[ticker], MULTIPLIER * contracts * position.mark, contracts * max_loss[c])
            still_open.append(position)
    losses = _losses(day, before.equity, ledger, panel)
    after, decisions = replace(before, of_ticker=before.of_ticker.copy()), []
    stop = next((reason for reason, most in _breakers(breaker).items() if most is not None and losses[reason] >= most),
                Rejection.ADMITTED)
    for c in range(*np.searchsorted(candidates["day"], [day, day + 1])):
        open_spreads = {candidates["spread_id"][position.candidate] for position in still_open}
        entries = len(still_open) - before.positions
        decision = _decide(c, after, candidates, max_loss[c], in_group, open_spreads, entries, stop, limits)
        decisions.append(decision)
        if decision.contracts:
            n, ticker = decision.contracts, candidates["ticker"][c]
            after.cash += n * (MULTIPLIER * candidates["credit"][c] - costs.entry)
            after.hold(ticker, in_group[ticker], MULTIPLIER * n * candidates["mid_credit"][c], n * max_loss[c])
            still_open.append(Position(c, n, float(candidates["mid_credit"][c]), 0))
    told = Day(day, eve, before, after, closed, still_open, losses, decisions)
    _agree(told, ledger, panel)
    return told


def _eve(day: int, ledger: Ledger, candidates: Table, exits: Table, panel: Panel) -> tuple[Book, list[tuple[int, int]]]:
    """The account at the end of the session before, and its positions: (candidate, contracts) each."""
    c, account = ledger.trades["candidate"], ledger.account
    row = day - (len(panel.dates) - len(account["date"])) - 1
    held = (candidates["day"][c] < day) & (exits["day"][c] >= day)
    positions = list(zip(c[held].tolist(), ledger.trades["contracts"][held].tolist(), strict=True))
    none = np.zeros(len(panel.tickers))
    if row < 0:
        return Book(ledger.initial_equity, 0.0, 0.0, none, 0.0, 0), positions
    cash, marks, at_risk = (float(account[name][row]) for name in ("cash", "marks", "open_max_loss"))
    return Book(cash, marks, at_risk, none, math.nan, len(positions)), positions


def _mark(candidates: Table, paths: Paths, c: int, day: int) -> tuple[float, int]:
    """The last usable mid of candidate `c` up to session `day`, dollars per share, and its age in sessions."""
    held = day - int(candidates["day"][c])
    path = paths.mid[paths.start[c]:paths.start[c] + held + 1]
    usable = np.flatnonzero(~np.isnan(path[1:])) + 1
    if len(usable) == 0:
        return float(candidates["mid_credit"][c]), held
    return float(path[usable[-1]]), held - int(usable[-1])


def _losses(day: int, equity: float, ledger: Ledger, panel: Panel) -> dict[Rejection, float]:
    """What each breaker looks at: the loss of the day, of the week, from the peak, as fractions, and VIX."""
    first = len(panel.dates) - len(ledger.account["date"])
    past = np.concatenate(([ledger.initial_equity], ledger.account["equity"][:day - first]))     # the eve's is the last
    week = weeks(panel.dates[first:day + 1])
    last_week = past[np.searchsorted(week, week[-1])]        # entry i of `past` is the eve of session i of the run
    with np.errstate(divide="ignore", invalid="ignore"):     # an account that is gone
        return {reason: float((then - equity) / then) for reason, then in (
            (Rejection.BREAKER_DAY, past[-1]), (Rejection.BREAKER_WEEK, last_week),
            (Rejection.BREAKER_DRAWDOWN, past.max()))} | {Rejection.BREAKER_VIX: float(panel.vix[day, 0])}


def _breakers(breaker: Breaker) -> dict[Rejection, float | None]:
    return {Rejection.BREAKER_DAY: breaker.max_day_loss, Rejection.BREAKER_WEEK: breaker.max_week_loss,
            Rejection.BREAKER_DRAWDOWN: breaker.max_drawdown, Rejection.BREAKER_VIX: breaker.max_vix}


def _decide(c: int, book: Book, candidates: Table, max_loss: float, in_group: list[bool], open_spreads: set,
            entries: int, stop: Rejection, limits: Limits) -> Decision:
    """The first reason that applies, in the order of schema.Rejection, or the contracts that are sold."""
    if candidates["risk_fraction"][c] == 0.0:
        return Decision(c, Rejection.VETOED)
    if candidates["spread_id"][c] in open_spreads:
        return Decision(c, Rejection.ALREADY_OPEN)
    if stop:
        return Decision(c, stop)
    if book.positions >= limits.max_positions:
        return Decision(c, Rejection.MAX_POSITIONS)
    if entries >= limits.max_entries_per_day:
        return Decision(c, Rejection.MAX_ENTRIES_PER_DAY)

    risk, most = float(candidates["risk_fraction"][c]), int(candidates["max_contracts"][c])
    asked = most if math.isinf(risk) else math.floor(risk * book.equity / max_loss + EPSILON)
    asked = min(asked, most) if most else asked
    if asked < 1:
        return Decision(c, Rejection.SIZE_ZERO, room=0.0 if math.isinf(risk) else risk * book.equity)
    ticker = candidates["ticker"][c]
    lots, limit, room = asked, Rejection.ADMITTED, math.nan
    for reason, left in _rooms(book, ticker, in_group[ticker], limits):
        fit = math.floor(left / max_loss + EPSILON)
        if fit < lots:
            lots, limit, room = fit, reason, left
        if lots < 1:
            return Decision(c, reason, 0, asked, reason, left)
    if lots * max_loss > (book.cash - book.open_max_loss) * (1.0 + EPSILON):
        return Decision(c, Rejection.NO_CASH, 0, asked, Rejection.NO_CASH, book.cash - book.open_max_loss)
    return Decision(c, Rejection.ADMITTED, lots, asked, limit, room)


def _rooms(book: Book, ticker: int, in_group: bool, limits: Limits) -> Iterator[tuple[Rejection, float]]:
    """The heat limits in their order, and the dollars of maximum loss that each still leaves."""
    yield Rejection.MAX_HEAT, limits.max_heat * book.equity - book.open_max_loss
    yield Rejection.MAX_HEAT_PER_UNDERLYING, limits.max_heat_per_underlying * book.equity - book.of_ticker[ticker]
    if in_group:
        yield Rejection.MAX_HEAT_GROUP, limits.max_heat_group * book.equity - book.of_group


def _agree(told: Day, ledger: Ledger, panel: Panel) -> None:
    """Raise ValueError unless the day comes to what the ledger says of it."""
    date, row = panel.dates[told.day], told.day - (len(panel.dates) - len(ledger.account["date"]))
    sold = ledger.trades["date"] == date
    contracts = dict(zip(ledger.trades["candidate"][sold].tolist(), ledger.trades["contracts"][sold].tolist()))
    reasons = ledger.rejections["reason"][ledger.rejections["date"] == date].tolist()
    if contracts != {d.candidate: d.contracts for d in told.decisions if d.contracts}:
        raise ValueError(f"{date}: the ledger's contracts are {contracts}, told again {told.decisions}")
    if reasons != [d.reason.name.lower() for d in told.decisions if not d.contracts]:
        raise ValueError(f"{date}: the ledger's reasons are {reasons}, told again {told.decisions}")
    for name in ("cash", "marks", "open_max_loss"):
        theirs, ours = float(ledger.account[name][row]), getattr(told.after, name)
        if not abs(theirs - ours) < CENT / 2:
            raise ValueError(f"{date}: the ledger's {name} is {theirs:.4f} dollars, told again {ours:.4f}")
    if told.after.positions != ledger.account["positions"][row]:
        raise ValueError(f"{date}: the ledger has {ledger.account['positions'][row]} positions, "
                         f"told again {told.after.positions}")


# ---- which day -------------------------------------------------------------------------------------------------------

def session(date: np.datetime64, dates: np.ndarray) -> int:
    """The row of `date` in the sessions of a run. Raises ConfigError, naming the nearest, where it is none of them."""
    row = int(np.searchsorted(dates, date))
    if row < len(dates) and dates[row] == date:
        return row
    if row == 0:
        raise ConfigError(f"date={date} is before the run, whose first session is {dates[0]}")
    if row == len(dates):
        raise ConfigError(f"date={date} is after the run, whose last session is {dates[-1]}")
    from mahler.data.calendar import is_session              # a second to import: only where something is wrong

    why = ": not every ticker has chains on it" if is_session(np.array([date]))[0] else ""
    raise ConfigError(f"date={date}, a {date.item():%A}, is no session of the run{why}; the nearest are "
                      f"{dates[row - 1]} and {dates[row]}")


# ---- words -----------------------------------------------------------------------------------------------------------

def verdict(told: Day, funnel: Table, entry: Entry, panel: Panel) -> str:
    """In one line: what was sold on the day or, where nothing was, why. `funnel` has the rows of the day."""
    date, n = panel.dates[told.day], len(told.decisions)
    if n == 0:
        return f"No trade on {date}: no candidate: {_lost(funnel, entry)}."
    admitted = sum(bool(d.contracts) for d in told.decisions)
    reasons = Counter(d.reason for d in told.decisions if not d.contracts)
    why = ", ".join(f"{k} {reason.name.lower()}" for reason, k in sorted(reasons.items(), key=lambda x: (-x[1], x[0])))
    if admitted == 0:
        return f"No trade on {date}: {_plural(n, 'candidate')}, {'all ' * (n > 1)}rejected: {why}."
    rest = f"; {n - admitted} rejected: {why}" if why else ""
    return f"{_plural(admitted, 'trade')} on {date}, of {_plural(n, 'candidate')}{rest}."


def _lost(funnel: Table, entry: Entry) -> str:
    """At which stage of the screen the last spread was lost."""
    words = stages_in_words(entry)
    left = {stage: int(funnel[stage].sum()) for stage in STAGES}
    at = next(i for i, stage in enumerate(STAGES) if left[stage] == 0)
    if at == 0:
        return words[STAGES[0]].none
    return f"{count(left[STAGES[at - 1]])} {words[STAGES[at - 1]].some}, {words[STAGES[at]].none}"


class Stage(NamedTuple):
    """A stage of the screen in words: what is left after it, what it asks for, and that nothing was left."""

    some: str
    rule: str
    none: str


def stages_in_words(entry: Entry) -> dict[str, Stage]:
    """The stages of the screen, with the numbers of the entry rules."""
    days, delta = f"{entry.min_dte} to {entry.max_dte}", f"{entry.min_delta:g} to {entry.max_delta:g}"
    widths = " or ".join(f"{width:g}" for width in sorted(entry.widths))
    pays = f"{100 * entry.min_credit_to_width:g} % of"
    iv = f"{entry.min_iv_percentile:g}"
    return {
        "in_dte_window": Stage("strikes in the dte window", f"strikes {days} days from expiration",
                               f"no strike {days} days from expiration"),
        "in_delta_window": Stage("short legs in the delta window", f"short legs of |delta| {delta}",
                                 f"none with a |delta| of {delta}"),
        "with_long_leg": Stage("spreads", f"with a strike {widths} dollars away",
                               f"none with a strike {widths} dollars away"),
        "liquid": Stage("liquid spreads", f"with two liquid legs{_floors(entry)}",
                        f"none with two liquid legs{_floors(entry)}"),
        "paid_enough": Stage("spreads that pay enough", f"pay {pays} the width", f"none paid {pays} the width"),
        "past_iv_filter": Stage("spreads past the IV filter",
                                f"IV percentile {iv} or more" if entry.min_iv_percentile else "no IV filter",
                                f"none with an IV percentile of {iv} or more"),
        "ranked": Stage("candidates", f"the best {entry.per_day} of a side, the candidates",
                        "none with a session left to its expiry"),
    }


def _floors(entry: Entry) -> str:
    """The floors of liquidity that are not zero; what a leg needs anyway is a bid that is not crossed, and an ask."""
    asked = [f"{what} >= {floor}" for what, floor in (("open interest", entry.min_open_interest),
                                                       ("volume", entry.min_volume)) if floor]
    asked += [f"(ask - bid) / mid <= {entry.max_relative_spread:g}"] * (entry.max_relative_spread < 2.0)
    return f" ({', '.join(asked)})" if asked else ""


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# ---- tables ----------------------------------------------------------------------------------------------------------

class Section(NamedTuple):
    """A part of the day: its title, rows of text under the keys of the first, and lines below them."""

    title: str
    rows: list[dict[str, str]]
    notes: list[str]


def sections(told: Day, funnel: Table, candidates: Table, exits: Table, panel: Panel, labels: np.ndarray,
             multipliers: np.ndarray, entry: Entry, limits: Limits, breaker: Breaker, costs: Costs) -> list[Section]:
    """The day, part by part, none wider than 100 columns.

    `funnel` has the rows of the day; `labels` and `multipliers` are (n_tickers,), the regimes of the day and what
    they multiply the risk fraction by.
    """
    spread = _spreads(candidates, panel)
    return [
        _market(told, panel, labels, multipliers), funnel_section(funnel, entry),
        _candidates(told, candidates, exits, panel, spread, max_loss_per_contract(candidates, costs)),
        _limits(told, panel, limits), _open(told, candidates, panel, spread, costs),
        _closed(told, candidates, exits, panel, spread), _stops(told, breaker), _account(told, panel),
    ]


def _spreads(candidates: Table, panel: Panel) -> Callable[[int], str]:
    """How a candidate is written: its ticker, P or C, and its strikes, the short one first."""
    def written(c: int) -> str:
        return (f"{panel.tickers[candidates['ticker'][c]]} {Side(candidates['side'][c]).name[0]} "
                f"{candidates['short_strike'][c]:g}/{candidates['long_strike'][c]:g}")
    return written


def _market(told: Day, panel: Panel, labels: np.ndarray, multipliers: np.ndarray) -> Section:
    d = told.day
    rows = [{"": ticker, "close": _number(panel.close[d, t], ",.2f"), "ATM IV": _share(panel.atm_iv[d, t]),
             "IV percentile": _number(panel.iv_percentile[d, t], ".2f"),
             "realised vol": _share(panel.realized_vol[d, t]), "trend": _share(panel.trend[d, t]),
             "20 days": _share(panel.momentum[d, t]),
             "regime": Regime(labels[t]).name.lower(), "multiplier": f"{multipliers[t]:g}"}
            for t, ticker in enumerate(panel.tickers)]
    return Section("Market", rows, [f"VIX {_number(panel.vix[d, 0], '.2f')}. Sources: VIX {panel.sources['vix']}, "
                                    f"closes {panel.sources['close']}."])


def funnel_section(funnel: Table, entry: Entry) -> Section:
    """What the screen and the admission left of a day; `funnel` has its rows, one a ticker."""
    words = stages_in_words(entry)
    shown = [*STAGES, "admitted", *(r.name.lower() for r in Rejection if r and funnel[r.name.lower()].any())]
    rows = []
    for name in shown:
        label = f"{name}: {words[name].rule}" if name in words else f"  {name}"
        cells = dict(zip(funnel["ticker"].tolist(), map(count, funnel[name]), strict=True))
        rows.append({"": label} | cells | ({"all": count(funnel[name].sum())} if len(cells) > 1 else {}))
    return Section("Funnel: what was left after each rule of entry", rows, [])


def _candidates(told: Day, candidates: Table, exits: Table, panel: Panel, spread: Callable[[int], str],
                max_loss: np.ndarray) -> Section:
    rows = []
    for decision in told.decisions:
        c = decision.candidate
        decided = decision.reason.name.lower()
        if decision.contracts:
            shrunk = f"{decision.contracts} of " if decision.contracts < decision.asked else ""
            decided = shrunk + _plural(decision.asked, "contract")
        rows.append({"": spread(c), "dte": str(candidates["dte"][c]), "delta": f"{candidates['delta'][c]:.3f}",
                     "credit": f"{candidates['credit'][c]:.3f}", "score": f"{candidates['score'][c]:.3f}",
                     "decision": decided, "outcome": _outcome(c, exits, panel), "$ each": f"{exits['pnl'][c]:+,.2f}"})
    title = "Candidates, in the order of admission; the outcome is of one contract, had it been sold"
    return Section(title, rows, _sizes(told, candidates, max_loss, spread))


def _outcome(c: int, exits: Table, panel: Panel) -> str:
    return f"{Exit(exits['reason'][c]).name.lower()} {str(panel.dates[exits['day'][c]])[5:]}"


def _sizes(told: Day, candidates: Table, max_loss: np.ndarray, spread: Callable[[int], str]) -> list[str]:
    """What sizes were asked for, and why less, or nothing, was given; the first candidate of each reason."""
    notes, said = [], set()
    risks = [float(candidates["risk_fraction"][d.candidate]) for d in told.decisions]
    if risks and all(0 < risk < math.inf for risk in risks):
        share, dollars = (" to ".join(dict.fromkeys(map(write, (min(risks), max(risks))))) for write in (
            percent, lambda risk: _money(risk * told.before.equity)))
        notes = [f"A candidate may risk {share} of equity: {dollars}."]
    for d in told.decisions:
        if d.contracts and d.limit:
            notes.append(f"{spread(d.candidate)}: {_plural(d.asked, 'contract')} asked for; {d.limit.name.lower()} "
                         f"leaves room for {_money(d.room)}, a contract risks {_money(max_loss[d.candidate])}.")
        elif not math.isnan(d.room) and d.reason not in said:
            said.add(d.reason)
            what = "the risk fraction allows" if d.reason == Rejection.SIZE_ZERO else "there is room for"
            notes.append(f"{d.reason.name.lower()} of {spread(d.candidate)}: {what} {_money(max(d.room, 0.0))}, "
                         f"a contract risks {_money(max_loss[d.candidate])}.")
    return notes


def _limits(told: Day, panel: Panel, limits: Limits) -> Section:
    def heat(of: Callable[[Book], float], label: str, most: float) -> dict[str, str]:
        before, after = (_share(of(book) / book.equity if book.equity > 0 else math.nan)
                         for book in (told.before, told.after))
        return {"": label, "before": before, "after": after, "most": _share(most)}

    entries = told.after.positions - told.before.positions
    rows = [{"": "max_positions", "before": str(told.before.positions), "after": str(told.after.positions),
             "most": str(limits.max_positions)},
            {"": "max_entries_per_day", "before": "0", "after": str(entries), "most": str(limits.max_entries_per_day)},
            heat(lambda book: book.open_max_loss, "max_heat", limits.max_heat)]
    rows += [heat(lambda book, t=t: book.of_ticker[t], f"max_heat_per_underlying: {ticker}",
                  limits.max_heat_per_underlying) for t, ticker in enumerate(panel.tickers)]
    group = [ticker for ticker in panel.tickers if ticker in limits.group]
    if group:
        rows.append(heat(lambda book: book.of_group, f"max_heat_group: {', '.join(group)}", limits.max_heat_group))
    free = [_money(book.cash - book.open_max_loss) for book in (told.before, told.after)]
    rows.append({"": "no_cash: cash less open maximum loss", "before": free[0], "after": free[1], "most": ""})
    return Section("Limits, before and after the day's admissions; heat is open maximum loss over equity", rows, [])


def _open(told: Day, candidates: Table, panel: Panel, spread: Callable[[int], str], costs: Costs) -> Section:
    rows = []
    for p in told.open:
        c = p.candidate
        gain = p.contracts * (MULTIPLIER * (candidates["credit"][c] - p.mark) - costs.entry)
        left = (candidates["expiry"][c] - panel.dates[told.day]).astype(int)
        rows.append({"": spread(c), "expires": str(candidates["expiry"][c]), "dte": str(left),
                     "opened": str(panel.dates[candidates["day"][c]]), "contracts": str(p.contracts),
                     "credit": f"{candidates['credit'][c]:.3f}", "mark": f"{p.mark:.3f}",
                     "P&L at the mid": f"{gain:+,.2f}", "stale": str(p.age)})
    notes = []
    if any(p.age for p in told.open):
        notes.append("stale: sessions since both legs had a usable quote; the mark is of that day.")
    if told.day == len(panel.dates) - 1 and rows:
        notes.append("The run ends today: what is open is booked at its mark, and is no win or loss (end_of_period).")
    return Section("Open at the end of the day", rows, notes)


def _closed(told: Day, candidates: Table, exits: Table, panel: Panel, spread: Callable[[int], str]) -> Section:
    rows = [{"": spread(p.candidate), "opened": str(panel.dates[candidates["day"][p.candidate]]),
             "contracts": str(p.contracts), "credit": f"{candidates['credit'][p.candidate]:.3f}",
             "cost": f"{exits['cost'][p.candidate]:.3f}", "reason": Exit(exits["reason"][p.candidate]).name.lower(),
             "$ each": f"{exits['pnl'][p.candidate]:+,.2f}", "P&L": f"{p.contracts * exits['pnl'][p.candidate]:+,.2f}"}
            for p in told.closed]
    return Section("Closed today", rows, [])


def _stops(told: Day, breaker: Breaker) -> Section:
    words = {Rejection.BREAKER_DAY: "change since the eve", Rejection.BREAKER_WEEK: "change since last week",
             Rejection.BREAKER_DRAWDOWN: "change from the peak", Rejection.BREAKER_VIX: "VIX"}
    rows = []
    for reason, most in _breakers(breaker).items():
        level = reason == Rejection.BREAKER_VIX
        write = (lambda x: _number(x, ".2f")) if level else (lambda x: _share(-x))
        state = "off" if most is None else "stops admissions" if told.losses[reason] >= most else "inside"
        rows.append({"": f"{reason.name.lower()}: {words[reason]}", "after the exits": write(told.losses[reason]),
                     "stops at": "-" if most is None else write(most), "state": state})
    most = breaker.max_drawdown
    stuck = most is not None and told.losses[Rejection.BREAKER_DRAWDOWN] >= most and not told.open
    return Section("Breakers", rows, ["Nothing is open, so equity stands still below its peak, and this drawdown "
                                      "breaker lets in no trade any more in this run."] * stuck)


def _account(told: Day, panel: Panel) -> Section:
    books = {"eve": told.eve, "after the exits": told.before, "end of the day": told.after}
    rows = [{"": what} | {when: f"{getattr(book, name):,.2f}" for when, book in books.items()}
            for what, name in (("cash", "cash"), ("marks", "marks"), ("equity", "equity"),
                               ("open maximum loss", "open_max_loss"))]
    rows.append({"": "positions"} | {when: str(book.positions) for when, book in books.items()})
    change = told.after.equity - told.eve.equity
    share = f" ({100 * change / told.eve.equity:+.2f} %)" if told.eve.equity > 0 else ""
    return Section("Account, dollars", rows, [f"Equity {change:+,.2f} dollars{share} on {panel.dates[told.day]}."])


def _number(x: float, form: str) -> str:
    """A dash where it is not known."""
    return "-" if math.isnan(x) else f"{x:{form}}"


def _share(x: float) -> str:
    return "-" if math.isnan(x) else percent(x + 0.0)


def _money(x: float) -> str:
    return f"{x:,.2f} dollars"
