"""Check that a saved position is one of this data, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError

_RESTART_COMMAND = "mlscale like=<id of the run> init_from=<id of the run>, a new run from its weights"
_KEY_PATHS = {
    "tokenizer": "data.tokenizer",
    "seed": "seed",
    "version": "data.train",
    "policy": "data.sampling",
    "order_version": "mlscale",
    "decode_version": "mlscale",
    "decoder": "data",
}
_OTHER_PIXELS = "the checkpoint was trained on images that were decoded in another way"
_OTHER_ORDER = "the samples come in another order than those of the checkpoint"
_WHATS = {
    "decode_version": _OTHER_PIXELS,
    "decoder": _OTHER_PIXELS,
    "tokenizer": "the checkpoint was trained on the tokens of another tokenizer",
}
_EARLIER_DEFAULTS = {"tokenizer": None, "policy": "shuffle", "decode_version": 1, "decoder": "mlscale"}
"""The values of a checkpoint that was written before these keys were saved."""


def check_position_was_restored(trainer: Any, data: object) -> None:
    """Raise if a run resumes without the position of its data, which Lightning restores by the name of the class.

    Raises:
        MLScaleError: a data module of another name has written the checkpoint.
    """
    if checkpoint := getattr(trainer, "ckpt_path", None):
        raise MLScaleError(
            "the checkpoint has no position in this data",
            where=str(checkpoint),
            why=f"{type(data).__qualname__} has not written it; training would start with the first sample",
            fix=_RESTART_COMMAND,
        )


def check_restored_order(
    saved: Mapping[str, Any],
    order: Mapping[str, Any],
    label_digests: Mapping[str, str],
    val_version: str,
    position: int,
    layout: BatchLayout,
) -> None:
    """Raise if a run that continues at a saved position would see other samples than the one that saved it.

    Args:
        saved: the state of the loader in a checkpoint.
        order: everything that the order of this run's samples depends on, `version` of the data among it.
        label_digests: of each split that has labels.
        val_version: of the validation data.
        position: the place in the order that was saved.
        layout: of this run.

    Raises:
        MLScaleError: the data, its labels, the order or the decoder is another one, or no batch begins there.
    """
    before = {**_EARLIER_DEFAULTS, **saved}
    # On other data the labels differ too, and the version below is the better message.
    if before["version"] == order["version"]:
        _check_labels(before.get("labels") or {}, label_digests)
    for name, value in order.items():
        if before[name] != value:
            raise MLScaleError(
                _WHATS.get(name, _OTHER_ORDER),
                where=_KEY_PATHS[name],
                why=f"its {name.replace('_', ' ')} is {before[name]}, and this run's is {value}",
                fix=f"seed={before[name]}" if name == "seed" else _RESTART_COMMAND,
            )
    # A checkpoint of an earlier version has none.
    if before.get("val_version", val_version) != val_version:
        raise MLScaleError(
            "the validation data is not that of the checkpoint",
            where="data.val",
            why=f"its version was {before['val_version']} and is {val_version}, so metrics would not be comparable",
            fix=f"{_RESTART_COMMAND}; or restore the data",
        )
    # Another batch size may resume here, as long as one of its forward passes begins at this position.
    if position % layout.micro:
        raise MLScaleError(
            f"the run was saved at sample {position}, where no batch of {layout.micro} begins",
            where="data.batch_size",
            why="the batch size has changed since the checkpoint was written",
            fix=f"{_RESTART_COMMAND}; or the batch size of the run",
        )


def _check_labels(before: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raise on other labels: the data version, which keys the order of samples, does not cover them.

    Args:
        before: the digests of a checkpoint; empty in one of an earlier version.
        digests: of this data.
    """
    for split, digest in digests.items():
        if before.get(split, digest) != digest:
            raise MLScaleError(
                "the labels are not those of the checkpoint",
                where=f"data.{split}",
                why=f"samples were relabelled: the digest of the {split} labels was {before[split]} and is {digest}",
                fix=f"{_RESTART_COMMAND}; or restore the labels",
            )
