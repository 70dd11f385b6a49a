"""Render a systemd unit that may do nothing but serve: a user of its own, no writes but events, no privileges."""

from __future__ import annotations

from mlscale.serve.deployment.deployment_settings import DeploymentSettings

_ROOT = "/opt/mlscale"
# What a server needs of the system: sockets, its folder of events, reading. Each line takes something else away.
_HARDENING = """\
DynamicUser=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
{devices}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
{memory}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""


def render_systemd_unit(settings: DeploymentSettings) -> str:
    """Return the unit, with the commands that install it on a machine as comments."""
    name = settings.object_name
    root = f"{_ROOT}/{name}"
    words = [f"{root}/venv/bin/python", "-m", "mlscale", *settings.build_arguments(f"{root}/model", in_container=False)]
    hardening = _HARDENING.format(
        devices="DevicePolicy=closed\nDeviceAllow=char-nvidia* rw" if _uses_gpu(settings) else "PrivateDevices=yes",
        # Compilers of OpenVINO and CUDA write machine code; ONNX Runtime on the CPU does not.
        memory="MemoryDenyWriteExecute=yes\n" if settings.provider == "cpu" else "",
    )
    environment = f"EnvironmentFile=/etc/mlscale/{name}.env\n" if settings.variables else ""
    return f"""{_format_install_commands(settings, root)}
[Unit]
Description=mlscale serve {_escape(settings.name)}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={" ".join(map(_quote, words))}
# Events are below /var/lib/mlscale-{name}, which outlives the user.
StateDirectory=mlscale-{name}
WorkingDirectory=/var/lib/mlscale-{name}
{environment}Environment=OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=2
# A wrong setting, a model that is refused, or an absent library stays what it is.
RestartPreventExitStatus=2 4 5
KillMode=mixed
LimitNOFILE=65536
TimeoutStopSec={round(settings.stop_s)}

{hardening}
[Install]
WantedBy=multi-user.target
"""


def _format_install_commands(settings: DeploymentSettings, root: str) -> str:
    name = settings.object_name
    lines = [
        "As root, with the servable's folder as SERVABLE:",
        f"  mkdir -p {root} && cp -r SERVABLE {root}/model && chmod -R a+rX {root}",
        f"  python3 -m venv {root}/venv && {root}/venv/bin/pip install --no-deps -r requirements.txt",
    ]
    if settings.variables:
        # Read by systemd itself, so that the server's user needs no right to it.
        variables = ", ".join(f"{variable}=…" for variable in settings.variables)
        lines.append(f"  install -D -m 600 /dev/null /etc/mlscale/{name}.env, then write {variables} into it")
    lines.append(
        f"  cp {name}.service /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now {name}"
    )
    return "\n".join(f"# {line}" for line in lines)


def _uses_gpu(settings: DeploymentSettings) -> bool:
    return settings.provider in ("cuda", "tensorrt")


def _escape(text: str) -> str:
    """Return a text in which systemd expands nothing."""
    return text.replace("%", "%%").replace("\n", " ")


def _quote(word: str) -> str:
    """Return a word of ExecStart: variables and specifiers are not expanded, quotes and blanks are its own."""
    text = _escape(word).replace("\\", "\\\\").replace("$", "$$").replace('"', '\\"')
    plain = text.replace("$", "").replace("/", "").replace("=", "").replace(".", "").replace("-", "").replace("_", "")
    return text if plain.isalnum() else f'"{text}"'
