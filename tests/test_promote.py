"""`mahler promote` from the command line, on a small market that was made: what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from mahler import cache, cli, production, tracking
from mahler.paper import records
from tests.conftest import PERIOD
from tests.llm_server import LlmServer
from tests.test_cli import Outcome

COMMIT = "c" * 40
QUICK = ["method.train=12", "method.test=6", "method.step=6", "method.replications=100", "method.pbo_replications=19",
         "method.shifts=[0]", "method.workers=1"]
MADE = ["override.gate=synthetic", "override.reason=a rehearsal", "bands.replications=500"]


@pytest.fixture(scope="module")
def desk(synthetic_home: Path, tmp_path_factory) -> Iterator[Path]:
    """A home with a judged study of two limits, and the promotion of its control: version 1."""
    folder, patch = tmp_path_factory.mktemp("desk"), pytest.MonkeyPatch()
    shutil.copytree(synthetic_home / "data" / "chains", folder / "data" / "chains", copy_function=os.link)
    for ledger in folder.glob("data/chains/*/trials.jsonl"):
        ledger.unlink()                                             # nothing was tried on it
    patch.setenv("MAHLER_HOME", str(folder))
    patch.setattr(tracking, "git_state", lambda _: (COMMIT, []))
    for arguments in (["backtest", "-m", *PERIOD, "classifier=rule", "universe=spy", "study=two", "limits=moderate,tight"],
                      ["validate", "study=two", *QUICK], ["promote", "study=two", *MADE]):
        assert cli.main(arguments) == 0
    yield folder
    patch.undo()


@pytest.fixture
def mahler(desk: Path, capfd) -> Callable[..., Outcome]:
    """The command line, in this process, at the desk."""
    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        status = cli.main(arguments)
        return Outcome(status, *capfd.readouterr(), [])
    return run


def run_of(limits: str) -> dict:
    return next(row for row in tracking.runs("two") if f"limits={limits}" in row["name"])


def champion() -> dict:
    return next(one for one in tracking.versions() if one["champion"])


def read_there(desk: Path) -> dict:
    return production.read(desk / "conf" / "experiment")


# ---- promote ---------------------------------------------------------------------------------------------------------

def test_a_study_without_evidence_promotes_its_control_and_says_where_it_comes_from(desk) -> None:
    text = (desk / "conf" / "experiment" / "production.yaml").read_text()
    row, version = run_of("moderate"), tracking.versions()[-1]
    for said in (row["run_id"], row["tags.data_digest"], COMMIT, cache.code_version(), "overridden.synthetic: The market",
                 "gates_passed: clean_tree, validation", "override_reason: a rehearsal"):
        assert f"{said}" in text.partition("defaults:")[0], said
    assert version["version"] == 1 and version["run_id"] == row["run_id"]
    assert version["source"].is_dir() and version["source"].is_relative_to(row["artifacts"])
    assert version["tags.override_reason"] == "a rehearsal" and version["tags.verdict"] == "no evidence"
    assert read_there(desk)["run_id"] == row["run_id"] and read_there(desk)["market"] == "synthetic"
    bands = json.loads((desk / "conf" / "experiment" / "bands.json").read_text())
    assert bands == json.loads((version["source"] / "bands.json").read_text()) and bands["trades"] == row["trades"]


def test_the_promoted_config_is_found_by_name_and_reproduces_every_metric(desk, mahler) -> None:
    mahler("promote", "rollback", "version=1")
    done = mahler("backtest", "experiment=production")
    assert done.status == 0 and "SPY experiment=production" in done.out, done.err
    promoted, again = run_of("moderate"), tracking.runs("production")[0]
    numbers = {key for key, value in promoted.items() if isinstance(value, float)}
    assert len(numbers) > 100 and again["run_id"] != promoted["run_id"]
    assert {key: again.get(key) for key in numbers} == {key: promoted[key] for key in numbers}
    assert again["tags.config"] == promoted["tags.config"]


def test_what_changes_no_number_is_not_promoted_and_may_get_a_new_key(desk, mahler) -> None:
    promoted = yaml.safe_load((desk / "conf" / "experiment" / "production.yaml").read_text())
    assert "quality" not in promoted and "force" not in promoted and promoted["study"] == "production"
    assert mahler("backtest", "experiment=production", "quality=desk", "--cfg", "job").status == 0


def test_a_value_of_the_promoted_config_is_changed_by_its_key_and_not_by_an_option(mahler) -> None:
    shown = mahler("backtest", "experiment=production", "limits.max_heat=0.1", "--cfg", "job")
    assert shown.status == 0 and yaml.safe_load(shown.out)["limits"]["max_heat"] == 0.1
    refused = mahler("backtest", "experiment=production", "limits=tight")
    assert refused.line.startswith("mahler: limits=tight: experiment=production has values in place of an option")


@pytest.mark.parametrize("state, gate", [((COMMIT, []), "[synthetic]"), ((COMMIT, ["a.py"]), "[synthetic]")])
def test_a_gate_refuses_on_one_line_and_nothing_is_written(desk, mahler, monkeypatch, state, gate) -> None:
    before = (read_there(desk), len(tracking.versions()))
    monkeypatch.setattr(tracking, "git_state", lambda _: state)
    refused = mahler("promote", "study=two")
    assert refused.line.startswith(f"mahler: not promoted: {gate} The market of synthetic") and "REFUSES" in refused.out
    assert ("[clean_tree] 1 files differ" in refused.line) == bool(state[1])
    assert (read_there(desk), len(tracking.versions())) == before


def test_the_winner_is_promoted_where_the_verdict_is_that_it_is_better(mahler, monkeypatch) -> None:
    runs = tracking.runs
    monkeypatch.setattr(tracking, "runs", lambda study, *rest, **kind: [
        row | {"tags.verdict": "better than control"} if kind else row for row in runs(study, *rest, **kind)])
    refused = mahler("promote", "study=two", *MADE)
    judgement = json.loads((runs("two", kind="validation")[0]["artifacts"] / "judgement.json").read_text())
    winner = judgement["winners"][0][0]
    assert f"what is promoted is the winner, {winner}\n{winner}: found, run" in refused.out
    assert "[validation] In validation" in refused.line and "it was chosen, and the verdict is no evidence" in refused.line


def test_what_the_study_did_not_choose_is_refused_for_its_own_reasons(mahler) -> None:
    refused = mahler("promote", f"run={run_of('tight')['run_id'][:8]}", *MADE).line
    for gate in ("validation", "deflated_sharpe", "pbo", "natural_fill"):
        assert f"[{gate}]" in refused
    assert "[synthetic]" not in refused and "[holdout]" not in refused


def test_a_validation_of_other_days_does_not_stand_for_this_run_and_does_not_hide_one_that_does(mahler, monkeypatch) -> None:
    row, finished = run_of("moderate"), tracking.finished
    of_this = finished("validation")
    short = [one | {"tags.period": "2018-01-01 to 2020-01-31"} for one in of_this]
    for found, said in ((short, "REFUSES     validation       Validation"), (short + of_this, "passed      validation")):
        monkeypatch.setattr(tracking, "finished", lambda kind: found)
        out = mahler("promote", f"run={row['run_id']}").out
        assert said in out and ("period, 2018-01-01 to 2020-01-31, than" in out) == (found is short)


def test_a_second_look_at_the_holdout_is_refused_and_the_first_is_not(desk, mahler) -> None:
    held_out = ["holdout.start=2020-01-01", "holdout.end=2020-06-30"]
    refused = mahler("promote", "study=two", *MADE, *held_out).line
    assert "[holdout] The holdout, 2020-01-01 to 2020-06-30, was looked at by 1 other configs (two)" in refused
    ledger, = desk.glob("data/chains/*/trials.jsonl")
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if run_of("tight")["tags.config"] not in line))
    try:
        assert "passed      holdout" in mahler("promote", "study=two", *held_out).out
    finally:
        ledger.write_text("".join(lines))


@pytest.mark.parametrize("arguments, said", [
    ([], "mahler promote takes run=ID or study=NAME, one of the two"),
    (["run=last", "study=two"], "mahler promote takes run=ID or study=NAME, one of the two"),
    (["run=ffffffff"], "run='ffffffff' is not the id of a run"),
    (["study=none"], "study=none: no validation; mahler validate study=none"),
    (["study=two", "tickers=[QQQ]"], "study=two: which universe is meant? tickers=[SPY]"),
    (["study=two", "override.gate=synthetic"], "override.gate=synthetic: a gate is overridden with a reason"),
    (["study=two", "override.gate=real"], "override.gate=real: no such gate; the gates are synthetic, clean_tree"),
    (["study=two", "llm_run=ffffffff"], "run='ffffffff' is not the id of a run"),
    (["rollback"], "mahler promote rollback takes version=N"), (["rollback", "version=99"], "version=99: no such version"),
    (["diff", "a=1"], "mahler promote diff takes a=N b=M"), (["diff", "a=1", "b=99"], "b=99: no such version"),
    (["lst"], "promote lst: no such action; promote has promote, list, rollback, diff; did you mean list?"),
])
def test_bad_input_is_refused_on_one_line(mahler, arguments, said) -> None:
    assert said in mahler("promote", *arguments).line


def test_a_layer_is_a_model_that_judged_this_very_run_whatever_is_overridden(mahler, monkeypatch) -> None:
    get, row = tracking.get, run_of("moderate")
    asked = {"run_id": "e" * 32, "name": "asked", "tags.kind": "evaluation", "tags.arm": "model", "tags.model": "m",
             "tags.judged": row["run_id"]}
    for changed, said in (({"tags.arm": "baseline", "tags.model": "none"}, "asked is of arm=baseline, and a layer is a model"),
                          ({"tags.judged": "x"}, f"another run; mahler evaluate arm=model run={row['run_id'][:8]}")):
        monkeypatch.setattr(tracking, "get", lambda run: asked | changed if run == "eeee" else get(run))
        assert said in mahler("promote", "study=two", "llm_run=eeee", "override.gate=[synthetic,llm]", *MADE[1:]).line
    monkeypatch.undo()
    assert "is no evaluation, and a layer is a model" in mahler("promote", "study=two", f"llm_run={row['run_id']}").line


def test_a_layer_that_is_promoted_is_asked_before_a_ticket_is_written(desk, mahler, tmp_path) -> None:
    run = run_of("moderate")["run_id"]
    scan = ["scan", "date=2020-06-01", f"scan.json={tmp_path / 'day.json'}"]
    with LlmServer() as server:
        asked = mahler("evaluate", f"run={run}", "study=asked", "arm=model", "llm=local", "llm.model=openai/no_skill",
                       f"llm.api_base={server.api_base}", "llm.concurrency=32", "draws=1", "replications=100")
        row, = tracking.runs("asked", kind="evaluation")
        gates = "override.gate=[synthetic,llm]"
        done = mahler("promote", f"run={run}", f"llm_run={row['run_id']}", gates, *MADE[1:])
        assert (asked.status, done.status) == (0, 0), done.err
        told, promised = read_there(desk), json.loads((desk / "conf" / "experiment" / "bands.json").read_text())
        assert (told["llm"], told["llm_model"], told["llm_prompt"]) == ("on", "openai/no_skill", "balanced")
        assert told["llm_on_missing"] == "approve" and "conservative" not in told["llm_prompt_text"]
        of_all = 1.0 - row["loop.vetoes"] / row["loop.judged"]                   # a veto makes room for one more of its day
        assert of_all < promised["approved"] < of_all + 0.15 and f"approves {promised['approved']:.1%}" in done.out
        assert promised["trades"] != run_of("moderate")["trades"]                # they are those of the book with its vetoes
        scanned = mahler(*scan, "scan.record=true")
    day = json.loads((tmp_path / "day.json").read_text())
    assert scanned.status == 0 and "What the LLM layer said" in scanned.out and day["decisions"], scanned.err
    opened = [ticket["short_strike"] for ticket in day["tickets"] if ticket["action"] == "open"]
    assert opened == [said["short_strike"] for said in day["decisions"] if said["approve"]]
    assert records.read(desk / "data" / "paper", "decisions")["reason"].tolist() == ["planted"] * len(day["decisions"])
    shutil.rmtree(desk / "data" / "paper")
    assert mahler(*scan, "scan.cache_only=true").status == 0                     # the server is gone, its replies are kept
    assert json.loads((tmp_path / "day.json").read_text())["tickets"] == day["tickets"]
    assert "rehearses the rules and asks no model" in mahler("monitor", "simulate").line
    (row["artifacts"] / "loop.parquet").unlink()
    assert "was not judged inside the portfolio" in mahler("promote", f"run={run}", f"llm_run={row['run_id']}", gates,
                                                           *MADE[1:]).line
    mahler("promote", "rollback", "version=1")
    assert "What the LLM layer said" not in mahler(*scan).out


# ---- the registry ----------------------------------------------------------------------------------------------------

def test_a_later_version_is_the_champion_until_the_earlier_is_rolled_back_to(desk, mahler) -> None:
    gates = "override.gate=[synthetic,validation,deflated_sharpe,pbo,natural_fill]"
    done = mahler("promote", f"run={run_of('tight')['run_id']}", gates, *MADE[1:])
    assert done.status == 0, done.err
    new = champion()
    assert read_there(desk)["limits_max_positions"] == 3 and new["version"] == len(tracking.versions()) > 1
    assert new["tags.gates_overridden"] == "synthetic, validation, deflated_sharpe, pbo, natural_fill"
    listed = mahler("promote", "list")
    assert f"{new['version']} * SPY" in listed.out and "1   SPY" in listed.out

    compared = mahler("promote", "diff", "a=1", f"b={new['version']}").out
    rows = {line.split()[0]: line.split()[1:] for line in compared.splitlines() if line.strip()}
    assert rows["limits_max_positions"] == ["5", "3"] and "exit_stop_loss" not in rows

    assert mahler("promote", "rollback", "version=1").status == 0
    assert champion()["version"] == 1 and read_there(desk)["limits_max_positions"] == 5
    assert len(tracking.versions()) == new["version"]                # the later one keeps its number
    assert production.installed(champion()["source"], desk / "conf" / "experiment")


def test_files_that_are_not_the_champions_are_said(desk, mahler) -> None:
    mahler("promote", "rollback", "version=1")
    assert "rollback" not in mahler("promote", "list").out
    (desk / "conf" / "experiment" / "production.json").unlink()
    assert "mahler promote rollback version=1" in mahler("promote", "list").out
    mahler("promote", "rollback", "version=1")


SLOWLY = """
import sys, time
from mahler import production, tracking
from mahler.commands import promote
register, install = tracking.register, production.install
def slow(*arguments):
    print("begins", flush=True); time.sleep(0.3); return register(*arguments)
def then(*arguments):
    time.sleep(0.3); install(*arguments); print("ends", flush=True)
tracking.register, production.install = slow, then
from mahler.config import Backtest, load
from omegaconf import OmegaConf
row = tracking.get(sys.argv[1])
told = load(OmegaConf.load(row["artifacts"] / "config.yaml"), Backtest)
facts = {"promoted": sys.argv[2], "run_id": row["run_id"], "market": "synthetic"}
promote._install(row, told, facts, None, {"of": sys.argv[2]})
"""


def test_promotions_at_once_do_not_interleave(desk, mahler, tmp_path) -> None:
    out = tmp_path / "out"
    with open(out, "a", encoding="utf-8") as file:                   # in append mode: one order for all of them
        several = [subprocess.Popen([sys.executable, "-c", SLOWLY, run_of(limits)["run_id"], f"{k}"], stdout=file)
                   for k, limits in enumerate(("moderate", "tight", "moderate"))]
        assert [process.wait(120) for process in several] == [0, 0, 0]
    said = [line for line in out.read_text().splitlines() if line in ("begins", "ends")]
    assert said == ["begins", "ends"] * 3
    bands = json.loads((desk / "conf" / "experiment" / "bands.json").read_text())
    assert read_there(desk)["promoted"] == bands["of"] == champion()["tags.promoted"]
    assert production.installed(champion()["source"], desk / "conf" / "experiment")
    mahler("promote", "rollback", "version=1")


def test_a_cell_of_a_grid_is_run_before_it_is_promoted(mahler) -> None:
    assert mahler("validate", *PERIOD, "classifier=rule", "universe=spy", "study=cells", *QUICK,
                  "+grid.limits=[moderate,tight]").status == 0
    assert tracking.runs("cells") == []
    done = mahler("promote", "study=cells", *MADE)
    assert done.status == 0 and "Version" in done.out, done.err
    row, = tracking.runs("cells")
    assert row["name"] == "limits=moderate" and champion()["run_id"] == row["run_id"]
    mahler("promote", "rollback", "version=1")


def test_a_treatment_does_not_pass_for_a_control_because_a_study_calls_it_one(mahler) -> None:
    assert mahler("validate", *PERIOD, "classifier=rule", "universe=spy", "study=named", *QUICK,
                  "+grid.limits=[moderate,tight]", "+control.limits=tight").status == 0
    refused = mahler("promote", "study=named", *MADE).line
    assert "and a treatment all the same, that nothing was held against: limits.max_positions=3" in refused
    assert "[deflated_sharpe]" in refused and "[natural_fill]" in refused
