"""Filters for messages of Lightning and torch that mlscale reports better, or that users can't act on."""

import logging
import warnings


def suppress_library_messages() -> None:
    """Silence Lightning's information (devices, strategies, advertisements) and the warnings below; the others stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 uses torch's pytree in a way that torch 2.13 deprecates.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # The result shows it: a run that ends before its first validation has no best checkpoint.
    warnings.filterwarnings("ignore", message=r".*could not find the monitored key in the returned metrics.*")
    # TrainMetrics shortens the interval for such epochs; a batch's size is read from the batch.
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r".*Trying to infer the `batch_size` from an ambiguous collection.*")
    # A kernel of 1×1 has the same memory in both layouts: DDP warns of strides that differ in name alone.
    warnings.filterwarnings("ignore", message=r".*Grad strides do not match bucket view strides.*")
    # A resumed run finds the checkpoints of its earlier attempt.
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty.*")
    # A loader that does not save its position is replayed.
    warnings.filterwarnings("ignore", message=r".*your dataloader is not resumable.*")
    # Built-in loaders are not DataLoaders: their threads are set by data.workers, and profiled.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # Where SLURM is installed Lightning advises to start by srun, also a run that needs none.
    warnings.filterwarnings("ignore", message=r".*`srun` command is available on your system.*")
    # The state of a callback of an earlier version, in a run that is resumed.
    warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint need to be provided.*")
    # An estimate copies modules of tensors without data, of which torch asks the address.
    warnings.filterwarnings("ignore", message=r".*Accessing the data pointer of FakeTensor.*")
