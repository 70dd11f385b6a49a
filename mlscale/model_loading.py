"""`mlscale.load`: a trained model for predictions, from any reference to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.api import compose
from mlscale.predict.input_items import read_trained_column
from mlscale.predict.loaded_model import LoadedModel
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from mlscale.predict.batch_models import BatchModel
    from mlscale.versions.trained_model import TrainedModel


def load(
    what: str | Path,
    *,
    registry: str | Path = "registry",
    runs_dir: str | Path = "runs",
    checkpoint: str = "best",
    threads: int = 1,
    provider: str = "cpu",
    trust: bool = False,
) -> LoadedModel:
    """Return a model that predicts samples of any form: `load("resnet@champion").predict("cat.jpg").labels`.

    A servable, or a version of one, is computed by onnxruntime, without torch; a run, or a checkpoint, a version of one
    among them, by torch, in this process, built from the run's configuration and the encoder that it has stored. A
    run's data is read only where it has none: where its data module is a user's own.

    Args:
        what: a reference, as commands take it: a run (`last`, its id, its folder), a version (`resnet@champion`,
            `resnet:v7`; `resnet` is the champion), a checkpoint (`…/checkpoints/last.ckpt`), or a servable's folder.
        registry: the folder of versions.
        runs_dir: the folder of runs.
        checkpoint: of a run: best, last, or the name of another one.
        threads: that compute a batch of a servable.
        provider: what computes a servable: cpu, cuda or tensorrt.
        trust: trust a run's configuration, even if it names third-party code.

    Raises:
        MLScaleError: the name is not found or ambiguous, it is corrupt, or an extra is not installed (exit code
            5).
    """
    versions = LocalRegistry(registry)
    model = resolve_reference(what, runs_dir=runs_dir, registry=versions, checkpoint=checkpoint, quiet=True)
    trained_on = read_trained_column(model.home)
    if model.servable is None:
        return LoadedModel(_load_checkpoint_model(model, trust=trust), trained_on)
    from mlscale.export.engines.runtime import Runtime
    from mlscale.export.servable_trial import load_with_runtime

    return LoadedModel(load_with_runtime(model.servable, Runtime(provider, threads)), trained_on)


def _load_checkpoint_model(model: TrainedModel, *, trust: bool) -> BatchModel:
    """Return a model with a checkpoint's weights, in this process."""
    from mlscale.assembly.trained_model.evaluation_pass import choose_checkpoint
    from mlscale.assembly.trained_model.prediction_model import build_prediction_model, restore_prediction_config
    from mlscale.launch.socket_paths import shorten_socket_paths

    # Loaders of the run's data may start worker processes, whose sockets fail in a long temporary path.
    shorten_socket_paths()
    assert model.home is not None
    # With `evaluate`'s config: it has the run's frozen config as its base, and the checks of trust.
    cfg = compose([f"ref={model.path}", *(["trust=true"] if trust else [])], command="evaluate")
    path, _ = choose_checkpoint(model, cfg)
    restored = restore_prediction_config(cfg, model.home)
    return build_prediction_model(restored.cfg, path, restored.encoder, where=str(model.home))
