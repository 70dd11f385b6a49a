"""`mlscale env`: its help. The entry point is in `entry`."""

from mlscale.commands.command import OUTPUT, RUNS_DIR, Action, Command

COMMAND = Command(
    "describe this machine: devices, memory, disks, and what works on it",
    "inspect",
    (
        ("mlscale env", "versions, devices, cores, memory, disks, and what works"),
        ("mlscale env runs_dir=/scratch/runs", "time the disk of another folder for runs"),
        ("mlscale env output=json", "the same for programs"),
        ("torchrun --nproc-per-node=2 -m mlscale env", "one report for each machine of a job"),
    ),
    {
        "": Action(
            "describe this machine; takes a few seconds: torch is imported and the disks are timed, no network is used",
            keys=(
                RUNS_DIR,
                OUTPUT,
            ),
        )
    },
)
