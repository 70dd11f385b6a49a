"""`mlscale drill`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "end and restart your own run as a platform does, and report what is lost",
    "measure",
    (
        ("mlscale drill +recipe=mine launch=slurm", "its signal, its grace period, SIGKILL; then another host"),
        ("mlscale drill +recipe=mine launch=kubernetes launch.claim=runs", "a pod that is evicted, with its volume"),
        ("mlscale drill +recipe=mine launch=skypilot launch.bucket=s3://my-runs", "a spot instance that is lost"),
        ("mlscale drill last launch=slurm", "the config of a run that was made"),
        ("mlscale drill +recipe=mine launch=torchrun restart_devices=4", "restarted with four processes"),
        ("mlscale drill +recipe=mine launch=slurm stop_step=100 report=drill", "ended after step 100; with a page"),
    ),
)
