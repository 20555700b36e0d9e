"""Shared by all tests: a separate cache for the session, and the Free Spoken Digit Dataset."""

import os
from collections.abc import Iterator
from pathlib import Path

import pooch
import pytest

from scnn.data import FSDD_FOLDER

# Looked up before the session's cache replaces the user's.
CACHED_FSDD = Path(os.environ.get("SCNN_HOME") or pooch.os_cache("scnn")).expanduser() / FSDD_FOLDER


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SCNN_HOME for the session, so that no test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("scnn-home")
        patch.setenv("SCNN_HOME", str(folder))
        patch.setenv("NO_PROXY", "127.0.0.1")  # or a proxy would intercept the loopback servers
        yield folder


@pytest.fixture(scope="session")
def fsdd(home: Path) -> Iterator[Path]:
    """Make `load_corpus("fsdd")` work, from SCNN_FSDD or the user's cache; skip if neither has it."""
    found = Path(os.environ.get("SCNN_FSDD") or CACHED_FSDD).expanduser()
    if not os.environ.get("SCNN_FSDD") and not found.is_dir():
        pytest.skip("FSDD is neither in the cache nor in the folder that SCNN_FSDD would name")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCNN_FSDD", str(found))
        yield found
