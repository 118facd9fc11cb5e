"""What tests share: a platform in memory with one repository."""

from collections.abc import Iterator

import pytest

import paas
from support import REPOSITORY, page


@pytest.fixture
def platform() -> Iterator[paas.Platform]:
    with paas.Platform.in_memory() as platform:
        platform.memory_git.commit(REPOSITORY, "main", page("hello"))
        yield platform
