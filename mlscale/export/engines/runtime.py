"""Open the runtime that `provider` names, for a servable's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlscale.errors import MLScaleError
from mlscale.export.engines.computed_rows import is_scaled_by_batch
from mlscale.export.engines.engine import Port
from mlscale.export.engines.execution_provider import CPU, PROVIDERS
from mlscale.export.engines.onnx_engine import OnnxEngine

if TYPE_CHECKING:
    from mlscale.data.encoders.encoder import Encoder
    from mlscale.export.engines.openvino_engine import OpenVinoEngine

OPENVINO = "openvino"
RUNTIMES = (*PROVIDERS, OPENVINO)
"""The values of the key `provider`."""
PRECISIONS = ("f32", "bf16", "f16")
"""That OpenVINO computes in. Its own default is bf16 where the CPU has it, without a word."""


@dataclass(frozen=True)
class Runtime:
    """An engine and its settings.

    Attributes:
        provider: one of `RUNTIMES`.
        threads: number of threads that compute one batch.
        precision: of OpenVINO: f32, bf16 or f16.
        min_provider_share: of ONNX Runtime: the smallest share of the graph's nodes that must run on the provider.
    """

    provider: str = CPU
    threads: int = 1
    precision: str = "f32"
    min_provider_share: float = 0.9

    def __post_init__(self) -> None:
        for key, value, values in (
            ("provider", self.provider, RUNTIMES),
            ("openvino_precision", self.precision, PRECISIONS),
        ):
            if value not in values:
                why = f"it is one of {', '.join(values)}"
                raise MLScaleError(f"{key} is '{value}'", where=key, why=why, fix=f"{key}={values[0]}")


def build_runtime(keys: Any, *, threads: int | None = None) -> Runtime:
    """Return the runtime that the keys of a command name.

    Args:
        keys: the command's settings, with `provider`, `openvino_precision` and `min_provider_share` as attributes.
        threads: that compute one batch; None for the key `threads`.
    """
    count = int(keys.threads) if threads is None else threads
    return Runtime(str(keys.provider), count, str(keys.openvino_precision), float(keys.min_provider_share))


def open_runtime(
    runtime: Runtime, model: bytes, encoder: Encoder, inputs: tuple[Port, ...], outputs: tuple[Port, ...], where: str
) -> OnnxEngine | OpenVinoEngine:
    """Return the engine of a servable's ONNX model.

    Args:
        runtime: what computes it.
        model: serialised.
        encoder: of the servable.
        inputs, outputs: of the model, as the servable states them.
        where: the location that errors name.

    Raises:
        MLScaleError: it is not installed, or would compute elsewhere (exit code 5); it can't compute the model, or the
            model has other inputs and outputs.
    """
    if runtime.provider != OPENVINO:
        engine = OnnxEngine(
            model,
            threads=runtime.threads,
            where=where,
            provider=runtime.provider,
            min_provider_share=runtime.min_provider_share,
        )
        engine.check_ports(inputs, outputs)
        return engine
    # Imported on use: OpenVINO is an extra.
    from mlscale.export.engines.openvino_engine import OpenVinoEngine, convert_onnx

    return OpenVinoEngine(
        convert_onnx(model, encoder, where=where),
        encoder,
        inputs,
        outputs,
        threads=runtime.threads,
        precision=runtime.precision,
        is_scaled_by_batch=is_scaled_by_batch(model),
        where=where,
    )
