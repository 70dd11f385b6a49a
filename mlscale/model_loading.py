"""`mlscale.load`: a trained model that answers, from whatever names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlscale.api import compose
from mlscale.contracts.servable_yaml import DOCUMENT
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files import SUFFIX
from mlscale.runs.find import find
from mlscale.runs.recover import DERIVED, yaml_values
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.model_reference import Subject, find_subject
from mlscale.versions.servable_path import locate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlscale.export.servable import Prediction


class Predictor(Protocol):
    """A model that answers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes by number."""

    def predict(self, raw: NDArray[Any]) -> Prediction:
        """Labels, probabilities and class numbers of n samples.

        Args:
            raw: samples as they are decoded, (n, channels, height, width) uint8 for images, without any normalisation;
                what an own data module gives to the model, for one of those.

        Raises:
            MLScaleError: another shape, or values that the input's dtype can't hold.
        """


def load(
    what: str | Path,
    *,
    registry: str | Path = "registry",
    runs_dir: str | Path = "runs",
    checkpoint: str = "best",
    threads: int = 1,
    trust: bool = False,
) -> Predictor:
    """A model that answers, by numpy: `load("resnet@champion").predict(images).labels`.

    A servable, or a version of one, is computed by onnxruntime, without torch and without the data; a run, or a
    checkpoint, a version of one among them, by torch, in this process, built from the run's configuration and its data,
    whose mean and deviation it needs.

    Args:
        what: a version (`resnet@champion`, `resnet:v7`; `resnet` is the champion), the folder of a servable, a run
            (`last`, its id, its folder), or a run's checkpoint (`…/checkpoints/last.ckpt`).
        registry: the folder of versions.
        runs_dir: the folder of runs.
        checkpoint: of a run: best, last, or the name of another one.
        threads: that compute a batch of a servable.
        trust: believe a run's configuration, also where it names foreign code.

    Raises:
        MLScaleError: there is no such thing, it is damaged, or an extra is not installed (exit code 5).
    """
    text = str(what)
    path = Path(text).expanduser()
    if text.endswith(SUFFIX):
        return _of_run(_run_of(path), str(path.absolute()), trust=trust)
    if path.is_dir() and not (path / DOCUMENT).is_file():
        return _of_run(path, checkpoint, trust=trust)
    versions = LocalRegistry(registry)
    if not _is_folder(text, path) and not _is_version(text, versions):
        return _of_run(find(text, runs_dir).path, checkpoint, trust=trust)
    if not _is_folder(text, path) and (version := versions.resolve(text)).kind != "servable":
        subject = find_subject(version=version.ref, runs_dir=runs_dir, registry=versions)
        return _trained(subject, [f"version={version.ref}", f"registry.root={registry}"], trust=trust)
    from mlscale.export.servable import load as load_servable

    return load_servable(locate(text, versions).folder, threads=threads)


def _is_folder(text: str, path: Path) -> bool:
    """Whether `text` is the folder of a servable, or means to be."""
    return (path / DOCUMENT).is_file() or "/" in text


def _is_version(text: str, versions: LocalRegistry) -> bool:
    """Whether `text` names a version; a bare name may be a run's, too."""
    return any(mark in text for mark in ":@") or text in versions.names()


def _of_run(run: Path, checkpoint: str, *, trust: bool) -> Predictor:
    """One of a run's checkpoints."""
    folder = find(run).path
    return _trained(find_subject(run=str(folder), checkpoint=checkpoint), [f"run={folder}"], trust=trust)


def _run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint lies in.

    Raises:
        MLScaleError: it lies nowhere, or in no run.
    """
    folder = checkpoint.absolute().parent.parent
    if checkpoint.is_file() and (folder / "run.json").is_file():
        return folder
    raise MLScaleError(
        f"there is no checkpoint {checkpoint}" if not checkpoint.is_file() else "the checkpoint lies in no run",
        where=str(checkpoint),
        why="a model is built from the configuration of its run, which lies in the folder above its checkpoints",
        fix='mlscale.load("last"), mlscale.load("runs/<date>/<run>/checkpoints/best.ckpt")',
    )


def _trained(subject: Subject, words: Sequence[str], *, trust: bool) -> Predictor:
    """A model with a checkpoint's weights, in this process; `words` name it on a command line."""
    from mlscale.assembly.evaluation_pass import checkpoint_of
    from mlscale.assembly.rebuild import Home, as_it_was_trained, rebuilt
    from mlscale.launch.socket_paths import shorten_socket_paths

    shorten_socket_paths()
    assert subject.home is not None
    cfg = compose([*words, *(["trust=true"] if trust else [])], verb="evaluate")
    path, _ = checkpoint_of(subject, cfg)
    derived = yaml_values(subject.home / DERIVED)
    data, task = rebuilt(as_it_was_trained(cfg, Home(subject.home, derived)), path, "validate")
    if (kind := getattr(task, "kind", "classification")) != "classification":
        raise MLScaleError(
            f"mlscale.load answers with labels, and this run's task is {kind}",
            where=words[0],
            why="its outputs are no probabilities of one class each",
            fix=f'mlscale.run("predict", ["{words[0]}", "input=…", "to=…"])',
        )
    from mlscale.export.torch_predictor import TorchModel

    return TorchModel.of(task, data)
