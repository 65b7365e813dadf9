"""The report of a study of evaluations: what it says to somebody who distrusts it, and how it reads."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mahler import evaluation_figures, tracking
from mahler.commands import report as command
from mahler.config import Report
from mahler.llm.evaluation import evaluate
from mahler.schema import ConfigError
from tests.judged import answers, decisions, market, overlapping, score, table

EVIL = '<script>alert("x")</script>|`*_$'


def _log(study: str, records: list[dict], mine, *, baseline=None, name: str | None = None, market: str = "synthetic"):
    found = evaluate(records, mine, baseline=baseline, judged=None, rng=np.random.default_rng(0), replications=30,
                     level=0.95, draws=5)
    typed = [f"study={study}", f"arm={mine.arm}", *([f"prompt={mine.prompt}", f"context={mine.context}"] * bool(mine.prompt))]
    tags = tracking.describe(kind="evaluation", data_source="synthetic-1a2b", data_digest="d" * 64, synthetic=True,
                             universe=["SPY"], overrides=typed) | {"market": market}
    with tracking.run(study=study, name=name or mine.name, signature=f"{study} {mine.name} {name}", params={},
                      tags=tags) as active:
        tracking.log_tables(active, metrics=found.metrics, tables=found.tables, files=found.files)
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The README of a study of two prompts in two contexts, with every control and both probes; and its page."""
    patch, home = pytest.MonkeyPatch(), tmp_path_factory.mktemp("home")
    patch.setenv("MAHLER_HOME", str(home))
    rng = np.random.default_rng(0)
    records, won = market(rng, 500)
    cutoff, free = records[200]["date"], decisions(score(rng, won, 0.52))
    n, nothing = len(won), np.full(len(won), np.nan)
    for prompt in ("balanced", EVIL):
        for context in ("full", "blind"):
            _log("grid", records, answers(decisions(score(rng, won, 0.6)), prompt=prompt, context=context, cutoff=cutoff),
                 baseline=free)
    _log("grid", records, answers(decisions(overlapping(rng, n) + 2.0 * won * (np.arange(n) < 200)), context="date_only",
                                  cutoff=cutoff))
    for arm, found in (("approve_all", table(np.ones(n, bool), nothing, nothing)), ("baseline", free),
                       ("coin_flip", table(rng.random(n) < 0.7, nothing, nothing))):
        _log("grid", records, answers(found, arm=arm, prompt="", context="", cutoff=None))
    _log("grid", records[:300], answers(decisions(score(rng, won[:300], 0.6)), prompt="older"), name="older")
    _log("grid", records, answers(free, arm="baseline", prompt="", context="", cutoff=None), name="again")
    command.run(Report("grid", []))
    readme = (home / "experiments" / "grid" / "README.md").read_text(encoding="utf-8")
    page = (tracking.runs("grid", kind="report")[0]["artifacts"] / "report.html").read_text(encoding="utf-8")
    yield home, readme, page
    patch.undo()


def section(readme: str, heading: str) -> str:
    return readme.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_synthetic_is_in_the_title_and_what_could_be_seen_comes_first(written):
    readme = written[1]
    assert readme.startswith("# SYNTHETIC MARKET: grid\n")
    order = ["What could be seen at all", "What was asked", "Verdicts", "As a filter, beside the controls",
             "Every prompt, context and threshold", "As a probability", "As a layer of the portfolio", "Memory", "Costs",
             "What could not have been seen", "How to reproduce"]
    assert re.findall(r"^## (.*)$", readme, re.M) == order


def test_every_prompt_and_context_stands_beside_every_control(written):
    rows = section(written[1], "As a filter, beside the controls")
    for name in ("balanced, full", "balanced, blind", "baseline", "coin_flip", "approve_all"):
        assert len(re.findall(rf"^\| {name} ", rows, re.M)) == 2, name
    assert re.search(r"\| baseline \|.* \([+-][\d.]+ to [+-][\d.]+\)", rows)


def test_a_gap_never_stands_without_its_interval(written):
    for line in section(written[1], "As a filter, beside the controls").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| balanced"):
            assert any(re.fullmatch(r"[+-][\d.,]+ \([+-][\d.,]+ to [+-][\d.,]+\)", cell) for cell in cells), line


def test_memory_is_called_what_it_is(written):
    memory = section(written[1], "Memory")
    assert "contaminated: upper bound" in memory and "AUROC of the date alone" in memory
    assert re.search(r"balanced: full against blind \|", memory)
    assert "The recall probe (was this the price on that day?) was not asked." in memory


def test_without_a_portfolio_nothing_is_said_of_one(written):
    portfolio = section(written[1], "As a layer of the portfolio")
    assert "nothing is said about one" in portfolio and "Sharpe" not in portfolio


def test_evaluations_of_other_trades_are_left_out_and_counted(written):
    assert "on other trades, which are not in it: 1." in section(written[1], "What could not have been seen")
    assert "older" not in section(written[1], "Verdicts")


def test_an_arm_that_was_evaluated_twice_is_there_once(written):
    assert len(re.findall(r"^\| baseline \|", section(written[1], "Costs"), re.M)) == 1


def test_a_name_cannot_become_markup_in_either_form(written):
    _, readme, page = written
    outside = re.sub(r"^```sh$.*?^```$", "", readme, flags=re.M | re.S)            # a fence shows it as it is
    assert "<script" not in outside and "<script" not in page


def test_every_picture_is_there_and_is_well_formed(written):
    home, readme, _ = written
    files = re.findall(r"^!\[[^\]]*\]\((.*\.svg)\)$", readme, re.M)
    assert sorted(files) == ["distributions.svg", "quarters.svg", "reliability.svg", "thresholds.svg"]
    for file in files:
        ElementTree.fromstring((home / "experiments" / "grid" / file).read_text(encoding="utf-8"))


def test_an_evaluation_has_the_figures_that_it_has_numbers_for():
    rng = np.random.default_rng(1)
    records, won = market(rng, 60)
    silent = table(np.arange(60) > 20, np.full(60, np.nan), np.full(60, np.nan))
    for mine, expected in ((decisions(score(rng, won, 0.6)), ["distributions", "quarters", "reliability", "thresholds"]),
                           (silent, ["distributions"])):
        found = evaluate(records, answers(mine), baseline=None, judged=None, rng=rng, replications=20, level=0.95, draws=5)
        figures = evaluation_figures.evaluation(found.tables, EVIL, np.datetime64("2019-03-01"))
        assert sorted(figures) == [f"{name}.svg" for name in expected]
        for svg in figures.values():
            ElementTree.fromstring(svg)


def test_a_picture_that_is_taken_out_of_the_report_still_says_that_the_market_is_synthetic(written):
    home, readme, _ = written
    for file in re.findall(r"^!\[[^\]]*\]\((.*\.svg)\)$", readme, re.M):
        assert "balanced, full: SYNTHETIC MARKET" in (home / "experiments" / "grid" / file).read_text(encoding="utf-8"), file


def test_dates_below_narrow_panels_do_not_run_into_each_other():
    days = np.arange("2019-01-02", "2021-01-01", dtype="datetime64[D]")
    curves = {name: days.astype(float) * 0.0 for name in ("everything", "filtered", "low", "median", "high")} | {"date": days}
    for panels, most in ((1, 8), (3, 4)):
        svg = evaluation_figures.side_by_side({str(k): {"curves": curves} for k in range(panels)},
                                              dict.fromkeys(map(str, range(panels))))["equity.svg"]
        assert 2 <= len(re.findall(r">(?:<!--.*?-->)?20\d\d-\d\d<", svg)) / panels <= most


def test_what_was_typed_is_how_it_is_reproduced(written):
    lines = section(written[1], "How to reproduce")
    assert "mahler evaluate study=grid arm=baseline" in lines and "mahler report study=grid" in lines


def test_a_study_of_evaluations_has_no_map(written):
    with pytest.raises(ConfigError, match="axes=a,b: a study of evaluations has no map of a grid"):
        command.run(Report("grid", ["a", "b"]))
