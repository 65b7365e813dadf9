"""Write what came of a study: a README with its figures, and one page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mahler import cache, document, evaluated, evaluation_report, home, ledger as ledgers, report, tracking
from mahler.config import Report
from mahler.data import store
from mahler.report import Family, Study
from mahler.schema import ConfigError
from mahler.terminal import say

TABLES = ("configs", "folds", "accounts", "spread", "trials", "pbo_null", "pbo_logits")
PAGE = "report.html"


def run(config: Report) -> None:
    """Write experiments/<study>/ and log the page as a run of kind report; the same page is one run."""
    if tracking.runs(config.study, kind="evaluation"):
        _evaluations(config)
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
    if not {"worth", "out_of_reach"} <= judgement.keys():
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
    question, swept = None, {}
    for path in sorted((home.conf_dir() / "experiment").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
        if content.get("study") == name:
            comments = [line[1:].strip() for line in text.splitlines()
                        if line.startswith("#") and "@package" not in line]
            question = comments[0].partition(" mahler ")[0] if comments else None
            params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
            swept = {key: str(options).split(",") for key, options in params.items()}
            break
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
