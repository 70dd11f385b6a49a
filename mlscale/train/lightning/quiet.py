"""What Lightning and torch say that mlscale says better, or that nobody can act on."""

import logging
import warnings


def quiet() -> None:
    """Warnings of Lightning stay; its information (devices, strategies, advertisements) goes."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # Told by the result: a run that ends before its first validation has no best checkpoint.
    warnings.filterwarnings("ignore", message=r".*could not find the monitored key in the returned metrics.*")
    # A notice tells of it, and the epoch's mean is there all the same; a batch's size is read from the batch.
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r".*Trying to infer the `batch_size` from an ambiguous collection.*")
    # A kernel of 1×1 lies in memory alike in both layouts: DDP warns of strides that differ in name alone.
    warnings.filterwarnings("ignore", message=r".*Grad strides do not match bucket view strides.*")
    # A run that goes on finds the checkpoints of its earlier attempt.
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty.*")
    # A loader without a place of its own is replayed.
    warnings.filterwarnings("ignore", message=r".*your dataloader is not resumable.*")
    # Our loaders are no DataLoaders: their threads are set by data.workers, and profiled, not guessed at.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
