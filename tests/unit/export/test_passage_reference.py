"""The reference of a language model: short documents of the same kind have not drifted, those of others have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import BYTES, SCORED, DocumentEncoder
from mlscale.data.encoders.summaries.text_summary import WordTable, create_summary
from mlscale.export.reference_builder import collect_documents, collect_passage_reference
from mlscale.export.validation_samples import SampleFormat
from mlscale.monitor.baseline import Baseline
from mlscale.monitor.event_window import EventWindow
from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_rules
from mlscale.reference.stored_reference import StoredReference
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type

ENCODER, TASK_TYPE, NAMES = DocumentEncoder(64), get_task_type("language"), AnswerNames()
WORDS = b"the a sum list value returns number of item key when is set first last".split()


def compute(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a loss that is large at the first bytes of a document, and for letters that are rare here."""
    windows, scored = tensors[BYTES], tensors[SCORED]
    positions = np.arange(windows.shape[1])
    counts = (positions > scored[:, :1]) & (positions <= scored[:, 1:])
    nats = 2.0 + 6.0 / (1 + positions) + 3.0 * np.isin(windows, list(b"jqxz"))
    return {"nats": (nats * counts).sum(1).astype(np.float32), "tokens": counts.sum(1)}


def draw_sentences(count: int, seed: int, words: list[bytes] = WORDS) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [b" ".join(rng.choice(words, int(rng.integers(5, 30)))).capitalize() + b"." for _ in range(count)]


def build_baseline(documents: list[bytes], folder: Path) -> tuple[Baseline, WordTable]:
    made = collect_documents(documents, ENCODER, TASK_TYPE, NAMES, compute).finish(split="val", data_version=None)
    made.save_profile(folder)
    reference = StoredReference.load_profile(folder)
    assert reference.passages is not None
    baseline = Baseline("m", "m:v1", TASK_TYPE, NAMES, reference.columns, reference.score, passages=reference.passages)
    return baseline, WordTable(reference.words)


def check(baseline: Baseline, words: WordTable, documents: list[bytes]) -> WindowCheck:
    packed = ENCODER.pack_samples(documents)
    assert packed.counts is not None
    predictions = TASK_TYPE.build_predictions(TASK_TYPE.merge_rows(compute(packed.tensors), packed.counts), ())
    inputs = create_summary(ENCODER, words).summarize_samples(packed)
    loss = np.asarray(TASK_TYPE.summarize_outputs(predictions, NAMES)["loss"], np.float64)
    columns = {**{f"input.{name}": np.asarray(values) for name, values in inputs.items()}, "output.loss": loss}
    return check_rules(baseline, EventWindow(columns, np.zeros(len(documents), np.float32), loss), MonitorLimits())


@pytest.mark.parametrize("form", ["files", "lines", "pages"])
def test_sentences_are_compared_with_sentences(form: str, tmp_path: Path) -> None:
    sentences = draw_sentences(400, 1)
    documents = {
        "files": sentences,
        "lines": [b"\n".join(sentences)],
        "pages": [b" ".join(sentences[start : start + 40]) for start in range(0, 400, 40)],
    }[form]
    baseline, words = build_baseline(documents, tmp_path)
    clean = check(baseline, words, draw_sentences(300, 4))
    assert clean.metrics["detected_columns"] == 0, clean.sentence
    assert clean.metrics["degradation"] == 0
    other = check(baseline, words, draw_sentences(300, 3, [b"jazz", b"quiz", b"taxi", *WORDS[:5]]))
    assert (other.metrics["drift"], other.metrics["degradation"]) == (1, 1)


def test_the_lengths_of_the_window_decide_what_is_compared(tmp_path: Path) -> None:
    baseline, words = build_baseline([b" ".join(draw_sentences(400, 1))], tmp_path)
    sentences = draw_sentences(200, 2)
    pages = [b" ".join(sentences[start : start + 10]) for start in range(0, 200, 10)] * 6
    short, long = (check(baseline, words, documents) for documents in (sentences, pages))
    # The first bytes of a document cost more: a sentence has a higher reference than a page.
    assert short.metrics["reference_nats_per_token"] > long.metrics["reference_nats_per_token"] + 0.1
    assert short.metrics["degradation"] == long.metrics["degradation"] == 0


def test_other_data_have_no_passages() -> None:
    assert collect_passage_reference(object(), TASK_TYPE, SampleFormat(ENCODER), compute) is None  # type: ignore[arg-type]
