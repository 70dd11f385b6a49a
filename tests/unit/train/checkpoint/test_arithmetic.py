"""The facts that decide a step's last bits, and what is reported where they have changed."""

from __future__ import annotations

import re

import pytest
import torch

from mlscale.runs.host.machine import read_cpu_model
from mlscale.train.checkpoint.arithmetic import NOT_RECORDED, collect_arithmetic_facts, describe_changed_facts

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


def describe_onednn() -> str:
    return str(collect_arithmetic_facts(CPU)["oneDNN"])


def test_what_a_process_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    facts = collect_arithmetic_facts(CPU)
    assert list(facts) == ["threads", "torch", "oneDNN", "CPU"]
    assert (facts["threads"], facts["torch"]) == (3, str(torch.__version__))
    assert facts["CPU"] == f"{read_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})"


def test_the_device_is_one_of_the_facts_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"number {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    facts = collect_arithmetic_facts(torch.device("cuda", 1))
    assert list(facts)[-2:] == ["device", "CUDA"]
    assert (facts["device"], facts["CUDA"]) == ("number 1", "12.8")


@pytest.mark.parametrize(
    ("text", "version"),
    [("- Intel(R) MKL-DNN v2.7.3 (Git Hash 1)", "2.7.3"), ("- oneDNN v3.9", "3.9"), ("nothing", "unknown version")],
)
def test_the_version_of_onednn_is_read_from_the_builds_text(
    monkeypatch: pytest.MonkeyPatch, text: str, version: str
) -> None:
    monkeypatch.setattr(torch.__config__, "show", lambda: text)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert describe_onednn() == version


def test_the_first_limit_of_its_instructions_that_is_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = describe_onednn()
    assert re.fullmatch(r"[\d.]+", plain)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert describe_onednn() == f"{plain} AVX2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert describe_onednn() == f"{plain} SSE41"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    assert describe_onednn() == f"{plain} AVX2"


@pytest.mark.parametrize(("available", "enabled"), [(False, True), (True, False)])
def test_onednn_is_off_where_it_is_not_built_in_or_not_used(
    monkeypatch: pytest.MonkeyPatch, available: bool, enabled: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
    assert describe_onednn() == "off"


def test_each_change_is_a_phrase() -> None:
    before, now = {"threads": 2, "torch": "2.9", "device": "A"}, {"threads": 1, "torch": "2.9", "CPU": "x"}
    assert describe_changed_facts(before, now) == [
        "threads 2 before, 1 now", "CPU unknown before, x now", "device A before, unknown now",
    ]  # fmt: skip
    assert describe_changed_facts(now, now) == []
    assert describe_changed_facts(None, now) == describe_changed_facts({}, now) == [NOT_RECORDED]
