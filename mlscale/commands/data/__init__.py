"""`mlscale data`: its help. The entry point is in `entry`."""

from pathlib import Path

from mlscale.commands.command import OUTPUT, RUNS_DIR, Action, Command, Key, Word

_REF = Word(
    "ref",
    "a run whose data is meant: its id, its folder, or 'last'; the data of data=… by default",
    "last",
    required=False,
)
_PAGE = Key("page", "an HTML page of it", example="data.html", type=Path)
# Whatever people have at hand when they ask what has changed: files, folders and runs.
_SIDE = "a run (its id, its folder, 'last'), a table's file, a folder of images, or a folder that mlscale prepare wrote"

# In the order in which data is got to know: what there is, what it holds, whether it is whole, how it looks.
COMMAND = Command(
    "look at data: what there is, what it holds, what is bad, what a model sees, what has changed",
    "train",
    (
        ("mlscale data ls", "what data= can read, and what the cache holds"),
        ("mlscale data show data=webdataset data.train=shards data.val=val", "samples, classes, sizes, version"),
        ("mlscale data verify data=imagefolder data.root=photos", "read every sample, and name each bad one"),
        ("mlscale data sample +recipe=resnet augment=shift", "a page of what the model sees, after augmentation"),
        ("mlscale data diff may.csv june.csv data.target=churned", "what two versions of a data set differ in"),
    ),
    {
        "ls": Action(
            "list what data= can read, and the bundled sets that the cache holds",
            (),
            (OUTPUT,),
            (("mlscale data ls", "the shipped options, and yours"),),
            config_dir=True,
        ),
        "show": Action(
            "print the facts of a data set: samples, classes, columns, sizes, version",
            (_REF,),
            (_PAGE, RUNS_DIR, OUTPUT),
            (
                ("mlscale data show data=table data.train=rows.csv data.target=species", "a table, by column"),
                ("mlscale data show last", "the data of the last run"),
            ),
            overrides=True,
            config_dir=True,
        ),
        "verify": Action(
            "read every sample as training does, and name each that can't be used; exit code 4 if there are any",
            (_REF,),
            (
                Key(
                    "bad",
                    "a file for the names and reasons of bad samples, as JSON Lines",
                    example="bad.jsonl",
                    type=Path,
                ),
                RUNS_DIR,
                OUTPUT,
            ),
            (("mlscale data verify data=webdataset data.train=shards data.val=val bad=bad.jsonl", "into a file, too"),),
            overrides=True,
            config_dir=True,
        ),
        "sample": Action(
            "show the first samples of an epoch as the model gets them, after augmentation, with their labels",
            (_REF,),
            (
                Key("count", "number of samples", 28, type=int),
                Key(
                    "split",
                    "which split; only training samples are augmented",
                    "train",
                    choices=("train", "val", "test"),
                ),
                Key("page", "the HTML page", "samples.html", type=Path),
                RUNS_DIR,
                OUTPUT,
            ),
            (
                (
                    "mlscale data sample +recipe=resnet augment=mixup count=14",
                    "mixed images, with the shares of their labels",
                ),
            ),
            overrides=True,
            config_dir=True,
        ),
        "diff": Action(
            "compare two versions of a data set: samples, classes, labels, and the drift of each column",
            (Word("first", _SIDE, "may.csv"), Word("second", _SIDE, "june.csv")),
            (
                Key("split", "which split is compared", "train", choices=("train", "val", "test")),
                Key(
                    "count",
                    "samples of each side that columns are compared on, evenly spread; 0 for all",
                    20_000,
                    type=int,
                ),
                _PAGE,
                RUNS_DIR,
                OUTPUT,
            ),
            (
                ("mlscale data diff last 3f2a", "the data of two runs"),
                (
                    "mlscale data diff photos-may photos-june data.image_size=64",
                    "two folders of images; settings count for both",
                ),
            ),
            overrides=True,
            config_dir=True,
        ),
    },
)
