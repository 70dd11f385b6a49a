"""The run folder: one folder for each run, created in one step so that it is always complete or absent.

`<root>/<date>/<name>-<id>/` holds `run.json` from the start, `config.yaml` (as composed, interpolations kept),
`derived.yaml`, `results/`, `logs/`, `checkpoints/`, and `manifest.json` last, as the seal.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import (
    ASIDE,
    compute_sha256,
    convert_to_json,
    create_write_error,
    iterate_regular_files,
    make_folders,
    make_private,
    remove_empty_folders,
    remove_tree,
    write_json,
    write_text,
)
from mlscale.contracts import get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs import ownership as own
from mlscale.runs import recover
from mlscale.runs.code.code_snapshot import CodeSnapshot
from mlscale.runs.host import machine
from mlscale.runs.identity import compute_config_hash, compute_key_digests, get_current_time
from mlscale.runs.job_record import UNSEALED
from mlscale.runs.run_files import (
    build_run_path,
    describe_attempt,
    dump_yaml,
    prove_ownership,
    remove_partial_run,
    write_run_files,
)
from mlscale.runs.run_reader import CONFIG, DERIVED, MANIFEST, RUN, RunReader
from mlscale.runs.sweep_folder import start_sweep
from mlscale.secrets.config_secrets import mask_overrides, protect_yaml
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from mlscale.report.figures import Figure, ReportStep

ENDINGS = ("done", "failed", "diverged", "interrupted")


@dataclass(frozen=True)
class RunFolder(RunReader):
    """A run's folder, new or existing.

    Attributes:
        path: the folder, absolute.
        id: 12 characters that sort by time.
        masker: masks secrets in what is written here.
    """

    masker: Masker = field(default_factory=Masker, repr=False, compare=False)
    _made: tuple[Path, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        *,
        command: str,
        config_yaml: str,
        derived: Mapping[str, Any] | None = None,
        seed: int | None = None,
        data_version: str | None = None,
        label_digest: str | None = None,
        order_version: int | str | None = None,
        decode_version: int | None = None,
        overrides: Sequence[str] = (),
        tags: Sequence[str] = (),
        notes: str = "",
        metric: str | None = None,
        mode: str | None = None,
        loggers: Mapping[str, str] | None = None,
        code: CodeSnapshot | None = None,
        parent: str | None = None,
        init: Mapping[str, Any] | None = None,
        sweep: str | Path | None = None,
        masker: Masker | None = None,
        is_queued: bool = False,
    ) -> RunFolder:
        """Create a run's folder with all that is known at the start, in one step; a reader never sees it incomplete.

        Args:
            root: the folder for run folders (`runs_dir`); created if necessary.
            name: the run's name; with the id it names the folder.
            command: the command that runs.
            config_yaml: the composed config as YAML text, interpolations kept. Literal secrets in it are replaced.
            derived: what `derived.yaml` keeps; `run_dir` and `name` are added.
            seed, data_version, order_version: the inputs that determine the order of samples.
            decode_version: the version of the image decoder; None for data without images.
            label_digest: of the labels of all splits, which the data version does not cover.
            overrides: as typed; stored masked.
            tags, notes: free text of the user; stored masked.
            metric, mode: the key metric of this run, for `runs ls`, and min or max.
            loggers: tracker to its id for this run.
            code: the snapshot of the code; None without one.
            parent: the id of the run that this one starts from.
            init: the weights that it starts from (`Initial.document()`).
            sweep: the sweep's folder; the run's folder is created in it instead of in `<root>/<date>`.
            masker: masks secrets in tags, notes and results.
            is_queued: True for a run that a job will train; its first attempt begins there.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5). Nothing is left behind.
        """
        masker = masker or Masker()
        config_yaml = protect_yaml(config_yaml)
        for _ in range(8):  # an id has 25 random bits besides the time: a second round is very unlikely
            path = build_run_path(root, name).absolute()
            path = Path(sweep).absolute() / path.name if sweep else path
            run_id = path.name.rsplit("-", 1)[1]
            document = {
                "format": get_format_tag("run"),
                "id": run_id,
                "name": name,
                "verb": command,
                "created": get_current_time(),
                "config_hash": compute_config_hash(config_yaml),
                "config_digests": compute_key_digests(config_yaml),
                "seed": seed,
                "data_version": data_version,
                "label_digest": label_digest,
                "order_version": order_version,
                **({"decode_version": decode_version} if decode_version is not None else {}),
                "code": code.build_run_summary() if code else None,
                "parent": parent,
                **({"init": dict(init)} if init else {}),
                "sweep": Path(sweep).name.rsplit("-", 1)[-1] if sweep else None,
                "overrides": [masker.mask_text(override) for override in mask_overrides(overrides)],
                "tags": [masker.mask_text(tag) for tag in tags],
                "notes": masker.mask_text(notes),
                "metric": metric,
                "mode": mode,
                "loggers": dict(loggers or {}),
                "attempts": [describe_attempt() | ({"queued": True} if is_queued else {})],
            }
            derived_yaml = dump_yaml({**(derived or {}), "run_dir": str(path), "name": path.name})
            document |= prove_ownership(run_id, config_yaml, derived_yaml, code)
            made = make_folders(path.parent)
            if sweep:
                start_sweep(sweep, name)
            aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
            try:
                write_run_files(aside, document, config_yaml, derived_yaml, code)
                # Fails if another process has created `path` meanwhile: a folder that is not empty is never replaced.
                aside.rename(path)
            except OSError as error:
                write_error = create_write_error(
                    path, error
                )  # before `remove_partial_run`, which may free the inodes whose lack is the cause
                remove_partial_run(aside, made)
                if path.exists():
                    continue
                raise write_error from error
            except MLScaleError:
                remove_partial_run(aside, made)
                raise
            return cls(path, run_id, masker, tuple(made))
        raise MLScaleError(
            "can't find a free name for the run folder", where=str(root), fix="runs_dir=<another folder>"
        )

    @classmethod
    def open(cls, path: str | Path, masker: Masker | None = None) -> RunFolder:
        """Return the run in the folder `path`.

        Raises:
            MLScaleError: it is not a run folder, its run.json is of a later format, or it is corrupted beyond recovery.
        """
        folder = Path(path).absolute()
        if not recover.is_run_folder(folder):
            raise MLScaleError("not a run folder: it has no run.json", where=str(path), fix="mlscale runs ls")
        return cls(folder, str(recover.read_run_document(folder)["id"]), masker or Masker())

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON file atomically, secrets masked, and return its path; `name` may have folders."""
        path = self._resolve_inside(name)
        make_folders(path.parent)
        write_json(path, self.masker.mask_tree(convert_to_json(value)))
        return path

    def write_result(
        self, command: str, result: Mapping[str, Any], plots: Sequence[Figure] = (), steps: Sequence[ReportStep] = ()
    ) -> Path:
        """Write a command's result (`Result.as_dict()`) to `results/<command>.json`, and a page with its plots to
        `results/<command>.html`; return the path of the JSON file."""
        written = self.write_json(f"results/{command}.json", {"format": get_format_tag("result"), **result})
        self.write_page(command, result, plots, steps)
        return written

    def write_page(
        self,
        name: str,
        result: Mapping[str, Any],
        plots: Sequence[Figure] = (),
        steps: Sequence[ReportStep] = (),
        failed: str = "",
    ) -> Path:
        """Write the page of a result alone, to `results/<name>.html`; return its path.

        Args:
            failed: what it means that the result is not ok, such as 'diverged'.
        """
        # Imported here: most uses of a run folder render no page.
        from mlscale.report.html import render_page
        from mlscale.report.result import select_facts

        page = self._resolve_inside(f"results/{name}.html")
        make_folders(page.parent)
        mask, shown = self.masker.mask_text, self.masker.mask_tree(convert_to_json(result))
        about = {name: shown[name] for name in ("sentence", "ok", "metrics", "artifacts", "overrides")}
        text = render_page(
            f"{name} · {self.path.name}",
            failed=failed,
            figures=[plot.mask_texts(mask) for plot in plots],
            steps=[step.mask_texts(mask) for step in steps],
            facts=select_facts(shown.get("details", {})),
            **about,
        )
        write_text(page, text)
        return page

    def update_document(self, **changes: object) -> None:
        """Change keys of run.json, such as `loggers` and `data_version`. Only the launching process may call this."""
        write_json(self.path / RUN, {**self.run, **changes})

    def update_config(self, config_yaml: str, derived: Mapping[str, Any]) -> None:
        """Replace the stored config and derived values by those of this attempt: devices, trackers or the time limit
        may differ from the last attempt, and another layout derives other values."""
        derived_yaml = dump_yaml({**derived, "run_dir": str(self.path), "name": self.path.name})
        config_yaml = protect_yaml(config_yaml)
        # The proof that this user created the run first: after a kill in between, it is valid for old and new files.
        if not own.explain_unproven(self.path):
            self.update_document(**prove_ownership(self.id, config_yaml, derived_yaml, before=self.run.get("proof")))
        write_text(self.path / CONFIG, config_yaml)
        write_text(self.path / DERIVED, derived_yaml)

    def begin_queued(self, config_yaml: str, derived: Mapping[str, Any], **facts: object) -> None:
        """Begin the first attempt of a run that waited for its job, with what was unknown when it was submitted."""
        self.update_config(config_yaml, derived)
        self.update_document(attempts=[describe_attempt()], **facts)

    def note_agents(self, agents: Sequence[str]) -> None:
        """Record in the last attempt which processes have started its ranks; they outlive ranks that fail."""
        *earlier, last = self.run["attempts"]
        self.update_document(attempts=[*earlier, {**last, "agents": list(agents)}])

    def start_attempt(self, resumed_step: int = 0) -> None:
        """Resume this run: record a new attempt and the step that it resumes from; remove the last one's manifest."""
        run = self.run
        attempt = describe_attempt() | ({"resumed_step": resumed_step} if resumed_step else {})
        self.update_document(attempts=[*run["attempts"], attempt])
        (self.path / MANIFEST).unlink(missing_ok=True)

    def seal_run(
        self,
        status: str = "done",
        *,
        metrics: Mapping[str, float] | None = None,
        sentence: str = "",
        hardware: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write `manifest.json`, the last file of a run, and make the folder readable for its owner only.

        Args:
            status: done, failed, diverged or interrupted.
            metrics: name_unit to value.
            sentence: the outcome, in words; masked.
            hardware: properties of accelerators, added to those from the operating system.
        """
        assert status in ENDINGS, status
        try:
            make_private(self.path)
        except OSError as error:  # a disk that has become read-only
            raise create_write_error(self.path, error) from error
        started = datetime.fromisoformat(self.run["attempts"][-1]["started"])
        # A job's own files go on changing after the run is sealed: its log, its record.
        files = [
            path
            for path in iterate_regular_files(self.path)
            if not path.relative_to(self.path).as_posix().startswith((MANIFEST, *UNSEALED))
        ]
        manifest = {
            "format": get_format_tag("manifest"),
            "id": self.id,
            "status": status,
            "sentence": self.masker.mask_text(sentence),
            "ended": get_current_time(),
            # Not negative where the machine's clock was set back during the run.
            "duration_s": max(0.0, round(time.time() - started.timestamp(), 3)),
            "metrics": dict(metrics or {}),
            "hardware": {**machine.describe_hardware(), **(hardware or {})},
            "packages": machine.list_packages(),
            "artefacts": {
                path.relative_to(self.path).as_posix(): {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
                for path in files
            },
        }
        # Last of all files: its presence means that the run is complete.
        write_json(self.path / MANIFEST, manifest)
        return manifest

    def discard_run(self) -> None:
        """Undo a failed start: remove the folder, and the parent folders that it created, if empty."""
        remove_tree(self.path)
        remove_empty_folders(list(self._made))

    def _resolve_inside(self, name: str) -> Path:
        # Resolved first: `..` or a symbolic link must not lead out of the folder.
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise MLScaleError(
                "a run writes inside its own folder only",
                where=name,
                fix="a name below the run folder, such as results/mine.json",
            )
        return path
