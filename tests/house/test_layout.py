"""The house rules: sizes, names of files, no packages where they would shadow others, README knows every file."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "core", "misc"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, tracked or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


SOURCES = [path for path in tracked("*.py") if "tests" not in path.parts]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, f"{path} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines; 60 at most"
            if _is_command(node):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            assert count <= 8, f"{path.name}:{node.lineno} {node.name} has {count} arguments; 8 at most"


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command of the command line: its arguments are its options."""
    return any("app.command" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_holds(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no module docstring"
    assert path.stem not in FORBIDDEN_NAMES, f"{path}: name the file for what it holds"


@pytest.mark.parametrize("folder", ["datasets", "converters", "schemas"])
def test_shared_folders_are_no_packages(folder):
    # An importable `datasets` would shadow Hugging Face's package of that name.
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_python_in_datasets():
    assert not list((ROOT / "datasets").glob("**/*.py"))


def test_readme_tree_names_every_room():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [path.parent if path.name == "__init__.py" else path for path in (ROOT / "medglip").glob("*.py")]
    rooms += [path for path in (ROOT / "medglip").iterdir() if (path / "__init__.py").is_file()]
    missing = sorted({path.name for path in rooms if path.name != "medglip" and path.name not in readme})
    assert not missing, f"README.md does not name {missing}"


def test_repository_speaks_of_medglip_alone():
    words = re.compile(r"/work/|/root/|\.library|pypi\.org|registry\.npmjs|deb\.debian\.org")
    for path in tracked("*.py", "*.md", "*.toml", "*.txt", "*.json", "scripts/*", ".ci/*"):
        if path == Path(__file__).resolve():
            continue
        found = words.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{path} mentions {found[0]!r}"
