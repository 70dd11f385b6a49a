"""Sharded checkpoints of two ranks: the same state as one file, loadable anywhere, and never half there."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from mlscale.commands.runs.entry import main
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files import sharded_folder
from mlscale.runs.checkpoint_files.checkpoint_commit import remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_digest import (
    read_checkpoint_metadata,
    read_content_digest,
    verify_checkpoint,
)
from mlscale.runs.checkpoint_files.checkpoint_search import find_latest_valid, list_checkpoint_files
from mlscale.runs.checkpoint_files.sharded_folder import write_parts
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import find_initial_weights
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.one_file import consolidate_checkpoint
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from mlscale.train.initial_weights.weight_files import read_weight_file
from tests.conftest import NoPrivileges
from tests.dist import sharded, sharded_saves
from tests.dist.test_fsdp import assert_equal
from tests.dist.test_two_ranks import launch
from tests.unit.fitting import Loader, batches, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one state twice: `sharded.ckpt` and `whole.ckpt`."""
    folder = tmp_path_factory.mktemp("saved")
    launch(sharded_saves.save_both, str(folder))
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A sharded checkpoint that a test may change."""
    shutil.copytree(saved / "sharded.ckpt", tmp_path / "sharded.ckpt")
    return tmp_path / "sharded.ckpt"


def test_it_holds_the_state_of_one_file(saved: Path) -> None:
    parts, whole = (load_checkpoint_file(saved / name) for name in ("sharded.ckpt", "whole.ckpt"))
    assert list(parts) == list(whole)
    for key in whole:
        assert_equal(parts[key], whole[key], key)
    assert parts["state_dict"]._metadata == whole["state_dict"]._metadata


def test_each_rank_writes_its_part(saved: Path) -> None:
    folder = saved / "sharded.ckpt"
    names = {path.name for path in folder.iterdir()}
    assert names == {"__0_0.distcp", "__1_0.distcp", ".metadata", "parts.json", "state.ckpt"}
    first, second = ((folder / f"__{rank}_0.distcp").stat().st_size for rank in (0, 1))
    assert 0.5 < first / second < 2
    assert not list(saved.glob(".*"))


def test_torch_reads_it_too(saved: Path, tmp_path: Path) -> None:
    dcp_to_torch_save(saved / "sharded.ckpt", tmp_path / "flat.pt")
    flat = torch.load(tmp_path / "flat.pt", weights_only=True)
    weight = load_checkpoint_file(saved / "whole.ckpt")["state_dict"]["model.head.weight"]
    assert torch.equal(flat["state_dict/model.head.weight"], weight)


@pytest.mark.slow
def test_training_goes_on_from_it_on_two_ranks_and_on_one(tmp_path: Path) -> None:
    whole, _ = launch(sharded_saves.train, str(tmp_path / "kept"))
    found = {each.path.name: each for each in list_checkpoint_files(tmp_path / "kept")}
    assert set(found) == {"step=2.ckpt", "step=4.ckpt", "step=6.ckpt", "step=8.ckpt", "step=10.ckpt", "last.ckpt"}
    assert {verify_checkpoint(each.path).state for each in found.values()} == {"ok"}
    step = found["step=4.ckpt"].record
    assert step is not None
    assert (step.kind, step.step, step.resumable) == ("periodic", 4, True)
    resumed, _ = launch(sharded_saves.train, f"{tmp_path / 'again'} {tmp_path / 'kept/step=4.ckpt'}")
    assert resumed == whole[4:]
    alone = trainer(max_epochs=2, plugins=[VerifiedCheckpointIO()])
    module = sharded.task()
    alone.fit(
        module, Loader(batches(5)), Loader(batches(1)), ckpt_path=str(tmp_path / "kept/last.ckpt"), weights_only=True
    )
    assert alone.global_step == 10
    kept = load_checkpoint_file(tmp_path / "kept/last.ckpt")["state_dict"]
    assert torch.equal(module.state_dict()["model.head.weight"], kept["model.head.weight"])


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata", "parts.json", "state.ckpt"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_one_is_left_out(name: str, damage: str, copied: Path, saved: Path) -> None:
    path = copied / name
    if damage == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert verify_checkpoint(copied).is_corrupt
    latest, warnings = find_latest_valid(copied.parent)
    assert latest is None
    assert [str(copied) in warning for warning in warnings] == [True]
    assert f"{name} is {damage}" in warnings[0]
    with pytest.raises(MLScaleError, match=f"can't be used: .*{name} is {damage}"):
        load_checkpoint_file(copied)
    shutil.copy(saved / "whole.ckpt", copied.parent)
    assert find_latest_valid(copied.parent)[0] == copied.parent / "whole.ckpt"


def test_its_digest_is_that_of_its_parts(saved: Path, copied: Path) -> None:
    assert read_content_digest(copied) == read_content_digest(saved / "sharded.ckpt")
    assert len(read_content_digest(copied)) == 64


class Code:
    """What a pickle runs when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def sign(folder: Path) -> None:
    """Let the digests of a folder hold, as who has made it can."""
    import hashlib

    from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
    from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord

    names = [*json.loads((folder / "parts.json").read_text())]
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    parts = write_parts(folder, digests)
    state = torch.load(folder / "state.ckpt", weights_only=True)
    writer = AtomicCheckpointWriter(folder / "state.ckpt")
    torch.save(state, writer)  # type: ignore[arg-type]
    writer.commit_checkpoint(CheckpointRecord("last", 3, 0, parts=parts))
    assert verify_checkpoint(folder).state == "ok"


@pytest.mark.parametrize("where", ["index", "planner_data", "entry"])
def test_code_in_it_does_not_run(where: str, copied: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    code = Code(tmp_path / "ran")
    index: Any = pickle.loads((copied / ".metadata").read_bytes())
    if where == "index":
        index = code
    elif where == "planner_data":
        index.planner_data = code
    else:
        # torch unpickles such an entry with all that it names.
        name = next(iter(index.state_dict_metadata))
        index.state_dict_metadata[name] = BytesStorageMetadata()
    (copied / ".metadata").write_bytes(pickle.dumps(index))
    sign(copied)
    with pytest.raises(MLScaleError, match="can't be read") as caught:
        load_checkpoint_file(copied)
    assert "index" in caught.value.why
    assert not (tmp_path / "ran").exists()


def test_an_index_can_not_lead_out_of_the_folder_or_fill_the_memory(copied: Path) -> None:
    index: Any = pickle.loads((copied / ".metadata").read_bytes())
    content = (copied / ".metadata").read_bytes()
    next(iter(index.storage_data.values())).relative_path = "../whole.ckpt"
    (copied / ".metadata").write_bytes(pickle.dumps(index))
    sign(copied)
    with pytest.raises(MLScaleError) as caught:
        load_checkpoint_file(copied)
    assert "outside its folder" in caught.value.why
    index = pickle.loads(content)
    next(iter(index.state_dict_metadata.values())).size = torch.Size([1 << 20, 1 << 20])
    (copied / ".metadata").write_bytes(pickle.dumps(index))
    sign(copied)
    with pytest.raises(MLScaleError) as caught:
        load_checkpoint_file(copied)
    assert "more bytes" in caught.value.why


def test_a_disk_that_is_full_on_one_rank_fails_the_save_on_all(tmp_path: Path) -> None:
    for failed, saved, periodic in launch(sharded_saves.fill_disk, str(tmp_path / "kept")):
        assert (failed, saved) == (1, 1)
        assert periodic == ["step=4"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step=4.ckpt"]
    assert verify_checkpoint(tmp_path / "kept/step=4.ckpt").state == "ok"


def test_another_error_is_raised_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file, no folder")
    assert set(launch(sharded_saves.write_nowhere, str(tmp_path / "kept"))) == {"can't write the checkpoint last.ckpt"}


def test_what_a_killed_process_left_is_removed(copied: Path) -> None:
    folder = copied.parent
    copied.rename(folder / ".aside-last.ckpt-0a1b2c3d")
    remove_incomplete_checkpoints(folder)
    assert list(folder.iterdir()) == []


def test_one_is_consolidated_in_its_place(copied: Path, saved: Path) -> None:
    before = read_checkpoint_metadata(copied).record
    assert before is not None
    consolidate_checkpoint(copied)
    assert copied.is_file()
    whole = torch.load(copied, weights_only=True)
    assert_equal(whole["state_dict"], load_checkpoint_file(saved / "whole.ckpt")["state_dict"], "state_dict")
    after = verify_checkpoint(copied)
    assert after.state == "ok"
    assert after.record is not None
    assert (after.record.step, after.record.time, after.record.parts) == (before.step, before.time, None)
    assert [path.name for path in copied.parent.iterdir()] == ["sharded.ckpt"]


def test_what_can_be_read_is_consolidated(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_privileges: NoPrivileges
) -> None:
    run = RunFolder.create(tmp_path / "runs", "gpt", command="train", config_yaml="seed: 0\n")
    folder = run.path / "checkpoints"
    for name in ("a", "b", "c"):
        shutil.copytree(saved / "sharded.ckpt", folder / f"{name}.ckpt")
    with (folder / "a.ckpt/__0_0.distcp").open("r+b") as part:
        part.truncate(100)
    (folder / "b.ckpt/parts.json").unlink()
    (folder / ".aside-c.ckpt-0a1b2c3d").write_bytes(b"half, of an earlier one that was killed")
    words = ("consolidate", run.id, f"runs_dir={tmp_path / 'runs'}")
    with no_privileges(tmp_path / "runs", read_only=folder), pytest.raises(MLScaleError) as unwritten:
        main(words)
    assert unwritten.value.fix.startswith(f"cp -r {run.path} <a folder you may write to")
    with pytest.raises(MLScaleError) as caught:
        main(words)
    assert capsys.readouterr().out.startswith("c.ckpt: one file of ")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["a.ckpt", "b.ckpt"]
    assert verify_checkpoint(folder / "c.ckpt").state == "ok"
    assert not list(folder.glob(".*"))
    problems = caught.value.list_problems()
    assert ["__0_0.distcp is cut short, 100 of" in problems[0].what, "parts.json is missing" in problems[1].what] == [
        True,
        True,
    ]
    assert {problem.fix.partition(",")[0] for problem in problems} == {f"mlscale runs checkpoints {run.id}"}
    assert main((*words, "output=json")) == 2
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 2
    assert main(("checkpoints", *words[1:])) == 2
    assert "__0_0.distcp is cut short" in capsys.readouterr().out


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("old", ["file", "folder"])
def test_it_replaces_what_has_its_name(
    old: str, can_exchange: bool, copied: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment a search finds one of the two, also where they can't be exchanged in one step."""
    target = copied.parent / "last.ckpt"
    if old == "file":
        shutil.copy(saved / "whole.ckpt", target)
    else:
        shutil.copytree(copied, target)
    found: list[Path | None] = []
    rename = Path.rename

    def rename_and_search(path: Path, to: Path) -> Path:
        made = rename(path, to)
        found.append(find_latest_valid(target.parent)[0])
        return made

    aside = copied.rename(copied.with_name(".aside-last.ckpt-1"))
    with monkeypatch.context() as patch:
        if not can_exchange:
            patch.setattr(sharded_folder, "exchange_paths", lambda *_: False)
        patch.setattr(Path, "rename", rename_and_search)
        sharded_folder.replace_path(aside, target)
    assert None not in found
    assert sharded_folder.is_sharded(target)
    assert verify_checkpoint(target).state == "ok"
    assert [path.name for path in target.parent.iterdir()] == ["last.ckpt"]


def test_an_old_one_with_another_name_is_found_and_removed_later(copied: Path) -> None:
    """A process was killed between the two renames."""
    other = copied.rename(copied.with_name("last.replaced.ckpt"))
    assert find_latest_valid(other.parent)[0] == other
    remove_incomplete_checkpoints(other.parent)
    assert other.exists()
    shutil.copytree(other, other.with_name("last.ckpt"))
    remove_incomplete_checkpoints(other.parent)
    assert [path.name for path in other.parent.iterdir()] == ["last.ckpt"]


def test_a_file_takes_the_place_of_a_folder(copied: Path, saved: Path) -> None:
    VerifiedCheckpointIO().save_checkpoint(load_checkpoint_file(saved / "whole.ckpt"), copied)
    assert copied.is_file()
    assert verify_checkpoint(copied).state == "ok"
    assert [path.name for path in copied.parent.iterdir()] == ["sharded.ckpt"]


def test_a_run_starts_from_its_weights(copied: Path, saved: Path) -> None:
    weights = find_initial_weights(str(copied), copied.parent)
    assert (weights.checkpoint, weights.sha256) == (copied, read_content_digest(copied))
    weights.check_unchanged()
    assert_equal(read_weight_file(copied), read_weight_file(saved / "whole.ckpt"), "weights")
