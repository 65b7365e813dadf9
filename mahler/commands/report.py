"""Write what came of a study: a README with its figures, and one page that needs no other file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mahler import (cache, document, evaluated, evaluation_report, findings, home, ledger as ledgers, report, system,
                    tracking)
from mahler.commands.compare import definition, document_of, logged
from mahler.config import Report
from mahler.data import store
from mahler.findings import Row
from mahler.report import Family, Study
from mahler.schema import ConfigError
from mahler.terminal import say, table

TABLES = ("configs", "folds", "accounts", "spread", "trials", "pbo_null", "pbo_logits")
PAGE = "report.html"
SYSTEM = "system"                # no study of its own: the layers' table, of all that was judged


def run(config: Report) -> None:
    """Write experiments/<study>/ and log the page as a run of kind report; the same page is one run."""
    if config.study == SYSTEM:
        _system(config)
        return
    if tracking.runs(config.study, kind="evaluation"):
        _evaluations(config)
        return
    if tracking.runs(config.study, kind="recall"):
        raise ConfigError(f"study={config.study}: it has recall probes and no evaluation beside which to show them; "
                          f"mahler evaluate study={config.study} arm=model")
    rows = _incomparable(config.study)
    if rows:
        blocks, _ = document_of(config.study, rows)
        say(f"{config.study}: of some universe there is one run, so there is nothing to judge: the runs side by side")
        say(f"  {_write(home.project() / 'experiments' / config.study, blocks)}")
        say(f"  {logged(config.study, 'report', rows, blocks, PAGE)}")
        return
    families = [_family(row) for row in _validations(config.study)]
    study = _study(config.study)
    blocks = report.blocks(study, families, config.axes)
    page = document.page(blocks, report.title(study, families))
    readme = _write(home.project() / "experiments" / config.study, blocks)
    artifacts = _log(config, [family.row for family in families], page)
    for family in families:
        say(f"{family.universe}: {family.judgement['verdict']}")
    say(f"  {readme}")
    say(f"  {artifacts / PAGE}")


def _evaluations(config: Report) -> None:
    """The report of a study of evaluations."""
    if config.axes:
        raise ConfigError(f"axes={','.join(config.axes)}: a study of evaluations has no map of a grid")
    together, study = evaluated.read(config.study), _study(config.study)
    blocks = evaluation_report.blocks(study, together)
    readme = _write(home.project() / "experiments" / config.study, blocks)
    page = document.page(blocks, evaluation_report.title(study, together))
    artifacts = _log(config, [one.row for one in together.found], page)
    for one in together.found:
        say(f"{one.answers.name}: {one.judgement.verdict.verdict}")
    say(f"  {readme}")
    say(f"  {artifacts / PAGE}")


def _incomparable(study: str) -> list[Row]:
    """The runs of a study of several universes with one run of some of them; none for any other study.

    Other data are another market, and one run of a market is nothing to choose from: such runs are set side by side, and
    no verdict is asked for.
    """
    rows = findings.newest(tracking.runs(study))
    universes = Counter(row["tags.universe"] for row in rows)
    return rows if len(universes) > 1 == min(universes.values()) and not tracking.runs(study, kind="validation") else []


def _system(config: Report) -> None:
    """The layers' table."""
    findings = [*_validated(), *_evaluated()]
    if not findings:
        raise ConfigError("study=system: nothing was judged yet; mahler validate study=NAME, or mahler evaluate")
    blocks = system.blocks(findings)
    page = document.page(blocks, system.title(findings))
    readme = _write(home.project() / "experiments" / SYSTEM, blocks)
    readme.with_name(PAGE).write_text(page, encoding="utf-8")
    artifacts = _log(config, [finding.row for finding in findings], page)
    table([{"layer": " and ".join(f.layers), "config": f.config, "verdict": f.verdict, "study": f.row["study"],
            "market": f.market} for f in findings], title="The layers")
    say(f"  {readme}")
    say(f"  {artifacts / PAGE}")


def _validated() -> list[system.Finding]:
    """The newest validation of each study, universe and market."""
    newest: dict[tuple, dict[str, Any]] = {}
    for row in tracking.finished("validation"):
        newest.setdefault((row["study"], row["tags.universe"], row["tags.market"]), row)
    known = [row for row in newest.values() if "tags.layers" in row]
    if len(known) < len(newest):
        say(f"{len(newest) - len(known)} validations of an earlier version are left out: mahler validate them again")
    return [system.of_validation(row, json.loads((row["artifacts"] / "judgement.json").read_text(encoding="utf-8")))
            for row in known]


def _evaluated() -> list[system.Finding]:
    """What models decided, each judged among all that was asked in its study."""
    return [system.of_evaluation(one.row, one.judgement.verdict)
            for study in dict.fromkeys(row["study"] for row in tracking.finished("evaluation"))
            for one in evaluated.read(study).found if one.answers.arm == "model"]


def _validations(study: str) -> list[dict[str, Any]]:
    """The newest validation of each universe of the study."""
    newest = {row["tags.universe"]: row for row in
              sorted(tracking.runs(study, kind="validation"), key=lambda row: row["started"])}
    if newest:
        return [newest[universe] for universe in sorted(newest)]
    if tracking.runs(study):
        raise ConfigError(f"study={study}: it has runs and no verdict yet; run mahler validate study={study} first")
    raise ConfigError(f"study={study}: there is no such study, or nothing of it has finished; "
                      f"mahler backtest experiment={study}, then mahler validate study={study}")


def _family(row: dict[str, Any]) -> Family:
    """A validation with its tables and with the runs and ledgers that it judged."""
    what = f"validation {row['run_id'][:8]} of {row['tags.universe']}"
    folder: Path = row["artifacts"]
    missing = [name for name in ("judgement.json", *(f"{name}.parquet" for name in TABLES))
               if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{what}: {folder / missing[0]} is missing; run mahler validate study={row['study']} again")
    judgement = json.loads((folder / "judgement.json").read_text(encoding="utf-8"))
    if not {"worth", "out_of_reach", "robust", "tested"} <= judgement.keys():
        raise ConfigError(f"{what} was made by older code; run mahler validate study={row['study']} again")
    finished = {one["run_id"]: one for one in tracking.runs(row["study"])}
    judged = [finished.get(run_id) or _older(run_id, what, row["study"]) for run_id in judgement["judged"]]
    later = sum(one["started"] > row["started"] and one["tags.universe"] == row["tags.universe"]
                and one["run_id"] not in judgement["judged"] for one in finished.values()) if judged else 0
    return Family(row, judgement, {name: store.read_table(folder / f"{name}.parquet") for name in TABLES}, judged,
                  [ledgers.read(one["artifacts"]) for one in judged], later)


def _older(run_id: str, what: str, study: str) -> dict[str, Any]:
    """A judged run that a newer one of the same signature hides; ConfigError where it was deleted."""
    try:
        return tracking.get(run_id)
    except ConfigError as error:
        raise ConfigError(f"{what}: the run {run_id[:8]} that it judged was deleted; "
                          f"run mahler validate study={study} again") from error


def _study(name: str) -> Study:
    """The study in the words of its own YAML, where there is one."""
    question, swept = definition(name)
    return Study(name, question, swept, tracking.count_failed(name), cache.code_version())


def _write(folder: Path, blocks: Sequence[document.Block]) -> Path:
    """README.md and its figures. Returns the path of the README."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in document.pictures(blocks).items():
        (folder / name).write_text(svg, encoding="utf-8")
    readme = folder / "README.md"
    readme.write_text(document.markdown(blocks), encoding="utf-8")
    return readme


def _log(config: Report, rows: Sequence[dict[str, Any]], page: str) -> Path:
    """The page as an artifact of a run. Returns the folder of its artifacts."""
    signature = cache.fingerprint("report", page)
    found = tracking.find(signature, config.study)
    if found:
        return found["artifacts"]
    tags = tracking.describe(
        kind="report", data_source=rows[0]["tags.data_source"], data_digest=rows[0]["tags.data_digest"],
        synthetic=any(row["tags.market"] == "synthetic" for row in rows),
        universe=sorted({ticker for row in rows for ticker in row["tags.universe"].split(",")}),
        overrides=[f"study={config.study}"])
    tags[f"{rows[0]['tags.kind']}s"] = ",".join(row["run_id"] for row in rows)
    with tracking.run(study=config.study, name=f"report {config.study}", signature=signature,
                      params={"axes": list(config.axes)}, tags=tags) as active:
        tracking.log_tables(active, metrics={}, tables={}, files={PAGE: page})
    return active.artifacts
