"""The exchange's sessions: built once, kept, and made again where what was kept is damaged."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mahler import home
from mahler.data import calendar


@pytest.fixture
def forgotten(tmp_path, monkeypatch):
    """A home without a cache, and a process that has not built the calendar."""
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    monkeypatch.setattr(calendar, "_built", [])


def test_what_is_kept_is_what_was_built_and_needs_no_library(forgotten, monkeypatch):
    built = calendar.every().copy()
    assert built[0] == np.datetime64("1990-01-02") and np.datetime64("2018-12-05") not in built       # a day of mourning
    calendar._built.clear()
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)                # an import of it would fail
    assert np.array_equal(calendar.every(), built)


def test_a_damaged_calendar_is_built_again(forgotten, caplog):
    built = calendar.every().copy()
    [kept] = home.cache_dir().glob("*/sessions.npy")
    damaged = bytearray(kept.read_bytes())
    damaged[-1] ^= 1
    kept.write_bytes(damaged)
    calendar._built.clear()
    assert np.array_equal(calendar.every(), built) and "damaged" in caplog.text
