"""What a verb returns."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from mlscale.contracts import expect, stamp
from mlscale.files import plain
from mlscale.report.blocks import Table
from mlscale.report.figures import Figure, Step
from mlscale.report.text import figures_of, key_values, table
from mlscale.secrets.config_secrets import mask_overrides


@dataclass(frozen=True)
class Result:
    """The outcome of a verb.

    Attributes:
        verb: the verb that ran.
        ok: whether what was asked for holds; a gate that was not met is not ok.
        sentence: what a person would say.
        metrics: name with its unit (`val/accuracy`, `throughput_samples_per_s`, `peak_memory_bytes`) to value.
        artifacts: what was made, name to path.
        overrides: as typed; secrets in them are masked where the result is shown or kept.
        exit: the exit code of the command line; no part of the document.
        figures: plots and tables for its page; no part of the document.
        steps: of a story, for its page; no part of the document.
        details: more than the metrics say, by name: lists of classes or slices, with units in the names of their keys.
    """

    verb: str
    ok: bool
    sentence: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    exit: int = 0
    figures: Sequence[Figure] = ()
    steps: Sequence[Step] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The document of the result contract. NaN and infinities, which JSON lacks, are null."""
        return {
            "format": stamp("result"),
            "verb": self.verb,
            "ok": self.ok,
            "sentence": self.sentence,
            "metrics": {name: _finite(value) for name, value in self.metrics.items()},
            "artifacts": {name: str(path) for name, path in self.artifacts.items()},
            "overrides": mask_overrides(self.overrides),
            **({"details": plain(self.details)} if self.details else {}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], where: str = "result") -> Result:
        """A result as it was written; null becomes NaN.

        Raises:
            MLScaleError: it is another document, or of a later format.
        """
        expect("result", document, where)
        metrics = {name: math.nan if value is None else value for name, value in document["metrics"].items()}
        return cls(
            verb=document["verb"],
            ok=document["ok"],
            sentence=document["sentence"],
            metrics=metrics,
            artifacts=dict(document["artifacts"]),
            overrides=list(document["overrides"]),
            details=document.get("details", {}),
        )

    def text(self) -> str:
        """For people: the sentence, the metrics, what was made, and the tables that belong here."""
        blocks = [self.sentence]
        rows = figures_of(self.metrics)
        rows += [(name, str(path)) for name, path in self.artifacts.items()]
        if rows:
            blocks.append(key_values(rows))
        for each in self.figures:
            if isinstance(each, Table) and each.terminal and each.rows:
                blocks.append("\n".join(filter(None, (each.title, table(each.rows, each.columns), each.note))))
        return "\n\n".join(blocks)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows on a terminal: the command line's table."""
        printer.text(self.text())

    def _repr_html_(self) -> str:
        """What a notebook shows: the result's page, with its figures."""
        from mlscale.report.html import page
        from mlscale.report.notebook import fragment
        from mlscale.secrets.mask import Masker

        masker = Masker.of_process()
        shown = masker.mask_tree(self.as_dict())
        parts = {name: shown[name] for name in ("sentence", "ok", "metrics", "artifacts", "overrides")}
        figures = [figure.masked(masker.mask) for figure in self.figures]
        steps = [step.masked(masker.mask) for step in self.steps]
        return fragment(page(self.verb, **parts, figures=figures, steps=steps))


class ResultFolder(Protocol):
    """A folder that keeps results: that of a run."""

    @property
    def path(self) -> Path:
        """The folder itself."""

    def result(
        self, verb: str, result: Mapping[str, Any], figures: Sequence[Figure] = (), steps: Sequence[Step] = ()
    ) -> Path:
        """Write a result as JSON and as a page; returns the path of the first."""


def keep(result: Result, folder: ResultFolder) -> Result:
    """Keep a result in a run folder, as `results/<verb>.json` and as a page beside it; returns it with the page named.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    page = folder.path / "results" / f"{result.verb}.html"
    kept = replace(result, artifacts={**result.artifacts, "page": str(page)})
    folder.result(kept.verb, kept.as_dict(), kept.figures, kept.steps)
    return kept


def emit(result: Result, output: str = "table", stream: TextIO | None = None) -> None:
    """Print a result: `table` for people, `json` as one JSON document."""
    text = json.dumps(result.as_dict(), ensure_ascii=False, indent=2) if output == "json" else result.text()
    print(text, file=stream or sys.stdout)


def _finite(value: Any) -> float | int | None:
    value = value.item() if hasattr(value, "item") else value
    return value if math.isfinite(value) else None
