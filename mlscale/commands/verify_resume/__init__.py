"""`mlscale verify-resume`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "kill your own run several times, and check that it resumes bitwise identical",
    "measure",
    (
        ("mlscale verify-resume +recipe=resnet trainer.max_epochs=3", "three kills of a run of three epochs"),
        ("mlscale verify-resume +recipe=mine kills=10 kill_seed=7", "ten kills, at other places"),
        ("mlscale verify-resume last", "the config of a run that was made"),
        ("mlscale verify-resume +recipe=mine trainer.devices=2", "two processes, killed together"),
        ("mlscale verify-resume +recipe=mine trainer.devices=2 launch=torchrun", "by torchrun"),
        ("mlscale verify-resume +recipe=mine trainer.limit_train_batches=20 keep=true", "keep the runs and traces"),
    ),
)
