"""The literal day loop: slow, plain Python, written from design/domain.md and nothing else.

For each session: mark, exit, breakers, admit, record. It shares no code with the kernels that are held
against it (only the enums of mahler.schema). What follows decides what domain.md leaves open; the code
refers to these numbers.

 1. Effective expiry. A Saturday or Sunday means the last session on or before it, or, beyond the last
    session of the market, the Friday before. DTE is counted to the effective expiry. Expiry fires on the
    last session <= effective expiry, if the effective expiry <= the last session; else the position is
    still open at the end: `end_of_period`.
 2. Deltas and IVs are float32 in the chain and converted with float(). Put delta = delta - 1. The windows
    of |delta| and of DTE include both ends.
 3. A usable quote of a leg: bid and ask finite, bid >= 0, ask > 0, ask >= bid. mid = (bid + ask) / 2, also
    with a zero bid. To enter: both legs usable and the short bid > 0; the long bid may be 0.
 4. Fill: sell = ask - p (ask - bid), buy = bid + p (ask - bid); where bid == 0, sell = 0 and buy = ask.
 5. Liquidity, on both legs and of the leg's own option type: open interest and volume at least their
    floors, (ask - bid) / mid at most its ceiling. min_iv_percentile > 0 blocks where the percentile is
    missing (or NaN); 0 never blocks; the comparison is percentile >= minimum, in fractions.
 6. Credit = sell(short) - buy(long). Cost to close = buy(short) - sell(long); at mid mid(short) -
    mid(long); neither clamped. Triggers compare the mid cost with the credit received at the fill.
    0 < credit < width and credit >= min_credit_to_width * width.
 7. Nothing closes on its entry day, except `end_of_period` on the last session.
 8. Expiry settles at the intrinsic value of the spread at the official close: min(max(Ks - S, 0), width)
    for a put, min(max(S - Ks, 0), width) for a call. No costs if that is 0, else commission on both legs
    and assignment_fee. A missing quote on the expiry day is not stale.
 9. Assigned, short calls: on the last session strictly before an ex-date <= effective expiry, if the
    official close S > Ks and D > P + Ks (1 - exp(-r t)), P the mid of the put of the short call's row, t =
    days to the effective expiry / 365, r the day's rate (0 if absent). Both legs and that put need usable
    quotes. Cost per share = intrinsic of the spread + D; costs: commission on both legs and assignment_fee.
10. Stale: a session after entry, before the exit day (for end_of_period: up to and including the last
    one), on which a leg has no row or no usable quote. The mark is carried, the day counted, and no rule
    but expiry fires.
11. Profit, stop and time pay the fill to close and commission on both legs. end_of_period closes at the
    last mark (mid, carried if stale), without costs.
12. P&L per contract = 100 (credit - exit cost) - 2 commissions - exit costs.
13. Maximum loss per contract = 100 (width - credit) + 4 commissions. Open maximum loss: x contracts.
14. Marks and exits first; equity = cash + marks after them is what the breakers look at, all day. Day loss
    is against yesterday's recorded equity; week loss against the last equity recorded in an earlier ISO
    week; both against the initial equity where there is none yet. Drawdown is from the highest of initial,
    recorded and today's equity. VIX is today's; missing never breaks. Reaching the limit trips it.
15. Candidates of a day, all tickers: score descending, then ticker, expiry, short strike, side (put before
    call), width. per_day keeps the first of each (ticker, side, day) in that order, before admission.
16. Size and heat use current equity: after each admission cash has the credit and lost the commissions,
    marks have the mid credit.
17. risk_fraction = fraction x multiplier; 0 is `vetoed`. n0 = floor(risk_fraction * equity / max loss +
    1e-9); with fixed_contracts n0 = floor(lots * multiplier + 1e-9) and a multiplier of 0 is `vetoed`.
    max_contracts > 0 caps n0. n0 = 0 is `size_zero`, and breaches no heat limit. Else n shrinks to
    floor(room + 1e-9) of max_heat, then max_heat_per_underlying, then (a ticker of the group)
    max_heat_group; the first that leaves less than 1 is the reason.
18. no_cash: n * max loss > cash - open maximum loss of the open positions (beyond 1e-9 relative).
19. already_open: ticker, side, effective expiry, short and long strike are those of an open position.
20. Heat recorded = open maximum loss / equity at the end of the day.

And, silent in both, decided here:

21. end_of_period closes after the admissions of the last session and before it is recorded: so a history
    truncated at t admits on t what the whole history admits, and the last account row is flat.
22. EV per dollar of maximum loss is per share, without commission: EV / (width - credit). `max_loss` of a
    candidate is width - credit in dollars per share.
23. A weekday expiry that is no session is kept as printed (1 speaks of weekends only).
24. A spread with its expiry session on or before its entry day (DTE 0, or the eve of a closed expiry day)
    can never expire: ValueError, not a guess.
25. The funnel counts chain rows in the DTE window, then (row, side) as short legs in the delta window,
    then (row, side, width) from the long leg on; `liquid` includes the usable quotes; `ranked` is what
    per_day keeps.
26. Rows on a date that is no session are ignored. Two rows of the same ticker, date, effective expiry and
    strike are an error. Strikes are equal when they round to the same thousandth. Flags are not read: 3
    already refuses a crossed side. A missing official close is a KeyError where it is needed.
27. 9 is taken by its letter at the end of the market too: the last session is the eve of every ex-date after
    it (and <= the effective expiry), however far off. Give dividends only as far as the session after the
    last one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from mahler.schema import MULTIPLIER, Exit, Rejection, Side

TINY = 1e-9


@dataclass(frozen=True)
class Rules:
    # What is sold
    side: str = "both"                          # put, call, both
    min_delta: float = 0.05
    max_delta: float = 0.15
    widths: tuple[float, ...] = (5.0,)
    min_dte: int = 30
    max_dte: int = 45
    min_open_interest: int = 0
    min_volume: int = 0
    max_relative_spread: float = math.inf       # (ask - bid) / mid, each leg
    min_credit_to_width: float = 0.03
    min_iv_percentile: float = 0.0              # 0 to 1
    per_day: int = 5                            # of each ticker, side and day
    # How it ends
    profit_target: float = 0.65
    stop_loss: float = 1.25
    exit_dte: int = 21
    # What it costs
    travel: float = 0.66                        # p, the share of the quoted spread that a fill travels
    commission: float = 1.0                     # dollars per contract per leg
    assignment_fee: float = 0.0                 # dollars per contract
    # How much
    fraction: float = 0.02
    fixed_contracts: int | None = None          # None: size by fraction
    # Limits
    max_positions: int = 5
    max_heat: float = 0.20
    max_heat_per_underlying: float = 0.15
    max_heat_group: float = 0.50
    max_entries_per_day: int = 3
    group: tuple[str, ...] = ("SPY", "QQQ", "IWM")
    # Breakers; None is off
    max_day_loss: float | None = None
    max_week_loss: float | None = None
    max_drawdown: float | None = None
    max_vix: float | None = None
    initial_equity: float = 100_000.0


@dataclass(frozen=True)
class Market:
    sessions: Sequence[date]
    rows: Sequence[Any]                         # schema.CHAIN and ticker: mappings, structured rows or named tuples
    close: Mapping[tuple[str, date], float]     # official
    vix: Mapping[date, float] = field(default_factory=dict)
    iv_percentile: Mapping[tuple[str, date], float] = field(default_factory=dict)
    multiplier: Mapping[tuple[str, date], float] = field(default_factory=dict)
    max_contracts: Callable[[str, date], int] | Mapping[tuple[str, date], int] = field(default_factory=dict)
    dividends: Mapping[str, Sequence[tuple[date, float]]] = field(default_factory=dict)
    rate: Mapping[date, float] = field(default_factory=dict)


@dataclass
class Candidate:
    date: date
    ticker: str
    side: Side
    expiry: date                                # effective
    short_strike: float
    long_strike: float
    width: float
    delta: float                                # |delta| of the short leg
    dte: int
    credit: float                               # dollars per share, at the fill
    mid_credit: float
    max_loss: float                             # dollars per share: width - credit
    score: float
    # What became of it
    contracts: int = 0
    reason: Rejection = Rejection.ADMITTED
    # How it ended, or would have
    exit_date: date | None = None
    exit_reason: Exit | None = None
    exit_cost: float = math.nan                 # dollars per share paid to close
    exit_mid: float = math.nan                  # the same without slippage
    exit_costs: float = math.nan                # commission and fee, dollars per contract
    stale_marks: int = 0
    pnl_per_contract: float = math.nan


@dataclass(frozen=True)
class Trade:
    candidate: Candidate
    contracts: int
    pnl: float                                  # dollars: the cash that came in less the cash that went out


@dataclass(frozen=True)
class AccountRow:
    date: date
    cash: float
    marks: float
    equity: float
    open_max_loss: float
    heat: float
    positions: int
    entries: int
    exits: int


@dataclass
class Funnel:
    in_dte_window: int = 0
    in_delta_window: int = 0
    with_long_leg: int = 0
    liquid: int = 0
    enough_credit: int = 0
    past_iv_filter: int = 0
    ranked: int = 0


@dataclass(frozen=True)
class Result:
    candidates: list[Candidate]                 # by day, in the order of admission
    trades: list[Trade]                         # in the order of closing
    account: list[AccountRow]                   # one per session
    funnel: dict[date, Funnel]                  # one per session, over all tickers
    funnel_by_ticker: dict[tuple[date, str], Funnel]


@dataclass(eq=False)
class Position:
    candidate: Candidate
    contracts: int
    mark: float                                 # mid cost to close, dollars per share
    stale_marks: int = 0
    received: float = 0.0                       # dollars at entry, net of commission


class Closing(NamedTuple):
    date: date
    reason: Exit
    cost: float                                 # dollars per share
    mid: float                                  # dollars per share, without slippage
    costs: float                                # dollars per contract


# ---------------------------------------------------------------------------------------------------------
# Quotes and fills
# ---------------------------------------------------------------------------------------------------------

class Leg(NamedTuple):
    """One option of a chain row."""

    bid: float
    ask: float
    volume: int
    open_interest: int

    @property
    def usable(self) -> bool:
        return math.isfinite(self.bid) and math.isfinite(self.ask) and 0 <= self.bid <= self.ask and self.ask > 0

    @property
    def mid(self) -> float:
        return (self.bid + self.ask) / 2

    def sell(self, travel: float) -> float:
        if self.bid == 0:
            return 0.0
        return self.ask - travel * (self.ask - self.bid)

    def buy(self, travel: float) -> float:
        if self.bid == 0:
            return self.ask
        return self.bid + travel * (self.ask - self.bid)


class Row(NamedTuple):
    """One (expiry, strike) of a day's chain."""

    expiry: date                                # effective
    strike: float
    call_delta: float
    call: Leg
    put: Leg

    def leg(self, side: Side) -> Leg:
        return self.put if side == Side.PUT else self.call

    def delta(self, side: Side) -> float:
        return self.call_delta - 1.0 if side == Side.PUT else self.call_delta


def as_date(value: Any) -> date:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[D]").astype(object)
    if isinstance(value, datetime):
        return value.date()
    return value


def strike_key(strike: float) -> float:
    return round(strike, 3)


def intrinsic(side: Side, short_strike: float, width: float, close: float) -> float:
    """Value of the spread at expiry, dollars per share."""
    in_the_money = short_strike - close if side == Side.PUT else close - short_strike
    return min(max(in_the_money, 0.0), width)


# ---------------------------------------------------------------------------------------------------------
# The market, looked up
# ---------------------------------------------------------------------------------------------------------

class Book:
    """The rows of a market by ticker, day, expiry and strike; and its calendar."""

    def __init__(self, market: Market):
        self.market = market
        self.sessions = [as_date(session) for session in market.sessions]
        if not self.sessions or any(a >= b for a, b in zip(self.sessions, self.sessions[1:])):
            raise ValueError("sessions are not in order")
        self.last_session = self.sessions[-1]
        known, expiries = set(self.sessions), {}
        self.chains: dict[tuple[str, date], dict[tuple[date, float], Row]] = {}
        for raw in market.rows:
            get = raw.__getitem__ if isinstance(raw, (Mapping, np.void)) else raw.__getattribute__
            day, ticker, printed = as_date(get("date")), str(get("ticker")), as_date(get("expiry"))
            if day not in known:
                continue
            if printed not in expiries:
                expiries[printed] = self.effective_expiry(printed)
            row = Row(
                expiry=expiries[printed],
                strike=float(get("strike")),
                call_delta=float(get("delta")),
                call=Leg(float(get("call_bid")), float(get("call_ask")),
                         int(get("call_volume")), int(get("call_open_interest"))),
                put=Leg(float(get("put_bid")), float(get("put_ask")),
                        int(get("put_volume")), int(get("put_open_interest"))),
            )
            chain = self.chains.setdefault((ticker, day), {})
            key = row.expiry, strike_key(row.strike)
            if key in chain:
                raise ValueError(f"two rows of {ticker} on {day}, expiry {row.expiry}, strike {row.strike}")
            chain[key] = row
        self.tickers = sorted({ticker for ticker, _ in self.chains})

    def last_session_on_or_before(self, day: date) -> date | None:
        i = bisect_right(self.sessions, day)
        return self.sessions[i - 1] if i > 0 else None

    def last_session_before(self, day: date) -> date | None:
        i = bisect_left(self.sessions, day)
        return self.sessions[i - 1] if i > 0 else None

    def effective_expiry(self, printed: date) -> date:
        if printed.weekday() < 5:
            return printed
        friday = printed - timedelta(days=printed.weekday() - 4)
        if printed > self.last_session:
            return friday
        return self.last_session_on_or_before(printed) or friday

    def expiry_session(self, expiry: date) -> date | None:
        """The session on which `expiry` fires; None if that is after the market's end."""
        if expiry > self.last_session:
            return None
        return self.last_session_on_or_before(expiry)

    def row(self, ticker: str, day: date, expiry: date, strike: float) -> Row | None:
        return self.chains.get((ticker, day), {}).get((expiry, strike_key(strike)))

    def close(self, ticker: str, day: date) -> float:
        return float(self.market.close[ticker, day])

    def vix(self, day: date) -> float:
        return float(self.market.vix.get(day, math.nan))

    def iv_percentile(self, ticker: str, day: date) -> float:
        return float(self.market.iv_percentile.get((ticker, day), math.nan))

    def multiplier(self, ticker: str, day: date) -> float:
        return float(self.market.multiplier.get((ticker, day), 1.0))

    def max_contracts(self, ticker: str, day: date) -> int:
        cap = self.market.max_contracts
        return int(cap(ticker, day) or 0) if callable(cap) else int(cap.get((ticker, day), 0))

    def rate(self, day: date) -> float:
        rate = float(self.market.rate.get(day, 0.0))
        return 0.0 if math.isnan(rate) else rate

    def dividends_on_the_eve(self, ticker: str, day: date, expiry: date) -> list[float]:
        """Dividends for which `day` is the last session before the ex-date, and which go ex by `expiry`."""
        return [
            float(amount)
            for ex_date, amount in self.market.dividends.get(ticker, ())
            if as_date(ex_date) <= expiry and self.last_session_before(as_date(ex_date)) == day
        ]


# ---------------------------------------------------------------------------------------------------------
# The screen: what could be sold today
# ---------------------------------------------------------------------------------------------------------

def order(candidate: Candidate) -> tuple:
    c = candidate
    return -c.score, c.ticker, c.expiry, c.short_strike, c.side, c.width


def liquid(leg: Leg, rules: Rules) -> bool:
    return (
        leg.open_interest >= rules.min_open_interest
        and leg.volume >= rules.min_volume
        and (leg.ask - leg.bid) / leg.mid <= rules.max_relative_spread
    )


def screen(book: Book, rules: Rules, ticker: str, day: date) -> tuple[list[Candidate], Funnel]:
    """Today's candidates of one ticker, the best per_day of each side, in order."""
    sides = {"put": [Side.PUT], "call": [Side.CALL], "both": [Side.PUT, Side.CALL]}[rules.side]
    percentile = book.iv_percentile(ticker, day)
    funnel = Funnel()
    found: list[Candidate] = []
    for row in book.chains.get((ticker, day), {}).values():
        dte = (row.expiry - day).days
        if not rules.min_dte <= dte <= rules.max_dte:
            continue
        funnel.in_dte_window += 1
        for side in sides:
            delta = abs(row.delta(side))
            if not rules.min_delta <= delta <= rules.max_delta:         # NaN is in no window
                continue
            funnel.in_delta_window += 1
            for width in rules.widths:
                width = float(width)
                long_strike = row.strike - width if side == Side.PUT else row.strike + width
                long_row = book.row(ticker, day, row.expiry, long_strike)
                if long_row is None:
                    continue
                funnel.with_long_leg += 1

                short, long = row.leg(side), long_row.leg(side)
                if not (short.usable and long.usable and short.bid > 0):
                    continue
                if not (liquid(short, rules) and liquid(long, rules)):
                    continue
                funnel.liquid += 1

                credit = short.sell(rules.travel) - long.buy(rules.travel)
                if not (0 < credit < width and credit >= rules.min_credit_to_width * width):
                    continue
                funnel.enough_credit += 1

                if rules.min_iv_percentile > 0 and not percentile >= rules.min_iv_percentile:   # NaN blocks
                    continue
                funnel.past_iv_filter += 1

                expiry_session = book.expiry_session(row.expiry)
                if expiry_session is not None and expiry_session <= day:
                    raise ValueError(f"{ticker} {row.expiry} has no session to expire on after its entry on {day}")
                max_loss = width - credit
                expected_value = credit * (1 - delta) - max_loss * delta
                found.append(Candidate(
                    date=day, ticker=ticker, side=side, expiry=row.expiry,
                    short_strike=row.strike, long_strike=long_row.strike, width=width, delta=delta, dte=dte,
                    credit=credit, mid_credit=short.mid - long.mid, max_loss=max_loss,
                    score=expected_value / max_loss,
                ))
    found.sort(key=order)
    kept: list[Candidate] = []
    for candidate in found:
        if sum(other.side == candidate.side for other in kept) < rules.per_day:
            kept.append(candidate)
    funnel.ranked = len(kept)
    return kept, funnel


# ---------------------------------------------------------------------------------------------------------
# One position, one session
# ---------------------------------------------------------------------------------------------------------

def step(book: Book, rules: Rules, position: Position, day: date) -> Closing | None:
    """Mark `position` on `day`, a session after its entry, and say whether and how it closes.

    The rules are examined in the order of domain.md; end_of_period is none of them.
    """
    c = position.candidate
    both_legs = 2 * rules.commission

    # 1. expiry: needs no quote
    if day == book.expiry_session(c.expiry):
        value = intrinsic(c.side, c.short_strike, c.width, book.close(c.ticker, day))
        costs = 0.0 if value == 0 else both_legs + rules.assignment_fee
        return Closing(day, Exit.EXPIRY, value, value, costs)

    short_row = book.row(c.ticker, day, c.expiry, c.short_strike)
    long_row = book.row(c.ticker, day, c.expiry, c.long_strike)
    if (
        short_row is None or long_row is None
        or not short_row.leg(c.side).usable or not long_row.leg(c.side).usable
    ):
        position.stale_marks += 1
        return None

    short, long = short_row.leg(c.side), long_row.leg(c.side)
    mid_cost = short.mid - long.mid
    fill_cost = short.buy(rules.travel) - long.sell(rules.travel)
    position.mark = mid_cost

    # 2. assigned
    if c.side == Side.CALL and short_row.put.usable:
        for dividend in book.dividends_on_the_eve(c.ticker, day, c.expiry):
            close = book.close(c.ticker, day)
            years = (c.expiry - day).days / 365
            interest = c.short_strike * (1 - math.exp(-book.rate(day) * years))
            if close > c.short_strike and dividend > short_row.put.mid + interest:
                value = intrinsic(c.side, c.short_strike, c.width, close) + dividend
                return Closing(day, Exit.ASSIGNED, value, value, both_legs + rules.assignment_fee)

    # 3. profit target
    if mid_cost <= (1 - rules.profit_target) * c.credit:
        return Closing(day, Exit.PROFIT_TARGET, fill_cost, mid_cost, both_legs)

    # 4. stop loss
    if mid_cost - c.credit >= rules.stop_loss * c.credit:
        return Closing(day, Exit.STOP_LOSS, fill_cost, mid_cost, both_legs)

    # 5. time
    if (c.expiry - day).days <= rules.exit_dte:
        return Closing(day, Exit.TIME, fill_cost, mid_cost, both_legs)

    return None


def end_of_period(position: Position, day: date) -> Closing:
    return Closing(day, Exit.END_OF_PERIOD, position.mark, position.mark, 0.0)


def note_exit(rules: Rules, position: Position, closing: Closing) -> None:
    """Write onto the candidate how it ended."""
    c = position.candidate
    c.exit_date = closing.date
    c.exit_reason = closing.reason
    c.exit_cost = closing.cost
    c.exit_mid = closing.mid
    c.exit_costs = closing.costs
    c.stale_marks = position.stale_marks
    c.pnl_per_contract = MULTIPLIER * (c.credit - closing.cost) - 2 * rules.commission - closing.costs


def would_be_exit(book: Book, rules: Rules, candidate: Candidate) -> tuple[Position, Closing]:
    """Run one position, alone, from the session after its entry to its exit."""
    position = Position(candidate, 1, candidate.mid_credit)
    for day in book.sessions:
        if day <= candidate.date:
            continue
        closing = step(book, rules, position, day)
        if closing is not None:
            return position, closing
    return position, end_of_period(position, book.last_session)


# ---------------------------------------------------------------------------------------------------------
# The portfolio
# ---------------------------------------------------------------------------------------------------------

def max_loss_per_contract(rules: Rules, candidate: Candidate) -> float:
    """Dollars, commissions of the round trip included."""
    return MULTIPLIER * (candidate.width - candidate.credit) + 4 * rules.commission


class Account:
    """Cash, open positions and what was recorded of them."""

    def __init__(self, book: Book, rules: Rules):
        self.book = book
        self.rules = rules
        self.cash = float(rules.initial_equity)
        self.open: list[Position] = []
        self.rows: list[AccountRow] = []
        self.trades: list[Trade] = []

    @property
    def marks(self) -> float:
        return sum(-MULTIPLIER * p.mark * p.contracts for p in self.open)

    @property
    def equity(self) -> float:
        return self.cash + self.marks

    def open_max_loss(self, tickers: Sequence[str] | None = None) -> float:
        return sum(
            p.contracts * max_loss_per_contract(self.rules, p.candidate)
            for p in self.open
            if tickers is None or p.candidate.ticker in tickers
        )

    def enter(self, candidate: Candidate, contracts: int) -> None:
        received = contracts * (MULTIPLIER * candidate.credit - 2 * self.rules.commission)
        self.cash += received
        self.open.append(Position(candidate, contracts, candidate.mid_credit, received=received))

    def leave(self, position: Position, closing: Closing) -> None:
        paid = position.contracts * (MULTIPLIER * closing.cost + closing.costs)
        self.cash -= paid
        self.open.remove(position)
        note_exit(self.rules, position, closing)
        self.trades.append(Trade(position.candidate, position.contracts, position.received - paid))

    def breaker(self, day: date) -> Rejection | None:
        """The breaker that is in force today, looking at equity after the day's exits."""
        rules, equity = self.rules, self.equity

        yesterday = self.rows[-1].equity if self.rows else rules.initial_equity
        if rules.max_day_loss is not None and (yesterday - equity) / yesterday >= rules.max_day_loss:
            return Rejection.BREAKER_DAY

        last_week = rules.initial_equity
        for row in self.rows:
            if row.date.isocalendar()[:2] != day.isocalendar()[:2]:
                last_week = row.equity
        if rules.max_week_loss is not None and (last_week - equity) / last_week >= rules.max_week_loss:
            return Rejection.BREAKER_WEEK

        peak = max([rules.initial_equity, equity] + [row.equity for row in self.rows])
        if rules.max_drawdown is not None and (peak - equity) / peak >= rules.max_drawdown:
            return Rejection.BREAKER_DRAWDOWN

        if rules.max_vix is not None and self.book.vix(day) >= rules.max_vix:       # NaN never breaks
            return Rejection.BREAKER_VIX
        return None

    def decide(self, c: Candidate, breaker: Rejection | None, entries: int) -> tuple[int, Rejection]:
        """Contracts to sell of a candidate, or 0 and the first reason that applies."""
        rules = self.rules
        multiplier = self.book.multiplier(c.ticker, c.date)
        risk_fraction = rules.fraction * multiplier
        if (multiplier if rules.fixed_contracts is not None else risk_fraction) <= 0:
            return 0, Rejection.VETOED

        for p in self.open:
            o = p.candidate
            if (o.ticker, o.side, o.expiry, o.short_strike, o.long_strike) == (
                    c.ticker, c.side, c.expiry, c.short_strike, c.long_strike):
                return 0, Rejection.ALREADY_OPEN

        if breaker is not None:
            return 0, breaker
        if len(self.open) >= rules.max_positions:
            return 0, Rejection.MAX_POSITIONS
        if entries >= rules.max_entries_per_day:
            return 0, Rejection.MAX_ENTRIES_PER_DAY

        equity, loss = self.equity, max_loss_per_contract(rules, c)
        if rules.fixed_contracts is not None:
            n = math.floor(rules.fixed_contracts * multiplier + TINY)
        else:
            n = math.floor(risk_fraction * equity / loss + TINY)
        cap = self.book.max_contracts(c.ticker, c.date)
        if cap > 0:
            n = min(n, cap)
        if n <= 0:
            return 0, Rejection.SIZE_ZERO

        heats = [
            (rules.max_heat, self.open_max_loss(), Rejection.MAX_HEAT),
            (rules.max_heat_per_underlying, self.open_max_loss([c.ticker]), Rejection.MAX_HEAT_PER_UNDERLYING),
        ]
        if c.ticker in rules.group:
            heats.append((rules.max_heat_group, self.open_max_loss(rules.group), Rejection.MAX_HEAT_GROUP))
        for limit, already, reason in heats:
            n = min(n, math.floor((limit * equity - already) / loss + TINY))
            if n < 1:
                return 0, reason

        buying_power = self.cash - self.open_max_loss()
        if n * loss > buying_power and not math.isclose(n * loss, buying_power, rel_tol=TINY):
            return 0, Rejection.NO_CASH
        return n, Rejection.ADMITTED

    def record(self, day: date, entries: int, exits: int) -> None:
        equity, open_max_loss = self.equity, self.open_max_loss()
        self.rows.append(AccountRow(
            date=day, cash=self.cash, marks=self.marks, equity=equity, open_max_loss=open_max_loss,
            heat=open_max_loss / equity, positions=len(self.open), entries=entries, exits=exits,
        ))


def run(market: Market, rules: Rules) -> Result:
    book = Book(market)
    account = Account(book, rules)
    candidates: list[Candidate] = []
    funnel: dict[date, Funnel] = {}
    funnel_by_ticker: dict[tuple[date, str], Funnel] = {}

    for day in book.sessions:
        closed_before = len(account.trades)

        # mark, settle and exit: every open position was entered on an earlier session
        for position in list(account.open):
            closing = step(book, rules, position, day)
            if closing is not None:
                account.leave(position, closing)

        # breakers
        breaker = account.breaker(day)

        # admit
        today: list[Candidate] = []
        funnel[day] = Funnel()
        for ticker in book.tickers:
            found, counts = screen(book, rules, ticker, day)
            today += found
            funnel_by_ticker[day, ticker] = counts
            for name, count in vars(counts).items():
                setattr(funnel[day], name, getattr(funnel[day], name) + count)
        today.sort(key=order)
        entries = 0
        for candidate in today:
            candidate.contracts, candidate.reason = account.decide(candidate, breaker, entries)
            if candidate.contracts > 0:
                account.enter(candidate, candidate.contracts)
                entries += 1
            else:
                note_exit(rules, *would_be_exit(book, rules, candidate))
        candidates += today

        # the end of the period
        if day == book.last_session:
            for position in list(account.open):
                account.leave(position, end_of_period(position, day))

        # record
        account.record(day, entries, len(account.trades) - closed_before)

    return Result(candidates, account.trades, account.rows, funnel, funnel_by_ticker)
