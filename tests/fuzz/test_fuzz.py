"""The fuzz run itself: seeds are valid, mutants can be made again, what must not happen is seen; and a short run of it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz_mutations import FAMILIES
from fuzz_pool import Limits, run_all
from fuzz_seeds import Seed, all_seeds
from fuzz_user import Result, Watch, _done, _judge, mutant_of, tried

from medglip.records import Reject

SCRIPT = Path(__file__).parent / "fuzz.py"


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MEDGLIP_REAL_DATA", raising=False)
        return all_seeds()


def test_every_seed_is_converted_as_it_is(seeds: list[Seed], tmp_path: Path) -> None:
    """Else its mutants would be rejected for what was wrong with it before."""
    (tmp_path / "worker-0").mkdir()
    for seed in seeds:
        result = tried(seed, seed.kind, tmp_path / "worker-0", seed.files[seed.target], "")
        (tmp_path / "worker-0/tiny.toml").unlink()
        assert (result.outcome, result.findings) == ("converted", []), (seed.kind, result)
    assert len({seed.kind for seed in seeds}) == len(seeds) > 50
    assert {seed.family for seed in seeds} == set(FAMILIES)


def test_a_name_makes_its_mutant_again_and_most_mutants_are_broken(seeds: list[Seed]) -> None:
    again = {seed.kind: seed for seed in all_seeds()}
    for seed in seeds:
        names = [f"{seed.kind}:{number}" for number in range(8)]
        mutants = [mutant_of(seed, name, 5) for name in names]
        assert mutants == [mutant_of(again[seed.kind], name, 5) for name in names]
        assert sum(content != seed.files[seed.target] for content, _ in mutants) >= 5, seed.kind
        assert mutants != [mutant_of(seed, name, 6) for name in names]


def ran(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch, act: object, seconds: float = 20.0) -> list[Result]:
    """What the pool says of three mutants, at the second of which something happens."""

    def fake(seed: Seed, name: str, folder: Path, content: bytes, how: str, watch: Watch) -> Result:
        result = Result(name, how, "converted")
        if name == "x:1":
            _done(act, "convert", result)  # type: ignore[arg-type]
        result.findings += watch.seen
        watch.seen.clear()
        return result

    monkeypatch.setattr("fuzz_pool.tried", fake)
    results: list[Result] = []
    jobs = iter([(f"x:{number}", seeds[0]) for number in range(3)])
    run_all(jobs, 1, 1, Limits(seconds), lambda result, _: results.append(result))
    assert [result.name for result in results] == ["x:0", "x:1", "x:2"]
    assert [bool(result.findings) for result in results] == [False, True, False]
    return results


def test_a_crash_is_told_and_the_next_mutants_are_tried(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = ran(seeds, monkeypatch, lambda: os.kill(os.getpid(), 9))[1].findings
    assert finding == "crash: the process ended with SIGKILL"


def test_a_hang_is_told(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = ran(seeds, monkeypatch, lambda: time.sleep(60), 1.5)[1].findings
    assert finding == "hang: no end after 1.5 s"


def test_more_than_two_gigabytes_are_told(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = ran(seeds, monkeypatch, lambda: bytearray(3 * 2**30))[1].findings
    assert finding.startswith("memory: convert: MemoryError")


def test_an_error_that_is_no_medglip_error_is_told(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = ran(seeds, monkeypatch, lambda: {}["x"])[1].findings
    assert finding == "exception: convert: KeyError: 'x'"


def test_a_file_outside_is_told(seeds: list[Seed], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = ran(seeds, monkeypatch, lambda: (tmp_path / "evil").write_text("x"))[1].findings
    assert findings == [f"outside: open {str(tmp_path / 'evil')!r}"]
    findings = ran(seeds, monkeypatch, lambda: Path("left behind").write_text("x"))[1].findings
    assert findings[0].startswith("outside: ")
    assert findings[0].endswith("home/left behind")


@pytest.mark.parametrize(
    ("reason", "detail", "finding"),
    [("failed", "KeyError: 1", "failed: KeyError: 1"), ("bad_mask", "Unable to allocate 3 TiB", "memory: convert: bad_mask")],
)
def test_a_reject_that_hides_a_failure_is_told(reason: str, detail: str, finding: str) -> None:
    result = Result("x:1", "")
    _judge([Reject("tiny", "a", reason, detail), Reject("tiny", "a", "bad_box", "a box")], result)
    assert [one[: len(finding)] for one in result.findings] == [finding]


def test_a_short_run_ends_without_a_finding() -> None:
    """Some hundred mutants of the seed of the full run, whose figures are in benchmarks/results/fuzz.json."""
    environment = {name: text for name, text in os.environ.items() if name != "MEDGLIP_REAL_DATA"} | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), "--mutants", "350", "--workers", "1"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert total[:2] == ["all", "350"]
    assert int(total[2]) > 50
    assert int(total[3]) > 50
