import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with samples of real sources, one folder each; tests that need it are skipped where it is not there."""
    beside = Path(__file__).parents[1] / "../shared/data"
    folder = Path(os.environ.get("MEDGLIP_REAL_DATA", beside)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real samples at {folder}; set MEDGLIP_REAL_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def medglip_command() -> list[str]:
    """What to type for `medglip` in this environment."""
    return [sys.executable, "-m", "medglip"]


@pytest.fixture(autouse=True)
def _no_key_of_another_test() -> Iterator[None]:
    """A command that takes a key sets it for its process; hashes and splits of the next test must not follow from it."""
    kept = {name: os.environ.get(name) for name in ("MEDGLIP_KEY", "MEDGLIP_KEY_FILE")}
    yield
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
