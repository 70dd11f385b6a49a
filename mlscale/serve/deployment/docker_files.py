"""Render a Dockerfile for serving: a small image without torch, whose user may write nothing."""

from __future__ import annotations

import json
import sys

from mlscale.serve.deployment.deployment_settings import DeploymentSettings

_MODEL = "/model"
_UID = 10001  # no user of the host has it, and `runAsNonRoot` wants a number


def render_dockerfile(settings: DeploymentSettings) -> str:
    """Return the Dockerfile, with the commands that build and run the image as comments."""
    arguments = settings.build_arguments(_MODEL, in_container=True)
    port, image = settings.port, settings.image or f"serve-{settings.object_name}"
    probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=2)"
    passed = "".join(f" -e {name}" for name in settings.variables)
    return f"""\
# docker build -t {image} .
# docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --user "$(id -u)" -p 127.0.0.1:{port}:{port} \\
#   -v SERVABLE:{_MODEL}:ro{passed} {image}
# SERVABLE is the servable's folder; what terminates TLS is before the port.
FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm

ENV PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    OMP_WAIT_POLICY=PASSIVE

# All that the server imports, and no torch: without dependencies, as mlscale's own are those of training.
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir --no-deps -r /requirements.txt \\
    && useradd --system --no-create-home --uid {_UID} serve

USER {_UID}
WORKDIR /tmp
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD {_render_list(["python", "-c", probe])}

# As lists, so that signals reach the process: a shell would not pass them on. KServe replaces the second one.
ENTRYPOINT {_render_list(["python", "-m", "mlscale", arguments[0]])}
CMD {_render_list(arguments[1:])}
"""


def _render_list(words: list[str]) -> str:
    return json.dumps(words, ensure_ascii=False)
