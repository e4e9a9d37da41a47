"""The hub that the tests of sources ask."""

from collections.abc import Iterator

import pytest
from loopback_hub import Hub


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    hub = Hub({})
    yield hub
    hub.close()
