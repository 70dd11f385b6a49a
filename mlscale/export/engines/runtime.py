"""Open the runtime that `provider` names, for a servable's graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.engines.execution_provider import CPU, PROVIDERS
from mlscale.export.engines.onnx_engine import OnnxEngine


@dataclass(frozen=True)
class Runtime:
    """An execution provider of ONNX Runtime and its settings.

    Attributes:
        provider: one of `PROVIDERS`.
        threads: number of threads that compute one batch.
        min_provider_share: the smallest share of the graph's nodes that must run on the provider.
    """

    provider: str = CPU
    threads: int = 1
    min_provider_share: float = 0.9

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            why = f"it is one of {', '.join(PROVIDERS)}"
            raise MLScaleError(f"provider is '{self.provider}'", where="provider", why=why, fix=f"provider={CPU}")


def build_runtime(keys: Any, *, threads: int | None = None) -> Runtime:
    """Return the runtime that the keys of a command name.

    Args:
        keys: the command's settings, with `provider` and `min_provider_share` as attributes.
        threads: that compute one batch; None for the key `threads`.
    """
    count = int(keys.threads) if threads is None else threads
    return Runtime(str(keys.provider), count, float(keys.min_provider_share))


def open_runtime(
    runtime: Runtime, model: bytes, inputs: tuple[Port, ...], outputs: tuple[Port, ...], where: str
) -> OnnxEngine:
    """Return the engine of a servable's ONNX model.

    Args:
        runtime: what computes it.
        model: serialised.
        inputs, outputs: of the model, as the servable states them.
        where: the location that errors name.

    Raises:
        MLScaleError: it is not installed, or would compute elsewhere (exit code 5); it can't compute the model, or the
            model has other inputs and outputs.
    """
    engine = OnnxEngine(
        model,
        threads=runtime.threads,
        where=where,
        provider=runtime.provider,
        min_provider_share=runtime.min_provider_share,
    )
    engine.check_ports(inputs, outputs)
    return engine
