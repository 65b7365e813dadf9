"""Compare the runs of a study: performance, rejections by reason, stress windows, and a page with figures."""

from __future__ import annotations

from functools import cache as once
from pathlib import Path

import yaml
from hydra import compose

from mahler import cache, comparison, document, findings, home, ledger as ledgers, tracking
from mahler.config import Compare, Validate, load
from mahler.document import Block
from mahler.findings import Row
from mahler.schema import ConfigError
from mahler.terminal import say, table

PAGE = "compare.html"


def run(config: Compare) -> None:
    """Print the tables, in the study's own order, and log the page; the same page is one run."""
    rows = runs_of(config.study)
    markets = " and ".join(sorted({row["tags.market"] for row in rows}))
    table(findings.performance(rows), title=f"{config.study}, {markets} market")
    table(narrow(findings.rejections(rows)), title="Candidates, and why they were not admitted")
    for measure in ("return", "drawdown"):
        stress = findings.stress(rows, measure)
        if stress:
            table(narrow(stress), title=f"Stress windows: {measure}, %")
    blocks, shared = document_of(config.study, rows)
    for name, one in shared:
        table([{name: step, "trades": f"{n:,}", "dollars": f"{amount:+,.2f}"} for step, n, amount in findings.bridge(one)],
              title="One portfolio, or one for each ticker with equity of its own")
        say("Sessions dropped because another ticker lacks them: "
            + ", ".join(f"{ticker} {n:.0f}" for ticker, n in one.dropped.items()))
    for words in findings.warnings(rows):
        say(words)
    say(f"Figures: {logged(config.study, 'comparison', rows, blocks, PAGE)}")


def narrow(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """A table with its headers broken at their underscores, so that a dozen columns fit."""
    return [{name.replace("_", "\n"): cell for name, cell in line.items()} for line in lines]


def runs_of(study: str) -> list[Row]:
    """The newest run of each name. Raises ConfigError where the study has none."""
    every = tracking.runs(study)
    if not every:
        raise ConfigError(f"study={study}: no finished run; "
                          f"mahler backtest study={study}, or experiment=... of one in conf")
    rows = findings.newest(every)
    if len(rows) < len(every):
        say(f"{len(every) - len(rows)} older runs of the same names are left out")
    return rows


def definition(study: str) -> tuple[str | None, dict[str, list[str]]]:
    """The question and the swept options of a study, in the words of its own YAML; None and none where it has none."""
    for path in sorted((home.conf_dir() / "experiment").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
        if content.get("study") == study:
            comments = [line[1:].strip() for line in text.splitlines()
                        if line.startswith("#") and "@package" not in line]
            params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
            return (comments[0].partition(" mahler ")[0] if comments else None,
                    {key: str(options).split(",") for key, options in params.items()})
    return None, {}


def document_of(study: str, rows: list[Row]) -> tuple[list[Block], list[tuple[str, findings.Shared]]]:
    """The page of a study's runs, and the joint runs in it. Intervals are those of a validation's method."""
    read = once(ledgers.read)
    method = load(compose("validate"), Validate).method
    members = comparison.runs(rows, [read(row["artifacts"]) for row in rows])
    shared = findings.shared(rows, lambda row: read(row["artifacts"]))
    intervals = [comparison.account_of(member.ledger, replications=method.replications, level=method.level,
                                       seed=method.seed) for member in members]
    return comparison.blocks(study, definition(study)[0], members, shared, intervals), shared


def logged(study: str, kind: str, rows: list[Row], blocks: list[Block], name: str) -> Path:
    """The page as an artifact of a run; the same page is one run. Returns its path."""
    page = document.page(blocks, comparison.title(study, rows))
    signature = cache.fingerprint(kind, page)
    found = tracking.find(signature, study)
    if found:
        return found["artifacts"] / name
    tags = tracking.describe(
        kind=kind, data_source=rows[0]["tags.data_source"], data_digest=rows[0]["tags.data_digest"],
        synthetic=any(row["tags.market"] == "synthetic" for row in rows),
        universe=sorted({ticker for row in rows for ticker in row["tags.universe"].split(",")}),
        overrides=[f"study={study}"])
    with tracking.run(study=study, name=f"{kind} {study}", signature=signature, params={},
                      tags=tags | {"compared": ",".join(row["run_id"] for row in rows)}) as active:
        tracking.log_tables(active, metrics={}, tables={}, files={name: page})
    return active.artifacts / name
