"""A language model of a tokenizer's tokens, from training to a servable that reads texts by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlscale import commands
from mlscale.errors import MLScaleError
from mlscale.export.servable import load
from tests.contract.test_documents import validate
from tests.tokenizer_files import TEXTS, save_bpe
from tests.unit.data.text.test_token_data import write_documents

SMALL = ("model.width=16", "model.layers=1", "model.heads=2", "model.buckets=64", "data.length=16", "snapshot=false")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch and its servable."""
    place = tmp_path_factory.mktemp("tokenizers")
    words = ["+recipe=gpt", "data=text_files", f"data.train={write_documents(place / 'texts', 40)}", *SMALL]
    words += [f"data.tokenizer={save_bpe(place / 'bpe.json')}", "logger=none", "trainer.accelerator=cpu"]
    commands.run_command("train", [*words, "trainer.max_epochs=1", f"runs_dir={place}/runs"])
    (run,) = place.glob("runs/*/gpt-*")
    assert commands.run_command("export", [str(run), f"runs_dir={place}/runs", f"to={place}/model"]).ok
    return place


def test_the_servable_has_the_tokenizer(place: Path) -> None:
    """It needs no file of the tokenizer, and its answers are those of the run."""
    servable = load(place / "model")
    assert servable.document["graph_start"] == "tokens"
    assert "tokenizers" in servable.document["packages"]
    validate("servable", servable.document)
    validate("encoder", servable.document["encoder"])
    (run,) = place.glob("runs/*/gpt-*")
    (place / "more").mkdir(exist_ok=True)
    for number, text in enumerate(TEXTS):
        (place / "more" / f"{number}.txt").write_text(text * 3, encoding="utf-8")
    words = [f"input={place}/more", f"runs_dir={place}/runs", "events=none"]
    (place / "bpe.json").rename(place / "moved.json")
    try:
        commands.run_command("predict", [str(run), *words[:2], f"to={place}/by_run"])
        predicted = servable.predict_samples([text * 3 for text in TEXTS])
    finally:
        (place / "moved.json").rename(place / "bpe.json")
    import pyarrow.dataset as ds

    by_run = ds.dataset(place / "by_run", format="parquet").to_table().sort_by("row").to_pydict()
    assert by_run["tokens"] == list(predicted.columns["tokens"])
    assert np.allclose(by_run["nats"], predicted.columns["nats"], rtol=1e-5)


def test_texts_are_read_by_the_tokenizer_of_the_run(place: Path) -> None:
    (run,) = place.glob("runs/*/gpt-*")
    other = save_bpe(place / "other.json", size=290)
    for model in (str(run), str(place / "model")):
        # Of a run and of a servable: the ids of another tokenizer would be read as other words.
        with pytest.raises(MLScaleError, match="the tokenizer of the data is not") as caught:
            commands.run_command("evaluate", [model, f"data.tokenizer={other}", f"runs_dir={place}/runs"])
        digests = caught.value.why.split("its digest is ")[1].split("; the ")
        assert len(digests[0]) == 16
        assert digests[1].split(" is ")[1] != digests[0]
        assert caught.value.exit == 2


def test_bits_per_byte_are_those_of_the_text(place: Path) -> None:
    """The metric of training, and that of a servable on the same text, count bytes and not tokens."""
    (run,) = place.glob("runs/*/gpt-*")
    metrics = [
        commands.run_command("evaluate", [model, f"runs_dir={place}/runs"]).metrics
        for model in (str(run), str(place / "model"))
    ]
    assert metrics[0]["val/bits_per_byte"] == pytest.approx(metrics[1]["val/bits_per_byte"], rel=1e-4)
    per_token = np.log2(metrics[0]["val/perplexity"])
    assert metrics[0]["val/bits_per_byte"] < 0.8 * per_token
