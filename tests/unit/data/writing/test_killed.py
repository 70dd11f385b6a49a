"""`mlscale prepare` is killed at any moment and started again: the bytes are those of one that was not."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlscale.atomic_files import ASIDE
from mlscale.data.shards.index_files import INDEX_FOLDER_NAME
from mlscale.data.tfrecord.record_framing import build_record
from tests.forked import Command
from tests.unit.data.conftest import write_tar
from tests.unit.data.image_tables.test_image_table import write_table

COUNT, CLASSES, SIDE = 60, 3, 150
COPIES = 4
"""The last images are copies of the first, to be left out."""
KILLS = 2


def draw_image(number: int) -> bytes:
    """Noise of some 67 KB, so that there are several shards of a megabyte."""
    number = number % (COUNT - COPIES)
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def write_folder(root: Path) -> list[str]:
    for number in range(COUNT):
        path = root / "photos" / f"class{number % CLASSES}" / f"p{number // 4}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_image(number))
    return ["data=imagefolder", f"data.root={root / 'photos'}", 'data.group_on="(p[0-9]+)_"']


def list_rows(root: Path) -> list[dict[str, object]]:
    write_folder(root)
    return [
        {"file": f"class{n % CLASSES}/p{n // 4}_{n}.png", "label": f"class{n % CLASSES}", "patient": f"p{n // 4}",
         "day": f"2026-{1 + n // 28:02}-{1 + n % 28:02}"}
        for n in range(COUNT)
    ]  # fmt: skip


def write_paths(root: Path) -> list[str]:
    path = write_table(root / "photos" / "photos.csv", list_rows(root))
    return ["data=image_table", f"data.train={path}", "data.image_column=file", "data.group_on=patient"]


def write_lines(root: Path) -> list[str]:
    path = write_table(root / "photos" / "photos.jsonl", list_rows(root))
    return ["data=image_table", f"data.train={path}", "data.image_column=file", "data.stratify=true"]


def write_parquet(root: Path) -> list[str]:
    rows = [{**row, "image": {"bytes": draw_image(n), "path": row["file"]}} for n, row in enumerate(list_rows(root))]
    path = write_table(root / "bytes.parquet", rows)
    return ["data=image_table", f"data.train={path}", "data.time_on=day"]


def write_saved(root: Path) -> list[str]:
    """A file as `save_to_disk` of Hugging Face's `datasets` writes it."""
    import pyarrow as pa

    kinds = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["wren", "ant", "cat"]}}
    table = pa.table({"image": list(map(draw_image, range(COUNT))), "label": [n % CLASSES for n in range(COUNT)]})
    table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": kinds}}).encode()})
    path = root / "data-00000-of-00001.arrow"
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=50)
    return ["data=image_table", f"data.train={path}"]


def write_tars(root: Path) -> list[str]:
    for name, numbers in (("t", range(COUNT - 9)), ("v", range(COUNT - 9, COUNT))):
        members = [
            (f"{n:04}.{kind}", content)
            for n in numbers
            for kind, content in (("png", draw_image(n)), ("cls", str(n % CLASSES).encode()))
        ]
        write_tar(root / f"{name}.tar", members)
    return ["data=webdataset", f"data.train={root / 't.tar'}", f"data.val={root / 'v.tar'}"]


def write_records(root: Path) -> list[str]:
    for name, numbers in (("t", range(COUNT - 9)), ("v", range(COUNT - 9, COUNT))):
        records = (build_record({"image/encoded": draw_image(n), "image/class/label": n % CLASSES}) for n in numbers)
        (root / f"{name}.tfrecord").write_bytes(b"".join(records))
    return ["data=tfrecord", f"data.train={root / 't.tfrecord'}", f"data.val={root / 'v.tfrecord'}"]


SOURCES = [write_parquet, write_folder, write_paths, write_lines, write_saved, write_tars, write_records]
SETTINGS: dict[str, list[str]] = {
    "as they are": ["drop_copies=true"],
    "re-encoded": ["reencode.size=140", "reencode.quality=95"],
    "records": ["format=tfrecord", "reencode.size=149", "reencode.format=png"],
}


def start(root: Path, name: str, words: list[str]) -> Command:
    """Start the command with a cache of its own, so that what is in there is written again."""
    env = {**os.environ, "MLSCALE_CACHE": str(root / f"cache of {name}")}
    settings = ["data.image_size=32", "shard_mb=1", f"to={root / name}"]
    return Command("prepare", *words, *settings, cwd=root, env=env)


def finish(command: Command) -> None:
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, out + err


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        # An index has the times of its shard.
        if path.is_file() and not path.name.startswith(ASIDE) and path.parent.name != INDEX_FOLDER_NAME
    }


def kill_at_random(command: Command, seconds: float, draw: random.Random) -> bool:
    """Kill a command within so many seconds; return whether it was running still."""
    time.sleep(draw.uniform(0, seconds))
    is_running = command.poll() is None
    if is_running:
        command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    return is_running


def cases() -> list[object]:
    kinds = [(source, name) for source in SOURCES for name in SETTINGS]
    marks = {kinds[0]: ()}  # one of its kind in every run
    return [
        pytest.param(*kind, id=f"{kind[0].__name__}, {kind[1]}", marks=marks.get(kind, pytest.mark.slow))
        for kind in kinds
    ]


@pytest.mark.parametrize(("source", "settings"), cases())
def test_killed_and_started_again(tmp_path: Path, source: Callable[[Path], list[str]], settings: str) -> None:
    words = [*source(tmp_path), *SETTINGS[settings]]
    began = time.monotonic()
    finish(start(tmp_path, "whole", words))
    seconds, whole = time.monotonic() - began, read_folder(tmp_path / "whole")
    assert sum(name.startswith("train/") for name in whole) >= 2
    seed = int.from_bytes(os.urandom(4), "big")
    draw = random.Random(seed)
    killed = [kill_at_random(start(tmp_path, "again", words), seconds, draw) for _ in range(KILLS)]
    finish(start(tmp_path, "again", words))
    assert read_folder(tmp_path / "again") == whole, f"seed {seed}, killed while running: {killed}"


@pytest.mark.slow
@pytest.mark.parametrize("source", [write_parquet, write_paths])
def test_parts_that_are_killed_are_the_whole(tmp_path: Path, source: Callable[[Path], list[str]]) -> None:
    words = [*source(tmp_path), *SETTINGS["re-encoded"]]
    began = time.monotonic()
    finish(start(tmp_path, "whole", words))
    seconds, draw = time.monotonic() - began, random.Random(int.from_bytes(os.urandom(4), "big"))
    parts = [f"part={number}/3" for number in (1, 2, 3)]
    commands = [start(tmp_path, "parts", [*words, part]) for part in parts]
    for command in commands:
        kill_at_random(command, seconds, draw)
    # All at once again: the last to end writes the document.
    for command in [start(tmp_path, "parts", [*words, part]) for part in parts]:
        finish(command)
    assert read_folder(tmp_path / "parts") == read_folder(tmp_path / "whole")
