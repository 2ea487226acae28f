"""Floors: a module imports only from lower floors, rooms of one floor do not know each other, light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "errors": -1, "__version__": -1, "shelf": 0, "progress": 0, "records": 1, "imaging": 2, "store": 3,
    "curate": 4, "converters": 4, "exports": 4, "phantoms": 5, "configs": 6, "model": 6, "train": 7, "predict": 7,
    "evaluate": 8, "language": 9, "deliver": 10, "app": 11, "demo": 11, "demo_page": 11, "cli": 12, "__main__": 13,
}  # fmt: skip
# Converters are given cases and parts by curate; that is the one door between rooms of a floor.
DOORS = {("converters", "curate"), ("demo", "demo_page"), ("demo_page", "demo")}
HEAVY = ("torch", "monai", "transformers", "matplotlib", "lightning")


def modules() -> list[tuple[str, Path]]:
    found = [(path.relative_to(ROOT / "medglip").parts[0].removesuffix(".py"), path)
             for path in sorted((ROOT / "medglip").rglob("*.py"))]  # fmt: skip
    return found + [("converters", path) for path in sorted((ROOT / "converters").glob("*.py"))]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of medglip that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "medglip":
            parts = (node.module or "").split(".")
            rooms.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            rooms.update(a.name.split(".")[1] for a in node.names if a.name.startswith("medglip."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: use absolute imports"
    return rooms


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_imports_go_down(room, path):
    if room == "__init__":
        return
    assert room in FLOORS, f"{path}: the room {room!r} has no floor; see docs/decisions"
    for other in imported_rooms(path) - {room}:
        assert other in FLOORS, f"{path} imports {other!r}, which has no floor"
        lower = FLOORS[other] < FLOORS[room] or (room, other) in DOORS
        assert lower, f"{path} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"


@pytest.mark.parametrize(
    "name",
    ["medglip", "medglip.store", "medglip.curate", "medglip.imaging", "medglip.exports", "medglip.phantoms", "medglip.cli"],
)
def test_light_rooms_import_nothing_heavy(name):
    code = f"import sys, {name}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"{name} imports {done.stdout.strip()}"
