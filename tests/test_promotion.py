"""The gates of a promotion, each refusing for its own reason; and the files that a promotion writes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mahler import config as configs, production, promotion
from mahler.home import conf_dir
from mahler.promotion import Gate, Judged, Override
from mahler.schema import ConfigError
from mahler.trials import Trial
from mahler.validation.verdict import BETTER, NO_EVIDENCE, verdict
from tests.conftest import default_config, evaluate_config
from tests.test_validation_verdict import GOOD

RUN = {"run_id": "r" * 32, "name": "SPY regime=prod", "study": "grid", "tags.market": "real", "tags.data_source": "orats",
       "tags.data_digest": "d", "tags.universe": "SPY", "params.period.start": "2007-01-01",
       "params.period.end": "2025-12-31"}
COMMIT = "c" * 40
HELD_OUT = ("2025-01-01", "2025-12-31")
WHOLE, BEFORE = ("2007-01-01", "2025-12-31"), ("2007-01-01", "2024-12-31")


def judged(role: str = "winner", treated: tuple[str, ...] = (), **changed) -> Judged:
    """A validation whose evidence is the best there is, but for what is changed."""
    found = verdict(replace(GOOD, **changed))
    row = {"run_id": "v" * 32, "study": "grid", "tags.universe": "SPY", "tags.data_digest": "d",
           "tags.period": "2007-01-01 to 2025-12-31"}
    return Judged(row, {"verdict": found.verdict, "criteria": [asdict(c) for c in found.criteria],
                        "winners": [["SPY regime=prod", 0.6]], "control": "SPY control"}, role, treated)


def trial(config: str, period: tuple[str, str] = WHOLE, n: int = 1) -> Trial:
    return Trial(f"{config}{period}{n}", "grid", "backtest", "SPY", n, config, *period)


# ---- gates -----------------------------------------------------------------------------------------------------------

def test_a_made_market_is_refused() -> None:
    assert promotion.real_data(RUN).passed
    gate = promotion.real_data(RUN | {"tags.market": "synthetic"})
    assert not gate.passed and "SYNTHETIC" in gate.words


@pytest.mark.parametrize("state, said", [
    (None, "not a git checkout"),
    ((COMMIT, ["mahler/exits.py"]), "1 files differ from commit cccccccc: mahler/exits.py."),
    ((COMMIT, list("abcdef")), "6 files differ from commit cccccccc: a, b, c, ..."),
])
def test_code_that_is_no_commit_is_refused(state, said) -> None:
    gate = promotion.clean_tree(state)
    assert not gate.passed and said in gate.words
    assert promotion.clean_tree((COMMIT, [])).passed


def test_only_what_a_validation_found_better_or_its_control_passes() -> None:
    assert promotion.validation(judged(), RUN).passed
    assert promotion.validation(judged("control", deflated_sharpe=0.1), RUN).passed
    for case, said in ((None, "No validation"), (judged("others"), "another config was chosen: SPY regime=prod"),
                       (judged(deflated_sharpe=0.5), NO_EVIDENCE)):
        gate = promotion.validation(case, RUN)
        assert not gate.passed and said in gate.words


def test_what_was_judged_on_other_data_or_on_other_days_is_not_this_run() -> None:
    for role in ("winner", "control"):
        for changed in ({"tags.data_digest": "e"}, {"params.period.start": "2018-01-01"}, {"params.period.end": "2020-12-31"}):
            gate = promotion.validation(judged(role), RUN | changed)
            assert not gate.passed and "is of other data or of another period, 2007-01-01 to 2025-12-31, than" in gate.words
    before = judged()
    del before.row["tags.period"]                                  # a validation of before it was written
    assert "period, not known, than the run" in promotion.validation(before, RUN).words


@pytest.mark.parametrize("gate, worse, said", [
    (promotion.deflated_sharpe, {"deflated_sharpe": 0.94}, "0.95 is asked"),
    (promotion.overfitting, {"pbo_p_value": 0.10}, "below 0.10 is asked"),
    (promotion.natural_fill, {"natural_fill": -0.01}, "at natural fills is -0.01"),
])
def test_each_line_of_the_rule_is_a_gate_of_its_own(gate, worse, said) -> None:
    assert gate(judged()).passed
    refused = gate(judged(**worse))
    assert not refused.passed and said in refused.words
    assert gate(judged("control", **worse)).passed                 # nothing was chosen
    assert not gate(None).passed and not gate(judged("others")).passed
    others = {promotion.deflated_sharpe, promotion.overfitting, promotion.natural_fill} - {gate}
    assert all(other(judged(**worse)).passed for other in others)


def test_a_treatment_that_a_study_took_for_its_control_was_held_against_nothing() -> None:
    named = judged("control", treated=("limits.max_positions=3", "limits.max_heat=0.1"))
    gate = promotion.validation(named, RUN)
    assert not gate.passed and gate.words.endswith("held against: limits.max_positions=3, limits.max_heat=0.1.")
    assert not any(one(named).passed for one in (promotion.deflated_sharpe, promotion.overfitting, promotion.natural_fill))
    assert promotion.validation(judged(treated=("limits.max_positions=3",)), RUN).passed        # a winner is a treatment


def test_an_llm_layer_is_off_or_adds_value() -> None:
    asked = {"run_id": "e" * 32, "study": "prompts"}
    assert promotion.llm(None, None).passed and promotion.llm(asked, "ADDS VALUE").passed
    for verdict, said in (("NO EVIDENCE", "among all of prompts, is NO EVIDENCE"), (None, "took the place")):
        gate = promotion.llm(asked, verdict)
        assert not gate.passed and said in gate.words


def test_the_holdout_is_looked_at_by_one_config() -> None:
    def ask(period: tuple[str, str], *tried: Trial) -> Gate:
        return promotion.holdout("mine", period, HELD_OUT, tried)

    assert ask(BEFORE, trial("other")).passed                       # it did not look
    assert ask(WHOLE, trial("mine"), trial("mine", BEFORE), trial("other", BEFORE)).passed
    second = ask(WHOLE, trial("mine"), trial("other"), trial("", n=108))
    assert not second.passed and "by 109 other configs (grid)" in second.words
    assert not ask(("2025-12-31", "2026-06-30"), trial("other", ("2025-06-01", "2025-06-02"))).passed


def test_a_line_of_the_ledger_from_before_periods_were_written_is_a_look(tmp_path) -> None:
    assert Trial("a", "old", "backtest", "SPY", 1).covers(*HELD_OUT)
    assert not promotion.holdout("mine", WHOLE, HELD_OUT, [Trial("a", "old", "backtest", "SPY", 1)]).passed


# ---- overrides -------------------------------------------------------------------------------------------------------

ASKED = [Gate("synthetic", False, "It was made."), Gate("clean_tree", False, "Edited."), Gate("llm", True, "Off.")]


def test_a_gate_that_refuses_is_overridden_by_its_name_or_nothing_is_promoted() -> None:
    with pytest.raises(ConfigError, match=r"\[synthetic\] It was made\. \[clean_tree\] Edited\.") as refusal:
        promotion.settle(ASKED, Override([], None))
    assert "override.gate=[synthetic,clean_tree]" in str(refusal.value)
    with pytest.raises(ConfigError, match=r"not promoted: \[clean_tree\] Edited\. To go .*gate=\[synthetic,clean_tree\] "):
        promotion.settle(ASKED, Override("synthetic", "a rehearsal"))              # what is typed next overrides both
    assert promotion.settle(ASKED, Override(["clean_tree", "synthetic", "llm"], "a rehearsal")) == {
        "synthetic": "It was made.", "clean_tree": "Edited."}       # llm passed: nothing was overridden


@pytest.mark.parametrize("gate, reason, said", [
    ("synthetik", "why not", "no such gate; the gates are synthetic, clean_tree"), ("synthetic", None, "with a reason"),
    (["synthetic", "pbo"], "  ", "with a reason"), ([], "because", "is for a gate"),
])
def test_an_override_names_a_gate_and_a_reason(gate, reason, said) -> None:
    with pytest.raises(ConfigError, match=said):
        Override(gate, reason)


def test_what_passed_what_was_overridden_and_why_is_recorded() -> None:
    found = promotion.provenance(RUN, judged(), ASKED, Override(["synthetic", "clean_tree"], "a\nrehearsal"),
                                 git_commit=COMMIT)
    assert found["gates_passed"] == "llm" and found["gates_overridden"] == "synthetic, clean_tree"
    assert found["override_reason"] == "a rehearsal" and found["overridden.clean_tree"] == "Edited."
    assert found["run_id"] == RUN["run_id"] and found["validation"] == "v" * 32 and found["verdict"] == BETTER


# ---- production.json -------------------------------------------------------------------------------------------------

PROVENANCE = {"promoted": "2026-11-22T12:00:00+00:00", "run_id": "a" * 32, "market": "real"}
OPTIONS = [f"{folder.name}={path.stem}" for folder in sorted(Path(conf_dir()).iterdir())
           if folder.name in (*production.PLAIN, *production.COMPONENTS, "regime", "universe", "period")
           for path in sorted(folder.glob("*.yaml"))]


def flat(*overrides: str, llm: dict | None = None) -> dict:
    return production.flat(configs.plain(default_config(*overrides)), PROVENANCE, llm)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_makes_a_production_json_that_its_schema_takes(option: str) -> None:
    production.check(flat(option))


def test_production_json_is_flat_and_has_every_value_under_a_name_of_its_own() -> None:
    values = flat("regime=prod", "exit=hold")
    production.check(values)
    assert values["regime_bear_high_vol"] == 0.4 and values["exit_stop_loss"] is None and values["exit_dte"] == 0
    assert values["fill"] == "travel" and values["fill_travel"] == 0.66 and values["llm_threshold"] is None
    scalars = [x for value in values.values() for x in (value if isinstance(value, list) else [value])]
    assert all(x is None or isinstance(x, (str, int, float)) for x in scalars)


@pytest.mark.parametrize("llm, context", [("grok", "blind"), ("ollama", "shifted")])
def test_a_layer_is_asked_by_what_production_json_says_as_it_was_asked_when_it_was_judged(llm: str, context: str) -> None:
    judged = evaluate_config(f"llm={llm}", f"context={context}", "prompt=conservative", "llm.temperature=0.3")
    values = json.loads(json.dumps(flat(llm=production.settings_of_layer("conservative", context, configs.plain(judged)))))
    model, prompt, shown = production.layer(values, cache_only=True, max_cost=0.5)
    assert (prompt, shown) == (judged.prompt, judged.context) and values["llm"] == "on"
    assert model == replace(judged.llm, cache_only=True, max_cost=0.5, knowledge_cutoff=None)
    question = [{"role": "user", "content": "?"}]
    assert model.request(question, "{}", 0) == judged.llm.request(question, "{}", 0)
    del values["llm_seed"]
    with pytest.raises(ConfigError, match="'llm_seed' is a required property"):
        production.layer(values, cache_only=True, max_cost=0.5)


@pytest.mark.parametrize("changed, said", [
    ({"limits_max_heat": 20.0}, "limits_max_heat: 20.0 is greater than the maximum of 1"),
    ({"max_heat": 0.2}, "'max_heat' does not match any"), ({"llm": "maybe"}, "llm: 'maybe' is not one of"),
    ({"fill_travel": {"by": "hand"}}, "fill_travel: {'by': 'hand'} is not of type"),
    ({"llm": "on"}, "llm_model: None is not of type 'string'"),
    ({"llm_threshold": 0.5}, "llm_threshold: 0.5 is not of type 'null'"),
])
def test_a_production_json_that_is_not_its_schemas_is_refused_by_the_key(changed, said) -> None:
    with pytest.raises(ConfigError, match=said):
        production.check(flat() | changed)
    missing = flat()
    del missing["sizing"]
    with pytest.raises(ConfigError, match="'sizing' is a required property"):
        production.check(missing)


def test_nothing_is_written_of_a_version_that_its_schema_refuses(tmp_path) -> None:
    with pytest.raises(ConfigError):
        production.write(tmp_path / "version", "", {"llm": "on"}, {})
    assert not (tmp_path / "version").exists()


def test_a_version_whose_files_are_gone_is_not_installed(tmp_path) -> None:
    production.write(tmp_path / "version", "yaml", flat(), {"bands": 1})
    production.install(tmp_path / "version", tmp_path / "conf")
    assert production.installed(tmp_path / "version", tmp_path / "conf")
    assert sorted(path.name for path in (tmp_path / "conf").iterdir()) == sorted(production.FILES)
    (tmp_path / "version" / production.BANDS).unlink()
    with pytest.raises(ConfigError, match="bands.json is gone"):
        production.install(tmp_path / "version", tmp_path / "conf")
    assert json.loads((tmp_path / "conf" / production.BANDS).read_text()) == {"bands": 1}


def test_the_difference_of_two_versions_is_the_keys_that_differ() -> None:
    assert production.difference(flat(), flat("regime=prod", "limits=tight"))[0] == ("limits_max_positions", "5", "3")
    assert production.difference({"fill_travel": 0.5}, {"fill_depth": None}) == [
        ("fill_travel", "0.5", "-"), ("fill_depth", "-", "null")]
    assert production.difference(flat(), flat()) == []
