"""The registry's contract, held by the one in a folder and by the one that W&B mirrors, whatever W&B does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry, WandbRegistry, open_registry
from mlscale.versions.version_record import RECORD
from tests.contract.commands import ROOT
from tests.contract.fake_wandb_artifacts import Dying, FakeArtifacts

WRITE = """
import pathlib, sys
from mlscale.versions import WandbRegistry
registry = WandbRegistry(sys.argv[1], project="p")
for turn in range(2):
    file = pathlib.Path(sys.argv[1] + sys.argv[2])
    file.write_text(f"{sys.argv[2]} {turn}")
    registry.promote(registry.publish("digits", {"model.ckpt": file}, kind="checkpoint").version.ref)
"""
KEY = "local-" + "a" * 40


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of the test's own, and none of W&B's variables."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., str]:
    """Publish a version of `digits` with that content; returns its reference."""

    def one(registry: LocalRegistry, content: str, **known: object) -> str:
        (tmp_path / "model.ckpt").write_text(content)
        files = {"model.ckpt": tmp_path / "model.ckpt", "deep/er.txt": tmp_path / "model.ckpt"}
        return registry.publish("digits", files, kind="checkpoint", **known).version.ref  # type: ignore[arg-type]

    return one


def clients(url: str) -> list[str]:
    """The processes, other than this one, whose environment names that server."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if url.encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append(process.name)
    return found


@contextlib.contextmanager
def env(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[None]:
    """A client with a key, whose server is at `url`."""
    with monkeypatch.context() as patch:
        for name, value in (("BASE_URL", url), ("API_KEY", KEY), ("ERROR_REPORTING", "false")):
            patch.setenv(f"WANDB_{name}", value)
        yield


ONLINE = pytest.param("online", marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", ["local", "without a key", "offline", ONLINE, "refused", "hanging"])
def test_contract(
    kind: str,
    tmp_path: Path,
    publish: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with contextlib.ExitStack() as stack:
        registry: LocalRegistry = LocalRegistry(tmp_path / "registry")
        if kind != "local":
            seconds = 2.0 if kind in ("refused", "hanging") else 60.0
            offline = True if kind == "offline" else None
            registry = WandbRegistry(tmp_path / "registry", project="p", offline=offline, timeout_s=seconds)
        if kind == "online":
            stack.enter_context(env(monkeypatch, stack.enter_context(FakeArtifacts()).url))
        elif kind in ("refused", "hanging"):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listening.getsockname()[1]
            if kind == "refused":
                listening.close()
            stack.enter_context(env(monkeypatch, f"http://127.0.0.1:{port}"))
        began = time.monotonic()
        assert publish(registry, "one", metrics={"accuracy": 0.5}, aliases=["champion"]) == "digits:v1"
        assert publish(registry, "one") == "digits:v1"
        assert publish(registry, "two", parent="digits:v1", aliases=["challenger"]) == "digits:v2"
        assert registry.promote("digits@challenger", replacing="digits:v1").ref == "digits:v2"
        assert registry.rollback("digits").ref == "digits:v1"
        with pytest.raises(MLScaleError):
            registry.resolve_version("digits:v3")
        version = registry.fetch("digits@previous")
        assert (version.ref, version.parent) == ("digits:v2", "digits:v1")
        assert (version.payload / "deep" / "er.txt").read_text() == "two"
        assert registry.get_aliases("digits").of == {"champion": 1, "previous": 2}
        if kind in ("refused", "hanging"):
            assert time.monotonic() - began < 15  # asked once, not at every change
        reported = capfd.readouterr().err
        assert ("wait" in reported) == (kind not in ("local", "online"))
        if isinstance(registry, WandbRegistry):
            left = [] if kind == "online" else ["digits:v1", "digits:v2", "aliases of digits"]
            assert registry.list_pending_names() == left
            assert isinstance(open_registry(registry.root), WandbRegistry)  # looking verbs go on mirroring
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.slow
def test_what_waits_is_sent_as_it_is(
    tmp_path: Path, publish: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalRegistry(tmp_path / "registry")
    publish(
        local, "one", metrics={"accuracy": 0.5}, run={"id": "r1", "path": "/home/ada/runs/r1"}, aliases=["champion"]
    )
    registry = WandbRegistry(local.root, project="p", offline=True)
    publish(registry, "two", data_version="d", aliases=["champion", "mine"])
    with FakeArtifacts() as server, env(monkeypatch, server.url):
        done = registry.sync_mirror(60)
        assert done.sent == ("digits:v1", "digits:v2", "aliases of digits"), done
        assert done.waiting == ()
        first, second = server.held("digits")
        assert first["aliases"] == ["mlscale-v1", "previous"]
        assert second["aliases"] == ["champion", "latest", "mine", "mlscale-v2"]
        assert second["files"] == {"model.ckpt": b"two", "deep/er.txt": b"two"}
        assert (first["metadata"]["version"], first["metadata"]["metrics"]) == ("digits:v1", {"accuracy": 0.5})
        assert first["metadata"]["run"] == {"id": "r1"}  # where it lies here is nobody's business there
        assert second["metadata"]["data_version"] == "d"
        assert [run["state"] for run in server.runs.values()] == ["finished"]
        server.aliases["digits"]["theirs"] = server.aliases["digits"]["champion"]  # given in W&B's own pages
        registry.rollback("digits")
        done = registry.sync_mirror(60)
        assert done.sent == ("aliases of digits",)
        assert [each["aliases"] for each in server.held("digits")] == [
            ["champion", "mlscale-v1"],
            ["latest", "mine", "mlscale-v2", "previous", "theirs"],
        ]
        assert registry.sync_mirror(60).sent == ()
        (registry.outbox.folder / "sent" / "digits.json").unlink()  # the note of what arrived is lost
        assert len(registry.sync_mirror(60).sent) == 3
        assert len(server.held("digits")) == 2  # sent again, and known by its content
        assert server.unknown == []


@pytest.mark.slow
def test_a_server_that_dies_on_the_way(
    tmp_path: Path, publish: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = WandbRegistry(tmp_path / "registry", project="p", offline=True)
    for content in ("one", "two"):
        publish(registry, content, aliases=["champion"])
    with Dying(commits=1) as server, env(monkeypatch, server.url):
        done = registry.sync_mirror(8)
        assert done.sent == ("digits:v1",), done
        assert done.waiting == ("digits:v2", "aliases of digits")
        assert done.why == "it did not take all within 8 s"
        end = time.monotonic() + 20
        while clients(server.url):  # W&B's own process goes with ours
            assert time.monotonic() < end
            time.sleep(0.1)
        assert registry.fetch("digits@champion").ref == "digits:v2"
        server.left = 9
        done = registry.sync_mirror(60)
        assert done.waiting == (), done
        assert [each["metadata"]["version"] for each in server.held("digits")] == ["digits:v1", "digits:v2"]
        assert server.held("digits")[1]["aliases"] == ["champion", "latest", "mlscale-v2"]


@pytest.mark.slow
def test_several_processes_send_each_version_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeArtifacts() as server, env(monkeypatch, server.url):
        commands = [[sys.executable, "-c", WRITE, str(tmp_path / "registry"), me] for me in "ab"]
        writers = [subprocess.Popen(command, cwd=ROOT) for command in commands]
        assert [writer.wait(120) for writer in writers] == [0, 0]
        registry = open_registry(tmp_path / "registry")
        assert isinstance(registry, WandbRegistry)
        assert registry.list_pending_names() == []
        held = server.held("digits")
        assert [each["metadata"]["version"] for each in held] == [f"digits:v{number}" for number in (1, 2, 3, 4)]
        for alias, number in registry.get_aliases("digits").of.items():
            assert [alias in each["aliases"] for each in held] == [number == at for at in (1, 2, 3, 4)]
        assert len(server.runs) == 1


def test_damage_is_not_sent(tmp_path: Path, publish: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    registry = WandbRegistry(tmp_path / "registry", project="p", offline=True)
    for content in ("one", "two"):
        publish(registry, content)
    damaged = registry.resolve_version("digits:v1").payload / "model.ckpt"
    damaged.chmod(0o600)
    damaged.write_text("eno")
    with FakeArtifacts() as server, env(monkeypatch, server.url):
        done = registry.sync_mirror(60)
        assert (done.sent, done.waiting) == (("digits:v2",), ("digits:v1",))
        assert "corrupt" in done.why
        assert [each["metadata"]["version"] for each in server.held("digits")] == ["digits:v2"]


def test_another_place_is_refused_and_harms_nothing(
    tmp_path: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(WandbRegistry(tmp_path / "registry", project="p", offline=True), "one")
    other = WandbRegistry(tmp_path / "registry", project="q", offline=True)
    with pytest.raises(MLScaleError, match="mirrored to p already"):
        other.sync_mirror()
    capsys.readouterr()
    assert publish(other, "two") == "digits:v2"
    assert "not mirrored" in capsys.readouterr().err
    assert (other.fetch("digits:v2").path / RECORD).is_file()
