"""The challenger of a retraining cycle: the overrides of its training, and the trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale import commands
from mlscale.assembly.ready import compose_from_overrides
from mlscale.config.composition.frozen import add_derived
from mlscale.config.targets import has_argument
from mlscale.errors import MLScaleError, raise_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.retrain.journal import RetrainingCycle
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.retrain.lineage import ChampionData
    from mlscale.runs.folder import RunFolder
    from mlscale.versions import Version

# Keys of the cycle itself, which its training does not know.
_CYCLE_KEYS = ("ref", "events", "window", "replay", "passes", "lr_factor", "gate", "guard", "force", "trust",
        "registry", "runs_dir", "output")  # fmt: skip
_INT8 = "int8"
# Groups and keys that the cycle sets for its training: typed ones would contradict it.
_DECIDED_KEYS = ("data", "like", "init_from", "resume", "recipe")
_INHERITED_DATA_KEYS = ("image_size", "workers", "on_bad_sample")
# Settings that shorten a run, as the champion's may have been, with the value that switches each off.
_LIMITS_OFF = {
    "max_steps": "-1", "min_steps": "null", "min_epochs": "null", "max_time": "null", "limit_train_batches": "1.0",
    "limit_val_batches": "1.0", "overfit_batches": "0", "val_check_interval": "null", "check_val_every_n_epoch": "1",
}  # fmt: skip


def check_settings(cfg: DictConfig) -> None:
    """Check all settings.

    Raises:
        MLScaleError: all that are out of range.
    """
    wanted = {
        "window.held_out": (0 < cfg.window.held_out < 1, "a share between 0 and 1", "0.3"),
        "window.min_samples": (cfg.window.min_samples >= 2, "2 at least", "200"),
        "window.max_samples": (
            cfg.window.max_samples >= cfg.window.min_samples,
            "no fewer than window.min_samples",
            "",
        ),
        "replay": (0 < cfg.replay < 1, "a share between 0 and 1", "0.7"),
        "passes": (cfg.passes >= 1, "1 at least", "20"),
        "lr_factor": (cfg.lr_factor > 0, "above 0", "0.5"),
        "gate.alpha": (0 < cfg.gate.alpha < 0.5, "between 0 and 0.5", "0.05"),
        "gate.max_drop": (cfg.gate.max_drop >= 0, "0 or more", "0.03"),
        "gate.max_class_drop": (cfg.gate.max_class_drop > 0, "above 0", "0.1"),
        "gate.tolerance": (cfg.gate.tolerance >= 0, "0 or more", "0.1"),
        "guard.factor": (cfg.guard.factor >= 1, "1 or more", "2"),
    }
    problems = [
        MLScaleError(
            f"{key} is {OmegaConf.select(cfg, key)}",
            where=key,
            why=f"it is {what}",
            fix=f"{key}={fix or cfg.window.min_samples}",
        )
        for key, (holds, what, fix) in wanted.items()
        if not holds
    ]
    raise_all(problems)
    _filter_typed_overrides(cfg)


@dataclass(frozen=True)
class Champion:
    """The champion that a challenger starts from.

    Attributes:
        version: the champion.
        config: of its run, checked.
        run: that made it.
        checkpoint: that it was made of.
        data: its data module, prepared.
        before: the data that it was trained on.
        precision: of its weights, fp32 or int8.
    """

    version: Version
    config: DictConfig
    run: RunFolder
    checkpoint: Path
    data: Any
    before: ChampionData
    precision: str

    @classmethod
    def prepare_champion(cls, cfg: DictConfig, version: Version, servable: Servable) -> Champion:
        """Find the champion's run, and the data that it was trained on.

        Raises:
            MLScaleError: the run or the data are gone, or are not such as a challenger can be trained on.
        """
        from mlscale.assembly.run_parts import build_data
        from mlscale.retrain.lineage import collect_champion_data, find_origin
        from mlscale.retrain.window_shards import check_images

        run, checkpoint = find_origin(version, cfg.runs_dir)
        config = compose_from_overrides("train", [f"like={run.path}", *_pass_on_trust(cfg)])
        data = build_data(add_derived(config, {"per_device_batch": 1}))
        if data is not None:
            data.prepare_data()
        former = collect_champion_data(data, config.get("tags") or [])
        check_images(servable.input.dtype, servable.input.shape[1:], former.label_key)
        return cls(version, config, run, checkpoint, data, former, str(servable.document.get("precision", "fp32")))

    def read_original_samples(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Yield the samples that must not be forgotten, with the numbers of their classes, in batches."""
        from mlscale.retrain.lineage import iterate_labelled_samples

        return iterate_labelled_samples(self.data, self.before.splits)

    def list_original_slices(self) -> dict[str, list[str]]:
        """Return the columns of slices of these samples: the split of each, as one may have the windows of earlier
        cycles."""
        sizes = {split: len(self.data.get_decoded_split(split)) for split in self.before.splits}
        return {"split": [split for split, size in sizes.items() for _ in range(size)]} if len(sizes) > 1 else {}


@dataclass(frozen=True)
class Challenger:
    """The exported challenger.

    Attributes:
        run: its run.
        servable: the exported model; None where the export was refused.
        reason: the reason of that.
    """

    run: RunFolder
    servable: Path | None
    reason: str = ""


def train_challenger(
    cfg: DictConfig,
    champion: Champion,
    window: LabelledWindow,
    labels: Sequence[str],
    folder: Path,
    relabelled: NDArray[np.int64],
) -> RunFolder:
    """Write the window as shards into `folder`, train on them and on the champion's data, and return the run.

    What the champion's data has of relabelled classes contradicts the window and is left out.
    """
    from mlscale.retrain.window_shards import write_shards, write_shards_without
    from mlscale.runs.folder import RunFolder

    replay: Sequence[str] = champion.before.train
    if len(relabelled):
        names = labels if champion.before.has_label_names else None
        decoded = champion.data.get_decoded_split("train")
        replay = write_shards_without(
            folder / "replay", decoded, relabelled, names=names, label_key=champion.before.label_key
        )
    for name, chosen in (("train", ~window.held_out), ("held_out", window.held_out)):
        numbers = window.classes[chosen].tolist()
        # The shards must have the same form of labels as the champion's data, names or numbers, because both are mixed.
        texts = [labels[number] if champion.before.has_label_names else str(number) for number in numbers]
        write_shards(folder / name, window.raw[chosen], texts, label_key=champion.before.label_key)
    # By the command, as a user would: the challenger's run can be shown, resumed and exported like any other.
    trained = commands.run_command(
        "train", _compose_overrides(cfg, champion, folder, replay, int((~window.held_out).sum()))
    )
    return RunFolder.open(trained.artifacts["run"])


def export_challenger(cfg: DictConfig, champion: Champion, run: RunFolder) -> Challenger:
    """Export a trained challenger.

    The last checkpoint: to choose the best one would be to choose by the samples that the gate judges by.
    """
    if champion.precision == _INT8:
        # Of the last checkpoint, too; where eight bits are not kept, the challenger is compared as it is.
        commands.run_command(
            "compress", [*_refer_to_run(run, cfg), "compress=int8", *_collect_int8_settings(champion.config)]
        )
    exported = commands.run_command("export", _refer_to_run(run, cfg))
    made = Path(exported.artifacts["servable"]) if exported.ok else None
    return Challenger(run, made, "" if exported.ok else exported.sentence)


def find_finished_training(cycle: RetrainingCycle, runs_dir: str) -> RunFolder | None:
    """Return the run that a cycle has trained, if its training was completed before the cycle was killed."""
    from mlscale.runs.find import list_runs

    # By the tag: the cycle may have been killed before it noted the run.
    return next(
        (run for run in list_runs(runs_dir) if cycle.id in run.run.get("tags", ()) and run.status == "done"), None
    )


def read_window_parts(
    champion: Champion, labels: Sequence[str], folder: Path
) -> dict[str, tuple[list[bytes], NDArray[np.int64]]]:
    """Return the samples of the window, as they were written for the training, with the numbers of their classes.

    Args:
        champion: the champion.
        labels: names of its classes by number.
        folder: of the cycle.

    Returns:
        The parts `train` and `held_out`.
    """
    import numpy as np

    from mlscale.retrain.window_shards import read_shards

    parts = {}
    for name in ("train", "held_out"):
        images, texts = read_shards(folder / name, label_key=champion.before.label_key)
        numbers = [labels.index(text) if champion.before.has_label_names else int(text) for text in texts]
        parts[name] = images, np.array(numbers, np.int64)
    return parts


def _compose_overrides(
    cfg: DictConfig, champion: Champion, folder: Path, replay: Sequence[str], count: int
) -> list[str]:
    """Return the overrides of the training: the champion's config and weights, the window mixed with its data, few
    epochs.
    """
    from mlscale.retrain.lineage import RETRAINED

    config = champion.config
    # The window is a share of 1 - replay of each epoch, so that every new sample is seen about once.
    samples = max(2, round(count / (1 - cfg.replay)))
    parts = int(config.trainer.get("devices", 1) or 1) * int(config.trainer.get("accumulate_grad_batches", 1) or 1)
    # At most the champion's batch, at most an epoch, and divisible by devices and accumulated passes.
    batch = max(parts, min(int(config.data.batch_size), samples) // parts * parts)
    carried = {key: config.data[key] for key in _INHERITED_DATA_KEYS if config.data.get(key) is not None}
    return [
        f"like={champion.run.path}",
        f"init_from={champion.checkpoint}",
        f"runs_dir={cfg.runs_dir}",
        *_pass_on_trust(cfg),
        "data=webdataset",
        f"data.train={{replay:{_format_path_list(replay)},window:{_quote_path(folder / 'train')}}}",
        f"data.mix={{replay:{cfg.replay:g},window:{1 - cfg.replay:g}}}",
        f"data.val={folder / 'held_out'}",
        f"data.test={_format_path_list(champion.before.original)}",
        f"data.label_key={champion.before.label_key}",
        f"data.batch_size={batch}",
        f"data.epoch_samples={max(samples, batch)}",
        *(f"data.{key}={value}" for key, value in carried.items()),
        f"trainer.max_epochs={cfg.passes}",
        *(f"trainer.{key}={value}" for key, value in _LIMITS_OFF.items() if key in config.trainer),
        *_scale_learning_rate(cfg, config),
        *(["compress=none"] if set(config.get("compress") or {}) == {_INT8} else []),  # it would be of the best one
        *(["~callbacks.early_stopping"] if (config.get("callbacks") or {}).get("early_stopping") else []),
        *_filter_typed_overrides(cfg),
        # By the first one the next cycle knows what its data are, by the second one a killed cycle finds its run.
        f"tags=[{RETRAINED},{folder.name}]",
    ]


def _refer_to_run(run: RunFolder, cfg: DictConfig) -> list[str]:
    return [f"ref={run.path}", f"runs_dir={cfg.runs_dir}", "checkpoint=last", *_pass_on_trust(cfg)]


def _collect_int8_settings(config: DictConfig) -> list[str]:
    """Return the settings by which the champion's run was compressed to eight bits, if it was in training."""
    node = (config.get("compress") or {}).get(_INT8) or {}
    return [f"compress.{_INT8}.{key}={value}" for key, value in node.items() if key != "_target_" and value is not None]


def _scale_learning_rate(cfg: DictConfig, config: DictConfig) -> list[str]:
    if not config.get("optimizer") or not has_argument(config.get("task"), "optimizer"):
        return []
    rate = OmegaConf.select(config, "optimizer.lr")
    # The champion's rate, scaled: its weights are trained already.
    return [f"optimizer.lr={rate * cfg.lr_factor:.6g}"] if isinstance(rate, int | float) else []


def _filter_typed_overrides(cfg: DictConfig) -> list[str]:
    """Return the typed overrides that are for the training.

    Raises:
        MLScaleError: one of them is decided by the cycle itself.
    """
    words = []
    for word in cfg.derived.overrides or []:
        key = word.lstrip("+~").partition("=")[0]
        group = key.partition(".")[0].partition("@")[0]
        if group in _DECIDED_KEYS and (group != "data" or key == "data"):
            raise MLScaleError(
                f"retraining sets '{key}' itself",
                where=f"command line: {word}",
                why="a challenger has its champion's config and weights, and is trained on its data and the window",
                fix=f"leave {word} out",
            )
        if group not in _CYCLE_KEYS:
            words.append(word)
    return words


def _pass_on_trust(cfg: DictConfig) -> list[str]:
    return ["trust=true"] if cfg.trust else []


def _quote_path(path: object) -> str:
    """Return a path in a list or a dictionary, as Hydra's grammar reads it."""
    text = str(path).replace("'", "\\'")
    return f"'{text}'"


def _format_path_list(paths: Sequence[str]) -> str:
    return f"[{','.join(map(_quote_path, paths))}]"
