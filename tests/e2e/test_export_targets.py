"""`mlscale export target=…`: targets, also of a user's own class, are built, compared, and approved by their server."""

from pathlib import Path

import pytest

from mlscale import commands
from mlscale.cli import main
from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import Exit
from mlscale.export.servable import load
from mlscale.runs.folder import RunFolder
from mlscale.versions.from_servable import read_servable
from tests.contract.test_documents import validate

# A target as a package of its own would bring it: a copy of the model that scales its answers.
SCALED = """
import json, shutil, sys, tempfile
from contextlib import contextmanager
from pathlib import Path
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.targets import Target

class ScaledEngine:
    def __init__(self, model, factor):
        self.engine, self.factor = OnnxEngine(model), factor
        self.inputs, self.outputs = self.engine.inputs, self.engine.outputs
    def compute(self, tensors):
        return {name: values * self.factor for name, values in self.engine.compute(tensors).items()}

class Server:
    product = "Scaler 1.2"
    def __init__(self, servable, factor):
        self.servable, self.factor = servable, factor
    def compute_samples(self, raw):
        outputs = self.servable.compute_samples(self.servable.pack_samples(raw))
        return {name: (values * self.factor).astype(values.dtype) for name, values in outputs.items()}

class ScaledTarget(Target):
    name = "scaled"
    def __init__(self, factor=1.0, served_factor=1.0):
        self.factor, self.served_factor = factor, served_factor
    def build(self, servable, folder):
        shutil.copy(servable.folder / "model.onnx", folder / "scaled.onnx")
        (folder / "factor.json").write_text(json.dumps(self.factor))
    def open_engine(self, servable, folder):
        return ScaledEngine((folder / "scaled.onnx").read_bytes(), json.loads((folder / "factor.json").read_text()))
    def format_start_command(self, folder):
        return f"scaler {folder}"
    def check_server_installed(self):
        pass
    @contextmanager
    def start_server(self, servable, folder):
        yield Server(servable, self.served_factor)
"""
OPTION = """# @package target.scaled
# The model with scaled answers.
_target_: scaled.ScaledTarget
factor: 1.0        # float: of the model's file
served_factor: 1.0 # float: of the server
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """The folder of a run of a few seconds on digits."""
    place = tmp_path_factory.mktemp("targets")
    options = ["+recipe=resnet", "trainer.max_epochs=1", "model.widths=[8,16]", "snapshot=false", "logger=none"]
    result = commands.run_command("train", [*options, f"runs_dir={place}/runs", f"data.root={bundled}"])
    return Path(result.artifacts["run"])


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a target of its own."""
    (folder / "scaled.py").write_text(SCALED)
    (folder / "conf/target").mkdir(parents=True)
    (folder / "conf/target/scaled.yaml").write_text(OPTION)
    return folder


def test_a_target_of_ones_own_is_one_class_and_one_file(trained: Path, own: Path) -> None:
    to = own / "served"
    assert main(["export", str(trained), "target=[onnx,scaled]", "check=server", f"to={to}", "samples=200"]) == 0
    servable = load(to)
    validate("servable", servable.document)
    assert sorted(path.name for path in (to / "targets/scaled").iterdir()) == ["factor.json", "scaled.onnx"]
    assert not (to / "targets/onnx").exists()  # the servable is that
    # Of the same digests as all other files: a version of it is refused where one is changed.
    assert {"targets/scaled/factor.json", "targets/scaled/scaled.onnx"} <= set(read_servable(to)["files"])
    targets = servable.document["export_targets"]
    assert list(targets) == ["onnx", "scaled"]
    assert targets["scaled"]["approved_by"] == "Scaler 1.2"
    assert targets["onnx"]["approved_by"].startswith("mlscale ")
    for entry in targets.values():
        assert entry["samples"] == 200
        assert entry["agreement"] == 1.0
        assert 0 < entry["relative_error"] < 1e-4
        assert entry["approved_samples"] > 200  # validation samples, and the recorded requests
    result = RunFolder.open(trained).results["export"]
    assert result["metrics"]["target_scaled_cpu_ms"] > 0
    assert result["details"]["start"] == {"onnx": f"mlscale serve {to}", "scaled": f"scaler {to}/targets/scaled"}


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["target.scaled.factor=1.01"],
            "target=scaled: the outputs differ by 1.0e-02 of the largest, more than",
        ),
        pytest.param(["target.scaled.factor=-1"], "of the predictions agree, fewer than", marks=pytest.mark.slow),
        (["check=server", "target.scaled.served_factor=1.01"], "the server's outputs differ by"),
        pytest.param(["check=server", "slo.p99_ms=0.000001"], "ms, more than 1e-06", marks=pytest.mark.slow),
    ],
)
def test_a_target_that_is_not_proven_is_not_written(
    trained: Path, own: Path, overrides: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    to = own / "served"
    assert main(["export", str(trained), "target=scaled", f"to={to}", *overrides]) == Exit.GATE
    assert problem in capsys.readouterr().out
    assert not list(own.glob("*served*"))


@pytest.mark.slow
def test_a_server_that_differs_only_for_the_servers_own_answers_is_found_without_bounds_on_the_file(
    trained: Path, own: Path
) -> None:
    # Without check=server the server is not asked: what it would answer is not known.
    to = own / "served"
    assert main(["export", str(trained), "target=scaled", "target.scaled.served_factor=2", f"to={to}"]) == 0
    assert read_document(to)["export_targets"]["scaled"]["approved_by"] is None


def test_promotion_may_require_approval(trained: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("plain", ["target=scaled"]), ("approved", ["target=scaled", "check=server"])):
        assert main(["export", str(trained), *words, f"to={own / name}"]) == 0
        assert main(["versions", "add", str(own / name), "name=digits"]) == 0
    capsys.readouterr()
    assert main(["versions", "promote", "digits:v1", "approved=scaled"]) == Exit.GATE
    error = capsys.readouterr().err
    assert "digits:v1 is not approved by scaled" in error
    assert "target=[scaled] check=server" in error
    for typed, fix in (
        ("[scaled,tritn]", "approved=[scaled,triton]\n"),
        ("sagemaker", "approved=<onnx or scaled or tfserving or triton>\n"),
    ):
        assert main(["versions", "promote", "digits:v1", f"approved={typed}"]) == Exit.GATE
        assert capsys.readouterr().err.partition("  fix:   ")[2] == fix
    assert main(["versions", "promote", "digits:v2", "approved=[scaled,onnx]"]) == Exit.GATE
    assert "is not approved by onnx" in capsys.readouterr().err
    assert main(["versions", "promote", "digits:v2", "approved=scaled"]) == 0
    assert main(["versions", "show", "digits@champion"]) == 0
    assert "scaled by Scaler 1.2" in capsys.readouterr().out
    # It was built elsewhere, by a package that is not installed here.
    (own / "conf/target/scaled.yaml").unlink()
    assert main(["versions", "promote", "digits:v1", "approved=scaled"]) == Exit.GATE


@pytest.mark.slow
def test_a_target_without_a_server_of_its_own_says_so(
    trained: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SCALED[: SCALED.index("    def check_server_installed")]
    (own / "serverless.py").write_text(text)
    words = ["target=scaled", "target.scaled._target_=serverless.ScaledTarget", "check=server"]
    assert main(["export", str(trained), *words, f"to={own / 'served'}"]) == Exit.ENVIRONMENT
    assert "has no server that mlscale can start" in capsys.readouterr().err
    assert not (own / "served").exists()


@pytest.mark.slow
def test_without_a_target_the_server_of_mlscale_is_asked(trained: Path, own: Path) -> None:
    assert main(["export", str(trained), "check=server", f"to={own / 'served'}"]) == 0
    assert list(read_document(own / "served")["export_targets"]) == ["onnx"]
