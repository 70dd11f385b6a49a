"""The export target OpenVINO: the model in its own format, in the folders that OpenVINO Model Server reads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import ClassVar

from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import MLScaleError
from mlscale.export.engines.computed_rows import is_scaled_by_batch
from mlscale.export.engines.engine import Engine
from mlscale.export.engines.openvino_engine import OpenVinoEngine, convert_onnx, import_openvino
from mlscale.export.servable import MODEL, Servable
from mlscale.targets.target import Target

_XML = Path("1", "model.xml")  # the server takes the number of the version from the folder
_FIX = "target=onnx, which mlscale serve takes"
_GRPC_PORT, _REST_PORT = 9000, 8000


class OpenVinoTarget(Target):
    """The files model.xml and model.bin. The encoder of a table stays outside: OpenVINO has no operation for texts.

    Args:
        precision: that values are computed in: f32, bf16 or f16.
        compress_to_fp16: store weights in half precision: half the size, and other outputs.
    """

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    def __init__(self, precision: str = "f32", compress_to_fp16: bool = False) -> None:
        self.precision, self.compress_to_fp16 = precision, compress_to_fp16

    def build(self, servable: Servable, folder: Path) -> None:
        """Convert the ONNX model.

        Raises:
            MLScaleError: OpenVINO has no counterpart of an operator, or is not installed (exit code 5).
        """
        openvino = import_openvino()
        path = servable.folder / MODEL
        model = convert_onnx(path.read_bytes(), servable.encoder, where=f"target={self.name}", fix=_FIX)
        (folder / _XML).parent.mkdir(mode=0o700)
        openvino.save_model(model, str(folder / _XML), compress_to_fp16=self.compress_to_fp16)

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Read the files back, for one thread of the CPU."""
        try:
            model = import_openvino().Core().read_model(str(folder / _XML))
        except RuntimeError as error:
            raise MLScaleError(
                f"{_XML} can't be read",
                where=str(folder),
                why=" ".join(str(error).split())[:300],
                fix="mlscale export <its run> target=openvino, which makes it again",
            ) from error
        return OpenVinoEngine(
            model,
            servable.encoder,
            servable.inputs,
            servable.outputs,
            precision=self.precision,
            is_scaled_by_batch=is_scaled_by_batch((servable.folder / MODEL).read_bytes()),
            where=f"target={self.name}",
            fix=_FIX,
        )

    def format_start_command(self, folder: Path) -> str:
        """Return the command that starts OpenVINO Model Server in a container."""
        name = str(read_document(folder.parent.parent)["name"])
        # Without it the server computes in bf16 where the CPU has it.
        plugin = json.dumps({"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY"})
        words = [
            "docker", "run", "--rm", "-p", f"{_GRPC_PORT}:{_GRPC_PORT}", "-p", f"{_REST_PORT}:{_REST_PORT}",
            "-v", f"{folder.absolute()}:/models/{name}:ro", "openvino/model_server:latest",
            "--model_name", name, "--model_path", f"/models/{name}", "--port", str(_GRPC_PORT),
            "--rest_port", str(_REST_PORT), "--plugin_config", plugin,
        ]  # fmt: skip
        return shlex.join(words)
