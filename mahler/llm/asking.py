"""From trades to a model's decisions: contexts, questions, answers, and one row of schema.DECISION for each trade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mahler.data.files import Progress
from mahler.llm.client import Answer, Client
from mahler.llm.context import Context, contexts
from mahler.llm.prompt import Prompt, messages
from mahler.llm.records import Record
from mahler.llm.replies import Reply
from mahler.schema import DECISION, Table, empty

Ask = Callable[[Sequence[Record]], Table]
"""Puts trades to the model and returns a row of schema.DECISION for each, in their order."""

STATUSES = ("decision", "invalid", "refused", "failed")


def ask(records: Sequence[Record], *, client: Client, prompt: Prompt, context: Context, known: Sequence[Record],
        progress: Progress, asked: list[Answer]) -> Table:
    """The model's decisions on `records`.

    `known` are the trades whose VIX stands for the past (`context.contexts`). Every answer is appended to `asked`.
    """
    questions = [messages(prompt, text) for text in contexts(records, context, known)]
    answers = client.ask(questions, progress)
    asked += answers
    return fold(answers, client.llm.samples, approve_missing=client.llm.on_missing == "approve")


def blank(n: int) -> Table:
    """`n` decisions of schema.DECISION without anything in them: missing text is "", missing numbers NaN."""
    table = empty(DECISION, n) | {name: np.full(n, "", dtype=object) for name in DECISION.names
                                  if DECISION[name].kind == "O"}
    table |= {name: np.full(n, np.nan) for name in ("p_profit", "confidence", "flip_rate")}
    return table | {"trade_id": np.arange(n, dtype=np.int32), "status": np.full(n, "decision", dtype=object)}


def fold(answers: Sequence[Answer], samples: int, *, approve_missing: bool) -> Table:
    """A row for every `samples` answers: the majority's decision, the means of p_profit and confidence.

    A tie is a reject, and the contracts are the fewest that an approving reply names: a model may only reduce risk.
    Without one decision among them the status is the commonest of the others.
    """
    n = len(answers) // samples
    table = blank(n)
    for row in range(n):
        group = answers[row * samples:(row + 1) * samples]
        _route(table, row, [reply for answer in group for reply in answer.replies])
        table["cached"][row] = all(answer.cached for answer in group)
        taken = [answer.decision for answer in group if answer.decision is not None]
        table["samples"][row] = len(taken)
        if not taken:
            counted = Counter(answer.status for answer in group)
            table["status"][row] = max(STATUSES[1:], key=lambda status: counted[status])
            table["approve"][row] = approve_missing
            continue
        approving = [decision.contracts for decision in taken if decision.decision == "approve"]
        approve = 2 * len(approving) > len(taken)
        table["approve"][row] = approve
        table["p_profit"][row] = sum(decision.p_profit for decision in taken) / len(taken)
        table["confidence"][row] = sum(decision.confidence for decision in taken) / len(taken)
        table["contracts"][row] = min(approving) if approve else 0
        table["flip_rate"][row] = min(len(approving), len(taken) - len(approving)) / len(taken)
        table["reason"][row] = next(d.reason for d in taken if (d.decision == "approve") == approve)
    return table


def _route(table: Table, row: int, replies: list[Reply]) -> None:
    """Who answered, and what it took."""
    for name in ("cost", "input_tokens", "output_tokens"):
        table[name][row] = sum(getattr(reply, name) for reply in replies)
    for name in ("provider", "model", "fingerprint"):
        table[name][row] = ",".join(sorted({getattr(reply, name) for reply in replies} - {""}))
    table["reply_ids"][row] = ",".join(reply.id for reply in replies)
