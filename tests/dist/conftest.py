"""What tests of several ranks share."""

import pytest

from mlscale.launch.local_launch import start_fork_server


@pytest.fixture(scope="session", autouse=True)
def preloaded_fork_server() -> None:
    """Start the fork server with the imports of a run: each of the ranks would spend 4 s of CPU on them."""
    start_fork_server(2)
