"""Mahler as it is installed: the wheel, what it needs, and where it keeps things.

The wheel is built by way of the source distribution, so what MANIFEST.in forgets is missing here too.
The build tools come from the environment of the tests: no network is needed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from mahler import home

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT)
    [path] = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin directory of a clean environment with the wheel; only the dependencies are those of the tests."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path in a .pth file is searched last, and the .pth files in it are not read: an editable Mahler stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


@pytest.fixture
def elsewhere(tmp_path) -> dict:
    """Options of a subprocess: another directory, a home of its own, nothing of this checkout on the path."""
    (tmp_path / "elsewhere").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {"cwd": tmp_path / "elsewhere", "env": {**environment, "MAHLER_HOME": str(tmp_path / "home")}}


# --- The wheel --------------------------------------------------------------------------------------------------

def test_the_whole_config_tree_and_every_kernel_travel_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"mahler/conf/{path.relative_to(ROOT / 'conf')}" in names
    for path in (ROOT / "mahler").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "mahler" / "core").glob("*.pyx"):
        assert any(re.fullmatch(rf"mahler/core/{path.stem}\..*\.(so|pyd)", name) for name in names)
    assert not [name for name in names if name.startswith(("tests/", "data/", "conf/")) or name.endswith(".c")]


def test_the_installed_wheel_is_not_this_checkout(installed, elsewhere, tmp_path):
    python = installed / "python"
    assert "venv" in run(python, "-c", "import mahler; print(mahler.__file__)", **elsewhere)
    conf = run(python, "-c", "from mahler import home; print(home.conf_dir())", **elsewhere).strip()
    assert conf.endswith(os.path.join("mahler", "conf")) and str(ROOT) not in conf


def test_the_installed_wheel_lists_its_verbs_from_another_directory(installed, elsewhere):
    shown = run(installed / "mahler", "--help", **elsewhere)
    for command in (ROOT / "mahler" / "commands").glob("[a-z]*.py"):
        verb = command.stem.replace("_", "-")
        assert f"  {verb} " in shown


def test_the_installed_wheel_composes_a_backtest_from_another_directory(installed, elsewhere):
    shown = run(installed / "mahler", "backtest", "--cfg", "job", "limits=tight", **elsewhere)
    assert "\nlimits:\n  max_positions: 3\n" in shown
    assert list(elsewhere["cwd"].iterdir()) == []


def test_the_installed_wheel_loads_its_kernels_and_finds_its_sweeper(installed, elsewhere):
    done = subprocess.run([installed / "mahler", "backtest", "-m", "limits=tight,loose", "limits.max_heat=20"],
                          capture_output=True, text=True, **elsewhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mahler: limits.max_heat is a fraction of equity in (0, 1], got 20.0\n"


# --- What it needs ----------------------------------------------------------------------------------------------

def distribution(requirement: str) -> str:
    """The normalised name in `requirement`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def providers() -> dict[str, set[str]]:
    """The distributions that provide each vendor's module that Mahler imports, inside functions too."""
    modules = set()
    for path in [*(ROOT / "mahler").rglob("*.py"), *(ROOT / "hydra_plugins").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.partition(".")[0])
    known = packages_distributions()
    return {module: {distribution(name) for name in known[module]}
            for module in modules - sys.stdlib_module_names - {"mahler"}}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    declared = {distribution(requirement) for requirement in PROJECT["dependencies"]}
    optional = {distribution(requirement) for requirement in PROJECT["optional-dependencies"]["llm"]}
    for module, names in providers().items():
        assert names & (declared | optional), f"{module} is imported, and pyproject.toml does not say so"
    assert declared - set().union(*providers().values()) == set()


def test_every_dependency_has_a_lower_bound():
    for requirement in [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+", requirement), requirement


# --- Where things are -------------------------------------------------------------------------------------------

def test_a_checkout_keeps_everything_inside_itself(monkeypatch):
    monkeypatch.delenv("MAHLER_HOME", raising=False)
    assert home.project() == ROOT and home.conf_dir() == ROOT / "conf"
    assert home.store_dir() == ROOT / "data" / "chains" and home.mlruns_dir() == ROOT / "mlruns"


def test_mahler_home_moves_data_and_runs_but_not_the_config_tree(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAHLER_HOME", "desk")
    assert home.cache_dir() == tmp_path / "desk" / "data" / "cache"
    assert home.mlruns_dir() == tmp_path / "desk" / "mlruns"
    assert home.conf_dir() == ROOT / "conf"


def test_a_wheel_keeps_its_data_in_the_users_home(monkeypatch, tmp_path):
    monkeypatch.delenv("MAHLER_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(home, "_PACKAGE", tmp_path / "site-packages" / "mahler")
    assert home.project() == tmp_path / "mahler"
    assert home.conf_dir() == tmp_path / "site-packages" / "mahler" / "conf"


def test_a_path_of_the_user_starts_where_they_stand(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert home.user_path("chains.zip") == tmp_path / "chains.zip"
    assert home.user_path("~/chains.zip") == Path("/home/ada/chains.zip")
    assert home.user_path("/data/chains.zip") == Path("/data/chains.zip")
