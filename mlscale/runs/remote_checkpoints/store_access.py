"""Open the object store of an address, and check before a run that checkpoints can be written to it."""

from __future__ import annotations

from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.remote_checkpoints.checkpoint_store import CheckpointStore

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Of each scheme, which is also the name of mlscale's extra."""
_SECONDS = 20.0  # in which a connection must be opened, and without a byte
_CREDENTIALS = {"s3": "AWS_PROFILE", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME"}


def is_remote(path: object) -> bool:
    """Return whether a path is the address of another place than the file system."""
    return "://" in str(path)


def open_store(address: str, where: str) -> CheckpointStore:
    """Return the store of a run's checkpoints; nothing is sent yet.

    Args:
        address: of the run.
        where: the setting that has it, for errors.

    Raises:
        MLScaleError: its scheme is unknown, its package is not installed, or it lacks an account.
    """
    scheme = address.partition("://")[0]
    package = _PACKAGES.get(scheme)
    if package is None:
        raise MLScaleError(
            f"checkpoints are not written to '{scheme}://'",
            where=f"{where}={mask_address(address)}",
            why=f"the schemes are: {', '.join(f'{name}://' for name in _PACKAGES)}",
            fix=f"{where}=s3://<bucket>/<folder>\n{where}=<a folder>",
        )
    settings: dict[str, Any] = {}
    if scheme == "s3":
        # One attempt by botocore: s3fs repeats what may be repeated, and the uploader the whole.
        retries = {"total_max_attempts": 1, "mode": "standard"}
        settings["config_kwargs"] = {"connect_timeout": _SECONDS, "read_timeout": _SECONDS, "retries": retries}
    try:
        # Imported on use: who keeps checkpoints on a disk needs none of these packages.
        import fsspec

        # A listing that is kept would hide what was uploaded since.
        files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **settings)
    except ImportError as error:
        raise MLScaleError(
            f"checkpoints are written to '{scheme}://' by {package}, which is not installed",
            where=f"{where}={mask_address(address)}",
            why=str(error),
            fix=f"pip install 'mlscale[{scheme}]'",
            exit=Exit.ENVIRONMENT,
        ) from error
    except Exception as error:  # adlfs looks for an account when it is opened
        raise create_access_error(address, where, error) from error
    return CheckpointStore(address, files)


def check_store(address: str, where: str) -> None:
    """Write an object below `address` and remove it again.

    Raises:
        MLScaleError: the bucket does not exist (exit code 2); or the store can't be reached or written to (5).
    """
    store = open_store(address, where)
    try:
        store.check_access()
    except Exception as error:  # of any package, and of the network
        raise create_access_error(address, where, error) from error


def create_access_error(address: str, where: str, error: BaseException) -> MLScaleError:
    """Return the error of a store that can't be used."""
    shown = mask_address(address)
    if isinstance(error, FileNotFoundError):
        return MLScaleError(
            f"the bucket of {shown} does not exist",
            where=where,
            why=describe_store_error(error),
            fix=f"{where}={address.partition('://')[0]}://<a bucket that exists>/<folder>",
        )
    return MLScaleError(
        f"checkpoints can't be written to {shown}",
        where=where,
        why=describe_store_error(error),
        fix=f"export {_CREDENTIALS[address.partition('://')[0]]}=<yours>, or the other variables in docs/remote.md\n"
        f"{where}=<a folder>",
        exit=Exit.ENVIRONMENT,
    )


def describe_store_error(error: BaseException) -> str:
    """Return the first line of an error of a package for object stores."""
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__


def mask_address(address: str) -> str:
    """Return an address without user and password."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
