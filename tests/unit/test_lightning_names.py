"""`lightning.pytorch` and `pytorch_lightning` are one package in a process of mlscale, whatever is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlscale.config.checks.trust import find_distrusted
from mlscale.config.signatures.signatures import Signature, Unknown, read_signature
from mlscale.lightning_names import resolve_canonical_name

REAL = """
raise RuntimeError("the other copy of Lightning was imported")
"""


def python(code: str, *folders: Path) -> str:
    """What `code` prints in a process of its own, in which `folders` are on the path."""
    program = f"import sys; sys.path[:0] = {list(map(str, folders))!r}\n{code}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that holds the package `lightning` as pip leaves it: a copy of its own, which must not be imported."""
    for part in ("lightning", "lightning/pytorch", "lightning/fabric"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text(REAL)
    return tmp_path


SAME = """
import mlscale
import lightning as L
import lightning.pytorch as pl
import lightning.fabric.utilities.seed as seed
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import OptimizerLRScheduler
import lightning_fabric.utilities.seed, pytorch_lightning, pytorch_lightning.callbacks
import pickle

assert pl is L.pytorch is pytorch_lightning
assert seed is lightning_fabric.utilities.seed
assert L.LightningModule is pytorch_lightning.LightningModule
assert (L.Trainer, L.Fabric) == (pytorch_lightning.Trainer, lightning_fabric.Fabric)
assert EarlyStopping is pytorch_lightning.callbacks.EarlyStopping
assert pickle.loads(pickle.dumps(EarlyStopping)) is EarlyStopping
assert pytorch_lightning.callbacks.__spec__.name == "pytorch_lightning.callbacks"
try:
    import lightning.pytorch.missing
except ModuleNotFoundError as error:
    print(error)
"""


def test_both_names_are_one_package() -> None:
    assert python(SAME) == "No module named 'lightning.pytorch.missing'\n"


@pytest.mark.slow
def test_also_where_lightning_is_installed(installed: Path) -> None:
    assert python(SAME, installed) == "No module named 'lightning.pytorch.missing'\n"


def test_a_module_of_the_user_called_lightning_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "lightning.py").write_text("flash = 7")
    assert python("import mlscale, lightning; print(lightning.flash)", tmp_path) == "7\n"


def test_importing_mlscale_imports_nothing_of_lightning() -> None:
    code = "import mlscale, sys; print([name for name in sys.modules if 'lightning' in name])"
    assert python(code) == "['mlscale.lightning_names']\n"


def test_lightning_before_mlscale_is_refused(installed: Path) -> None:
    for part in ("lightning", "lightning/pytorch", "lightning/fabric"):
        (installed / part / "__init__.py").write_text("")
    code = """
import lightning.pytorch, mlscale
for verb in ("train", "estimate"):
    try:
        mlscale.compose([], command=verb)
    except mlscale.MLScaleError as error:
        print(error)
print(mlscale.compose(["ref=http://h:1"], command="loadtest").get("task"))  # builds no module
"""
    printed = python(code, installed)
    assert printed.count("lightning was imported before mlscale\n") == 2
    assert printed.count("fix:   write `import mlscale` above `import lightning`") == 2
    assert printed.endswith("None\n")


@pytest.mark.parametrize(
    ("typed", "real"),
    [
        ("lightning.pytorch.callbacks.EarlyStopping", "pytorch_lightning.callbacks.EarlyStopping"),
        ("lightning.pytorch.loggers.CSVLogger", "pytorch_lightning.loggers.CSVLogger"),
        ("lightning.pytorch.strategies.DDPStrategy", "pytorch_lightning.strategies.DDPStrategy"),
        ("lightning.pytorch.demos.boring_classes.BoringModel", "pytorch_lightning.demos.boring_classes.BoringModel"),
        ("lightning.Trainer", "pytorch_lightning.Trainer"),
        ("lightning.fabric.strategies.DDPStrategy", "lightning_fabric.strategies.DDPStrategy"),
    ],
)
def test_signatures_are_read_under_both_names(typed: str, real: str) -> None:
    found, expected = read_signature(typed), read_signature(real)
    assert isinstance(found, Signature)
    assert isinstance(expected, Signature)
    assert found.parameters == expected.parameters


def test_a_base_is_followed_under_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback without an `__init__` takes what its base takes."""
    (tmp_path / "their_callbacks.py").write_text(
        "import lightning as L\nimport lightning.pytorch as pl\n"
        "from lightning.pytorch.callbacks import ModelCheckpoint\n"
        "class A(L.pytorch.callbacks.ModelCheckpoint): ...\n"
        "class B(pl.callbacks.ModelCheckpoint): ...\n"
        "class C(ModelCheckpoint): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = read_signature("pytorch_lightning.callbacks.ModelCheckpoint")
    assert isinstance(expected, Signature)
    for name in "ABC":
        found = read_signature(f"their_callbacks.{name}")
        assert isinstance(found, Signature)
        assert found.parameters == expected.parameters


def test_a_typo_is_corrected_in_the_name_that_was_typed() -> None:
    found = read_signature("lightning.pytorch.callbacks.EarlyStoping")
    assert isinstance(found, Unknown)
    assert found.better == "lightning.pytorch.callbacks.EarlyStopping"


def test_a_config_out_of_a_run_may_use_either_name(tmp_path: Path) -> None:
    def untrusted(target: str) -> bool:
        return bool(find_distrusted({"callbacks": {"mine": {"_target_": target}}}, tmp_path))

    for package in ("pytorch_lightning", "lightning.pytorch"):
        assert not untrusted(f"{package}.callbacks.EarlyStopping")
        assert not untrusted(f"{package}.Trainer")
        assert untrusted(f"{package}.callbacks.model_checkpoint.os.system")
        assert untrusted(f"{package}.cli.LightningCLI")
    assert not untrusted("lightning.Trainer")
    assert untrusted("lightning.pytorch")


def test_names_that_only_begin_alike_are_left_alone() -> None:
    for name in ("lightning_utilities", "lightning.pytorchvideo", "lightning", "my.lightning.pytorch"):
        assert resolve_canonical_name(name) == name
