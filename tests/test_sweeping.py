"""The jobs of a sweep in several processes: the same runs. (What is said where one goes wrong: test_cli.py.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mahler import findings, sweeping, tracking
from mahler.workers import Beside
from tests.conftest import PERIOD, mahler


class Ready(Beside):
    """A process that is there when the first job is taken, and counts what it did."""

    did = 0

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        assert self.ready()

    def do(self, *arguments):
        Ready.did += 1
        return super().do(*arguments)


def figures(study: str) -> dict[str, dict[str, float]]:
    rows = tracking.runs(study)
    return {row["name"]: {k: v for k, v in row.items() if isinstance(v, float)} for row in rows}


def test_the_runs_of_two_processes_are_those_of_one(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "Beside", Ready)
    monkeypatch.setattr(sweeping.workers, "cores", lambda: 2)
    monkeypatch.setattr(Ready, "did", 0)
    arguments = ["backtest", "-m", *PERIOD, "classifier=rule", "universe=spy,qqq", "limits.max_heat=0.1,0.2"]
    two = mahler(at_home, *arguments, "study=two")
    monkeypatch.setattr(sweeping.workers, "cores", lambda: 1)
    one = mahler(at_home, *arguments, "study=one")
    assert two.returncode == one.returncode == 0, two.stderr + one.stderr
    assert "in up to 2 processes" in two.stdout and "in up to" not in one.stdout
    assert 1 <= Ready.did <= 3
    numbers = re.findall(r"\t#(\d) : .*\n((?:\S.*\n)(?:  .*\n)*)", two.stdout)
    assert sorted(number for number, _ in numbers) == list("0123")
    assert all("CAGR" in said for _, said in numbers)           # each job's words stand under its own line
    assert len(figures("two")) == 4 and figures("two") == figures("one")
    for study in ("two", "one"):                                # runs sort as they were asked for, whoever made them when
        assert [(row["tags.universe"], row["params.limits.max_heat"]) for row in findings.newest(tracking.runs(study))] == [
            (universe, heat) for universe in ("SPY", "QQQ") for heat in ("0.1", "0.2")]
    assert "\x1b" not in two.stdout and two.stderr == ""


class Unstarted:
    def __init__(self, prepare) -> None:
        pass

    def end(self) -> None:
        pass


def test_few_jobs_or_another_verb_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "Beside", Unstarted)
    for verb, jobs, cores, n in (("backtest", 3, 2, 0), ("backtest", 4, 2, 1), ("backtest", 12, 16, 5),
                                 ("evaluate", 12, 2, 0), ("backtest", 12, 1, 0)):
        monkeypatch.setattr(sweeping.workers, "cores", lambda: cores)
        with sweeping.beside(verb, jobs) as others:
            assert len(others) == n
