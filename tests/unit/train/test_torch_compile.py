"""torch.compile: it computes the same, names stay plain, what it needs is told before."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mlscale.config.checks.compile_support import check_compile_support
from mlscale.errors import Exit
from mlscale.tasks import MLP
from mlscale.train.torch_compile import Compile, compile_model, set_tf32, use_uncompiled_names
from tests.unit.fitting import batches, classifier, fit, trainer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it imports its compiler
@pytest.mark.parametrize("model", ["own", "torch's container"])
def test_it_is_compiled_in_the_fit_and_names_stay_plain(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """By the backend that captures graphs and runs them as they are: the machinery without a C++ compiler."""
    captured: list[Any] = []
    real = torch.compile

    def compile_eagerly(function: Any, **options: Any) -> Any:
        def backend(graph: Any, inputs: Any) -> Any:
            captured.append(graph)
            return graph.forward

        assert options == {"mode": "max-autotune"}
        return real(function, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    torch.compiler.reset()

    def network() -> nn.Module:
        torch.manual_seed(5)
        return MLP(3, 2, hidden=[4]) if model == "own" else nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    plain, task = classifier(model=network()), classifier(model=network())
    use_uncompiled_names(task)
    names = list(plain.state_dict())
    fit(trainer(), plain, batches(4))
    fit(trainer(callbacks=[Compile("max-autotune")]), task, batches(4))
    assert captured
    assert list(task.state_dict()) == names
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_compiler_gives_the_same_model() -> None:
    torch.compiler.reset()
    torch.manual_seed(5)
    model = MLP(64, 10, hidden=[32])
    x = torch.randn(16, 64)
    expected = model(x)
    task = classifier(model=model)
    compile_model(task)
    torch.testing.assert_close(task(x), expected)


def reported(**settings: Any) -> list[Any]:
    return list(check_compile_support(OmegaConf.create(settings)))


def test_what_compiling_needs_is_reported_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert reported() == reported(compile=False) == []
    (mode,) = reported(compile="maxautotune")
    assert mode.why.startswith("its modes: default, reduce-overhead")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (missing,) = reported(compile=True)
    assert missing.exit == Exit.ENVIRONMENT
    assert missing.what == f"torch.compile needs a C++ compiler, and {_compiler()} was not found"
    assert missing.fix.endswith("compile=false")
    (tmp_path / "my-c++").write_text("#!/bin/sh\n")
    (tmp_path / "my-c++").chmod(0o755)
    monkeypatch.setenv("CXX", "my-c++ -m64")
    assert [problem.what for problem in reported(compile="default")] in ([], [_NO_HEADERS])


_NO_HEADERS = "torch.compile needs Python's headers, and Python.h was not found"


def _compiler() -> str:
    return "clang++" if sys.platform == "darwin" else "g++"


def test_tf32_sets_both_switches_or_none() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for allowed, precision in ((True, "high"), (False, "highest")):
            set_tf32(allowed)
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, allowed)
        set_tf32(None)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
