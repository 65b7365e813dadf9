"""What several test files share: a home with a small synthetic store, made once a process."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path

import pytest

START, END = date(2017, 9, 1), date(2020, 6, 30)        # quiet years, a February, a December and a March


PROGRAM = str(Path(sys.executable).with_name("mahler"))


def shell(folder: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The command as a user starts it, at home in `folder`: five seconds of imports before it does anything."""
    return subprocess.run([PROGRAM, *arguments], env=os.environ | {"MAHLER_HOME": str(folder)}, capture_output=True,
                          text=True, cwd=cwd)


def mahler(folder: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The same in this process: its status and what it said, as `shell` returns them."""
    from mahler import cli

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        patch.setenv("MAHLER_HOME", str(folder))
        patch.setattr(sys, "argv", sys.argv)
        return subprocess.CompletedProcess([PROGRAM, *arguments], cli.main(arguments), out.getvalue(), err.getvalue())


def default_config(*overrides: str):
    """The default config of `mahler backtest` with `overrides`, loaded."""
    from hydra import compose, initialize_config_dir

    from mahler.config import Backtest, load
    from mahler.home import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose("backtest", list(overrides)), Backtest)


@pytest.fixture(scope="session", autouse=True)
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A MAHLER_HOME for what a test keeps that is at home nowhere else: nothing is written into the project."""
    with pytest.MonkeyPatch.context() as patch:
        if "MAHLER_HOME" not in os.environ:
            patch.setenv("MAHLER_HOME", str(tmp_path_factory.mktemp("nowhere")))
        yield


@pytest.fixture(scope="session")
def synthetic_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MAHLER_HOME whose store has SPY and QQQ from START to END; the processes of a test run share its chains."""
    from mahler import home

    base = tmp_path_factory.getbasetemp()
    market = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "market"
    market.mkdir(exist_ok=True)
    with open(market / "lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("MAHLER_HOME", str(market))            # what is there already is left alone
        default_config().data(home.store_dir(), lambda *_: None, tickers=["SPY", "QQQ"], start=None,
                              end=date(END.year, 12, 31))
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(market / "data" / "chains", folder / "data" / "chains", copy_function=os.link)
    return folder


@pytest.fixture
def at_home(synthetic_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of `synthetic_home`, for one test."""
    monkeypatch.setenv("MAHLER_HOME", str(synthetic_home))
    return synthetic_home


PERIOD = [f"period.start={START}", f"period.end={END}"]


def evaluate_config(*overrides: str):
    """The default config of `mahler evaluate` with `overrides`, loaded."""
    from hydra import compose, initialize_config_dir

    from mahler.config import Evaluate, load
    from mahler.home import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose("evaluate", list(overrides)), Evaluate)
