"""The modules that the fork server imports before it forks ranks. It computes nothing: an OpenMP pool does not survive
a fork.

They are what every run needs, and what Lightning, DDP, webdataset and Pillow import on their first use: eight ranks
on two cores would each do that again, which is a third of a second.
"""

from mlscale.launch import garbage_collection as garbage

garbage.mark_own_process()
with garbage.defer_garbage_collection():
    import hydra  # noqa: F401
    import PIL.Image
    import torch.distributed.algorithms.ddp_comm_hooks.default_hooks
    import torch.distributed.algorithms.ddp_comm_hooks.optimizer_overlap_hooks  # noqa: F401

    import mlscale.assembly.run
    import mlscale.assembly.worker
    import mlscale.data.builtin.image_sets
    import mlscale.data.images.image_modules
    import mlscale.tasks.classification
    import mlscale.tasks.models.resnet
    import mlscale.train.strategies  # noqa: F401

    PIL.Image.preinit()
