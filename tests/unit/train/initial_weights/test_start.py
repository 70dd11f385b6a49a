"""A run like another one, and one that starts from weights that are there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mlscale import commands
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash
from mlscale.runs.initial_source import InitialWeights, find_initial_weights
from mlscale.versions.from_run import publish_run
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.trained_model import resolve_initial_weights

MADE = ("model=mlp", "data=digits", "model.hidden=[16]", "trainer.max_epochs=1", "snapshot=false", "optimizer.lr=0.05")
STILL = ("optimizer.lr=0.0", "optimizer.weight_decay=0.0")  # what it starts from is what it ends with


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("initial")


@pytest.fixture(scope="module")
def first(place: Path, bundled: Path) -> RunFolder:
    return opened(commands.run_command("train", [*MADE, f"runs_dir={place}/runs", f"data.root={bundled}"]))


def opened(result: Result) -> RunFolder:
    return RunFolder.open(result.artifacts["run"])


def train(*words: str, to: Path) -> RunFolder:
    return opened(commands.run_command("train", [*words, f"runs_dir={to}/runs"]))


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_like_another_one_computes_the_same(first: RunFolder, tmp_path: Path) -> None:
    again = train(f"like={first.path}", to=tmp_path)
    assert again.run["parent"] == first.id
    assert again.run["config_hash"] == first.run["config_hash"]
    assert again.path.is_relative_to(tmp_path)
    assert "init" not in again.run
    assert same(weights(again.path / "checkpoints/last.ckpt"), weights(first.path / "checkpoints/last.ckpt"))


def test_what_is_typed_applies_on_top(first: RunFolder, tmp_path: Path) -> None:
    other = train(f"like={first.path}", "trainer.max_steps=2", "seed=3", "name=other", to=tmp_path)
    assert (other.run["seed"], other.run["name"]) == (3, "other")
    assert other.results["train"]["metrics"]["steps"] == 2
    assert other.run["config_hash"] != first.run["config_hash"]


@pytest.mark.parametrize("ref", ["{run}", "{run}/checkpoints/best.ckpt"])
def test_weights_are_those_of_the_checkpoint(first: RunFolder, tmp_path: Path, ref: str) -> None:
    text = ref.format(run=first.path)
    after = train(f"like={first.path}", f"init_from={text}", *STILL, to=tmp_path)
    best = first.path / "checkpoints/best.ckpt"
    assert same(weights(after.path / "checkpoints/last.ckpt"), weights(best))
    assert after.run["init"] == find_initial_weights(str(best)).build_init_document()
    assert after.run["init"]["run"] == after.run["parent"] == first.id


def test_weights_of_a_version(first: RunFolder, tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    publish_run(registry, first, name="digits", aliases=("champion",))
    best = weights(first.path / "checkpoints/best.ckpt")
    for ref in ("digits:v1", "digits@champion", "digits"):
        found = resolve_initial_weights(ref, registry, tmp_path / "runs")
        assert (found.source, found.name, found.run) == ("version", "digits:v1", first.id)
    after = train(
        f"like={first.path}", "init_from=digits@champion", f"registry.root={registry.root}", *STILL, to=tmp_path
    )
    assert same(weights(after.path / "checkpoints/last.ckpt"), best)
    assert (after.run["init"]["name"], after.run["parent"]) == ("digits:v1", first.id)
    assert json.loads((after.path / "logs/init.json").read_text())["share_of_values"] == 1
    made = publish_run(registry, after, name="digits").version
    assert made.run is not None
    assert made.run["weights"] == {
        "source": "version", "name": "digits:v1", "run": first.id, "sha256": found.sha256, "licence": None,
    }  # fmt: skip
    with pytest.raises(MLScaleError, match="no registry is set"):
        resolve_initial_weights("digits:v1", None)
    with pytest.raises(MLScaleError, match="no version v9"):
        resolve_initial_weights("digits:v9", registry)
    with pytest.raises(MLScaleError, match="no runs found"):
        resolve_initial_weights("digit", registry, tmp_path / "none")


def test_another_run_like_it_starts_from_the_same_weights(first: RunFolder, tmp_path: Path) -> None:
    """Though 'last' means another run by then."""
    words = ("like=last", "init_from=last", *STILL)
    copy = tmp_path / "runs" / first.path.parent.name / first.path.name
    copy.parent.mkdir(parents=True)
    copy.symlink_to(first.path)
    second = train(*words, to=tmp_path)
    third = train("like=last", "trainer.max_steps=1", to=tmp_path)
    assert third.run["parent"] == first.id
    assert third.run["init"]["sha256"] == second.run["init"]["sha256"]


def test_where_it_starts_is_part_of_what_it_computes() -> None:
    plain = compute_config_hash("a: 1")
    assert compute_config_hash("a: 1\ninit_from: null\nlike: x") == plain
    assert compute_config_hash("a: 1\ninit_from: x.ckpt") != plain


def test_weights_that_do_not_fit_are_named(first: RunFolder, tmp_path: Path) -> None:
    words = (f"like={first.path}", f"init_from={first.path}", "model.hidden=[8,4]")
    with pytest.raises(MLScaleError, match="do not fit the model") as caught:
        train(*words, to=tmp_path)
    assert caught.value.why.splitlines()[0] == "missing: model.layers.5.weight, model.layers.5.bias"
    assert "of another shape: model.layers.1.weight (16, 64) and not (8, 64), " in caught.value.why
    assert caught.value.fix == f"like={first.id}"  # too little fits for another word
    with pytest.raises(MLScaleError, match="do not fit the model") as caught:
        train(f"like={first.path}", f"init_from={first.path}", "model.hidden=[]", to=tmp_path)
    assert "unexpected: model.layers.3.weight, model.layers.3.bias" in caught.value.why
    with pytest.raises(MLScaleError, match="do not fit the model") as caught:  # the first layer is a lazy one
        train(f"like={first.path}", f"init_from={first.path}", "data.image_size=12", to=tmp_path)
    assert caught.value.why == "of another shape: model.layers.1.weight (16, 64) and not (16, 144)"
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("init_from=nowhere.ckpt", "checkpoint not found"),
        ("init_from=nowhere", "no runs found"),
        ("init_from={torn}", "a run can't start from this checkpoint"),
        ("init_from={plain}", "the checkpoint holds no weights"),
        ("init_from={code}", "the checkpoint holds more than tensors and plain values"),
        ("resume=last", "resume= continues a run unchanged"),
    ],
)
def test_what_is_wrong_is_reported_and_leaves_nothing(first: RunFolder, tmp_path: Path, word: str, what: str) -> None:
    best = (first.path / "checkpoints/best.ckpt").read_bytes()
    paths = {name: tmp_path / f"{name}.ckpt" for name in ("torn", "plain", "code")}
    paths["torn"].write_bytes(best[:-700])
    torch.save({"weights": 1}, paths["plain"])
    torch.save({"state_dict": Foreign()}, paths["code"])
    with pytest.raises(MLScaleError, match=what):
        train(f"like={first.path}", word.format(**paths), to=tmp_path / "new")
    assert not list(tmp_path.rglob("run.json"))


class Foreign:
    """What a weights-only load refuses."""


def test_weights_that_changed_since_the_run_began_are_refused(first: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes((first.path / "checkpoints/best.ckpt").read_bytes())
    initial = find_initial_weights(str(copy))
    assert InitialWeights.parse_document(initial.build_init_document()) == initial
    assert initial.run is None
    initial.check_unchanged()
    copy.write_bytes((first.path / "checkpoints/last.ckpt").read_bytes() + b"\0")
    with pytest.raises(MLScaleError, match="not there any more") as caught:
        initial.check_unchanged()
    assert "has changed" in caught.value.why
    copy.unlink()
    with pytest.raises(MLScaleError, match="not there any more"):
        initial.check_unchanged()
    assert InitialWeights.parse_document(None) is None
    broken: dict[str, Any] = {"checkpoint": "x"}
    with pytest.raises(MLScaleError, match=r"run\.json is corrupt"):
        InitialWeights.parse_document(broken)


def test_code_out_of_the_run_that_is_named_is_not_believed(first: RunFolder, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for name in ("run.json", "derived.yaml", "config.yaml"):
        text = (first.path / name).read_text()
        (stolen / name).write_text(text.replace("mlscale.tasks.MLP", "subprocess.Popen"))
    with pytest.raises(MLScaleError, match=r"may not build subprocess\.Popen"):
        train(f"like={stolen}", to=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_it_can_be_measured_again(first: RunFolder, tmp_path: Path) -> None:
    after = train(f"like={first.path}", f"init_from={first.path}", to=tmp_path)
    measured = commands.run_command("evaluate", [str(after.path), f"runs_dir={tmp_path}/runs"])
    reported = json.loads((after.path / "results/train.json").read_text())["metrics"]
    assert measured.metrics["val/accuracy"] == pytest.approx(reported["best_val/accuracy"])
