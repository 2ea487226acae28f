import re

from medglip.records.masks import rle_of_mask
from medglip.store.checks.problems import Problem
from medglip.store.checks.validate import validate
from medglip.store.pages.fix_report import DRAWN, PER_PAGE, write_fix_report


def spoilt(n: int, image: str = "", region: str = "", check: str = "boxes") -> Problem:
    return Problem("error", f"region {n}", f"The box {n} is <not> inside.", check, image, region)


def test_each_problem_has_its_place_picture_and_source(dataset_path):
    image, region = f"{1:016x}", f"{1:016x}-000"
    problems = [spoilt(1, image, region), Problem("note", "source x", "partial copy", "expected")]
    index = write_fix_report(dataset_path, problems)
    summary = index.read_text()
    assert summary.index("boxes-0001.html") < summary.index("expected-0001.html")
    page = (dataset_path / "problem_files" / "boxes-0001.html").read_text()
    for words in ('id="p1"', image, region, "made_up: a/1.dcm", "abdomen.kidney", "is &lt;not&gt; inside", "What to do:"):
        assert words in page
    assert f'<image href="{image}.jpg"' in page
    assert (dataset_path / "problem_files" / f"{image}.jpg").stat().st_size > 100
    assert "<path d=" in page
    assert not re.search(r"https?://|<script", page + summary)


def test_many_problems_are_paged_and_few_are_drawn(dataset_path):
    number = 5 * PER_PAGE + 1
    write_fix_report(dataset_path, [spoilt(n, f"{n % 7:016x}") for n in range(number)])
    pages = sorted((dataset_path / "problem_files").glob("boxes-*.html"))
    texts = [page.read_text() for page in pages]
    assert [text.count("<section") for text in texts] == [PER_PAGE] * 5 + [1]
    assert sum(text.count("<svg") for text in texts) == DRAWN
    assert 'href="boxes-0006.html"' in texts[0]
    assert len(list((dataset_path / "problem_files").glob("*.jpg"))) == 7


def test_pages_of_an_earlier_time_go(dataset_path):
    write_fix_report(dataset_path, [spoilt(1)])
    assert "is clean" in write_fix_report(dataset_path, []).read_text()
    assert not (dataset_path / "problem_files").exists()


def test_a_dataset_that_does_not_open_has_a_report(dataset_path):
    (dataset_path / "manifest.json").write_text("{")
    problems = validate(dataset_path)
    assert "cannot be read" in write_fix_report(dataset_path, problems).read_text()


def test_what_is_broken_is_listed_without_a_picture(dataset_path, make_picture):
    """Unknown ids, a mask that is no code, a picture that does not decode."""
    from medglip.store.pages.fix_report import _path

    code = rle_of_mask(make_picture(1).pixels > 30000).counts
    rows, columns = make_picture(1).pixels.shape
    assert _path(code, rows, columns, (1.0, 1.0)).startswith("M")
    assert _path(code[:-1] + "o", rows, columns, (1.0, 1.0)) == ""
    assert _path(None, rows, columns, (1.0, 1.0)) == ""
    next(dataset_path.glob("shards/*")).unlink()
    page = write_fix_report(dataset_path, [spoilt(1, f"{1:016x}"), spoilt(2, "nobody", "no'body")])
    text = (page.parent / "problem_files" / "boxes-0001.html").read_text()
    assert text.count("problem bare") == 2
