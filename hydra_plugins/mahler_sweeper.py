"""Hydra's basic sweeper, which checks every job before it starts the first, and composes each of them once.

Hydra composes all jobs of a sweep to see whether they can be composed, throws the configs away, and
composes each again to run it, from files that it reads for every job. Here files and configs are kept, and the
configs checked as well, so a sweep with one bad value is refused whole, before any data is read. Nothing is
written: MLflow holds the record.

Hydra accepts a sweeper only from the package `hydra_plugins`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mahler import sweeping


class ReadOnce(CachingConfigRepository):
    """A repository that reads a config file once for all that are composed; Hydra's own cache is of one of them.

    What it gives may be changed. It is copied by way of pickle, of bytes that never leave this process: to read a
    file takes thirty times as long, and deepcopy of a DictConfig five times.
    """

    def __init__(self, delegate: Any, kept: dict[str, bytes]) -> None:
        self.delegate, self.kept = delegate, kept

    def __deepcopy__(self, memo: dict) -> ReadOnce:
        """What Hydra makes for each job: files that were read stay read."""
        return ReadOnce(deepcopy(self.delegate, memo), self.kept)

    def initialize_sources(self, config_search_path: Any) -> None:
        """Of another search path (a job's hydra.searchpath) nothing is known."""
        self.kept = {}
        super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> Any:
        if config_path not in self.kept:
            self.kept[config_path] = pickle.dumps(self.delegate.load_config(config_path))
        return pickle.loads(self.kept[config_path])


class ComposedOnce:
    """A config loader that hands a job's config, composed to be checked, to the launcher that runs the job."""

    MOST_KEPT = 200   # about 1 MB each

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.kept: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, master_config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        config = self.loader.load_sweep_config(master_config, list(overrides))
        if len(self.kept) < self.MOST_KEPT:
            self.kept[tuple(overrides)] = config
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """What a launcher calls."""
        kept = self.kept.pop(tuple(sweep_overrides), None)
        return kept if kept is not None else self.loader.load_sweep_config(master_config, list(sweep_overrides))

    def __getstate__(self) -> dict[str, Any]:
        return {"loader": self.loader, "kept": {}}   # a launcher's worker process composes its own job


class MahlerSweeper(BasicSweeper):
    """Basic sweeper; the task function may have an attribute `check(config)`, which raises for a bad job."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.check: Callable[[DictConfig], Any] | None = getattr(task_function, "check", None)
        self.verb: str | None = getattr(task_function, "verb", None)
        plain = hydra_context.config_loader
        plain.repository = ReadOnce(plain.repository, {})
        self.loader = ComposedOnce(plain)
        context = HydraContext(config_loader=self.loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Any]:
        overrides = OverridesParser.create().parse_overrides([*self._parse_config(), *arguments])
        self.overrides = self.split_arguments(overrides, self.max_batch_size)
        returns, first = [], 0
        # Another launcher than Hydra's basic one was asked for: it is left to launch.
        apart = self.verb in sweeping.APART and type(self.launcher) is BasicLauncher
        with sweeping.beside(self.verb, sum(map(len, self.overrides))) if apart else nullcontext() as others:
            for batch in self.overrides:
                self.validate_batch_is_legal(batch)
            for batch in self.overrides:
                if apart:
                    results = sweeping.launch_jobs(others, self.hydra_context, self.verb, self.config, batch, first)
                else:
                    results = self.launcher.launch(batch, initial_job_idx=first)
                for result in results:
                    result.return_value   # raises what the job raised
                returns.append(results)
                first += len(batch)
        return returns

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        for overrides in batch:
            config = self.loader.compose(self.config, overrides)
            if self.check is not None:
                running, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config   # for ${hydra:...}
                try:
                    self.check(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))
                finally:
                    HydraConfig.instance().cfg = running
