"""`mlscale retrain`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "train on labelled events, compare with the champion, promote the better one",
    "operate",
    (
        (
            "mlscale retrain resnet events=events",
            "train the champion further, on its own data mixed with the window",
        ),
        (
            "mlscale retrain resnet window.hours=24 passes=5 optimizer.lr=0.01",
            "what else is typed trains it",
        ),
        ("mlscale retrain resnet force=true", "in the pause after a rejection, too"),
        ("mlscale retrain resnet watch=true", "look each minute, and start a cycle when accuracy has degraded"),
    ),
)
