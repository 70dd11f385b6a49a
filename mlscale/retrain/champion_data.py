"""The data that a champion was trained on, which its challenger must not forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlscale.data.data_module import OrderedData
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from mlscale.export.servable import Servable

_LISTED = 8


def require_champion_data(data: LightningDataModule | None, servable: Servable, run: str) -> OrderedData:
    """Return the data module of the champion, if windows can be mixed with it.

    Args:
        data: of the config of the champion's run, prepared.
        servable: the champion, as it is served.
        run: the folder of the run, for messages.

    Raises:
        MLScaleError: it can't be mixed, or is no longer what the champion was trained on.
    """
    if not isinstance(data, OrderedData) or not data.takes_windows:
        raise MLScaleError(
            f"the champion's data, {type(data).__name__ if data is not None else 'loaders of its task'}, can't be read "
            "back and mixed with a window",
            where=f"{run}: data",
            why="a challenger is trained on the window and, so that nothing is forgotten, on these, mixed by share",
            fix="data._target_=mlscale.data.DatasetData, which takes its Dataset, or the data as files: data=table, "
            "data=text_table, data=text_files, data=imagefolder or data=webdataset (docs/data.md); train a model on "
            "them, and promote it",
        )
    labels = tuple(map(str, data.facts().class_names or range(data.facts().num_classes or 0)))
    if labels != servable.labels:
        raise _build_changed_error(run, f"its classes are {_list_names(labels)}, and {_list_names(servable.labels)}")
    targets = tuple(target.name for target in data.describe_targets())
    known = tuple(target.name for target in servable.names.targets)
    if targets != known:
        raise _build_changed_error(run, f"its targets are {_list_names(targets)}, and {_list_names(known)}")
    # Format 1 has no encoder of its own in the document.
    if servable.format > 1 and data.encoder().digest != servable.encoder.digest:
        raise _build_changed_error(run, "its encoder, fitted again, differs from the one that is served")
    return data


def _build_changed_error(run: str, why: str) -> MLScaleError:
    return MLScaleError(
        "the champion's data are not what it was trained on",
        where=f"{run}: data",
        why=f"{why}: rows or columns were added, removed or changed since then",
        fix=f"mlscale like={run}, which trains a model on them, to export and promote; or restore the files, and put "
        "what is new into files of their own",
    )


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "") or "none"
