"""Batch scoring: one row for each input, whatever is killed, in whatever layout; and what is changed is refused."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.predict.part_files import MANIFEST, PredictionParts, lock_predictions, summarize_parts
from mlscale.predict.score_parts import LoadedBatch, is_mixing_samples, predict_batch
from tests.contract.test_documents import validate
from tests.unit.predict import scorer

ROWS = 210


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """The folder for predictions, a table beside it in which two rows can't be read."""
    rng = np.random.default_rng(0)
    lines = ["id,w,x,y,z"] + [f"k{row}," + ",".join(f"{v:.4f}" for v in rng.normal(size=4)) for row in range(ROWS)]
    lines[8], lines[101] = "k7,1,,3,4", "k100,1,2,3,inf"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "preds"


def rows(to: Path) -> dict[str, list[Any]]:
    """All rows, as any reader of Parquet sees them."""
    table = ds.dataset(to, format="parquet").to_table().sort_by("row")
    return table.to_pydict()  # type: ignore[no-any-return]


def test_each_input_has_one_row_and_what_can_not_be_read_has_its_reason(to: Path) -> None:
    parts = scorer.run(to)
    found = rows(to)
    assert found["row"] == list(range(ROWS))
    assert found["key"] == [f"k{row}" for row in range(ROWS)]
    assert {row: error for row, error in enumerate(found["error"]) if error} == {
        7: "value 2 is not a finite number",
        100: "value 4 is not a finite number",
    }
    assert found["predicted"][7] is found["probabilities"][7] is found["class"][100] is None
    reported = summarize_parts(parts)
    assert (reported["rows"], reported["errors"]) == (ROWS, 2)
    assert sum(reported["predicted"].values()) == ROWS - 2
    assert reported["first_errors"][0] == "k7: value 2 is not a finite number"
    for row in (0, 55, 209):
        assert sum(found["probabilities"][row]) == pytest.approx(1, abs=1e-5)
        assert found["confidence"][row] == pytest.approx(max(found["probabilities"][row]))
    parts.mark_complete(**reported)
    manifest = json.loads((to / MANIFEST).read_text())
    validate("predictions", manifest)
    assert manifest["complete"] is True


@pytest.mark.parametrize("name", ["logits", "value"])
def test_an_answer_that_is_no_number_is_an_error_and_no_class(name: str) -> None:
    class Reported(scorer.Linear):
        def compute_samples(self, packed: EncodedSamples) -> dict[str, NDArray[Any]]:
            return {name: packed.tensors["input"][:, :3]}

    x = np.array([[0, 1, 2, 3], [np.nan, 1, 2, 3], [0, np.inf, 2, 3], [-np.inf, 1, 2, 3]], np.float32)
    batch = LoadedBatch(range(5), list("vwxyz"), ["", "torn", "", "", ""], EncodedSamples({"input": x}, {}))
    found, printed = predict_batch(Reported(), batch)
    wrong = "the model's output is not a finite number"
    assert found.errors == ["", "torn", wrong, wrong, "" if name == "logits" else wrong]
    assert printed is not None
    assert found.packed is not None
    assert len(printed[name]) == len(found.packed.tensors["input"]) == found.errors.count("")
    one = LoadedBatch(range(1), ["w"], [""], EncodedSamples({"input": x[1:2]}, {}))
    alone_, nothing = predict_batch(Reported(), one)
    assert (alone_.packed, alone_.errors, nothing) == (None, [wrong], None)


def test_a_model_that_computes_across_its_batch_is_noticed() -> None:
    class Centred(scorer.Linear):
        def compute_samples(self, packed: EncodedSamples) -> dict[str, NDArray[Any]]:
            logits = packed.tensors["input"][:, :3]
            return {"logits": logits - logits.mean(0)}

    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for model, count, expected in ((Centred(), 5, True), (Centred(), 1, False), (scorer.Linear(), 5, False)):
        packed = EncodedSamples({"input": x[:count]}, {})
        assert is_mixing_samples(model, packed, model.compute_samples(packed)) is expected


def test_ranks_share_the_parts_and_make_what_one_makes(to: Path) -> None:
    scorer.run(to)
    alone_ = rows(to)
    for path in to.glob("part-*"):
        path.unlink()
    for rank in (2, 0, 1):
        scorer.run(to, rank, 3)
    assert rows(to) == alone_
    parts = PredictionParts(to, ROWS, 16, {})
    shares = [parts.list_rank_parts(rank, 3) for rank in range(3)]
    assert sorted(part for share in shares for part in share) == list(range(len(parts)))


def kill_until_done(to: Path, seed: int) -> int:
    """Start, kill at a random moment, start again, until one ends by itself; returns how many were killed."""
    # Forked from a process that has imported all: an interpreter that starts afresh is mostly killed while it imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([scorer.__name__])
    rng, kills = random.Random(seed), 0
    while True:
        process = context.Process(target=scorer.run, args=(to, 0, 1, 0.004, to.parent / "events"))
        process.start()
        wanted = len(list(to.glob("part-*"))) + rng.randint(0, 4)
        while process.is_alive() and len(list(to.glob("part-*"))) < wanted:
            time.sleep(0.001)
        process.join(rng.random() * 0.02)
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        process.kill()
        process.join()
        kills += 1


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.nightly if n > 3 else pytest.mark.slow) for n in range(1, 12))]
)
def test_killed_at_random_places_it_goes_on_and_each_input_has_one_row_and_one_event(to: Path, seed: int) -> None:
    kills = kill_until_done(to, seed)
    assert kills >= 1
    killed = rows(to)
    events = EventStore(to.parent / "events").read("linear")
    assert sorted(events.id) == sorted(f"k{row}" for row in range(ROWS))
    assert (events.outcome == "rejected").sum() == 2
    for path in to.glob("part-*"):
        path.unlink()
    scorer.run(to)
    assert rows(to) == killed


def test_a_part_that_is_torn_or_of_something_else_is_done_again(to: Path) -> None:
    parts = scorer.run(to)
    before = rows(to)
    whole = parts.get_part_path(3).read_bytes()
    parts.get_part_path(3).write_bytes(whole[: len(whole) // 2])
    parts.get_part_path(5).write_bytes(parts.get_part_path(13).read_bytes())  # fewer rows
    (to / "part-00000099.parquet").write_bytes(whole)
    (to / ".aside-part-00000001.parquet-abcd").write_bytes(b"torn")
    parts.remove_unfinished()
    assert parts.find_complete_parts() == set(range(14)) - {3, 5}
    scorer.run(to)
    assert rows(to) == before
    assert not list(to.glob(".aside*"))


def test_a_part_with_the_rows_of_another_is_not_taken_for_whole(to: Path) -> None:
    parts = scorer.run(to)
    parts.get_part_path(2).write_bytes(parts.get_part_path(4).read_bytes())
    with pytest.raises(MLScaleError, match="does not hold one row for each input") as caught:
        summarize_parts(parts)
    assert caught.value.fix == f"rm {parts.get_part_path(2)}"


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        ("inputs", "the folder holds predictions of other inputs", "as many, but others, or other content"),
        ("rows", "the folder holds predictions of other inputs", "210 then, 211 now"),
        ("model", "the folder holds predictions of another model", "linear:v1 then, linear:v2 now"),
        ("settings", "the folder holds predictions of other settings", "what is asked of them changed"),
    ],
)
def test_what_has_changed_is_refused_unless_it_may_be_replaced(to: Path, change: str, what: str, why: str) -> None:
    scorer.run(to)
    table = to.parent / "rows.csv"
    changed: dict[str, Any] = {}
    if change == "inputs":
        table.write_text(table.read_text().replace("k0,", "k0,1"))
    elif change == "rows":
        table.write_text(table.read_text() + "k210,1,2,3,4\n")
    elif change == "model":
        changed = {"model": {"version": "linear:v2", "digest": "e"}}
    else:
        changed = {"answers": {"probabilities": False}}
    with pytest.raises(MLScaleError) as caught:
        scorer.opened(to, **changed)
    assert caught.value.what == what
    assert why in caught.value.why
    assert f"to={to}-2" in caught.value.fix
    scorer.opened(to, **changed, overwrite=True)
    assert not list(to.glob("part-*"))


def test_a_folder_with_something_else_is_left_alone(to: Path) -> None:
    to.mkdir()
    (to / "thesis.txt").write_text("years of work")
    with pytest.raises(MLScaleError, match="holds something else"):
        scorer.opened(to, overwrite=True)
    assert (to / "thesis.txt").read_text() == "years of work"


def test_two_processes_do_not_write_the_same_predictions(to: Path) -> None:
    with (
        lock_predictions(to),
        pytest.raises(MLScaleError, match="another process writes these predictions"),
        lock_predictions(to),
    ):
        pass
    with lock_predictions(to):
        pass
