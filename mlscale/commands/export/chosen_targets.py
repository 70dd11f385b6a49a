"""The targets that an export is to build, and the bounds that they are built under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build_each

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.measure_export import ExportMeasurement
    from mlscale.export.parity import Parity
    from mlscale.export.servable import Servable
    from mlscale.targets.build_targets import BuiltTarget
    from mlscale.targets.target import Target

_QUANTILES = {0.5: "p50_ms", 0.95: "p95_ms", 0.99: "p99_ms"}


def choose_targets(cfg: DictConfig) -> list[Target]:
    """Return the targets of the config; of none, but with check=server, the servable itself.

    Raises:
        MLScaleError: what one of them is built with, or its server with check=server, is not installed (exit code 5).
    """
    from mlscale.targets.build_targets import require_targets
    from mlscale.targets.onnx_target import OnnxTarget

    targets: list[Target] = list(build_each(cfg.get("target"), "target").values())
    if not targets and cfg.check == "server":
        targets = [OnnxTarget()]
    require_targets(targets)
    if cfg.check == "server":
        for target in targets:
            target.check_server_installed()
    return targets


def build_chosen_targets(
    cfg: DictConfig,
    targets: Sequence[Target],
    servable: Servable,
    measured: ExportMeasurement,
    bounds: Mapping[str, Any],
    find_problems: Callable[[Parity], list[str]],
    report: Callable[[str], None],
) -> list[BuiltTarget]:
    """Build the targets in the servable's folder, and ask their servers with check=server; see `build_targets`.

    Args:
        cfg: of the export.
        targets: of `choose_targets`.
        servable: written completely but for its targets.
        measured: the servable's own measurements.
        bounds: tolerance and min_agreement of a server's answers.
        find_problems: returns each bound that a comparison with the trained model does not meet.
        report: prints a line of progress.
    """
    from mlscale.targets.build_targets import build_targets
    from mlscale.targets.server_check import CheckSettings

    settings = None
    if cfg.check == "server":
        settings = CheckSettings(
            measured.comparison.read_raw_samples(cfg.check_samples),
            **bounds,
            most_ms={share: float(most) for share, key in _QUANTILES.items() if (most := cfg.slo[key]) is not None},
        )
    return build_targets(servable, targets, measured, find_problems, settings, report)
