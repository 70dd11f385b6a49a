"""`mlscale evaluate`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "measure a model: metrics with intervals, classes, slices, worst errors; compare two models",
    "measure",
    (
        ("mlscale evaluate last", "the best checkpoint of the last run"),
        ("mlscale evaluate last checkpoint=last split=test", "the last one, on test data"),
        ("mlscale evaluate resnet@champion", "a version, checkpoint or servable"),
        ("mlscale evaluate last against=resnet@champion", "which of the two is better, with a test"),
        ("mlscale evaluate last slices=slices.csv", "parts of the data, worst first"),
        ("mlscale evaluate last data=webdataset data.train=… data.val=…", "on other data"),
    ),
)
