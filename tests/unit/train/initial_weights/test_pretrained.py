"""A model's own weights: out of the cache, or from a server that is asked; and what is said where there is none."""

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from mlscale import commands
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.tasks import Classification
from mlscale.train.initial_weights import pretrained
from mlscale.train.initial_weights.start import load_initial_weights
from tests.unit.data.conftest import picture, write_tar

NET = torchvision.models.shufflenet_v2_x0_5
WEIGHTS = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
TIMM: dict[str, Any] = {"_target_": "timm.create_model", "pretrained": True}
NODE = {"_target_": "torchvision.models.shufflenet_v2_x0_5", "weights": "DEFAULT", "num_classes": 3}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a thousand classes, named by their digest as torchvision's are."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(5)
    torch.save(NET(weights=None).state_dict(), folder / "made")
    path = folder / f"shufflenet-{hashlib.sha256((folder / 'made').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "made").rename(path)
    return path


@pytest.fixture
def server(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address where they are served; torchvision's table names it, and the cache is empty."""
    handler = partial(_Quiet, directory=str(file.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/{file.name}"
        monkeypatch.setattr(WEIGHTS.value, "url", url)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield url
        running.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_it_is_fetched_once_and_the_head_begins_anew(server: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initial = pretrained.fetch_pretrained_weights(NODE, NET)
    assert initial.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (initial.source, initial.name) == ("torchvision", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1")
    monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:9/{file.name}")  # nobody is there any more
    assert pretrained.fetch_pretrained_weights(NODE, NET) == initial
    task = Classification(3, model=NET(num_classes=3))
    found, lines = load_initial_weights(task, initial, classes=3)
    assert found.share == 1
    assert (
        lines[1]
        == "head      model.fc.weight, model.fc.bias: 1000 outputs in the source, 3 here, so it is re-initialised"
    )


def test_a_run_begins_with_them_and_its_other_verbs_need_no_network(
    server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members: list[tuple[str, bytes]] = []
    for i in range(24):
        members += [(f"{i:02}.png", picture(i)), (f"{i:02}.cls", str(i % 3).encode())]
    write_tar(folder / "all.tar", members)
    words = ["data=webdataset", "data.train=all.tar", "data.val=all.tar", "data.batch_size=8", "trainer.max_epochs=1"]
    words += [
        "data.image_size=32",
        "optimizer.lr=0.0",
        "optimizer.weight_decay=0.0",
        "snapshot=false",
        "callbacks=[checkpoint]",
    ]
    words += ["model=resnet18", f"model._target_={NODE['_target_']}", "model.weights=DEFAULT"]
    monkeypatch.setitem(WEIGHTS.meta, "license", "BSD-3-Clause")
    run = RunFolder.open(commands.run_command("train", words).artifacts["run"])
    assert run.run["init"]["source"] == "torchvision"
    assert run.run["init"]["licence"] == "BSD-3-Clause"
    assert json.loads((run.path / "logs/init.json").read_text())["classes"] == [1000, 3]
    trained = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.manual_seed(5)
    assert torch.equal(trained["model.conv1.0.weight"], NET(weights=None).state_dict()["conv1.0.weight"])
    monkeypatch.setenv("TORCH_HOME", str(folder / "gone"))
    monkeypatch.setattr(WEIGHTS.value, "url", "http://127.0.0.1:9/gone.pth")
    assert commands.run_command("evaluate", [str(run.path)]).ok


def test_a_server_that_is_not_there_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WEIGHTS.value, "url", "http://127.0.0.1:9/weights.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(MLScaleError, match="could not be fetched") as caught:
        pretrained.fetch_pretrained_weights(NODE, NET)
    assert caught.value.exit == Exit.ENVIRONMENT
    assert "init_from=" in caught.value.fix
    assert time.monotonic() - start < 10


def test_a_server_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(pretrained, "_SECONDS", 0.3)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth")
        with pytest.raises(MLScaleError, match="could not be fetched"):
            pretrained.fetch_pretrained_weights(NODE, NET)


def test_a_torn_file_in_the_cache_says_so(server: str, file: Path, tmp_path: Path) -> None:
    there = tmp_path / "torch/hub/checkpoints" / file.name
    there.parent.mkdir(parents=True)
    there.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MLScaleError, match="it is torn") as caught:
        pretrained.fetch_pretrained_weights(NODE, NET)
    assert caught.value.fix == f"rm {there}"


def test_weights_that_do_not_exist_are_reported_with_the_nearest() -> None:
    with pytest.raises(MLScaleError, match="has no weights") as caught:
        pretrained.fetch_pretrained_weights({**NODE, "weights": "IMAGENET1K_V9"}, NET)
    assert caught.value.fix == "model.weights=IMAGENET1K_V1"
    with pytest.raises(MLScaleError, match="timm has no weights for 'resnet9000'"):
        pretrained.fetch_pretrained_weights(
            {"_target_": "timm.create_model", "model_name": "resnet9000", "pretrained": True}, timm.create_model
        )


def test_who_asks() -> None:
    assert pretrained.get_requested_library(NODE) == "torchvision"
    assert pretrained.get_requested_library({**NODE, "weights": None}) is None
    assert pretrained.get_requested_library(TIMM) == "timm"
    assert pretrained.get_requested_library({"_target_": "my.Model", "pretrained": True}) is None
    assert pretrained.get_requested_library(None) is None
    assert pretrained.remove_weights_request(NODE)["weights"] is None
    assert NODE["weights"] == "DEFAULT"


def test_timm_fits_its_weights_to_one_channel_and_other_classes(tmp_path: Path) -> None:
    name, make = "test_resnet", timm.create_model
    torch.manual_seed(2)
    save_file(make(name).state_dict(), tmp_path / "w.safetensors")
    rest: dict[str, Any] = {"model_name": name, "num_classes": 3, "in_chans": 1}
    overlay = {"file": str(tmp_path / "w.safetensors")}
    initial = pretrained.fetch_pretrained_weights({**TIMM, **rest, "pretrained_cfg_overlay": overlay}, make)
    assert (initial.source, initial.licence) == ("timm", "apache-2.0")
    assert initial.name == "test_resnet.r160_in1k"
    task = Classification(3, model=make(**rest))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    state = torch.get_rng_state()
    found, lines = load_initial_weights(
        task, initial, classes=3, read_weights=lambda _: pretrained.load_timm_weights(initial, partial(make, **rest), 3)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert found.classes == (1000, 3)
    assert found.share == 1
    after = task.state_dict()
    assert torch.equal(after["model.fc.weight"], before["model.fc.weight"])
    assert not torch.equal(after["model.conv1.0.weight"], before["model.conv1.0.weight"])
    assert len(lines) == 2
