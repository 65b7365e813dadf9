"""What a model answers: one JSON object, checked; or what is wrong with it, in words that it can be shown.

A reply is never searched for words: "not recommended to approve" is no approval, it is no decision at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

LONGEST_REASON = 400
LONGEST_REPLY = 100_000         # characters; a longer one is not looked through
MOST_FALSE_STARTS = 100         # braces that begin no object; each is read to its end, and all other calls wait for it
MOST_CONTRACTS = 5

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Decision(BaseModel):
    """The fields in the order in which they are generated: what comes first informs what follows."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    reason: Annotated[str, Field(max_length=LONGEST_REASON, description=f"why, at most {LONGEST_REASON} characters")]
    p_profit: Annotated[Share, Field(description="the probability, from 0 to 1, that the trade closes with a profit")]
    decision: Annotated[Literal["approve", "reject"], Field(description="approve or reject")]
    confidence: Annotated[Share, Field(description="how sure you are of the decision, from 0 to 1")]
    contracts: Annotated[int, Field(ge=0, le=MOST_CONTRACTS, description=(
        f"at most so many contracts: a whole number from 1 to {MOST_CONTRACTS} with approve, 0 with reject"))]

    @model_validator(mode="after")
    def _contracts_follow_the_decision(self) -> Self:
        if (self.contracts > 0) != (self.decision == "approve"):
            raise ValueError(f"contracts is {self.contracts} with {self.decision}: "
                             f"1 to {MOST_CONTRACTS} with approve, 0 with reject")
        return self


@dataclass(frozen=True)
class Invalid:
    """A reply that is no decision, and why: one line."""

    message: str


class _Unreadable(ValueError):
    """Why a reply is not looked through any further."""


def schema() -> dict[str, Any]:
    """The JSON schema of a decision for providers that enforce one.

    Only types, options and words: several refuse a schema with ranges or lengths. `parse` checks those.
    """
    properties = {}
    for name, field in Decision.model_json_schema()["properties"].items():
        properties[name] = {key: field[key] for key in ("type", "enum", "description") if key in field}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@cache
def instructions() -> str:
    """What a model is told about the form of its answer."""
    lines = [f'- "{name}": {field.description}' for name, field in Decision.model_fields.items()]
    return "Answer with one JSON object and nothing else, with these fields in this order:\n" + "\n".join(lines)


def parse(text: str) -> Decision | Invalid:
    """The decision in a reply: its only JSON object, whatever prose or code fence is around it.

    Two objects are no decision, even where only one of them would do: the other may be an echo of the question.
    """
    if len(text) > LONGEST_REPLY:
        return Invalid(f"the reply has {len(text):,} characters, more than {LONGEST_REPLY:,}")
    try:
        found = _objects(text)
    except _Unreadable as error:
        return Invalid(str(error))
    if len(found) != 1:
        return Invalid(f"the reply has {len(found) or 'no'} whole JSON objects; one was asked for")
    try:
        return Decision.model_validate(found[0])
    except ValidationError as error:
        return Invalid("; ".join(_words(problem) for problem in error.errors()))


def _objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects in `text`, in order."""
    found, false_starts, at = [], 0, text.find("{")
    while at >= 0:
        try:
            value, end = DECODER.raw_decode(text, at)
        except _Unreadable:
            raise
        except (ValueError, RecursionError):
            end, false_starts = at + 1, false_starts + 1
            if false_starts > MOST_FALSE_STARTS:
                raise _Unreadable(f"the reply has more than {MOST_FALSE_STARTS} braces that begin no whole JSON object; "
                                  "one object was asked for") from None
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _Unreadable(f"{name[:40]}: the object has this key twice")
    return dict(pairs)


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)       # made once: replies are many


def _words(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
