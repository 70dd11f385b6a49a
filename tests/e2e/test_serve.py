"""`mlscale serve` as users have it: from the command line to answers, events, a swap under load, and the end."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from mlscale.atomic_files import compute_sha256, write_text
from mlscale.events.store import EventStore
from mlscale.export.servable import Servable, load
from mlscale.versions import LocalRegistry
from mlscale.versions.from_servable import publish_servable
from tests.contract.commands import environment, mlscale
from tests.made_servables import make_table_servable
from tests.servables import altered, not_a_number, renamed_classes
from tests.serving import RAW, STORED, Server, ask, pixels, serving, wait_for


def other_model(folder: Path, shift: int) -> Path:
    """A servable that computes something else: its classes are turned by `shift`."""
    shutil.copytree(STORED, folder)
    model = onnx.load(folder / "model.onnx")
    rotate = {"logits": "before_the_turn"}
    for node in model.graph.node:
        node.output[:] = [rotate.get(name, name) for name in node.output]
    order = np.roll(np.arange(10), shift)
    model.graph.initializer.append(onnx.numpy_helper.from_array(order, "turned"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["before_the_turn", "turned"], ["logits"], axis=1))
    onnx.save(model, folder / "model.onnx")
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    path = folder / "model.onnx"
    document["files"]["model.onnx"] = {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
    (folder / "servable.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    """digits:v1, the champion, and digits:v2, another model."""
    registry = LocalRegistry(tmp_path / "registry")
    publish_servable(registry, STORED, aliases=("champion",))
    publish_servable(registry, other_model(tmp_path / "other", 3))
    return registry


def test_from_the_first_line_to_the_last(tmp_path: Path) -> None:
    with serving(tmp_path, STORED, "sample_share=1") as server:
        first, second, third = server.printed.splitlines()
        assert first == f"serving {server.version} on {server.url}"
        assert re.fullmatch(r"computed by ONNX Runtime [\d.]+ on CPU, 1 thread", second)
        body = "-H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
        assert third == f"try it    curl -s {body} {server.url}/predict"
        raw = pixels(3)
        reply = server.ask("/predict", raw.tobytes(), {**RAW, "mlscale-id": "mine"})
        printed = load(STORED).predict(raw)
        assert reply.status == 200
        assert reply.headers["mlscale-version"] == reply.json["model_version"] == server.version
        assert [each["label"] for each in reply.json["predictions"]] == printed.labels
        found = [each["probabilities"] for each in reply.json["predictions"]]
        np.testing.assert_allclose(found, printed.probabilities, rtol=1e-5)
        labels = [{"id": "mine-0", "label": "3"}, {"id": "mine-2", "label": 4}]
        assert server.ask("/labels", labels).json == {"accepted": 2}
        assert EventStore(tmp_path / "events").read_labels_by_id("digits") == {
            "mine-0": "3",
            "mine-2": "4",
        }  # already there
        assert server.stop() == 0
    events = EventStore(tmp_path / "events").read("digits", samples=True)
    assert events.id.tolist() == ["mine-0", "mine-1", "mine-2"]
    np.testing.assert_array_equal(np.asarray(events.samples()), raw)
    np.testing.assert_allclose(events.confidence, printed.probabilities.max(-1), rtol=1e-5)
    assert events.predictions == printed.labels
    assert (events.latency_ms > 0).all()
    assert EventStore(tmp_path / "events").joined("digits").truth.tolist() == ["3", "4"]
    assert "2 requests, 3 samples, 0 failed" in (tmp_path / "server.out").read_text()


def test_it_serves_without_torch(tmp_path: Path) -> None:
    block = tmp_path / "block"
    block.mkdir()
    for name in ("torch", "torchvision", "pytorch_lightning"):
        (block / f"{name}.py").write_text(f"raise ImportError('{name} is not here')")
    with serving(tmp_path, STORED, path=block) as server:
        assert server.ask("/predict", pixels(1).tobytes(), RAW).status == 200
        assert server.stop(signal.SIGINT) == 0


@pytest.mark.timeout(120)
def test_the_champion_is_moved_back_and_forth_under_load(tmp_path: Path, registry: LocalRegistry) -> None:
    """No request fails, every answer is what the version that it names computes, and both versions answer."""
    models: dict[str, Servable] = {
        ref: load(registry.resolve_version(ref).payload) for ref in ("digits:v1", "digits:v2")
    }
    raw = [pixels(1 + n % 4, n) for n in range(40)]
    expected = {ref: [model.predict(each) for each in raw] for ref, model in models.items()}
    assert any(a.labels != b.labels for a, b in zip(*expected.values(), strict=True))
    problems: list[str] = []
    versions: list[list[str]] = [[] for _ in range(6)]
    done = threading.Event()

    def client(number: int, server: Server) -> None:
        n = number
        try:
            with contextlib.closing(server.connection()) as connection:
                while not done.is_set():
                    n = (n + 7) % len(raw)
                    reply = ask(connection, "/predict", raw[n].tobytes(), RAW)
                    version = reply.json["model_version"]
                    versions[number].append(version)
                    printed = expected[version][n].probabilities
                    found = np.array([each["probabilities"] for each in reply.json["predictions"]])
                    if reply.headers["mlscale-version"] != version or not np.allclose(found, printed, atol=1e-5):
                        problems.append(f"{version} is said to give {found}")
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            problems.append(repr(error))

    with serving(tmp_path, "digits@champion", "poll_s=0.02") as server:
        threads = [threading.Thread(target=client, args=(number, server)) for number in range(len(versions))]
        for thread in threads:
            thread.start()
        for move in range(10):
            ref = ("digits:v2", "digits:v1")[move % 2]
            registry.promote(ref)
            wait_for(lambda ref=ref: all(each and each[-1] == ref for each in versions) or problems)
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert server.metric('mlscale_swaps_total{result="ok"}') == 10
        assert server.stop() == 0
    counts = {ref: sum(each.count(ref) for each in versions) for ref in models}
    assert min(counts.values()) > 20
    events = EventStore(tmp_path / "events").read("digits")
    assert set(events.version) == set(models)
    assert len(set(events.id)) == len(events)


def test_a_version_that_does_not_load_changes_nothing(tmp_path: Path, registry: LocalRegistry) -> None:
    with serving(tmp_path, "digits@champion", "poll_s=0.02") as server:
        registry.promote("digits:v2")
        wait_for(lambda: server.ask("/v2/models/digits").json["versions"] == ["digits:v2"])
        bad = registry.resolve_version("digits:v1").payload / "model.onnx"
        content = bad.read_bytes()
        bad.chmod(0o600)
        bad.write_bytes(content[:-1] + b"x")
        aliases = tmp_path / "registry" / "versions" / "digits" / "aliases.json"
        text = aliases.read_text()
        write_text(aliases, text.replace('"champion": 2', '"champion": 1'))  # promote itself refuses
        wait_for(lambda: server.metric('mlscale_swaps_total{result="failed"}') == 1)
        assert server.metric("mlscale_stale") == 1
        assert server.ask("/predict", pixels(1).tobytes(), RAW).json["model_version"] == "digits:v2"
        assert "digits@champion could not be loaded (digits:v1 is corrupt" in server.printed
        assert "digits:v2 serves on" in server.printed
        reply = server.ask("/v2/repository/models/digits/load", {"parameters": {"version": "digits:v1"}})
        assert (reply.status, "digits:v1 is corrupt" in reply.json["error"]) == (400, True)
        write_text(aliases, text)
        wait_for(lambda: server.metric("mlscale_stale") == 0)
        assert server.stop() == 0


def test_a_version_that_can_not_serve_or_serves_other_clients_changes_nothing(tmp_path: Path) -> None:
    registry, path = LocalRegistry(tmp_path / "registry"), "/v2/repository/models/digits/load"
    publish_servable(registry, STORED, aliases=("champion",))
    publish_servable(registry, altered(tmp_path / "nan", graph=not_a_number))
    publish_servable(registry, altered(tmp_path / "renamed", document=renamed_classes))
    with serving(tmp_path, "digits@champion", "poll_s=0.02") as server:
        registry.promote("digits:v2")  # from Python: nothing is tried there
        wait_for(lambda: server.metric("mlscale_stale") == 1)
        assert "the servable can't serve: its answers are not finite" in server.printed
        registry.promote("digits:v3")
        wait_for(lambda: "digits:v3 has another schema than digits:v1" in server.printed)
        assert "classes without '0' and with 'zero'" in server.printed
        reply = server.ask(path, {"parameters": {"version": "digits:v3"}})
        assert (reply.status, "another schema" in reply.json["error"]) == (400, True)
        assert server.ask("/predict", pixels(1).tobytes(), RAW).json["model_version"] == "digits:v1"
        assert server.ask(path, {"parameters": {"version": "digits:v3", "accept_change": "yes"}}).status == 400
        assert server.ask(path, {"parameters": {"version": "digits:v3", "accept_change": True}}).status == 200
        assert server.ask("/v2/models/digits").json["versions"] == ["digits:v3"]
        assert server.metric("mlscale_stale") == 0
    with serving(tmp_path, "digits@champion", "poll_s=0.02", "accept_change=true") as server:
        registry.promote("digits:v1")
        wait_for(lambda: server.ask("/v2/models/digits").json["versions"] == ["digits:v1"])
        assert server.stop() == 0


def test_a_version_that_does_not_repeat_its_recorded_answers_changes_nothing(tmp_path: Path) -> None:
    """Its raw requests are answered by the new version before it serves: here what was recorded is another class."""
    rows, samples = {"size": np.array([1.0, 2.0, 30.0]), "kind": ["a", "b", "a"]}, [{"size": 3, "kind": "a"}]
    warmup = [("first", samples[0]), ("missing", {"size": None, "kind": "new"})]
    good = make_table_servable(tmp_path / "tables", rows, warmup)
    bad = tmp_path / "bad" / "tables"
    shutil.copytree(good, bad)
    recorded = json.loads((bad / "warmup" / "warmup.json").read_text())
    assert [request["key"] for request in recorded["requests"]] == ["first", "missing"]
    recorded["requests"][0]["answer"]["label"] = "Dodo"
    (bad / "warmup" / "warmup.json").write_text(json.dumps(recorded))
    document = yaml.safe_load((bad / "servable.yaml").read_text())
    path = bad / "warmup" / "warmup.json"
    document["files"]["warmup/warmup.json"] = {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
    (bad / "servable.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    registry = LocalRegistry(tmp_path / "registry")
    publish_servable(registry, good, aliases=("champion",))
    publish_servable(registry, bad)
    with serving(tmp_path, "tables@champion", "poll_s=0.02") as server:
        registry.promote("tables:v2")
        wait_for(lambda: server.metric("mlscale_stale") == 1)
        assert (
            "the servable does not answer its warm-up requests as when it was exported; first: label is"
            in server.printed
        )
        assert server.ask("/predict", samples[0]).json["model_version"] == "tables:v1"
        assert server.stop() == 0


@pytest.mark.parametrize("named", ["digits@champion", "digits"])
def test_a_server_that_can_not_load_the_champion_serves_the_one_before(tmp_path: Path, named: str) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    publish_servable(registry, STORED, aliases=("champion",))
    publish_servable(registry, altered(tmp_path / "nan", graph=not_a_number), aliases=("champion",))
    with serving(tmp_path, named, "poll_s=0.02") as server:
        assert server.version == "digits:v1"
        assert f"{named} could not be loaded (the servable can't serve" in server.printed
        assert "digits:v1, the champion before it, serves instead" in server.printed
        assert server.metric("mlscale_stale") == 1
        registry.promote("digits:v1")
        wait_for(lambda: server.metric("mlscale_stale") == 0)
        assert server.stop() == 0
    env = environment(tmp_path)
    for words in ("ref=digits:v2", "ref=digits@previous"):  # what was named by number, or is the last resort
        run = mlscale(tmp_path, "serve", words, "port=0", env=env)
        assert (run.returncode, "its answers are not finite" in run.stderr) == (2, True), run.stderr


def test_clients_load_versions_where_they_may(tmp_path: Path, registry: LocalRegistry) -> None:
    path = "/v2/repository/models/digits/load"
    publish_servable(registry, other_model(tmp_path / "foreign", 5), name="others")
    with serving(tmp_path, "digits@champion", "follow=false") as server:
        registry.promote("digits:v2")
        assert server.ask("/v2/models/digits").json["versions"] == ["digits:v1"]
        loaded = server.ask(path, b"", {"Content-Type": "application/json"})
        assert (loaded.status, loaded.body) == (200, b"")
        assert server.ask("/v2/models/digits").json["versions"] == ["digits:v2"]
        assert server.ask(path, {"parameters": {"version": "digits:v1"}}).status == 200
        assert server.ask("/v2/models/digits/versions/1/ready").status == 200
        for wrong in ("digits:v9", "others:v1", "/etc", str(STORED), "nonsense:"):
            reply = server.ask(path, {"parameters": {"version": wrong}})
            assert (reply.status, reply.json["error"][:23]) == (400, "failed to load 'digits'"), wrong
        assert server.ask("/v2/models/digits").json["versions"] == ["digits:v1"]
    with serving(tmp_path, "digits@champion", "control=false") as server:
        assert server.ask(path, {}).status == 403


def test_what_can_not_be_served_is_reported(tmp_path: Path, registry: LocalRegistry) -> None:
    (tmp_path / "model.ckpt").write_text("weights")
    registry.publish("nets", {"model.ckpt": tmp_path / "model.ckpt"}, kind="checkpoint", run={"id": "1n8q4m7zk3xp"})
    env = environment(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, code, reported in (
            (["ref=nets:v1"], 2, "mlscale export 1n8q4m7zk3xp"),
            (["ref=digits:v7"], 2, "digits has no version v7"),
            (["ref=nowhere/at/all"], 2, "no trained model in 'nowhere/at/all'"),
            (["ref=digits:v1", f"port={port}"], 5, f"port {port} of 127.0.0.1 is in use"),
            (["ref=digits:v1", "host=no.such.host.invalid"], 5, "can't listen"),
            (["ref=digits:v1", "sample_share=2", "port=70000"], 2, "'port' must be int from 0 to 65535"),
            (["ref=digits:v1", "max_bacth=2"], 2, "max_batch"),
        ):
            run = mlscale(tmp_path, "serve", *words, env=env)
            assert (run.returncode, reported in run.stderr, "Traceback" in run.stderr) == (code, True, False), (
                run.stderr
            )
    assert not (tmp_path / "events").exists()


def test_requests_under_way_are_answered_before_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.socket() as idle, server.socket() as half, server.socket() as keen:
        body = pixels(1).tobytes()
        kind = b"Content-Type: application/octet-stream\r\n"
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64\r\n" + kind + b"\r\n"
        half.sendall(head + body[:10])
        keen.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert keen.recv(1000).startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1000) == b""  # nothing was asked: closed
        assert keen.recv(1000) == b""
        half.sendall(body[10:])
        answer = half.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        assert half.recv(1000) == b""
        assert server.process.wait(20) == 0
    assert len(EventStore(tmp_path / "events").read("digits")) == 1


def test_killed_it_loses_the_last_second_at_most(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        store = EventStore(tmp_path / "events")
        for n in range(50):
            assert server.ask("/predict", pixels(1).tobytes(), {**RAW, "mlscale-id": f"{n}"}).status == 200
        wait_for(lambda: len(store.read("digits")) == 50, 5)
        server.ask("/predict", pixels(1).tobytes(), {**RAW, "mlscale-id": "last"})
        server.stop(signal.SIGKILL)
    events = store.read("digits")
    assert events.skipped == 0
    assert events.id.tolist()[:50] == [f"{n}" for n in range(50)]
