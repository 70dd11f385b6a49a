"""A job and settings of `launch` for tests."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlscale.launch.cloud import CloudJob

REPO = Path(__file__).parents[3]


def make_job(run: Path, **values: Any) -> CloudJob:
    run.mkdir(exist_ok=True)
    for name, text in {"run.json": '{"id": "1"}\n', "config.yaml": "seed: 0\n", "derived.yaml": "{}\n"}.items():
        (run / name).write_text(text)
    usual = {"name": "resnet-1", "run": run, "runs_dir": "/mnt/mlscale/runs", "nodes": 2, "devices": 4}
    return CloudJob(**{**usual, "uses_gpus": True, **values})


def read_launch(platform: str, **values: Any) -> dict[str, Any]:
    shipped = OmegaConf.to_container(OmegaConf.load(REPO / f"conf/launch/{platform}.yaml"))
    assert isinstance(shipped, dict)
    return {**{str(name): value for name, value in shipped.items()}, **values}
