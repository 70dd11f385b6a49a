"""`mlscale prepare`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "write a bundled data set into the cache as WebDataset shards, or record digests of your own",
    "train",
    (
        ("mlscale prepare data=fashion_mnist", "60,000 images, once"),
        ("mlscale prepare data=webdataset data.train=shards data.val=val", "a digest of every member of these"),
    ),
)
