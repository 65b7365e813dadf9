"""The report of a study: what it says, what it never says, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mahler import document, ledger as ledgers, metrics, report, report_figures, tracking
from mahler.commands import report as command
from mahler.config import Report
from mahler.ledger import Ledger
from mahler.schema import ConfigError, Table
from tests.ledgers import random_ledger

N_DAYS = 900
INTERVAL = re.compile(r"^([+-]?[\d.,]+(?: %)? \([+-]?[\d.,]+(?: %)? to [+-]?[\d.,]+(?: %)?\)|–|control)$")
EVIL = '<script>alert("x")</script>|`*_$'


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A project with a judged study of runs (regime_grid), a judged grid (map), a real one, and one of runs alone."""
    folder, before = tmp_path_factory.mktemp("home"), os.environ.get("MAHLER_HOME")
    os.environ["MAHLER_HOME"] = str(folder)
    names = ["QQQ regime=flat", "QQQ regime=prod", f"QQQ {EVIL}"]
    made = _runs("regime_grid", names, market="synthetic")
    _validation("regime_grid", names, made, market="synthetic")
    cells = [f"exit.stop_loss={stop}, regime={regime}, limits={limits}" for stop in ("2.0", "1.25", "10.0")
             for regime in ("flat", "prod") for limits in ("tight", "loose")]
    _validation("map", cells, [], market="synthetic")
    _runs("unjudged", names[:2], market="real")
    real = ["QQQ regime=flat", "QQQ regime=prod"]
    _validation("real", real, _runs("real", real, market="real"), market="real")
    yield folder
    del os.environ["MAHLER_HOME"]
    if before is not None:
        os.environ["MAHLER_HOME"] = before


def _tags(kind: str, market: str, overrides: list[str]) -> dict[str, str]:
    return tracking.describe(kind=kind, data_source=f"{market}-1a2b3c4d", data_digest="d" * 64,
                             synthetic=market == "synthetic", universe=["QQQ"], overrides=overrides)


def _runs(study: str, names: list[str], *, market: str) -> list[tuple[str, Ledger]]:
    made = []
    for seed, name in enumerate(names):
        ledger = random_ledger(np.random.default_rng(seed), n_days=N_DAYS, n_trades=120, start="2017-01-03")
        option = name.partition("=")[2] or "odd"
        made.append((tracking.log_run(
            study=study, name=name, signature=f"{study}{seed}", params={"fill": {"travel": 0.66}},
            tags=_tags("backtest", market, [f"regime={option}", f"experiment={study}", "universe=qqq"]),
            metrics=metrics.summary(ledger) | {"effective_multiplier.bear_high_vol": 1.0 - 0.2 * seed}, ledger=ledger,
            config_yaml="", page=""), ledger))
    return made


def _validation(study: str, names: list[str], made: list[tuple[str, Ledger]], *, market: str) -> None:
    tables = _tables(names, [ledger for _, ledger in made])
    with tracking.run(study=study, name="validation QQQ: no evidence", signature=f"{study}v",
                      params={"level": 0.95, "replications": 2000, "train": 24, "test": 12, "step": 12, "objective": "sharpe"},
                      tags=_tags("validation", market, [f"study={study}"])) as active:
        tracking.log_tables(active, metrics={}, tables=tables, files={
            "judgement.json": json.dumps(_judgement(names, [run_id for run_id, _ in made]))})


def _tables(names: list[str], made: list[Ledger]) -> dict[str, Table]:
    n, rng = len(names), np.random.default_rng(5)
    falls = [metrics.max_drawdown(one.account["equity"], one.initial_equity, one.account["date"]).depth for one in made]
    config = np.array(names, object)
    shown = {"config": config, "is_control": np.arange(n) == 0, "trades": np.full(n, 120.0),
             "mean_heat": np.full(n, 0.08)}
    for name, middle in (("sharpe", -0.68), ("cagr", 0.0123), ("difference", 0.17)):
        shown |= {name: np.full(n, middle), f"{name}_low": np.full(n, middle - 0.5),
                  f"{name}_high": np.full(n, middle + 0.5)}
    shown["sharpe"][1] = np.nan                          # an account that never moved has no Sharpe ratio
    shown |= {"max_drawdown": np.array(falls or [0.1] * n), "max_drawdown_low": np.full(n, 0.05),
              "max_drawdown_high": np.full(n, 0.3), "detectable": np.full(n, 0.31)}
    shown["is_control"] = shown["is_control"].astype(float)
    days = np.busday_offset("2019-01-02", np.arange(250)).astype("datetime64[D]")
    edges = {name: np.array([day] * 2, "datetime64[D]") for name, day in (
        ("train_first", "2017-01-03"), ("train_last", "2018-12-20"), ("test_first", "2019-01-02"),
        ("test_last", "2019-12-17"))}
    return {"configs": shown, "folds": {"shift": np.array([0, 5]), **edges, "winner": config[[1, 0]]},
            "accounts": {"date": days, "chosen": rng.normal(0, 1e-3, 250), "control": rng.normal(0, 1e-3, 250)},
            "spread": {"shift": np.array([0, 5]), "difference": np.array([0.11, 0.12])},
            "trials": {"config": config, "sharpe": np.zeros(n), "cagr": np.arange(n) / 100.0,
                       "max_drawdown": np.full(n, 0.1), "trades": np.full(n, 9.0), "mean_heat": np.full(n, 0.05)},
            "pbo_null": {"pbo": rng.uniform(size=99)}, "pbo_logits": {"logit": rng.choice([-1.0, 1.0], 500)}}


def _judgement(names: list[str], judged: list[str]) -> dict:
    evidence = {"is_control": False, "difference": {"value": 0.11, "low": -0.002, "high": 0.3, "level": 0.95},
                "superior": False, "deflated_sharpe": 0.0002, "n_trials": 19, "pbo_p_value": 0.19, "drawdown": 0.11,
                "control_drawdown": 0.12, "natural_fill": None, "without_best_year": -0.03,
                "without_best_trades": 0.01, "neighbours": None, "single_test": 0.25, "detectable": 0.38,
                "control_sharpe": {"value": -0.68, "low": -1.0, "high": -0.2}}
    worth = {"probabilistic": 0.004, "deflated": 0.0002, "min_track_record_years": None, "min_backtest_years": 6.4,
             "years": 3.5}
    criteria = [{"name": "out_of_sample", "value": -0.002, "threshold": "a lower end above 0", "passed": False,
                 "words": "no"}, {"name": "natural_fill", "value": None, "threshold": "> 0", "passed": False,
                                  "words": "undefined"}]
    return {"verdict": "no evidence", "reasons": ["The difference at natural fills is undefined."],
            "criteria": criteria, "evidence": evidence, "worth": worth, "out_of_reach": False,
            "robust": {"difference": 0.11, "low": -0.03, "high": 0.25, "p_value": 0.12}, "control": names[0],
            "configs": len(names), "universe": "QQQ",
            "winners": [[names[1], 0.5], [names[0], 0.5]], "years": {"2019": None}, "efficiency": None, "pbo": 0.5,
            "tested": len(names), "pbo_tested": 0.5,
            "degradation": None, "probability_of_loss": 0.4, "spa_p_value": 0.3, "superior": [], "heat": None,
            "n_trials": 19, "n_by_study": {"regime_grid": 12, "other": 7}, "judged": judged}


@cache
def blocks(study: str, *axes: str) -> list[document.Block]:
    families = [command._family(row) for row in command._validations(study)]
    return report.blocks(command._study(study), families, axes)


def tables(study: str) -> list[document.Rows]:
    return [block for block in blocks(study) if isinstance(block, document.Rows)]


def pictures(study: str, *axes: str) -> dict[str, str]:
    return document.pictures(blocks(study, *axes))


def words(study: str) -> str:
    return re.sub(r"\s+", " ", document.markdown(blocks(study)))


# ---- what it says ----------------------------------------------------------------------------------------------------

def test_a_readme_with_its_figures_and_a_page_in_mlflow_are_written(home):
    command.run(Report("regime_grid", []))
    folder = home / "experiments" / "regime_grid"
    readme = (folder / "README.md").read_text()
    assert set(re.findall(r"\]\((.*?\.svg)\)", readme)) == {path.name for path in folder.glob("*.svg")}
    (row,) = tracking.runs("regime_grid", kind="report")
    page = (row["artifacts"] / "report.html").read_text()
    assert readme.count("](QQQ-") == page.count("<img") == 7
    assert row["tags.validations"] == tracking.runs("regime_grid", kind="validation")[0]["run_id"]


def test_the_same_study_gives_the_same_bytes_and_one_run(home):
    command.run(Report("real", []))
    folder = home / "experiments" / "real"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command.run(Report("real", []))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and len(before) == 8
    assert len(tracking._search(["real"], "tags.kind = 'report'", most=None)) == 1


def test_synthetic_data_is_named_in_the_title_and_real_data_is_not(home):
    assert document.markdown(blocks("regime_grid")).startswith("# SYNTHETIC MARKET: regime_grid\n")
    assert document.markdown(blocks("real")).startswith("# real\n") and "SYNTHETIC" not in words("real")


def test_no_sharpe_stands_without_its_interval(home):
    for study in ("regime_grid", "map", "real"):
        columns = [(row[k], name) for table in tables(study) for k, name in enumerate(table.head)
                   if "Sharpe" in name and name != "deflated Sharpe" for row in table.body]
        assert columns and all(INTERVAL.match(cell) for cell, _ in columns), columns
        for text in re.findall(r"Sharpe(?: ratio)? (?:is |of )?[-+]?\d[^;|]*", words(study)):
            assert INTERVAL.match(text.split(" ", 1)[1].strip()), text
    (returns, *_) = [table for table in tables("regime_grid") if "trades" in table.head]
    assert [row[1] for row in returns.body] == ["-0.68 (-1.18 to -0.18)", "–", "-0.68 (-1.18 to -0.18)"]


def test_the_control_is_marked_in_tables_and_bold_in_ink(home):
    (returns, *_) = [table for table in tables("regime_grid") if "trades" in table.head]
    assert returns.body[0][0] == "regime=flat (control)" and returns.strong == {0}
    assert "| **regime=flat (control)** |" in document.markdown(blocks("regime_grid"))
    svg = pictures("regime_grid")["QQQ-accounts.svg"]
    assert re.search(r"stroke: #1b2a3a; stroke-width: 2", svg) and "control" in svg


def test_the_question_is_the_first_comment_of_the_studys_yaml(home):
    assert "**Do regime multipliers add value?**" in words("regime_grid") and "add value?" not in words("map")


def test_every_criterion_has_what_was_found_what_was_asked_and_whether_it_passed(home):
    (table,) = [table for table in tables("regime_grid") if table.head[-1] == "passed"]
    assert [row[1:] for row in table.body] == [
        ("-0.002", "a lower end above 0 (StepM does not name it)", "NO"), ("–", "> 0", "NO")]


def test_what_could_not_have_been_seen_n_and_limits_are_said(home):
    text = words("regime_grid")
    for said in ("a Sharpe difference below 0.38 a year", "| 19 | regime_grid 12, other 7 |", "every quote is modelled",
                 "a leg travels 66% of its bid-ask spread", "The control itself loses on these data", "digest dddd",
                 "2017-01-03 to 2020-06-15; out of sample 2019-01-02 to 2019-12-17"):
        assert said in text, said


def test_psr_dsr_and_the_lengths_that_would_be_enough_are_in_the_table(home):
    said = {row[0].partition(":")[0]: row[1] for table in tables("regime_grid") if table.head == ("", "")
            for row in table.body}
    psr = next(text for what, text in said.items() if what.startswith("PSR and DSR"))
    assert psr == "0.00 and 0.00" or psr == "0.004 and 0.0002"
    assert said["the same difference with Ledoit and Wolf's HAC error"] == "+0.11 (-0.03 to +0.25), p 0.12"
    assert said["MinTRL"].startswith("no length is enough") and said["MinBTL"] == "6.4; there are 3.5"


def test_where_no_difference_could_have_been_called_better_the_report_says_any(home):
    family = command._family(command._validations("regime_grid")[0])
    family.judgement["evidence"]["detectable"], family.judgement["out_of_reach"] = None, True
    text = document.markdown(report.blocks(command._study("regime_grid"), [family], ()))
    assert "Out of sample, any Sharpe difference, by this rule" in text and "| none |" in text


def test_of_a_study_whose_configs_are_all_the_control_no_power_is_claimed(home):
    family = command._family(command._validations("real")[0])
    family.judgement["evidence"].update({"detectable": None, "single_test": None})
    family.tables["configs"]["detectable"][:] = 0.0
    text = document.markdown(report.blocks(command._study("real"), [family], ()))
    assert "every config did what the control did" in text
    assert "difference below –" not in text and "below 0.00" not in text


def test_where_only_the_best_could_be_tested_together_the_report_says_so(home):
    assert "| PBO | 0.50; equal configs are as low with p 0.19 |" in words("map") and "| p 0.30; StepM" in words("map")
    family = command._family(command._validations("map")[0])
    family.judgement.update({"configs": 5000, "pbo_tested": 0.25, "spa_p_value": None})
    text = re.sub(r"\s+", " ", document.markdown(report.blocks(command._study("map"), [family], ())))
    assert "0.50; of the 12 configs shown, the best of 5,000, 0.25; equal configs are as low with p 0.19" in text
    assert "not asked of 5,000 configs" in text and "StepM at 5 % names" not in text and "| 0.25 (p 0.19) |" in text


def test_a_p_value_that_no_sample_reached_is_below_one_of_them_and_not_zero():
    assert report.of_samples(0.0, 2000) == "below 0.0005"
    assert report.of_samples(0.002, 2000) == "0.002" and report.of_samples(None, 2000) == "–"


def test_a_validation_of_older_code_is_to_be_made_again(home):
    row = command._validations("regime_grid")[0]
    path = row["artifacts"] / "judgement.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "worth"}), encoding="utf-8")
    try:
        with pytest.raises(ConfigError, match="run mahler validate study=regime_grid again"):
            command._family(row)
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_drawdown_has_the_dates_of_the_runs_own_account(home):
    row, ledger = next((row, ledgers.read(row["artifacts"])) for row in tracking.runs("real")
                       if row["name"] == "QQQ regime=flat")
    worst = metrics.max_drawdown(ledger.account["equity"], ledger.initial_equity, ledger.account["date"])
    assert f"{worst.start}, low {worst.trough}" in words("real")
    family = command._family(command._validations("real")[0])
    family.tables["configs"]["max_drawdown"][0] *= 1.01              # another account was validated
    text = document.markdown(report.blocks(command._study("real"), [family], []))
    assert f"low {worst.trough}" not in text and "the account that was validated" not in text
    assert "whose account is not the one that was validated" in text


def test_the_commands_are_those_that_were_typed(home):
    code = [block for block in blocks("regime_grid") if isinstance(block, document.Code)][0]
    assert code.lines == (
        "mahler ingest", "mahler backtest -m experiment=regime_grid regime=flat,prod,odd universe=qqq",
        "mahler validate study=regime_grid", "mahler report study=regime_grid")


def test_a_sweep_that_is_the_studys_own_is_not_typed_again():
    runs = [{"tags.overrides": f"regime={regime} universe={universe} experiment=x entry.widths=[5.0, 10.0]"}
            for regime in ("flat", "prod") for universe in ("spy", "qqq")]
    study = report.Study("x", None, {"regime": ["flat", "prod"], "universe": ["spy", "qqq"]}, 0, "")
    family = report.Family({}, {}, {}, runs, (), 0)
    assert report._backtests(study, [family]) == ["mahler backtest experiment=x 'entry.widths=[5.0, 10.0]'"]
    assert len(report._backtests(study, [replace(family, runs=runs[:3])])) == 3          # no product: one by one


def test_a_command_is_what_a_shell_takes_as_it_was_typed():
    typed = ["experiment=walk_forward", "~grid.limits", "++grid={fill:[orats,mid],exit.stop_loss:[1.25, 2]}",
             "method.shifts=[0]", "study=x"]
    family = report.Family({"tags.overrides": " ".join(typed)}, {}, {}, [], (), 0)
    command, = report._validates([family])
    said = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["mahler", "validate", *typed]


@pytest.mark.parametrize("anchor, said", [("null", "bridged between the known turning points"),
                                          ("daily.csv", "that of the daily")])
def test_a_grid_says_on_which_path_its_market_was_made(home, anchor, said):
    family = command._family(command._validations("map")[0])
    made = {f"params.data.{name}": "1" for name in ("seed", "drift")} | {"params.data.anchor": anchor}
    limit, = report._data_limits(replace(family, row=family.row | made))
    assert f"(seed 1, drift 1). The path is {said}" in limit


# ---- the map ---------------------------------------------------------------------------------------------------------

def test_a_grid_has_a_map_of_its_first_two_axes_or_of_those_that_are_asked_for(home):
    assert "QQQ-map.svg" not in pictures("regime_grid")
    text = [element.text for element in ElementTree.fromstring(pictures("map")["QQQ-map.svg"]).iter()
            if element.tag.endswith("text")]
    assert {"exit.stop_loss", "regime"} <= set(text)
    assert text.index("1.25") < text.index("2.0") < text.index("10.0")                   # numbers by size
    assert "limits" in pictures("map", "limits", "regime")["QQQ-map.svg"]
    assert "median over limits" in words("map")
    assert pictures("map", "portfolio.limits", "regime") == pictures("map", "limits", "regime")    # as the grid has it


def test_an_axis_that_does_not_vary_is_refused_by_name(home):
    with pytest.raises(ConfigError, match="axes: limit does not vary.*exit.stop_loss, regime, limits"):
        blocks("map", "limit", "regime")
    with pytest.raises(ConfigError, match="two axes"):
        Report("map", ["regime"])


# ---- what it refuses -------------------------------------------------------------------------------------------------

def test_a_study_without_a_validation_is_told_to_validate_first(home):
    with pytest.raises(ConfigError, match="run mahler validate study=unjudged first"):
        command.run(Report("unjudged", []))
    with pytest.raises(ConfigError, match="study=nothing: there is no such study"):
        command.run(Report("nothing", []))
    assert not (home / "experiments" / "unjudged").exists()


def test_a_judged_run_that_was_deleted_is_one_sentence(home):
    names = ["QQQ regime=flat", "QQQ regime=prod"]
    made = _runs("deleted", names, market="real")
    _validation("deleted", names, made, market="real")
    tracking._client(home / "mlruns" / "mlflow.db").delete_run(made[1][0])
    with pytest.raises(ConfigError, match=f"the run {made[1][0][:8]} that it judged was deleted; run mahler validate"):
        command.run(Report("deleted", []))


# ---- its form --------------------------------------------------------------------------------------------------------

def test_what_a_user_writes_is_escaped_in_the_page_in_markdown_and_in_figures(home):
    page = document.page(blocks("regime_grid"), "t")
    assert "<script" not in page and "&lt;script&gt;" in page
    readme = document.markdown(blocks("regime_grid"))
    assert "<script" not in re.sub(r"```.*?```", "", readme, flags=re.S)
    for line in readme.splitlines():
        if line.startswith("|") and "script" in line:
            assert r"\|\`\*\_\$" in line
    for svg in pictures("regime_grid").values():
        ElementTree.fromstring(svg)
        assert "<script" not in svg


def test_the_page_needs_no_other_file(home):
    page = document.page(blocks("regime_grid"), "t")
    assert not re.search(r"https?:|href=|url\(|@import", page)
    assert re.findall(r'src="(.{11})', page) == ["data:image/"] * 7


def test_figures_are_small(home):
    assert max(len(svg) for study in ("regime_grid", "map") for svg in pictures(study).values()) < 80_000


def test_a_line_keeps_its_extremes():
    y = np.zeros(5000)
    y[[1234, 3456]] = -9.0, 7.0
    days = np.arange(5000).astype("datetime64[D]")
    thin_days, thin = report_figures._thinned(days, y)
    assert (thin.min(), thin.max()) == (-9.0, 7.0) and len(thin) < 500
    assert thin_days[[0, -1]].tolist() == days[[0, -1]].tolist() and (np.diff(thin_days).astype(int) > 0).all()


def test_what_is_not_zero_does_not_read_as_zero():
    numbers = (-0.0022, 0.0, 0.166, np.nan, None)
    assert [report.value(x, "+.2f") for x in numbers] == ["-0.002", "+0.00", "+0.17", "–", "–"]
