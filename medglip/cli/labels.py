"""The command about the label tree: its size, one label, the tree as lines, a search."""

from collections import Counter
from typing import Annotated, Any

import typer

from medglip.cli.frame import Json, app, out, print_json, print_table

_CODES = {
    "category": "SegmentedPropertyCategory", "type": "SegmentedPropertyType", "region": "AnatomicRegion"
}  # fmt: skip


@app.command()
def labels(
    label: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one: its id, a name or a raw label.")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Print the tree, whole or below ID.")] = False,
    search: Annotated[str | None, typer.Option(metavar="WORD", help="Find labels by a word.")] = None,
    as_json: Json = False,
) -> None:
    """Show the label tree: how large it is, one label complete, its lines, or a search.

    Example: medglip labels abdomen.kidney.tumor
    """
    from medglip.records import label_tree

    known = label_tree()
    top = known.resolve(label)[0] if label else None
    if search is not None:
        found = _found(search)
        if as_json:
            print_json([{"id": one.id, "name": one.name, "level": one.level, "synonyms": list(one.synonyms)} for one in found])
        else:
            _print_lines([f"{one.id}: {'; '.join((one.name, *one.synonyms))}" for one in found])
    elif tree:
        lines = [(depth, known[one]) for depth, one in _lines(top)]
        if as_json:
            print_json([{"depth": depth, "id": one.id, "name": one.name, "level": one.level} for depth, one in lines])
        else:
            _print_lines([f"{'  ' * depth}{one.name}  ({one.id})" for depth, one in lines])
    elif top:
        facts = label_facts(top)
        if as_json:
            print_json(facts)
        else:
            for key, value in facts.items():
                out.print(f"[bold]{key}[/]: ", end="")
                out.print("; ".join(map(str, value)) if isinstance(value, list) else str(value), markup=False, highlight=False)
    elif as_json:
        print_json(_sizes())
    else:
        title = f"{len(known)} labels; `medglip labels ID` shows one, `medglip labels --tree` all"
        print_table(title, list(_sizes()[0]), [list(row.values()) for row in _sizes()])


def label_facts(label_id: str) -> dict[str, Any]:
    """All that is known of a label as plain values, in reading order; codes as DICOM SEG names them."""
    from medglip.curate import load_source, source_names
    from medglip.records import concept_of, label_tree

    tree = label_tree()
    label = tree[label_id]
    sources = []
    for name in source_names():
        source = load_source(name)
        raws = {
            f"{raw} = {concept_of(named.label, named.laterality)}"
            for part in source.parts for raw, named in part.labels.items() if named and tree.covers(label_id, named.label)
        }  # fmt: skip
        raws |= {
            f"{' + '.join(one.raw)} = {one.named.concept}"
            for part in source.parts for one in part.derived if tree.covers(label_id, one.named.label)
        }  # fmt: skip
        sources += [f"{name}: {', '.join(sorted(raws))}"] if raws else []
    return {
        "id": label.id, "name": label.name, "level": label.level, "body_region": tree.body_region(label.id),
        "synonyms": list(label.synonyms), "adjective": label.adjective, "plural": label.plural, "coarse": label.coarse,
        "laterality": label.laterality, "countable": label.countable, "part_of": label.part_of or "",
        "site": list(label.site), "is_a": [kind for kind in (label.is_a, *label.also_is) if kind],
        "ancestors": list(tree.ancestors(label.id)), "children": list(tree.children(label.id)),
        **{
            f"{column}CodeSequence": " ".join(label.codes[name]) if name in label.codes else ""
            for name, column in _CODES.items()
        },
        "raw_spellings": list(label.aliases), "sources": sources,
    }  # fmt: skip


def _sizes() -> list[dict[str, Any]]:
    from medglip.records import label_tree
    from medglip.records.labels import LEVELS

    tree = label_tree()
    counts = Counter((tree.body_region(label.id), label.level) for label in tree)
    rows: list[dict[str, Any]] = []
    for region in [label for label in tree if label.level == "body_region"]:
        by_level = {level: counts[region.id, level] for level in LEVELS[1:]}
        rows.append({"body_region": region.id, "name": region.name, **by_level, "all": 1 + sum(by_level.values())})
    total = {key: sum(row[key] for row in rows) for key in (*LEVELS[1:], "all")}
    return [*rows, {"body_region": "all", "name": "", **total}]


def _lines(top: str | None) -> list[tuple[int, str]]:
    from medglip.records import label_tree

    tree = label_tree()
    found: list[tuple[int, str]] = []
    waiting = [(0, label.id) for label in tree if label.level == "body_region"] if top is None else [(0, top)]
    waiting.reverse()
    while waiting:
        depth, label_id = waiting.pop()
        found.append((depth, label_id))
        waiting += [(depth + 1, below) for below in reversed(tree.children(label_id))]
    return found


def _found(word: str) -> list[Any]:
    from medglip.errors import InputError
    from medglip.records import label_tree

    tree = label_tree()
    if found := tree.search(word):
        return found
    near = ", ".join(f"{label.name!r} ({label.id})" for label in tree.nearest(word)) or "none"
    raise InputError(f"Labels: no name, synonym or id has {word!r}; nearest known: {near}; search for one of these words.")


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False)
