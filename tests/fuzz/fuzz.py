"""Breaks valid files of every kind in thousands of ways, and runs on each what users run. Its figures go into a JSON file.

scripts/fuzz                          20,000 mutants, benchmarks/results/fuzz.json
scripts/fuzz --mutants 500            a short run, which writes nothing
scripts/fuzz --kinds 'DICOM*'         some kinds only
scripts/fuzz --only 'png image:17'    one mutant again, with what it gives; --keep FILE writes the broken file
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_pool import Job, Limits, run_all
from fuzz_seeds import Seed, all_seeds
from fuzz_user import Result, mutant_of, tried

RESULTS = Path(__file__).parents[2] / "benchmarks/results/fuzz.json"
MUTANTS = 20_000
SALT = 1


def seeds_by_kind(patterns: list[str]) -> dict[str, list[Seed]]:
    """Seeds of the kinds that fit."""
    found: dict[str, list[Seed]] = defaultdict(list)
    for seed in all_seeds():
        if not patterns or any(fnmatch(seed.kind, pattern) for pattern in patterns):
            found[seed.kind].append(seed)
    return dict(found)


def jobs_of(seeds: dict[str, list[Seed]], mutants: int) -> Iterator[Job]:
    """Mutants of all kinds in turn; of a kind with several seeds, of each in turn. Kinds of real files count fourfold."""
    turns = [kind for kind in seeds for _ in range(4 if kind.startswith("real") else 1)]
    numbers: Counter[str] = Counter()
    for at in range(mutants):
        kind = turns[at % len(turns)]
        number = numbers[kind]
        numbers[kind] += 1
        yield f"{kind}:{number}", seeds[kind][number % len(seeds[kind])]


def tally(results: list[tuple[Result, float]]) -> dict:
    """Counts by kind, reasons, findings, and the slowest."""
    kinds: dict[str, Counter] = defaultdict(Counter)
    for result, _ in results:
        kinds[result.name.rpartition(":")[0]].update(["mutants", result.outcome])
    names = ("mutants", "converted", "rejected", "finding")
    findings = [{"mutant": result.name, "how": result.how, "what": what} for result, _ in results for what in result.findings]
    slowest = sorted(results, key=lambda pair: -pair[1])[:10]
    return {
        "kinds": {kind: {name: counts[name] for name in names} for kind, counts in sorted(kinds.items())},
        "total": {name: sum(counts[name] for counts in kinds.values()) for name in names},
        "reasons": dict(Counter(reason for result, _ in results for reason in result.reasons).most_common()),
        "put_into_a_sentence_by_inspect": dict(Counter(kind for result, _ in results for kind in result.wrapped).most_common()),
        "mutations": dict(Counter(how for result, _ in results for how in result.how.split("+")).most_common()),
        "slowest_seconds": {result.name: round(seconds, 2) for result, seconds in slowest},
        "findings": findings,
    }


def again(name: str, salt: int, keep: Path | None) -> int:
    """Run one mutant in this process and print what it gives."""
    kind, _, number = name.rpartition(":")
    seeds = seeds_by_kind([])[kind]
    seed = seeds[int(number) % len(seeds)]
    content, how = mutant_of(seed, name, salt)
    if keep:
        keep.write_bytes(content)
    print(f"{name}: {seed.target}, {len(content)} bytes, broken by {how}")
    with tempfile.TemporaryDirectory() as folder:
        result = tried(seed, name, Path(folder), content, how)
    print(json.dumps(vars(result), indent=1))
    return 1 if result.findings else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=MUTANTS)
    parser.add_argument("--kinds", nargs="*", default=[], help="with * for any characters")
    parser.add_argument("--seed", type=int, default=SALT)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="of one mutant")
    parser.add_argument("--only", metavar="KIND:NUMBER")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, help=f"default, of a full run: {RESULTS.name}")
    chosen = parser.parse_args()
    if chosen.only:
        return again(chosen.only, chosen.seed, chosen.keep)
    begin, results = time.monotonic(), []
    seeds = seeds_by_kind(chosen.kinds)

    def on_result(result: Result, seconds: float) -> None:
        results.append((result, seconds))
        for finding in result.findings:
            print(f"{result.name} ({result.how}): {finding}", flush=True)
        if len(results) % 1000 == 0:
            print(f"{len(results)} mutants, {time.monotonic() - begin:.0f} s", flush=True)

    most = run_all(jobs_of(seeds, chosen.mutants), chosen.seed, chosen.workers, Limits(chosen.seconds), on_result)
    head = {
        "seed": chosen.seed, "workers": chosen.workers, "python": platform.python_version(),
        "seconds": round(time.monotonic() - begin, 1), "most_memory_of_a_worker_mb": round(most / 1e6),
        "limits": vars(Limits(chosen.seconds)), "seeds": sum(map(len, seeds.values())),
    }  # fmt: skip
    found = tally(sorted(results, key=lambda pair: pair[0].name))
    for kind, counts in found["kinds"].items():
        print(f"{kind:28}" + "".join(f"{count:10}" for count in counts.values()))
    print(f"{'all':28}" + "".join(f"{count:10}" for count in found["total"].values()) + f"   {head['seconds']} s")
    out = chosen.out or (RESULTS if chosen.mutants >= MUTANTS and not chosen.kinds else None)
    if out:
        out.write_text(json.dumps(head | found, indent=1) + "\n")
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
