"""The packages that a server imports, with the versions of this environment: without torch, and what training needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

_SERVER = ("hydra-core", "omegaconf", "numpy", "httptools", "orjson", "uvloop", "pyarrow", "simplejpeg", "pillow")
# Imported before it is known which kind of model is served.
_ENGINES = {"cpu": ("onnxruntime",), "openvino": ("onnxruntime", "openvino")}
_LEFT_OUT = "openvino-telemetry"  # not imported, see `import_openvino`
_GPU_ENGINE = "onnxruntime-gpu"
_TENSORRT = "tensorrt"


def list_serve_packages(provider: str, *, tokenizer: bool = False) -> list[str]:
    """Return lines of requirements.txt, which `pip install --no-deps` installs.

    Args:
        provider: what computes the model.
        tokenizer: the encoder has a tokenizer's file.
    """
    roots = [*_SERVER, *_ENGINES.get(provider, ()), *(["tokenizers"] if tokenizer else [])]
    pinned = {name: version(name) for name in _iterate_needed(roots)}
    if provider not in _ENGINES:
        # Another build of the same version, which this machine need not have; its own needs are onnxruntime's.
        pinned |= {name: version(name) for name in _iterate_needed(["onnxruntime"])}
        pinned[_GPU_ENGINE] = pinned.pop("onnxruntime")
    lines = [f"{name}=={number}" for name, number in sorted(pinned.items())]
    return [f"mlscale=={version('mlscale')}", *lines, *([_TENSORRT] if provider == "tensorrt" else [])]


def _iterate_needed(names: list[str]) -> Iterator[str]:
    """Yield installed packages and all that they need, each once."""
    seen = {_LEFT_OUT}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        yield name
        parsed = map(Requirement, needed)
        # Extras are not installed by a plain requirement.
        waiting += [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]
