"""Servables that are not what they should be: the stored one, with another end of its graph or another document."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import helper, numpy_helper

from mlscale.atomic_files import compute_sha256
from tests.serving import STORED

Change = Callable[[Any], None]


def altered(folder: Path, *, graph: Change | None = None, document: Change | None = None) -> Path:
    """A copy of the stored servable, digests in order.

    Args:
        graph: changes the ONNX model.
        document: changes what servable.yaml states.
    """
    shutil.copytree(STORED, folder)
    path = folder / "model.onnx"
    if graph is not None:
        model = onnx.load(path)
        graph(model)
        onnx.save(model, path)
    stated = yaml.safe_load((folder / "servable.yaml").read_text())
    stated["files"]["model.onnx"] = {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
    if document is not None:
        document(stated)
    (folder / "servable.yaml").write_text(yaml.safe_dump(stated, sort_keys=False))
    return folder


def ending_in(operator: str, constant: Any = None, **attributes: Any) -> Change:
    """What was computed, and then one more operation on it, with a constant as its second input."""

    def change(model: Any) -> None:
        for node in model.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        inputs = ["before"]
        if constant is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(constant), "constant"))
            inputs.append("constant")
        model.graph.node.append(helper.make_node(operator, inputs, ["logits"], **attributes))

    return change


def not_a_number(model: Any) -> None:
    """Every answer is NaN, as after a training that diverged."""
    ending_in("Mul", np.float32("nan"))(model)


def renamed_classes(stated: Any) -> None:
    """The same network says other things."""
    stated["labels"] = ["zero", *stated["labels"][1:]]
