"""Files of tokens: time to start, tokens a second of the data alone, padding by packing; compared with nanoGPT.

    python -m scripts.bench_tokens                       # 200 million tokens, written to a temporary folder
    python -m scripts.bench_tokens --tokens 20000000

The peer is nanoGPT's `get_batch`: a new `np.memmap` for each batch, random starts, and a stack of int64 tensors. It has
no documents, no epochs and no resume, so it is the least that reading tokens costs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mlscale import contracts
from mlscale.data import TokenFiles
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.data.text.documents import Document
from mlscale.data.text.token_maps import DOCUMENT, TOKENIZER
from mlscale.data.writing.train_tokenizer import train_tokenizer

_LENGTH, _BATCH, _BATCHES, _ROUNDS = 1024, 16, 300, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--median", type=int, default=330, help="tokens of a document; lengths are lognormal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = write_folder(folder, options.tokens, options.median)
        print(f"{options.tokens:,} tokens in {documents:,} documents; {_LENGTH} a sequence, {_BATCH} a batch")
        for packing in ("concat", "documents", "none"):
            seconds, data = measure_start(folder, packing)
            print(f"start     {packing:10} {seconds:7.3f} s, padding {100 * (data.facts().padding_share or 0):6.3f} %")
        compare_speed(folder)


def write_folder(folder: Path, tokens: int, median: int) -> int:
    """Write random tokens in the form of `mlscale prepare`; returns the number of documents."""
    random = np.random.default_rng(0)
    train_tokenizer([Document("a", b"a text of few words " * 50)], 300, folder / TOKENIZER)
    tokenizer = Tokenizer.load_file(folder / TOKENIZER, None, where="tokenizer")
    splits, total = {}, 0
    for split, size in (("train", tokens), ("val", tokens // 100)):
        (folder / split).mkdir()
        sizes = np.maximum(2, random.lognormal(np.log(median), 1.0, 2 * size // median).astype(np.int64))
        ends = np.cumsum(sizes)
        ends = np.append(ends[ends < size - 2], size)
        content = random.integers(2, 258, size, dtype=np.uint16)
        end = tokenizer.get_id("eos")
        assert end is not None  # what was trained above has one
        content[ends - 1] = end
        content.tofile(folder / split / f"{split}-00000.bin")
        ends.tofile(folder / split / f"{split}-00000.ends")
        arrays = (("sha256", content), ("ends_sha256", ends))
        digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays}
        counts = {"documents": len(ends), "tokens": size, "text_bytes": 4 * size, "unknown_tokens": 0}
        total += len(ends)
        splits[split] = {**counts, "shards": [{"name": f"{split}-00000.bin", **counts, **digests}]}
    document = {
        "format": contracts.get_format_tag("tokens"), "container": "tokens", "dtype": "uint16",
        "tokenizer": tokenizer.digest, "special_tokens": dict(tokenizer.roles),
        "document_end": tokenizer.get_id("eos"), "splits": splits,
    }  # fmt: skip
    (folder / DOCUMENT).write_text(json.dumps(document))
    return total


def measure_start(folder: Path, packing: str) -> tuple[float, TokenFiles]:
    """Return the seconds from nothing to the first batch, and the data."""
    begin = time.perf_counter()
    data = TokenFiles(str(folder), length=_LENGTH, batch_size=_BATCH, packing=packing)
    data.setup("fit")
    next(iter(data.train_dataloader()))
    return time.perf_counter() - begin, data


def compare_speed(folder: Path) -> None:
    """Print tokens a second, and the ratio to the peer, in turns."""
    readers: dict[str, tuple[Callable[[], object], float]] = {}
    for packing in ("concat", "documents", "none"):
        data = TokenFiles(str(folder), length=_LENGTH, batch_size=_BATCH, packing=packing)
        data.setup("fit")
        batches = iter(data.train_dataloader())
        share = 1 - (data.facts().padding_share or 0)
        readers[packing] = (lambda batches=batches: next(batches), share)  # type: ignore[misc]
    random = torch.Generator().manual_seed(0)
    readers["nanoGPT"] = ((lambda: read_as_nanogpt(folder / "train/train-00000.bin", random)), 1.0)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(_ROUNDS):
        for name, (read, share) in readers.items():
            begin = time.perf_counter()
            for _ in range(_BATCHES):
                read()
            rates[name].append(_BATCHES * _BATCH * _LENGTH * share / (time.perf_counter() - begin))
    for name, measured in rates.items():
        ratio = np.median(np.array(measured) / np.array(rates["nanoGPT"]))
        rate = np.median(measured) / 1e6
        print(f"data      {name:10} {rate:7.1f} million tokens/s without padding, {ratio:.2f} × nanoGPT")


def read_as_nanogpt(path: Path, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch as train.py of nanoGPT makes it."""
    data = np.memmap(path, dtype=np.uint16, mode="r")
    starts = torch.randint(len(data) - _LENGTH, (_BATCH,), generator=random).tolist()
    x = torch.stack([torch.from_numpy(data[i : i + _LENGTH].astype(np.int64)) for i in starts])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + _LENGTH].astype(np.int64)) for i in starts])
    return x, y


if __name__ == "__main__":
    main()
