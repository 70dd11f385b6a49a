"""`mlscale runs consolidate`: a run's sharded checkpoints as files, for programs that read no folders."""

from __future__ import annotations

from mlscale.atomic_files import create_write_error
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_size
from mlscale.runs.amend import update_manifest
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.runs.folder import RunFolder


def consolidate_run(run: RunFolder, *, as_json: bool) -> int:
    """Replace each sharded checkpoint of the run by one file, and print a line for each."""
    # On use: it imports torch.
    from mlscale.train.checkpoint.one_file import consolidate_checkpoint

    sharded = [stored.path for stored in list_checkpoint_files(run.path / "checkpoints") if stored.path.is_dir()]
    for path in sharded:
        try:
            consolidate_checkpoint(path)
        except OSError as error:
            raise create_write_error(path, error) from error
        update_manifest(run.path, path.relative_to(run.path).as_posix())
        if not as_json:
            print(f"{path.name}: one file of {format_size(path.stat().st_size)}")
    if as_json:
        print_document("runs-consolidate", {"run": str(run.path), "consolidated": [str(path) for path in sharded]})
    elif not sharded:
        print(f"{run.path.name} has no sharded checkpoints")
    return int(Exit.DONE)
