"""`mlscale events`: its help. The entry point is in `entry`."""

from pathlib import Path

from mlscale.commands.command import OUTPUT, RUNS_DIR, Action, Command, Key, Word

COMMAND = Command(
    "see how the log of another server is read, before it is monitored",
    "operate",
    (("mlscale events check log.jsonl mapping=log.yaml ref=resnet", "three rows as they are read, and what can't be"),),
    {
        "check": Action(
            "read a log by its mapping: rows as events, and what can't be read; exit code 4 if there is such",
            (Word("events", "a file, a folder or a glob: .parquet, .csv, .tsv, .jsonl, also .gz", "log.jsonl"),),
            (
                Key("mapping", "the YAML file that names its columns", "mapping.yaml", type=Path),
                Key("ref", "the model that answered: a version, a run or a servable", "last"),
                Key("rows", "how many rows are shown", 3, type=int),
                Key("registry.root", "the folder of the registry", "registry", type=Path),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale events check 'logs/*.jsonl.gz' mapping=log.yaml ref=resnet@champion", "several files"),),
        ),
    },
)
