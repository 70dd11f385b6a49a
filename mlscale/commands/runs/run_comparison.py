"""`mlscale runs diff`: what differs between two runs, on the terminal and as a page."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlscale.atomic_files import write_setting_file
from mlscale.commands.options import Options
from mlscale.commands.shown_facts import format_section
from mlscale.contracts.output_document import Answer
from mlscale.errors import MLScaleError
from mlscale.report import Figure, Heading, TableBlock, format_key_values, format_number, format_table
from mlscale.report.curves import LOGGED, build_compared_plots, read_metric_points
from mlscale.report.html import render_page
from mlscale.report.terminal import get_terminal_width
from mlscale.report.text import format_count, format_metric, format_metric_name
from mlscale.runs.edited import report_edits
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.recover import CONFIG, read_yaml_values, warn_once


def show_difference(options: Options) -> Answer:
    """Return the differences of two runs, and write the page."""
    first, second = find_run(options.first, options.runs_dir), find_run(options.second, options.runs_dir)
    for run in (first, second):
        report_edits(run)
    difference = compare_runs(first, second)
    named = Path(options.page).expanduser().absolute() if options.page else None
    page = save_diff_page(first, second, difference, named)
    paths = {"first": str(first.path), "second": str(second.path), "page": page and str(page)}
    names = (first.path.name, second.path.name)
    tables = _build_difference_tables(names, difference)
    blocks = [
        format_key_values([("first", first.path), ("second", second.path)]),
        "" if tables else f"\n{_NO_DIFFERENCE}",
    ]
    if difference.metrics:
        tables.append(_build_metric_table(names, difference.metrics))
    # A section is indented by two.
    width = get_terminal_width() - 2
    blocks += [format_section(table.title, format_table(table.rows, table.columns, width)) for table in tables]
    blocks.append(f"\npage  {page or f'not written, as {second.path} can not be written to: page=diff.html'}")
    return Answer("runs-diff", {**paths, **difference.as_dict()}, blocks)


_NO_DIFFERENCE = "they were started the same way"
_MAX_ROWS = 100  # of a table of the page
_MAX_CELL = 300  # characters


def render_diff_page(first: RunFolder, second: RunFolder, difference: RunComparison) -> str:
    """Return the page of a comparison, as HTML; secrets are masked in what is of either run."""
    names = (first.path.name, second.path.name)
    logged = [read_metric_points(run.path / LOGGED) for run in (first, second)]
    metric = next((str(name) for run in (first, second) if (name := run.run.get("metric"))), "train/loss")
    plots = build_compared_plots(dict(zip(names, logged, strict=True)), metric)
    metrics = _build_metric_table(names, difference.metrics)
    tables = _build_difference_tables(names, difference)
    blocks: list[Figure] = [
        Heading("Curves", "" if plots else "None: nothing was logged to metrics.csv, which logger=csv writes."),
        *plots,
        Heading("Metrics"),
        replace(metrics, rows=metrics.rows[:_MAX_ROWS]),
        Heading("What differs"),
        *(replace(table, rows=table.rows[:_MAX_ROWS]) for table in tables),
        *([] if tables else [Heading("Nothing", _NO_DIFFERENCE)]),
    ]
    mask = first.masker.mask_text
    return render_page(
        f"runs diff · {names[0]} · {names[1]}",
        mask(_format_sentence(names, metric, difference)),
        True,
        {},
        {"first": str(first.path), "second": str(second.path)},
        [block.mask_texts(mask) for block in blocks],
    )


def _format_sentence(names: Sequence[str], metric: str, difference: RunComparison) -> str:
    """Return the best value of the key metric in both runs, and how much differs."""
    pair = difference.metrics.get(f"best_{metric}") or difference.metrics.get(metric)
    values = [f"{name}: {metric} {_format_end(metric, value)}" for name, value in zip(names, pair or (), strict=False)]
    counts = [
        format_count(len(content), noun)
        for content, noun in ((difference.config, "setting"), (difference.code, "code file"))
        if content
    ]
    return "; ".join([*(values or [f"{names[0]} and {names[1]}"]), f"{' and '.join(counts) or 'no setting'} differ"])


def _build_metric_table(names: Sequence[str], metrics: Pairs) -> TableBlock:
    rows = [(format_metric_name(name), *(_format_end(name, value) for value in pair)) for name, pair in metrics.items()]
    return TableBlock("At the end", ("metric", *names), rows)


def _build_difference_tables(names: Sequence[str], difference: RunComparison) -> list[TableBlock]:
    """Return a table for each kind of difference that there is."""
    kinds: Mapping[str, Pairs] = {
        "Settings": difference.config,
        "Started from": difference.facts,
        "Derived": difference.derived,
        "Packages": difference.packages,
    }
    tables = [
        TableBlock(title, ("", *names), [(name, *map(_cut_value, pair)) for name, pair in pairs.items()])
        for title, pairs in kinds.items()
        if pairs
    ]
    if difference.code:
        tables.append(TableBlock("Code", ("file that differs",), [(path,) for path in difference.code]))
    return tables


def _format_end(name: str, value: float | None) -> str:
    return "–" if value is None else format_metric(name, value)


def _cut_value(value: object) -> str:
    if isinstance(value, list | dict | bool):
        value = json.dumps(value, ensure_ascii=False, default=str)
    text = "–" if value is None else format_number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_CELL else text[:_MAX_CELL] + "…"


def save_diff_page(first: RunFolder, second: RunFolder, difference: RunComparison, page: Path | None) -> Path | None:
    """Write the page to `page`, by default among the results of the second run; return its path, or None where that
    run is someone else's, whose folder can't be written to.

    Raises:
        MLScaleError: a page that was named can't be written (exit code 5).
    """
    text = render_diff_page(first, second, difference)
    path = page or second.path / "results" / f"diff-{first.id}.html"
    try:
        write_setting_file("page", path, text)
    except MLScaleError:
        if page is not None:
            raise
        return None
    return path


Pairs = dict[str, tuple[Any, Any]]  # name to its values in both runs; None where one lacks it
_NO_SETTING = ("derived", "hydra")  # derived values are compared on their own


@dataclass(frozen=True)
class RunComparison:
    """The differences between two runs.

    Attributes:
        config: key paths whose values differ.
        derived: derived values that differ.
        metrics: every metric of either.
        facts: other inputs that differ: seed, data version, commit, parent.
        code: paths of code files that differ.
        packages: distributions whose versions differ.
    """

    config: Pairs
    derived: Pairs
    metrics: Pairs
    facts: Pairs
    code: tuple[str, ...]
    packages: Pairs

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict; for JSON, pairs become lists of two."""
        return asdict(self)


def compare_runs(first: RunFolder, second: RunFolder) -> RunComparison:
    """Return the differences between two runs."""
    runs, manifests = (first.run, second.run), (first.manifest or {}, second.manifest or {})
    return RunComparison(
        config=diff_mappings(_read_settings(first), _read_settings(second)),
        derived=diff_mappings(
            # These two are the run's own identity: they differ between any two runs.
            *({k: v for k, v in run.derived.items() if k not in ("run_dir", "name")} for run in (first, second))
        ),
        metrics=_combine_values(*(manifest.get("metrics", {}) for manifest in manifests)),
        facts=diff_mappings(*map(_collect_facts, runs)),
        code=_find_changed_code(first.path, second.path),
        # Only a sealed run lists packages: compared with an unsealed one, every package would differ.
        packages=diff_mappings(*(manifest.get("packages", {}) for manifest in manifests)) if all(manifests) else {},
    )


def flatten_mapping(node: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key paths and values of nested mappings; lists and empty mappings are values."""
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from flatten_mapping(child, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


def diff_mappings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    """Return the entries that are not the same in both."""
    return {name: pair for name, pair in _combine_values(first, second).items() if pair[0] != pair[1]}


def _combine_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    names = [*first, *(name for name in second if name not in first)]
    return {name: (first.get(name), second.get(name)) for name in names}


def _read_settings(run: RunFolder) -> dict[str, Any]:
    config = read_yaml_values(run.path / CONFIG)
    return dict(flatten_mapping({key: value for key, value in config.items() if key not in _NO_SETTING}))


def _collect_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    code = run["code"] or {}
    facts = {key: run[key] for key in ("verb", "seed", "data_version", "order_version", "parent")}
    return {
        **facts,
        "label_digest": run.get("label_digest"),
        "commit": code.get("commit"),
        "uncommitted_changes": code.get("dirty"),
    }


def _find_changed_code(first: Path, second: Path) -> tuple[str, ...]:
    digests = [_hash_archived_files(folder / "code.tar.gz") for folder in (first, second)]
    return tuple(sorted(diff_mappings(*digests)))


def _hash_archived_files(archive: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a code snapshot, by path; nothing is unpacked to the disk."""
    if not archive.is_file():
        return {}
    hashes = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                if content is not None:
                    hashes[entry.name] = hashlib.sha256(content.read()).hexdigest()
    except (tarfile.TarError, OSError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        warn_once(f"{archive} is corrupt ({error}): not every difference of the code is known")
    return hashes
