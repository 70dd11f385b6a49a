"""Objects of a config: their signatures, the keys that they take, and the types of these."""

from __future__ import annotations

import math

import pytest

from mlscale.config.schema.documented_fields import get_shipped_fields
from mlscale.config.schema.target_nodes import Node, iterate_nodes, iterate_outermost_nodes, join_path
from mlscale.config.signatures.signatures import NO_LITERAL, Kind, Parameter, Signature, Unknown


def node(path: str, target: object, **keys: object) -> Node:
    return Node(path, {"_target_": target, **keys}, get_shipped_fields())


def parameter(name: str = "x", annotation: str | None = None, default: object = NO_LITERAL) -> Parameter:
    return Parameter(name, Kind.KEYWORD_ONLY, default is NO_LITERAL, annotation, default)


def typed(path: str, target: str, *parameters: Parameter, is_open: bool = False) -> Node:
    """A node whose target has these parameters."""
    return Node(path, {"_target_": target}, get_shipped_fields(), Signature(target, parameters, is_open))


def texts(node: Node, key: str) -> list[str]:
    return [kind.text for kind in node.get_types(key)]


def accepts(node: Node, key: str, value: object) -> bool:
    return all(kind.accepts(value) for kind in node.get_types(key))


@pytest.mark.parametrize("target", [3, None, "Linear", "a b.C", "a.b-c", "", "a..", "."])
def test_a_target_that_is_not_a_dotted_path(target: object) -> None:
    signature = node("model", target).signature
    assert isinstance(signature, Unknown)
    if target != "a..":
        assert (signature.missing, signature.why) == ("_target_", "a _target_ is a dotted path: package.module.Class")


def test_signatures() -> None:
    assert node("model", "torch.nn.Linear").target == "torch.nn.Linear"
    assert node("model", 3).target == ""
    signature = node("model", "torch.nn.Linear").signature
    assert isinstance(signature, Signature)
    assert list(signature.named)[:2] == ["in_features", "out_features"]
    assert node("model", "${a.b}").signature == Unknown("${a.b}", "", "an interpolation")
    imported = Signature("x", ())
    assert Node("model", {"_target_": "torch.nn.Linear"}, get_shipped_fields(), imported).signature is imported
    private = node("model", "no_such_package._x_1.A").signature
    assert isinstance(private, Unknown)
    assert private.missing == "no_such_package"


def test_the_paths_that_may_be_set() -> None:
    taken = (parameter("in_features"), parameter("b"))
    closed = typed("model", "my.Net", *taken)
    assert closed.paths == ["model.in_features", "model.b"]
    closed.value.update(b=1, other=2, _partial_=True)
    assert closed.paths == ["model.b", "model.in_features"]
    assert typed("model", "my.Net").paths == []
    open_ = typed("model", "my.Net", is_open=True)
    open_.value.update(other=2, _partial_=True)
    assert open_.paths == ["model.other"]
    both = typed("model", "my.Net", *taken, is_open=True)
    both.value.update(other=2)
    assert both.paths == ["model.in_features", "model.b"]
    assert node("model", "${x}", other=2, _convert_="all").paths == ["model.other"]
    none = typed("model", "my.Net")
    none.value.update(other=2)
    assert none.paths == []


def test_the_paths_that_are_documented_come_before_the_other_parameters() -> None:
    nothing = typed("callbacks.ema", "mlscale.train.callbacks.EMA", parameter("zzz"))
    nothing.value.update(zzz=1)
    assert nothing.paths[0] == "callbacks.ema.zzz"
    assert "callbacks.ema.decay" in nothing.paths
    assert next(iter(nothing.documented)).startswith("callbacks.ema.")
    field = nothing.get_field("decay")
    assert field is not None
    assert field.path == "callbacks.ema.decay"
    assert nothing.get_field("zzz") is None
    assert not node("callbacks.ema", "my.EMA").documented


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        ("int", NO_LITERAL, ["int"]), ("int", 3, ["int"]), ("int", None, ["int or null"]), ("int", "a", ["int or str"]),
        ("list[int]", (1, 2), ["list[int]"]), ("int", (1, 2), ["int or list"]), ("Tensor", 3, []), (None, 3, []),
        ("Tensor", NO_LITERAL, []), (None, NO_LITERAL, []), ("", 3, []),
    ],
)  # fmt: skip
def test_the_type_of_an_annotation_accepts_its_default(
    annotation: str | None, default: object, expected: object
) -> None:
    assert texts(typed("model", "mlscale.Net", parameter("x", annotation, default)), "x") == expected
    assert texts(typed("model", "mlscale.Net", parameter("x", annotation, default)), "y") == []
    assert node("model", "${x}").get_types("x") == []


def test_a_comment_narrows_an_annotation_and_does_not_contradict_it() -> None:
    def of(key: str, annotation: str | None, target: str = "mlscale.tasks.Regression") -> list[str]:
        return texts(typed("task", target, parameter(key, annotation)), key)

    assert (
        get_shipped_fields().get_node_fields("task", "mlscale.tasks.Regression")["task.loss"].word
        == "one of mse, huber"
    )
    assert of("loss", "str") == ["str", "mse or huber"]
    assert of("loss", None) == ["mse or huber"]
    assert of("loss", "str", "my.Task") == ["str"]
    patience = "callbacks.early_stopping", "pytorch_lightning.callbacks.EarlyStopping"
    assert texts(typed(*patience, parameter("patience", "str")), "patience") == ["str"]
    assert texts(typed(*patience, parameter("patience", "tuple[X, int]")), "patience") == ["list[any, int]", "int ≥ 0"]
    assert texts(typed(*patience, parameter("strict")), "strict") == []  # nothing names its type


def test_the_range_of_a_well_known_key_is_that_of_built_in_classes() -> None:
    taken = parameter("devices", "int"), parameter("other", "int")
    assert texts(typed("trainer", "pytorch_lightning.Trainer", *taken), "devices")[1:] == ["int ≥ 1 or -1 or auto"]
    assert texts(typed("trainer", "lightning.Trainer", *taken), "devices")[1:] == ["int ≥ 1 or -1 or auto"]
    assert texts(typed("trainer", "my.Trainer", *taken), "devices") == ["int"]
    assert texts(typed("trainer", "pytorch_lightning.Trainer", *taken), "other") == ["int"]


def test_infinity_is_for_code_of_the_user_orders_and_computed_defaults() -> None:
    def is_infinite_valid(target: str, one: Parameter, path: str = "model") -> bool:
        return accepts(typed(path, target, one), one.name, math.inf)

    computed = Parameter("x", Kind.KEYWORD_ONLY, False, "float", NO_LITERAL)
    assert not is_infinite_valid("torch.nn.Net", parameter("x", "float"))
    assert not is_infinite_valid("torch.nn.Net", parameter("x", "float", 1.0))
    assert is_infinite_valid("torch.nn.Net", computed)
    assert is_infinite_valid("torch.nn.Net", parameter("norm_type", "float"))
    assert is_infinite_valid("my.Net", parameter("x", "float"))
    # Those of an optimizer have no annotation that is understood.
    assert not is_infinite_valid("torch.optim.SGD", parameter("x"), "optimizer")
    assert not is_infinite_valid("torch.optim.SGD", parameter("x", "Tensor", 1.0), "scheduler")
    assert is_infinite_valid("torch.optim.SGD", parameter("x"), "model")
    assert is_infinite_valid("my.SGD", parameter("x"), "optimizer")
    assert is_infinite_valid("torch.optim.SGD", parameter("p"), "optimizer")
    assert texts(typed("optimizer", "torch.optim.SGD", parameter("x")), "x") == ["a finite number"]
    assert texts(typed("optimizer", "torch.optim.SGD", parameter("x", "bool")), "x") == ["bool"]


@pytest.mark.parametrize(
    ("target", "what", "fix"),
    [
        ("torch.nn.Linea", "torch.nn.Linea", "m._target_=torch.nn.Linear"),
        ("torch.nn.Nope", "torch.nn.Nope", "m._target_=<package.module.Class>"),
        ("no_such_pack.A", "no_such_pack.A", "cd <the folder that holds no_such_pack>, or install no_such_pack"),
        (3, "3", "m._target_=<package.module.Class>"), ("", "", "m._target_=<package.module.Class>"),
    ],
)  # fmt: skip
def test_a_target_that_does_not_exist(target: object, what: str, fix: str) -> None:
    error = node("m", target).create_not_found_error(lambda path: f"at {path}")
    assert error.what == f"the _target_ of 'm' does not exist: {what}"
    assert (error.where, error.fix) == ("at m._target_", fix)


def test_objects_below_a_key() -> None:
    inner = {"_target_": "a.B"}
    outer = {"_target_": "a.A", "x": [inner]}
    tree = {
        "a": outer,
        "b": [1, inner, {"c": {"d": inner}}],
        "e": {"_partial_": True},
        "f": "_target_",
        "g": ["_target_"],
    }
    assert list(iterate_outermost_nodes(tree, "")) == [("a", outer), ("b[1]", inner), ("b[2].c.d", inner)]
    assert list(iterate_outermost_nodes(outer, "p")) == [("p.x[0]", inner)]
    assert list(iterate_outermost_nodes("_target_", "p")) == []
    found = [(item.path, item.target) for item in iterate_nodes(tree, "t", get_shipped_fields())]
    assert found == [("t.a", "a.A"), ("t.a.x[0]", "a.B"), ("t.b[1]", "a.B"), ("t.b[2].c.d", "a.B")]
    assert (join_path("a", "b"), join_path("", "b")) == ("a.b", "b")
