"""Every reason code and flag that the code can give has its meaning in medglip/records/reasons.py, and none is left over."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from medglip.records.reasons import FLAGS, REASONS

ROOT = Path(__file__).resolve().parents[2]
WORDS = ROOT / "medglip/records/reasons.py"
FILES = sorted([*(ROOT / "medglip").rglob("*.py"), *(ROOT / "converters").glob("*.py")])
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")
# Which argument of a call is the code.
REASON_AT = {"Refused": 0, "GridError": 0, "Unusable": 0, "refusal": 0, "Reject": 2, "Lost": 1, "refuse": 1, "refused": 1}
REGION_MAKERS = ("region_of_box", "region_of_mask", "regions_of_mask", "replace", "Region")
GIVING = ("medglip/imaging", "medglip/curate", "medglip/exports", "medglip/phantoms", "converters")
FLAG_MAKERS = ("flags_of", "placed_flags", "_flags", "doubted", "_with_face_risk")


@cache
def trees() -> list[tuple[str, ast.Module]]:
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in FILES if path != WORDS]


def texts_of(node: ast.AST | None) -> Iterator[str]:
    """Strings that an expression can be, or be made of: not what it only compares or asks."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from heads_of(node)
    else:
        yield from (text for inner in inner_of(node) for text in texts_of(inner))


def inner_of(node: ast.AST | None) -> list[ast.AST]:
    """The expressions that the strings of one can come from."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return node.elts
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Starred):
        return [node.value]
    if isinstance(node, ast.SetComp | ast.ListComp | ast.GeneratorExp):
        return [node.elt, *(one.iter for one in node.generators if ast.unparse(one.target) == ast.unparse(node.elt))]
    if isinstance(node, ast.Call) and called(node) in ("getattr", "sorted", "tuple", "set", "list"):
        return node.args[2:] if called(node) == "getattr" else node.args
    return []


def heads_of(node: ast.JoinedStr) -> list[str]:
    """What a string with values in it can begin with: all that stands before the first unknown value."""
    heads = [""]
    for piece in node.values:
        ends = list(texts_of(piece.value if isinstance(piece, ast.FormattedValue) else piece))
        if not ends:
            break
        heads = [head + end for head in heads for end in ends]
    return heads


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def bound(function: ast.AST, name: str) -> Iterator[str]:
    """Strings that a name of a function is bound to."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            yield from texts_of(node.value)


@cache
def reasons_given() -> dict[str, str]:
    """Code -> a file that gives it."""
    found: dict[str, str] = {}
    for file, tree in trees():
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            for node in ast.walk(function):
                texts: list[str] = []
                if isinstance(node, ast.Call) and called(node) in REASON_AT and len(node.args) > REASON_AT[called(node)]:
                    code = node.args[REASON_AT[called(node)]]
                    texts = list(bound(function, code.id)) if isinstance(code, ast.Name) else list(texts_of(code))
                elif isinstance(node, ast.Return) and function.name in ("reason_of", "_reason"):
                    texts = list(texts_of(node.value))
                elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and "curate/inputs" in file:
                    texts = list(texts_of(node.value.elts[0])) if len(node.value.elts) == 2 else []
                found.update({text.partition(":")[0]: file for text in texts if CODE.fullmatch(text.partition(":")[0])})
    return found


def flags_given() -> dict[str, str]:
    """Flag -> a file that gives it."""
    found: dict[str, str] = {}
    for file, tree in trees():
        if not file.startswith(GIVING) or file.startswith("medglip/curate/sketching"):
            continue  # other rooms hand flags on, and give none
        for node in ast.walk(tree):
            texts: list[str] = []
            if isinstance(node, ast.keyword) and node.arg == "flags":
                texts = list(texts_of(node.value))
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = {getattr(one, "id", getattr(one, "attr", "")) for one in targets}
                names |= {one.id for target in targets if isinstance(target, ast.Tuple) for one in target.elts
                          if isinstance(one, ast.Name)}  # fmt: skip
                texts = [text for text in texts_of(node.value) if CODE.fullmatch(text)] if names & {"flags", "odd"} else []
            elif isinstance(node, ast.Call) and called(node) == "append" and ast.unparse(node.func) == "flags.append":
                texts = list(texts_of(node.args[0]))
            elif isinstance(node, ast.FunctionDef) and node.name in FLAG_MAKERS:
                texts = [text for one in ast.walk(node) if isinstance(one, ast.Return) for text in texts_of(one.value)]
            elif isinstance(node, ast.Call) and called(node) in REGION_MAKERS:
                texts = [text for one in node.args if isinstance(one, ast.BinOp | ast.Tuple) for text in texts_of(one)]
            found.update(dict.fromkeys(texts, file))
    units = {"rgb", "au", "HU", "SUVbw"}  # are assigned beside flags
    return {flag: file for flag, file in found.items() if flag not in units and CODE.fullmatch(flag)}


def words_in(tree: ast.Module) -> set[str]:
    documents = {node.value for body in ast.walk(tree) if hasattr(body, "body") and isinstance(body.body, list)
                 for node in body.body if isinstance(node, ast.Expr)}  # fmt: skip
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in documents]
    expanded = [text for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for text in texts_of(node)]
    return {node.value for node in constants if isinstance(node.value, str)} | set(expanded)


def test_every_reason_has_its_meaning() -> None:
    given = reasons_given()
    assert len(given) > 30, "the calls that give reasons were not found"
    unknown = {code: file for code, file in given.items() if code not in REASONS}
    assert not unknown, f"medglip/records/reasons.py lacks {unknown}"


def test_no_reason_is_left_over() -> None:
    assert set(REASONS) <= set(reasons_given()), f"nothing gives {sorted(set(REASONS) - set(reasons_given()))}"


def test_every_flag_has_its_meaning() -> None:
    given = flags_given()
    assert len(given) > 10, "the places that give flags were not found"
    unknown = {flag: file for flag, file in given.items() if flag not in FLAGS}
    assert not unknown, f"medglip/records/reasons.py lacks {unknown}"


def test_no_flag_is_left_over() -> None:
    said = set().union(*(words_in(tree) for file, tree in trees() if not file.endswith("imaging/explain.py")))
    assert set(FLAGS) <= said, f"nothing gives {sorted(set(FLAGS) - said)}"


@pytest.mark.parametrize("words", [REASONS, FLAGS])
def test_codes_are_sorted_and_meanings_are_sentences(words: dict[str, str]) -> None:
    assert list(words) == sorted(words)
    assert all(CODE.fullmatch(code) for code in words)
    assert all(text[:1].isupper() and text.endswith(".") for text in words.values())
