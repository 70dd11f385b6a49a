"""`mlscale export`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "turn a checkpoint into a servable: ONNX, proof of parity, reference profile",
    "ship",
    (
        ("mlscale export last", "the best checkpoint of the last run, into its folder"),
        ("mlscale export last to=models/digits", "into a folder of its own"),
    ),
)
