"""The result of a command: its fields, and how it is printed and stored.

Write results into a folder that is not a run folder.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, TextIO

from mlscale.atomic_files import convert_to_json, make_folders, write_json, write_text
from mlscale.contracts import expect_format, get_format_tag
from mlscale.json_text import format_json
from mlscale.report.blocks import TableBlock
from mlscale.report.figures import Figure, ReportStep
from mlscale.report.html import extract_cell_html, render_page
from mlscale.report.terminal import wrap_text
from mlscale.report.text import format_key_values, format_metrics, format_table
from mlscale.secrets.config_secrets import mask_overrides
from mlscale.suggested_commands import add_typed_folder


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes:
        command: the command that ran.
        ok: True if it reached its goal; False for a gate that was not passed.
        sentence: the result in one sentence.
        metrics: name with its unit (`val/accuracy`, `throughput_samples_per_s`, `peak_memory_bytes`) to value.
        artifacts: the files that were made, name to path.
        overrides: as typed; secrets in them are masked where the result is shown or stored.
        exit: the exit code of the command line; not part of the document.
        figures: plots and tables for its page; not part of the document.
        steps: numbered steps for its page; not part of the document.
        details: more than the metrics, by name: texts, and lists of classes or slices, with units in the names of
            their keys.
    """

    command: str
    ok: bool
    sentence: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    exit: int = 0
    figures: Sequence[Figure] = ()
    steps: Sequence[ReportStep] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the document of the contract 'result'. NaN and infinities, which JSON lacks, are null."""
        return {
            "format": get_format_tag("result"),
            "verb": self.command,
            "ok": self.ok,
            "sentence": self.sentence,
            "metrics": {name: _replace_nonfinite(value) for name, value in self.metrics.items()},
            "artifacts": {name: str(path) for name, path in self.artifacts.items()},
            "overrides": mask_overrides(self.overrides),
            **({"details": convert_to_json(self.details)} if self.details else {}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], where: str = "result") -> Result:
        """Return the result in a document; null becomes NaN.

        Raises:
            MLScaleError: it is another document, or of a later format.
        """
        expect_format("result", document, where)
        metrics = {name: math.nan if value is None else value for name, value in document["metrics"].items()}
        return cls(
            command=document["verb"],
            ok=document["ok"],
            sentence=document["sentence"],
            metrics=metrics,
            artifacts=dict(document["artifacts"]),
            overrides=list(document["overrides"]),
            details=document.get("details", {}),
        )

    def format_text(self) -> str:
        """Return the text for a terminal: the sentence, the metrics, the artifacts, and tables for the terminal."""
        blocks = [wrap_text(add_typed_folder(self.sentence))]
        rows = [*format_metrics(self.metrics, self.command), *select_facts(self.details).items()]
        rows += [(name, str(path)) for name, path in self.artifacts.items()]
        if rows:
            blocks.append(format_key_values(rows))
        for figure in self.figures:
            if isinstance(figure, TableBlock) and figure.terminal and figure.rows:
                table = format_table(figure.rows, figure.columns)
                blocks.append("\n".join(filter(None, (figure.title, table, wrap_text(figure.note)))))
        return "\n\n".join(blocks)

    def _repr_pretty_(self, printer: PrettyPrinter, cycle: bool) -> None:
        """Print the text of the command line in IPython on a terminal."""
        printer.text(self.format_text())

    def _repr_html_(self) -> str:
        """Return the result's page, with its figures, for a notebook."""
        from mlscale.secrets.mask import Masker

        # A notebook is saved with its output, so secrets are masked as in any other file.
        masker = Masker.create_for_process()
        shown = masker.mask_tree(self.as_dict())
        parts = {name: shown[name] for name in ("sentence", "ok", "metrics", "artifacts", "overrides")}
        parts["facts"] = select_facts(shown.get("details", {}))
        figures = [figure.mask_texts(masker.mask_text) for figure in self.figures]
        steps = [step.mask_texts(masker.mask_text) for step in self.steps]
        return extract_cell_html(render_page(self.command, **parts, figures=figures, steps=steps))


def select_facts(details: Mapping[str, Any]) -> dict[str, str]:
    """Return the details that are texts, such as the version of the data: they are shown below the metrics."""
    return {name: value for name, value in details.items() if isinstance(value, str)}


class PrettyPrinter(Protocol):
    """IPython's printer of a cell's value."""

    def text(self, obj: str) -> None:
        """Add a text."""


class ResultFolder(Protocol):
    """A folder that stores results, such as a run folder."""

    @property
    def path(self) -> Path:
        """The folder itself."""

    def write_result(
        self, command: str, result: Mapping[str, Any], plots: Sequence[Figure] = (), steps: Sequence[ReportStep] = ()
    ) -> Path:
        """Write a result as JSON and as a page; return the path of the JSON file."""


def save_result(result: Result, folder: ResultFolder) -> Result:
    """Write a result to `results/<command>.json` of a run folder and a page next to it; return it with the page's path.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    page = folder.path / "results" / f"{result.command}.html"
    saved = replace(result, artifacts={**result.artifacts, "page": str(page)})
    folder.write_result(saved.command, saved.as_dict(), saved.figures, saved.steps)
    return saved


def print_result(result: Result, output: str = "table", stream: TextIO | None = None) -> None:
    """Print a result: `table` for people, `json` as one JSON document."""
    stream = stream or sys.stdout
    print(format_json(result.as_dict(), stream, indent=2) if output == "json" else result.format_text(), file=stream)


def _replace_nonfinite(value: SupportsFloat) -> float | int | None:
    # Scalars of numpy and torch, which JSON does not accept.
    number: Any = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else None


def save_result_in(result: Result, folder: Path, title: str) -> Result:
    """Write a result into `folder`, as `<command>.json` and a page next to it; return it with the page's path.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    make_folders(folder)
    page_path = folder / f"{result.command}.html"
    saved = replace(result, artifacts={**result.artifacts, "page": str(page_path)})
    shown = saved.as_dict()
    write_json(folder / f"{result.command}.json", shown)
    about = (saved.sentence, saved.ok, shown["metrics"], shown["artifacts"])
    facts = select_facts(saved.details)
    write_text(page_path, render_page(title, *about, saved.figures, saved.steps, shown["overrides"], facts=facts))
    return saved
