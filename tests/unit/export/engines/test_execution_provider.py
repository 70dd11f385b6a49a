"""A session on another provider than the requested one is refused, and so is one with too few nodes there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines import execution_provider
from mlscale.export.engines.execution_provider import (
    PROVIDERS,
    RECORD_NODES,
    ExecutionProvider,
    check_session,
    read_node_providers,
)
from mlscale.export.engines.onnx_engine import OnnxEngine, import_onnx_runtime
from mlscale.export.engines.runtime import Runtime
from mlscale.export.servable import load
from tests.serving import STORED

MODEL = (STORED / "model.onnx").read_bytes()
# A provider that this build has and that computes no node of any graph here: the whole graph falls back to the CPU.
IDLE = ExecutionProvider(("AzureExecutionProvider", "CPUExecutionProvider"), "Azure", "a cloud", "provider=cpu")


def open_session(*providers: str) -> Any:
    runtime = import_onnx_runtime()
    options = runtime.SessionOptions()
    options.add_session_config_entry(RECORD_NODES, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of providers that are not available
        return runtime.InferenceSession(MODEL, options, providers=list(providers))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_is_refused(provider: str) -> None:
    if PROVIDERS[provider].chain[0] in import_onnx_runtime().get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    with pytest.raises(MLScaleError, match="has no provider") as raised:
        OnnxEngine(MODEL, provider=provider)
    assert raised.value.exit is Exit.ENVIRONMENT
    assert "onnxruntime-gpu" in raised.value.fix


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_session_that_fell_back_is_refused(provider: str) -> None:
    session = open_session(*PROVIDERS[provider].chain)
    if session.get_providers()[0] != "CPUExecutionProvider":
        pytest.skip("this machine has the provider")
    with pytest.raises(MLScaleError, match=f"does not run on {PROVIDERS[provider].label}") as raised:
        check_session(provider, session, 0.0)
    assert "CPUExecutionProvider" in raised.value.why
    assert PROVIDERS[provider].needs in raised.value.why
    assert raised.value.exit is Exit.ENVIRONMENT


@pytest.mark.parametrize(("share", "is_refused"), [(0.0, False), (0.01, True), (float("nan"), True)])
def test_the_share_of_nodes_decides(monkeypatch: pytest.MonkeyPatch, share: float, is_refused: bool) -> None:
    providers: Mapping[str, ExecutionProvider] = {**PROVIDERS, "idle": IDLE}
    monkeypatch.setattr(execution_provider, "PROVIDERS", providers)
    session = open_session(*IDLE.chain)
    if not is_refused:
        assert "100% CPU" in check_session("idle", session, share)
        return
    with pytest.raises(MLScaleError, match="0% of the graph's nodes run on Azure") as raised:
        check_session("idle", session, share)
    assert "100% CPU" in raised.value.why
    assert "Gemm" in raised.value.why
    assert raised.value.fix.startswith("min_provider_share=0")


def test_every_node_is_counted() -> None:
    operators = read_node_providers(open_session("CPUExecutionProvider"))
    assert operators is not None
    assert operators.keys() == {"CPUExecutionProvider"}
    assert "Gemm" in operators["CPUExecutionProvider"]


def test_the_default_is_the_cpu_and_states_it() -> None:
    servable = load(STORED)
    assert servable.engine.description.endswith("on CPU")
    raw = np.zeros((2, *servable.input.shape[1:]), servable.input.dtype)
    np.testing.assert_array_equal(servable.logits(raw), load(STORED, runtime=Runtime()).logits(raw))


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(MLScaleError, match="provider is 'coreml'"):
        Runtime("coreml")
