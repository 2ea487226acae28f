"""Path patterns: what fits, what is remembered, what is left out."""

import pytest

from medglip.curate.layout import compiled, find, listed, without_ending
from medglip.errors import InputError, SourceError


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{class}/{case}.png", "benign/benign (1).png", {"class": "benign", "case": "benign (1)"}),
        ("{case}.{frame:\\d+}.dcm", "a.b.07.DCM", {"case": "a.b", "frame": "07"}),
        ("**/{case}.nii.gz", "deep/er/s1.nii.gz", {"case": "s1"}),
        ("**/{case}.nii.gz", "s1.nii.gz", {"case": "s1"}),
        ("{p}/{p}_mask*.png", "x/x_mask_1.png", {"p": "x"}),
        (
            "{pre:(?:hflipped_)?}{case:[A-Z]+_\\d{3}}_*.png",
            "hflipped_STS_005_9.png",
            {"pre": "hflipped_", "case": "STS_005"},
        ),
    ],
)
def test_pattern_fits_and_remembers(pattern, path, fields):
    assert next(find(pattern, (path,))).fields == fields


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{case}.png", "folder/a.png"),  # a field stays inside one name
        ("{p}/{p}_mask.png", "x/y_mask.png"),  # the same name, two texts
        ("a+b.png", "aab.png"),  # letters stand for themselves
        ("{case:\\d+}.png", "x1.png"),
    ],
)
def test_pattern_refuses(pattern, path):
    assert list(find(pattern, (path,))) == []


def test_bad_pattern_is_a_source_error():
    with pytest.raises(SourceError, match="not well formed"):
        compiled("{case:(}.png")


def test_debris_is_left_out_and_order_is_fixed(tmp_path):
    for name in ("b.png", "a.png", "._a.png", "__MACOSX/a.png", "Thumbs.db", "sub/.DS_Store", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert listed(tmp_path) == ("a.png", "b.png", "sub/c.png")


def test_missing_and_empty_folders_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        listed(tmp_path / "none")
    with pytest.raises(InputError, match="holds no file"):
        listed(tmp_path)


def test_the_last_number_of_a_uid_is_no_ending(tmp_path):
    names = ["1.2.840.113", "1.2.840.114", "scan.nii.gz", "scan.PNG"]
    assert [without_ending(name) for name in names] == ["1.2.840.113", "1.2.840.114", "scan.nii", "scan"]
