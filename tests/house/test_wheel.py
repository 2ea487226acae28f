"""A built wheel carries converters, datasets, schemas, recipes and templates, and finds them without a clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import importlib, medglip
from medglip.curate import load_source, source_names
from medglip.curate.engine import load_converter
from medglip.shelf import shelf
assert medglip.__file__.startswith({place!r}), medglip.__file__
assert "_shelf" in str(shelf("datasets")) and "_shelf" in str(shelf("schemas"))
for name in source_names():
    for part in load_source(name).parts:
        assert load_converter(part).__file__.startswith({place!r})
print(len(source_names()))
"""


@pytest.mark.slow
def test_wheel_is_complete(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    place = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(place)
    for file in ("medglip/configs/lite.toml", "medglip/deliver/templates/demo.html",
                 "medglip/store/pages/preview.html", "medglip/store/pages/page.css",
                 "medglip/store/pages/fix_report.html", "medglip/_shelf/schemas/source.schema.json",
                 "medglip/weights/minilm/minilm-int8.safetensors", "medglip/weights/minilm/tokenizer.json",
                 "medglip/weights/minilm/LICENSE", "medglip/weights/lite/model.safetensors",
                 "medglip/weights/lite/config.json", "medglip/weights/lite/README.md", "medglip/weights/lite/concepts.json",
                 "medglip/weights/lite/language/vqa.safetensors", "medglip/weights/lite/LICENSE",
                 "medglip/weights/lite/NOTICE", "medglip/_shelf/datasets/collections/lite_training.toml",
                 "medglip/_shelf/schemas/collection.schema.json",
                 "medglip/_shelf/schemas/labels.toml", "medglip/_shelf/schemas/record.schema.json"):  # fmt: skip
        assert file in names
    assert not any(name.startswith(("converters/", "datasets/", "schemas/", "tests/")) for name in names)
    probe = [sys.executable, "-c", PROBE.format(place=str(place))]
    done = subprocess.run(probe, cwd=tmp_path, env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(list((ROOT / "datasets").glob("*.toml")))
