"""An object store on loopback with the interface of S3: moto's server, and the environment that leads to it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "ckpts"


@contextmanager
def serve_bucket(monkeypatch: pytest.MonkeyPatch, bucket: str = BUCKET, port: int = 0) -> Iterator[Any]:
    """Provide an empty bucket in a new server, and a client of it; the environment has address and credentials."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # All servers of a process share their objects.
    connection = http.client.HTTPConnection(host, port)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.close()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    try:
        yield client
    finally:
        server.stop()


def list_objects(client: Any, bucket: str = BUCKET) -> list[str]:
    """Return the keys of all objects."""
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
