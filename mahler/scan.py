"""The production config on one session: what to close, what to open, and why nothing else.

The candidates are the screen's, their sizes the sizing rule's, their admission the kernel's, as in a backtest; only the
book at the start of the session is not of a walk but of the paper ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mahler import schema
from mahler.data.store import Chains
from mahler.exits import Costs, ExitRule, first_exits, max_loss_per_contract, unreachable_stops
from mahler.fills import Fill
from mahler.ledger import Ledger
from mahler.llm import loop
from mahler.llm.decided import SAID
from mahler.llm.loop import Decide
from mahler.llm.records import entry
from mahler.paper import occ, records
from mahler.paper.account import Account, account
from mahler.panel import Panel
from mahler.paths import Paths, trace
from mahler.schema import MULTIPLIER, ConfigError, Exit, Regime, Rejection, Side, Table, empty
from mahler.screen import identity
from mahler.simulate import Book, Breaker, Limits, funnel_of, walk
from mahler.sizing import scaled
from mahler.stages import Prepared


@dataclass(frozen=True)
class Heat:
    """An account at one moment of the session; dollars."""

    equity: float
    cash: float
    open_max_loss: float
    positions: int

    @property
    def heat(self) -> float:
        """Open maximum loss over equity."""
        return self.open_max_loss / self.equity


@dataclass(frozen=True)
class Scan:
    """What a session comes to. The tables have the columns of mahler.schema that their names say."""

    date: np.datetime64
    tickets: Table               # TICKET, closes before opens
    quotes: Table                # QUOTE, of the legs of the tickets
    marks: Table                 # MARK, of what was open, up to and with the session
    scanned: Table               # SCANNED, in the order of admission
    funnel: Table                # FUNNEL
    decisions: Table             # DECIDED, of what an LLM layer was asked about; no row without one
    before: Heat                 # with the marks of the session, before any ticket is filled
    after: Heat                  # with every ticket filled as modelled
    notes: list[str]


def scan(day: int, prepared: Prepared, sized: Table, tables: Mapping[str, Table], *, rule: ExitRule, fill: Fill,
         limits: Limits, breaker: Breaker, costs: Costs, stage: str, size_multiplier: float, config: str,
         decide: Decide | None = None) -> Scan:
    """Scan session `day`, an index into the sessions of `prepared`, of which later ones are not looked at.

    Parameters
    ----------
    sized
        stages.sized of `prepared`.
    tables
        Those of account.OF_AN_ACCOUNT, of the paper ledger.
    stage, size_multiplier
        The stage of the account, and what it multiplies the size of every trade by.
    config
        Digest of the production config, for the tickets.
    decide
        The LLM layer: no candidate becomes a ticket that it has not approved. None is off.

    Raises
    ------
    ConfigError
        Where a position of the ledger is of another universe, has no rows in the chain, or has expired and is still
        open.
    """
    panel, chains = _until(day, prepared.panel), prepared.chains
    date, tickets = panel.dates[day], tables["tickets"]
    start = account(dict(tables), date)
    held = _held(start.positions, tickets, chains, panel)
    paths = trace(held, chains, prepared.panel, fill)
    exits = _exits_now(day, held, start.positions, paths, rule, costs, panel.dates)
    marks = _marks(day, held, start.positions, paths, panel.dates)
    start = account({**tables, "marks": _with(tables["marks"], marks)}, date)

    today = slice(*np.searchsorted(sized["day"], [day, day + 1]))
    candidates = {name: column[today] for name, column in sized.items()}
    candidates |= scaled(candidates, size_multiplier)

    def admit(among: Table) -> tuple:
        return _admit(day, held, among, paths, exits, start, panel, limits, breaker, costs)

    candidates, decisions = _judged(candidates, admit, decide, panel) if decide else (candidates, empty(schema.DECIDED))
    contracts, reasons, cash, owed, at_risk, positions = admit(candidates)
    closing = np.flatnonzero((exits["day"] == day) & (exits["reason"] != Exit.END_OF_PERIOD))
    opening = np.flatnonzero(contracts)
    of_all = {"date": date, "stage": stage, "size_multiplier": size_multiplier, "config": config,
              "vix": panel.vix[day, 0]}
    rows = [of_all | _close(int(i), day, start.positions, tickets, exits, panel) for i in closing]
    rows += [of_all | _open(int(i), candidates, int(contracts[i]), rule, costs, panel, date) for i in opening]
    told = _table(schema.TICKET, rows)
    now = marks["date"] == date
    mark_now = dict(zip(marks["position"][now].tolist(), marks["mid"][now].tolist(), strict=True))
    equity = start.cash - sum(MULTIPLIER * n * mark_now[p] for p, n in zip(
        start.positions["position"].tolist(), start.positions["contracts"].tolist(), strict=True))
    return Scan(
        date, told, _quotes(day, told, chains, date), marks, _scanned(candidates, contracts, reasons, panel),
        funnel_of({stage: counts[:day + 1] for stage, counts in prepared.found.funnel.items()}, candidates, panel,
                  reasons, day),
        decisions, Heat(equity, start.cash, start.open_max_loss, len(held["day"])), Heat(cash + owed, cash, at_risk, positions),
        _notes(date, start.positions, exits, marks, candidates, opening, tables, rule) + _undecided(decisions))


def _until(day: int, panel: Panel) -> Panel:
    """The panel as it was at the end of session `day`, for what asks for its sessions, its VIX and its tickers."""
    return replace(panel, dates=panel.dates[:day + 1], vix=panel.vix[:day + 1])


def _table(dtype: np.dtype, rows: list[dict[str, Any]]) -> Table:
    """Rows as a table; what a row has not is missing."""
    table, missing = empty(dtype, len(rows)), {"f": np.nan, "M": np.datetime64("NaT"), "O": ""}
    for k, row in enumerate(rows):
        for name in dtype.names:
            table[name][k] = row.get(name, missing.get(dtype[name].kind, 0))
    return table


def _with(table: Table, more: Table) -> Table:
    return {name: np.concatenate([table[name], more[name]]) for name in table}


# ---- what is held ----------------------------------------------------------------------------------------------------

def _held(positions: Table, tickets: Table, chains: Chains, panel: Panel) -> Table:
    """The open positions as candidates of the day of their ticket, with the credit that was received."""
    n, row_of = len(positions["position"]), {t: i for i, t in enumerate(tickets["ticket_id"].tolist())}
    held = empty(schema.CANDIDATE, n)
    for k in range(n):
        name, ticker = positions["position"][k], positions["ticker"][k]
        if ticker not in chains.tickers:
            raise ConfigError(f"position {name} is of {ticker}, and the production config trades "
                              f"{', '.join(chains.tickers)}: close it by hand and import the fill")
        t, side = row_of[name], Side[positions["side"][k].upper()]
        day = int(np.searchsorted(panel.dates, tickets["date"][t]))
        rows = [_row(chains, ticker, positions["expiration"][k], positions[leg][k], day)
                for leg in ("short_strike", "long_strike")] if day < len(panel.dates) else [-1, -1]
        if min(rows) < 0 or panel.dates[day] != tickets["date"][t]:
            raise ConfigError(f"position {name}: the chains have no row of it on {tickets['date'][t]}, when its ticket "
                              "was written: was the store changed since?")
        values = {"day": day, "ticker": chains.tickers.index(ticker), "side": side,
                  "expiry": positions["expiration"][k], "dte": tickets["dte"][t], "credit": positions["credit"][k],
                  "mid_credit": tickets["mid"][t], "max_loss": positions["width"][k] - positions["credit"][k],
                  "delta": tickets["delta"][t], "score": tickets["entry_score"][t],
                  "underlying": tickets["underlying_price"][t], "short_row": rows[0], "long_row": rows[1]}
        values |= {column: positions[column][k] for column in ("short_strike", "long_strike", "width")}
        for column, value in values.items():
            held[column][k] = value
    return held


def _row(chains: Chains, ticker: str, expiry: np.datetime64, strike: float, day: int) -> int:
    """The row of a contract on a session in the chain of its ticker; -1 where there is none."""
    chain = chains[ticker]
    at = np.flatnonzero((chain.contract_expiry == expiry) & (np.abs(chain.contract_strike - strike) < 1e-6))
    if len(at) == 0:
        return -1
    first, end = chain.contract_start[at[0]], chain.contract_start[at[0] + 1]
    row = first + np.searchsorted(chain.day[first:end], day)
    return int(row) if row < end and chain.day[row] == day else -1


def _exits_now(day: int, held: Table, positions: Table, paths: Paths, rule: ExitRule, costs: Costs,
               dates: np.ndarray) -> Table:
    """How each position ends, as schema.EXIT; what should have ended before and has not ends today, where it can.

    An assignment that was due before `day` did not happen, since the position is there.
    """
    assigned = np.where(paths.assigned_day < day, -1, paths.assigned_day).astype(np.int32)
    exits = first_exits(held, replace(paths, assigned_day=assigned), rule, costs, dates)
    for k in np.flatnonzero(exits["day"] < day):
        if exits["reason"][k] == Exit.EXPIRY:
            raise ConfigError(f"position {positions['position'][k]} expired on {dates[exits['day'][k]]} and is open in "
                              "the paper ledger: import its expiration or assignment first")
        now = paths.start[k] + day - held["day"][k]
        quoted = not np.isnan(paths.close[now])
        exits["day"][k] = day if quoted else day + 1
        exits["cost"][k], exits["mid"][k] = paths.close[now], paths.mid[now]
        exits["costs"][k] = 2.0 * costs.commission
    return exits


def _marks(day: int, held: Table, positions: Table, paths: Paths, dates: np.ndarray) -> Table:
    """The mids of each position from the day after its ticket to `day`, carried where there was no quote: schema.MARK."""
    rows = []
    for k, name in enumerate(positions["position"].tolist()):
        mid, age = float(held["mid_credit"][k]), 0
        for d in range(int(held["day"][k]) + 1, day + 1):
            now = paths.mid[paths.start[k] + d - held["day"][k]]
            mid, age = (mid, age + 1) if np.isnan(now) else (float(now), 0)
            rows.append({"position": name, "date": dates[d], "mid": mid, "age": age})
    return _table(schema.MARK, rows)


def _admit(day: int, held: Table, candidates: Table, paths: Paths, exits: Table, start: Account, panel: Panel,
           limits: Limits, breaker: Breaker, costs: Costs) -> tuple:
    """The kernel on one session: contracts and reasons of the candidates (n,), and the account at its end."""
    k, n = len(held["day"]), len(candidates["day"])
    both = {name: np.concatenate([held[name], candidates[name]]) for name in schema.CANDIDATE.names}
    both |= {"spread_id": identity(both), "risk_fraction": np.concatenate([np.ones(k), candidates["risk_fraction"]]),
             "max_contracts": np.concatenate([np.zeros(k, np.int32), candidates["max_contracts"]]).astype(np.int32)}
    # A candidate is not looked at again on the day that admits it: its path and its exit are never read.
    later = {"day": np.full(n, day + 1), "reason": np.zeros(n), "cost": np.zeros(n), "costs": np.zeros(n)}
    ends = {name: np.concatenate([exits[name], column]).astype(schema.EXIT[name]) for name, column in later.items()}
    walked = replace(paths, start=np.concatenate([paths.start, np.full(n, paths.start[-1])]))
    book = Book(np.arange(k), start.positions["contracts"], start.positions["mark"], start.cash, start.yesterday,
                start.last_week(panel.dates[day]), start.peak)
    contracts, reasons, cash, marks, at_risk, positions, *_ = walk(
        both, walked, ends, panel, limits, breaker, costs, initial_equity=start.initial_equity, first_day=day, book=book)
    return contracts[k:], reasons[k:], cash[day], marks[day], at_risk[day], int(positions[day])


# ---- what an LLM layer is asked --------------------------------------------------------------------------------------

def _judged(candidates: Table, admit: Callable[[Table], tuple], decide: Decide, panel: Panel) -> tuple[Table, Table]:
    """The candidates with the vetoes and the caps of a layer, and what it said of each that it was asked: schema.DECIDED.

    A candidate that is admitted is asked about, one that is vetoed makes room, until all that are admitted are approved.
    """
    ended = loop.judge(candidates, lambda among: _admitted(among, admit(among)[0], panel),
                       lambda trades: decide([entry(trade) for trade in trades]))        # nothing else of them is known yet
    return ended.candidates, _table(schema.DECIDED, [
        _named(int(i), candidates, panel) | {name: ended.decisions[name][k] for name in SAID}
        for k, i in enumerate(ended.rows)])


def _admitted(candidates: Table, contracts: np.ndarray, panel: Panel) -> Ledger:
    """The admitted of a session as a ledger; how its trades end is missing."""
    trades = [_named(int(i), candidates, panel) | {
        "candidate": i, "contracts": contracts[i], "underlying_price": candidates["underlying"][i],
        "vix": panel.vix[-1, 0]} | {name: candidates[name][i] for name in ("width", "delta", "dte", "iv_percentile")}
        for i in np.flatnonzero(contracts)]
    return Ledger(_table(schema.TRADE, trades), empty(schema.REJECTED), empty(schema.ACCOUNT), np.nan, {})


def _named(i: int, candidates: Table, panel: Panel) -> dict[str, Any]:
    """Candidate `i` of the last session of `panel`, in the names of the ledgers."""
    return {"date": panel.dates[-1], "ticker": panel.tickers[candidates["ticker"][i]],
            "side": Side(candidates["side"][i]).name.lower(), "expiration": candidates["expiry"][i],
            "entry_score": candidates["score"][i], "regime": Regime(candidates["regime"][i]).name.lower()} | {
        name: candidates[name][i] for name in ("short_strike", "long_strike", "credit", "max_loss", "risk_fraction")}


def _undecided(decisions: Table) -> list[str]:
    return [f"{decisions['ticker'][k]} {decisions['side'][k]} {decisions['short_strike'][k]:g}/"
            f"{decisions['long_strike'][k]:g}: the model came to no decision ({decisions['status'][k]}); it is "
            f"{'approved' if decisions['approve'][k] else 'rejected'}, as llm.on_missing says."
            for k in np.flatnonzero(decisions["status"] != "decision")]


# ---- what is told ----------------------------------------------------------------------------------------------------

def ticket_id(date: np.datetime64, action: str, ticker: str, side: str, expiry: np.datetime64, short: float,
              long: float) -> str:
    """A ticket's own name, which serves as the client's id of its order: 2024-03-04-open-SPY-P-20240419-480-475."""
    strikes = "-".join(f"{strike:.3f}".rstrip("0").rstrip(".") for strike in (short, long))
    return f"{date}-{action}-{ticker}-{side[0].upper()}-{str(expiry).replace('-', '')}-{strikes}"


_LEGS = ("ticker", "side", "expiration", "short_strike", "long_strike")


def _close(k: int, day: int, positions: Table, tickets: Table, exits: Table, panel: Panel) -> dict[str, Any]:
    """The ticket that closes position `k` today: schema.TICKET."""
    opened = int(np.flatnonzero(tickets["ticket_id"] == positions["position"][k])[0])
    row = {name: tickets[name][opened] for name in (
        *_LEGS, "width", "delta", "entry_score", "regime", "multiplier", "risk_fraction", "time_exit")}
    row |= {name: positions[name][k] for name in ("contracts", "max_loss", "target_cost", "stop_cost", "position")}
    date, t = panel.dates[day], panel.tickers.index(row["ticker"])
    return row | {
        "ticket_id": ticket_id(date, "close", *(row[name] for name in _LEGS)), "action": "close",
        "mid": exits["mid"][k], "fill": exits["cost"][k], "reason": Exit(exits["reason"][k]).name.lower(),
        "dte": (row["expiration"] - date).astype(int), "underlying_price": panel.spot[day, t],
        "iv_percentile": panel.iv_percentile[day, t]}


def _open(i: int, candidates: Table, contracts: int, rule: ExitRule, costs: Costs, panel: Panel,
          date: np.datetime64) -> dict[str, Any]:
    """The ticket that opens candidate `i`: schema.TICKET."""
    c = {name: column[i] for name, column in candidates.items()}
    legs = (panel.tickers[c["ticker"]], Side(c["side"]).name.lower(), c["expiry"], c["short_strike"], c["long_strike"])
    name = ticket_id(date, "open", *legs)
    return dict(zip(_LEGS, legs, strict=True)) | {
        "ticket_id": name, "position": name, "action": "open", "width": c["width"], "contracts": contracts,
        "mid": c["mid_credit"], "fill": c["credit"],
        "max_loss": max_loss_per_contract({"max_loss": c["max_loss"]}, costs),
        "target_cost": np.nan if rule.profit_target is None else (1.0 - rule.profit_target) * c["credit"],
        "stop_cost": np.nan if rule.stop_loss is None else (1.0 + rule.stop_loss) * c["credit"],
        "time_exit": c["expiry"] - np.timedelta64(rule.exit_dte, "D"), "delta": c["delta"], "dte": c["dte"],
        "entry_score": c["score"], "underlying_price": c["underlying"], "iv_percentile": c["iv_percentile"],
        "regime": Regime(c["regime"]).name.lower(), "multiplier": c["multiplier"], "risk_fraction": c["risk_fraction"]}


def _scanned(candidates: Table, contracts: np.ndarray, reasons: np.ndarray, panel: Panel) -> Table:
    """The candidates of the day and what became of them: schema.SCANNED."""
    return _table(schema.SCANNED, [
        _named(i, candidates, panel) | {"contracts": contracts[i], "reason": Rejection(reasons[i]).name.lower()}
        for i in range(len(contracts))])


def _quotes(day: int, tickets: Table, chains: Chains, date: np.datetime64) -> Table:
    """Bid and ask of both legs of each ticket at the snapshot: schema.QUOTE; a leg that is not quoted has no row."""
    rows = []
    for k, ticket in enumerate(tickets["ticket_id"].tolist()):
        ticker, side, expiry = (tickets[name][k] for name in ("ticker", "side", "expiration"))
        for strike in (tickets["short_strike"][k], tickets["long_strike"][k]):
            row = _row(chains, ticker, expiry, strike, day)
            if row >= 0:
                bid, ask = (getattr(chains[ticker], f"{side}_{what}")[row] for what in ("bid", "ask"))
                rows.append({"ticket_id": ticket, "symbol": occ.symbol(ticker, expiry.item(), Side[side.upper()], strike),
                             "at": date.astype("datetime64[s]"), "bid": bid, "ask": ask, "source": "chain"})
    return _table(schema.QUOTE, rows)


def _notes(date: np.datetime64, positions: Table, exits: Table, marks: Table, candidates: Table, opening: np.ndarray,
           tables: Mapping[str, Table], rule: ExitRule) -> list[str]:
    """What a person should know beside the tickets."""
    tickets, fills, notes = tables["tickets"], tables["fills"], []
    earlier = tickets["date"][tickets["date"] < date]
    for k in np.flatnonzero(tickets["date"] == (earlier.max() if len(earlier) else date)):
        traded = (fills["ticket_id"] == tickets["ticket_id"][k]) & (fills["leg"] == "short") & (fills["date"] <= date)
        got = abs(int(fills["quantity"][traded].sum()))
        if tickets["date"][k] < date and got < tickets["contracts"][k] and tickets["reason"][k] not in ("expiry", "assigned"):
            notes.append(f"{tickets['ticket_id'][k]}: {got} of {tickets['contracts'][k]} contracts were filled.")
    old = (marks["date"] == date) & (marks["age"] > 0)
    notes += [f"{name}: no usable quote for {age} sessions; its mark is carried, and no rule but expiry fires."
              for name, age in zip(marks["position"][old].tolist(), marks["age"][old].tolist(), strict=True)]
    out_of_reach = unreachable_stops({name: candidates[name][opening] for name in ("credit", "max_loss")}, rule)
    if out_of_reach.any():
        notes.append(f"{int(out_of_reach.sum())} of the opens cannot reach their stop: it lies beyond the maximum loss.")
    return notes


# ---- the record ------------------------------------------------------------------------------------------------------

def record(folder: Path, found: Scan, account: Table, scanned_by: Mapping[str, Any]) -> bool:
    """Append a scan to the paper ledger in `folder`; False where the very same tickets are recorded already.

    `account` is its row of schema.PAPER_ACCOUNT, `scanned_by` what the scan knows that its tables do not: data_digest,
    code_version, config, stage, recorded_at.

    Raises
    ------
    ConfigError
        Where a later session is recorded, or this one with other tickets: what was said is not changed afterwards.
    """
    tables = records.read_all(folder, "scans", "tickets")
    dates = tables["scans"]["date"]
    if (dates > found.date).any():
        raise ConfigError(f"scan.record=true: the paper ledger has a scan of {dates.max()}, so one of {found.date} would "
                          "be written with hindsight")
    if (dates == found.date).any():
        _check_same(found, {name: column[tables["tickets"]["date"] == found.date]
                            for name, column in tables["tickets"].items()})
        return False
    opens = found.tickets["action"] == "open"
    scans = _table(schema.SCAN, [dict(scanned_by) | {
        "date": found.date, "equity": found.before.equity, "heat_before": found.before.heat,
        "heat_after": found.after.heat, "candidates": len(found.scanned["date"]), "opens": opens.sum(),
        "closes": (~opens).sum()}])
    records.write(folder, {"account": account, "scans": scans, "tickets": found.tickets, "quotes": found.quotes,
                           "marks": found.marks, "scanned": found.scanned, "funnels": found.funnel,
                           "decisions": found.decisions})
    return True


def _check_same(found: Scan, recorded: Table) -> None:
    """Raise ConfigError where the tickets of a session are not those that were recorded for it."""
    ours, theirs = ({name: (int(table["contracts"][k]), float(table["fill"][k]))
                     for k, name in enumerate(table["ticket_id"].tolist())} for table in (found.tickets, recorded))
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            said = [f"{n} contracts at {price:.3f}" if (n, price) != (0, 0.0) else "no ticket"
                    for n, price in (theirs.get(name, (0, 0.0)), ours.get(name, (0, 0.0)))]
            raise ConfigError(f"scan.record=true: the scan of {found.date} is recorded, {name} with {said[0]}, and now "
                              f"comes to {said[1]}: fills, chains or config have changed since")
