"""Two servers for all tests: one as it is by default, one that takes little."""

from collections.abc import Iterator

import pytest

from tests.serving import STORED, Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the settings it has by default."""
    with serving(tmp_path_factory.mktemp("server"), STORED, "max_batch=8", "max_queue=256") as one:
        yield one
        assert one.stop() == 0
        assert "bug in mlscale" not in one.printed


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes small bodies, few connections, and waits for nobody."""
    words = ("max_body_bytes=20000", "max_connections=20", "timeout_s=0.5", "idle_s=1", "events=null", "control=false")
    with serving(tmp_path_factory.mktemp("strict"), STORED, *words) as one:
        yield one
        assert one.stop() == 0
        assert "bug in mlscale" not in one.printed
