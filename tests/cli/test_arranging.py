import json

import numpy as np
import pytest
from typer.testing import CliRunner

from medglip import store
from medglip.cli import app
from medglip.errors import DatasetError
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, Origin


def picture(number: int) -> Picture:
    pixels = np.full((5, 7), number, np.uint8)
    origin = Origin("made_up", f"{number}.png", str(number))
    return Picture(ImageRecord(f"{number:016x}", store.pixel_sha256(pixels), 7, 5, 1, 8, "xray", origin, "MIT"), pixels)


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def two(tmp_path):
    for name, numbers in (("one", (1, 2, 3)), ("two", (3, 4))):
        for number in numbers:
            store.write_part(tmp_path / name, f"p{number}", [picture(number)], info={"source": "made_up"})
    return tmp_path / "one", tmp_path / "two"


def test_merge_then_compact(run, two, tmp_path):
    done = run("merge", tmp_path / "all", *two)
    assert done.exit_code == 0
    assert "4 images, 0 regions in 4 parts; 1 images were in more than one dataset" in done.stdout
    done = run("compact", tmp_path / "all", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout[done.stdout.index("{\n") :])["parts"] == {"before": 4, "after": 1}
    dataset = store.open(tmp_path / "all")
    assert [dataset.pixels(n)[0, 0] for n in range(4)] == [1, 2, 3, 4]
    assert "1 parts, " in run("compact", tmp_path / "all").stdout


def test_what_cannot_be_merged_is_refused(run, two, tmp_path):
    assert isinstance(run("merge", two[0], two[1]).exception, DatasetError)
    assert isinstance(run("merge", tmp_path / "all", tmp_path / "nothing").exception, DatasetError)
    assert run("merge", tmp_path / "all").exit_code == 2
    assert isinstance(run("compact", tmp_path / "nothing").exception, DatasetError)


@pytest.mark.parametrize("command", ["merge", "compact"])
def test_help_has_an_example(run, command):
    assert f"Example: medglip {command}" in run(command, "--help").stdout
