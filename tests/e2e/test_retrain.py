"""`mlscale retrain`: real digits, a real shift, real labels. The champion moves only when it should."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mlscale import commands
from mlscale.cli import main
from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.export.servable import load
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry
from mlscale.versions.from_servable import publish_servable
from tests.conftest import find_files
from tests.contract.test_documents import validate
from tests.event_writing import add_answers
from tests.forked import Command

ROOT = Path(__file__).resolve().parents[2]
TRAINED = ("model=mlp", "data=digits", "optimizer.lr=0.1", "trainer.max_epochs=15", "snapshot=false", "logger=none")


@dataclass(frozen=True)
class Place:
    """A folder with a champion and a store of events."""

    folder: Path

    @property
    def registry(self) -> LocalRegistry:
        return LocalRegistry(self.folder / "registry")

    @property
    def store(self) -> EventStore:
        return EventStore(self.folder / "events")

    @property
    def words(self) -> list[str]:
        where = self.folder
        return [
            "ref=digits@champion",
            f"events={where}/events",
            f"runs_dir={where}/runs",
            f"registry.root={where}/registry",
            "gate.min_kappa=null",  # a champion that sees digits on their sides agrees by chance
        ]

    @property
    def journal(self) -> list[dict[str, Any]]:
        path = self.folder / "registry/retrain/digits.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def champion(self) -> str:
        return self.registry.resolve_version("digits@champion").ref

    def turn(self, *words: str) -> Result:
        return commands.run_command("retrain", [*self.words, *words])

    def serve(self, raw: NDArray[Any], truth: list[str], *, first: int = 0) -> None:
        """What a server and those who label would have left."""
        servable = load(self.registry.resolve_version("digits@champion").payload)
        ids = [f"event-{number}" for number in range(first, first + len(raw))]
        writer = self.store.open_writer("digits", sample_share=1.0)
        add_answers(writer, servable, ids, list(raw), version="digits:v1")
        writer.close()
        self.store.add_labels("digits", ids, truth)


def digits(count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Images (n, 1, 8, 8) as clients send them, and what they show."""
    source = load_digits()
    chosen = np.random.default_rng(5).permutation(len(source.images))[:count]
    images = np.round(source.images[chosen] * (255 / 16)).astype(np.uint8)[:, None]
    return images, [str(number) for number in source.target[chosen]]


def turned(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A camera that lies on its side."""
    return np.ascontiguousarray(np.rot90(raw, axes=(2, 3)))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """A folder with a champion that knows upright digits."""
    place = tmp_path_factory.mktemp("retrain")
    made = commands.run_command("train", [*TRAINED, f"runs_dir={place}/runs", f"data.root={bundled}"])
    run = RunFolder.open(made.artifacts["run"])
    commands.run_command("export", [str(run.path), f"runs_dir={place}/runs"])
    publish_servable(
        LocalRegistry(place / "registry"), run.path / "servable", run=run, name="digits", aliases=("champion",)
    )
    return place


@pytest.fixture
def place(begun: Path) -> Iterator[Place]:
    """The folder as it began; what a test adds goes."""
    kept = begun.with_name("retrain-registry")
    shutil.copytree(begun / "registry", kept, symlinks=True)
    yield Place(begun)
    for name in ("registry", "events"):
        shutil.rmtree(begun / name, ignore_errors=True)
    kept.rename(begun / "registry")


def test_a_shift_is_learned_and_the_challenger_promoted(place: Place) -> None:
    raw, truth = digits(500)
    place.serve(turned(raw), truth)
    before = place.registry.resolve_version("digits@champion")
    result = place.turn()
    assert result.ok, result.sentence
    assert result.metrics["champion_window_accuracy"] < 0.5
    assert result.metrics["challenger_window_accuracy"] > 0.8
    assert result.metrics["original_difference_low"] > -0.03
    assert result.metrics["window_p_better"] < 1e-6

    version = place.registry.resolve_version("digits@champion")
    assert (version.ref, version.parent, before.ref) == ("digits:v2", "digits:v1", "digits:v1")
    assert place.registry.get_aliases("digits").of == {"champion": 2, "previous": 1}
    run = RunFolder.open(result.artifacts["run"])
    assert run.run["parent"] == (before.run or {})["id"]
    assert run.run["init"]["run"] == run.run["parent"]
    (line,) = place.journal
    validate("turn", line)
    assert (line["decision"], line["challenger"], line["data_version"]) == (
        "promoted",
        "digits:v2",
        version.data_version,
    )
    assert (
        line["window"]["samples"]
        == line["window"]["train"] + line["window"]["held_out"]
        == result.metrics["window_total"]
    )
    # What it is measured on is not what it was trained on, and what it was trained on is there for good.
    data = run.derived
    assert data["val_samples"] == line["window"]["held_out"]
    assert data["train_samples"] == 1437 + line["window"]["train"]
    # The new normal is what production looks like now.
    profile = load(version.payload).read_reference()
    assert profile.about["samples"] == line["window"]["held_out"]

    # The next turn comes too early; and when it is forced, it starts from the new champion and its data.
    early = place.turn()
    assert not early.ok
    assert "is not retrained: paused until" in early.sentence
    assert len(place.journal) == 1

    # Killed between the promotion and its line, it would have been promoted all the same.
    (place.folder / "registry/retrain/digits.jsonl").unlink()
    record = place.folder / "registry/retrain/digits" / line["id"] / "turn.json"
    record.write_text(json.dumps({**line, "decision": "running", "ended": "", "reason": ""}))
    assert "is not retrained: paused until" in place.turn().sentence
    assert [turn["decision"] for turn in place.journal] == ["promoted"]


@pytest.mark.slow
def test_random_labels_are_rejected_and_the_champion_stays(place: Place) -> None:
    raw, truth = digits(400)
    place.serve(raw, list(np.random.default_rng(0).permutation(truth)))
    result = place.turn("passes=3")
    assert not result.ok
    assert "rejected" in result.sentence
    assert place.champion == "digits:v1"
    assert place.registry.resolve_version("digits@challenger").ref == "digits:v2"
    (line,) = place.journal
    assert line["decision"] == "rejected"
    assert "it is not surely better on the" in line["reason"]
    assert "is not retrained: paused until" in place.turn().sentence
    again = place.turn("passes=1", "force=true")
    assert "rejected" in again.sentence
    assert [turn["decision"] for turn in place.journal] == ["rejected", "rejected"]


def test_too_few_labels_are_reported_and_noted(place: Place) -> None:
    raw, truth = digits(150)
    place.serve(np.concatenate([raw, raw[:20]]), truth + truth[:20])  # the same input twice tells it once
    result = place.turn()
    assert not result.ok
    assert "digits needs 200 labelled events with samples; there are 150" in result.sentence
    assert "20 seen before" in result.sentence
    assert "serve with sample_share=1, send labels to POST /labels" in result.sentence
    (line,) = place.journal
    validate("turn", line)
    assert (line["decision"], line["challenger"], line["run"]) == ("too few", None, None)
    assert place.champion == "digits:v1"
    assert place.turn("window.min_samples=151").metrics["window_total"] == 150  # it costs no pause


@pytest.mark.slow
def test_the_next_turn_forgets_neither_what_was_before_nor_the_last_window(place: Place) -> None:
    raw, truth = digits(1000)
    place.serve(turned(raw[:500]), truth[:500])
    first = place.turn()
    assert first.ok, first.sentence
    # The same events are a part of the champion's data now, and count once.
    again = place.turn("force=true")
    assert "there are 0 (500 labelled events; left out: 500 in the window of an earlier version" in again.sentence
    place.serve(turned(raw[500:]), truth[500:], first=500)
    second = place.turn("force=true", "passes=1", "data.batch_size=32")
    assert second.metrics["original_samples"] == 360 + first.metrics["window_held_out"]
    assert "it is not surely better" in second.sentence
    derived = RunFolder.open(second.artifacts["run"]).derived
    assert second.metrics["window_total"] == 500
    assert derived["train_samples"] == 1437 + first.metrics["window_train"] + second.metrics["window_train"]
    assert derived["per_device_batch"] == 32
    assert place.champion == "digits:v2"
    assert [turn["champion"] for turn in place.journal] == ["digits:v1", "digits:v2", "digits:v2"]


@pytest.mark.slow
def test_a_champion_that_somebody_else_moved_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlscale.retrain.gate import promotion_decision

    raw, truth = digits(500)
    place.serve(turned(raw), truth)
    judge = promotion_decision.decide_promotion

    def while_it_is_compared(*arguments: Any, **named: Any) -> promotion_decision.GateDecision:
        other = place.registry.publish("digits", place.folder / "other", kind="servable").version
        place.registry.promote(other.ref)
        return judge(*arguments, **named)

    shutil.copytree(
        place.registry.resolve_version("digits:v1").payload, place.folder / "other", copy_function=shutil.copyfile
    )
    (place.folder / "other" / "NOTE").write_text("another one")
    monkeypatch.setattr(promotion_decision, "decide_promotion", while_it_is_compared)
    try:
        result = place.turn()
    finally:
        shutil.rmtree(place.folder / "other")
    assert not result.ok
    assert (
        "digits:v2 overtaken: digits@champion is not digits:v1 any more: it was moved to v3 meanwhile"
        in result.sentence
    )
    assert place.champion == "digits:v3"
    (line,) = place.journal
    assert line["decision"] == "overtaken"


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["ref=digits:v9"], "digits has no version v9", "mlscale versions ls digits"),
        (["ref=./registry/versions/digits/v1/files"], "has no champion to replace", "mlscale retrain <model>"),
        (["data=fashion_mnist"], "retraining sets 'data' itself", "leave data=fashion_mnist out"),
        (["replay=1.5"], "'replay' must be float between 0 and 1", "command line: replay=1.5"),
        (["gate.relabelled=[ausfal]"], "unknown class 'ausfal'", "gate.relabelled=[0,1]"),
        (["gate.alpha=1e-12"], "original samples are too few for a challenger to pass", "gate.max_drop="),
        (["gate.alpha=1e-12", "watch=true"], "original samples are too few for a challenger to pass", "gate.max_drop="),
        (["registry=none"], "no registry is set", "registry=local"),
        (["window.min_sample=3"], "unknown key 'window.min_sample'", "window.min_samples=3"),
        (["events=elsewhere"], "no folder elsewhere", "events=<the folder that mlscale serve"),
    ],
)
def test_what_is_wrong_is_reported(
    place: Place, words: list[str], what: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    typed = {word.partition("=")[0]: word for word in [*place.words, *words]}
    if "registry=none" in words:
        typed.pop("registry.root")
    with pytest.raises(MLScaleError) as caught:
        commands.run_command("retrain", list(typed.values()))
    assert what in str(caught.value)
    assert fix in str(caught.value)
    # No cycle has begun, and none is recorded as failed.
    assert not (place.folder / "registry/retrain/digits.jsonl").exists()
    assert not list((place.folder / "registry/retrain/digits").glob("*/turn.json"))


def test_a_champion_whose_run_is_gone(place: Place) -> None:
    (place.folder / "events").mkdir()
    runs = place.folder / "runs"
    runs.rename(place.folder / "elsewhere")
    try:
        with pytest.raises(MLScaleError, match="the run that digits:v1 comes from is not there") as caught:
            place.turn()
    finally:
        (place.folder / "elsewhere").rename(runs)
    assert caught.value.where.startswith(str(runs))
    # It was refused before it trained: not a failed cycle, which would delay the next one.
    assert not (place.folder / "registry/retrain/digits.jsonl").exists()
    run = Path((place.registry.resolve_version("digits@champion").run or {})["path"])
    best = run / "checkpoints/best.ckpt"
    best.rename(run / "kept")
    try:
        with pytest.raises(MLScaleError, match=r"the checkpoint that digits:v1 was made of is gone"):
            place.turn()
    finally:
        (run / "kept").rename(best)


@pytest.mark.slow
def test_killed_in_the_middle_the_next_turn_begins_anew(place: Place) -> None:
    raw, truth = digits(500)
    place.serve(turned(raw), truth)
    runs = find_files(place.folder / "runs", "run.json")
    process = Command(
        "retrain",
        *place.words,
        "passes=2000",
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 100
        while not find_files(place.folder / "runs", "best.ckpt") or runs == find_files(
            place.folder / "runs", "run.json"
        ):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < end
            time.sleep(0.02)
        with pytest.raises(MLScaleError, match="another process is retraining digits"):
            place.turn()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert place.champion == "digits:v1"
    (lost,) = [path for path in (place.folder / "registry/retrain/digits").iterdir() if path.is_dir()]
    result = place.turn()
    assert result.ok, result.sentence
    assert [turn["decision"] for turn in place.journal] == ["interrupted", "promoted"]
    assert not lost.exists()
    assert place.champion == "digits:v2"


@pytest.mark.slow
def test_swapped_classes_stop_the_cycle_until_a_person_declares_them_relabelled(place: Place) -> None:
    raw, truth = digits(1500)
    changed = [{"3": "7", "7": "3"}.get(name, name) for name in truth]
    place.serve(raw, changed)
    # Little of the old data, which contradicts the window: a challenger that has learned what is new.
    stopped = place.turn("replay=0.1")
    assert not stopped.ok
    assert "gate.relabelled=[3,7]" in stopped.sentence
    worse = [
        entry["name"] for entry in stopped.details["classes"] if entry.get("original", {}).get("status") == "worse"
    ]
    assert sorted(worse) == ["3", "7"]
    assert stopped.metrics["original_negative_flips"] > 30
    with pytest.raises(MLScaleError, match="unknown class '12'"):
        place.turn("force=true", "gate.relabelled=[3,12]")
    # By default most of a batch is old data, without the two classes.
    result = place.turn("force=true", "gate.relabelled=[3,7]")
    assert result.ok, result.sentence
    assert place.champion == "digits:v3"


@pytest.mark.slow
def test_what_a_champion_that_agrees_by_chance_can_not_contradict_is_for_a_person(place: Place) -> None:
    raw, truth = digits(500)
    place.serve(turned(raw), truth)
    result = place.turn("gate.min_kappa=0.2")
    assert not result.ok
    assert place.journal[-1]["decision"] == "review", result.sentence
    assert "would by chance (gate.min_kappa=0.2): the labels are wrong, or what is right has changed" in result.sentence


@pytest.mark.slow
def test_swapped_classes_of_a_camera_that_has_moved_are_for_a_person(place: Place) -> None:
    # What was seen before is not harmed: nothing but the window's own labels shows it.
    raw, truth = digits(1000)
    place.serve(np.roll(raw, 1, axis=2), [{"3": "7", "7": "3"}.get(name, name) for name in truth])
    result = place.turn("gate.max_drop=0.2", "gate.max_class_drop=0.9")
    assert not result.ok
    (line,) = place.journal
    validate("turn", line)
    assert line["decision"] == "review", line["reason"]
    assert "that the champion predicts as" in result.sentence
    assert result.sentence.partition(". Held-out")[0].endswith(
        f"to take this challenger: mlscale versions promote digits:v2 {place.words[3]}"
    )
    assert place.champion == "digits:v1"
    assert main(["versions", "promote", "digits:v2", place.words[3]]) == 0
    assert place.champion == "digits:v2"


@pytest.mark.slow
def test_killed_after_its_training_a_turn_continues_from_the_finished_run(place: Place) -> None:
    raw, truth = digits(500)
    place.serve(turned(raw), truth)
    before = find_files(place.folder / "runs", "run.json")
    process = Command(
        "retrain", *place.words, cwd=place.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    try:
        end = time.monotonic() + 200
        # The manifest is the run's last file: the export comes next.
        while not any((path.parent / "manifest.json").exists() for path in list_new_runs(place, before)):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < end
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (trained,) = list_new_runs(place, before)
    assert place.champion == "digits:v1"
    place.store.add_labels("digits", ["event-1"], ["0"])  # what comes later does not change the window
    result = place.turn()
    assert result.ok, result.sentence
    assert list_new_runs(place, before) == [trained]
    (line,) = place.journal
    assert (line["decision"], line["challenger"]) == ("promoted", "digits:v2")
    assert line["run"]["path"] == str(trained.parent)
    assert line["data_version"] == RunFolder.open(trained.parent).run["data_version"]
    assert result.metrics["window_total"] == line["window"]["samples"]
    assert result.metrics["window_samples"] == line["figures"]["window_samples"] == line["window"]["held_out"]


def list_new_runs(place: Place, before: set[Path]) -> list[Path]:
    return sorted(find_files(place.folder / "runs", "run.json") - before)
