"""Manual optimization under FSDP: a step with several passes and updates computes what it computes with DDP."""

from pathlib import Path

import pytest
import torch

from tests.dist import manual
from tests.dist.test_two_ranks import launch

_REFUSED = {
    "own": "scale, which is not in a module with a forward pass",
    "shared": "model.head.weight, which model and second share",
    "method": "model.encode, which it calls while the weights are not gathered",
    "inner": "model.encoder.forward, which it calls while the weights are not gathered",
    "penalty": "model, whose gradients it differentiates again (create_graph=True)",
    "late": "model, which is updated between its forward and its backward pass",
}


@pytest.mark.parametrize(
    ("kind", "words", "ratio"),
    [
        ("gan 8", "", 1e-5),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                # In float32, rounding grows to 3e-3 in so many steps of a GAN.
                ("gan 200", "float64", 1e-9),
                ("classifier 200", "float64", 1e-9),
                ("plain_gan 16", "wrap=[Block] reshard_after_forward=false", 1e-5),
                ("gan 16", "wrap_min_params=10 ema grad_norm metrics", 1e-5),
                ("classifier 16", "precision=bf16-mixed", 1e-5),
                # A critic that is called twice for an update would add its gradients up in bfloat16.
                ("plain_gan 16", "precision=bf16-mixed", 1e-5),
            )
        ),
    ],
)
def test_it_computes_what_ddp_computes(kind: str, words: str, ratio: float) -> None:
    ddp, fsdp = (launch(manual.curve, f"{strategy} {kind} {words}")[0] for strategy in ("ddp", "fsdp"))
    assert len(fsdp["losses"]) == int(kind.split(" ")[1])
    for mine, other in zip(fsdp["losses"], ddp["losses"], strict=True):
        assert mine == pytest.approx(other, rel=ratio)
    assert fsdp["metrics"] == pytest.approx(ddp["metrics"], rel=10 * ratio)
    assert list(fsdp["weights"]) == list(ddp["weights"])
    for name, value in ddp["weights"].items():
        torch.testing.assert_close(fsdp["weights"][name], value, rtol=10 * ratio, atol=10 * ratio)
    assert fsdp["sharded"] > 0
    assert ddp["sharded"] == 0


@pytest.mark.slow
def test_what_it_can_not_train_is_refused_by_name() -> None:
    for kind, error in zip(_REFUSED, launch(manual.explain, " ".join(_REFUSED))[0], strict=True):
        assert error.partition("manually, with ")[2].splitlines()[0] == _REFUSED[kind]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["registered 4", "inner 4 wrap=[Block]"])
def test_the_fixes_work(words: str) -> None:
    ddp, fsdp = (launch(manual.curve, f"{strategy} {words}")[0] for strategy in ("ddp", "fsdp"))
    for mine, other in zip(fsdp["losses"], ddp["losses"], strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", " sharded_checkpoint"])
def test_a_resumed_run_is_the_same_to_the_last_bit(form: str, tmp_path: Path) -> None:
    whole = launch(manual.resume, f"fsdp {tmp_path / 'first'} -{form}")[0]
    saved = max((tmp_path / "first").glob("*.ckpt"), key=lambda path: path.name)
    rest = launch(manual.resume, f"fsdp {tmp_path / 'second'} {saved}{form}")[0]
    assert rest
    assert whole[-len(rest) :] == rest
