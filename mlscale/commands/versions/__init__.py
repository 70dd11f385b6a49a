"""`mlscale versions`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "publish, list, promote and roll back versions of models",
    False,
    (
        ("mlscale versions add last --alias challenger", "the last run's best checkpoint as a version"),
        ("mlscale versions show resnet@champion", "where it comes from, and whether it is whole"),
        ("mlscale versions promote resnet:v7", "make it the champion"),
        ("mlscale versions rollback resnet", "the champion before it again"),
    ),
)
