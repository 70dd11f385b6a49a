"""Open the object store of an address, and check before a run that checkpoints can be written to it."""

from __future__ import annotations

import re
from typing import Any

from mlscale.config.schema.local_paths import is_address
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.remote_checkpoints.checkpoint_store import CheckpointStore

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Of each scheme, which is also the name of mlscale's extra."""
_SECONDS = 20.0  # in which a connection must be opened, and without a byte
RECORDED = "run.json: checkpoint_store"
"""Where the address of a run that exists is from."""
TYPED = "the address of the run"
"""Where an address is from that was typed as a reference to a run."""
_OF_A_RUN = (RECORDED, TYPED)
_CREDENTIALS = {"s3": "AWS_PROFILE", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME"}
_SERVERS = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST", "az": "AZURE_STORAGE_CONNECTION_STRING"}


def is_remote(path: object) -> bool:
    """Return whether a path is the address of another place than the file system."""
    return is_address(str(path)) and ":/" in str(path)  # `hf:v7` is a version


def open_store(address: str, where: str) -> CheckpointStore:
    """Return the store of a run's checkpoints; nothing is sent yet.

    Args:
        address: of the run.
        where: the setting that has it, or RECORDED or TYPED, for errors.

    Raises:
        MLScaleError: its scheme is unknown, it names no bucket, its package is not installed, or it lacks an account.
    """
    scheme, _, path = address.partition("://")
    package = _PACKAGES.get(scheme)
    origin = f"{where}{': ' if where == TYPED else '='}{mask_address(address)}"
    of_run = "; that of a run is s3://<bucket>/<folder>/<run id>" if where in _OF_A_RUN else ""
    if package is None:
        raise MLScaleError(
            f"checkpoints are not {_get_access(where)} '{re.sub('(?<=:)[^/].*|(?<=/)[^/].*', '', address)}'",
            where=origin,
            why=f"the schemes are: {', '.join(f'{name}://' for name in _PACKAGES)}{of_run}",
            fix="" if of_run else f"{where}=s3://<bucket>/<folder>\n{where}=<a folder>",
        )
    if not path.split("/")[0]:
        raise MLScaleError(
            "the address of the checkpoints names no bucket",
            where=origin,
            why=of_run.removeprefix("; "),
            fix="" if of_run else f"{where}={scheme}://<bucket>/<folder>",
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
            f"checkpoints are {_get_access(where)} '{scheme}://' by {package}, which is not installed",
            where=origin,
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


def create_access_error(address: str, where: str, error: BaseException, access: str = "") -> MLScaleError:
    """Return the error of a store that can't be used.

    Args:
        address: of the store.
        where: the setting that has it, or RECORDED or TYPED.
        error: of its package, or of the network.
        access: what can't be done there; empty for what is done with an address from there.
    """
    scheme, shown = address.partition("://")[0], mask_address(address)
    access = access or _get_access(where)
    # The address of a run that exists is not a setting: its checkpoints are there and nowhere else.
    other = "" if where in _OF_A_RUN else f"\n{where}=<a folder>"
    if isinstance(error, FileNotFoundError):
        return MLScaleError(
            f"the bucket of {shown} does not exist",
            where=where,
            why=describe_store_error(error),
            fix=_suggest_server(scheme)
            if where in _OF_A_RUN
            else f"{where}={scheme}://<a bucket that exists>/<folder>",
        )
    is_silent = _is_silence(error)
    return MLScaleError(
        f"checkpoints can't be {access} {shown}{': the store does not answer' if is_silent else ''}",
        where=where,
        why=describe_store_error(error),
        fix=(
            _suggest_server(scheme)
            if is_silent or (isinstance(error, OSError) and not isinstance(error, PermissionError))
            else f"export {_CREDENTIALS[scheme]}=<yours>, or the other variables in docs/remote.md"
        )
        + other,
        exit=Exit.ENVIRONMENT,
    )


def _get_access(where: str) -> str:
    return "read from" if where in _OF_A_RUN else "written to"


def _suggest_server(scheme: str) -> str:
    return f"export {_SERVERS[scheme]}=<the store's address>; or the same command, once the network reaches it"


def _is_silence(error: BaseException) -> bool:
    """Return whether an error is one of the network, and not an answer of the store."""
    if isinstance(error, PermissionError):
        return False
    # By name: each package has classes of its own, which share no base.
    names = " ".join(base.__name__ for base in type(error).__mro__)
    return any(word in names for word in ("Connect", "Timeout", "Endpoint", "gaierror", "ServiceRequestError"))


def describe_store_error(error: BaseException) -> str:
    """Return the first line of an error of a package for object stores."""
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__


def mask_address(address: str) -> str:
    """Return an address without user and password."""
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
