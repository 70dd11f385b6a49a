"""`mlscale recipes`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "list, read and copy recipes",
    False,
    (
        ("mlscale recipes ls", "every recipe and what it is for"),
        ("mlscale recipes cp resnet mine", "write recipes/recipe/mine.yaml to start from"),
    ),
)
