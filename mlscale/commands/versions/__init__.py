"""`mlscale versions`: its help. The entry point is in `entry`."""

from pathlib import Path

from mlscale.commands.command import OUTPUT, RUNS_DIR, Action, Command, Key, Word

# The same name as the config key of commands with a config: `registry.root=…` works in both.
_ROOT = Key("registry.root", "the folder of the registry", "registry", type=Path)
_VERSION = Word(
    "ref",
    "a version: resnet:v7, resnet:latest or resnet@champion; resnet alone is the champion, else the latest",
    "resnet@champion",
)

COMMAND = Command(
    "publish, list, promote and roll back versions of models",
    "ship",
    (
        ("mlscale versions add last alias=challenger", "the last run's best checkpoint as the next version"),
        ("mlscale versions add last servable=true", "what mlscale export made of it"),
        ("mlscale versions ls", "all models and versions"),
        ("mlscale versions show resnet@champion", "its origin, and whether its files are as they were published"),
        ("mlscale versions history resnet", "accuracy, drift, alerts and decisions over time"),
        ("mlscale versions promote resnet:v7", "make it the champion; the champion so far becomes 'previous'"),
        ("mlscale versions rollback resnet", "the previous champion again"),
        ("mlscale versions sync project=digits", "mirror the registry to W&B from now on"),
    ),
    {
        "ls": Action(
            "list models and their versions, oldest first",
            (Word("name", "one model; all by default", "resnet", required=False),),
            (_ROOT, OUTPUT),
            (("mlscale versions ls resnet output=json", "one model, for programs"),),
        ),
        "show": Action(
            "print one version: its origin, metrics and files, each read again; exit code 2 if one was altered",
            (_VERSION,),
            (_ROOT, OUTPUT),
            (("mlscale versions show resnet:v7", "by number"),),
        ),
        "history": Action(
            "print a model over time: versions, accuracy, drift, alerts, and decisions of retraining",
            (Word("name", "the model", "resnet"),),
            (
                Key("page", "an HTML page with plots over time", example="history.html", type=Path),
                Key(
                    "events",
                    "the folder that servers write events to, which has the checks of mlscale monitor",
                    "events",
                    type=Path,
                ),
                Key(
                    "watched",
                    "whose checks: as mlscale monitor got it, or retrain-watch; the champion by default",
                    example="resnet@challenger",
                ),
                Key("state", "a monitor's alert.state= file, where it is elsewhere", example="state.json", type=Path),
                Key("last", "so many rows of what happened; 0 for all", 30, type=int),
                _ROOT,
                OUTPUT,
            ),
            (("mlscale versions history resnet page=history.html", "and as a page"),),
        ),
        "add": Action(
            "publish a run's checkpoint, or a servable, with metrics and origin as a version",
            (
                Word(
                    "ref",
                    "a run: its id, the first letters of its id or of its folder's name, its path, or 'last'; "
                    "a servable's folder",
                    "last",
                ),
            ),
            (
                Key("servable", "the run's servable, which mlscale export made", default=False, type=bool),
                Key("checkpoint", "which one: best or last", "best", choices=("best", "last")),
                Key("name", "the model; the run's name by default", example="resnet"),
                Key("alias", "an alias for the version, or a list of them", example="challenger", many=True),
                Key("notes", "free text, kept with the version", "", example="'wider, for the new cameras'"),
                RUNS_DIR,
                _ROOT,
                OUTPUT,
            ),
            (("mlscale versions add last name=resnet alias=challenger", "named, and a challenger"),),
        ),
        "promote": Action(
            "give a version an alias, champion by default; corrupt versions are refused",
            (_VERSION,),
            (
                Key("alias", "which alias", "champion"),
                Key(
                    "approved",
                    "a target, or a list of them, whose own server must have approved the version (mlscale export … "
                    "check=server); exit code 4 where it has not",
                    example="triton",
                    many=True,
                ),
                _ROOT,
                OUTPUT,
            ),
            (
                ("mlscale versions promote resnet@challenger", "the challenger becomes the champion"),
                ("mlscale versions promote resnet:v7 approved=triton", "only if a Triton has answered as it should"),
            ),
        ),
        "rollback": Action(
            "exchange champion and previous; twice changes nothing",
            (Word("name", "the model", "resnet"),),
            (_ROOT, OUTPUT),
            (("mlscale versions rollback resnet", "the previous champion again"),),
        ),
        "sync": Action(
            "send what W&B does not have yet; exit code 5 if something still waits",
            (),
            (
                Key("project", "W&B's project; starts to mirror a registry that is not mirrored yet", example="digits"),
                Key("entity", "W&B's user or team; the key's default by default", example="team"),
                Key("timeout", "seconds that it may take", 3600.0, type=float),
                _ROOT,
                OUTPUT,
            ),
            (("mlscale versions sync project=digits entity=team", "to a team's project"),),
        ),
    },
)
