"""Send what W&B has not got: a separate process, which can be killed if the server hangs, and affects no other W&B run.

`wandb_mirror` starts it; the last line on stderr is the reason if it did not send all.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlscale.atomic_files import make_folders
from mlscale.errors import MLScaleError
from mlscale.file_locks import hold_lock
from mlscale.secrets.mask import Masker
from mlscale.versions.aliases import Aliases
from mlscale.versions.mirror_outbox import MirrorOutbox, MirrorProject, MirrorReceipt, PendingItem
from mlscale.versions.version_record import Version

SENT, FAILED, NO_KEY, CORRUPT = 0, 1, 3, 4
NO_KEY_WHY = "no API key"
_INIT_SECONDS = 20.0  # for the server's first response
_API_SECONDS = 20
_KNOWN_BY = "mlscale-v"  # W&B numbers artifacts v0, v1, … itself; this alias holds the registry's number


def main(argv: list[str]) -> int:
    """Send what has not arrived, one version at a time; the receipt is written after each; return the exit code."""
    outbox = MirrorOutbox(Path(argv[0]))
    make_folders(outbox.folder / "sent")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _send_pending(outbox, scratch)
    except Exception as error:  # any error of the client: the registry is not affected, and the reason is printed
        line = error.what if isinstance(error, MLScaleError) else f"{type(error).__name__}: {error}"
        print(Masker.create_for_process().mask_text(" ".join(line.split())), file=sys.stderr)
        return FAILED


def _send_pending(outbox: MirrorOutbox, scratch: str) -> int:
    import wandb

    if outbox.list_pending() and not wandb.login(prompt=False, verify=False):
        print(NO_KEY_WHY, file=sys.stderr)
        return NO_KEY
    run: Any = None
    # One process at a time. The wait has no limit here: the parent kills this process after its timeout.
    with hold_lock(outbox.folder / ".lock", None):
        left: list[PendingItem] = []
        # Other processes may publish meanwhile. Without progress only corrupt versions are left.
        while (waiting := outbox.list_pending()) != left:
            left = waiting
            for item in waiting:
                if item.version is None:
                    _send_aliases(outbox, item.model)
                elif not outbox.registry.find_changed_files(item.version):
                    run = run or _start_wandb_run(outbox.mirror_project, scratch)
                    _send_version(outbox, run, item.version)
    if run is not None:
        run.finish()
    if waiting:
        print(f"corrupt versions are not sent: {', '.join(map(str, waiting))}", file=sys.stderr)
    return CORRUPT if waiting else SENT


def _start_wandb_run(mirror: MirrorProject | None, scratch: str) -> Any:
    import wandb

    assert mirror is not None
    # Off is all that a W&B run records about code and machine: the mirror's run only logs artifacts.
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        init_timeout=_INIT_SECONDS,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return wandb.init(
        project=mirror.project,
        entity=mirror.entity,
        id=mirror.id,
        name=mirror.id,
        # All deliveries belong to one run: it is continued if it exists.
        resume="allow",
        job_type="registry",
        dir=scratch,
        settings=settings,
    )


def _send_version(outbox: MirrorOutbox, run: Any, version: Version) -> None:
    import wandb

    artifact = wandb.Artifact(
        version.name, type="model", description=version.notes or None, metadata=_build_metadata(version)
    )
    for name in version.files:
        # immutable: read from its path, not copied into a cache first
        artifact.add_file(str(version.payload / name), name=name, policy="immutable", skip_cache=True)
    # `wait` returns when the upload is complete: only then may the receipt be written.
    logged = run.log_artifact(artifact, aliases=[f"{_KNOWN_BY}{version.number}"]).wait()
    receipt = outbox.read_receipt(version.name)
    versions = {**receipt.versions, version.number: str(logged.qualified_name)}
    outbox.write_receipt(version.name, MirrorReceipt(versions, receipt.aliases))


def _send_aliases(outbox: MirrorOutbox, model: str) -> None:
    import wandb

    aliases, receipt, api = (
        outbox.registry.get_aliases(model),
        outbox.read_receipt(model),
        wandb.Api(timeout=_API_SECONDS),
    )
    concerned = sorted({*aliases.of.values(), *receipt.aliases.values()} & set(receipt.versions))
    for number in concerned:
        artifact = api.artifact(receipt.versions[number])
        wanted = _merge_aliases(list(artifact.aliases), number, aliases, receipt.aliases)
        if wanted is not None:
            artifact.aliases = wanted
            artifact.save()
    # An alias of a version that could not be sent stays in the outbox.
    arrived = {alias: number for alias, number in aliases.of.items() if number in receipt.versions}
    outbox.write_receipt(model, MirrorReceipt(receipt.versions, arrived))


def _merge_aliases(current: list[str], number: int, now: Aliases, before: Mapping[str, int]) -> list[str] | None:
    """Return the aliases for an artifact, keeping those that users added in W&B; None if nothing changes."""
    mirrored = {alias for alias, at in before.items() if at == number}
    retained = [alias for alias in current if alias not in mirrored or now.of.get(alias) == number]
    wanted = list(dict.fromkeys([*retained, *now.list_aliases_of(number), f"{_KNOWN_BY}{number}"]))
    return wanted if set(wanted) != set(current) else None


def _build_metadata(version: Version) -> dict[str, Any]:
    """Return a version's record for W&B's metadata, without paths on this machine."""
    document = version.build_version_record()
    known = {key: document[key] for key in ("kind", "digest", "created", "metrics", "data_version", "parent")}
    run = {key: value for key, value in (version.run or {}).items() if key != "path"}
    return {"version": version.ref, **known, "run": run or None}
