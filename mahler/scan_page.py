"""A scan for people and for programs: tables of a terminal, and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mahler.explain import Section, funnel_section
from mahler.figures import percent
from mahler.scan import Heat, Scan
from mahler.schema import Table, one_line
from mahler.screen import Entry


def verdict(found: Scan) -> str:
    """In one line: what is to be traded, and what became of the other candidates."""
    opens = int((found.tickets["action"] == "open").sum())
    closes, others = len(found.tickets["action"]) - opens, Counter(found.scanned["reason"].tolist())
    others.pop("admitted", None)
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(others.items(), key=lambda item: (-item[1], item[0])))
    n = len(found.scanned["date"])
    rest = f"{n} candidates" + (f", rejected: {why}" if why else "") if n else "no candidate"
    return f"{found.date}: {opens} to open, {closes} to close; {rest}."


def sections(found: Scan, entry: Entry) -> list[Section]:
    """The tickets, the candidates, what an LLM layer said, the funnel and the account, none wider than 100 columns."""
    asked = [_decisions(found.decisions)] if len(found.decisions["date"]) else []
    return [_closes(found.tickets), _opens(found.tickets), _candidates(found.scanned), *asked,
            funnel_section(found.funnel, entry), _account(found.before, found.after, found.notes)]


def _spread(table: Table, k: int) -> str:
    return (f"{table['ticker'][k]} {table['side'][k][0].upper()} {table['short_strike'][k]:g}/"
            f"{table['long_strike'][k]:g}")


def _closes(tickets: Table) -> Section:
    rows = [{"": _spread(tickets, k), "expires": str(tickets["expiration"][k]), "contracts": str(tickets["contracts"][k]),
             "because": tickets["reason"][k], "cost at mid": f"{tickets['mid'][k]:.3f}",
             "modelled": f"{tickets['fill'][k]:.3f}", "opened": tickets["position"][k][:10]}
            for k in np.flatnonzero(tickets["action"] == "close")]
    settled = np.isin(tickets["reason"], ["expiry", "assigned"]).any()
    return Section("To close: buy the short leg, sell the long leg", rows,
                   ["expiry and assigned are settled, not traded: at the close, at the modelled cost."] * bool(settled))


def _opens(tickets: Table) -> Section:
    rows = [{"": _spread(tickets, k), "expires": str(tickets["expiration"][k]), "contracts": str(tickets["contracts"][k]),
             "credit at mid": f"{tickets['mid'][k]:.3f}", "modelled": f"{tickets['fill'][k]:.3f}",
             "$ max loss": f"{tickets['contracts'][k] * tickets['max_loss'][k]:,.0f}",
             "target <=": _dash(tickets["target_cost"][k]), "stop >=": _dash(tickets["stop_cost"][k]),
             "time from": str(tickets["time_exit"][k])} for k in np.flatnonzero(tickets["action"] == "open")]
    notes = ["target and stop are mid costs to close, of the modelled credit; they move with the credit that is got."]
    return Section("To open: sell the short leg, buy the long leg, for the credit or more", rows, notes * bool(rows))


def _candidates(scanned: Table) -> Section:
    rows = [{"": _spread(scanned, k), "expires": str(scanned["expiration"][k]), "credit": f"{scanned['credit'][k]:.3f}",
             "score": f"{scanned['entry_score'][k]:.3f}", "regime": scanned["regime"][k],
             "decision": f"{scanned['contracts'][k]} contracts" if scanned["contracts"][k] else scanned["reason"][k]}
            for k in range(len(scanned["date"]))]
    return Section("Candidates, in the order of admission", rows, [])


def _decisions(asked: Table) -> Section:
    rows = [{"": _spread(asked, k), "expires": str(asked["expiration"][k]),
             "decision": "approve" if asked["approve"][k] else "reject", "answer": asked["status"][k],
             "p profit": _dash(asked["p_profit"][k]), "confidence": _dash(asked["confidence"][k]),
             "at most": str(asked["contracts"][k] or "-"), "$ cost": f"{asked['cost'][k]:.4f}"}
            for k in range(len(asked["date"]))]
    said = [f"{_spread(asked, k)}: {one_line(asked['reason'][k])}" for k in np.flatnonzero(asked["reason"] != "")]
    return Section("What the LLM layer said of those that the rules admit", rows, said)


def _account(before: Heat, after: Heat, notes: list[str]) -> Section:
    rows = [{"": "equity, dollars"} | {when: f"{heat.equity:,.2f}" for when, heat in _moments(before, after)},
            {"": "open maximum loss, dollars"} | {when: f"{heat.open_max_loss:,.2f}" for when, heat in
                                                  _moments(before, after)},
            {"": "heat"} | {when: percent(heat.heat) for when, heat in _moments(before, after)},
            {"": "positions"} | {when: str(heat.positions) for when, heat in _moments(before, after)}]
    return Section("Account", rows, notes)


def _moments(before: Heat, after: Heat) -> tuple[tuple[str, Heat], ...]:
    return ("before", before), ("after, filled as modelled", after)


def _dash(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.3f}"


def to_json(found: Scan, header: Mapping[str, Any]) -> str:
    """The scan as strict JSON: `header`, tickets with their legs, candidates, decisions, funnel, account, notes."""
    quotes = _records(found.quotes)
    tickets = [ticket | {"legs": [
        {"symbol": q["symbol"], "action": action, "ratio": 1, "bid": q["bid"], "ask": q["ask"]}
        for q, action in zip([q for q in quotes if q["ticket_id"] == ticket["ticket_id"]],
                             ("sell", "buy") if ticket["action"] == "open" else ("buy", "sell"))]}
               for ticket in _records(found.tickets)]
    account = {when: {"equity": heat.equity, "cash": heat.cash, "open_max_loss": heat.open_max_loss, "heat": heat.heat,
                      "positions": heat.positions} for when, heat in (("before", found.before), ("after", found.after))}
    whole = dict(header) | {"date": str(found.date), "tickets": tickets, "candidates": _records(found.scanned),
                            "decisions": _records(found.decisions), "funnel": _records(found.funnel),
                            "account": account, "notes": found.notes}
    return json.dumps(whole, indent=1, allow_nan=False, default=float) + "\n"


def _records(table: Table) -> list[dict[str, Any]]:
    """Rows of a table in JSON types; what is missing is None."""
    columns = {name: [None if value != value else value for value in (
        np.datetime_as_string(column).tolist() if column.dtype.kind == "M" else column.tolist())]
        for name, column in table.items()}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]
