"""The promoted config as files: production.yaml for Mahler, production.json for anything else, bands.json for monitoring.

production.json is flat and language-neutral, so that a live system has no constants of its own; its schema,
production.schema.json, travels with the package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mahler.llm.context import Context
from mahler.llm.model import Llm
from mahler.llm.prompt import Prompt
from mahler.schema import ConfigError, Regime, check_bounds

YAML, JSON, BANDS = FILES = ("production.yaml", "production.json", "bands.json")
SCHEMA = Path(__file__).with_name("production.schema.json")
SCHEMA_VERSION = 1

PLAIN = ("entry", "exit", "costs", "limits", "breaker")      # groups that are values
COMPONENTS = ("fill", "sizing", "classifier")                # groups that are a function and its options

OF_A_SCAN = ("max_cost", "knowledge_cutoff", "cache_only", "dry_run", "trace")   # of conf/llm: they change no answer
ASKED = tuple(f.name for f in fields(Llm) if f.name not in OF_A_SCAN)
CONTEXT = tuple(f.name for f in fields(Context))


def to_yaml(provenance: Mapping[str, str], groups: Sequence[str], values: str) -> str:
    """The experiment `production`: `values`, the YAML of the whole config, in place of every option of its `groups`."""
    said = "".join(f"#   {key}: {' '.join(text.split())}\n" for key, text in provenance.items())
    nothing = "".join(f"  - override /{group}: null\n" for group in groups)
    return ("# @package _global_\n"
            "# The promoted config, written by mahler promote and not by hand: mahler backtest experiment=production\n"
            f"{said}"
            f"defaults:             # every value is here: no option of a group is read\n{nothing}\n{values}")


def flat(config: Mapping[str, Any], provenance: Mapping[str, str], llm: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values of production.json: a key is the group and the name, limits_max_heat, in the units of the schema.

    `config` is a backtest's as plain values; `llm` is what `settings_of_layer` gives, None is off.
    """
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, **{key: provenance[key] for key in ("promoted", "run_id", "market")},
        "tickers": config["universe"]["tickers"], "backtest_start": config["period"]["start"],
        "backtest_end": config["period"]["end"], "initial_equity": config["initial_equity"]}
    for group in PLAIN:
        values |= {key if key.startswith(group) else f"{group}_{key}": value for key, value in config[group].items()}
    for group in COMPONENTS:
        options = {key: value for key, value in config[group].items() if key not in ("_target_", "_partial_")}
        values |= {group: config[group]["_target_"].rpartition(".")[2],
                   **{f"{group}_{key}": value for key, value in options.items()}}
    regimes = [regime.name.lower() for regime in Regime if regime >= 0]
    values |= {f"regime_{name}": x for name, x in zip(regimes, config["regime"]["multipliers"], strict=True)}
    off = dict.fromkeys(("model", "prompt", "context"))
    return values | {"llm": "on" if llm else "off"} | {f"llm_{key}": value for key, value in (llm or off).items()} | {
        "llm_threshold": None}


def settings_of_layer(prompt: str, context: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The LLM layer of `flat`: names of its prompt and context, and all of how the model was `asked`, groups of plain values."""
    return {"prompt": prompt, "context": context, "prompt_text": asked["prompt"]["text"],
            **{name: asked["llm"][name] for name in ASKED},
            **{f"context_{name}": asked["context"][name] for name in CONTEXT}}


def layer(values: Mapping[str, Any], *, cache_only: bool, max_cost: float | None) -> tuple[Llm, Prompt, Context]:
    """The model that production.json says is asked, and how. Raises ConfigError where its schema does not hold."""
    check(values)
    llm = Llm(**{name: values[f"llm_{name}"] for name in ASKED}, max_cost=max_cost, knowledge_cutoff=None,
              cache_only=cache_only, dry_run=False, trace=False)
    check_bounds(llm, "llm")
    return llm, Prompt(values["llm_prompt_text"]), Context(**{name: values[f"llm_context_{name}"] for name in CONTEXT})


def check(values: Mapping[str, Any]) -> None:
    """Raise ConfigError where `values` are not what production.schema.json says."""
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for error in Draft202012Validator(schema).iter_errors(values):
        raise ConfigError(f"{JSON}: {'.'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message}")


def write(folder: Path, yaml: str, values: Mapping[str, Any], bands: Mapping[str, Any]) -> None:
    """The three files of a version, in a folder that is not there yet."""
    check(values)
    folder.mkdir(parents=True)
    for name, text in zip(FILES, (yaml, _json(values), _json(bands)), strict=True):
        (folder / name).write_text(text, encoding="utf-8")


def install(folder: Path, into: Path) -> None:
    """Put the files of a version where they are read; each is whole at any moment. Raises ConfigError if one is gone."""
    gone = [name for name in FILES if not (folder / name).is_file()]
    if gone:
        raise ConfigError(f"{folder / gone[0]} is gone: that version cannot be installed")
    into.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        scratch = into / f".{name}"
        scratch.write_bytes((folder / name).read_bytes())
        os.replace(scratch, into / name)


def installed(folder: Path, into: Path) -> bool:
    """Whether the files that are read are those of a version."""
    return all((folder / name).is_file() and (into / name).is_file()
               and (folder / name).read_bytes() == (into / name).read_bytes() for name in FILES)


def read(folder: Path) -> dict[str, Any]:
    """The values of production.json in `folder`. Raises ConfigError where there is none."""
    path = folder / JSON
    if not path.is_file():
        raise ConfigError(f"{path} is not there")
    return json.loads(path.read_text(encoding="utf-8"))


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The keys of two productions that differ, with both values as JSON; a dash where one has not the key."""
    def shown(values: Mapping[str, Any], key: str) -> str:
        return json.dumps(values[key]) if key in values else "-"

    keys = dict.fromkeys([*a, *b])
    return [(key, shown(a, key), shown(b, key)) for key in keys if shown(a, key) != shown(b, key)]


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, allow_nan=False) + "\n"
