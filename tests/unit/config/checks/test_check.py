"""The check lets pass what is right, imports nothing heavy, and answers quickly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from omegaconf import DictConfig

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.schema.roots import find_roots
from mlscale.errors import MLScaleError

LATER = {"recipe", "tuned", "debug", "sweep", "base"}


def check(*overrides: str, verb: str = "train") -> list[MLScaleError]:
    request = parse_command_line(verb, overrides)
    return list(check_config(compose_config(request), groups=request.roots.groups, command=verb))


def problems(*overrides: str, verb: str = "train") -> list[str]:
    return [problem.what for problem in check(*overrides, verb=verb)]


GROUPS = {group: [*options] for group, options in find_roots().groups.items() if group not in LATER}
# To compose takes most of the time, so each composition has an option of every group that has as many.
SELECTIONS = [
    tuple(f"{group}={options[number]}" for group, options in GROUPS.items() if number < len(options))
    for number in range(max(map(len, GROUPS.values())))
]
MISSING = {
    "data=image_table": ["'data.train' is not set"],
    "data=dali": ["'data.train' is not set", "'data.val' is not set"],
    "data=imagefolder": ["'data.root' is not set"],
    "data=table": ["'data.train' is not set", "'data.target' is not set"],
    "data=text_files": ["'data.train' is not set"],
    "data=text_table": ["'data.train' is not set"],
    "data=tfrecord": ["'data.train' is not set", "'data.val' is not set"],
    "data=tokens": ["'data.root' is not set"],
    "data=webdataset": ["'data.train' is not set", "'data.val' is not set"],
}


@pytest.mark.parametrize(
    "choices", [*SELECTIONS, ("recipe=resnet",), ("debug=fast",), ("debug=limit",), ("debug=overfit",)]
)
def test_every_shipped_option_passes(choices: tuple[str, ...]) -> None:
    assert problems(*choices) == [problem for choice in choices for problem in MISSING.get(choice, [])]


@pytest.mark.parametrize(
    "overrides",
    [
        ("recipe=resnet", "trainer.devices=8", "logger=[csv,wandb]", "callbacks=[default,early_stopping]"),
        ("optimizer.lr=1", "trainer.gradient_clip_val=1", "trainer.val_check_interval=0.5", "trainer.devices=auto"),
        ("trainer.limit_train_batches=10", "trainer.max_time={hours:1}", "data.root=null", "data.workers=3"),
        ("model=resnet18", "model.weights=DEFAULT", "optimizer=adamw", "optimizer.betas=[0.9,0.99]"),
        ("callbacks.mine._target_=pytorch_lightning.callbacks.LearningRateMonitor",),
        ("scheduler=none", "scheduler.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
         "scheduler.scheduler._partial_=true", "scheduler.interval=epoch", "scheduler.monitor=val/loss"),
        ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "scheduler._partial_=true", "scheduler.step_size=3"),
        ("model=none", "model._target_=torch.nn.Sequential", "model._args_=[{_target_: torch.nn.Flatten}]"),
        ("compress.prune={_target_: torch.nn.Identity}", "notes=a b", "tags=[x]", "optimizer._convert_=all"),
        ("seed=${trainer.max_epochs}", "name=${oc.env:HOME}", "data.root=${oc.env:NO_SUCH_VARIABLE,null}"),
    ],
)  # fmt: skip
def test_what_is_right_passes(overrides: tuple[str, ...]) -> None:
    assert problems(*overrides) == []


def test_keys_of_another_option_of_launch_have_no_effect() -> None:
    assert problems("launch=slurm", "launch.nodes=2", "launch.partition=main") == []
    assert problems("launch.nodes=2") == ["'launch.nodes' has no effect with launch=local"]
    assert problems("launch=skypilot", "launch.partition=a") == [
        "'launch.partition' has no effect with launch=skypilot"
    ]
    assert problems("launch.nods=2") == ["unknown key 'launch.nods'"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["launch=slurm", "launch.nodes=x"], "machines; each has trainer.devices processes"),
        (["launch=kubernetes", "launch.nodes=x"], "pods; each has trainer.devices processes"),
        (["launch.max_restarts=x"], "restarts from the last checkpoint after a process has died"),
    ],
)
def test_a_key_that_several_options_have_is_explained_by_the_chosen_one(options: list[str], text: str) -> None:
    (problem,) = check(*options)
    assert problem.why.startswith(text)


def test_a_verb_has_its_own_keys() -> None:
    assert problems("ref=last", "split=test", verb="evaluate") == []
    assert problems(verb="export") == ["'ref' is not set"]
    assert problems("ref=last") == ["unknown key 'ref'"]
    assert problems("lifecycle.slo.p99_ms=50", verb="lifecycle") == []
    assert problems("lifecycle.slo.p98_ms=50", verb="lifecycle") == ["unknown key 'lifecycle.slo.p98_ms'"]
    assert problems("lifecycle.slo.p99_ms=fast", verb="lifecycle") == [
        "'lifecycle.slo.p99_ms' must be float or null, not the text 'fast'"
    ]


def test_all_problems_at_once() -> None:
    assert problems("trainer.devcies=8", "optimizer.lr=fast", "epochs=3", "derived.width=3") == [
        "'optimizer.lr' must be float, not the text 'fast'",
        "unknown key 'trainer.devcies'",
        "'derived.width' is filled in at start, never set by hand",
        "unknown key 'epochs'",
    ]


def test_nested_objects_are_checked() -> None:
    inner = "[{_target_: torch.nn.Linear, in_features: 3, out_feature: 2}]"
    assert problems("model=none", "model._target_=torch.nn.Sequential", f"model._args_={inner}") == [
        "unknown key 'model._args_[0].out_feature'"
    ]


def test_where_without_an_origin_is_the_key() -> None:
    request = parse_command_line("train", ["trainer.devcies=8"])
    (problem,) = check_config(compose_config(request), groups=request.roots.groups)
    assert problem.where == "trainer.devcies"


def test_the_origin_is_asked_only_where_there_is_a_problem() -> None:
    asked = []

    def origin(path: str) -> str:
        asked.append(path)
        return "somewhere"

    def run(*overrides: str) -> None:
        request = parse_command_line("train", overrides)
        check_config(compose_config(request), groups=request.roots.groups, origin=origin)

    run("recipe=resnet")
    assert asked == []
    run("recipe=resnet", "trainer.devcies=8")
    assert set(asked) == {"trainer.devcies", "trainer._target_"}


def test_values_of_the_environment_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "hunter2-hunter2")
    request = parse_command_line(
        "train",
        ["data.batch_size=${oc.env:PLANTED}", "seed=${oc.decode:${oc.env:PLANTED}}.x.y", "nme=${oc.env:PLANTED}"],
    )
    found = check_config(compose_config(request), groups=request.roots.groups)
    assert found
    assert not any("hunter2" in str(problem) for problem in found)


def test_the_config_is_not_changed() -> None:
    request = parse_command_line("train", ["recipe=resnet", "trainer.devcies=8"])
    cfg = compose_config(request)
    before: DictConfig = cfg.copy()
    check_config(cfg, groups=request.roots.groups)
    assert cfg == before


def test_quick_and_without_torch(tmp_path: Path) -> None:
    code = dedent("""
        import sys, time
        from mlscale.config.composition.argv import parse_command_line
        from mlscale.config.composition.compose import compose_config
        request = parse_command_line("train", ["recipe=resnet"])
        cfg = compose_config(request)
        begin = time.process_time()
        from mlscale.config.checks.check import check_config
        assert check_config(cfg, groups=request.roots.groups) == []
        print(time.process_time() - begin)
        print([name for name in ("torch", "numpy", "pytorch_lightning", "lightning_fabric") if name in sys.modules])
        """)

    def run() -> tuple[float, str]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        seconds, imported = done.stdout.splitlines()
        return float(seconds), imported

    # CPU seconds; the least of three, for a shared machine's cores are slow at times.
    results = [run() for _ in range(3)]
    assert {imported for _, imported in results} == {"[]"}
    assert min(seconds for seconds, _ in results) < 0.25


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("0,01", "0.01"), ("“0.01”", "0.01"), ("5%", "0.05"), ("1,000", "1000"), ("«3e-4»", "0.0003")],
)
def test_a_number_that_is_written_otherwise_is_suggested_as_meant(typed: str, meant: str) -> None:
    request = parse_command_line("train", ["+recipe=resnet"])
    cfg = compose_config(request)
    cfg.optimizer.lr = typed
    assert [problem.fix for problem in check_config(cfg, groups=request.roots.groups)] == [f"optimizer.lr={meant}"]
