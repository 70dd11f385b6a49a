"""The target that every servable is: its ONNX model, served by `mlscale serve`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import ClassVar

from mlscale.export.engine import Engine
from mlscale.export.onnx_engine import OnnxEngine
from mlscale.export.servable import MODEL, Servable
from mlscale.targets.target import Target


class OnnxTarget(Target):
    """The servable itself: nothing is added to it."""

    name: ClassVar[str] = "onnx"

    def build(self, servable: Servable, folder: Path) -> None:
        """Write nothing: the model is in the servable's own folder."""

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Return ONNX Runtime with the stored model."""
        return OnnxEngine((servable.folder / MODEL).read_bytes())

    def format_start_command(self, folder: Path) -> str:
        """Return the command that serves the servable."""
        return f"mlscale serve {shlex.quote(str(folder.parent.parent))}"
