"""`mlscale estimate`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "estimate memory, time and cost of a training run before it starts",
    "measure",
    (
        ("mlscale estimate +recipe=resnet", "peak memory of a step, time of the run on this machine"),
        ("mlscale estimate +recipe=resnet data.batch_size=256 precision=bf16", "of another batch and precision"),
        ("mlscale estimate last", "of a run that was made"),
        ("mlscale estimate +recipe=resnet estimate.instance=aws/g5.xlarge", "what it costs, and whether it fits"),
        ("mlscale estimate +recipe=resnet estimate.max_hours=2", "exit code 4 where it would take longer"),
    ),
)
