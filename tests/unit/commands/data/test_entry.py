"""`mlscale data`: list, show, verify, sample and compare data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.commands.data.entry import main
from mlscale.errors import MLScaleError

Document = dict[str, Any]
Run = Callable[..., Document]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `mlscale data …`; return its document, with the exit code as `code`."""

    def run_command(*words: str) -> Document:
        code = main([*words, "output=json"])
        return {**json.loads(capsys.readouterr().out), "code": code}

    return run_command


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty images of two classes, each different."""
    monkeypatch.chdir(tmp_path)
    return _write_photos(tmp_path / "photos", brightness=0)


def _write_photos(folder: Path, *, brightness: int) -> Path:
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng([number, ord(name[0])]).integers(0, 150, (24, 30, 3)) + brightness
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def _write_table(path: Path, rows: int, *, older: int = 0, relabelled: int = 0) -> Path:
    rng = np.random.default_rng(5)
    lines = ["age,city,churned"]
    for row in range(rows):
        age, city = int(rng.integers(18, 80)), rng.choice(["Rom", "Köln"])
        label = "yes" if (age > 50) != (row < relabelled) else "no"
        lines.append(f"{age + older}.{row:03},{city},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ls_has_every_option_and_what_the_cache_holds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path))
    for name in ("digits-1/train", "index"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "digits-1/train/000.tar").write_bytes(b"x" * 1000)
    found = run("ls")["details"]
    assert found["options"]["data=digits"].startswith("Handwritten digits, 8×8 grey")
    assert found["cache"] == {"digits-1": 1000}


def test_show_has_samples_classes_and_version(run: Run) -> None:
    found = run("show", "data=digits")
    assert found["code"] == 0
    assert found["metrics"] == {"train_samples": 1437, "val_samples": 360}
    assert sum(found["details"]["facts"]["class_counts"]) == 1437
    assert found["details"]["guarantees"] == "order, exact resume, any number of ranks"


def test_show_has_the_columns_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = _write_table(tmp_path / "rows.csv", 60)
    page = tmp_path / "pages/data.html"
    assert main(["show", "data=table", f"data.train={table}", "data.target=churned", f"page={page}"]) == 0
    shown = capsys.readouterr().out
    assert "city    category  2: Köln, Rom" in shown
    assert "age     number" in shown
    assert "Köln" in page.read_text()


def test_verify_names_each_bad_sample(run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("verify", "data=imagefolder", f"data.root={photos}", "data.image_size=16", "augment=shift")
    intact = run(*words)
    assert (intact["code"], intact["metrics"]["bad_samples"], intact["metrics"]["samples"]) == (0, 0, 20)
    (photos / "cats/3.png").write_bytes((photos / "cats/3.png").read_bytes()[:300])
    (photos / "dogs/7.png").write_bytes(b"not an image")
    found = run(*words, f"bad={tmp_path / 'lists/bad.jsonl'}")
    assert found["code"] == 4
    assert {sample["sample"] for sample in found["details"]["bad"]} == {"cats/3.png", "dogs/7.png"}
    lines = (tmp_path / "lists/bad.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found["details"]["bad"]
    assert "cut short" in lines[0]


@pytest.mark.parametrize("size", [("data.image_size=16",), ()])
def test_verify_names_all_where_training_has_no_readable_sample(
    run: Run, photos: Path, tmp_path: Path, size: tuple[str, ...]
) -> None:
    """Without a readable training sample size and scale are unknown, yet each sample is checked by itself."""
    for path in photos.rglob("*.png"):
        path.write_bytes(b"not an image")
    found = run("verify", "data=imagefolder", f"data.root={photos}", *size, f"bad={tmp_path / 'bad.jsonl'}")
    assert (found["code"], found["metrics"]["bad_samples"], found["metrics"]["samples"]) == (4, 20, 20)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    assert {json.loads(line)["sample"] for line in lines} == {
        f"{c}/{n}.png" for c in ("cats", "dogs") for n in range(10)
    }
    with pytest.raises(MLScaleError, match=r"none of \d+ training samples, evenly spread, can be decoded") as caught:
        main(["show", "data=imagefolder", f"data.root={photos}", "data.on_bad_sample=skip"])
    # `skip` is set already, so it is not what to type.
    assert "data verify" in caught.value.fix


def test_verify_names_bad_samples_of_a_source_whose_file_lists_no_policy(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_source.py").write_text(
        """
from functools import partial

from mlscale.data import ImageFolder


class BrokenFolder(ImageFolder):
    def build_openers(self):
        def open_and_break(opened):
            source = opened()
            read = source.read_image
            source.read_image = lambda sample: read(sample) if source.get_key(sample) != "cats/3.png" else {}["lost"]
            return source

        openers = super().build_openers()
        return {split: partial(open_and_break, opened) for split, opened in openers.items()}
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/broken.yaml").write_text(
        f"# Photos of which one is lost.\n_target_: broken_source.BrokenFolder\nroot: {photos}  # str: the folder\n"
        "image_size: 16  # int: pixels\nbatch_size: 4  # int: global\nseed: ${seed}\n"
    )
    found = run("verify", "data=broken")
    assert (found["code"], [sample["sample"] for sample in found["details"]["bad"]]) == (4, ["cats/3.png"])
    assert "KeyError: 'lost'" in found["details"]["bad"][0]["why"]


def test_verify_names_bad_rows_of_a_table(run: Run, tmp_path: Path) -> None:
    table = _write_table(tmp_path / "rows.csv", 60)
    table.write_text(table.read_text() + "33,Rom,\n")
    found = run("verify", "data=table", f"data.train={table}", "data.target=churned")
    assert found["code"] == 4
    assert [sample["sample"] for sample in found["details"]["bad"]] == ["line 62 of rows.csv"]


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (("+recipe=resnet", "augment=mixup"), r"\d \(\d+%\), \d \(\d+%\)"),
        (("data=digits_scenes", "augment=shift"), r"background \(\d+%\)"),
        (("data=digits_scenes", "data.labels=several"), r"^\d(, \d)*$"),
        (("+recipe=regression",), r"^\d+$"),
        (("+recipe=text",), "^asyncio$|^email$|^xml$|^json$"),
    ],
    ids=["mixed", "masks", "several", "numbers", "texts"],
)
def test_sample_shows_what_the_model_gets(
    words: tuple[str, ...], label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    page = tmp_path / "samples.html"
    assert main(["sample", *words, "count=12", f"page={page}"]) == 0
    table = capsys.readouterr().out.split("\n\nSamples\n")[1].splitlines()[2:]
    labels = [re.split(r" {2,}", line)[1] for line in table]
    assert len(labels) == 12
    assert any(re.search(label, text) for text in labels), labels
    has_images = "image/png" in page.read_text()
    assert has_images == (words[0] in ("+recipe=resnet", "data=digits_scenes"))


def test_diff_of_tables_names_the_column_that_drifted(run: Run, tmp_path: Path) -> None:
    first, second = _write_table(tmp_path / "may.csv", 300), _write_table(tmp_path / "june.csv", 300, older=12)
    found = run("diff", str(first), str(second), "data.target=churned")
    assert found["code"] == 0
    assert {column["name"] for column in found["details"]["columns"]} == {"input.age"}
    assert found["metrics"]["same"] == 0
    same = run("diff", str(first), str(first), "data.target=churned")
    assert "hold the same data" in same["sentence"]


def test_diff_counts_added_removed_and_relabelled_samples(run: Run, tmp_path: Path) -> None:
    first, second = _write_table(tmp_path / "a.csv", 200), _write_table(tmp_path / "b.csv", 230, relabelled=40)
    found = run("diff", str(first), str(second), "data.target=churned", f"data.val={first}")["metrics"]
    assert {name: found[name] for name in ("same", "relabelled", "added", "removed")} == {
        "same": 160, "relabelled": 40, "added": 30, "removed": 0,
    }  # fmt: skip


def test_diff_of_folders_of_images(run: Run, photos: Path, tmp_path: Path) -> None:
    brighter = _write_photos(tmp_path / "brighter", brightness=60)
    found = run("diff", str(photos), str(brighter), "data.image_size=16")
    assert "brightness" in found["sentence"]
    assert found["metrics"]["removed"] == found["metrics"]["first_samples"]


def test_diff_counts_images_that_cannot_be_read(run: Run, photos: Path, tmp_path: Path) -> None:
    """A bad image on either side is a difference, and the other differences are found all the same."""
    brighter = _write_photos(tmp_path / "brighter", brightness=60)
    for number in (2, 4):
        (brighter / f"cats/{number}.png").write_bytes(b"not an image")
    for first, second, bad in ((photos, brighter, (0, 2)), (brighter, photos, (2, 0))):
        found = run("diff", str(first), str(second), "data.image_size=16")
        metrics = found["metrics"]
        assert found["code"] == 0
        assert (metrics["first_bad_samples"], metrics["second_bad_samples"]) == bad
        assert f"2 samples of {brighter} can't be read" in found["sentence"]
        assert "brightness" in found["sentence"]


def test_diff_of_prepared_shards_and_their_source(run: Run, photos: Path, tmp_path: Path) -> None:
    from mlscale import api

    shards = tmp_path / "shards"
    api.run("prepare", ["data=imagefolder", f"data.root={photos}", "data.image_size=16", f"to={shards}"])
    found = run("diff", str(photos), str(shards), "data.image_size=16")
    assert (found["metrics"]["added"], found["metrics"]["removed"], found["metrics"]["relabelled"]) == (0, 0, 0)
    assert found["metrics"]["same"] == found["metrics"]["first_samples"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("diff", "rows.csv", "photos", "data.target=churned"),
            "the folder .* names no table|unknown|not found",
        ),
        (("diff", "notes.bin", "rows.csv"), "the file 'notes.bin' is not a table"),
        (("diff", "empty", "rows.csv"), "the folder 'empty' holds no folders of images"),
        (("diff", "nosuch.csv", "rows.csv"), "'nosuch.csv' is neither a file, a folder nor a run"),
        (("show", "data=none"), "this data reports nothing of itself"),
        (("sample", "data=digits", "split=tests"), "'split' must be train or val or test"),
    ],
)
def test_mistakes_are_explained(words: tuple[str, ...], message: str, photos: Path, tmp_path: Path) -> None:
    _write_table(tmp_path / "rows.csv", 30)
    (tmp_path / "notes.bin").write_bytes(b"\0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MLScaleError, match=message) as caught:
        main(list(words))
    assert caught.value.fix or "is a key of" in str(caught.value)
