"""What the fork server imports before it forks ranks. It computes nothing: an OpenMP pool does not survive a fork."""

from mlscale.launch import garbage

garbage.claim()
with garbage.put_off():
    import torch.distributed.elastic.multiprocessing  # noqa: F401

    import mlscale.launch.worker
    import mlscale.tasks.classification
    import mlscale.train.assemble  # noqa: F401
