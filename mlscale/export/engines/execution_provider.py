"""The execution providers of ONNX Runtime, and whether a session runs on the one that was requested.

ONNX Runtime falls back to the CPU without an error where a provider, or a library that it loads, is absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_percent

CPU = "cpu"
RECORD_NODES = "session.record_ep_graph_assignment_info"
"""The session option by which the provider of each node is kept."""
_CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class ExecutionProvider:
    """An execution provider.

    Attributes:
        chain: ONNX Runtime's names: of the provider itself, and of those that compute what it can't.
        label: its name in messages.
        needs: what it loads from this machine.
        fix: what installs it.
    """

    chain: tuple[str, ...]
    label: str
    needs: str = ""
    fix: str = ""


_GPU_PACKAGE = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
PROVIDERS = {
    CPU: ExecutionProvider((_CPU_PROVIDER,), "CPU"),
    "cuda": ExecutionProvider(
        ("CUDAExecutionProvider", _CPU_PROVIDER),
        "CUDA",
        "the driver of an NVIDIA GPU, CUDA and cuDNN",
        f"{_GPU_PACKAGE}\nprovider=cpu",
    ),
    "tensorrt": ExecutionProvider(
        # What TensorRT has no operator for stays on the GPU.
        ("TensorrtExecutionProvider", "CUDAExecutionProvider", _CPU_PROVIDER),
        "TensorRT",
        "the driver of an NVIDIA GPU, CUDA, cuDNN and the libraries of TensorRT",
        f"{_GPU_PACKAGE} tensorrt\nprovider=cuda",
    ),
}
"""By the value of the key `provider`."""


def check_available(key: str, available: Sequence[str], version: str) -> None:
    """Raise an error unless the installed ONNX Runtime was built with a provider.

    Args:
        key: of `PROVIDERS`.
        available: the names of the providers that it has.
        version: of it.

    Raises:
        MLScaleError: it was not (exit code 5).
    """
    provider = PROVIDERS[key]
    if provider.chain[0] not in available:
        # The cloud's own provider computes nothing on this machine.
        shown = ", ".join(name.removesuffix("ExecutionProvider") for name in available if not name.startswith("Azure"))
        raise MLScaleError(
            f"the installed onnxruntime {version} has no provider {provider.label}",
            where=f"provider={key}",
            why=f"it has {shown}; a session would run on the CPU without an error",
            fix=provider.fix,
            exit=Exit.ENVIRONMENT,
        )


def check_session(key: str, session: Any, min_share: float) -> str:
    """Return where the nodes of a session run, in words; raise an error unless enough run on the requested provider.

    Args:
        key: of `PROVIDERS`, not the CPU.
        session: made with `RECORD_NODES`.
        min_share: the smallest share of nodes that must run there.

    Raises:
        MLScaleError: too few do (exit code 5).
    """
    provider = PROVIDERS[key]
    name = provider.chain[0]
    used = list(session.get_providers())
    if name not in used:
        raise MLScaleError(
            f"the session does not run on {provider.label}",
            where=f"provider={key}",
            why=f"onnxruntime could not start it and took {used[0]}; it needs {provider.needs}",
            fix=provider.fix.partition("\n")[2],
            exit=Exit.ENVIRONMENT,
        )
    operators = read_node_providers(session)
    if operators is None:
        return f"{provider.label}; this onnxruntime does not report which nodes run there"
    nodes = Counter({ran_on: len(names) for ran_on, names in operators.items()})
    share = nodes[name] / max(1, nodes.total())
    shares = ", ".join(
        f"{format_percent(count / nodes.total(), 0)} {ran_on.removesuffix('ExecutionProvider')}"
        for ran_on, count in nodes.most_common()
    )
    where = f"{nodes.total()} nodes: {shares}"
    if not share >= min_share:
        others = sorted({operator for ran_on, names in operators.items() if ran_on != name for operator in names})
        raise MLScaleError(
            f"{format_percent(share, 0)} of the graph's nodes run on {provider.label}",
            where=f"provider={key}",
            why=f"{where}; elsewhere run {', '.join(others[:8])}",
            fix=f"min_provider_share={int(100 * share) / 100:g}, if that is enough\nprovider=cpu",
            exit=Exit.ENVIRONMENT,
        )
    return f"{provider.label} ({where})"


def read_node_providers(session: Any) -> dict[str, list[str]] | None:
    """Return the operators of a session's nodes by the provider that computes them; None where it does not report it.

    Args:
        session: made with `RECORD_NODES`.
    """
    # From onnxruntime 1.24 on.
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    operators: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        operators.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return operators
