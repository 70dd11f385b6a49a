"""What docs/serve.md tells people to type is answered, by a real server."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.readme_commands import blocks
from tests.made_servables import make_servables
from tests.serving import ROOT, serving

PAGE = (ROOT / "docs" / "serve.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_are_answered(tmp_path: Path) -> None:
    block = next(
        each for each in blocks(PAGE) if each.name != "raw" and any(line.startswith("curl") for line in each.commands)
    )
    asked = [command for command in block.commands if command.startswith("curl")]
    assert len(asked) + len(raw_commands()) == PAGE.count("\ncurl ") >= 9
    for name in ("digit.png", "photo.jpg"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    with serving(tmp_path) as server:
        for command in block.commands:
            words = command.replace("http://127.0.0.1:8000", server.url)
            run = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            if command in asked:
                url = next(word for word in shlex.split(words) if word.startswith("http"))
                reported = {
                    "/predict": '"predictions"',
                    "/labels": '{"accepted":1}',
                    "/metrics": "mlscale_requests_total",
                    "/openapi.json": '"openapi"',
                }
                expected = next((text for path, text in reported.items() if url.endswith(path)), '"outputs"')
                assert expected in run.stdout, (command, run.stdout)


def raw_commands() -> tuple[str, ...]:
    """The requests with raw samples: a row, a text."""
    return next(block.commands for block in blocks(PAGE) if block.name == "raw")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_raw_samples_are_answered(tmp_path: Path) -> None:
    folders = make_servables(tmp_path / "made")
    for name, command in zip(("penguins", "reviews"), raw_commands(), strict=True):
        with serving(tmp_path, folders[name]) as server:
            words = command.replace("http://127.0.0.1:8000", server.url)
            run = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
            (answer,) = json.loads(run.stdout)["predictions"]
            assert list(answer) == ["id", "label", "class", "confidence", "probabilities"]


def test_the_settings_it_names_are_there() -> None:
    named = set(re.findall(r"`(\w+?)(?:=[\w.]+)?` ?\(", PAGE)) - {"logits", "label"}
    settings = (ROOT / "conf" / "command" / "serve.yaml").read_text()
    assert len(named) > 4
    assert [name for name in named if f"\n{name}:" not in settings] == []
