"""Render a ServingRuntime and an InferenceService for KServe, which speaks to the server by the V2 protocol alone."""

from __future__ import annotations

from typing import Any

import yaml

from mlscale.serve.deployment.deployment_settings import DeploymentSettings

Manifest = dict[str, Any]
FORMAT = "mlscale"
_MODELS = "/mnt/models"  # where KServe's storage initializer puts what `storageUri` names
_MODE = "serving.kserve.io/deploymentMode"
_GPU = "nvidia.com/gpu"
_START_S = 300  # loading, warm-up requests and the compiler of a runtime take this long at most


def build_kserve_manifests(settings: DeploymentSettings) -> list[Manifest]:
    """Return the runtime, which is the image with its command, and the service, which is the model."""
    return [_build_runtime(settings), _build_service(settings)]


def render_kserve_manifests(settings: DeploymentSettings) -> str:
    """Return the manifests as one YAML text, for `kubectl apply -f`."""
    documents = [
        yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
        for manifest in build_kserve_manifests(settings)
    ]
    head = f"# kubectl apply -n {settings.namespace} -f kserve.yaml\n"
    if settings.variables:
        literals = " ".join(f'--from-literal={name}="${name}"' for name in settings.variables)
        head += f"# kubectl create secret generic {settings.secret_name} -n {settings.namespace} {literals}\n"
    return head + "---\n".join(documents)


def _build_metadata(settings: DeploymentSettings) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "mlscale", "app.kubernetes.io/name": settings.object_name}
    return {"name": settings.object_name, "namespace": settings.namespace, "labels": labels}


def _build_runtime(settings: DeploymentSettings) -> Manifest:
    container: Manifest = {
        "name": "kserve-container",  # the name that KServe expects
        "image": settings.image,
        "args": [_keep_literal(word) for word in settings.build_arguments(_MODELS, in_container=True)[1:]],
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.secret_name, "key": name}}}
            for name in settings.variables
        ],
        "ports": [{"containerPort": settings.port, "protocol": "TCP"}],
        # Until it has started once, neither of the other probes counts.
        "startupProbe": {**_build_probe("ready", settings.port), "periodSeconds": 5, "failureThreshold": _START_S // 5},
        "readinessProbe": {**_build_probe("ready", settings.port), "periodSeconds": 5},
        "livenessProbe": {**_build_probe("live", settings.port), "periodSeconds": 10, "failureThreshold": 6},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # For the sockets of the processes that decode large requests.
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a mount of the pod
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": _build_metadata(settings),
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
        },
    }


def _build_service(settings: DeploymentSettings) -> Manifest:
    resources = {"cpu": settings.cpu, "memory": settings.mem}
    if settings.provider in ("cuda", "tensorrt"):
        resources[_GPU] = "1"
    model: Manifest = {
        "modelFormat": {"name": FORMAT, "version": "1"},
        "protocolVersion": "v2",
        "runtime": settings.object_name,
        "storageUri": settings.model_uri,
        # Equal: a pod whose requests are its limits is evicted last.
        "resources": {"requests": resources, "limits": dict(resources)},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        # A plain Deployment: Knative's services take no time for a graceful shutdown.
        "metadata": {**_build_metadata(settings), "annotations": {_MODE: "RawDeployment"}},
        "spec": {
            "predictor": {
                "minReplicas": settings.min_replicas,
                "maxReplicas": settings.max_replicas,
                # Longer than the server's own drain: SIGKILL would cut requests off.
                "terminationGracePeriodSeconds": round(settings.stop_s),
                "model": model,
            }
        },
    }


def _build_probe(state: str, port: int) -> Manifest:
    return {"httpGet": {"path": f"/v2/health/{state}", "port": port, "scheme": "HTTP"}, "timeoutSeconds": 3}


def _keep_literal(text: str) -> str:
    """Return a text that Kubernetes does not expand: `$(NAME)` in it would be replaced by a variable."""
    return text.replace("$(", "$$(")
