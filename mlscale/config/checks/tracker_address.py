"""The address of a tracking server: MLflow refuses a plain folder, which many of its tutorials still use."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.errors import MLScaleError


def check_tracker_addresses(config: CheckedConfig) -> Iterator[MLScaleError]:
    """Yield the problem of each MLflow logger whose `tracking_uri` is a folder."""
    loggers = config.tree.get("logger")
    for name, node in loggers.items() if isinstance(loggers, dict) else ():
        address = node.get("tracking_uri") if isinstance(node, dict) else None
        # Of the built-in logger only: a user's class may take what it likes. An interpolation is resolved later.
        if not isinstance(address, str) or "${" in address or not str(node.get("_target_")).startswith("mlscale."):
            continue
        if address.startswith("file:") or ("://" not in address and address not in ("", "databricks", "uc")):
            path = f"logger.{name}.tracking_uri"
            where, fix = config.describe_origin(path), f"{path}=<the address of a server>"
            why = "a plain folder takes no new runs of MLflow; `mlflow server` (pip install mlflow) starts one"
            if is_host := bool(re.fullmatch(r"[\w.-]+:\d+/?", address)):
                fix, why = f"{path}=http://{address}", "an address begins with http:// or https://"
            what = f"{path}={address} is {'no address' if is_host else 'a folder'}"
            yield MLScaleError(what, where=where, why=why, fix=fix)
