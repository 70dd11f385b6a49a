"""The start of a run: its config and code as they are frozen, its origin, and its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.assembly.first_weights import resolve_first_weights
from mlscale.assembly.queued_run import read_shipped_digest
from mlscale.atomic_files import check_writable
from mlscale.launch.start_notices import print_masked_lines
from mlscale.runs.code.code_snapshot import CodeSnapshot, take_snapshot
from mlscale.runs.find import find_run, find_unfinished_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash
from mlscale.runs.initial_source import InitialWeights
from mlscale.runs.resume_plan import AUTO, format_unfinished_line
from mlscale.secrets.config_secrets import protect_config
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class RunStart:
    """The start of a run, before it has a folder.

    Attributes:
        config_yaml: the composed config, interpolations kept, secrets taken out.
        code: the snapshot of the code, if one was requested.
        environment: variables with the literal secrets of the config.
        shipped_digest: of the code that was shipped with a job: the process imports that, whatever is here now.
    """

    config_yaml: str
    code: CodeSnapshot | None
    environment: Mapping[str, str]
    shipped_digest: str | None = None

    @classmethod
    def prepare_start(cls, cfg: DictConfig, masker: Masker) -> RunStart:
        """Return the start of a run. Literal secrets go into the environment: no file holds them, and ranks still see
        them.
        """
        plain = cfg.copy()
        plain.derived = dict.fromkeys(plain.derived)
        protected, environment = protect_config(plain)
        os.environ.update(environment)
        if cfg.resume in (None, AUTO):  # of a run that is named, its own folder is checked
            check_writable(Path(cfg.runs_dir))  # before anything is printed about a run that can't start
        shipped = read_shipped_digest()
        code = take_snapshot() if cfg.snapshot and not shipped else None
        print_masked_lines(code.format_warnings() if code else [], masker)
        return cls(OmegaConf.to_yaml(OmegaConf.create(protected)), code, environment, shipped)

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the code."""
        return self.code.digest if self.code else self.shipped_digest

    def describe_unfinished_run(self, cfg: DictConfig, new: RunFolder) -> list[str]:
        """Return a line that names a run of the same config and code which was cut short, if there is one."""
        run = find_unfinished_run(
            compute_config_hash(self.config_yaml), self.digest, Path(cfg.runs_dir), exclude_id=new.id
        )
        stopped = run is not None and run.checkpoints and run.status in ("crashed", "failed", "interrupted")
        return [format_unfinished_line(run)] if run is not None and stopped else []


@dataclass(frozen=True)
class RunOrigin:
    """The origin of a new run: none, by default.

    Attributes:
        initial: its first weights.
        like: the run whose config it has.
    """

    initial: InitialWeights | None = None
    like: RunFolder | None = None

    @classmethod
    def resolve_origin(cls, cfg: DictConfig) -> RunOrigin:
        """Return the origin that the config names.

        Raises:
            MLScaleError: the run or checkpoint is not found, or corrupt.
        """
        return cls(resolve_first_weights(cfg), find_run(cfg.like, cfg.runs_dir) if cfg.like else None)

    @property
    def parent(self) -> str | None:
        """The id of the run that the new one starts from: that of its weights before that of its config."""
        # The weights decide what a model has learnt; a config alone does not.
        of_weights = self.initial.run if self.initial else None
        return of_weights or (self.like.id if self.like else None)

    def format_lines(self) -> list[str]:
        """Return the lines that report it."""
        lines = [f"like      {self.like.path.name}"] if self.like else []
        return lines + ([self.initial.format_weights_line()] if self.initial else [])


def create_run_folder(
    cfg: DictConfig,
    start: RunStart,
    derived: dict[str, Any],
    masker: Masker,
    origin: RunOrigin,
    *,
    is_queued: bool = False,
) -> RunFolder:
    """Make the run folder; one that is queued waits for a job to train it."""
    return RunFolder.create(
        cfg.runs_dir,
        cfg.name,
        command="train",
        config_yaml=start.config_yaml,
        derived=derived,
        seed=cfg.seed,
        data_version=derived["data_version"],
        label_digest=derived["label_digest"],
        order_version=_get_order_version(),
        decode_version=derived.get("decode_version"),
        overrides=list(cfg.derived.overrides or []),
        tags=list(cfg.tags),
        notes=cfg.notes,
        metric=derived["metric"],
        mode=derived["mode"],
        code=start.code,
        parent=origin.parent,
        init=origin.initial.build_init_document() if origin.initial else None,
        sweep=cfg.derived.sweep_dir,
        masker=masker,
        is_queued=is_queued,
    )


def _get_order_version() -> int:
    from mlscale.data.order.keyed_permutation import ORDER_VERSION

    return ORDER_VERSION
