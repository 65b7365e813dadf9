"""Runs in MLflow: a study is an experiment, a job is one flat run. The only import of mlflow, and the only writer.

    with tracking.run(study="regime_grid", name="prod, QQQ", signature=signature, params=config, tags=tags) as active:
        ...
        tracking.log(active, metrics=summary, ledger=ledger, config_yaml=text, page=page)

The store is SQLite in mlruns/mlflow.db, artifacts are plain files under mlruns/artifacts. Nothing goes over a network.
mlflow takes 1.5 s to import, so it is imported where it is used, and not at all to find that there are no runs yet.
A run costs about 65 ms to log (55 params, 150 metrics, 200 points of equity, 7 files) and 7 ms to list.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mahler import home, ledger as ledgers
from mahler.cache import code_version  # noqa: F401  part of a run's signature
from mahler.data import store
from mahler.ledger import Ledger
from mahler.schema import ConfigError, Table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

# Before mlflow is imported here or in a child process: it phones home and fetches price lists otherwise.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "GIT_PYTHON_REFRESH": "quiet",
    "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)

PACKAGE = Path(__file__).resolve().parent

WRITTEN_BY_MAHLER = ("conf/experiment/production.yaml", "conf/experiment/production.json", "conf/experiment/bands.json",
                     "experiments")

EQUITY_POINTS = 200
"""Most points of the equity curve that MLflow is given (0.1 ms each); the whole curve is in account.parquet."""

LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 250, 6000, 5000, 36
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000     # MLflow's own limits


# ---- what identifies a run -------------------------------------------------------------------------------------------

def signature(config: Mapping[str, Any], data: str, code: str) -> str:
    """What a run's result depends on, as 64 hex digits: the resolved config, the data's fingerprint, the code.

    Raises TypeError or ValueError where `config` holds what JSON cannot (a NaN, an object).
    """
    text = json.dumps({"config": config, "data": data, "code": code}, sort_keys=True, separators=(",", ":"),
                      allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@cache
def git_tags(package: Path) -> dict[str, str]:
    """git_commit and git_dirty of the checkout whose folder `package` is; none outside of one."""
    state = git_state(package)
    return {"git_commit": state[0], "git_dirty": str(bool(state[1])).lower()} if state else {}


def git_state(package: Path) -> tuple[str, list[str]] | None:
    """The commit of the checkout whose folder `package` is, and its changed files; None outside of one.

    Untracked files count, and what Mahler itself writes for people to commit does not: what is promoted, and reports.
    The folder of a venv inside somebody else's checkout has no commit of its own.
    """
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package.parent), *arguments], capture_output=True, text=True,
                                  check=False, env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"})
        except FileNotFoundError:
            return None
        return done.stdout.rstrip() if done.returncode == 0 else None

    top, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != package.parent:
        return None
    changed = git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in WRITTEN_BY_MAHLER))
    return commit, [line[3:] for line in (changed or "").splitlines()]


def describe(*, kind: str, data_source: str, data_digest: str, synthetic: bool, universe: Sequence[str],
             overrides: Sequence[str]) -> dict[str, str]:
    """The tags that every run has: what it is, on which data, and how it was asked for.

    `kind` is the verb (backtest); `overrides` are Hydra's, as they were typed.
    """
    return {"kind": kind, "data_source": data_source, "data_digest": data_digest[:LONGEST_DIGEST],
            "market": "synthetic" if synthetic else "real", "universe": ",".join(universe),
            "overrides": " ".join(overrides)}


# ---- writing ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Active:
    """A run that is being made: its id, and the folder that its artifacts will be in."""

    id: str
    artifacts: Path


@contextmanager
def run(*, study: str, name: str, signature: str, params: Mapping[str, Any],
        tags: Mapping[str, str]) -> Iterator[Active]:
    """A run of `study` for as long as the block lasts: FINISHED after it, FAILED with the tag `error` if it raises.

    A run that fails keeps no artifacts; one that is interrupted is KILLED. `params` may be nested: its keys are
    joined by dots. Keys are made fit for MLflow, and values are cut at 6,000 characters.
    """
    client = _client(_database())
    created = client.create_run(_experiment(study), run_name=name,
                                tags=_tags({**tags, **git_tags(PACKAGE), "signature": signature}))
    active = Active(created.info.run_id, _local(created.info.artifact_uri))
    try:
        for batch in _batches(_params(params), PARAMS_PER_BATCH):
            client.log_batch(active.id, params=batch)
        yield active
    except BaseException as error:
        shutil.rmtree(_unfinished(active), ignore_errors=True)
        shutil.rmtree(active.artifacts, ignore_errors=True)
        client.set_tag(active.id, "error", " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_TAG])
        client.set_terminated(active.id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(active.id, "FINISHED")


def tag(active: Active, tags: Mapping[str, str]) -> None:
    """Add tags that were not known when the run began."""
    from mlflow.entities import RunTag

    _client(_database()).log_batch(active.id, tags=[RunTag(key, value) for key, value in _tags(tags).items()])


def log(active: Active, *, metrics: Mapping[str, float], ledger: Ledger, config_yaml: str, page: str,
        files: Mapping[str, str] = MappingProxyType({})) -> None:
    """Give a run its metrics, its equity curve (a point in at most 200 steps) and its artifacts, once.

    The artifacts are config.yaml, page.html, `files` (text by name) and the files of ledger.write. They are written beside their place and
    appear there together. A metric that is NaN or infinite is undefined, and is not logged.
    """
    client = _client(_database())
    for batch in _batches(_metrics(metrics) + _equity_curve(ledger), METRICS_PER_BATCH):
        client.log_batch(active.id, metrics=batch)
    folder = _unfinished(active)
    ledgers.write(ledger, folder)
    (folder / "config.yaml").write_text(config_yaml, encoding="utf-8")
    (folder / "page.html").write_text(page, encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    os.rename(folder, active.artifacts)


def log_tables(active: Active, *, metrics: Mapping[str, float], tables: Mapping[str, Table],
               files: Mapping[str, str]) -> None:
    """Give a run that has no ledger its metrics, its tables (Parquet, by name) and its files (text, by name), once."""
    client = _client(_database())
    for batch in _batches(_metrics(metrics), METRICS_PER_BATCH):
        client.log_batch(active.id, metrics=batch)
    folder = _unfinished(active)
    folder.mkdir(parents=True)
    for name, table in tables.items():
        store.write_table(folder / f"{name}.parquet", table)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    os.rename(folder, active.artifacts)


def trace(active: Active, calls: Sequence[Mapping[str, Any]]) -> None:
    """Each call of a model as a trace of the run: its `question`, its `replies`, and beside them what else it says."""
    import mlflow
    from mlflow.environment_variables import MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE
    from mlflow.tracing.constant import TraceMetadataKey

    experiment = _client(_database()).get_run(active.id).info.experiment_id
    mlflow.set_tracking_uri(f"sqlite:///{_database()}")
    at_a_time = max(1, MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE.get() // 4)
    for k, call in enumerate(calls, 1):
        span = mlflow.start_span_no_context(
            "ask", span_type="CHAT_MODEL", inputs={"messages": call["question"]}, experiment_id=experiment,
            attributes={name: value for name, value in call.items() if name not in ("question", "replies")},
            metadata={TraceMetadataKey.SOURCE_RUN: active.id})
        span.end(outputs={"replies": call["replies"]})
        if k % at_a_time == 0:                          # MLflow discards what its queue has no room for
            mlflow.flush_trace_async_logging()
    mlflow.flush_trace_async_logging()


def log_run(*, study: str, name: str, signature: str, params: Mapping[str, Any], tags: Mapping[str, str],
            metrics: Mapping[str, float], ledger: Ledger, config_yaml: str, page: str) -> str:
    """`run` and `log` in one, for what has been computed already. Returns the run's id."""
    with run(study=study, name=name, signature=signature, params=params, tags=tags) as active:
        log(active, metrics=metrics, ledger=ledger, config_yaml=config_yaml, page=page)
    return active.id


def _unfinished(active: Active) -> Path:
    return active.artifacts.with_name("unfinished")


def _metrics(metrics: Mapping[str, float]) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, float(metrics[name]), now, 0) for name, key in _keys(metrics).items()
            if math.isfinite(metrics[name])]


def _equity_curve(ledger: Ledger) -> list[Metric]:
    """The metric `equity`: steps are sessions, timestamps their dates."""
    from mlflow.entities import Metric

    dates, equity = ledger.account["date"], ledger.account["equity"]
    steps = np.unique(np.linspace(0, len(equity) - 1, EQUITY_POINTS).round().astype(int))
    stamps = dates.astype("datetime64[ms]").astype(np.int64)
    return [Metric("equity", float(equity[i]), int(stamps[i]), int(i)) for i in steps if math.isfinite(equity[i])]


def _params(params: Mapping[str, Any]) -> list[Param]:
    from mlflow.entities import Param

    flat = _flatten(params)
    return [Param(key, _written(flat[name])[:LONGEST_PARAM]) for name, key in _keys(flat).items()]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _written(value: Any) -> str:
    """As it would be typed on the command line: true, null, [SPY,QQQ] are JSON, strings are themselves."""
    return value if isinstance(value, str) else json.dumps(value)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(tags[name])[:LONGEST_TAG] for name, key in _keys(tags).items()}


def _keys(names: Mapping[str, Any]) -> dict[str, str]:
    """Each name as a key that MLflow takes: letters, digits and `_-. ` only, no dot in front, 250 characters.

    Raises ValueError where two names would become one key.
    """
    keys = {name: re.sub(r"^\.|[^\w\-. ]", "_", name)[:LONGEST_KEY] or "_" for name in names}
    if len(set(keys.values())) < len(keys):
        taken = list(keys.values())
        twice = sorted(name for name, key in keys.items() if taken.count(key) > 1)
        raise ValueError(f"MLflow has one key for all of {', '.join(map(repr, twice))}")
    return keys


def _batches(items: list, size: int) -> Iterator[list]:
    return (items[i:i + size] for i in range(0, len(items), size))


# ---- reading ---------------------------------------------------------------------------------------------------------

def find(signature: str, study: str) -> dict[str, Any] | None:
    """The newest finished run of `study` with that signature whose artifacts are there, as a row of `runs`, or None."""
    rows = _search([study], f"tags.signature = '{signature}' and attributes.status = 'FINISHED'", most=1)
    return rows[0] if rows and rows[0]["artifacts"].is_dir() else None


def runs(study: str, order_by: str = "sharpe", kind: str = "backtest") -> list[dict[str, Any]]:
    """The finished runs of `study` of one kind, the highest `order_by` first, those without it last.

    A row has run_id, name, study, started (UTC, ISO), order (by which runs sort as they were asked for, in the order of
    their sweep), artifacts (the folder), every metric by its own name, and `params.<key>` and `tags.<key>`. Of runs with the same signature only the newest is there.
    """
    newest: dict[str, dict[str, Any]] = {}
    for row in _search([study], f"attributes.status = 'FINISHED' and tags.kind = '{kind}'", most=None):
        newest.setdefault(row.get("tags.signature", row["run_id"]), row)
    return sorted(newest.values(), key=lambda row: -row.get(order_by, -math.inf))


def logged(data_source: str) -> list[tuple[str, str, str, str]]:
    """Signature, study, kind and universe of every finished backtest on a store, by the store's name."""
    where = f"attributes.status = 'FINISHED' and tags.kind = 'backtest' and tags.data_source = '{data_source}'"
    return [(row["tags.signature"], row["study"], "backtest", row["tags.universe"])
            for row in _search(None, where, most=None)]


def finished(kind: str) -> list[dict[str, Any]]:
    """The finished runs of a kind (validation, evaluation) in all studies, the newest first, as rows of `runs`."""
    return _search(None, f"attributes.status = 'FINISHED' and tags.kind = '{kind}'", most=None)


def count_failed(study: str) -> int:
    """How many runs of `study` failed."""
    return len(_search([study], "attributes.status = 'FAILED'", most=None))


def last_run(kind: str) -> dict[str, Any] | None:
    """The newest finished run of that kind (backtest) in any study, as a row of `runs`; None where there is none."""
    rows = _search(None, f"tags.kind = '{kind}' and attributes.status = 'FINISHED'", most=1)
    return rows[0] if rows else None


def get(run_id: str) -> dict[str, Any]:
    """The run of that id, or of the only id that begins so, as a row of `runs`; of any kind, finished or not.

    Raises ConfigError where there is none, or more than one.
    """
    rows = _search(None, f"attributes.run_id LIKE '{run_id}%'", most=3) if re.fullmatch("[0-9a-f]+", run_id) else []
    if not rows:
        raise ConfigError(f"run={run_id!r} is not the id of a run in {_database()}, nor the beginning of one")
    if len(rows) > 1:
        raise ConfigError(f"run={run_id!r} is the beginning of several ids: "
                          f"{', '.join(row['run_id'][:len(run_id) + 4] for row in rows)}; give more of it")
    return rows[0]


def _search(studies: Sequence[str] | None, where: str, most: int | None) -> list[dict[str, Any]]:
    """Rows of the runs of `studies` (None: all) for which `where` holds, the newest first, at most `most`."""
    if not _database().exists():
        return []
    client = _client(_database())
    names = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()
             if studies is None or experiment.name in studies}
    rows: list[dict[str, Any]] = []
    token = None
    while names:
        page = client.search_runs(list(names), where, max_results=most or 1000, order_by=["attributes.start_time DESC"],
                                  page_token=token)
        rows += [_row(found, names[found.info.experiment_id]) for found in page]
        token = page.token
        if not token or most is not None:
            break
    return rows


def _row(found: Run, study: str) -> dict[str, Any]:
    started = np.datetime64(found.info.start_time, "ms")      # a sweep starts several runs a second
    return {"run_id": found.info.run_id, "name": found.info.run_name, "study": study, "started": str(started),
            "order": found.data.tags.get("job", str(started)), "artifacts": _local(found.info.artifact_uri), **found.data.metrics,
            **{f"params.{key}": value for key, value in found.data.params.items()},
            **{f"tags.{key}": value for key, value in found.data.tags.items()}}


# ---- what is in production -------------------------------------------------------------------------------------------

REGISTERED, CHAMPION = "mahler-production", "champion"


@contextmanager
def promoting() -> Iterator[None]:
    """Held by one process at a time, from the first file of a promotion to the last: two cannot interleave."""
    with _lock(home.mlruns_dir() / "production"):
        yield


def register(source: Path, run_id: str, tags: Mapping[str, str]) -> int:
    """A new version of the production config, whose files are in the folder `source`. It is no champion yet."""
    client = _client(_database())
    if not client.search_registered_models(f"name = '{REGISTERED}'"):
        client.create_registered_model(REGISTERED, description="Promoted configs; the champion is what is traded.")
    return int(client.create_model_version(REGISTERED, str(source), run_id, tags=_tags(tags)).version)


def crown(version: int, tags: Mapping[str, str] = MappingProxyType({})) -> None:
    """Make a version the champion, and add `tags` to it."""
    client = _client(_database())
    for key, value in _tags(tags).items():
        client.set_model_version_tag(REGISTERED, str(version), key, value)
    client.set_registered_model_alias(REGISTERED, CHAMPION, str(version))


def versions() -> list[dict[str, Any]]:
    """What was ever registered, the newest first: version, champion (bool), source (folder), run_id, `tags.<key>`."""
    if not _database().exists():
        return []
    client = _client(_database())
    models = client.search_registered_models(f"name = '{REGISTERED}'")
    first = int(models[0].aliases.get(CHAMPION, 0)) if models else 0
    found = [{"version": int(one.version), "champion": int(one.version) == first, "source": _local(one.source),
              "run_id": one.run_id, **{f"tags.{key}": value for key, value in one.tags.items()}}
             for one in client.search_model_versions(f"name = '{REGISTERED}'")]
    return sorted(found, key=lambda one: -one["version"])


# ---- the store -------------------------------------------------------------------------------------------------------

def _database() -> Path:
    return home.mlruns_dir() / "mlflow.db"


def _local(uri: str) -> Path:
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(uri))


def load() -> None:
    """Import what logging needs, some seconds of it: for a process that has nothing else to do yet."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@cache
def _client(database: Path) -> MlflowClient:
    """A client of the store, which is made where it is not there.

    Processes that make it at once break it for good, so one makes it and the others wait. What a process that died
    at it left behind is removed.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _lock(database.parent):
        making = database.with_name("mlflow.db.making")
        if making.exists():
            for path in database.parent.glob("mlflow.db*"):
                path.unlink()
        if database.exists():
            _check_sqlite(database)
        else:
            making.touch()
        client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        try:
            client.search_experiments(max_results=1)             # the store is made when it is first asked something
        except MlflowException as error:
            raise ConfigError(f"{database} cannot be opened: {error}") from error
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")        # kept in the file: writers do not block readers
        making.unlink(missing_ok=True)
    return client


def _check_sqlite(database: Path) -> None:
    """Raise ConfigError if the file is not a database: MLflow would retry for minutes."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{database} is not an MLflow store ({error}); move it away and a new one is made") from error


def _experiment(study: str) -> str:
    """The id of the study's experiment, made where it is not there, with its artifacts in a folder of its name.

    Raises ConfigError where the study was deleted in the MLflow UI.
    """
    client = _client(_database())
    with _lock(_database().parent):
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            folder = home.mlruns_dir() / "artifacts" / re.sub(r"[^\w\-.]", "_", study)
            return client.create_experiment(study, artifact_location=str(folder))
    if experiment.lifecycle_stage != "active":
        raise ConfigError(f"study={study} was deleted in the MLflow UI: restore it there, or name another study")
    return experiment.experiment_id


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        flock(file, LOCK_EX)
        yield
