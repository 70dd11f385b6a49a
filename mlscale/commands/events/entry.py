"""See how the log of another server is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.commands.events import COMMAND
from mlscale.commands.monitor.foreign_log import ConvertedLog, ForeignLog
from mlscale.commands.options import Options, read_options
from mlscale.config.schema.local_paths import expect_local_path
from mlscale.errors import Exit
from mlscale.report import Result, TableBlock, format_number, print_result
from mlscale.secrets.mask import Masker, mask_output

if TYPE_CHECKING:
    from mlscale.events.event_table import Events

_SHOWN = 40  # characters of a value
_COUNTS = ("rows", "events", "labels", "repeated", "labels_alone")


def main(argv: Sequence[str]) -> int:
    """Run `mlscale events …`; return the exit code.

    Raises:
        MLScaleError: a log, a mapping or a model that is missing or wrong.
    """
    options = read_options("events", COMMAND.actions, argv)
    # A log holds what users have sent.
    with mask_output(Masker.create_for_process()):
        result = _check_log(options)
        print_result(result, options.output)
    return int(Exit.DONE if result.ok else Exit.GATE)


def _check_log(options: Options) -> Result:
    from mlscale.versions import LocalRegistry
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import require_servable

    expect_local_path("events", options.events, "command line")
    registry = LocalRegistry(options.registry_root)
    model = require_servable(
        resolve_reference(options.ref, runs_dir=options.runs_dir, registry=registry), options.runs_dir
    )
    path = Path(options.events).expanduser().absolute()
    converter = ForeignLog(path, str(options.mapping))  # its events are there as long as it is
    log = converter.convert_events(model, None)
    report, losses = log.report, log.describe_losses(None)
    read = f"{report.rows:,} rows are {report.events:,} events of {model.version} and {report.labels:,} labels"
    return Result(
        "events",
        ok=not (report.unreadable or report.differing or report.unmatched),
        sentence="; ".join(filter(None, (f"{path.name}: {read}", losses))),
        metrics={
            **{name: float(getattr(report, name)) for name in _COUNTS},
            "labels_unmatched": float(len(report.unmatched)),
            "unreadable_rows": float(report.unreadable.total()),
            "other_versions": float(report.other_versions.total()),
        },
        figures=tuple(_tabulate_rows(log, model.name, options.rows)),
        details={"newest": report.newest.isoformat() if report.newest else None},
    )


def _tabulate_rows(log: ConvertedLog, model: str, count: int) -> list[TableBlock]:
    """Return a table of the latest events: a line for each entry, a column for each event."""
    if not count:
        return []
    events = log.store.read(model, last=count)
    labels = log.store.read_labels_by_id(model)
    rows = [_list_entries(events, index, labels) for index in range(len(events))]
    lines = [(name, *(row.get(name, "") for row in rows)) for name in (rows[0] if rows else {})]
    header = ("entry", *(f"row {number}" for number in range(1, len(rows) + 1)))
    return [TableBlock("The latest rows as they are read", header, lines, terminal=True)] if lines else []


def _list_entries(events: Events, index: int, labels: Mapping[str, object]) -> dict[str, str]:
    id_ = str(events.id[index])
    values = {
        "id": id_,
        "time": f"{events.time[index]} UTC",
        "outcome": events.outcome[index],
        "prediction": events.predictions[index],
        "label": labels.get(id_),
        "latency_ms": float(events.latency_ms[index]),
        "group": events.get_column("group")[index],
        **{f"input {name}": column[index] for name, column in events.inputs.items()},
        **{f"output {name}": column[index] for name, column in events.outputs.items()},
    }
    return {name: _format_value(value) for name, value in values.items()}


def _format_value(value: object) -> str:
    if value is None or value != value:
        return "-"
    return format_number(float(value)) if isinstance(value, float) else str(value)[:_SHOWN]
