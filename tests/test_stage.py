"""Stages of an account: where it is, and from when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from mahler import schema
from mahler.config import load
from mahler.home import conf_dir
from mahler.paper import stage as stages
from mahler.paper.stage import Stage
from mahler.schema import ConfigError
from tests.paper import table

STARTED = np.datetime64("2024-03-04")


def committed() -> dict[str, Stage]:
    return {path.stem: load(OmegaConf.load(path), Stage) for path in sorted((conf_dir() / "stage").glob("*.yaml"))}


def moves(*rows: tuple[str, str]):
    return table(schema.STAGE_MOVE, *({"moved_at": at, "stage": name, "who": "desk", "why": "test"} for at, name in rows))


def test_an_account_begins_on_paper():
    assert stages.current(moves(), STARTED, STARTED) == ("paper", STARTED)


def test_a_move_counts_from_the_next_day_on():
    moved = moves(("2024-05-02T21:00:00", "live_half"))
    assert stages.current(moved, STARTED, np.datetime64("2024-05-02")) == ("paper", STARTED)
    assert stages.current(moved, STARTED, np.datetime64("2024-05-03")) == ("live_half", np.datetime64("2024-05-03"))


def test_the_last_move_counts():
    moved = moves(("2024-05-02T21:00:00", "live_half"), ("2024-06-03T20:00:00", "paper"), ("2024-06-03T19:00:00", "live_full"))
    assert stages.current(moved, STARTED, np.datetime64("2024-07-01")) == ("paper", np.datetime64("2024-06-04"))


def test_the_committed_stages_lead_up_one_by_one_and_halve_the_size_before_it_is_whole():
    found = committed()
    stages.check(found)
    assert [found[name].up for name in ("paper", "live_half", "live_full")] == ["live_half", "live_full", None]
    assert found["live_half"].size_multiplier == 0.5 and found["live_full"].size_multiplier == 1.0


def test_a_stage_that_leads_nowhere_is_refused():
    found = committed()
    with pytest.raises(ConfigError, match="stages.paper.up is one of .*, got 'live'"):
        stages.check(found | {"paper": replace(found["paper"], up="live")})
    with pytest.raises(ConfigError, match="stages lacks paper"):
        stages.check({"live_full": replace(found["live_full"], down="live_full")})
    with pytest.raises(ConfigError, match="stage.size_multiplier is a share of the promoted size"):
        replace(found["paper"], size_multiplier=2.0)
