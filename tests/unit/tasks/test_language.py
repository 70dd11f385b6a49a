"""Language modelling: what is measured, what is learned, and how a text goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.tasks import GPT, Language
from mlscale.tasks.batch import Batch
from mlscale.tasks.models.ngrams import hash_ngrams


class Even(nn.Module):
    """Every token as likely as every other."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(*x.shape, self.tokens) * self.scale


def small(ngrams: Sequence[int] = ()) -> GPT:
    torch.manual_seed(0)
    return GPT(256, 16, width=16, layers=2, heads=2, ngrams=ngrams, buckets=64)


def batch(n: int = 4) -> dict[str, Tensor]:
    x = torch.arange(n * 9).view(n, 9) % 200 + 1
    return {"x": x[:, :-1].contiguous(), "y": x[:, 1:].contiguous()}


def test_no_knowledge_is_eight_bits_per_byte() -> None:
    task = Language(model=Even(256))
    given = Batch(**batch(), weight=None)
    loss, bits = task.means(task(given.x), given)
    assert loss.tolist() == pytest.approx([math.log(256)] * 4)
    assert bits.tolist() == pytest.approx([8.0] * 4)
    printed = task.predict_step(batch(), 0)
    assert printed["nats"].tolist() == pytest.approx([8 * math.log(256)] * 4)
    assert printed["tokens"].tolist() == [8] * 4


def test_a_model_of_another_kind_is_reported() -> None:
    with pytest.raises(MLScaleError, match=r"the model gives \(4, 8\)"):
        Language(model=nn.Identity()).training_step(batch(), 0)


@pytest.mark.parametrize("ngrams", [(), (2, 3)])
def test_nothing_is_known_of_what_comes(ngrams: tuple[int, ...]) -> None:
    model = small(ngrams).eval()
    x = torch.randint(1, 256, (2, 16), generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    before, after = model(x), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(-1).all()
    assert torch.allclose(model(x[:, :5]), before[:, :5], atol=1e-6)


def test_the_first_loss_is_that_of_no_knowledge() -> None:
    loss = Language(model=small([2])).training_step(batch(), 0)
    assert float(loss.detach()) == pytest.approx(math.log(256), abs=0.1)


def test_a_text_is_learned_and_gone_on_with() -> None:
    text = b"pack my box with jugs. " * 4
    tokens = torch.tensor(list(text))
    x = torch.stack([tokens[i : i + 16] for i in range(48)])
    y = torch.stack([tokens[i + 1 : i + 17] for i in range(48)])
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    task = Language(model=model)
    for _ in range(100):
        optimizer.zero_grad()
        loss = task.training_step({"x": x, "y": y}, 0)
        torch.autograd.backward(loss)
        optimizer.step()
    assert float(loss.detach()) < 0.3
    assert model.generate("pack my", 16, temperature=0) == "pack my box with jugs. "
    drawn = [model.generate(b"pack", 40, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert model.training


def test_generate_refuses_what_it_cannot_do() -> None:
    with pytest.raises(MLScaleError, match="at least a byte"):
        small().generate("", 3)
    with pytest.raises(MLScaleError, match="a model of bytes"):
        GPT(10, 4, width=8, layers=1, heads=1).generate("a", 3)


def test_heads_divide_the_width() -> None:
    with pytest.raises(MLScaleError, match="6 heads do not divide a width of 128") as caught:
        GPT(256, 16, width=128, heads=6)
    assert caught.value.fix == "model.width=120"


def test_rows_of_ngrams_are_those_of_the_tokens_that_end_there() -> None:
    x = torch.tensor([[5, 6, 7, 5, 6, 7], [9, 6, 7, 5, 6, 8]])
    two, three = hash_ngrams(x, (2, 3), 1 << 20)
    assert two[0, 1] == two[0, 4] == two[1, 4]
    assert two[0, 1] != two[1, 1]
    assert three[0, 2] == three[0, 5] != three[1, 2]
    assert three[0, 3] == three[1, 3]
    assert (two >= 0).all()
    golden = next(hash_ngrams(torch.tensor([[1, 2, 3]]), (1,), 1000))  # checkpoints depend on it
    assert golden.tolist() == [[529, 470, 764]]


def test_a_text_that_is_longer_than_the_context_is_reported() -> None:
    with pytest.raises(MLScaleError, match="sequences of 17 are longer than the model's context of 16") as caught:
        small()(torch.zeros(1, 17, dtype=torch.int64))
    assert caught.value.fix.startswith("model.length=17")
