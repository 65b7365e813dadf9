"""The gates that a config passes on its way into production. Each is one function, and says one sentence.

A gate is overridden by its name, with a reason that goes wherever the promotion is recorded. Nothing is presumed in a
config's favour: what is not known does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mahler.schema import ConfigError
from mahler.trials import Trial

Row = Mapping[str, Any]          # a row of tracking.runs

MOST_NAMED = 3                   # changed files, settings, studies


@dataclass(frozen=True)
class Gate:
    """What a gate asked, and its answer in a sentence."""

    name: str
    passed: bool
    words: str


@dataclass(frozen=True)
class Judged:
    """What a validation came to for one config: that it is its `winner`, its `control`, or one of the `others`.

    `treated` are the settings of its layers that are not those of the control, which has every group's default: a
    study's control may be a treatment itself, and is then held against nothing.
    """

    row: Row
    judgement: Mapping[str, Any]
    role: str
    treated: tuple[str, ...]

    @property
    def title(self) -> str:
        """Which validation it is."""
        return f"validation {self.row['run_id'][:8]} of {self.row['study']}, {self.row['tags.universe']}"

    @property
    def name(self) -> str:
        """Of the config, in its study."""
        return self.judgement["control"] if self.role == "control" else self.judgement["winners"][0][0]

    def on_the_data_of(self, run: Row) -> bool:
        """Whether it judged the chains and the days that `run` was on."""
        return self.row["tags.data_digest"] == run["tags.data_digest"] and self.row.get("tags.period") == period(run)


def period(run: Row) -> str:
    """First and last day of a run, as the tag `period` of a validation has them."""
    return f"{run['params.period.start']} to {run['params.period.end']}"


@dataclass
class Override:
    """Gates that are overridden, by name, and why. It is recorded with the promotion."""

    gate: str | list[str]
    reason: str | None

    @property
    def gates(self) -> list[str]:
        return [self.gate] if isinstance(self.gate, str) else self.gate

    def __post_init__(self) -> None:
        for name in self.gates:
            if name not in GATES:
                raise ConfigError(f"override.gate={name}: no such gate; the gates are {', '.join(GATES)}")
        if self.gates and not (self.reason or "").strip():
            raise ConfigError(f"override.gate={','.join(self.gates)}: a gate is overridden with a reason, which is "
                              'recorded: override.reason="..."')
        if self.reason and not self.gates:
            raise ConfigError(f"override.reason={self.reason!r} is for a gate: override.gate=NAME, of {', '.join(GATES)}")


def real_data(run: Row) -> Gate:
    """Never on a market that was made."""
    real, source = run["tags.market"] == "real", run["tags.data_source"]
    return Gate("synthetic", real, f"The chains of {source} are real." if real else
                f"The market of {source} is SYNTHETIC: whatever earns on it was put into it.")


def clean_tree(state: tuple[str, Sequence[str]] | None) -> Gate:
    """A commit is the code. `state` is tracking.git_state: the commit and the files that differ from it."""
    if state is None:
        return Gate("clean_tree", False, "The code is not a git checkout: which code it is, is not known.")
    commit, changed = state
    return Gate("clean_tree", not changed, f"{len(changed)} files differ from commit {commit[:8]}: {_named(changed)}." if changed
                else f"The code is that of commit {commit[:8]}.")


def validation(judged: Judged | None, run: Row) -> Gate:
    """The winner of a study that is better than its control, or the control itself, on the data and the days of the run."""
    from mahler.validation.verdict import BETTER      # here and below: a command imports this module, and scipy takes long

    if judged is None:
        return Gate("validation", False, "No validation has judged this config; mahler validate does.")
    if not judged.on_the_data_of(run):
        return Gate("validation", False, f"{judged.title[0].upper()}{judged.title[1:]} is of other data or of another "
                                         f"period, {judged.row.get('tags.period', 'not known')}, than the run, {period(run)}.")
    said = judged.judgement["verdict"]
    if judged.role == "control":
        return Gate("validation", not judged.treated, f"It is the control of {judged.title}" + (
            f", and a treatment all the same, that nothing was held against: {_named(judged.treated)}." if judged.treated
            else "."))
    if judged.role != "winner":
        return Gate("validation", False, f"In {judged.title} another config was chosen: "
                                         f"{judged.judgement['winners'][0][0]}.")
    return Gate("validation", said == BETTER, f"In {judged.title} it was chosen, and the verdict is {said}.")


def deflated_sharpe(judged: Judged | None) -> Gate:
    return _criterion("deflated_sharpe", "deflated_sharpe", "Its deflated Sharpe ratio", judged)


def overfitting(judged: Judged | None) -> Gate:
    return _criterion("pbo", "pbo_p_value", "Its probability of overfitting", judged)


def natural_fill(judged: Judged | None) -> Gate:
    return _criterion("natural_fill", "natural_fill", "What it does at natural fills", judged)


def _criterion(gate: str, name: str, what: str, judged: Judged | None) -> Gate:
    """One line of the validation's rule. The control was not chosen among others, so there is nothing to deflate."""
    if judged is None or judged.role not in ("winner", "control") or (judged.role == "control" and judged.treated):
        return Gate(gate, False, f"{what} is not known: no validation has chosen this config.")
    if judged.role == "control":
        return Gate(gate, True, "It is the control, which was not chosen for its result.")
    asked = next(c for c in judged.judgement["criteria"] if c["name"] == name)
    return Gate(gate, asked["passed"] is True, asked["words"])


def llm(evaluation: Row | None, verdict: str | None) -> Gate:
    """Off, or a layer that ADDS VALUE.

    `verdict` is that of the evaluation among all that was asked in its study; None where it was not judged there.
    """
    from mahler.llm.verdict import ADDS_VALUE

    if evaluation is None:
        return Gate("llm", True, "The LLM layer is off.")
    title = f"evaluation {evaluation['run_id'][:8]}"
    if verdict is None:
        return Gate("llm", False, f"A newer one of its study, {evaluation['study']}, took the place of {title}.")
    return Gate("llm", verdict == ADDS_VALUE, f"The verdict of {title}, among all of {evaluation['study']}, is {verdict}.")


def holdout(config: str, period: tuple[str, str], held_out: tuple[str, str], tried: Sequence[Trial]) -> Gate:
    """Once looked at, and by this config.

    Parameters
    ----------
    config
        backtesting.identity of what is promoted.
    period, held_out
        First and last day, YYYY-MM-DD, of the run and of the holdout.
    tried
        The trial ledger of the store. A config touches the holdout by a run on any day of it.
    """
    days = f"{held_out[0]} to {held_out[1]}"
    if not (period[0] <= held_out[1] and period[1] >= held_out[0]):
        return Gate("holdout", True, f"The run does not see the holdout, {days}.")
    others = [trial for trial in tried if trial.covers(*held_out) and trial.config != config]
    if not others:
        return Gate("holdout", True, f"The holdout, {days}, was looked at by this config and no other.")
    studies = list(dict.fromkeys(trial.study for trial in others))
    return Gate("holdout", False, f"The holdout, {days}, was looked at by {sum(trial.n for trial in others)} other "
                                  f"configs ({_named(studies)}): what is chosen after that is not tested by it.")


def _named(things: Sequence[str]) -> str:
    return ", ".join(things[:MOST_NAMED]) + (", ..." if len(things) > MOST_NAMED else "")


GATES = ("synthetic", "clean_tree", "validation", "deflated_sharpe", "pbo", "natural_fill", "llm", "holdout")


def settle(asked: Sequence[Gate], override: Override) -> dict[str, str]:
    """The gates that do not pass and are overridden, with their sentence. Raises ConfigError where one is not."""
    failed = [gate for gate in asked if not gate.passed]
    refused = [gate for gate in failed if gate.name not in override.gates]
    if refused:
        raise ConfigError("not promoted: " + " ".join(f"[{gate.name}] {gate.words}" for gate in refused)
                          + f' To go on all the same: override.gate=[{",".join(gate.name for gate in failed)}] '
                            'override.reason="..."')
    return {gate.name: gate.words for gate in failed}


def provenance(run: Row, judged: Judged | None, asked: Sequence[Gate], override: Override, **facts: str) -> dict[str, str]:
    """Where a promotion comes from, in the order in which it is read: the header of its files, the tags of its version."""
    found = {"run_id": run["run_id"], "run": run["name"], "study": run["study"], "market": run["tags.market"],
             "universe": run["tags.universe"], "data_source": run["tags.data_source"],
             "data_digest": run["tags.data_digest"], **facts}
    if judged:
        found |= {"validation": judged.row["run_id"], "verdict": judged.judgement["verdict"], "role": judged.role}
    found["gates_passed"] = ", ".join(gate.name for gate in asked if gate.passed)
    overridden = settle(asked, override)
    found["gates_overridden"] = ", ".join(overridden) or "none"
    if overridden:
        found["override_reason"] = " ".join(override.reason.split())
    return found | {f"overridden.{name}": words for name, words in overridden.items()}
