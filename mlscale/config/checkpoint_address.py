"""The address of a run's checkpoints in an object store, where a checkpoint callback has one as its folder."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from mlscale.config.schema.local_paths import is_address
from mlscale.errors import MLScaleError

_LOCAL = "${derived.run_dir}/checkpoints"


def find_checkpoint_address(cfg: DictConfig) -> str | None:
    """Return the address below which checkpoints are uploaded; None where they stay on the disk.

    Raises:
        MLScaleError: two callbacks name different ones.
    """
    addresses = {name: _strip_slashes(str(node.dirpath)) for name, node in _iterate_remote(cfg)}
    if len(set(addresses.values())) > 1:
        (first, address), *_ = addresses.items()
        raise MLScaleError(
            f"the checkpoints of a run have one address, and these are {len(set(addresses.values()))}",
            where=", ".join(f"callbacks.{name}.dirpath" for name in addresses),
            fix=" ".join(f"callbacks.{name}.dirpath={address}" for name in addresses if name != first),
        )
    return next(iter(addresses.values()), None)


def get_address_key(cfg: DictConfig) -> str:
    """Return the key of the setting that has the address."""
    return next((f"callbacks.{name}.dirpath" for name, _ in _iterate_remote(cfg)), "callbacks.checkpoint.dirpath")


def keep_checkpoints_local(cfg: DictConfig) -> DictConfig:
    """Return a config whose checkpoint callbacks all write to the disk, into the run's folder in place of an address;
    the same one where none has an address."""
    names = [name for name, _ in _iterate_remote(cfg)]
    local = cfg.copy() if names else cfg
    for name in names:
        local.callbacks[name].dirpath = _LOCAL
    return local


def _strip_slashes(address: str) -> str:
    scheme, separator, path = address.partition("://")
    return f"{scheme}{separator}{path.rstrip('/')}"


def _iterate_remote(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    callbacks = cfg.get("callbacks")
    for name in callbacks if isinstance(callbacks, DictConfig) else ():
        node = callbacks[name]
        if isinstance(node, DictConfig) and is_address(node.get("dirpath")):
            yield str(name), node
