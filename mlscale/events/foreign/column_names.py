"""Names of a log's columns: what servers and spreadsheets call the parts of an event, in English and German."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# Names without case and punctuation, the likeliest first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "time": (
        "timestamp", "time", "ts", "datetime", "eventtime", "inferencetime", "requesttime", "predictiontime",
        "createdat", "loggedat", "zeitpunkt", "zeitstempel", "zeit", "date", "datum",
    ),
    "id": (
        "id", "eventid", "requestid", "inferenceid", "predictionid", "transactionid", "uuid", "uid", "ceid", "rowid",
        "vorgangsnr", "vorgangsnummer", "vorgangsid", "anfragenr", "anfrageid",
    ),
    "version": ("modelversion", "modellversion", "version", "modelid"),
    "prediction": (
        "prediction", "predicted", "predictedlabel", "predictedclass", "predictionlabel", "pred", "ypred", "yhat",
        "vorhersage", "prognose", "output", "response", "predictions", "result", "ergebnis",
    ),
    "confidence": (
        "confidence", "score", "probability", "proba", "prob", "predictionscore", "sicherheit", "konfidenz",
        "wahrscheinlichkeit",
    ),
    "probabilities": ("probabilities", "probas", "scores", "classprobabilities", "wahrscheinlichkeiten"),
    "label": (
        "label", "actual", "actuallabel", "groundtruth", "truth", "ytrue", "target", "y", "istzustand", "istwert",
        "tatsaechlich", "wahrheit", "truelabel", "trueclass",
    ),
    "latency": (
        "latencyms", "latency", "latencys", "durationms", "duration", "elapsedms", "elapsed", "tookms", "took",
        "responsetimems", "ms", "dauer", "latenz", "antwortzeit",
    ),
    "outcome": ("outcome", "status", "statuscode", "httpstatus"),
}  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
# A unit or a remark at the end of a name: `Dauer [ms]`, `Sicherheit in %`, `Ampel (Vorhersage)`.
_REMARK = re.compile(r"^(?P<name>.*\S)\s*(?:[(\[](?P<remark>[^()\[\]]*)[)\]]|\sin\s(?P<unit>\S+))$")


def simplify_name(path: str) -> str:
    """Return the last name of a path, without case and punctuation: `instances.0.Age` is `age`."""
    # A dot at the end of a word abbreviates it, and begins no part of a path: `Außentemp. [°C]`, `Vorgangs-Nr.`.
    names = [part for part in re.split(r"\.(?=[^\s.])", path) if not part.lstrip("-").isdigit()]
    return re.sub(r"[\W_]", "", names[-1].lower().translate(_UMLAUTS)) if names else ""


def list_simple_names(path: str) -> Iterator[str]:
    """Yield the names by which a column may be known: as it is written, without a unit or remark, and the remark."""
    yield simplify_name(path)
    if match := _REMARK.match(path):
        yield simplify_name(match["name"])
        yield simplify_name(match["remark"] or "")


def find_unit(path: str) -> str:
    """Return the unit at the end of a column's name; '' without one."""
    match = _REMARK.match(path)
    return (match["remark"] or match["unit"] or "").strip() if match else ""
