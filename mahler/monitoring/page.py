"""The checks as lines for a terminal and as a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence

from mahler.document import Block, Bullets, Heading, Picture, Rows, Words
from mahler.figures import SYNTHETIC
from mahler.monitoring import pictures
from mahler.monitoring.bands import Bands
from mahler.monitoring.checks import Check, Verdict, worst
from mahler.monitoring.paper import Watched

METHOD = (
    "Data, parity, sizes, exits, fills, credit, trades a session and the mix of exits decide: they converge in weeks. "
    "Money is watched and never stops an account by itself, because a good year loses money in a third of its months. "
    "Every band holds for the whole path and every interval at every peek, so the checks may be read every day. In a "
    "world that is the backtest, any of them calls for a watch within {horizon} sessions with a chance of {watch:.0%}, "
    "for a stop with {stop:.0%}; halts are limits of what may be lost and are no part of that.")


def lines(found: Sequence[Check]) -> list[dict[str, str]]:
    """A line per check."""
    return [{"check": check.label, "": check.often, "value": check.shown, "band": check.band, "n": f"{check.n:,}",
             "verdict": check.verdict.value.upper() if check.verdict in (Verdict.WATCH, Verdict.STOP) else check.verdict.value}
            for check in found]


def advice(found: Sequence[Check]) -> list[str]:
    """What to do about each check that is not fine, and what is known of it."""
    return [f"{check.label}: {check.note + '. ' if check.note else ''}{check.advice}" for check in found if check.advice]


def blocks(seen: Watched, promised: Bands, found: Sequence[Check], stage: str, *, synthetic: bool) -> list[Block]:
    """The page."""
    title = f"{worst(list(found)).value.upper()}: {stage}, {seen.start} to {seen.end}"
    said = advice(found)
    rows = Rows(("check", "", "value", "band", "n", "verdict", "known"),
                tuple((*line.values(), check.note) for line, check in zip(lines(found), found, strict=True)),
                frozenset(k for k, check in enumerate(found) if check.advice), frozenset({1, 5, 6}))
    return [
        Heading(1, f"{SYNTHETIC}: {title}" if synthetic else title, loud=synthetic or bool(said)),
        *([Bullets(tuple(said))] if said else [Words("Nothing to do.")]), rows,
        Words(METHOD.format(horizon=promised.rule.horizon, watch=promised.rule.watch, stop=promised.rule.stop)),
        Picture("cone.svg", pictures.cone(seen, promised), "The wide cone is the one to leave; the narrow one, for each "
                "session alone, is left by three true paths in ten."),
        Picture("fills.svg", pictures.fills(seen, promised), "A point is a ticket, both legs together."),
        Picture("cusum.svg", pictures.cusum(seen, promised), "Normal scores of the ranks that the returns have among "
                f"the backtest's. Independent returns pass h once in {promised.cusum.run_length:,.0f} sessions in the mean; h is "
                "set by the backtest's own blocks."),
        Picture("mix.svg", pictures.mix(seen, promised), "What closes soon is not what all trades come to, so trades "
                "count in the order of their opening.")]
