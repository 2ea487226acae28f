import os
import sys
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
