"""Every tracker is told the same: names, steps, values; and a run that is killed goes on in the same one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale import commands
from mlscale.train import loggers
from scripts.mlflow_server import Server, free_port, serving
from tests.contract import tracked
from tests.contract.commands import environment, mlscale, only_run
from tests.contract.fake_wandb import FakeWandb
from tests.contract.tracked import Kept

OFFLINE = {"csv": tracked.of_csv, "tensorboard": tracked.of_tensorboard, "wandb": tracked.of_wandb_offline}
MEDIA = {
    "csv": tracked.media_of_csv,
    "tensorboard": tracked.media_of_tensorboard,
    "wandb": tracked.media_of_wandb_offline,
}
NAMES = {"train/loss", "train/lr", "train/samples_per_s", "train/loss_epoch", "val/loss", "val/accuracy", "epoch"}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The logs of one run with every tracker that needs no server."""
    folder = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
            patched.delenv(name, raising=False)
        patched.setenv("HOME", str(folder))
        patched.setenv("WANDB_CONFIG_DIR", str(folder))
        words = [
            *tracked.WORDS,
            tracked.SAMPLES,
            f"logger=[{','.join(OFFLINE)}]",
            f"runs_dir={folder}/runs",
            f"data.root={folder}/digits",
        ]
        run = commands.run_command("train", words).artifacts["run"]
        yield Path(run, "logs")


def same(found: Kept, expected: Kept) -> None:
    assert {name for name, _ in expected} >= NAMES
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key[0] not in ("train/samples_per_s", "train/peak_memory_gib"):
            assert found[key] == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("tracker", OFFLINE)
def test_names_steps_and_values_are_the_same_in_all(logs: Path, tracker: str) -> None:
    expected = tracked.of_csv(logs)
    assert ("train/loss", 43) in expected
    same(OFFLINE[tracker](logs), expected)


@pytest.mark.parametrize("tracker", MEDIA)
def test_pictures_and_tables_are_the_same_in_all(logs: Path, tracker: str) -> None:
    expected = tracked.media_of_csv(logs)
    assert set(expected) == {(name, step) for name in ("val/samples", "val/samples_table") for step in (21, 43)}
    assert expected["val/samples_table", 43][0] == ["key", "truth", "prediction"]
    assert len(expected["val/samples_table", 43]) == 1 + 21
    assert expected["val/samples", 43][0] == (1784, 980)
    assert expected["val/samples", 21] != expected["val/samples", 43]
    assert MEDIA[tracker](logs) == expected


@pytest.mark.slow
def test_a_killed_run_goes_on_in_csv_and_tensorboard_as_if_it_had_not_been(tmp_path: Path, logs: Path) -> None:
    env = environment(tmp_path)
    words = tracked.killed(tmp_path, 13)
    assert mlscale(tmp_path, *words, "logger=[csv,tensorboard]", env=env).returncode == -9
    done = mlscale(tmp_path, "runs", "resume", "last", env=env)
    assert done.returncode == 0, done.stderr
    there = only_run(tmp_path) / "logs"
    expected = tracked.of_csv(logs)
    same(tracked.of_csv(there), expected)
    same(tracked.of_tensorboard(there), expected)


@pytest.mark.slow
def test_a_killed_run_is_the_same_run_at_wandb(tmp_path: Path, logs: Path) -> None:
    with FakeWandb() as server:
        env = environment(tmp_path, **server.env())
        assert mlscale(tmp_path, *tracked.killed(tmp_path, 13), "logger=[csv,wandb]", env=env).returncode == -9
        done = mlscale(tmp_path, "runs", "resume", "last", env=env)
    assert done.returncode == 0, done.stderr
    ((run_id, run),) = server.runs.items()
    assert run_id == only_run(tmp_path).name
    assert run["state"] == "finished"
    same(tracked.of_history(run["history"]), tracked.of_csv(logs))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server, of MLflow's own package."""
    with serving(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(900)  # its environment is made on first use
def test_a_killed_run_is_the_same_run_at_mlflow(tmp_path: Path, logs: Path, mlflow: Server) -> None:
    env = environment(tmp_path, MLFLOW_TRACKING_URI=mlflow.url)
    words = [*tracked.killed(tmp_path, 13), "logger=[csv,mlflow]", "tags=[a]", "notes=why"]
    words += ["logger.mlflow.artifacts=[config.yaml,checkpoints/best.ckpt]", "output=json"]
    assert mlscale(tmp_path, *words, env=env).returncode == -9
    done = mlscale(tmp_path, "runs", "resume", "last", env=env)
    assert done.returncode == 0, done.stderr
    kept, run = tracked.of_mlflow(mlflow.url, only_run(tmp_path).name)
    same(kept, tracked.of_csv(logs))
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer._target_"] == "torch.optim.SGD"
    assert (run.data.tags["a"], run.data.tags["mlflow.note.content"]) == ("true", "why")
    from mlflow.tracking import MlflowClient

    listed = MlflowClient(mlflow.url).list_artifacts
    assert {each.path for each in listed(run.info.run_id)} == {"config.yaml", "checkpoints"}
    assert [each.path for each in listed(run.info.run_id, "checkpoints")] == ["checkpoints/best.ckpt"]
    assert not list(only_run(tmp_path).glob("logs/mlflow-unsent*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pictures_and_tables_are_the_same_at_mlflow(tmp_path: Path, mlflow: Server) -> None:
    env = environment(tmp_path, MLFLOW_TRACKING_URI=mlflow.url)
    done = mlscale(tmp_path, *tracked.WORDS, tracked.SAMPLES, "logger=[csv,mlflow]", env=env)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    kept = tracked.media_of_mlflow(mlflow.url, run.name, tmp_path / "fetched")
    assert set(kept) == {(name, step) for name in ("val/samples", "val/samples_table") for step in (21, 43)}
    assert kept == tracked.media_of_csv(run / "logs")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_name_that_mlflow_refuses_holds_no_entry_up(tmp_path: Path, mlflow: Server) -> None:
    logger: Any = loggers.mlflow(str(tmp_path / "logs"), mlflow.url, name="odd")
    logger.log_hyperparams({"param": {"a@b": 1}})
    logger.log_metrics({"val/top@5": 0.5, "val/a b-c.d:é": 0.25}, 3)
    logger.finish()
    kept, run = tracked.of_mlflow(mlflow.url, "odd")
    assert kept == {("val/top_5", 3): 0.5, ("val/a b-c.d:é", 3): 0.25}
    assert run.data.params == {"param.a_b": "1"}
    assert run.info.status == "FINISHED"
    assert not list(tmp_path.glob("logs/*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_is_away_ends_no_run_and_gets_it_all_later(tmp_path: Path, mlflow: Server, logs: Path) -> None:
    port = free_port()
    env = environment(tmp_path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    done = mlscale(tmp_path, *tracked.WORDS, "logger=[csv,mlflow]", env=env)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert len(printed) == 2, done.stderr
    assert "not reached, training continues" in printed[0]
    assert "to send them: mlscale runs send" in printed[1]
    refused = mlscale(tmp_path, "runs", "send", "last", env=env)
    assert refused.returncode == 5
    assert "does not take the entries" in refused.stderr
    with serving(tmp_path / "server", port) as server:
        sent = mlscale(tmp_path, "runs", "send", "last", env=env)
        assert sent.returncode == 0, sent.stderr
        kept, run = tracked.of_mlflow(server.url, only_run(tmp_path).name)
        again = mlscale(tmp_path, "runs", "send", "last", env=env)
    same(kept, tracked.of_csv(logs))
    assert run.info.status == "FINISHED"
    assert "nothing of" in again.stderr


def test_what_a_killed_process_had_reported_tensorboard_after_the_checkpoint_counts_no_longer(tmp_path: Path) -> None:
    logger: Any = loggers.tensorboard(str(tmp_path))
    for step in range(4):
        logger.log_metrics({"val/loss": 1.0}, step)
        if step == 2:
            loggers.log_image([logger], "val/sheet", np.zeros((4, 6), np.uint8), step)
            saved = logger.state_dict()
    logger.finalize("failed")
    logger = loggers.tensorboard(str(tmp_path))
    assert logger.experiment is not None  # Lightning asks for it before it reads the checkpoint
    logger.load_state_dict(saved)
    logger.log_metrics({"val/loss": 2.0}, 3)
    logger.finalize("success")
    assert tracked.of_tensorboard(tmp_path) == {("val/loss", step): 2.0 if step == 3 else 1.0 for step in range(4)}
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [image.step for image in events.Images("val/sheet")] == [2]


def test_images_and_tables_go_to_every_tracker(tmp_path: Path) -> None:
    trackers = [loggers.csv(str(tmp_path / "csv")), loggers.tensorboard(str(tmp_path / "tensorboard"))]
    pixels = np.zeros((4, 6, 3), np.uint8)
    loggers.log_image([*trackers, object()], "val/sheet", pixels, 3)
    loggers.log_table(trackers, "val/worst", ("key", "loss"), [("a|b", 1.5)], 3)
    for tracker in trackers:
        tracker.finalize("success")
    assert (tmp_path / "csv/media/val/sheet/3.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "csv/media/val/worst/3.csv").read_text().splitlines() == ["key,loss", "a|b,1.5"]
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (image,) = events.Images("val/sheet")
    assert (image.width, image.height, image.step) == (6, 4, 3)
    (text,) = events.Tensors("val/worst/text_summary")
    assert b"| a\\|b | 1.5 |" in text.tensor_proto.string_val[0]
