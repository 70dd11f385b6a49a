"""Write the files that run a server elsewhere: `mlscale serve REF deploy=[kserve,systemd,docker]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from mlscale.assembly.build import build
from mlscale.atomic_files import report_path_setting, write_text
from mlscale.errors import raise_all
from mlscale.report import Result
from mlscale.serve.deployment.deployment_settings import (
    DOCKER,
    KSERVE,
    SYSTEMD,
    DeploymentSettings,
    find_deployment_problems,
    list_server_words,
    list_variables,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

_UNREADY_S = 5.0  # the server's own default behind a load balancer
_MARGIN_S = 10.0  # of its end after the drain, in which events are written


def write_deployment_files(cfg: DictConfig) -> Result:
    """Write the files of each kind that `deploy` names.

    Raises:
        MLScaleError: a setting that the files can't be written with, or the model is not a servable.
    """
    from mlscale.contracts.servable_yaml import read_document
    from mlscale.serve.deployment.docker_files import render_dockerfile
    from mlscale.serve.deployment.kserve_manifests import render_kserve_manifests
    from mlscale.serve.deployment.serve_packages import list_serve_packages
    from mlscale.serve.deployment.systemd_unit import render_systemd_unit
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import require_servable

    registry = build(cfg.registry, "registry")
    model = resolve_reference(str(cfg.ref), runs_dir=cfg.runs_dir, registry=registry, quiet=True)
    model = require_servable(model, cfg.runs_dir)
    assert model.servable is not None
    settings = _read_deployment_settings(cfg, model.name)
    kinds = list(map(str, cfg.deploy))
    raise_all(list(find_deployment_problems(kinds, settings)))
    document = read_document(model.servable)
    files: dict[str, str] = {}
    if KSERVE in kinds:
        files["kserve.yaml"] = render_kserve_manifests(settings)
    if SYSTEMD in kinds:
        files[f"{settings.object_name}.service"] = render_systemd_unit(settings)
    if DOCKER in kinds:
        files["Dockerfile"] = render_dockerfile(settings)
    if {SYSTEMD, DOCKER} & set(kinds):
        packages = list_serve_packages(settings.provider, tokenizer=document.get("graph_start") == "tokens")
        files["requirements.txt"] = "\n".join(packages) + "\n"
    folder = Path(str(cfg.deployment.to)).expanduser().absolute()
    with report_path_setting("deployment.to"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
            # They hold no secrets, and kubectl, docker and systemd are often run by others.
            (folder / name).chmod(0o644)
    return Result(
        command="serve",
        ok=True,
        sentence=f"{model.version} is not served: {', '.join(files)} in {folder} serve it elsewhere",
        metrics={"files": len(files)},
        artifacts={name: str(folder / name) for name in files},
    )


def _read_deployment_settings(cfg: DictConfig, name: str) -> DeploymentSettings:
    from omegaconf import OmegaConf

    deployment = cfg.deployment
    # Unresolved: `api_key=${oc.env:NAME}` must not become the key itself.
    typed = OmegaConf.to_container(cfg.derived.overrides, resolve=False) if cfg.derived.overrides else []
    words = list_server_words(list(map(str, cast("list[str]", typed))))
    unready_s = _UNREADY_S if cfg.unready_s is None else float(cfg.unready_s)
    return DeploymentSettings(
        name=name,
        words=words,
        variables=list_variables(words),
        provider=str(cfg.provider),
        stop_s=unready_s + float(cfg.drain_s) + _MARGIN_S,
        image=str(deployment.image or ""),
        model_uri=str(deployment.model_uri or ""),
        namespace=str(deployment.namespace),
        secret_name=str(deployment.secret_name),
        port=int(deployment.port),
        cpu=str(deployment.cpu),
        mem=str(deployment.mem),
        min_replicas=int(deployment.min_replicas),
        max_replicas=int(deployment.max_replicas),
    )
