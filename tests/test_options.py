"""Every option of every conf group: it composes, loads, instantiates, is causal and stays in bounds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from mahler import panel as panels
from mahler.commands.backtest import market
from mahler.config import Backtest, Evaluate, Paper, Validate, load
from mahler.home import conf_dir
from mahler.monitoring.bands import BandRule
from mahler.paper.stage import Stage
from mahler.schema import Regime
from tests.conftest import PERIOD, default_config

CONF = Path(conf_dir())
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("hydra", "experiment"))
OPTIONS = [(group, p.stem) for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
STUDIES = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))


ALONE = {"bands": BandRule, "stage": Stage}       # groups of no backtest: what each of them is
VERB = {"arm": "evaluate", "llm": "evaluate", "prompt": "evaluate", "context": "evaluate", "source": "paper"}


def options(group: str) -> list[str]:
    return [option for g, option in OPTIONS if g == group]


def loaded(verb: str, *overrides: str):
    from hydra import compose, initialize_config_dir

    schemas = {"backtest": Backtest, "validate": Validate, "evaluate": Evaluate, "paper": Paper}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(compose(verb, list(overrides)), schemas[verb])


@pytest.mark.parametrize("group, option", OPTIONS)
def test_an_option_composes_and_loads(group: str, option: str) -> None:
    if group in ALONE:
        assert load(OmegaConf.load(CONF / group / f"{option}.yaml"), ALONE[group])
        return
    config = loaded(VERB.get(group, "validate"), f"{group}={option}")      # a backtest, and a method beside it
    assert getattr(config, group) is not None


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_names_itself_and_lists_options_that_load(study: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    text = (CONF / "experiment" / f"{study}.yaml").read_text()
    assert "glob(" not in text, "a study is a pre-registration"
    [verb] = re.findall(r"mahler (\w+) experiment=", text)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose(verb, [f"experiment={study}"], return_hydra_config=True)
    assert whole.study == study
    if verb == "validate":
        for key, options in loaded(verb, f"experiment={study}").grid.items():
            for option in options:
                loaded(verb, f"experiment={study}", f"{key}={option}")
        return
    parser = OverridesParser.create()
    for key, values in whole.hydra.sweeper.params.items():
        for value in parser.parse_override(f"{key}={values}").sweep_string_iterator():
            loaded(verb, f"experiment={study}", f"{key}={value}")


@pytest.fixture(scope="module")
def panel(synthetic_home):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("MAHLER_HOME", str(synthetic_home))
    chains, series = market(default_config(*PERIOD))
    yield panels.build(chains, series)
    monkeypatch.undo()


def cut(panel: panels.Panel, n_days: int) -> panels.Panel:
    arrays = {name: getattr(panel, name)[:n_days] for name in (*panels.FEATURES, "dates")}
    return dataclasses.replace(panel, **arrays)


@pytest.mark.parametrize("option", options("classifier"))
def test_a_classifier_labels_in_bounds_and_is_causal(option: str, panel: panels.Panel) -> None:
    classify, panel = default_config(f"classifier={option}").classifier, cut(panel, 700)
    labels = classify(panel)
    assert labels.shape == panel.close.shape and labels.dtype == np.int8
    assert set(np.unique(labels)) <= {int(r) for r in Regime} and (labels >= 0).mean() > 0.3
    for n_days in (300, 431, len(panel.dates) - 1):
        np.testing.assert_array_equal(classify(cut(panel, n_days)), labels[:n_days])


@pytest.mark.parametrize("option", options("regime"))
def test_multipliers_are_applied_by_name_of_regime_and_one_without_a_label(option: str) -> None:
    regime = default_config(f"regime={option}").regime
    labels = np.array([int(r) for r in Regime], np.int8)
    assert regime.multiplier(labels).tolist() == [1.0, *regime.multipliers]


def test_the_default_regime_is_the_control() -> None:
    assert default_config().regime.multipliers == [1.0] * 4


@pytest.mark.parametrize("option", options("sizing"))
def test_a_sizing_rule_is_a_share_of_equity_and_nothing_at_a_multiplier_of_zero(option: str) -> None:
    size = default_config(f"sizing={option}").sizing
    sized = size({}, None, np.array([0.0, 0.4, 1.0, 1.5]))
    assert sized["risk_fraction"][0] == 0.0 and (sized["risk_fraction"][1:] > 0).all()
    assert (sized["risk_fraction"][:-1] <= sized["risk_fraction"][1:]).all() and (sized["max_contracts"] >= 0).all()


@pytest.mark.parametrize("option", options("fill"))
def test_a_fill_stays_within_the_quote_and_buys_no_lower_than_it_sells(option: str) -> None:
    fill = default_config(f"fill={option}").fill
    rng = np.random.default_rng(0)
    bid = np.where(rng.random(2000) < 0.2, 0.0, rng.uniform(0, 9, 2000))
    ask = bid + rng.uniform(0, 2, 2000)
    sell, buy = fill(bid, ask)
    assert ((bid - 1e-12 <= sell) & (sell <= buy + 1e-12) & (buy <= ask + 1e-12)).all()


@pytest.mark.parametrize("option", options("limits"))
def test_limits_are_those_of_the_design(option: str) -> None:
    table = {"tight": (3, 0.10, 0.10), "moderate": (5, 0.20, 0.15), "loose": (8, 0.30, 0.20),
             "wide_open": (10, 0.50, 0.30), "single_only": (1, 0.05, 0.05)}
    limits = default_config(f"limits={option}").limits
    assert (limits.max_positions, limits.max_heat, limits.max_heat_per_underlying) == table[option]
    assert limits.max_heat_group == 0.50 and limits.max_entries_per_day == 3
