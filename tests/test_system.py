"""The layers' table: a line for each layer, with its interval, or that the control is kept, or that nobody tested it."""

from __future__ import annotations

import json
import re
import shlex
from types import SimpleNamespace

import pytest
import yaml

from mahler import cli, evaluated, system, tracking
from mahler.document import Rows
from mahler.home import conf_dir
from mahler.llm.verdict import Verdict

LIMITS = {"run_id": "a" * 32, "study": "limits_grid", "started": "2026-11-22T10:00:00", "tags.kind": "validation",
          "tags.universe": "QQQ,SPY", "tags.market": "synthetic", "tags.layers": "limits", "tags.verdict": "no evidence",
          "tags.data_source": "synthetic-1", "tags.data_digest": "d", "tags.overrides": "study=limits_grid",
          "difference": 0.19, "difference_low": -0.19, "difference_high": 0.54, "n_trials": 5.0, "detectable": 0.34}
JUDGEMENT = {"winners": [["limits=tight", 0.6]], "control": "limits=moderate", "reasons": ["It is 0.05; 0.95 is asked."]}
BETTER = LIMITS | {"study": "exits", "tags.layers": "exit", "tags.verdict": "better than control", "tags.market": "real",
                   "difference_low": 0.02}
JOINT = LIMITS | {"study": "walk", "tags.layers": "exit,limits,regime"}
VETO = {"run_id": "e" * 32, "study": "prompt_grid", "started": "2026-11-22T11:00:00", "tags.kind": "evaluation",
        "tags.universe": "SPY", "tags.market": "real", "tags.verdict": "ADDS VALUE", "tags.arm": "model",
        "tags.model": "m-1", "tags.prompt": "balanced", "tags.context": "full", "tags.data_source": "orats",
        "tags.data_digest": "d", "win_rate_gap": 0.012, "win_rate_gap.low": -0.03, "win_rate_gap.high": 0.055,
        "clean.trades": 140.0, "power.gap": 0.09}


def lines(*findings: system.Finding) -> dict[str, tuple[str, ...]]:
    table, = (block for block in system.blocks(findings) if isinstance(block, Rows))
    return {row[0]: row[1:] for row in table.body}


def test_without_evidence_the_control_is_kept_and_the_interval_is_said() -> None:
    found = lines(system.of_validation(LIMITS, JUDGEMENT))
    config, evidence, where = found["Portfolio limits"]
    assert config == "limits=moderate" and evidence == (
        "no evidence: control kept. +0.19 (-0.19 to +0.54) a year of Sharpe ratio, out of sample, N = 5; "
        "0.34 could have been seen")
    assert where == "limits_grid, QQQ,SPY, SYNTHETIC, 2026-11-22"


def test_where_no_difference_could_have_been_called_better_that_is_said() -> None:
    evidence = lines(system.of_validation(LIMITS, JUDGEMENT | {"out_of_reach": True}))["Portfolio limits"][1]
    assert evidence.endswith("; no difference could have been seen")


def test_what_is_better_is_named_and_what_is_worse_is_not() -> None:
    assert lines(system.of_validation(BETTER, JUDGEMENT))["Exits"][0] == "limits=tight"
    worse = lines(system.of_validation(LIMITS | {"tags.verdict": "worse than control"}, JUDGEMENT))["Portfolio limits"]
    assert worse[0] == "limits=moderate" and worse[1].startswith("worse than control: control kept. ")


def test_a_layer_that_nobody_tested_says_so_with_the_command() -> None:
    found = lines(system.of_validation(LIMITS, JUDGEMENT))
    assert list(found) == ["Regime multipliers", "Portfolio limits", "Exits", "LLM veto"]
    assert found["Regime multipliers"][1].startswith("not tested alone: mahler backtest experiment=regime_grid")
    assert found["LLM veto"][1].startswith("not tested alone: mahler evaluate experiment=prompt_grid")


@pytest.mark.parametrize("layer", ["regime", "limits", "exit"])
def test_what_is_said_to_test_a_layer_varies_it_and_nothing_else(layer) -> None:
    command = system.LAYERS[layer][1]
    varied = {part.split(".")[1].partition("=")[0] for part in shlex.split(command) if part.startswith("grid.")}
    for study in re.findall(r"backtest experiment=(\w+)", command):
        swept = yaml.safe_load((conf_dir() / "experiment" / f"{study}.yaml").read_text())["hydra"]["sweeper"]["params"]
        varied |= {key.partition(".")[0] for key in swept} - {"universe"}            # a universe is judged by itself
    assert varied == {layer}


def test_layers_that_were_varied_together_have_a_line_of_their_own() -> None:
    found = lines(system.of_validation(JOINT, JUDGEMENT))
    assert "Exits and Portfolio limits and Regime multipliers" in found and "not tested alone" in found["Exits"][1]


def test_a_veto_that_does_not_add_value_is_off() -> None:
    config, evidence, _ = lines(system.of_evaluation(VETO, Verdict("UNDERPOWERED", (), ())))["LLM veto"]
    assert config == "off (m-1, balanced, full was tried)"
    assert evidence.startswith("UNDERPOWERED: control kept. +0.012 (-0.030 to +0.055) between the win rates")
    adds = lines(system.of_evaluation(VETO, Verdict("ADDS VALUE", (), ())))["LLM veto"]
    assert adds[0] == "m-1, balanced, full" and adds[1].startswith("ADDS VALUE. ")


def test_a_number_that_is_not_known_is_a_dash_and_a_made_market_is_in_the_title() -> None:
    bare = {key: value for key, value in LIMITS.items() if not isinstance(value, float)}
    assert "– (– to –)" in lines(system.of_validation(bare, JUDGEMENT))["Portfolio limits"][1]
    assert system.title([system.of_validation(LIMITS, JUDGEMENT)]).startswith("SYNTHETIC")
    assert system.title([system.of_validation(BETTER, JUDGEMENT)]) == "The system"


def test_the_table_is_written_as_a_readme_and_a_page_from_the_newest_judgements(tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "judgement.json").write_text(json.dumps(JUDGEMENT))
    rows = [row | {"artifacts": tmp_path} for row in (
        LIMITS, LIMITS | {"difference": 0.99}, JOINT, {k: v for k, v in BETTER.items() if k != "tags.layers"}, VETO)]
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "finished", lambda kind: [row for row in rows if row["tags.kind"] == kind])
    judged = [SimpleNamespace(row=rows[-1], answers=SimpleNamespace(arm=arm), judgement=SimpleNamespace(
        verdict=Verdict(said, ("Too few trades.",), ()))) for arm, said in (("model", "UNDERPOWERED"), ("baseline", "HARMFUL"))]
    monkeypatch.setattr(evaluated, "read", lambda study: SimpleNamespace(found=judged))
    assert cli.main(["report", "study=system"]) == 0
    text = (tmp_path / "home" / "experiments" / "system" / "README.md").read_text()
    assert text.startswith("# SYNTHETIC") and "+0.19 (-0.19 to +0.54)" in text and "+0.99" not in text
    assert "m-1, balanced, full" in text and "Too few trades." in text and "HARMFUL" not in text
    assert "1 validations of an earlier version are left out" in capfd.readouterr().out
    logged, = tracking.runs("system", kind="report")
    page = (logged["artifacts"] / "report.html").read_text()
    assert page == (tmp_path / "home" / "experiments" / "system" / "report.html").read_text() and "<table" in page


@pytest.mark.parametrize("rows", [[], [{k: v for k, v in LIMITS.items() if k != "tags.layers"}]])
def test_where_nothing_was_judged_there_is_no_table(monkeypatch, capfd, rows) -> None:
    monkeypatch.setattr(tracking, "finished", lambda kind: rows if kind == "validation" else [])
    assert cli.main(["report", "study=system"]) == 2
    assert "nothing was judged yet" in capfd.readouterr().err
