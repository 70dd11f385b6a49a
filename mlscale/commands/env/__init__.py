"""`mlscale env`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "what this machine has, and what will and won't work on it",
    False,
    (("mlscale env", "devices, cores, memory, disk, versions"),),
)
