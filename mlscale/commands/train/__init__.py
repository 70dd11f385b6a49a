"""`mlscale train`: its help. The entry point is in `entry`."""

from mlscale.commands.command import Command

COMMAND = Command(
    "train what a recipe describes (the default)",
    "train",
    (
        ("mlscale +recipe=resnet", "train the small ResNet on digits"),
        ("mlscale +recipe=resnet trainer.devices=8", "on eight devices, the same global batches"),
        ("mlscale +recipe=resnet data=fashion_mnist precision=bf16", "on other data, in bfloat16"),
        ("mlscale -m +recipe=resnet optimizer.lr=0.1,0.01 seed=1,2", "a sweep: four runs and a table"),
        ("mlscale +recipe=resnet debug=fast", "one step of everything"),
        ("mlscale like=last init_from=last optimizer.lr=0.01", "the last run's config and best weights, a new run"),
        ("mlscale task._target_=my_pkg.MyModule data._target_=my_pkg.MyData", "your own classes, from this folder"),
    ),
)
