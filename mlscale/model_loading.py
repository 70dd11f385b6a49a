"""`mlscale.load`: a trained model for predictions, from any reference to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlscale.api import compose
from mlscale.errors import MLScaleError
from mlscale.runs.recover import DERIVED, read_yaml_values
from mlscale.task_types.registry import get_task_kind, resolve_task_type
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlscale.export.servable import Prediction
    from mlscale.versions.trained_model import TrainedModel


class Predictor(Protocol):
    """A model that predicts."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes by number."""

    def predict(self, raw: NDArray[Any]) -> Prediction:
        """Return labels, probabilities and class numbers of n samples.

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
    """Return a model that predicts from numpy arrays: `load("resnet@champion").predict(images).labels`.

    A servable, or a version of one, is computed by onnxruntime, without torch and without the data; a run, or a
    checkpoint, a version of one among them, by torch, in this process, built from the run's configuration and its data,
    whose mean and deviation it needs.

    Args:
        what: a reference, as commands take it: a run (`last`, its id, its folder), a version (`resnet@champion`,
            `resnet:v7`; `resnet` is the champion), a checkpoint (`…/checkpoints/last.ckpt`), or a servable's folder.
        registry: the folder of versions.
        runs_dir: the folder of runs.
        checkpoint: of a run: best, last, or the name of another one.
        threads: that compute a batch of a servable.
        trust: trust a run's configuration, even if it names third-party code.

    Raises:
        MLScaleError: the name is not found or ambiguous, it is corrupt, or an extra is not installed (exit code
            5).
    """
    versions = LocalRegistry(registry)
    model = resolve_reference(what, runs_dir=runs_dir, registry=versions, checkpoint=checkpoint, quiet=True)
    if model.servable is None:
        return _load_checkpoint_model(model, trust=trust)
    from mlscale.export.servable import load as load_servable

    return load_servable(model.servable, threads=threads)


def _load_checkpoint_model(model: TrainedModel, *, trust: bool) -> Predictor:
    """Return a model with a checkpoint's weights, in this process."""
    from mlscale.assembly.evaluation_pass import choose_checkpoint
    from mlscale.assembly.rebuild import Home, rebuild_data_and_task, restore_training_config
    from mlscale.assembly.run_data import RunData
    from mlscale.launch.socket_paths import shorten_socket_paths

    # Loaders of the run's data may start worker processes, whose sockets fail in a long temporary path.
    shorten_socket_paths()
    assert model.home is not None
    # With `evaluate`'s config: it has the run's frozen config as its base, and the checks of trust.
    cfg = compose([f"ref={model.path}", *(["trust=true"] if trust else [])], command="evaluate")
    path, _ = choose_checkpoint(model, cfg)
    derived = read_yaml_values(model.home / DERIVED)
    run_data = RunData()
    restored = restore_training_config(cfg, Home(model.home, derived), run_data)
    data, task = rebuild_data_and_task(restored, path, "validate", run_data)
    # A user's task that states no kind may be a classification.
    if (kind := get_task_kind(task)) and not ((known := resolve_task_type(task)) and known.is_one_class):
        raise MLScaleError(
            f"mlscale.load answers with labels, and this run's task is {kind}",
            where=str(model.path),
            why="its outputs are not probabilities of one class each",
            fix=f'mlscale.run("predict", ["{model.path}", "input=…", "to=…"])',
        )
    from mlscale.export.torch_predictor import TorchModel

    return TorchModel.wrap_task(task, data)
