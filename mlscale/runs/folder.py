"""The run folder: one run, one place, written so that it is whole or absent at every moment.

`<root>/<date>/<name>-<id>/` holds `run.json` from the start, `config.yaml` (as composed, interpolations kept),
`derived.yaml`, `results/`, `logs/`, `checkpoints/`, and `manifest.json` last, as the seal.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.contracts import stamp
from mlscale.errors import MLScaleError
from mlscale.files import (
    ASIDE,
    artefacts,
    encoded,
    make_folders,
    make_private,
    plain,
    remove_empty,
    remove_tree,
    sha256,
    unwritable,
    write_bytes,
    write_json,
    write_text,
)
from mlscale.runs import machine, recover
from mlscale.runs import ownership as own
from mlscale.runs import processes as process
from mlscale.runs.code_snapshot import Snapshot
from mlscale.runs.identity import config_hash, folder_name, key_digests, new_id, now
from mlscale.runs.sweep_folder import start_sweep
from mlscale.secrets.config_secrets import mask_overrides, protect_yaml
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from mlscale.report.figures import Figure, Step

RUN, MANIFEST, CONFIG, DERIVED = recover.RUN, recover.MANIFEST, recover.CONFIG, recover.DERIVED
CODE = "code.tar.gz"
SUBFOLDERS = ("results", "logs", "checkpoints")
ENDINGS = ("done", "failed", "diverged", "interrupted")


def new_path(root: str | Path, name: str) -> Path:
    """A path for a new run or sweep, `<root>/<date>/<name>-<id>`; nothing is made."""
    return Path(root) / datetime.now().strftime("%Y-%m-%d") / f"{folder_name(name)}-{new_id()}"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, new or found again.

    Attributes:
        path: the folder, absolute.
        id: 12 characters that sort by time.
        masker: takes secrets out of what is written here.
    """

    path: Path
    id: str
    masker: Masker = field(default_factory=Masker, repr=False, compare=False)
    _made: tuple[Path, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        *,
        verb: str,
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
        code: Snapshot | None = None,
        parent: str | None = None,
        init: Mapping[str, Any] | None = None,
        sweep: str | Path | None = None,
        masker: Masker | None = None,
    ) -> RunFolder:
        """Start a run: make its folder with all that is known now, in one step; a reader never sees half of it.

        Args:
            root: the folder for run folders (`runs_dir`); made if need be.
            name: the run's name; with the id it names the folder.
            verb: the verb that runs.
            config_yaml: the composed config as YAML text, interpolations kept. Literal secrets in it are moved out.
            derived: what `derived.yaml` keeps; `run_dir` and `name` are added.
            seed, data_version, order_version: what the order of samples follows from.
            decode_version: of the decoder that images become pixels by; None where there are none.
            label_digest: of the labels of all splits, which the data version does not cover.
            overrides: as typed; kept masked.
            tags, notes: the user's words; kept masked.
            metric, mode: what judges this run, for `runs ls`.
            loggers: tracker to its id for this run.
            code: the snapshot of the code, if one was taken.
            parent: the id of the run that this one starts from.
            init: the weights that it starts from (`Initial.document()`).
            sweep: the sweep's folder; the run's folder is made in it instead of in `<root>/<date>`.
            masker: takes secrets out of tags, notes and results.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5). Nothing is left behind.
        """
        masker = masker or Masker()
        config_yaml = protect_yaml(config_yaml)
        for _ in range(8):  # the id is 25 random bits beside the time: a second round is next to impossible
            path = new_path(root, name).absolute()
            path = Path(sweep).absolute() / path.name if sweep else path
            run_id = path.name.rsplit("-", 1)[1]
            document = {
                "format": stamp("run"),
                "id": run_id,
                "name": name,
                "verb": verb,
                "created": now(),
                "config_hash": config_hash(config_yaml),
                "config_digests": key_digests(config_yaml),
                "seed": seed,
                "data_version": data_version,
                "label_digest": label_digest,
                "order_version": order_version,
                **({"decode_version": decode_version} if decode_version is not None else {}),
                "code": code.summary() if code else None,
                "parent": parent,
                **({"init": dict(init)} if init else {}),
                "sweep": Path(sweep).name.rsplit("-", 1)[-1] if sweep else None,
                "overrides": [masker.mask(override) for override in mask_overrides(overrides)],
                "tags": [masker.mask(tag) for tag in tags],
                "notes": masker.mask(notes),
                "metric": metric,
                "mode": mode,
                "loggers": dict(loggers or {}),
                "attempts": [_attempt()],
            }
            derived_yaml = _yaml({**(derived or {}), "run_dir": str(path), "name": path.name})
            document |= _proof(run_id, config_yaml, derived_yaml, code)
            made = make_folders(path.parent)
            if sweep:
                start_sweep(sweep, name)
            aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
            try:
                _fill(aside, document, config_yaml, derived_yaml, code)
                aside.rename(path)
            except OSError as error:
                refused = unwritable(path, error)  # what is cleared away frees the inodes that were missing
                _clear(aside, made)
                if path.exists():
                    continue
                raise refused from error
            except MLScaleError:
                _clear(aside, made)
                raise
            return cls(path, run_id, masker, tuple(made))
        raise MLScaleError(
            "can't find a free name for the run folder", where=str(root), fix="runs_dir=<another folder>"
        )

    @classmethod
    def open(cls, path: str | Path, masker: Masker | None = None) -> RunFolder:
        """The run in the folder `path`.

        Raises:
            MLScaleError: it is no run folder, its run.json is of a later format, or it is damaged beyond recovery.
        """
        folder = Path(path).absolute()
        if not recover.is_run_folder(folder):
            raise MLScaleError("this is no run folder: it has no run.json", where=str(path), fix="mlscale runs ls")
        return cls(folder, str(recover.run_document(folder)["id"]), masker or Masker())

    # What it holds

    @property
    def run(self) -> dict[str, Any]:
        """run.json, or what can be recovered of it."""
        return recover.run_document(self.path)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """manifest.json; None as long as the run is not sealed, and where the seal is damaged."""
        return recover.manifest(self.path)

    @property
    def config_text(self) -> str:
        """config.yaml: the composed config, interpolations kept.

        Raises:
            MLScaleError: it is damaged.
        """
        recover.yaml_values(self.path / CONFIG)
        return (self.path / CONFIG).read_text(encoding="utf-8")

    @property
    def derived(self) -> dict[str, Any]:
        """derived.yaml: the values that were filled in at start.

        Raises:
            MLScaleError: it is damaged.
        """
        return recover.yaml_values(self.path / DERIVED)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results by command."""
        return recover.results(self.path)

    @property
    def checkpoints(self) -> list[Path]:
        """The entries of `checkpoints/`, oldest first."""
        found = (path for path in (self.path / "checkpoints").glob("*") if not path.name.startswith("."))
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    @property
    def status(self) -> str:
        """done, failed, diverged or interrupted once sealed; before that running, elsewhere (on another machine, where
        this one can't see whether it still runs), or crashed: it ended without a word."""
        manifest = self.manifest
        if manifest is not None:
            return str(manifest["status"])
        return process.state(self.run["attempts"][-1])

    # What is written to it

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON file, whole or not at all, secrets masked; `name` may have folders. Returns its path."""
        path = self._inside(name)
        make_folders(path.parent)
        write_json(path, self.masker.mask_tree(plain(value)))
        return path

    def result(
        self, verb: str, result: Mapping[str, Any], figures: Sequence[Figure] = (), steps: Sequence[Step] = ()
    ) -> Path:
        """Keep a verb's result (`Result.as_dict()`) as `results/<verb>.json`, and as a page with its plots beside it:
        `results/<verb>.html`. Returns the path of the first."""
        from mlscale.report.html import page

        written = self.write_json(f"results/{verb}.json", {"format": stamp("result"), **result})
        mask, shown = self.masker.mask, self.masker.mask_tree(plain(result))
        about = {name: shown[name] for name in ("sentence", "ok", "metrics", "artifacts", "overrides")}
        text = page(
            f"{verb} · {self.path.name}",
            figures=[figure.masked(mask) for figure in figures],
            steps=[step.masked(mask) for step in steps],
            **about,
        )
        write_text(written.with_suffix(".html"), text)
        return written

    def update(self, **changes: Any) -> None:
        """Change keys of run.json: `loggers`, `data_version`. Only the launching process does."""
        write_json(self.path / RUN, {**self.run, **changes})

    def set_anew(self, config_yaml: str, derived: Mapping[str, Any]) -> None:
        """Keep the config of this attempt, in which devices, trackers or the time limit may be others, and the values
        that were filled in for it: another layout derives others."""
        derived = {**derived, "run_dir": str(self.path), "name": self.path.name}
        self._replace(protect_yaml(config_yaml), _yaml(derived))

    def _replace(self, config_yaml: str, derived_yaml: str) -> None:
        """Replace config.yaml and derived.yaml. A run of this user stays one."""
        if not own.doubt(self.path):  # the proof comes first, for a kill may come between
            self.update(**_proof(self.id, config_yaml, derived_yaml, before=self.run.get("proof")))
        write_text(self.path / CONFIG, config_yaml)
        write_text(self.path / DERIVED, derived_yaml)

    def judge_by(self, metric: str | None, mode: str | None) -> None:
        """Keep what judges the run, where that is known only once something has been logged. The first rank calls it,
        while the launching process waits."""
        self.update(metric=metric, mode=mode)
        self._replace(self.config_text, _yaml({**self.derived, "metric": metric, "mode": mode}))

    def attempt(self) -> None:
        """Go on with this run: note the attempt, and take off the seal of the last one."""
        run = self.run
        self.update(attempts=[*run["attempts"], _attempt()])
        (self.path / MANIFEST).unlink(missing_ok=True)

    def seal(
        self,
        status: str = "done",
        *,
        metrics: Mapping[str, float] | None = None,
        sentence: str = "",
        hardware: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write `manifest.json`, the last file of a run, and take the folder's files from everybody else.

        Args:
            status: done, failed, diverged or interrupted.
            metrics: name_unit to value.
            sentence: how it went, in words; masked.
            hardware: what the caller knows of accelerators, added to what the system tells.
        """
        assert status in ENDINGS, status
        try:
            make_private(self.path)
        except OSError as error:  # a disk that has become read-only
            raise unwritable(self.path, error) from error
        started = datetime.fromisoformat(self.run["attempts"][-1]["started"])
        files = [path for path in artefacts(self.path) if path != self.path / MANIFEST]
        manifest = {
            "format": stamp("manifest"),
            "id": self.id,
            "status": status,
            "sentence": self.masker.mask(sentence),
            "ended": now(),
            "duration_s": max(0.0, round(time.time() - started.timestamp(), 3)),
            "metrics": dict(metrics or {}),
            "hardware": {**machine.describe(), **(hardware or {})},
            "packages": machine.packages(),
            "artefacts": {
                path.relative_to(self.path).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
                for path in files
            },
        }
        write_json(self.path / MANIFEST, manifest)
        return manifest

    def changed(self) -> list[str]:
        """The artefacts that are gone or differ from the sealed manifest, by path; empty for a run without a seal."""
        sealed = (self.manifest or {}).get("artefacts", {})
        return [name for name, entry in sealed.items() if not _same(self.path / name, entry)]

    def discard(self) -> None:
        """Take back a start that failed: the folder goes, and the folders above that it made, where empty."""
        remove_tree(self.path)
        remove_empty(list(self._made))

    def _inside(self, name: str) -> Path:
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise MLScaleError(
                "a run writes inside its own folder only",
                where=name,
                fix="a name below the run folder, such as results/mine.json",
            )
        return path


def _attempt() -> dict[str, Any]:
    return {"started": now(), "host": socket.gethostname(), **process.this()}


def _proof(
    run_id: str, config: str, derived: str, code: Snapshot | None = None, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What run.json holds to prove that this user created the run: nothing, where the user has no key."""
    contents = {CONFIG: encoded(config), DERIVED: encoded(derived), **({CODE: code.archive} if code else {})}
    proof = own.prove(run_id, contents, before)
    return {"proof": proof} if proof else {}


def _fill(folder: Path, run: dict[str, Any], config: str, derived: str, code: Snapshot | None) -> None:
    folder.mkdir(mode=0o700)
    for name in SUBFOLDERS:
        (folder / name).mkdir(mode=0o700)
    write_text(folder / CONFIG, config)
    write_text(folder / DERIVED, derived)
    if code is not None:
        write_bytes(folder / CODE, code.archive)
        write_json(folder / "code.json", code.document())
    write_json(folder / RUN, run)


def _yaml(values: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True))


def _clear(aside: Path, made: list[Path]) -> None:
    if aside.exists():
        remove_tree(aside)
    remove_empty(made)


def _same(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and sha256(path) == entry["sha256"]
