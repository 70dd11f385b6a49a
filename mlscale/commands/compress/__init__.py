"""`mlscale compress`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "make a checkpoint smaller and faster, and keep that only where measurements confirm it",
    "ship",
    (
        ("mlscale compress last compress=int8", "the best checkpoint of the last run; export takes it if kept"),
        ("mlscale compress last compress=int8 compress.int8.max_accuracy_drop=0.002", "a stricter bound"),
        ("mlscale compress last compress=int8 compress.int8.required=true", "exit code 4 if it is not kept"),
    ),
)
