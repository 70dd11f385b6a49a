"""`mlscale serve`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "serve a model over HTTP: V2 inference protocol, hot swap, events",
    "operate",
    (
        ("mlscale serve resnet@champion", "and whatever becomes champion, without a pause"),
        ("mlscale serve models/digits port=0", "a folder, on a free port"),
        ("mlscale serve resnet:v7 events=null follow=false", "one version, and nothing is kept"),
        ("mlscale serve resnet@champion provider=cuda", "on a GPU"),
        ("mlscale serve resnet@champion sample_share=0.1", "every tenth prediction keeps its input"),
    ),
)
