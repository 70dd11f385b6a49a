"""Models of transformers, small and with random weights: each is trained, evaluated, killed, resumed and exported."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.docs_commands import ROOT
from scripts.run_page import run_page

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]
pytest.importorskip("transformers")

LABELS, TOKENS = {"num_labels": "${derived.num_classes}"}, {"vocab_size": "${derived.vocab_size}"}
BLOCKS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**BLOCKS, "intermediate_size": 64}
BERT = {**WIDE, **LABELS, **TOKENS, "max_position_embeddings": 66}
STAGES = {**LABELS, "num_channels": 1, "hidden_sizes": [8, 16], "depths": [1, 1]}
PATCHES = {**LABELS, "num_channels": 1, "patch_size": 2, "image_size": 8}
NO_ENDS = {**TOKENS, "bos_token_id": None, "eos_token_id": None}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}

IMAGES = ["data.batch_size=256", "trainer.max_epochs=2"]
TEXTS = ["+recipe=text", "data=text_table", "data.train=texts.csv", "data.length=64", "data.batch_size=32"]
TEXTS += ["trainer.max_epochs=2"]
PASSAGES = ["+recipe=gpt", "data=text_files", "data.train=passages", "data.length=64", "trainer.max_epochs=2"]

MODELS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "ViTForImageClassification": ("ViTConfig", PATCHES | WIDE, IMAGES),
    "Dinov2ForImageClassification": ("Dinov2Config", PATCHES | BLOCKS, IMAGES),
    "ResNetForImageClassification": ("ResNetConfig", STAGES | {"embedding_size": 8, "layer_type": "basic"}, IMAGES),
    "ConvNextForImageClassification": ("ConvNextConfig", STAGES | {"patch_size": 2, "num_stages": 2}, IMAGES),
    "BertForSequenceClassification": ("BertConfig", BERT, TEXTS),
    "RobertaForSequenceClassification": ("RobertaConfig", BERT | {"pad_token_id": 0}, TEXTS),
    "DistilBertForSequenceClassification": (
        "DistilBertConfig",
        {**LABELS, **TOKENS, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
        TEXTS,
    ),
    "GPT2ForSequenceClassification": ("GPT2Config", NO_ENDS | LABELS | GPT2 | {"pad_token_id": 0}, TEXTS),
    "AutoModelForSequenceClassification.from_config": ("ElectraConfig", BERT, TEXTS),
    "GPT2LMHeadModel": ("GPT2Config", NO_ENDS | GPT2, PASSAGES),
    "LlamaForCausalLM": ("LlamaConfig", NO_ENDS | WIDE, PASSAGES),
    "AutoModelForCausalLM.from_config": ("Qwen2Config", NO_ENDS | WIDE | {"num_key_value_heads": 2}, PASSAGES),
}


def write_samples(folder: Path) -> None:
    """Texts whose last word decides their class, and passages without any order."""
    draw = random.Random(7)
    words = {"good": ["great", "fine", "lovely"], "bad": ["awful", "dull", "poor"]}
    rows = [(draw.choice(["a film", "the plot"]), label) for label in draw.choices(list(words), k=120)]
    lines = [f"{text} {draw.choice(words[label])},{label}" for text, label in rows]
    (folder / "texts.csv").write_text("\n".join(["text,label", *lines]))
    (folder / "passages").mkdir()
    for number in range(12):
        (folder / f"passages/{number}.txt").write_text(" ".join(draw.choices(words["good"], k=200)))


def call(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command in a process of its own, and return its document."""
    done = subprocess.run(
        [sys.executable, "-m", "mlscale", *words, "output=json"],
        cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_trained_evaluated_resumed_and_exported(name: str, tmp_path: Path) -> None:
    config, settings, words = MODELS[name]
    write_samples(tmp_path)
    node = {"_target_": f"transformers.{name}", "config": {"_target_": f"transformers.{config}", **settings}}
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/hf.yaml").write_text(yaml.safe_dump(node))
    trained = call(tmp_path, "model=hf", *words)
    evaluated = call(tmp_path, "evaluate", "last")
    best = next(key for key in trained["metrics"] if key.startswith("best_val"))
    assert evaluated["metrics"][best.removeprefix("best_")] == pytest.approx(trained["metrics"][best], rel=1e-5)
    assert call(tmp_path, "verify-resume", "model=hf", *words, "kills=2")["ok"]
    assert call(tmp_path, "export", "last")["metrics"]["max_abs_error"] < 1e-4


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert len(run_page(ROOT / "docs/transformers.md", tmp_path)) >= 6
