"""`mahler <verb> [Hydra overrides]`: finds the verb and hands the rest to Hydra.

Exit status: 0 done, 1 a bug (with its traceback), 2 bad input (with one line), 130 interrupted.
Nothing heavy is imported before a verb is known, so `mahler --help` answers at once.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mahler import __version__, commands

# Vendors that phone home, or reach for the network when imported. A user may set them otherwise.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "GIT_PYTHON_REFRESH": "quiet"}

HELP = """Usage: mahler <verb> [Hydra overrides]

{verbs}

mahler <verb> --help                  the groups and options of a verb
mahler --version
eval "$(mahler -sc install=bash)"     tab completion
"""

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        print("mahler: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:                       # `mahler runs | head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def verbs() -> dict[str, str]:
    """By verb (data-report is data_report.py) the first line of its module's docstring; none is imported."""
    listed = {}
    for module in pkgutil.iter_modules(commands.__path__):
        source = Path(module.module_finder.path, f"{module.name}.py").read_text(encoding="utf-8")
        listed[module.name.replace("_", "-")] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return listed


def _dispatch(arguments: list[str]) -> int:
    first, *rest = arguments or ["--help"]
    if first in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {verb:11}  {line}" for verb, line in verbs().items())))
        return 0
    if first == "--version":
        print(f"mahler {__version__}")
        return 0
    if first in ("-sc", "--shell-completion"):
        return _complete(rest)
    known = verbs()
    if first not in known:
        close = get_close_matches(first, known, n=1)
        print(f"mahler: {first}: no such verb; the verbs are {', '.join(known)}"
              + (f"; did you mean {close[0]}?" if close else ""), file=sys.stderr)
        return 2
    if "-h" in rest or "--help" in rest:
        print(f"mahler {first}: {known[first]}\n")
        listed = _actions(first)
        if listed:
            print(f"Actions (mahler {first} ACTION ...): {', '.join(listed)}\n", flush=True)
    return _hydra(first, rest)


def _hydra(verb: str | None, arguments: list[str]) -> int:
    from mahler import launch   # half a second: only where a verb is known

    return launch.run(verb and verb.replace("-", "_"), arguments)


def _actions(verb: str) -> Sequence[str]:
    from mahler import launch

    return launch.actions(verb.replace("-", "_"))


# --- Tab completion ---------------------------------------------------------------------------------------------

def _complete(arguments: list[str]) -> int:
    """`install=bash`, `uninstall=bash`: Hydra's script. `query=bash`: what may follow on the line being typed."""
    if not any(argument.startswith("query=") for argument in arguments):
        return _hydra(None, ["--shell-completion", *arguments])
    line = os.environ.get("COMP_LINE", "")
    line = line[:int(os.environ.get("COMP_POINT") or len(line))]
    typed = [*line.split(), ""] if line[-1:].isspace() else line.split()
    word, known = typed[-1], verbs()
    if len(typed) <= 2:
        choices = [choice for choice in [*known, "--help", "--version"] if choice.startswith(word)]
    elif typed[1] not in known:
        choices = []
    elif word.startswith("-"):
        choices = [flag for flag in _flags() if flag.startswith(word)]
    else:
        listed = _actions(typed[1])
        if len(typed) == 3:
            print("\n".join(action for action in listed if action.startswith(word)), flush=True)
        elif typed[2] in listed:
            typed[2] = f"action={typed[2]}"
        os.environ["COMP_LINE"] = " ".join(["mahler", *typed[2:]])   # the verb is no part of Hydra's line
        # What Hydra says of a half-typed line would land in the user's prompt.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            return _hydra(typed[1], ["--shell-completion", *arguments])
        return 0
    print("\n".join(choices))
    return 0


def _flags() -> list[str]:
    from hydra._internal.utils import get_args_parser

    return [flag for action in get_args_parser()._actions for flag in action.option_strings if flag.startswith("--")]


if __name__ == "__main__":
    sys.exit(main())
