"""`mlscale runs consolidate`: a run's sharded checkpoints as files, for programs that read no folders."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import create_write_error, report_run_folder
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report import format_size
from mlscale.runs.amend import update_manifest
from mlscale.runs.checkpoint_files.checkpoint_commit import remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock


def consolidate_run(run: RunFolder, *, as_json: bool) -> int:
    """Replace each sharded checkpoint of the run by one file, and print a line for each; exit code 2 if one can't be
    read, and stays as it is.

    Raises:
        MLScaleError: one can't be read, once the others are files; a file can't be written; or another process works
            on the run.
    """
    folder = run.path / "checkpoints"
    done: list[Path] = []
    failed: list[MLScaleError] = []
    with report_run_folder(run.path), hold_run_lock(run):
        remove_incomplete_checkpoints(folder)  # of an earlier one that was killed
        sharded = [stored.path for stored in list_checkpoint_files(folder) if stored.path.is_dir()]
        for path in sharded:
            try:
                _consolidate_checkpoint(run, path)
            except OSError as error:
                raise create_write_error(path, error) from error
            except MLScaleError as error:
                failed.append(
                    MLScaleError(
                        f"{path.name} stays a folder: {error.what}",
                        where=str(path),
                        why=error.why,
                        fix=f"mlscale runs checkpoints {run.id}, which shows the whole ones; or restore it from a copy",
                    )
                )
                continue
            done.append(path)
            if not as_json:
                print(f"{path.name}: one file of {format_size(path.stat().st_size)}")
    if as_json:
        described = [{"path": error.where, "why": error.why or error.what} for error in failed]
        print_document(
            "runs-consolidate",
            {"run": str(run.path), "consolidated": [str(path) for path in done], "failed": described},
        )
        return int(Exit.USER if failed else Exit.DONE)
    raise_all(failed)
    if not sharded:
        print(f"{run.path.name} has no sharded checkpoints")
    return int(Exit.DONE)


def _consolidate_checkpoint(run: RunFolder, path: Path) -> None:
    # On use: it imports torch.
    from mlscale.train.checkpoint.one_file import consolidate_checkpoint

    consolidate_checkpoint(path)
    update_manifest(run.path, path.relative_to(run.path).as_posix())
