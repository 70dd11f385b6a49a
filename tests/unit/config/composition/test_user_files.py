"""Config files of users: whatever is in them is read as it looks, or answered with what to do; nothing hangs."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import OwnFolder, compose_config
from mlscale.errors import MLScaleError, Problems

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 15))
MERGE_BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 15)
)

WRONG = {
    "an octal number": (b"seed: 010", "010 is not a decimal number", "write '010' in quotes for a text"),
    "a leading zero": (b"seed: 089", "089 is not a decimal number", "write '089' in quotes for a text"),
    "base 60": (b"trainer: {max_time: 12:30:00}", "12:30:00 is not a decimal number", "write '12:30:00' in quotes"),
    "latin-1": ("# é\nname: café".encode("latin-1"), "a config file is not UTF-8", "save it as UTF-8"),
    "utf-16": ("name: cafe".encode("utf-16"), "a config file is not UTF-8", "save it as UTF-8"),
    "a recipe without a package": (
        b"name: x",
        "a recipe does not begin with `# @package _global_`",
        "as its first line",
    ),
    "a recipe of another package": (
        b"# @package recipe\nname: x",
        "a recipe does not begin with `# @package _global_`",
        "as its first line",
    ),
    "a number as key": (b"1: x", "the key 1 is not a name", "write '1': in quotes"),
    "a switch as key": (b"on: x", "the key on is not a name", "write 'on': in quotes"),
    "nothing as key": (b"null: x", "the key null is not a name", "write 'null': in quotes"),
    "a list as key": (b"? [a]\n: b", "a key is a list or a dictionary", "write `name: value` instead"),
    "defaults that are no list": (b"defaults: sgd", "'defaults' is not a list", "- override /optimizer: sgd"),
    "a number in defaults": (b"defaults: [3]", "an entry of 'defaults' names no option", "- override /group: option"),
    "two groups in one entry": (b"defaults: [{a: b, c: d}]", "an entry of 'defaults' names no option", "- override"),
    "a list inside itself": (b"tags: &a [x, *a]", "*a is inside itself", "take *a out"),
    "a dictionary inside itself": (b"trainer: &a {x: *a}", "*a is inside itself", "take *a out"),
    "an alias bomb": (BOMB.encode(), "a config file is too large", "use fewer aliases"),
    "a bomb of dictionaries": (MERGE_BOMB.encode(), "a config file is too large", "use fewer aliases"),
    "deep lists": (b"tags: " + b"[" * 60 + b"]" * 60, "a config file is nested too deeply", "take levels out"),
    "very deep lists": (
        b"tags: " + b"[" * 90_000 + b"]" * 90_000,
        "a config file is not valid YAML",
        "correct the line",
    ),
    "a huge file": (b"tags: [" + b"x," * 600_000 + b"]", "a config file is too large", "keep data in a file"),
    "a list": (b"- a\n- b", "a config file holds no keys", "write `key: value` lines"),
    "two documents": (b"a: 1\n---\nb: 2", "a config file holds several documents", "take the line `---` out"),
    "a key twice": (b"seed: 1\nseed: 2", "a config file is not valid YAML", "correct the line"),
    "a tag": (b"name: !!python/object:os.system x", "a config file is not valid YAML", "correct the line"),
    "an interpolation without end": (b"name: ${x", "a config file can't be read", "correct the line"),
    "a number of 5,000 digits": (b"seed: " + b"1" * 5000, "a config file can't be read", "correct the line"),
}


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "conf" / "recipe"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_printed_with_the_file_and_the_fix(name: str, recipes: Path) -> None:
    content, what, fix = WRONG[name]
    (recipes / "mine.yaml").write_bytes(content)
    with pytest.raises(MLScaleError) as caught:
        OwnFolder("own", str(recipes.parent)).load_config("recipe/mine")
    assert caught.value.what == what
    assert caught.value.where.startswith("conf/recipe/mine.yaml")
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("override model: mlp", "an entry of 'defaults' names the group 'model' without a slash"),
        ("model: mlp", "an entry of 'defaults' names the group 'model' without a slash"),
    ],
)
def test_a_recipe_is_reported_how_to_select_an_option(entry: str, what: str, recipes: Path) -> None:
    (recipes / "mine.yaml").write_text(f"# @package _global_\ndefaults:\n  - {entry}\n")
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", ["recipe=mine"]))
    assert caught.value.what == what
    assert caught.value.fix == "write `- override /model: mlp`"


def test_such_a_file_keeps_the_config_from_composing(recipes: Path) -> None:
    (recipes / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_epochs: 010\n")
    with pytest.raises(MLScaleError, match="010 is not a decimal number"):
        compose_config(parse_command_line("train", ["recipe=mine"]))


def test_what_yaml_reads_as_it_looks_is_taken(recipes: Path) -> None:
    text = (
        "# @package _global_\nseed: 1_000\nname: 'on'\nnotes: '010'\ntags: ['12:30:00', a0, 1e-3x]\n"
        "optimizer: {lr: 1e-3, weight_decay: .5, momentum: 0}\ntrainer: {max_time: 00:00:30:00}\n"
    )
    (recipes / "mine.yaml").write_text(text)
    cfg = compose_config(parse_command_line("train", ["recipe=mine"]))
    assert (cfg.seed, cfg.name, cfg.notes, list(cfg.tags)) == (1000, "on", "010", ["12:30:00", "a0", "1e-3x"])
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.trainer.max_time) == (0.001, 0.5, "00:00:30:00")


def test_aliases_are_fine_as_long_as_they_are_few(recipes: Path) -> None:
    (recipes / "mine.yaml").write_text("# @package _global_\ntags: &t [a, b]\nderived:\n  overrides: *t\n")
    assert list(compose_config(parse_command_line("train", ["recipe=mine"])).tags) == ["a", "b"]


PLAIN = (
    "010 1e-3 .5 12:30:00 1_000 off ~ foo 'x' ${x} ${ *a &a [ { ] } {a:1} [1,2] ? | > % @ ` ! !!x - : # --- << = ??? é"
)
ATOMS = [*PLAIN.split(" "), "&b [*b]", "{[1]: 2}", "\t", "\x00", "- x", "a: b: c", "<<: 1", '"\\x', "? x", "1" * 5000]
KEYS = ["trainer", "defaults", "seed", "name", "1", "null", "foo", "_target_", "x.y", "? [a]", "", "é", "hydra"]


def broken(random_: random.Random) -> bytes:
    """A file of pieces that people type, and of some that nobody does."""
    lines = []
    for _ in range(random_.randrange(1, 6)):
        value = random_.choice(ATOMS)
        if random_.random() < 0.3:
            value = f"[{value}, {random_.choice(ATOMS)}]"
        lines.append(f"{'  ' * random_.randrange(3)}{random_.choice(KEYS)}: {value}")
    data = bytearray("\n".join(lines).encode())
    for _ in range(random_.choice((0, 0, 0, 3))):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


def test_no_file_gives_anything_but_a_config_or_an_error_of_ours(recipes: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    random_ = random.Random(seed)
    folder = OwnFolder("own", str(recipes.parent))
    read = 0
    for turn in range(800):
        content = b"# @package _global_\n" + broken(random_)
        (recipes / "mine.yaml").write_bytes(content)
        try:
            folder.load_config("recipe/mine")
            read += 1
        except MLScaleError as error:
            problems = error.problems if isinstance(error, Problems) else (error,)
            if not all(item.where.startswith("conf/recipe/mine.yaml") and item.fix for item in problems):
                pytest.fail(f"seed {seed}, file {turn}: {error} of {content!r}")
        except Exception as error:
            pytest.fail(f"seed {seed}, file {turn}: {error!r} of {content!r}")
    assert read > 10
