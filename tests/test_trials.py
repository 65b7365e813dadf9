"""The trial ledger: N never goes down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mahler import tracking, trials
from mahler.commands import backtest as command
from mahler.schema import ConfigError
from mahler.trials import Trial
from tests.conftest import PERIOD, default_config, mahler


def test_a_signature_counts_once_and_a_search_counts_all_its_cells(tmp_path) -> None:
    trials.record(tmp_path, [Trial("a", "grid", "backtest", "SPY", 1), Trial("b", "grid", "backtest", "SPY", 1)])
    trials.record(tmp_path, [Trial("a", "again", "backtest", "SPY", 1), Trial("w", "walk", "search", "SPY", 10_000)])
    found = trials.read(tmp_path)
    assert trials.total(found) == 10_002 and trials.by_study(found) == {"walk": 10_000, "grid": 2}


def test_two_writers_at_once_lose_nothing(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: trials.record(tmp_path, [Trial(f"{k}", "s", "backtest", "SPY", 1)]), range(200)))
    assert trials.total(trials.read(tmp_path)) == 200


def test_a_damaged_line_is_named(tmp_path) -> None:
    trials.record(tmp_path, [Trial("a", "s", "backtest", "SPY", 1)])
    with open(tmp_path / trials.FILE, "a", encoding="utf-8") as file:
        file.write('{"signature": "b"\n')
    with pytest.raises(ConfigError, match="line 2"):
        trials.read(tmp_path)


def test_deleting_the_runs_in_mlflow_does_not_lower_the_count(at_home) -> None:
    root = command.store_root(default_config().data)
    before = trials.total(trials.read(root))
    arguments = ["backtest", "-m", *PERIOD, "universe=spy", "classifier=rule", "study=counted", "entry.per_day=2,3"]
    assert mahler(at_home, *arguments).returncode == 0
    assert trials.total(trials.read(root)) == before + 2
    for row in tracking.runs("counted"):
        tracking._client(tracking._database()).delete_run(row["run_id"])
    assert tracking.runs("counted") == [] and trials.total(trials.read(root)) == before + 2
    assert mahler(at_home, *arguments).returncode == 0            # the same two, run again
    assert trials.total(trials.read(root)) == before + 2
