"""`mlscale runs`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "list, show, compare and remove runs",
    False,
    (
        ("mlscale runs ls", "the runs of this folder, newest first"),
        ("mlscale runs diff last 2xk3f", "what two runs have set differently, and what came of it"),
    ),
)
