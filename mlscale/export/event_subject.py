"""What the events of a model are made by: the summary of its samples that matches its reference profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.atomic_files import read_json
from mlscale.data.encoders.summaries.create_summary import create_summary
from mlscale.data.encoders.summaries.input_summary import InputSummary
from mlscale.data.encoders.summaries.tensor_summary import ChannelSummary
from mlscale.data.encoders.summaries.word_table import WordTable
from mlscale.events.event_rows import EventSubject
from mlscale.export.servable import REFERENCE, Servable
from mlscale.reference.stored_reference import ABOUT, StoredReference

if TYPE_CHECKING:
    from mlscale.export.torch_predictor import TorchModel


def build_event_subject(model: Servable | TorchModel, version: str, source: str) -> EventSubject:
    """Return how the events of a model are summarised: as its reference profile is, so that they can be compared.

    Args:
        model: that predicts.
        version: its name in events.
        source: of the events, such as serve.
    """
    summary = _choose_summary(model) if isinstance(model, Servable) else create_summary(model.encoder)
    return EventSubject(version, summary, model.task_type, model.names, source)


def _choose_summary(servable: Servable) -> InputSummary:
    encoder = servable.encoder
    about = servable.folder / REFERENCE / ABOUT
    if servable.format == 1 or (about.is_file() and str(read_json(about).get("format", "")).endswith("/1")):
        # Of format 1 the profile has the moments of encoded channels, and the graph no part of the encoder.
        is_encoded = servable.format == 1
        return ChannelSummary(encoder, is_encoded, stored=None if is_encoded else create_summary(encoder))
    words = StoredReference.load_profile(about.parent).words if about.is_file() else ()
    return create_summary(encoder, WordTable(words) if words else None)
