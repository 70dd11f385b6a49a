"""The settings of deployment files, and the words of the server that they start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlscale.errors import MLScaleError

KSERVE, SYSTEMD, DOCKER = "kserve", "systemd", "docker"
KINDS = (KSERVE, SYSTEMD, DOCKER)
"""Platforms that files are written for."""
_VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)(?:,[^}]*)?\}")
# Its port and what it reads is set by the files; the others are about this call alone.
_OWN_KEYS = frozenset({"ref", "port", "deploy", "ready_file", "output", "runs_dir", "name"})
_QUANTITY = re.compile(r"\d+(\.\d*)?([KMGTPE]i|[mkMGTPE])?")
_MAX_NAME = 50  # characters: KServe appends to it, and a label has 63 at most


@dataclass(frozen=True)
class DeploymentSettings:
    """The settings of the key `deployment` and of the server.

    Attributes:
        name: of the model.
        words: the server's settings as they were typed, without what the files set themselves.
        variables: the environment variables that they name.
        provider: what computes the model.
        stop_s: seconds that a stop may take.
        image: the container's image.
        model_uri: where KServe fetches the servable from.
        namespace: of KServe's objects.
        secret_name: the Secret with `variables`.
        port: that it listens on.
        cpu, mem: of a pod.
        min_replicas, max_replicas: number of pods.
    """

    name: str
    words: tuple[str, ...]
    variables: tuple[str, ...]
    provider: str
    stop_s: float
    image: str
    model_uri: str
    namespace: str
    secret_name: str
    port: int
    cpu: str
    mem: str
    min_replicas: int
    max_replicas: int

    @property
    def object_name(self) -> str:
        """The model's name as Kubernetes and systemd accept it (RFC 1123)."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:_MAX_NAME].strip("-")
        return plain if plain[:1].isalpha() else f"model-{plain}".strip("-")

    def build_arguments(self, model: str, *, in_container: bool) -> list[str]:
        """Return the arguments of `mlscale` that serve the folder `model`.

        A container listens on all addresses, over HTTP: what is before it terminates TLS.
        """
        keys = {word.partition("=")[0] for word in self.words}
        words = ["serve", model, f"port={self.port}"]
        if not in_container:
            return [*words, *self.words]
        words += ["host=0.0.0.0", "behind_proxy=true"]
        # Its file system is read-only, and gone with it.
        words += [] if "events" in keys else ["events=null"]
        return [*words, *(word for word in self.words if word.partition("=")[0] not in ("host", "behind_proxy"))]


def list_server_words(typed: Sequence[str]) -> tuple[str, ...]:
    """Return the typed settings that belong to the server wherever it runs."""
    words = []
    for word in typed:
        key = word.lstrip("+").partition("=")[0]
        if "=" in word and key not in _OWN_KEYS and key.partition(".")[0] not in ("deployment", "registry"):
            words.append(word.lstrip("+"))
    return tuple(words)


def list_variables(words: Sequence[str]) -> tuple[str, ...]:
    """Return the environment variables that words name as `${oc.env:NAME}`, each once."""
    return tuple(dict.fromkeys(name for word in words for name in _VARIABLE.findall(word)))


def find_deployment_problems(kinds: Sequence[str], settings: DeploymentSettings) -> Iterator[MLScaleError]:
    """Yield each setting that the files can't be written with."""
    for kind in kinds:
        if kind not in KINDS:
            why = f"files are written for {', '.join(KINDS)}"
            yield MLScaleError(f"deploy names '{kind}'", where="deploy", why=why, fix=f"deploy=[{KSERVE}]")
    for word in settings.words:
        key, _, value = word.partition("=")
        if key == "api_key" and value not in ("null", "") and not _VARIABLE.search(value):
            yield MLScaleError(
                "the key would be in a file that others may read",
                where="api_key",
                fix="api_key='${oc.env:SERVE_KEY}', and the variable where it runs",
            )
        if key in ("tls_cert", "tls_key") and value != "null" and set(kinds) & {KSERVE, DOCKER}:
            why = "in a container the server speaks HTTP, and what is before it terminates TLS"
            yield MLScaleError(f"{key} is set", where=key, why=why, fix=f"{key}=null")
    if KSERVE not in kinds:
        return
    if not settings.image:
        why = "a pod runs an image, which deploy=docker writes the Dockerfile of"
        fix = "deployment.image=registry.example.com/serve:1"
        yield MLScaleError("KServe needs an image", where="deployment.image", why=why, fix=fix)
    if not settings.model_uri:
        why = "KServe fetches the servable's folder before the server starts"
        fix = "deployment.model_uri=pvc://models/resnet\ndeployment.model_uri=s3://models/resnet"
        yield MLScaleError("KServe needs the servable's address", where="deployment.model_uri", why=why, fix=fix)
    for key in ("cpu", "mem"):
        if not _QUANTITY.fullmatch(amount := getattr(settings, key)):
            why = "Kubernetes writes amounts as numbers with Ki, Mi, Gi, Ti, k, M, G, T, or m for thousandths"
            fix = f"deployment.{key}={'1' if key == 'cpu' else '1Gi'}"
            yield MLScaleError(f"deployment.{key} is '{amount}'", where=f"deployment.{key}", why=why, fix=fix)
    if not 1 <= settings.min_replicas <= settings.max_replicas:
        yield MLScaleError(
            f"pods from {settings.min_replicas} to {settings.max_replicas}",
            where="deployment.min_replicas, deployment.max_replicas",
            fix="deployment.min_replicas=1 deployment.max_replicas=1",
        )
