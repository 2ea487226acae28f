"""The page docs/reference/real-files.md: every file once, refused ones with their reason."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_file_table", Path(__file__).parents[2] / "docs/make_file_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equal_outcomes_share_a_row_and_refused_files_have_their_own(maker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(3):
        grey = np.arange(64, dtype=np.uint8).reshape(8, 8) + np.uint8(number)
        Image.fromarray(grey).save(tmp_path / "set" / f"{number}.png")
    (tmp_path / "set" / "cut.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "set" / "LICENSE").write_text("MIT")
    lines = maker.page(tmp_path).splitlines()
    assert "4 files: 3 read and explained, 1 refused." in lines
    assert "| set | PNG | read | 3 |" in lines
    refused = [line for line in lines if line.startswith("| set/cut.png |")]
    assert len(refused) == 1
    assert "refuses it too" in refused[0]
    assert str(tmp_path) not in "\n".join(lines)
