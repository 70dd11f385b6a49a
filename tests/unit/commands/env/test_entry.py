"""`mlscale env`: this machine, and what works on it."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from mlscale.commands.env import environment_checks as env_checks
from mlscale.commands.env.entry import _EXTRAS, main
from mlscale.commands.env.environment_checks import EnvironmentCheck, check_environment, find_wandb_key
from mlscale.launch.local_devices import LocalDevices
from mlscale.runs.host import machine as system
from mlscale.runs.host.machine import Disk, measure_disk

DISK = Disk("/x", True, 10 << 30, 1e9, 1e9)
CPU = LocalDevices(cuda=0, mps=False, cores=2, cuda_bf16=False)


def by_option(devices: LocalDevices, runs: Disk = DISK) -> dict[str, EnvironmentCheck]:
    """The checks by what they are about."""
    return {check.option: check for check in check_environment(devices, runs, DISK)}


def test_json_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mlscale.commands.env.entry.measure_disk", lambda folder, seconds: DISK)
    assert main(["output=json", f"runs_dir={tmp_path}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"]
    assert report["cpu"]["cores"] >= 1
    assert {check["option"] for check in report["checks"]} >= {
        "precision=bf16",
        "strategy=ddp",
        "logger=wandb",
        "data=digits",
    }
    assert main([f"runs_dir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "[ok] precision=fp32" in printed
    assert "fix: " in printed
    assert "\033" not in printed  # not a terminal


def test_one_process_of_each_machine_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    assert capsys.readouterr().out == ""


def test_each_line_is_printed_when_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []

    def measure(folder: Path, seconds: float) -> Disk:
        before.append(capsys.readouterr().out)
        return DISK

    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("mlscale.commands.env.entry.measure_disk", measure)
    assert main([f"runs_dir={tmp_path}"]) == 0
    after = capsys.readouterr().out
    assert "memory " in before[0]
    assert before[1].startswith("  runs disk ")
    assert after.startswith("  cache disk ")
    assert max(map(len, "".join([*before, after]).splitlines())) <= 80


def test_extras_are_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Path(__file__).resolve().parents[4] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        names: set[str] = set()
        for text in extras[extra]:
            inner = re.match(r"mlscale\[(.*)\]", text)
            names |= set().union(*map(packages, inner[1].split(","))) if inner else {re.split(r"[^\w-]", text)[0]}
        return names

    for_users = set(extras) - {"all", "dev", "docs", "test"}
    assert {extra: set(names) for extra, names in _EXTRAS.items()} == {name: packages(name) for name in for_users}
    monkeypatch.setitem(_EXTRAS, "timm", ("a-package-that-is-none",))
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mlscale.commands.env.entry.measure_disk", lambda folder, seconds: DISK)
    assert main([f"runs_dir={tmp_path}"]) == 0
    # Others may be missing, too, such as DALI's: one line installs all of them.
    assert re.search(r"not installed +pip install 'mlscale\[[\w,]*timm[\w,]*\]'", capsys.readouterr().out)


def test_a_cpu() -> None:
    found = by_option(CPU)
    assert found["precision=fp16"] == EnvironmentCheck(
        "precision=fp16", False, "a CPU has no float16 units", "precision=bf16"
    )
    assert found["precision=bf16"].ok
    assert not found["trainer.accelerator=cuda"].ok
    assert "gloo" in found["strategy=ddp"].says
    assert all(check.fix for check in found.values() if not check.ok)


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_option(LocalDevices(cuda=2, mps=False, cores=8, cuda_bf16=False))
    assert found["trainer.accelerator=cuda"].says == "trainer.devices up to 2"
    assert (found["precision=bf16"].ok, found["precision=bf16"].fix) == (False, "precision=fp16")
    assert found["precision=fp16"].ok


def test_disks() -> None:
    assert by_option(CPU, Disk("/x", False, 10 << 30))["runs_dir"].fix == "runs_dir=<a folder>"
    assert "left" in by_option(CPU, Disk("/x", True, 1 << 20))["runs_dir"].says


def test_a_package_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_checks, "_is_installed", lambda name: False)
    assert by_option(CPU)["logger=tensorboard"].fix == "pip install 'mlscale[tensorboard]'"


def test_wandb_key_is_found_and_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert find_wandb_key() == ""
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password hunter22\n")
    (tmp_path / "netrc").chmod(0o600)
    assert find_wandb_key() == str(tmp_path / "netrc")
    monkeypatch.setenv("WANDB_API_KEY", "hunter22")
    assert find_wandb_key() == "WANDB_API_KEY"
    assert not any("hunter22" in str(check) for check in check_environment(CPU, DISK, DISK))


def test_measure(tmp_path: Path) -> None:
    disk = measure_disk(tmp_path / "not" / "there", seconds=0.02)
    assert disk.path == str(tmp_path)
    assert disk.writable
    assert (disk.write_bytes_per_s or 0) > 0
    assert (disk.read_bytes_per_s or 0) > 0
    assert list(tmp_path.iterdir()) == []


def test_limits_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert system.count_usable_cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "memory.max").write_text(str(1 << 30))
    (tmp_path / "memory.current").write_text(str(1 << 29))
    assert system.count_usable_cores() == 2
    assert system.get_memory_bytes() == 1 << 30
    assert system.get_free_memory() <= 1 << 29
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert system.count_usable_cores() == 8
