"""What tests of the caller share."""

from __future__ import annotations

import shutil

import pytest

from harness.caller.native.build import Library, library


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The compiled media core, freshly built; a machine without a C compiler skips its tests."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    built = library(tmp_path_factory.mktemp("home"))
    assert built is not None
    return built
