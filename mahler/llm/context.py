"""What a model is shown of a trade: a template, filled from what was known at entry and from nothing else."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from string import Formatter
from typing import Any

from mahler.llm.records import Record, entry
from mahler.schema import ConfigError, choice, number

LONGEST_TEXT = 40               # characters of a text that came from data
VIX_DAYS, FEWEST_VIX_DAYS = 252, 20
MISSING = "not available"


@dataclass
class Context:
    """A template of a context, and what is done to a trade before it is filled in. conf/context/."""

    template: str
    asks: str = choice("outcome", "price")      # how the trade ends, or whether a claimed price is the real one
    years: int = number("years by which all dates are moved", -100, 100)
    price_factor: float = number("a factor of every price", 0, open_low=True)

    def __post_init__(self) -> None:
        """Raise ConfigError, naming them all, where the template has placeholders that nothing fills."""
        names = placeholders(self.template)
        unknown = sorted(names - FIELDS.keys())
        if unknown:
            raise ConfigError(f"context.template has placeholders that no trade fills: {', '.join(unknown)}; there are "
                              f"{', '.join(FIELDS)}")


def placeholders(template: str) -> set[str]:
    """The names in braces of a template. Raises ConfigError where its braces do not match."""
    try:
        return {name for _, name, form, conversion in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigError(f"context.template: {error}") from error


def contexts(records: Sequence[Record], context: Context, known: Sequence[Record]) -> list[str]:
    """The text that a model is shown for each trade.

    `known` are the trades whose entry days and VIX stand for the past when a percentile of VIX is taken; only those
    before a trade count. A number that is missing is "not available". Raises ConfigError, naming them all, where
    trades lack a field that the template asks for.
    """
    names = placeholders(context.template)
    history = _vix_history(known)
    rows = [entry(record) for record in records]
    lacking = sorted({needed for name in names for needed in NEEDS.get(name, (name,)) for record in records
                      if needed not in record})
    if lacking:
        raise ConfigError(f"the trades lack what the context asks for: {', '.join(lacking)}")
    return [context.template.format_map({name: FIELDS[name](_Trade(row, context, history)) for name in names})
            for row in rows]


def claim(record: Record) -> tuple[float, bool]:
    """A price that a model is asked about, and whether it was the real one: an even and repeatable coin."""
    coin = hashlib.sha256(f"{record['ticker']} {record['date']}".encode()).digest()[0]
    factor = 1.0 if coin % 2 else (0.88 if coin % 4 else 1.13)
    return factor * record["underlying_price"], factor == 1.0


def _vix_history(known: Sequence[Record]) -> tuple[list[str], list[float]]:
    """Entry days in order, and the VIX of each."""
    by_day = {record["date"]: record["vix"] for record in known if record.get("vix") is not None}
    days = sorted(by_day)
    return days, [by_day[day] for day in days]


# ---- the placeholders ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trade:
    """A trade at entry, what is done to its dates and prices, and the VIX of the days before."""

    row: dict[str, Any]
    context: Context
    history: tuple[list[str], list[float]]

    def price(self, name: str) -> float | None:
        return None if self.row[name] is None else self.context.price_factor * self.row[name]

    def of_price(self, name: str) -> float | None:
        """A price as a share of the underlying's."""
        value, spot = self.row[name], self.row["underlying_price"]
        return None if value is None or not spot else value / spot

    def out_of_the_money(self, name: str) -> float | None:
        share = self.of_price(name)
        return None if share is None else abs(1.0 - share)

    def vix_percentile(self) -> float | None:
        """Share of the entry days before, at most 252, with a lower VIX; None where there are fewer than 20."""
        days, levels = self.history
        now = bisect_left(days, self.row["date"])
        past = levels[max(0, now - VIX_DAYS):now]
        if len(past) < FEWEST_VIX_DAYS or self.row["vix"] is None:
            return None
        return sum(level < self.row["vix"] for level in past) / len(past)

    def moved(self, name: str) -> str:
        """A date, moved by whole years; 29 February becomes the 28th where the year has none."""
        day = date.fromisoformat(self.row[name])
        year = day.year + self.context.years
        try:
            return day.replace(year=year).isoformat()
        except ValueError:
            return day.replace(year=year, day=28).isoformat()

    def risk_to_reward(self) -> float | None:
        credit, risk = self.row["credit"], self.row["max_loss"]
        return None if risk is None or not credit else risk / credit

    def claimed_price(self) -> float | None:
        return None if self.row["underlying_price"] is None else claim(self.row)[0]


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _text(value: Any) -> str:
    """A text that came from data, in quotes and on one line, so that it cannot pass for an instruction."""
    return MISSING if value is None else json.dumps(str(value)[:LONGEST_TEXT])


FIELDS: dict[str, Callable[[_Trade], str]] = {
    "date": lambda t: t.moved("date"),
    "expiration": lambda t: t.moved("expiration"),
    "ticker": lambda t: _text(t.row["ticker"]),
    "regime": lambda t: _text(t.row["regime"]),
    "strategy": lambda t: "bull put spread" if t.row["side"] == "put" else "bear call spread",
    "underlying_price": lambda t: _number(t.price("underlying_price"), ".2f"),
    "short_strike": lambda t: _number(t.price("short_strike"), ".2f"),
    "long_strike": lambda t: _number(t.price("long_strike"), ".2f"),
    "width": lambda t: _number(t.price("width"), ".2f"),
    "credit": lambda t: _number(t.price("credit"), ".2f"),
    "max_loss": lambda t: _number(t.price("max_loss"), ".2f"),
    "risk_to_reward": lambda t: _number(t.risk_to_reward(), ".1f"),
    "delta": lambda t: _number(t.row["delta"], ".3f"),
    "dte": lambda t: _number(t.row["dte"], ".0f"),
    "vix": lambda t: _number(t.row["vix"], ".2f"),
    "iv_percentile": lambda t: _number(t.row["iv_percentile"], ".0f"),
    "vix_percentile": lambda t: _number(None if (p := t.vix_percentile()) is None else 100.0 * p, ".0f"),
    "entry_score": lambda t: _number(t.row["entry_score"], ".4f"),
    "short_otm": lambda t: _number(t.out_of_the_money("short_strike"), ".2%"),
    "long_otm": lambda t: _number(t.out_of_the_money("long_strike"), ".2%"),
    "credit_of_price": lambda t: _number(t.of_price("credit"), ".4%"),
    "max_loss_of_price": lambda t: _number(t.of_price("max_loss"), ".3%"),
    "claimed_price": lambda t: _number(t.claimed_price(), ".2f"),
}
"""The text of every placeholder that a template may have."""

NEEDS = {
    "strategy": ("side",), "risk_to_reward": ("credit", "max_loss"), "vix_percentile": ("vix",),
    "short_otm": ("short_strike", "underlying_price"), "long_otm": ("long_strike", "underlying_price"),
    "credit_of_price": ("credit", "underlying_price"), "max_loss_of_price": ("max_loss", "underlying_price"),
    "claimed_price": ("underlying_price",)}
"""The fields of a trade that a placeholder is made of, where it is not the one of its own name."""
