"""Messages for objects of the user's code, which is imported only in doubt, and what they leave out of a file."""

from __future__ import annotations

import sys

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "model: {_target_: shop.Net, hiden: 3}",
        """
unknown key 'model.hiden'
  where: command line: model.hiden
  why:   shop.Net takes no 'hiden'
  fix:   model.hidden=3
""",
    ),
    (
        "model: {_target_: shop.Net, depth: 3}",
        """
'model.hidden' is missing
  where: command line: model._target_
  why:   shop.Net requires 'hidden'
  fix:   model.hidden=<int>
""",
    ),
    (
        "model: {_target_: shop.Nett, depth: 3}",
        """
the _target_ of 'model' does not exist: shop.Nett
  where: command line: model._target_
  why:   'shop' has no 'Nett'
  fix:   model._target_=shop.Net
""",
    ),
    (
        "model: {_target_: shop.Anything, depth: 3}",
        """
'model.width' is missing
  where: command line: model._target_
  why:   shop.Anything requires 'width'
  fix:   model.width=<int>
""",
    ),
    (
        "model: {_target_: shop.Anything, width: 3, depth: {_target_: torch.nn.Nope}}",
        """
the _target_ of 'model.depth' does not exist: torch.nn.Nope
  where: command line: model.depth._target_
  why:   'torch.nn' has no 'Nope'
  fix:   model.depth._target_=<package.module.Class>
""",
    ),
    (
        "model: {_target_: shop.Registered, width: 3, exta: {_target_: torch.nn.Nope}}",
        """
unknown key 'model.exta'
  where: command line: model.exta
  why:   shop.Registered takes no 'exta'
  fix:   'model.extra={_target_:torch.nn.Nope}'
""",
    ),
    (
        "model: {_target_: shop.Registered}",
        """
'model.width' is missing
  where: command line: model._target_
  why:   shop.Registered requires 'width'
  fix:   model.width=<int>
""",
    ),
    (
        "model: {_target_: shop.Registeredd}",
        """
the _target_ of 'model' does not exist: shop.Registeredd
  where: command line: model._target_
  why:   'shop' has no 'Registeredd'
  fix:   model._target_=shop.Registered
""",
    ),
    (
        "model: {_target_: shop.Registered.Nope}",
        """
the _target_ of 'model' does not exist: shop.Registered.Nope
  where: command line: model._target_
  why:   'shop.Registered' has no 'Nope'
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "model: {_target_: lazy_shop.Net, hiden: 1}",
        """
unknown key 'model.hiden'
  where: command line: model.hiden
  why:   lazy_shop.Net takes no 'hiden'
  fix:   model.hidden=1
""",
    ),
    (
        "model: {_target_: lazy_shop.Nett, hiden: 1}",
        """
the _target_ of 'model' does not exist: lazy_shop.Nett
  where: command line: model._target_
  why:   'lazy_shop' has no 'Nett'
  fix:   model._target_=lazy_shop.Net
""",
    ),
    (
        "model: {_target_: lazy_shop.Other, hiden: 1}",
        """
the _target_ of 'model' does not exist: lazy_shop.Other
  where: command line: model._target_
  why:   'lazy_shop' has no 'Other'
  fix:   model._target_=<package.module.Class>
""",
    ),
    (
        "task: {_target_: shop.Module, learning_rate: 0.2, weight_decay: 0.1}\n"
        "optimizer: {_target_: torch.optim.SGD, lr: 1, _partial_: true}",
        """
unknown key 'task.learning_rate'
  where: command line: task.learning_rate
  why:   shop.Module takes no 'learning_rate'
  fix:   task.lr=0.2
unknown key 'task.weight_decay'
  where: command line: task.weight_decay
  why:   shop.Module takes no 'weight_decay'
  fix:   optimizer.weight_decay=0.1
""",
    ),
    (
        "task: {_target_: shop.Focal, gamma: x, other: 1, model: resnet}",
        """
'task.gamma' must be float, not the text 'x'
  where: command line: task.gamma
'task.model' is not set here
  where: command line: task.model
  why:   the group 'model' owns it
  fix:   model=resnet
""",
    ),
]

IN_FILE = [
    (
        "model: {_target_: shop.Net, hiden: 3}",
        ("model",),
        """
unknown key 'model.hiden'
  where: my.yaml: model.hiden
  why:   shop.Net takes no 'hiden'
  fix:   write 'hidden' in place of 'hiden'
""",
    ),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("config", "is_imported"),
    [
        ("model: {_target_: shop.Net, hidden: 1}", False),
        ("model: {_target_: shop.Net, hiden: 1}", False),
        ("model: {_target_: shop.Anything, width: 1, depth: 2}", False),
        ("model: {_target_: shop.Anything, depth: 2}", True),
        ("model: {_target_: shop.Registered, width: 1}", True),
        ("model: {_target_: shop.Registered, width: 1, _check_: false}", False),
        ("model: {_target_: shop.Nett}", True),
    ],
)
def test_code_of_the_user_is_imported_only_where_its_source_leaves_a_doubt(config: str, is_imported: bool) -> None:
    find_problems(config)
    assert ("shop" in sys.modules) == is_imported


LEFT_OVER = [
    (
        "optimizer: {_target_: torch.optim.AdamW, lrr: 1, lr: 2, _partial_: true}",
        ("optimizer.lrr", "optimizer.lr", "optimizer._partial_"),
        ["lrr"],
    ),
    ("optimizer: {_target_: torch.optim.AdamW, lrr: 1}", ("optimizer",), None),
    (
        "data: {_target_: shop.Data, root: a, workers: 2, shuffle: false, index: 1}",
        ("data.root", "data.workers", "data.shuffle", "data.index"),
        ["workers", "index"],
    ),
    ("data: {_target_: shop.Data, root: a, workers: 2}", ("data.root",), None),
    ("task: {_target_: shop.Focal, label_smoothing: 0.1, other: 1}", ("task.label_smoothing", "task.other"), None),
    (
        "task: {_target_: shop.Loss, label_smoothing: 0.1, other: 1}",
        ("task.label_smoothing", "task.other"),
        ["label_smoothing", "other"],
    ),
    ("model: {_target_: shop.Anything, width: 1, depth: 2}", ("model.width", "model.depth"), ["depth"]),
    (
        "model: {_target_: torchvision.models.googlenet, num_classes: 1, weights: null, depth: 2}",
        ("model.num_classes", "model.weights", "model.depth"),
        ["depth"],
    ),
    (
        "task: {_target_: mlscale.tasks.Regression, label_smoothing: 0.1}",
        ("task.label_smoothing",),
        ["label_smoothing"],
    ),
    ("task: {_target_: mlscale.tasks.Classification, label_smoothing: 0.1}", ("task.label_smoothing",), None),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("config", "in_file", "keys"), LEFT_OVER, ids=[case[0] for case in LEFT_OVER])
def test_keys_of_a_file_that_the_typed_target_does_not_take_are_left_out(
    config: str, in_file: tuple[str, ...], keys: list[str] | None
) -> None:
    left: dict[str, list[str]] = {}
    messages = find_problems(config, in_file, left_over=left)
    assert left == ({config.partition(":")[0]: keys} if keys else {})
    assert not any(f".{key}'" in messages for key in keys or [])
