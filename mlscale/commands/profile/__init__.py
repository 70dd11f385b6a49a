"""`mlscale profile`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "find what limits the speed of a training run, and measure the fix",
    "measure",
    (
        ("mlscale profile +recipe=resnet", "data or computing, by how much, and what to type"),
        ("mlscale profile last", "of a run that was made; the page goes into its folder"),
        ("mlscale profile +recipe=mine profile.seconds=60", "longer rounds, on a machine that is not quiet"),
    ),
)
