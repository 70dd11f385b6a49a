"""Rules of a platform for tests."""

from typing import Any

from mlscale.verify_resume.platform_rules import PlatformRules


def make_rules(**values: Any) -> PlatformRules:
    usual: dict[str, Any] = {
        "name": "kubernetes", "signal_name": "TERM", "grace_s": 30.0, "grace_key": "launch.grace_s={}",
        "runs_dir": "/mnt/runs", "survives": True, "lost_fix": "launch.claim=runs",
        "variable_fix": "launch.variables=[{}]",
    }  # fmt: skip
    return PlatformRules(**usual | values)
