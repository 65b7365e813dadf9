"""Hydra's basic sweeper, which checks every job before it starts the first, and composes each of them once.

Hydra composes all jobs of a sweep to see whether they can be composed, throws the configs away, and
composes each again to run it. Here the configs are kept, and checked as well, so a sweep with one bad
value is refused whole, before any data is read. Nothing is written: MLflow holds the record.

Hydra accepts a sweeper only from the package `hydra_plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


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
        self.loader = ComposedOnce(hydra_context.config_loader)
        context = HydraContext(config_loader=self.loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Any]:
        overrides = OverridesParser.create().parse_overrides([*self._parse_config(), *arguments])
        self.overrides = self.split_arguments(overrides, self.max_batch_size)
        for batch in self.overrides:
            self.validate_batch_is_legal(batch)
        returns, first = [], 0
        for batch in self.overrides:
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
