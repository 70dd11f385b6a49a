"""The target that every servable is: its ONNX model, served by `mlscale serve`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.engines.engine import Engine
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.required_extras import require_extra
from mlscale.export.servable import MODEL, Servable
from mlscale.file_locks import make_scratch_folder
from mlscale.targets.started_process import start_process
from mlscale.targets.target import Target, TargetServer
from mlscale.targets.v2_client import V2Client


class OnnxTarget(Target):
    """The servable itself: nothing is added to it."""

    name: ClassVar[str] = "onnx"
    is_servable: ClassVar[bool] = True

    def build(self, servable: Servable, folder: Path) -> None:
        """Write nothing: the model is in the servable's own folder."""

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Return ONNX Runtime with the stored model."""
        return OnnxEngine((servable.folder / MODEL).read_bytes())

    def format_start_command(self, folder: Path) -> str:
        """Return the command that serves the servable."""
        return f"mlscale serve {shlex.quote(str(folder.parent.parent))}"

    def check_server_installed(self) -> None:
        """Raise an error if the extra 'serve' is not installed."""
        require_extra("serve", "httptools", "prometheus_client", "pyarrow")

    @contextmanager
    def start_server(self, servable: Servable, folder: Path) -> Iterator[TargetServer]:
        """Run `mlscale serve` on this machine while the block runs."""
        with make_scratch_folder("check") as scratch:
            ready = scratch / "ready.json"
            words = ["port=0", f"ready_file={ready}", "events=null", "registry=none", "control=false"]
            command = [sys.executable, "-m", "mlscale", "serve", str(servable.folder), *words]
            with start_process(command, ready.exists, product="mlscale serve"):
                url = json.loads(ready.read_text())["url"]
                client = V2Client(url, str(servable.document["name"]))
                yield _MlscaleServer(client.read_product(), servable, client)


@dataclass(frozen=True)
class _MlscaleServer:
    product: str
    servable: Servable
    client: V2Client

    def compute_samples(self, raw: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of raw samples: images and texts are sent as they are, rows and tensors encoded."""
        encoder = self.servable.encoder
        is_file = isinstance(encoder, ImageEncoder) and all(isinstance(sample, bytes) for sample in raw)
        if is_file or isinstance(encoder, TextEncoder | DocumentEncoder):
            contents = [sample.encode() if isinstance(sample, str) else bytes(sample) for sample in raw]
            sent = np.empty(len(contents), object)
            sent[:] = contents
            return self.client.compute({"image" if is_file else "text": sent})
        return self.client.compute(self.servable.pack_samples(raw).tensors)
