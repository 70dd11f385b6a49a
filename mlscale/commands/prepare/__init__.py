"""`mlscale prepare`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "write images as shards or texts as tokens, or record digests of shards of your own",
    "train",
    (
        ("mlscale prepare data=fashion_mnist", "60,000 images, once"),
        ("mlscale prepare data=webdataset data.train=shards data.val=val", "a digest of every member of these"),
        ("mlscale prepare data=imagefolder data.root=photos to=shards", "a folder of images as tar shards, shuffled"),
        ("mlscale prepare data=imagefolder data.root=photos to=records format=tfrecord", "the same as TFRecord files"),
        ("mlscale prepare data=imagefolder data.root=photos to=small reencode.size=256", "resized, and re-encoded"),
        ("mlscale prepare data=image_table data.train=photos.csv data.image_column=file to=shards", "a table of paths"),
        (
            "mlscale prepare data=text_files data.train='texts/*.txt' train_tokenizer=8000 to=tokens",
            "documents as tokens, and a tokenizer of them",
        ),
    ),
)
