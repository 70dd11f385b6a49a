"""`mlscale config`: its help. The entry point is in `entry`."""

from mlscale.commands.command import OUTPUT, Action, Command, Key, Word

_COMMAND = Key("command", "the command whose config is meant", "train")

COMMAND = Command(
    "print, explain and check a composed config",
    "inspect",
    (
        ("mlscale config show +recipe=resnet", "the composed config, as a run would freeze it"),
        ("mlscale config show +recipe=resnet origin=true", "which file or override set each key"),
        (
            "mlscale config check +recipe=resnet optimizer.lr=0.1",
            "all problems at once; exit code 2 if there are any",
        ),
        ("mlscale config schema", "a JSON schema for editors"),
    ),
    {
        "show": Action(
            "print the composed config, or parts of it",
            (Word("part", "a key or a node of the config", "optimizer", required=False, many=True),),
            (
                Key("origin", "with the file or override that set each key", default=False, type=bool),
                Key("resolve", "with interpolations resolved, where they can be by now", default=False, type=bool),
                _COMMAND,
                OUTPUT,
            ),
            (
                ("mlscale config show +recipe=resnet optimizer", "one part of it"),
                ("mlscale config show +recipe=resnet origin=true", "which file or override set each key"),
                ("mlscale config show command=serve", "the config of another command"),
            ),
            overrides=True,
            config_dir=True,
        ),
        "check": Action(
            "report every problem of a config at once; exit code 2 if there are any",
            (),
            (_COMMAND, OUTPUT),
            (
                ("mlscale config check +recipe=resnet optimizer.lr=0.1", "with an override"),
                ("mlscale config check -m +recipe=resnet optimizer.lr=0.1,0.01", "every job of a sweep"),
            ),
            overrides=True,
            config_dir=True,
        ),
        "schema": Action(
            "print a JSON schema of the config, with which editors complete and check YAML",
            (),
            (_COMMAND, OUTPUT),
            (("mlscale config schema > mlscale.schema.json", "into a file"),),
            config_dir=True,
        ),
    },
)
