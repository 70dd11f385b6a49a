"""`mlscale predict`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "score many inputs with a model: one row each, resumable, over several devices",
    "ship",
    (
        ("mlscale predict last input=photos to=preds", "every image below a folder, with the last run's best"),
        (
            "mlscale predict resnet@champion input='shards/{000..099}.tar' to=preds",
            "shards, with a servable",
        ),
        (
            "mlscale predict models/digits input=day.parquet key=id to=preds",
            "a table, rows named by a column",
        ),
        ("mlscale predict last input=photos to=preds trainer.devices=4", "four processes; killed, it resumes"),
        ("mlscale predict resnet@champion input=photos to=preds events=events", "with events for monitor"),
    ),
)
