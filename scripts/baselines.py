"""What simpler methods reach on the data of the recipes gpt, text, tabular and regression: the same splits.

    python -m scripts.baselines gpt text tabular regression

Language: what a general compressor needs for the held-out text after the training text, and interpolated n-grams of
bytes (Witten and Bell, 1991). Text: TF-IDF and logistic regression. Tables: linear models, boosting, a forest.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlscale.data import BreastCancer, Diabetes, PythonDocs, PythonSource
from mlscale.data.array_data import MemoryData

SEEDS = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=sorted(BASELINES))
    for recipe in parser.parse_args().recipes:
        BASELINES[recipe]()


def gpt() -> None:
    """Bits per byte of the held-out documents."""
    data = PythonDocs()
    data.prepare_data()
    train, val = (data.get_rows(split).text for split in ("train", "val"))  # type: ignore[attr-defined]
    print(f"gpt: {len(train):,} bytes to train, {len(val):,} to validate; bits per byte")
    for name, packed in (("xz -9e", _xz), ("bz2 -9", bz2.compress)):
        after = 8 * (len(packed(train + val)) - len(packed(train))) / len(val)
        print(f"  {name:24} {after:.3f} after the training text, {8 * len(packed(val)) / len(val):.3f} alone")
    for order in (4, 5, 6):
        start = time.perf_counter()
        bits = _witten_bell(train, val, order)
        print(f"  n-grams to order {order:<7} {bits:.3f}   ({time.perf_counter() - start:.0f} s)")


def _xz(text: bytes) -> bytes:
    best = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    return lzma.compress(text, format=lzma.FORMAT_RAW, filters=best)


def _witten_bell(train: bytes, val: bytes, order: int) -> float:
    """Bits per byte of interpolated n-grams: at each order a byte's share, and as much for the lower orders as there
    were different bytes after this context."""
    counts: list[dict[bytes, dict[int, int]]] = [{} for _ in range(order)]
    for k, table in enumerate(counts):
        for i in range(k, len(train)):
            after = table.setdefault(train[i - k : i], {})
            after[train[i]] = after.get(train[i], 0) + 1
    totals = [{context: sum(after.values()) for context, after in table.items()} for table in counts]
    bits = 0.0
    for i, byte in enumerate(val):
        share = 1 / 256
        for k in range(min(order, i + 1)):
            found = counts[k].get(val[i - k : i])
            if found is None:
                break
            share = (found.get(byte, 0) + len(found) * share) / (totals[k][val[i - k : i]] + len(found))
        bits -= math.log2(share)
    return bits / len(val)


def text() -> None:
    """Accuracy on pieces of held-out files."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    data = PythonSource()
    train, val = (data.get_rows(split) for split in ("train", "val"))
    given = [(rows.texts, rows.take_samples(np.arange(len(rows)))[1]) for rows in (train, val)]  # type: ignore[attr-defined]
    (train_x, train_y), (val_x, val_y) = [([one.decode("latin-1") for one in x], y) for x, y in given]
    print(f"text: {len(train_y):,} pieces to train, {len(val_y):,} to validate; accuracy")
    kinds: dict[str, dict[str, Any]] = {
        "words": {"token_pattern": r"\w+"},
        "words, log counts": {"token_pattern": r"\w+", "sublinear_tf": True},
        "2- to 5-grams of bytes": {"analyzer": "char", "ngram_range": (2, 5), "sublinear_tf": True},
        "1- to 6-grams of bytes": {"analyzer": "char", "ngram_range": (1, 6), "sublinear_tf": True},
    }
    for name, settings in kinds.items():
        vectors = TfidfVectorizer(**settings, max_features=200_000)
        x, v = vectors.fit_transform(train_x), vectors.transform(val_x)
        for c in (1, 10, 100):
            model = LogisticRegression(C=c, max_iter=1000).fit(x, train_y)
            print(f"  TF-IDF of {name}, C={c:<6} {model.score(v, val_y):.4f}", flush=True)


def tabular() -> None:
    """Accuracy on held-out rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    x, y, v, w = _arrays(BreastCancer())
    print(f"tabular: {len(y)} rows to train, {len(w)} to validate; accuracy")
    for c in (0.1, 1, 10):
        print(f"  logistic regression, C={c:<5} {LogisticRegression(C=c, max_iter=5000).fit(x, y).score(v, w):.4f}")
    for kind in (HistGradientBoostingClassifier, RandomForestClassifier):
        scores = [kind(random_state=seed).fit(x, y).score(v, w) for seed in SEEDS]
        print(f"  {kind.__name__:28} {np.mean(scores):.4f}, {min(scores):.4f} to {max(scores):.4f} over seeds")


def regression() -> None:
    """R² and root of the mean squared error on held-out rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge

    x, y, v, w = _arrays(Diabetes())
    y, w = y[:, 0], w[:, 0]
    print(f"regression: {len(y)} rows to train, {len(w)} to validate; R², RMSE")

    def told(name: str, models: list[Any]) -> None:
        predictions = [model.fit(x, y).predict(v) for model in models]
        errors = [float(np.mean((p - w) ** 2)) for p in predictions]
        r2 = [1 - error / float(w.var()) for error in errors]
        print(f"  {name:32} {np.mean(r2):.4f}, {np.mean(np.sqrt(errors)):.2f}")

    told("the mean", [Ridge(alpha=1e12)])
    for alpha in (0.1, 1, 10, 100):
        told(f"ridge, alpha={alpha}", [Ridge(alpha=alpha)])
    for kind in (HistGradientBoostingRegressor, RandomForestRegressor):
        told(f"{kind.__name__}, five seeds", [kind(random_state=seed) for seed in SEEDS])


def _arrays(data: MemoryData) -> tuple[Any, Any, Any, Any]:
    """Standardised features and targets, of training and of validation, as the recipes have them."""
    rows = [data.get_rows(split) for split in ("train", "val")]
    (x, y), (v, w) = (one.take_samples(np.arange(len(one))) for one in rows)
    return x, y, v, w


BASELINES: dict[str, Callable[[], None]] = {"gpt": gpt, "text": text, "tabular": tabular, "regression": regression}

if __name__ == "__main__":
    main()
