"""The target TensorFlow Serving: a folder of versions, each a SavedModel, which the server loads as it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from mlscale.export.engines.engine import Engine
from mlscale.export.servable import MODEL, Servable
from mlscale.targets.target import Target, TargetServer
from mlscale.targets.tfserving.model_server import format_server_command, require_model_server, start_model_server
from mlscale.targets.tfserving.saved_model import SavedModelEngine, write_saved_model
from mlscale.targets.tfserving.serving_warmup import write_warmup_requests


class TFServingTarget(Target):
    """A SavedModel with the servable's inputs and outputs, in float32.

    Args:
        version: the number of the version, which the server reports; of several it loads the largest.
        image: of the container that is started where no tensorflow_model_server is installed.
        wait_s: the longest that the server may take to load the model, seconds.
    """

    name: ClassVar[str] = "tfserving"
    extra: ClassVar[str] = "tfserving"
    packages: ClassVar[tuple[str, ...]] = ("tensorflow", "onnx")

    def __init__(self, version: int = 1, image: str = "tensorflow/serving:latest", wait_s: float = 300.0) -> None:
        self.version, self.image, self.wait_s = version, image, wait_s

    def build(self, servable: Servable, folder: Path) -> None:
        """Write `<model>/<version>/saved_model.pb`, and the servable's recorded requests as warm-up.

        Raises:
            MLScaleError: TensorFlow has no counterpart of some operators, which are all named.
        """
        # A server takes the model's name in addresses, and the version from the folder.
        base = folder / re.sub(r"[^\w.-]", "_", str(servable.document["name"]))
        saved = base / str(self.version)
        write_saved_model((servable.folder / MODEL).read_bytes(), servable.inputs, servable.outputs, saved)
        write_warmup_requests(servable, saved, base.name)

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Return TensorFlow with the SavedModel."""
        engine = SavedModelEngine(_find_base(folder) / str(self.version))
        # Names and shapes are what clients rely on.
        engine.check_ports(servable.inputs, servable.outputs)
        return engine

    def format_start_command(self, folder: Path) -> str:
        """Return the command that starts the server: the installed one, else a container."""
        return shlex.join(format_server_command(_find_base(folder.absolute()), self.image))

    def check_server_installed(self) -> None:
        """Raise an error if neither the binary nor a container engine is installed."""
        require_model_server()

    @contextmanager
    def start_server(self, servable: Servable, folder: Path) -> Iterator[TargetServer]:
        """Start tensorflow_model_server, or a container of it, while the block runs."""
        with start_model_server(servable, _find_base(folder), self.image, self.wait_s) as server:
            yield server


def _find_base(folder: Path) -> Path:
    """Return the folder of the model, the only one in that of the target."""
    (base,) = (path for path in folder.iterdir() if path.is_dir())
    return base
