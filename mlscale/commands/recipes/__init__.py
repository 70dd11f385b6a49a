"""`mlscale recipes`: its help. The entry point is in `entry`."""

from mlscale.commands.command import OUTPUT, Action, Command, Word

_NAME = Word("name", "a recipe of `mlscale recipes ls`", "resnet")

COMMAND = Command(
    "list, read and copy recipes",
    "inspect",
    (
        ("mlscale recipes ls", "every recipe, what it is for, and the folder it comes from"),
        ("mlscale recipes show resnet", "its file and its card: data, licence, accuracy, time"),
        ("mlscale recipes cp resnet mine", "write recipes/recipe/mine.yaml to start from; then: mlscale recipe=mine"),
    ),
    {
        "ls": Action(
            "list every recipe, what it is for, and the folder it comes from",
            keys=(OUTPUT,),
            examples=(("mlscale recipes ls", "the shipped ones, and yours below ./recipes"),),
            config_dir=True,
        ),
        "show": Action(
            "print a recipe's file and its card",
            (_NAME,),
            (OUTPUT,),
            examples=(("mlscale recipes show resnet", "data, licence, accuracy, time"),),
            config_dir=True,
        ),
        "cp": Action(
            "copy a recipe into ./recipes/recipe to start from",
            (_NAME, Word("to", "the name of your recipe", "mine")),
            (OUTPUT,),
            examples=(("mlscale recipes cp resnet mine", "then: mlscale recipe=mine"),),
            config_dir=True,
        ),
    },
)
