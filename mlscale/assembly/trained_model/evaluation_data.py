"""Other data than a model was trained on: it is refused unless its samples are encoded as in training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.config.composition import frozen
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

_MOST_NAMES = 8


def check_encoded_alike(
    cfg: DictConfig, home: Path, facts: Mapping[str, Any] | None, trained: Mapping[str, Any]
) -> None:
    """Check that classes have the numbers that the model knows them by, and columns of tables their encoding.

    Args:
        cfg: of the command, its data among it.
        home: the folder that describes how the model was made.
        facts: of the data.
        trained: the facts of the model's training data, from derived.yaml.

    Raises:
        MLScaleError: they do not.
    """
    if facts is None:
        return
    check_tokenizer(facts, trained)
    _check_classes(facts, trained)
    if facts.get("features"):
        _check_columns(cfg, home, facts, trained)


def check_tokenizer(facts: Mapping[str, Any] | None, trained: Mapping[str, Any]) -> None:
    """Check that texts are read by the tokenizer that the model knows: the ids of another one are other words.

    Raises:
        MLScaleError: they are not.
    """
    given, known = (facts or {}).get("tokenizer"), trained.get("tokenizer")
    if facts is not None and facts.get("vocab_size") and given != known:
        raise MLScaleError(
            "the tokenizer of the data is not the one that the model was trained with",
            where="data.tokenizer",
            why=f"its digest is {given or 'none, as tokens are bytes'}; "
            f"the model's is {known or 'none, as tokens are bytes'}",
            fix="leave data.tokenizer out, and the file as it was",
        )


def normalise_as_trained(data: LightningDataModule | None, cfg: DictConfig) -> None:
    """Let images be normalised as the model's training images were; other data modules normalise on their own."""
    from mlscale.data.images.image_modules import ImageData

    if isinstance(data, ImageData) and cfg.derived.get("mean") and cfg.derived.get("std"):
        data.normalise_by(cfg.derived.mean, cfg.derived.std)


def _check_classes(facts: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Check that the classes of the data are the model's, or the first of them; classes without names go by their
    number.
    """
    count, known = facts.get("num_classes"), trained.get("num_classes")
    if not count or not known:
        return
    # As texts: YAML may have read the name of a class as a number.
    data_classes, model_classes = (list(map(str, source.get("class_names") or [])) for source in (facts, trained))
    if count <= known and (not data_classes or not model_classes or data_classes == model_classes[:count]):
        return
    raise MLScaleError(
        "this data has other classes than the model",
        where="data",
        why=f"its classes are {_format_class_names(data_classes, count)}; "
        f"the model's are {_format_class_names(model_classes, known)}",
        fix="leave data and data.* out, for the data of the run; or choose data whose training split has its classes",
    )


def _format_class_names(names: list[str], count: int) -> str:
    text = ", ".join(names[:_MOST_NAMES]) or f"{count} numbers"
    return f"{text}, …" if len(names) > _MOST_NAMES else text


def _check_columns(cfg: DictConfig, home: Path, facts: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Check that the training table is the model's: numbers are scaled, and categories numbered, by that table."""
    # The encoding is computed from the training table, so only the same table gives the same one.
    before: Any = frozen.load_composed(home).get("data")
    same = before and import_target(before) is import_target(cfg.data) and before.get("train") == cfg.data.get("train")
    if not same or trained.get("train_samples") not in (None, facts["train_samples"]):
        raise MLScaleError(
            "the model's columns would be encoded by another training table",
            where="data.train",
            why="it determines how numbers are scaled and categories numbered",
            fix="split=test data.test=<a table>, and data.train and data.val as the run has them",
        )
