"""Tracking: what a run leaves in MLflow, how it is found again, and what a failure and a crowd of processes leave."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mahler import ledger as ledgers, metrics, tracking
from mahler.ledger import Ledger
from mahler.schema import ConfigError
from tests.ledgers import random_ledger

PARAMS = {"entry": {"min_delta": 0.05, "widths": [5.0], "side": "both"}, "exit": {}, "force": False, "seed": None}
TAGS = tracking.describe(kind="backtest", data_source="synthetic-1a2b3c4d", data_digest="d" * 64, synthetic=True,
                         universe=["QQQ", "SPY"], overrides=["regime=prod", "limits.max_heat=0.1"])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One project, with a space in its path, for the whole file: a store takes two seconds to make."""
    folder = tmp_path_factory.mktemp("a project")
    before = os.environ.get("MAHLER_HOME")
    os.environ["MAHLER_HOME"] = str(folder)
    yield folder
    del os.environ["MAHLER_HOME"]
    if before is not None:
        os.environ["MAHLER_HOME"] = before


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return random_ledger(np.random.default_rng(11), n_days=700, n_trades=100)


def log(ledger: Ledger, study: str, *, name: str = "prod, QQQ", signature: str = "a" * 64, params: dict = PARAMS,
        tags: dict = TAGS, extra: dict | None = None) -> str:
    return tracking.log_run(study=study, name=name, signature=signature, params=params, tags=tags,
                            metrics=metrics.summary(ledger) | (extra or {}), ledger=ledger,
                            config_yaml="entry:\n  side: both\n", page="<!doctype html>")


def client(home: Path):
    from mlflow import MlflowClient
    return MlflowClient(tracking_uri=f"sqlite:///{home}/mlruns/mlflow.db")


# ---- what a run leaves -----------------------------------------------------------------------------------------------

def test_without_a_store_there_are_no_runs_and_mlflow_is_not_imported(tmp_path):
    code = ("import sys; from mahler import tracking\n"
            "assert tracking.find('a' * 64, 's') is None and tracking.runs('s') == []\n"
            "assert tracking.last_run('backtest') is None and 'mlflow' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MAHLER_HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_a_run_has_its_params_metrics_tags_and_artifacts(home, ledger):
    run_id = log(ledger, "whole")
    row = tracking.get(run_id)
    assert (row["run_id"], row["name"], row["study"]) == (run_id, "prod, QQQ", "whole")
    assert {key: value for key, value in row.items() if key.startswith("params.")} == {
        "params.entry.min_delta": "0.05", "params.entry.widths": "[5.0]", "params.entry.side": "both",
        "params.exit": "{}", "params.force": "false", "params.seed": "null"}
    tags = {"kind": "backtest", "data_source": "synthetic-1a2b3c4d", "data_digest": "d" * 36, "market": "synthetic",
            "universe": "QQQ,SPY", "overrides": "regime=prod limits.max_heat=0.1", "signature": "a" * 64}
    assert {key: row[f"tags.{key}"] for key in tags} == tags
    for name, value in metrics.summary(ledger).items():
        assert row[name] == pytest.approx(value), name
    assert sorted(path.name for path in row["artifacts"].iterdir()) == [
        "account.parquet", "config.yaml", "funnel.parquet", "ledger.json", "page.html", "rejections.parquet",
        "trades.json", "trades.parquet"]
    assert row["artifacts"].is_relative_to(home / "mlruns" / "artifacts" / "whole")
    np.testing.assert_array_equal(ledgers.read(row["artifacts"]).account["equity"], ledger.account["equity"])
    assert len(json.loads((row["artifacts"] / "trades.json").read_text())) == 100


def test_mlflow_lists_the_artifacts_where_they_are(home, ledger):
    run_id = log(ledger, "whole", signature="b" * 64)
    assert {file.path for file in client(home).list_artifacts(run_id)} >= {"page.html", "trades.parquet"}


def test_the_equity_curve_is_a_series_of_at_most_200_points_with_both_ends(home, ledger):
    history = client(home).get_metric_history(log(ledger, "whole", signature="c" * 64), "equity")
    assert 190 <= len(history) <= 200
    history.sort(key=lambda point: point.step)
    assert (history[0].step, history[-1].step) == (0, 699)
    assert history[-1].value == pytest.approx(ledger.account["equity"][-1])
    assert np.datetime64(history[-1].timestamp, "ms").astype("datetime64[D]") == ledger.account["date"][-1]


def test_what_is_undefined_is_not_logged(home, ledger):
    row = tracking.get(log(ledger, "odd", extra={"nan": np.nan, "inf": np.inf, "minus": -np.inf, "zero": 0.0}))
    assert not {"nan", "inf", "minus"} & row.keys() and row["zero"] == 0.0


def test_a_run_without_trades_is_a_run(home):
    empty = random_ledger(np.random.default_rng(0), n_days=30, n_trades=0)
    row = tracking.get(log(empty, "odd", signature="e" * 64))
    assert row["trades"] == 0.0 and "sharpe" not in row
    assert json.loads((row["artifacts"] / "trades.json").read_text()) == []


def test_what_is_learnt_on_the_way_becomes_a_tag(home):
    with tracking.run(study="odd", name="r", signature="0" * 64, params={}, tags=TAGS) as active:
        tracking.tag(active, {"source.vix": "atm_iv of SPY"})
    assert tracking.get(active.id)["tags.source.vix"] == "atm_iv of SPY"


def test_keys_and_values_that_mlflow_refuses_are_made_fit(home, ledger):
    params = {"limits@heat%": 1, "a(b)=c": "x" * 7000, "../up": 2, ".": 3} | {f"p{i}": i for i in range(250)}
    row = tracking.get(log(ledger, "odd", params=params, tags=TAGS | {"a=b": "y" * 9000}))
    assert (row["params.limits_heat_"], row["params._._up"]) == ("1", "2")
    assert (row["params._"], row["params.p249"]) == ("3", "249")
    assert len(row["params.a_b__c"]) == 6000 and len(row["tags.a_b"]) == 5000


def test_two_names_with_one_key_are_refused(home, ledger):
    with pytest.raises(ValueError, match=r"'a%b', 'a@b'"):
        log(ledger, "odd", params={"a@b": 1, "a%b": 2})


# ---- signatures ------------------------------------------------------------------------------------------------------

def test_a_signature_depends_on_config_data_and_code_and_on_nothing_else():
    base = tracking.signature({"a": 1, "b": {"c": [1.5, 2]}}, "data", "code")
    assert base == tracking.signature({"b": {"c": [1.5, 2]}, "a": 1}, "data", "code")
    others = {tracking.signature({"a": 1, "b": {"c": [1.5, 3]}}, "data", "code"),
              tracking.signature({"a": 1, "b": {"c": [1.5, 2]}}, "DATA", "code"),
              tracking.signature({"a": 1, "b": {"c": [1.5, 2]}}, "data", "CODE")}
    assert len(others | {base}) == 4 and len(base) == 64


def test_a_signature_of_a_missing_number_is_refused():
    with pytest.raises(ValueError):
        tracking.signature({"a": float("nan")}, "data", "code")


def test_the_same_signature_is_found_in_its_study_only(home, ledger):
    run_id = log(ledger, "reuse", signature="1" * 64)
    assert tracking.find("1" * 64, "reuse")["run_id"] == run_id
    assert tracking.find("2" * 64, "reuse") is None
    assert tracking.find("1" * 64, "whole") is None
    assert tracking.find("1" * 64, "no such study") is None


def test_a_run_whose_artifacts_were_deleted_is_made_again(home, ledger):
    log(ledger, "reuse", signature="3" * 64)
    row = tracking.find("3" * 64, "reuse")
    row["artifacts"].rename(row["artifacts"].with_name("gone"))
    assert tracking.find("3" * 64, "reuse") is None


def test_the_commit_is_a_tag_in_a_checkout_and_absent_outside(tmp_path):
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments],
                              check=True, capture_output=True, text=True).stdout.strip()

    packages = [tmp_path / name for name in ("mahler", "venv/mahler")]
    for package in packages:
        package.mkdir(parents=True)
    assert tracking.git_tags(packages[0]) == {}                     # no repository
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    tracking.git_tags.cache_clear()
    assert tracking.git_tags(packages[0]) == {"git_commit": git("rev-parse", "HEAD"), "git_dirty": "false"}
    assert tracking.git_tags(packages[1]) == {}                     # a venv inside another's checkout
    (packages[0] / "edited.py").touch()
    tracking.git_tags.cache_clear()
    assert tracking.git_tags(packages[0])["git_dirty"] == "true"


# ---- failures --------------------------------------------------------------------------------------------------------

def only_run(home: Path, study: str):
    (found,) = client(home).search_runs([client(home).get_experiment_by_name(study).experiment_id])
    return found


def test_a_run_that_fails_is_marked_with_its_error_and_never_found(home):
    with pytest.raises(ZeroDivisionError):
        with tracking.run(study="failing", name="r", signature="4" * 64, params=PARAMS, tags=TAGS):
            1 / 0
    found = only_run(home, "failing")
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "ZeroDivisionError: division by zero")
    assert found.data.params["entry.side"] == "both"
    assert tracking.find("4" * 64, "failing") is None and tracking.runs("failing") == []


def test_a_failure_while_artifacts_are_written_leaves_none(home, ledger):
    broken = replace(ledger, account=ledger.account | {"heat": ledger.account["heat"][:5]})      # the third file
    with pytest.raises(ValueError):
        with tracking.run(study="half", name="r", signature="5" * 64, params={}, tags=TAGS) as active:
            tracking.log(active, metrics={}, ledger=broken, config_yaml="", page="")
    assert only_run(home, "half").info.status == "FAILED"
    assert not list(active.artifacts.parent.iterdir())


def test_a_failure_after_the_artifacts_were_written_leaves_none(home, ledger):
    with pytest.raises(RuntimeError):
        with tracking.run(study="late", name="r", signature="6" * 64, params={}, tags=TAGS) as active:
            tracking.log(active, metrics={"a": 1.0}, ledger=ledger, config_yaml="", page="")
            raise RuntimeError("two\nlines")
    assert only_run(home, "late").data.tags["error"] == "RuntimeError: two lines"
    assert not active.artifacts.exists()


def test_an_interrupted_run_is_killed_not_failed(home):
    with pytest.raises(KeyboardInterrupt):
        with tracking.run(study="stopped", name="r", signature="7" * 64, params={}, tags=TAGS):
            raise KeyboardInterrupt
    assert only_run(home, "stopped").info.status == "KILLED"


def test_a_deleted_study_is_refused_by_name(home, ledger):
    log(ledger, "deleted")
    client(home).delete_experiment(client(home).get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ConfigError, match="study=deleted was deleted"):
        log(ledger, "deleted")


def test_a_file_that_is_not_a_store_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_text("no database " * 100)
    with pytest.raises(ConfigError, match="is not an MLflow store"):
        tracking.runs("any")


def test_an_id_that_is_no_run_is_refused(home):
    for run_id in ("f" * 32, "' or 1=1"):
        with pytest.raises(ConfigError, match="is not the id of a run"):
            tracking.get(run_id)


# ---- lists -----------------------------------------------------------------------------------------------------------

def test_runs_are_the_newest_of_each_signature_the_best_first_and_the_undefined_last(home, ledger):
    for name, sharpe, signature in (("low", 0.5, "a"), ("old", 9.0, "b"), ("high", 1.5, "c"), ("new", 1.0, "b")):
        log(ledger, "table", name=name, signature=signature * 64, extra={"sharpe": sharpe})
    flat = random_ledger(np.random.default_rng(0), n_days=30, n_trades=0)
    log(flat, "table", name="flat", signature="d" * 64)
    assert [row["name"] for row in tracking.runs("table")] == ["high", "new", "low", "flat"]
    assert [row["name"] for row in tracking.runs("table", order_by="trades")][-1] == "flat"


def test_runs_of_one_second_are_told_apart_by_their_start(home, ledger):
    ids = [log(ledger, "sweep", name=str(k), signature=str(k) * 64, extra={"sharpe": float(k % 2)}) for k in range(4)]
    rows = tracking.runs("sweep")
    assert [row["run_id"] for row in sorted(rows, key=lambda row: row["started"])] == ids
    assert {row["run_id"]: np.datetime64(row["started"]).astype(int) for row in rows} == {
        run_id: client(home).get_run(run_id).info.start_time for run_id in ids}


def test_the_last_run_is_the_newest_of_its_kind_in_any_study(home, ledger):
    run_id = log(ledger, "somewhere", signature="8" * 64)
    log(ledger, "elsewhere", signature="9" * 64, tags=TAGS | {"kind": "evaluate"})
    assert tracking.last_run("backtest")["run_id"] == run_id
    assert tracking.last_run("evaluate")["study"] == "elsewhere"
    assert tracking.last_run("scan") is None


# ---- processes -------------------------------------------------------------------------------------------------------

WORKER = """
import sys
import numpy as np
from mahler import tracking
from tests.ledgers import random_ledger
ledger = random_ledger(np.random.default_rng(1), n_days=30, n_trades=5)
for i in range(4):
    tracking.log_run(study=f"study {i % 2}", name=sys.argv[1], signature=sys.argv[1] * 32 + str(i) * 32,
                     params={"i": i}, tags={"kind": "backtest"}, metrics={"i": i}, ledger=ledger, config_yaml="", page="")
"""


def test_processes_that_start_at_once_without_a_store_make_one_and_share_it(tmp_path, monkeypatch):
    """The store is also left half made by a process that died: the first to come makes it anew."""
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    mlruns = tmp_path / "mlruns"
    mlruns.mkdir()
    (mlruns / "mlflow.db").write_bytes(b"half a database")
    (mlruns / "mlflow.db.making").touch()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, name], env=environment, stderr=subprocess.PIPE,
                                text=True) for name in "abc"]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0 and errors == "", errors
    assert len(tracking.runs("study 0")) == len(tracking.runs("study 1")) == 6
    assert not (mlruns / "mlflow.db.making").exists()
    with closing(sqlite3.connect(mlruns / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_more_traces_than_mlflows_queue_takes_are_all_kept(tmp_path):
    code = """
from mahler import tracking
with tracking.run(study="traced", name="many", signature="a" * 64, params={}, tags={}) as active:
    tracking.trace(active, [{"question": [], "replies": [], "status": "decision"}] * 60)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {
        "MAHLER_HOME": str(tmp_path), "MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE": "32"})
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as db:
        assert db.execute("SELECT count(*) FROM trace_info").fetchone() == (60,)
