"""Hydra behind the command line: composes a verb's config, runs its jobs, and says in one line what was wrong.

Bad input is refused before any data is read, in a sweep before its first job (`hydra_plugins/mahler_sweeper.py`).
"""

from __future__ import annotations

import importlib
import os
import re
import select
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mahler import workers
from mahler.config import NOT_THE_RESULT, Backtest, load, unknown_action, unknown_key, unknown_option
from mahler.home import conf_dir, moved_conf
from mahler.schema import ConfigError
from mahler.terminal import ExitStatus


MAPPINGS = ("grid", "control")     # of axes, which no YAML has before they are typed
AXIS = re.compile(rf"\+*({'|'.join(MAPPINGS)})(?:\.([\w.]+))?=(.*)", re.DOTALL)


class Refused(BaseException):
    """Bad input met inside a job. Not an Exception, so that Hydra neither reports it nor goes on with the sweep."""


class Unread(BaseException):
    """Nobody reads any more what a job says (`| head`). Not an Exception, for the same reason."""


def run(verb: str | None, arguments: list[str]) -> int:
    """Do what `arguments` say, run the jobs of a verb as a rule.

    Returns the exit status: what the verb says, else 0; 1 for a bug, 2 for bad input.
    """
    try:
        arguments = with_action(verb, arguments)
        _check_flags(arguments)
        return compose(verb, arguments)
    except (Refused, ConfigError) as refusal:
        return refuse(str(refusal))
    except (Unread, BrokenPipeError):      # cli.main knows what it means
        raise BrokenPipeError from None
    except Exception as error:
        reason = _composition_error(error, arguments)
        if reason is not None:
            return refuse(reason)
        traceback.print_exc()
        return 1


def compose(verb: str | None, arguments: list[str]) -> int:
    """Hydra's own main with `arguments` as its command line. Returns the worst exit status of its jobs."""
    os.environ["HYDRA_FULL_ERROR"] = "1"   # raise, instead of printing and leaving
    sys.argv = ["mahler", *(_axis(argument) for argument in arguments)]
    job = task(verb, workers.cores())
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=verb)(job)()
    return job.status


def actions(verb: str | None) -> tuple[str, ...]:
    """What a verb can do, `list` and `rollback` of promote: the options of the field `action` of its config."""
    declared = fields(_schema(verb)) if verb else ()
    return next((f.metadata["options"] for f in declared if f.name == "action"), ())


def with_action(verb: str | None, arguments: list[str]) -> list[str]:
    """`arguments` with a bare first word, where the verb has actions, as the override that it stands for."""
    first, *rest = arguments or [""]
    if not re.fullmatch(r"[A-Za-z][\w-]*", first) or not actions(verb):
        return arguments
    if first not in actions(verb):
        raise unknown_action(verb, first, actions(verb))
    return [f"action={first}", *rest]


def _axis(argument: str) -> str:
    """`grid.exit.stop_loss=[2,3]` as Hydra has to be told: a new item of `grid` whose key has a dot in it."""
    found = AXIS.fullmatch(argument)
    if found is None:
        return argument
    mapping, key, value = found.groups()
    if "," in value and value[0] not in "[{":          # a sweep, which Hydra refuses in the words that were typed
        return argument
    if key is None:
        return f"++{mapping}={value}"
    return f"++{mapping}={{{key}: {value}}}" if mapping == "control" or value.startswith("[") else f"++{mapping}.{key}={value}"


def refuse(reason: str) -> int:
    """Say on one line of stderr why the input is refused. Returns the exit status."""
    print(f"mahler: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def task(verb: str | None, processes: int) -> Callable[[Any], Any]:
    """What Hydra calls with each composed config, which may use so many processes.

    Its `check` is what the sweeper calls with all of them first, and its `verb` that of which it is.
    """
    def checked(cfg: Any) -> tuple[Callable[[Any], Any], Any]:
        _check_promoted()
        return importlib.import_module(f"mahler.commands.{verb}").run, load(cfg, _schema(verb))

    def job(cfg: Any) -> Any:
        try:
            command, config = checked(cfg)
            with workers.allowing(processes):
                result = command(config)
        except BrokenPipeError as error:
            if _is_unread():
                raise Unread from error
            raise ConnectionError("a pipe broke to which a job was writing, and not its output") from error
        except Exception as error:
            refusal = _bad_input(error)
            if refusal is None:
                raise
            raise Refused(str(refusal)) from error
        job.status = max(job.status, result if isinstance(result, ExitStatus) else 0)
        return result

    job.status = 0
    job.check = checked
    job.verb = verb
    job.__module__ = f"mahler.commands.{verb}"   # Hydra calls the job by its last part
    return job


def _is_unread() -> bool:
    """Whether who read stdout or stderr is gone."""
    outputs = select.poll()
    for descriptor in (1, 2):
        outputs.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in outputs.poll(0))


def _check_promoted() -> None:
    """Raise ConfigError for an option of a group that production.yaml, whose values come last, would silently undo."""
    composed = HydraConfig.get()
    if composed.runtime.choices.get("experiment") != "production":
        return
    for override in composed.overrides.task:
        group, _, option = override.lstrip("+").partition("=")
        if group in _groups() and group in (f.name for f in fields(Backtest)) and group not in NOT_THE_RESULT:
            raise ConfigError(f"{group}={option}: experiment=production has values in place of an option of {group}; "
                              f"change a value, {group}.KEY=VALUE, or leave experiment=production out")


def _schema(verb: str) -> type:
    """The dataclass of a verb's config."""
    return get_type_hints(importlib.import_module(f"mahler.commands.{verb}").run)["config"]


def _bad_input(error: BaseException | None) -> ConfigError | None:
    """The ConfigError that `error` is, or was raised from; None where it is a bug."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__
    return error


def _check_flags(arguments: list[str]) -> None:
    """Refuse a flag that Hydra's parser would answer with a page of usage."""
    def refuse_flag(message: str) -> NoReturn:
        raise ConfigError(f"{message}; `mahler <verb> --help` lists the flags")

    parser = get_args_parser()
    parser.error = refuse_flag
    parser.parse_args(arguments)


# --- What Hydra says, in our words ------------------------------------------------------------------------------

def _composition_error(error: Exception, arguments: list[str]) -> str | None:
    """One line for what Hydra or OmegaConf refuse to compose; None where `error` is something else, a bug."""
    text, cause = str(error), error.__cause__
    if isinstance(error, ValueError) and _raised_by(error).startswith("hydra."):
        return _group_by_value(arguments) or text
    if not isinstance(error, (HydraException, OmegaConfBaseException, YAMLError)):
        return None
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = error.missing_cfg_file.rpartition("/")
        if (group, option) == ("experiment", "production"):
            return "experiment=production: nothing was promoted yet: mahler promote run=ID puts a config into production"
        return str(unknown_option(group, option, error.options or []))
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({_reason(text)}); write key=value or group=option"
    sweep = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '((.*?)=(.*))'", text)
    if sweep:
        override, key, values = sweep.groups()
        return f"{override}: several values are a sweep, which needs -m; a list is written {key}=[{values}]"
    twice = re.match(r"Multiple values for (\S+)\.|Could not append to config. An item is already at '(.*?)'", text)
    if twice:
        return f"{twice[1] or twice[2]}: is there already; drop the + to change it"
    given = re.search(r"To append to your config use \+(.*?)=(.*)", text)
    if given and isinstance(cause, OmegaConfBaseException):
        return _no_such_key(cause, given[2])
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {_reason(str(cause))}" if cause.full_key else f"{text}: {_reason(str(cause))}"
    return text.partition("Config search path:")[0]


def _no_such_key(cause: OmegaConfBaseException, value: str) -> str:
    """The refusal of an override of a key that the composed config has not."""
    valid = [str(key) for key in cause.parent_node or {} if key != "hydra"]
    if "." not in cause.full_key:
        valid = sorted({*valid, *_groups()})
    return str(unknown_key(cause.full_key, value, valid))


def _raised_by(error: Exception) -> str:
    """The name of the module that raised `error`."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"]


def _group_by_value(arguments: list[str]) -> str | None:
    """The refusal of `limits=5` or `limits=null`, where the name of an option is due."""
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        if group in _groups():
            options = sorted(path.stem for folder in _conf_dirs() for path in (folder / group).glob("*.yaml"))
            if value not in options:
                return str(unknown_option(group, value, options))
    return None


def _groups() -> list[str]:
    """The config groups, without Hydra's own."""
    return sorted({path.name for folder in _conf_dirs() for path in folder.iterdir()
                   if path.is_dir() and path.name != "hydra"})


def _conf_dirs() -> list[Path]:
    return [conf_dir(), *moved_conf()]


def _reason(text: str) -> str:
    """The first line of a vendor's message that says something."""
    return next(line for line in text.splitlines() if not line.startswith("Error parsing override"))
