"""`mlscale config`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "print, explain and check a composed config",
    False,
    (
        ("mlscale config show +recipe=resnet --origin", "which file or override set each key"),
        (
            "mlscale config check +recipe=resnet optimizer.lr=0.1",
            "all problems at once; exit code 2 if there are any",
        ),
        ("mlscale config schema", "a JSON schema for editors"),
    ),
)
