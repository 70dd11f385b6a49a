"""The number of processes of a node, for jobs that another machine submits."""

from __future__ import annotations

from collections.abc import Iterator

from mlscale.errors import MLScaleError


def check_devices(devices: object) -> Iterator[MLScaleError]:
    """Yield a problem for a number of processes that only a node could count."""
    # The machine that submits need not have the devices of the nodes, so `auto` would count the wrong ones.
    if not (str(devices).isdigit() and int(str(devices)) > 0):
        yield MLScaleError(
            f"trainer.devices is {devices}, and a job needs a number",
            where="trainer.devices",
            why="it is the number of processes of each node, which the machine that submits can't count",
            fix="trainer.devices=4",
        )
