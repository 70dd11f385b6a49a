"""What is kept of a pass: every sample once, the worst as they look, and no more than was promised."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mlscale.errors import MLScaleError
from mlscale.evaluate import sample_collector as module
from mlscale.evaluate.sample_collector import SampleCollector, compute_sample_columns
from mlscale.evaluate.worst_samples import build_worst_blocks
from mlscale.task_types.collected_samples import TaskInfo
from mlscale.task_types.registry import get_task_type


def logits_for(predicted: Tensor, k: int = 3, sure: float = 4.0) -> Tensor:
    return torch.nn.functional.one_hot(predicted, k).float() * sure


def test_samples_of_weight_0_do_not_count_and_keys_are_theirs() -> None:
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("a", "b", "c")))
    y = torch.tensor([0, 1, 2, 1])
    batch = {"x": torch.rand(4, 1, 2, 2), "y": y, "weight": torch.tensor([1.0, 0, 1, 1]), "key": list("wxyz")}
    gather.collect_batch({"logits": logits_for(torch.tensor([0, 1, 1, 1]))}, batch)
    gather.collect_batch({"logits": logits_for(torch.tensor([2]))}, (torch.rand(1, 1, 2, 2), torch.tensor([2])))
    found = gather.collect_samples()
    assert found.keys == ["w", "y", "z", "#4"]
    assert found.columns["truth"].tolist() == [0, 2, 1, 2]
    assert found.columns["rank"].tolist() == [0, 1, 0, 0]
    assert [each.key for each in found.worst] == ["y"]
    assert found.logits is not None
    assert found.logit_rows.tolist() == [0, 1, 2, 3]


def test_samples_without_keys_are_called_by_their_place_whatever_was_left_out() -> None:
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("a", "b", "c")))
    y = torch.tensor([0, 1, 2])
    for weight in ([1.0, 0, 1], [1.0, 1, 0]):
        batch = {"x": torch.rand(3, 1, 2, 2), "y": y, "weight": torch.tensor(weight)}
        gather.collect_batch({"logits": logits_for(y)}, batch)
    assert gather.collect_samples().keys == ["#0", "#2", "#3", "#4"]


def test_the_worst_are_those_of_the_largest_losses_in_the_units_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    info = TaskInfo(("a", "b", "c"), mean=(100.0,), std=(50.0,))
    gather, losses = SampleCollector(get_task_type("classification"), info, worst=5), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        logits, y = torch.randn(20, 3, generator=generator), torch.randint(0, 3, (20,), generator=generator)
        gather.collect_batch({"logits": logits}, (torch.full((20, 1, 2, 2), 2.0), y))
        wrong = logits.argmax(1) != y
        losses += torch.nn.functional.cross_entropy(logits, y, reduction="none")[wrong].tolist()
    found = gather.collect_samples()
    assert [each.loss for each in found.worst] == pytest.approx(sorted(losses, reverse=True)[:5])
    assert np.unique(found.worst[0].x).tolist() == [200]


@pytest.mark.parametrize(
    ("kind", "printed", "y"),
    [
        ("classification", {"logits": torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])}, torch.tensor([0, 0])),
        ("regression", {"value": torch.tensor([[1.0], [torch.inf]])}, torch.zeros(2, 1)),
        ("multilabel", {"logits": torch.tensor([[1.0, 0.0], [0.0, torch.nan]])}, torch.zeros(2, 2)),
    ],
)
def test_an_answer_that_is_no_number_is_no_class(kind: str, printed: dict[str, Tensor], y: Tensor) -> None:
    with pytest.raises(MLScaleError, match="the model's output for sample '#1' is not a finite number"):
        SampleCollector(get_task_type(kind), TaskInfo(("a", "b"))).collect_batch(printed, (torch.zeros(2, 3), y))


def test_a_class_that_a_model_rules_out_may_be_the_truth() -> None:
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("a", "b")))
    gather.collect_batch({"logits": torch.tensor([[0.0, -torch.inf]])}, (torch.zeros(1, 3), torch.tensor([1])))
    assert gather.collect_samples().columns["loss"].tolist() == [np.inf]


def test_no_worst_are_kept_where_none_are_asked_for() -> None:
    gather = SampleCollector(get_task_type("classification"), TaskInfo(("a", "b")), worst=0)
    gather.collect_batch({"logits": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}, (torch.zeros(2, 3), torch.tensor([1, 1])))
    found = gather.collect_samples()
    assert found.worst == []
    assert build_worst_blocks(found) == []  # not "There are none": there is one


def test_logits_are_kept_of_some_only_each_with_the_same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LOGITS", 50)
    counts = np.zeros(400)
    for seed in range(60):
        gather = SampleCollector(get_task_type("classification"), TaskInfo(), seed=seed)
        for start in range(0, 400, 40):
            x = torch.arange(start, start + 40).float()[:, None]
            gather.collect_batch({"logits": torch.cat([x, -x], 1)}, (x, torch.zeros(40, dtype=torch.long)))
        found = gather.collect_samples()
        assert found.logits is not None
        assert len(np.unique(found.logit_rows)) == 50
        assert np.array_equal(found.logits[:, 0], found.logit_rows)
        counts[found.logit_rows] += 1
    halves = counts[:200].sum(), counts[200:].sum()
    assert abs(halves[0] - halves[1]) < 4 * np.sqrt(60 * 50 / 4) * 2


def test_rows_of_masks_count_pixels_and_leave_ignored_ones_out() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1] = 1.0  # all pixels are taken for class 1
    found = compute_sample_columns(
        get_task_type("segmentation"), {"logits": logits}, torch.tensor([[[1, 1], [0, 255]]], dtype=torch.uint8)
    )
    assert found["hit"].tolist() == [[0, 2, 0]]
    assert found["predicted"].tolist() == [[0, 3, 0]]
    assert found["true"].tolist() == [[1, 2, 0]]
    assert found["iou"][0] == pytest.approx((0 + 2 / 3) / 2)


def test_what_does_not_fit_its_kind_is_reported() -> None:
    with pytest.raises(MLScaleError, match="can't be measured as classification") as caught:
        compute_sample_columns(
            get_task_type("classification"), {"value": torch.zeros(2, 3)}, torch.zeros(2, dtype=torch.long)
        )
    assert "{'value': (2, 3)}" in caught.value.why
    with pytest.raises(MLScaleError, match="predict_step gives a Tensor, and a module with a kind"):
        compute_sample_columns(get_task_type("classification"), torch.zeros(2), torch.zeros(2))  # type: ignore[arg-type]
