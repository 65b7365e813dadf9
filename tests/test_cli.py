"""The command line: verbs, overrides, sweeps, refusals in one line, tab completion.

`probe` is a verb made for these tests: it does what its config says and remembers the configs it ran with.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Event
from textwrap import dedent
from typing import NamedTuple

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.mahler_sweeper import ReadOnce

from mahler import cli, commands, home, launch, sweeping
from mahler.schema import ConfigError

PROBE = '''
"""Do what the config says.

And more, which the list of verbs does not show.
"""
from __future__ import annotations
from dataclasses import dataclass
from mahler.schema import ConfigError, choice, number

@dataclass(frozen=True)
class Limits:
    max_positions: int = number("open positions", 1)
    max_heat: float = number("a fraction of equity", 0, 1, open_low=True)

@dataclass(frozen=True)
class Probe:
    limits: Limits
    tickers: list[str]
    study: str | None
    action: str = choice("work", "fail", "refuse", "interrupt")

ran = []

def run(config: Probe) -> float:
    ran.append(config)
    print("ran")
    if config.action == "fail":
        raise ZeroDivisionError("a bug")
    if config.action == "interrupt":
        raise KeyboardInterrupt
    if config.action == "refuse":
        try:
            raise ConfigError("tickers: SPY has no 2007\\nin the store")
        except ConfigError as refusal:
            raise RuntimeError("wrapped") from refusal
    return 1.0
'''

CONF = {
    "probe.yaml": """
        defaults: [hydra/mahler, {limits: moderate}, _self_, {experiment: null}]
        tickers: [SPY]
        study: ${hydra:runtime.choices.experiment}
        action: work
        """,
    "limits/moderate.yaml": "{max_positions: 5, max_heat: 0.20}",
    "limits/loose.yaml": "{max_positions: 8, max_heat: 0.30}",
    "experiment/grid.yaml": """
        # @package _global_
        hydra: {mode: MULTIRUN, sweeper: {params: {limits: "moderate,loose"}}}
        """,
    "experiment/typo.yaml": """
        # @package _global_
        hydra: {mode: MULTIRUN, sweeper: {params: {limits.max_heet: "0.1,0.2"}}}
        """,
}


class Outcome(NamedTuple):
    status: int
    out: str
    err: str
    ran: list

    @property
    def line(self) -> str:
        """The one line on stderr, of a refusal that came before any job."""
        assert self.status == 2 and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        return self.err.removesuffix("\n")


@pytest.fixture
def probe_files(tmp_path: Path) -> Path:
    """A directory of verbs with probe.py and a config tree with its groups and Mahler's own Hydra settings."""
    for name, text in {"verbs/probe.py": PROBE, **{f"conf/{name}": text for name, text in CONF.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text).lstrip())
    shutil.copytree(home.conf_dir() / "hydra", tmp_path / "conf" / "hydra")
    return tmp_path


@pytest.fixture
def mahler(capfd, monkeypatch, tmp_path) -> Callable[..., Outcome]:
    """The command line, in this process, standing in an empty directory."""
    handlers, level = logging.root.handlers[:], logging.root.level
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in [*cli.QUIET, "HYDRA_FULL_ERROR", "COMP_LINE", "COMP_POINT"]:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        try:
            status = cli.main(arguments)
        except SystemExit as leaving:
            status = leaving.code
        module = sys.modules.get("mahler.commands.probe")
        jobs = list(module.ran) if module else []
        if module:
            module.ran.clear()
        return Outcome(status, *capfd.readouterr(), jobs)

    yield run
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def probe(mahler, probe_files, monkeypatch) -> Callable[..., Outcome]:
    """`mahler probe ...`."""
    monkeypatch.setattr(commands, "__path__", [str(probe_files / "verbs")])
    monkeypatch.setattr(launch, "conf_dir", lambda: probe_files / "conf")
    monkeypatch.delitem(sys.modules, "mahler.commands.probe", raising=False)
    yield lambda *arguments: mahler("probe", *arguments)
    sys.modules.pop("mahler.commands.probe", None)


# --- Verbs ------------------------------------------------------------------------------------------------------

def test_help_lists_every_command_with_the_first_line_of_its_docstring(mahler):
    shown = mahler("--help")
    assert shown.status == 0
    for module in Path(commands.__path__[0]).glob("[a-z]*.py"):
        line = module.read_text().removeprefix('"""').partition("\n")[0].removesuffix('"""')
        assert f"  {module.stem.replace('_', '-'):11}  {line}\n" in shown.out
    assert mahler("-h").out == mahler().out == shown.out


def test_a_verb_has_a_primary_config_and_a_primary_config_a_verb():
    assert {path.stem.replace("_", "-") for path in home.conf_dir().glob("*.yaml")} == set(cli.verbs())


def test_help_is_quick_because_it_imports_nothing_heavy():
    check = "import sys; from mahler.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not {"hydra", "omegaconf", "numpy", "pandas", "mlflow", "mahler.schema"} & set(done.stderr.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5   # s of CPU


def test_an_unknown_verb_is_refused_with_the_ones_there_are(probe, mahler):
    assert mahler("prob").line == "mahler: prob: no such verb; the verbs are probe; did you mean probe?"
    assert mahler("limits=loose").line == "mahler: limits=loose: no such verb; the verbs are probe"


def test_vendors_are_told_to_keep_quiet_unless_the_user_says_otherwise(mahler, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    mahler("--version")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


# --- Actions ----------------------------------------------------------------------------------------------------

def test_a_bare_word_after_the_verb_is_its_action(probe):
    assert [config.action for config in probe("work").ran] == ["work"]
    done = probe("refuse", "limits=loose")
    assert done.line == "mahler: tickers: SPY has no 2007 in the store" and done.ran[0].limits.max_positions == 8
    assert probe("--cfg", "job", "work").line.startswith("mahler: work: cannot be read")      # the first word, and no other


def test_help_of_a_verb_lists_its_actions(probe):
    for arguments in (["--help"], ["work", "--help"]):
        shown = probe(*arguments)
        assert shown.status == 0 and shown.ran == []
        assert "\nActions (mahler probe ACTION ...): work, fail, refuse, interrupt\n" in shown.out


# --- The project's own options ----------------------------------------------------------------------------------

@pytest.fixture
def promoted(probe_files, monkeypatch) -> Path:
    """A home that MAHLER_HOME moves, whose conf/ has a study of its own."""
    own = probe_files / "home" / "conf" / "experiment" / "promoted.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nlimits: {max_positions: 2}\n")
    monkeypatch.setenv("MAHLER_HOME", str(probe_files / "home"))
    return own


def test_an_option_of_a_project_that_was_moved_is_found_and_listed(probe, promoted):
    assert probe("experiment=promoted").ran[0].limits.max_positions == 2
    assert probe("experiment=promotd").line.endswith("experiment is one of grid, promoted, typo; did you mean promoted?")
    assert probe("experiment=5").line.endswith("experiment is one of grid, promoted, typo")


def test_an_option_of_the_package_is_not_replaced_by_the_projects(probe, promoted):
    promoted.with_name("grid.yaml").write_text("# @package _global_\nlimits: {max_positions: 9}\n")
    assert [config.limits.max_positions for config in probe("experiment=grid").ran] == [5, 8]


# --- What Hydra users expect ------------------------------------------------------------------------------------

def test_an_override_and_an_option_reach_the_command_as_checked_values(probe):
    done = probe("limits=loose", "limits.max_heat=0.25", "tickers=[QQQ,IWM]")
    assert done.status == 0 and done.err == ""
    [config] = done.ran
    assert (config.limits.max_positions, config.limits.max_heat, config.tickers) == (8, 0.25, ["QQQ", "IWM"])


def test_help_of_a_verb_shows_its_line_its_groups_and_its_config(probe):
    shown = probe("--help")
    assert shown.status == 0 and shown.ran == []
    assert shown.out.startswith("mahler probe: Do what the config says.\n\nActions (mahler probe ACTION")
    assert "\nUsage: mahler probe [group=option" in shown.out
    assert "\nlimits: loose, moderate\n" in shown.out
    assert "\n  max_heat: 0.2\n" in shown.out


def test_cfg_shows_the_composed_config_and_runs_nothing(probe):
    shown = probe("--cfg", "job", "limits=loose")
    assert shown.status == 0 and shown.ran == []
    assert shown.out.startswith("limits:\n  max_positions: 8\n  max_heat: 0.3\n")


def test_info_shows_where_the_config_comes_from(probe):
    assert "| limits/moderate" in probe("--info", "defaults").out


def test_a_hydra_setting_is_overridden_like_any_other(probe, tmp_path):
    assert probe(f"hydra.run.dir={tmp_path}/out", "hydra.output_subdir=hydra").status == 0
    assert (tmp_path / "out" / "hydra" / "overrides.yaml").is_file()


def test_a_directory_of_the_users_own_options_is_added(probe, tmp_path):
    (tmp_path / "mine" / "limits").mkdir(parents=True)
    (tmp_path / "mine" / "limits" / "timid.yaml").write_text("{max_positions: 1, max_heat: 0.01}")
    [config] = probe("--config-dir", str(tmp_path / "mine"), "limits=timid").ran
    assert config.limits.max_positions == 1


def test_nothing_is_written_where_the_user_stands(probe):
    probe()
    probe("-m", "limits=loose,moderate")
    assert list(Path.cwd().iterdir()) == []


# --- Sweeps -----------------------------------------------------------------------------------------------------

def test_a_sweep_runs_the_jobs_that_hydras_own_sweeper_runs(probe, tmp_path):
    overrides = ["-m", "limits=loose,moderate", "limits.max_heat=0.1,0.2", "tickers=[SPY],[SPY,QQQ]"]
    ours, theirs = probe(*overrides), probe(*overrides, "hydra/sweeper=basic", f"hydra.sweep.dir={tmp_path}/sweep")
    assert len(ours.ran) == 8
    assert ours.ran == theirs.ran


def test_a_study_launches_its_sweep_and_the_command_line_multiplies_it(probe):
    assert [config.limits.max_positions for config in probe("experiment=grid").ran] == [5, 8]
    done = probe("experiment=grid", "limits.max_heat=0.1,0.2")
    assert [(config.limits.max_positions, config.limits.max_heat) for config in done.ran] == [
        (5, 0.1), (5, 0.2), (8, 0.1), (8, 0.2)]
    assert {config.study for config in done.ran} == {"grid"}


def test_each_job_of_a_sweep_is_composed_once(probe, monkeypatch):
    composed = []
    compose = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config",
                        lambda *a, **k: composed.append(1) or compose(*a, **k))
    assert len(probe("-m", "limits=loose,moderate", "limits.max_heat=0.1,0.2").ran) == len(composed) == 4


def test_a_file_is_read_once_for_all_jobs_of_a_sweep(probe, monkeypatch):
    paths, load = [], ConfigRepository.load_config
    monkeypatch.setattr(ConfigRepository, "load_config",
                        lambda self, config_path: paths.append(config_path) or load(self, config_path))
    counts = []
    for heats in ("0.1,0.2", "0.1,0.2,0.3,0.4"):
        probe("-m", "limits=loose,moderate", f"limits.max_heat={heats}")
        counts.append(Counter(paths))
        paths.clear()
    assert counts[0] == counts[1] and counts[0]["limits/loose"] == 1


def test_what_a_job_changes_in_its_config_the_next_does_not_see():
    with initialize_config_dir(str(home.conf_dir()), version_base="1.3"):
        repository = ReadOnce(GlobalHydra.instance().hydra.config_loader.repository, {})
        as_it_is = repository.load_config("limits/loose")
        changed = repository.load_config("limits/loose")
        changed.config.max_heat = 99.0
        assert deepcopy(repository).load_config("limits/loose") == as_it_is != changed


def test_a_sweep_over_long_lists_of_tickers_runs(probe):
    tickers = ",".join(f"T{i}" for i in range(400))
    done = probe("-m", f"tickers=[{tickers}],[SPY]")
    assert [len(config.tickers) for config in done.ran] == [400, 1]


@pytest.mark.parametrize("overrides", [
    ["limits.max_heat=0.1,20"], ["limits=moderate,looser"], ["action=work,sleep"], ["experiment=typo"],
])
def test_a_sweep_with_one_bad_job_is_refused_before_the_first(probe, overrides):
    done = probe("-m", *overrides)
    assert done.line.startswith("mahler: ") and done.ran == []


# --- Sweeps in two processes ---------------------------------------------------------------------------------------

class Scripted:
    """A process that says what it was told to say, once for each job that it takes."""

    is_ready = True
    script: list = []

    def __init__(self, prepare) -> None:
        pass

    def ready(self) -> bool:
        return True

    def do(self, work, verb, config) -> sweeping.Outcome:
        outcome = self.script.pop(0) if self.script else came_to()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome() if callable(outcome) else outcome

    def end(self) -> None:
        pass


def came_to(out: str = "") -> sweeping.Outcome:
    return sweeping.Outcome(out, "", JobReturn(status=JobStatus.COMPLETED, _return_value=1.0), None)


@pytest.fixture
def scripted(probe, monkeypatch):
    """`mahler probe -m` of a dozen jobs beside a process that comes to these outcomes."""
    def run(*script):
        monkeypatch.setattr(sweeping, "APART", ("probe",))
        monkeypatch.setattr(sweeping.workers, "cores", lambda: 2)
        monkeypatch.setattr(Scripted, "script", list(script))
        monkeypatch.setattr(sweeping, "Beside", Scripted)
        heats = ",".join(f"0.{k:02}" for k in range(1, 13))
        return probe("-m", f"limits.max_heat={heats}")
    return run


def test_what_another_process_says_is_said_here(scripted) -> None:
    said = scripted(came_to("that\n"))
    assert said.status == 0 and said.out.count("that\n") == 1
    assert said.out.count("\t#") == 12


def test_bad_input_that_another_process_meets_stops_the_sweep(scripted) -> None:
    said = scripted(sweeping.Outcome("", "", None, "universe.tickers: SPY has no 2007"))
    assert said.status == 2 and said.err == "mahler: universe.tickers: SPY has no 2007\n"
    assert len(said.ran) < 12


def test_a_bug_in_another_process_shows_its_traceback_and_the_sweep_goes_on(scripted) -> None:
    bug = JobReturn(overrides=["limits=loose"], status=JobStatus.FAILED)
    bug.return_value = sweeping.Elsewhere("Traceback, of there\nZeroDivisionError: a bug\n")
    said = scripted(sweeping.Outcome("", "", bug, None))
    assert said.status == 1 and "ZeroDivisionError: a bug" in said.err and said.out.count("\t#") == 12


def test_what_another_process_had_done_when_ctrl_c_came_is_said(scripted, monkeypatch) -> None:
    at_its_second = Event()

    def second() -> None:
        at_its_second.set()
        raise ConfigError("a worker process was killed")         # the terminal interrupts it as well

    def interrupted(*_: object) -> None:
        assert at_its_second.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "_run", interrupted)
    said = scripted(came_to("that\n"), second)
    assert said.status == 130 and said.out.count("that\n") == 1 and said.err == "mahler: interrupted\n"


def test_a_sweep_that_nobody_reads_any_more_ends_at_its_next_job(scripted, monkeypatch) -> None:
    """`mahler backtest -m ... | head`"""
    def write(self, text: str) -> int:
        if "\t#" in text:
            raise BrokenPipeError
        return len(text)

    ended = []
    monkeypatch.setattr(type(sys.stdout), "write", write)
    monkeypatch.setattr(cli.os, "dup2", lambda *_: ended.append(1))
    monkeypatch.setattr(type(sys.stdout), "fileno", lambda self: 1)
    said = scripted()
    assert said.status == 0 and said.err == "" and said.ran == [] and ended


def test_a_reader_who_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """`mahler runs | head`"""
    program = ("import sys; from mahler import cli; from mahler.commands import runs; "
               "say = lambda config: print('many lines\\n' * 100_000); "
               "say.__annotations__ = {'config': runs.Runs}; runs.run = say; sys.exit(cli.main(['runs']))")
    with subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"MAHLER_HOME": str(tmp_path)}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        assert reading.stdout.readline() == "many lines\n"
        reading.stdout.close()
        assert reading.stderr.read() == ""
    assert reading.returncode == 0


def test_a_job_whose_own_pipe_breaks_is_a_bug_that_is_seen(tmp_path: Path) -> None:
    program = ("import sys; from mahler import cli; from mahler.commands import runs\n"
               "def run(config): raise BrokenPipeError('of a worker')\n"
               "run.__annotations__ = {'config': runs.Runs}; runs.run = run; sys.exit(cli.main(['runs']))")
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"MAHLER_HOME": str(tmp_path)}, text=True,
                          capture_output=True)
    assert done.returncode == 1 and "of a worker" in done.stderr and "ConnectionError" in done.stderr


def test_a_process_that_is_killed_is_said_in_one_line(scripted) -> None:
    said = scripted(ConfigError("a worker process was killed, most likely for want of memory"))
    assert said.status == 2 and said.err == "mahler: a worker process was killed, most likely for want of memory\n"


# --- Refusals ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("override, said", [
    ("limits.max_heat=20", "limits.max_heat is a fraction of equity in (0, 1], got 20.0"),
    ("limits.max_positions=five", "limits.max_positions is open positions in [1, inf), an integer, got 'five'"),
    ("limits.max_pos=5", "limits.max_pos: unknown key (value 5); limits has max_positions, max_heat; "
                         "did you mean max_positions?"),
    ("+limits.max_heet=0.2", "limits.max_heet: unknown key (value 0.2); limits has max_positions, max_heat; "
                             "did you mean max_heat?"),
    ("limits=looser", "limits=looser: no such option; limits is one of loose, moderate; did you mean loose?"),
    ("limits=5", "limits=5: no such option; limits is one of loose, moderate"),
    ("limits=null", "limits=null: no such option; limits is one of loose, moderate"),
    ("~limits", "limits is missing: a group with max_positions, max_heat"),
    ("limit=loose", "limit: unknown key (value loose); the config has action, experiment, limits, study, tickers; "
                    "did you mean limits?"),
    ("limits.max_heat.x=1", "limits.max_heat.x: unknown key (value 1); limits.max_heat has no keys"),
    ("+limits=loose", "limits: is there already; drop the + to change it"),
    ("+limits.max_heat=1", "limits.max_heat: is there already; drop the + to change it"),
    ("limits=loose,moderate", "limits=loose,moderate: several values are a sweep, which needs -m; "
                              "a list is written limits=[loose,moderate]"),
    ("limits=[", "limits=[: cannot be read (no viable alternative at input '['); write key=value or group=option"),
    ("wrok", "probe wrok: no such action; probe has work, fail, refuse, interrupt; did you mean work?"),
    ("limits.max_heat", "limits.max_heat: cannot be read (missing EQUAL at '<EOF>'); write key=value or group=option"),
    ("experiment=gird", "experiment=gird: no such option; experiment is one of grid, typo; did you mean grid?"),
    ("tickers=${nope}", "tickers: Interpolation key 'nope' not found"),
    ("hydra.job.chdir=sure", "hydra.job.chdir: Value 'sure' is not a valid bool (type str)"),
    ("--fast", "unrecognized arguments: --fast; `mahler <verb> --help` lists the flags"),
    ("--config-dir=/nowhere", "Additional config directory '/nowhere' not found"),
    ("--resolve", "The --resolve flag can only be used in conjunction with --cfg or --help"),
    ("action=refuse", "tickers: SPY has no 2007 in the store"),   # met inside the job, wrapped, on two lines
])
def test_bad_input_ends_in_one_line_and_status_2(probe, override, said):
    assert probe(override).line == f"mahler: {said}"


def test_a_broken_yaml_of_the_users_own_is_refused_by_name(probe, tmp_path):
    (tmp_path / "mine" / "limits").mkdir(parents=True)
    (tmp_path / "mine" / "limits" / "torn.yaml").write_text("max_heat: [0.1")
    assert "torn.yaml" in probe(f"--config-dir={tmp_path}/mine", "limits=torn").line


def test_bad_input_met_inside_a_job_stops_the_sweep(probe):
    done = probe("-m", "action=refuse,work")
    assert done.line == "mahler: tickers: SPY has no 2007 in the store"
    assert len(done.ran) == 1


def test_a_bug_shows_its_traceback_and_the_sweep_goes_on(probe):
    done = probe("-m", "action=fail,work")
    assert done.status == 1 and len(done.ran) == 2
    assert "ZeroDivisionError: a bug" in done.err and "Traceback" in done.err


def test_an_interrupt_ends_in_one_line_and_status_130(probe):
    done = probe("-m", "action=interrupt,work")
    assert done.status == 130 and done.err == "mahler: interrupted\n" and len(done.ran) == 1


@pytest.mark.parametrize("override, said", [
    ("limits.max_heat=20", ["limits.max_heat", "20", "a fraction of equity", "(0, 1]"]),
    ("limits.max_positions=five", ["limits.max_positions", "'five'", "positions", "an integer"]),
    ("limits.max_pos=5", ["limits.max_pos:", "5", "max_heat_per_underlying", "did you mean max_positions?"]),
    ("+limits.max_heet=0.2", ["limits.max_heet", "0.2", "max_entries_per_day", "did you mean max_heat?"]),
    ("prod", ["prod: cannot be read", "key=value"]),             # a verb without actions has no bare word
    ("regime=prodd", ["regime=prodd", "aggressive", "flat", "did you mean prod?"]),
    ("experiment=regime_gird", ["experiment=regime_gird", "did you mean regime_grid?"]),
    ("sizing.fraction=2", ["sizing.fraction", "2.0", "(0, 1]"]),
    ("regime.multipliers=[1.0,0.5]", ["regime.multipliers", "[1.0, 0.5]", "bear_high_vol"]),
])
def test_a_backtest_refuses_bad_input_before_it_reads_or_makes_any_data(mahler, monkeypatch, tmp_path, override, said):
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path / "home"))
    line = mahler("backtest", override).line
    assert [part for part in said if part not in line] == []
    assert not (tmp_path / "home").exists()


# --- Tab completion ---------------------------------------------------------------------------------------------

def completions(line: str, directory: Path) -> list[str]:
    """What bash offers for `line` once Hydra's script is evaluated: the script, the shell and the program are real."""
    program = directory / "bin" / "mahler"
    program.parent.mkdir(exist_ok=True)
    program.write_text(dedent(f"""\
        #!{sys.executable}
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(cli.__file__).parent.parent)!r})
        from mahler import cli, commands, launch
        commands.__path__ = [{str(directory / "verbs")!r}]
        launch.conf_dir = lambda: Path({str(directory / "conf")!r})
        sys.exit(cli.main())
        """))
    program.chmod(0o755)
    script = r"""
        eval "$(mahler -sc install=bash)"
        COMP_LINE=$1; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        case "$1" in *" ") COMP_CWORD=$((COMP_CWORD + 1));; esac
        $(complete -p mahler | sed -E 's/.*-F ([a-z_]+).*/\1/')
        printf '%s\n' "${COMPREPLY[@]}"
        """
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", line], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"})
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("line, offered", [
    ("mahler pr", ["probe"]),
    ("mahler probe lim", ["limits.", "limits="]),
    ("mahler probe limits=", ["limits=loose", "limits=moderate"]),
    ("mahler probe -m limits=loose limits.max_h", ["limits.max_heat="]),
    ("mahler probe --cf", ["--cfg"]),
    ("mahler probe w", ["work"]),
    ("mahler probe work limits=l", ["limits=loose"]),
    ("mahler probe experiment=p", ["experiment=promoted"]),
    ("mahler probe limits=[ li", []),          # half a list: silence, not a message in the user's prompt
])
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_then_actions_and_overrides_of_the_verb(probe_files, promoted, line, offered):
    assert completions(line, probe_files) == offered


def test_completion_looks_only_at_the_line_up_to_the_cursor(probe, mahler, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "mahler probe limits=mod tickers=[SPY]")
    monkeypatch.setenv("COMP_POINT", str(len("mahler probe limits=mod")))
    assert mahler("-sc", "query=bash").out.split() == ["limits=moderate"]


def test_completion_for_an_unknown_shell_is_refused_with_the_ones_there_are(mahler):
    assert "bash fish zsh" in mahler("-sc", "install=tcsh").line
