"""What it costs to make batches of photographs from TFRecord files: mlscale against tf.data, on the same files.

    python -m venv FOLDER && FOLDER/bin/pip install tensorflow-cpu
    python -m scripts.bench_tfrecord --peer FOLDER/bin/python

The work is that of `bench_data`: read, decode, crop at random (224 pixels), mirror, normalise, batches of 64 float32.
mlscale resizes with antialiasing, as torchvision does; tf.data is measured with it, and without, which is its default
and less work. Measured: CPU-seconds of the process per 1,000 samples, whole epochs after one that warms up. Each
contender has a process of its own that lives through all rounds; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

SIDE, BATCH, FILES = 224, 64, 4
PEERS = {"tf.data, antialiased": "tf-antialias", "tf.data, its default": "tf"}
OURS = {"mlscale, 1 thread": "mlscale-1", "mlscale, in process": "mlscale-0"}


def write_records(folder: Path, count: int) -> float:
    """Write the photographs of `bench_data` as TFRecord files; return their mean size in bytes."""
    import numpy as np

    from mlscale.data.tfrecord.record_framing import build_record
    from scripts.bench_data import CLASSES, LEAST, MOST, parts, photos

    random, sources, sizes = np.random.default_rng(0), photos(), []
    for file in range(FILES):
        with open(folder / f"photos-{file:05d}-of-{FILES:05d}", "wb") as stream:
            for number in range(file * count // FILES, (file + 1) * count // FILES):
                content = next(part for part in parts(sources, random) if LEAST < len(part) < MOST)
                sizes.append(len(content))
                stream.write(build_record({"image/encoded": content, "image/class/label": number % CLASSES}))
    return statistics.mean(sizes)


def build_mlscale(folder: str, workers: int) -> Iterable[Any]:
    """Return the batches of an epoch, each time it is iterated over."""
    import torch

    from mlscale.data import RandomCrop, TFRecord

    torch.set_num_threads(1)
    data = TFRecord(folder, folder, batch_size=BATCH, image_size=SIDE, workers=workers, augment=RandomCrop())
    return data.train_dataloader()


def build_tf_data(folder: str, antialias: bool) -> Iterable[Any]:
    """Return the batches of an epoch, each time it is iterated over."""
    import tensorflow as tf  # in the peer's environment alone

    mean, std = tf.constant([123.7, 116.3, 103.5]), tf.constant([58.4, 57.1, 57.4])
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(record: Any) -> Any:
        sample = tf.io.parse_single_example(record, features)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(sample["image/encoded"]),
            tf.zeros([1, 0, 4]),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(sample["image/encoded"], window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [SIDE, SIDE], antialias=antialias))
        return tf.transpose((image - mean) / std, [2, 0, 1]), sample["image/class/label"]

    files = sorted(str(path) for path in Path(folder).glob("photos-*"))
    return cast(
        Iterable[Any],
        tf.data.TFRecordDataset(files).shuffle(1000).map(decode, num_parallel_calls=2).batch(BATCH).prefetch(2),
    )


def work(name: str, folder: str) -> None:
    """Run an epoch for each line on standard input, and print what it cost."""
    kind, _, option = name.partition("-")
    batches = build_tf_data(folder, option == "antialias") if kind == "tf" else build_mlscale(folder, int(option))
    for _ in sys.stdin:
        cpu, wall, samples = _read_cpu_seconds(), time.perf_counter(), 0
        for batch in batches:
            x = batch["x"] if isinstance(batch, dict) else batch[0]
            if tuple(x.shape[1:]) != (3, SIDE, SIDE):
                raise SystemExit(f"{name}: a batch is {tuple(x.shape)}")
            samples += x.shape[0]
        print(json.dumps([_read_cpu_seconds() - cpu, time.perf_counter() - wall, samples]), flush=True)


def _read_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has TensorFlow; without it mlscale alone is measured")
    parser.add_argument("--count", type=int, default=1024, help=f"photographs, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    contenders = {name: (options.peer, key) for name, key in PEERS.items()} if options.peer else {}
    contenders |= {name: (sys.executable, key) for name, key in OURS.items()}
    with tempfile.TemporaryDirectory() as folder:
        size = write_records(Path(folder), options.count)
        epochs = measure(contenders, folder, options.rounds)
    print(f"{options.count} photographs of {size / 1000:.0f} KB on average, {options.rounds} rounds\n")
    base = next(iter(epochs))
    print(f"{'':24s} {'CPU-s per 1,000':>16s} {'spread':>12s} {'× less than ' + base:>32s} {'spread':>12s}")
    for name, runs in epochs.items():
        costs = [cpu / samples * 1000 for cpu, _, samples in runs]
        ratios = [before[0] / run[0] for before, run in zip(epochs[base], runs, strict=True)]
        print(
            f"{name:24s} {statistics.median(costs):16.2f} {min(costs):6.2f}–{max(costs):4.2f} "
            f"{statistics.median(ratios):32.2f} {min(ratios):6.2f}–{max(ratios):4.2f}"
        )


def measure(contenders: dict[str, tuple[str, str]], folder: str, rounds: int) -> dict[str, list[list[float]]]:
    """Return CPU-seconds, seconds and samples of each epoch, by contender, after one that is not counted."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    env |= {"MLSCALE_CACHE": f"{folder}/cache", "PYTHONPATH": str(Path(__file__).parents[1])}
    processes = {}
    for name, (python, key) in contenders.items():
        command = [python, str(Path(__file__)), "--work", key, folder]
        processes[name] = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    epochs: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, process in processes.items():
            # Pipes, because both were asked for.
            cast(IO[str], process.stdin).write("go\n")
            cast(IO[str], process.stdin).flush()
            line = cast(IO[str], process.stdout).readline()
            if not line:
                raise SystemExit(f"{name} ended with exit code {process.wait()}")
            if number:
                epochs[name].append(json.loads(line))
    for process in processes.values():
        process.communicate()
    return epochs


if __name__ == "__main__":
    main()
