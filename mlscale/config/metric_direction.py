"""The direction in which a metric gets better, by its name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

_RISING = (
    "accuracy acc f1 fbeta auroc auc rocauc auprc map ap miou iou jaccard dice r2 mcc matthews kappa spearman "
    "pearson kendall corr correlation ndcg mrr bleu rouge meteor psnr ssim match em top precision recall "
    "sensitivity specificity tpr score reward return win hit similarity likelihood exact elbo throughput fps "
    "headroom speedup"
)
_FALLING = (
    "rmse rmsle mae mape smape mse wer cer eer error err perplexity ppl bits bpb bpc bpd nats fid lpips loss nll "
    "bce ce xent crossentropy entropy hinge deviance kl kld ece brier fpr fnr regret distance false time seconds "
    "latency memory bytes ms cost"
)
_MAX, _MIN = frozenset(_RISING.split()), frozenset(_FALLING.split())
_NEGATIVE = frozenset({"neg", "negative"})
_KNOWN = _MAX | _MIN | _NEGATIVE
_ENDS = ("accuracy", "error", "loss", "acc")  # of names without a separator: valloss
_STAGES = {"val": "val", "valid": "val", "validation": "val", "train": "train", "training": "train", "test": "test"}


def infer_direction(name: str) -> str | None:
    """Return 'min' if less of the metric is better, 'max' if more is, None if its name does not show it.

    A loss is a loss whatever it is of (`dice_loss`); otherwise the last word that is known decides (`top1_error`).
    """
    words = list(_split_name(name))
    word = _find_deciding_word(words)
    if not word:
        return None
    # `neg_mse` gets better as it rises: a negated metric has the opposite direction.
    return "min" if (word in _MIN) != any(word in _NEGATIVE for word in words) else "max"


def find_nearest_metric(name: str, logged: Iterable[str]) -> str | None:
    """Return the logged metric that `name` probably means: one of the same stage, else of validation, if any."""
    names = sorted(logged)
    same = [other for other in names if get_stage(other) == (get_stage(name) or "val")] or names
    quality = sorted(same, key=lambda other: (is_loss(other), infer_direction(other) is None, len(other)))
    return next(iter([*difflib.get_close_matches(name, same, 1), *quality]), None)


def find_total_loss(logged: Iterable[str]) -> str | None:
    """Return the total loss among the metrics that a validation logs."""
    losses = [name for name in logged if is_loss(name) and get_stage(name) != "train"]
    return min(losses, key=lambda name: ("total" not in name, len(name), name), default=None)


def is_loss(name: str) -> bool:
    """Return whether a metric is a loss, by its name."""
    return _find_deciding_word(list(_split_name(name))) == "loss"


def get_stage(name: str) -> str | None:
    """Return val, train or test, where the name of a metric begins with it or a word like it."""
    return next((_STAGES[word] for word in _split_name(name) if word in _STAGES), None)


def _find_deciding_word(words: Sequence[str]) -> str:
    """Return the word that decides what a metric is; empty if none is known."""
    known = [word for word in words if word in _MAX or word in _MIN]
    return "loss" if "loss" in known else known[-1] if known else ""


def _split_name(name: str) -> Iterator[str]:
    """Yield the words of a name: `val/F1Score` is val, f1, score; `valloss` ends in loss."""
    for token in re.split(r"[^A-Za-z0-9]+", name):
        # CamelCase is split (`F1Score`: f1, score), but not a token that is known as a whole (`mAP`, `IoU`).
        parts = [token, *re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*(?![a-z])", token)]
        if _normalise_word(token) in _KNOWN or parts[1:] == [token]:
            parts = [token]
        elif len(parts) > 1:
            parts = parts[1:]
        for part in parts:
            word = _normalise_word(part)
            yield next((end for end in _ENDS if word not in _KNOWN and word.endswith(end)), word)


def _normalise_word(text: str) -> str:
    word = text.lower()
    # `top5` and `acc1` are known without their number, `f1` and `r2` with it.
    return word if word in _KNOWN or word in _STAGES else word.rstrip("0123456789") or word
