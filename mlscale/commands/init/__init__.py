"""`mlscale init`: its help. The entry point is in `entry`."""

from pathlib import Path

from mlscale.commands.command import OUTPUT, Action, Command, Key, Word

COMMAND = Command(
    "write a small working project: model, data, recipe, tests, CI",
    "train",
    (
        ("mlscale init digits", "a folder of that name; then: cd digits && mlscale recipe=digits"),
        ("mlscale init my-net to=work", "the project my-net in the folder work"),
    ),
    {
        "": Action(
            "write a small project into a new folder; its own tests pass",
            (Word("name", "the project; its Python package has this name, with '_' for '-'", "digits"),),
            (
                Key(
                    "to",
                    "the folder, which must be new or empty; the project's name by default",
                    example="work",
                    type=Path,
                ),
                OUTPUT,
            ),
        )
    },
)
