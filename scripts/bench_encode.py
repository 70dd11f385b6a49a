"""What encoding a raw sample costs: a row of 30 columns from parsed JSON, and a text of 200 bytes.

    python -m scripts.bench_encode

The row has 20 columns of numbers, half of them with an indicator, and 10 of categories, as `json.loads` returns it. It
is encoded by `TableEncoder.encode_row`, by `pack_samples`, which is what a server does before the exported graph, and,
to compare, by `encode_table` as a table of one row. The text is encoded by `TextEncoder` into 512 tokens, and packed;
its peer is the tensor path, a check of int64 tokens that a client has sent. Each is called in blocks whose times are
divided by the calls; contenders take turns. Printed are the median of the blocks, the quartiles, and the fastest, in
microseconds of CPU time of this thread, which other jobs on the machine disturb less
than wall time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.table_parsing.columns import Column, DataTable

NUMBERS, CATEGORIES, TOKENS = 20, 10, 512


def main() -> None:
    """Run all in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--calls", type=int, default=200)
    args = parser.parse_args()
    contenders = build_contenders()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.blocks):
        for name, call in contenders.items():
            start = time.thread_time()
            for _ in range(args.calls):
                call()
            seconds[name].append((time.thread_time() - start) / args.calls)
    print(f"{'microseconds a call':44} {'median':>8} {'quartiles':>15} {'fastest':>8}")
    for name, values in seconds.items():
        low, middle, high = (1e6 * value for value in statistics.quantiles(values, n=4))
        print(f"{name:44} {middle:8.1f} {f'{low:.1f} to {high:.1f}':>15} {1e6 * min(values):8.1f}")


def build_contenders() -> dict[str, Callable[[], Any]]:
    """Return what is measured."""
    rng = np.random.default_rng(0)
    columns: dict[str, Column] = {}
    for number in range(NUMBERS):
        values = rng.normal(40, 7, 500)
        values[: 50 * (number % 2)] = np.nan
        columns[f"number_{number}"] = values
    for number in range(CATEGORIES):
        columns[f"category_{number}"] = [f"kind {row}" for row in rng.integers(0, 5 + number, 500)]
    keys = [str(row) for row in range(500)]
    table = TableEncoder.fit(DataTable(columns, keys), list(columns), where="data.train")
    row = json.loads(json.dumps({name: values[60] for name, values in columns.items()}))
    one = DataTable({n: np.array([v]) if isinstance(v, float) else [v] for n, v in row.items()}, ["0"])
    texts, tensors = TextEncoder(TOKENS), TensorEncoder.from_shape((TOKENS,), "int64")
    text = json.loads(json.dumps("Größe 🐧 " * 14))[:100]
    text += "." * (200 - len(text.encode()))
    tokens = texts.encode_sample(text)["input"]
    assert len(row) == NUMBERS + CATEGORIES
    assert len(text.encode()) == 200
    assert table.encode_row(row).tobytes() == table.encode_table(one, where="input").x.tobytes()
    return {
        f"row of {len(row)} columns, encode_row": lambda: table.encode_row(row),
        f"row of {len(row)} columns, pack_samples": lambda: table.pack_samples([row]),
        f"row of {len(row)} columns, encode_table": lambda: table.encode_table(one, where="input"),
        "text of 200 bytes, encode_sample": lambda: texts.encode_sample(text),
        "text of 200 bytes, pack_samples": lambda: texts.pack_samples([text]),
        f"tensor of {TOKENS} tokens, encode_sample": lambda: tensors.encode_sample(tokens),
    }


if __name__ == "__main__":
    main()
