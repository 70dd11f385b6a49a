"""What a manifest states of the machine."""

from importlib import metadata

from mlscale.runs.host import machine


def test_every_package_is_listed_with_the_version_that_its_metadata_states() -> None:
    stated = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in metadata.distributions()}
    assert machine.list_packages() == dict(sorted(stated.items()))
