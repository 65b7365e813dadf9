"""Imports only point down, and each vendor is met in one place. A new module is placed here first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mahler

PACKAGE = Path(mahler.__file__).parent

# A module may import what stands on a line above it, or to its left. A dotted name is placed by itself,
# every other module with its package, within which imports are free.
LAYERS = [
    ["schema", "home", "workers", "core"],
    ["cache", "trials", "bsm", "implied", "data.calendar", "market", "data", "ledger"],
    ["fills", "panel", "metrics", "paper"],
    ["regime", "classifiers", "screen", "sizing"],
    ["paths", "exits", "repricing", "stages", "simulate"],
    ["validation", "llm"],
    ["figures", "data_page", "document", "report_figures", "evaluation_figures", "tracking"],
    ["findings", "comparison", "report", "evaluated", "evaluation_report", "system", "explain", "promotion",
     "production", "scan", "scan_page", "monitoring"],
    ["config", "terminal", "backtesting", "grid"],
    ["commands", "launch", "sweeping", "cli"],
]
RANK = {name: rank for rank, name in enumerate(name for layer in LAYERS for name in layer)}

VENDORS = {
    "mlflow": {"tracking"},
    "litellm": {"llm.calls"},
    "pydantic": {"llm.decision"},
    "matplotlib": {"report_figures"},
    "hydra": {"config", "launch", "sweeping", "commands", "cli"},
    "omegaconf": {"config", "launch", "sweeping", "commands", "cli"},
    "pyarrow.parquet": {"data.store"},
    "httpx": {"data.orats_client", "paper.alpaca_client"},
}

MODULES = sorted(str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
                 for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def source_of(module: str) -> str:
    path = PACKAGE.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def imports_of(source: str) -> Iterator[str]:
    """Every dotted name that `source` imports, wherever the import stands; `from a import b` is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def placed(name: str) -> str | None:
    """The name in LAYERS under which `name`, a module of mahler or something in one, is placed."""
    parts = name.split(".")
    return next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in RANK), None)


def within(name: str, owners: set[str]) -> bool:
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_is_below_it(module):
    here = placed(module)
    assert here is not None, f"mahler.{module} has no layer yet: place it in LAYERS"
    for name in imports_of(source_of(module)):
        if name.startswith("mahler.") and name != "mahler.__version__":
            there = placed(name.removeprefix("mahler."))
            assert there is not None, f"{module} imports {name}, which has no layer yet"
            assert RANK[there] <= RANK[here], f"{module} imports {name}, which is above it"


@pytest.mark.parametrize("module", MODULES)
def test_a_vendor_is_met_in_one_place(module):
    for name in imports_of(source_of(module)):
        for vendor, owners in VENDORS.items():
            if within(name, {vendor}):
                assert within(module, owners), f"{module} imports {name}, which belongs to {', '.join(owners)}"


@pytest.mark.parametrize("kernel", sorted(path.name for path in PACKAGE.glob("core/*.pyx")))
def test_a_kernel_imports_nothing_of_mahler(kernel):
    source = (PACKAGE / "core" / kernel).read_text(encoding="utf-8")
    assert not re.findall(r"^\s*(?:from|c?import)\s+(?:mahler|\.).*", source, flags=re.MULTILINE)


def test_an_import_inside_a_function_counts():
    assert list(imports_of("def f():\n    from mahler.data import store\n    import mlflow.tracking")) == [
        "mahler.data.store", "mlflow.tracking"]


def test_a_module_is_placed_by_its_own_name_before_its_package():
    assert placed("data.calendar.sessions") == "data.calendar"
    assert placed("data.orats") == "data"
    assert placed("nowhere") is None


@pytest.mark.parametrize("directory", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*")
                                             if path.is_dir() and any(path.glob("*.py"))))
def test_a_directory_of_modules_is_a_package_so_that_the_wheel_has_it(directory):
    assert (PACKAGE / directory / "__init__.py").is_file()
