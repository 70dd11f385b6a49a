"""What the events of a model are made by: the summary of its samples that matches its reference profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.atomic_files import read_json
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.summaries.input_summary import ChannelSummary, InputSummary
from mlscale.data.encoders.summaries.text_summary import WordTable, create_summary
from mlscale.errors import MLScaleError
from mlscale.events.event_rows import EventSubject
from mlscale.export.format1 import build_format1_encoder
from mlscale.export.servable import DOCUMENT, REFERENCE, Servable, parse_task_type, read_document
from mlscale.reference.stored_reference import ABOUT, StoredReference
from mlscale.task_types.event_forms import AnswerNames

if TYPE_CHECKING:
    from mlscale.export.torch_predictor import TorchModel


def build_event_subject(model: Servable | TorchModel, version: str, source: str) -> EventSubject:
    """Return how the events of a model are summarised: as its reference profile is, so that they can be compared.

    Args:
        model: that predicts.
        version: its name in events.
        source: of the events, such as serve.
    """
    if isinstance(model, Servable):
        summary = _choose_summary(model.folder, model.encoder, is_format1=model.format == 1)
    else:
        summary = create_summary(model.encoder)
    return EventSubject(version, summary, model.task_type, model.names, source)


def read_event_subject(folder: Path, version: str, source: str) -> tuple[EventSubject, Encoder]:
    """Return how the events of a servable are summarised, and the encoder of its samples; the model is not loaded.

    Args:
        folder: of the servable.
        version: its name in events.
        source: of the events.

    Raises:
        MLScaleError: it is not a servable, or is corrupt.
    """
    document, where = read_document(folder), str(folder / DOCUMENT)
    try:
        names, task_type = AnswerNames.parse_document(document), parse_task_type(document)
        is_format1 = "encoder" not in document
        if is_format1:
            first = document["inputs"][0]
            encoder = build_format1_encoder(tuple(first["shape"][1:]), first["dtype"], document["preprocessing"])
        else:
            encoder = parse_encoder(document["encoder"], where=f"{where}: encoder")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        fix = "mlscale export <its run>, which makes the servable again"
        raise MLScaleError(f"{DOCUMENT} is corrupt", where=where, why=repr(error), fix=fix) from error
    summary = _choose_summary(folder, encoder, is_format1=is_format1)
    return EventSubject(version, summary, task_type, names, source), encoder


def _choose_summary(folder: Path, encoder: Encoder, *, is_format1: bool) -> InputSummary:
    about = folder / REFERENCE / ABOUT
    if is_format1 or (about.is_file() and str(read_json(about).get("format", "")).endswith("/1")):
        # Of format 1 the profile has the moments of encoded channels, and the graph no part of the encoder.
        return ChannelSummary(encoder, is_format1, stored=None if is_format1 else create_summary(encoder))
    words = StoredReference.load_profile(about.parent).words if about.is_file() else ()
    return create_summary(encoder, WordTable(words) if words else None)
