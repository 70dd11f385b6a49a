"""False alarms and power of monitoring a language model, where documents are shorter than its blocks of training text.

    python -m scripts.bench_drift --only documents --looks 20

Sentences of 5 to 30 words of Python's help and docstrings are documents of production. A small GPT is trained on other
sentences, once for each form of the text: a file for each sentence, one file with a sentence per line, pages of 20 to
60 sentences. For each seed 600 more sentences in this form are the validation text, whose reference profile is made as
`mlscale export` makes it; then 100, 300 and 1,000 further sentences are looked at, as they are and with the words of
another domain (the shift of `mlscale lifecycle`), with the defaults of `mlscale monitor`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlscale.export.servable import Servable
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.event_window import EventWindow

FORMS = ("files", "lines", "pages")
_TRAINED, _VALIDATED, _SIZES = 3000, 600, (100, 300, 1000)
_MODEL = ("model.layers=1", "model.width=32", "model.heads=2", "model.ngrams=[2]", "trainer.max_epochs=2")
_LEFT_OUT = ("antigravity", "this", "idlelib", "turtledemo", "test", "lib2to3", "tkinter", "turtle")


def print_document_rows(seed: int, looks: int) -> None:
    """Print how often looks at documents are detected, and how often degradation is reported."""
    from mlscale.commands.lifecycle.production import replace_words

    sentences = list_sentences()
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            servable = train_model(Path(folder), form, sentences[:_TRAINED])
            found: dict[tuple[str, int], list[tuple[bool, bool]]] = {}
            for number in range(looks):
                random = np.random.default_rng((seed, number))
                drawn = [sentences[row] for row in _TRAINED + random.permutation(len(sentences) - _TRAINED)]
                baseline, words = build_baseline(servable, join_sentences(drawn[:_VALIDATED], form, random))
                for size in _SIZES:
                    texts = [sentence.encode() for sentence in drawn[_VALIDATED : _VALIDATED + size]]
                    shifted = [replace_words(text) for text in texts]
                    for name, documents in (("clean", texts), ("other domain", shifted)):
                        window = build_window(servable, words, documents)
                        found.setdefault((name, size), []).append(look_at(baseline, window))
        for (name, size), outcomes in sorted(found.items()):
            detected, degraded = (sum(outcome[part] for outcome in outcomes) for part in (0, 1))
            print(
                f"| {form}, {name}, N = {size:,} | detected {detected}, degradation {degraded} of {looks} |", flush=True
            )


def list_sentences() -> list[str]:
    """Return different sentences of 5 to 30 words, in an order that is always the same."""
    found = {
        sentence
        for text in _read_texts()
        for paragraph in re.split(r"\n\s*\n", text)
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))
        if 5 <= len(sentence.split()) <= 30 and sentence[0].isupper() and sentence.endswith(".")
    }
    ordered = sorted(found)
    return [ordered[row] for row in np.random.default_rng(0).permutation(len(ordered))]


def _read_texts() -> Iterator[str]:
    from pydoc_data import topics

    yield from topics.topics.values()
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _LEFT_OUT:
            continue
        # Modules of other systems can't be imported.
        with contextlib.suppress(ImportError):
            module = __import__(name)
            yield module.__doc__ or ""
            parts = (part for part in vars(module).values() if inspect.isclass(part) or inspect.isroutine(part))
            yield from (part.__doc__ for part in parts if isinstance(part.__doc__, str))


def join_sentences(sentences: Sequence[str], form: str, random: np.random.Generator) -> list[bytes]:
    """Return the documents that sentences make."""
    if form == "files":
        return [sentence.encode() for sentence in sentences]
    if form == "lines":
        return ["".join(f"{sentence}\n" for sentence in sentences).encode()]
    pages, start = [], 0
    while start < len(sentences):
        stop = start + int(random.integers(20, 60))
        pages.append(f"{' '.join(sentences[start:stop])}\n".encode())
        start = stop
    return pages


def train_model(folder: Path, form: str, sentences: Sequence[str]) -> Servable:
    """Train and export a small GPT, a tenth of its text to validate."""
    from tests.e2e.retrain_place import RetrainPlace

    (folder / "texts").mkdir()
    for number, document in enumerate(join_sentences(sentences, form, np.random.default_rng(0))):
        (folder / "texts" / f"{number:05}.txt").write_bytes(document)
    place = RetrainPlace(folder / "place")
    place.folder.mkdir()
    data = ("+recipe=gpt", "data=text_files", f"data.train={folder}/texts", "data.length=128")
    # The commands print what a user wants to see of one run.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        place.train_champion(*data, *_MODEL, "seed=0", "trainer.accelerator=cpu")
    servable = place.champion
    # Read before the folder is removed.
    _ = servable.engine
    return servable


def build_baseline(servable: Servable, documents: Sequence[bytes]) -> tuple[Baseline, tuple[bytes, ...]]:
    """Return the baseline of validation documents, and its known words."""
    from mlscale.data.encoders.document_encoder import DocumentEncoder
    from mlscale.export.reference_builder import collect_documents
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.event_columns import round_sketch

    encoder, names = servable.encoder, servable.names
    assert isinstance(encoder, DocumentEncoder)
    reference = collect_documents(documents, encoder, servable.task_type, names, servable.compute).finish()
    sketches = tuple(map(round_sketch, reference.columns))
    passages = reference.passages
    baseline = Baseline("m", "m:v1", servable.task_type, names, sketches, reference.score, passages=passages)
    return baseline, reference.words


def build_window(servable: Servable, words: tuple[bytes, ...], documents: Sequence[bytes]) -> EventWindow:
    """Return the window of documents, as a server's events would give it."""
    from mlscale.data.encoders.summaries.text_summary import WordTable, create_summary
    from mlscale.monitor.event_window import EventWindow

    packed = servable.pack_samples(documents)
    predictions = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
    inputs = create_summary(servable.encoder, WordTable(words)).summarize_samples(packed)
    outputs = servable.task_type.summarize_outputs(predictions, servable.names)
    columns = {f"input.{name}": np.asarray(values) for name, values in inputs.items()}
    columns |= {f"output.{name}": np.asarray(values) for name, values in outputs.items()}
    return EventWindow(columns, np.zeros(len(documents), np.float32), scores=np.asarray(outputs["loss"], np.float64))


def look_at(baseline: Baseline, window: EventWindow) -> tuple[bool, bool]:
    """Return whether drift is detected, and whether degradation is reported."""
    from mlscale.monitor.window_check import MonitorLimits, check_rules

    check = check_rules(baseline, window, MonitorLimits())
    degradation = check.find_result("degradation")
    assert degradation is not None
    return any(column.is_detected for column in check.columns), degradation.is_over
