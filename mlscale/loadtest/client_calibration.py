"""Starts an empty server next to the client, which repeats one answer of the real server, to calibrate the client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mlscale.loadtest.build_requests import LoadRequest
from mlscale.loadtest.server_metadata import Credentials, send_once

# These headers describe the connection to the real server, not this one.
_PER_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding"}


def start_empty_server(
    question: LoadRequest, url: str, credentials: Credentials, timeout_s: float, answer_file: Path
) -> tuple[subprocess.Popen[bytes], str] | None:
    """Send a request to the real server, and start an empty one that returns the same response.

    Returns:
        The process, which ends when its standard input is closed, and its URL; None where the real server does not
        answer with status 200 (the test itself reports that), or where no process can be started.
    """
    answered = send_once(url, question, credentials, timeout_s)
    if answered is None or answered[0] != 200:
        return None
    try:
        answer_file.write_bytes(build_response_bytes(*answered[1:]))
        process = subprocess.Popen(
            # -P: the folder of the script is not put on the path, where its neighbours could hide other modules.
            [sys.executable, "-P", str(Path(__file__).with_name("empty_server.py")), str(answer_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    except OSError:
        return None
    assert process.stdout is not None
    port = process.stdout.readline().strip().decode()
    return (process, f"http://127.0.0.1:{port}") if port else None


def build_response_bytes(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a response: the status, the headers without those of the connection, and the body."""
    kept_headers = {name: value for name, value in headers.items() if name.lower() not in _PER_CONNECTION}
    lines = [f"{name}: {value}" for name, value in {**kept_headers, "Content-Length": str(len(body))}.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode("latin-1") + body
