"""Addresses: what is shown of them, what identifies a shard, and hosts that are never contacted."""

from __future__ import annotations

import pytest

from mlscale.data.remote.addresses import (
    expect_public_host,
    get_file_name,
    identify_shard,
    is_blocked_host,
    join_address,
    mask_address,
)
from mlscale.errors import MLScaleError

SIGNED = "https://ana:hunter22@h.org/a/0.tar?X-Amz-Signature=abcdef&X-Amz-Date=1&id=7"


def test_secrets_are_not_shown() -> None:
    assert mask_address(SIGNED) == "https://h.org/a/0.tar?***"
    assert mask_address("s3://bucket/a/0.tar") == "s3://bucket/a/0.tar"


def test_a_shard_that_is_signed_anew_is_the_same() -> None:
    assert identify_shard(SIGNED) == "https://h.org/a/0.tar?id=7"
    assert identify_shard(SIGNED) == identify_shard(SIGNED.replace("abcdef", "fedcba").replace("hunter22", "x"))
    assert identify_shard(SIGNED) != identify_shard(SIGNED.replace("id=7", "id=8"))
    azure = "https://h.org/0.tar?sv=1&sr=b&se=2&sp=r&sig=abcdef"
    assert identify_shard(azure) == "https://h.org/0.tar"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (SIGNED, "0.tar"),
        ("https://h.org/a%20b.tar", "a b.tar"),
        ("s3://bucket/x/a%20b.tar", "a%20b.tar"),
        ("s3://bucket/x/what?.tar", "what?.tar"),
    ],
)
def test_names_of_files(address: str, name: str) -> None:
    assert get_file_name(address) == name


def test_neighbours_keep_the_query() -> None:
    assert join_address("https://h.org/a/0.tar?token=x", "i/0.npz") == "https://h.org/a/i/0.npz?token=x"
    assert join_address("s3://b/a/0.tar", "dataset.json") == "s3://b/a/dataset.json"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "fd00:ec2::23", "metadata.google.internal",
        "METADATA.google.internal.", "metadata", "::ffff:169.254.169.254", "fe80::1%eth0", "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1", "100.100.100.200", "168.63.129.16", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
        "fd00:a9fe:a9fe::1", "fd00:100::100:200", "192.0.0.192", "::169.254.169.254", "64:ff9b:1::a9fe:a9fe",
    ],
)  # fmt: skip
def test_metadata_services_are_blocked(host: str) -> None:
    assert is_blocked_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.253.0.1", "example.org", "::1", "fd00:ec3::1"])
def test_other_hosts_are_not(host: str) -> None:
    assert not is_blocked_host(host)


def test_the_error_names_the_key_and_no_secret() -> None:
    with pytest.raises(MLScaleError, match="metadata service") as caught:
        expect_public_host("http://ana:hunter22@169.254.169.254/latest?sig=abcd", "data.train")
    assert caught.value.where == "data.train"
    assert "hunter22" not in str(caught.value)
    assert "abcd" not in str(caught.value)
    with pytest.raises(MLScaleError, match="has no host"):
        expect_public_host("https:///0.tar", "data.val")
