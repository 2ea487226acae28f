from pathlib import Path

import pytest

from medglip.phantoms import write_archive


@pytest.fixture(scope="session")
def told() -> list[tuple[int, int, str]]:
    """What the writing of the archive reported."""
    return []


@pytest.fixture(scope="session")
def archive(tmp_path_factory, told) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "archive"
    return write_archive(out, cases=5, progress=lambda done, total, note: told.append((done, total, note)))
