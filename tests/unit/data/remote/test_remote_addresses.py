"""Addresses of remote shards: which are refused, what must not be reached or shown, servers that change bytes."""

from __future__ import annotations

import importlib
import re
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data import WebDataset
from mlscale.data.remote import find_remote
from mlscale.errors import Exit, MLScaleError
from tests.unit.data.remote.test_remote_shards import Serve, list_batches, open_remote


@pytest.mark.parametrize(
    ("spec", "what", "fix"),
    [
        ("{url}/train/*.tar", "has a '*'", "{{00000..00099}}"),
        ("{url}/nothing", "is a folder", "{{00000..00099}}"),
        ("{url}/train/{{000..006}}.tar", "2 of the 7 shards", "addresses that exist"),
        ("{url}/train/9.tar", "does not exist", "addresses that exist"),
        ("ftp://h/0.tar", "addresses of 'ftp://' are not read", "copy the shards"),
        ("http://169.254.169.254/latest/0.tar", "metadata service", "an address of the data"),
        ("http://metadata.google.internal/0.tar", "metadata service", "an address of the data"),
    ],
)
def test_addresses_that_name_no_shards(folder: Path, serve: Serve, spec: str, what: str, fix: str) -> None:
    url, _ = serve(folder)
    with pytest.raises(MLScaleError) as caught:
        WebDataset(spec.format(url=url), folder / "val").facts()
    assert what in caught.value.what
    assert caught.value.where == "data.train"
    assert fix.replace("{{", "{").replace("}}", "}") in caught.value.fix


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # Other tests may have opened them.
    monkeypatch.setattr(find_remote, "_stores", {})
    # In place: fsspec looks up classes through a view of this dictionary.
    known = importlib.import_module("fsspec.registry")._registry
    for name in [name for name in known if name in ("gs", "gcs", "az", "abfs")]:
        monkeypatch.delitem(known, name)
    for module in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for scheme, package, extra in (("gs", "gcsfs", "gs"), ("az", "adlfs", "az")):
        with pytest.raises(MLScaleError, match=package) as caught:
            WebDataset(f"{scheme}://bucket/0.tar", folder / "val").facts()
        assert caught.value.fix == f"pip install 'mlscale[{extra}]'"
        assert caught.value.exit == Exit.ENVIRONMENT


# What must not be reached, or shown.


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "file:///etc/passwd"]
)
def test_redirects_to_metadata_services_and_files_are_refused(folder: Path, serve: Serve, target: str) -> None:
    url, faults = serve(folder, redirect=target)
    with pytest.raises(MLScaleError) as caught:
        open_remote(url).facts()
    assert "metadata service" in str(caught.value) or "neither http nor https" in str(caught.value)
    assert len(faults.requests) <= 16  # nothing is repeated


def test_a_name_that_is_resolved_to_a_metadata_service(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, list[str]()

    def answer(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "data.example":
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]
        return resolve(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    # By itself, and behind a redirect.
    with pytest.raises(MLScaleError, match="metadata service"):
        open_remote("http://data.example").facts()
    url, _ = serve(folder, redirect="http://data.example/latest")
    with pytest.raises(MLScaleError, match="metadata service"):
        open_remote(url).facts()
    assert asked


def test_secrets_of_addresses_are_in_no_message(
    folder: Path, serve: Serve, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url, faults = serve(folder, drop=0.3, refuse=0.3, most=8)
    secret = f"{url.replace('://', '://ana:hunter22@')}/train/{{000..004}}.tar?X-Amz-Signature=abcdef0123&sig=Zm9vYmFy"
    data = WebDataset(secret, folder / "val", batch_size=24)
    list_batches(data)
    # Signatures travel to the server, and nowhere else.
    assert all("abcdef0123" in path for path, _ in faults.requests if path.startswith("/train/0"))
    with pytest.raises(MLScaleError) as caught:
        WebDataset(secret.replace("004", "009"), folder / "val").facts()
    out = capfd.readouterr()
    texts = [str(caught.value), out.out, out.err, repr(data._indexes["train"].shards), *map(str, cache.rglob("*"))]
    texts += [file.read_bytes().decode("latin-1") for file in (cache / "index").glob("*.npz")]
    for word in ("hunter22", "abcdef0123", "Zm9vYmFy"):
        assert not any(word in text for text in texts)
    assert data.list_keys("train", np.array([0])) == ["000.tar/00000"]


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (0, {"Content-Encoding": "gzip"}, "HTTP status 206 with Content-Encoding gzip"),
        (0, {"Content-Range": "bytes 0-0/*"}, "HTTP status 206 without the length of the file"),
        (416, {"Content-Range": "bytes */10240"}, "HTTP status 416 for the first byte of a file of 10,240"),
    ],
)
def test_what_a_server_does_to_every_request_is_reported_at_once(
    folder: Path, serve: Serve, status: int, headers: dict[str, str], why: str
) -> None:
    url, faults = serve(folder, status=status, headers=headers)
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        open_remote(url).facts()
    assert why in str(caught.value)
    assert f"curl -sLr 0-0 -o /dev/null -D - {url}/train/000.tar" in str(caught.value)
    # Another attempt would end in the same way.
    assert len(faults.requests) == len(set(faults.requests))


def test_the_command_for_a_shard_that_is_no_tar_is_for_its_copy(folder: Path, serve: Serve) -> None:
    for shard in folder.rglob("*.tar"):
        shard.write_bytes(b"<html>please log in</html>")
    url, _ = serve(folder)
    with pytest.raises(MLScaleError, match="is not a tar file") as caught:
        open_remote(url).facts()
    # Each problem names the address; what is to be typed, a file that exists.
    assert f"the shard '{url}/train/000.tar'" in str(caught.value)
    copies = re.findall(r"tar tf (\S+)", str(caught.value))
    assert len(copies) == 7
    assert all(Path(copy).read_bytes().startswith(b"<html>") for copy in copies)
