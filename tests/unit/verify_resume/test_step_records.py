"""Records of attempts: samples of a global batch over all ranks, cut lines, and comparisons."""

import json
from pathlib import Path
from typing import Any

from mlscale.verify_resume.step_records import (
    DrillOrder,
    find_other_batch,
    get_record_path,
    is_bitwise_identical,
    read_attempt_records,
)


def write_records(folder: Path, attempt: str, rank: int, *records: dict[str, Any], tail: str = "") -> None:
    path = get_record_path(folder, attempt, rank)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)


def make_step(step: int, *samples: str, loss: str = "0x1p+0") -> dict[str, Any]:
    return {"kind": "step", "step": step, "samples": list(samples), "losses": [loss]}


def make_begin(step: int, host: str = "node-2") -> dict[str, Any]:
    return {"kind": "begin", "step": step, "world": 1, "host": host}


def make_weights(step: int, digest: str = "w") -> dict[str, Any]:
    return {"kind": "weights", "step": step, "digest": digest}


def test_samples_of_all_ranks_are_one_global_batch(tmp_path: Path) -> None:
    write_records(tmp_path, "one", 0, make_begin(2), make_step(3, "b", "d"), tail='{"kind": "st')
    write_records(tmp_path, "one", 1, make_begin(2), make_step(3, "a", "c"))
    write_records(tmp_path, "two", 0, make_begin(0), make_step(3, "d", "c", "b", "a"))
    one, two = (read_attempt_records(tmp_path, name) for name in ("one", "two"))
    assert (one.first_step, one.last_step, one.host) == (2, 3, "node-2")
    assert one.samples == two.samples == {3: ["a", "b", "c", "d"]}
    assert find_other_batch(two, one) is None


def test_the_first_other_batch_is_named(tmp_path: Path) -> None:
    write_records(tmp_path, "reference", 0, make_begin(0), make_step(1, "a"), make_step(2, "b"), make_step(3, "c"))
    write_records(tmp_path, "resumed", 0, make_begin(1), make_step(2, "x"), make_step(3, "y"))
    records = [read_attempt_records(tmp_path, name) for name in ("reference", "resumed")]
    assert find_other_batch(*records) == 2


def test_bitwise_means_losses_and_weights(tmp_path: Path) -> None:
    steps = [make_begin(1), make_step(2, "b", loss="0x1.8p+0")]
    write_records(tmp_path, "reference", 0, *steps, make_weights(2))
    write_records(tmp_path, "same", 0, *steps, make_weights(2))
    write_records(tmp_path, "loss", 0, make_begin(1), make_step(2, "b"), make_weights(2))
    write_records(tmp_path, "weights", 0, *steps, make_weights(2, "other"))
    write_records(tmp_path, "none", 0, *steps)
    reference = read_attempt_records(tmp_path, "reference")
    assert is_bitwise_identical(reference, read_attempt_records(tmp_path, "same"))
    for name in ("loss", "weights", "none"):
        assert not is_bitwise_identical(reference, read_attempt_records(tmp_path, name)), name


def test_an_attempt_without_records_has_no_steps(tmp_path: Path) -> None:
    records = read_attempt_records(tmp_path, "none")
    assert (records.first_step, records.last_step) == (None, None)


def test_an_order_is_read_back(tmp_path: Path) -> None:
    order = DrillOrder("first", signal_step=3, awaits_signal=True)
    order.write_to(tmp_path)
    assert DrillOrder.read_from(tmp_path) == order
