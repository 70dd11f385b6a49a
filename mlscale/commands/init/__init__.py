"""`mlscale init`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "write a small working project: model, data, recipe, tests, CI",
    False,
    (
        ("mlscale init digits", "a folder of that name; then: cd digits && mlscale recipe=digits"),
        ("mlscale init my-net --to work", "into another folder"),
    ),
)
