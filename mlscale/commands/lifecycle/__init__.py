"""`mlscale lifecycle`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "everything end to end on one machine: train, serve, shift, alert, retrain, swap",
    "operate",
    (
        ("mlscale lifecycle +recipe=resnet", "twelve steps, each with its metric, and a page that shows them"),
        ("mlscale lifecycle +recipe=tabular", "a column has another zero in production"),
        ("mlscale lifecycle +recipe=resnet lifecycle.slo.p99_ms=20", "exit code 4 where the load test finds more"),
    ),
)
