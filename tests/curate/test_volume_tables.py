from pathlib import Path
from typing import Any

import pytest

from medglip.curate.cases import Case, Refused
from medglip.curate.source import Part
from medglip.curate.volume_tables import codes_of, described_volumes, framed, with_frame
from medglip.errors import InputError, SourceError
from medglip.records import Reject


def part(files: dict[str, str], **options: Any) -> Part:
    return Part(
        "p", "label_volumes", "mr", "tiny", "CC0-1.0", "human", {"image": "{case}.nii.gz", **files}, {}, options=options
    )


def case(folder: Path, name: str = "A1.5", **files: str) -> Case:
    return Case(name, folder, {"image": (f"{name}.nii.gz",), **{role: (file,) for role, file in files.items()}}, {"case": name})


def table(folder: Path, text: str, name: str = "about.csv") -> None:
    (folder / name).write_text(text)


ABOUT = {"about": "about.csv"}


def described(folder: Path, **options: Any) -> list[Case | Reject]:
    given = {"about_key": "External code", **options}
    return list(described_volumes(part(ABOUT, **given), [case(folder, about="about.csv")]))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_become_names_and_a_dotted_case_is_found(delimiter: str, tmp_path: Path) -> None:
    rows = [["External code", "ED frame (first)", "case"], ["B2", "3", "x"], ["a1.5", "7", "y"], ["A1.5", "9", "z"]]
    table(tmp_path, "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows))
    (found,) = described(tmp_path)
    assert isinstance(found, Case)
    assert found.fields["ed_frame_first"] == "7"  # of two rows the first counts
    assert found.fields["case"] == "A1.5"  # what the file's name says goes first


def test_the_row_may_name_the_case_in_words_or_with_folders(tmp_path: Path) -> None:
    table(tmp_path, "External code,ed\nscans/Case_A1.5,4\n")
    (found,) = described(tmp_path, about_is="case_{case}")
    assert isinstance(found, Case)
    assert found.fields["ed"] == "4"


def test_a_case_without_a_row_is_rejected(tmp_path: Path) -> None:
    table(tmp_path, "External code,ed\nB2,4\n")
    (found,) = described(tmp_path)
    assert isinstance(found, Reject)
    assert (found.reason, "'A1.5'" in found.detail) == ("missing_row", True)


def test_where_takes_only_some_and_empty_cells_are_empty(tmp_path: Path) -> None:
    table(tmp_path, "External code,vendor,sex\nA1.5,Siemens,n/a\n")
    (found,) = described(tmp_path, where={"vendor": "siemens"}, about_empty=["N/A"])
    assert isinstance(found, Case)
    assert found.fields["sex"] == ""
    assert described(tmp_path, where={"vendor": "Philips"}) == []


def test_a_missing_table_or_column_stops_the_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file is their about 'about.csv'"):
        list(described_volumes(part(ABOUT, about_key="ed"), [case(tmp_path)]))
    table(tmp_path, "Code,ed\nA1.5,4\n")
    with pytest.raises(Refused, match="no column 'External code'"):
        described(tmp_path)


def test_without_the_role_cases_pass_as_they_are(tmp_path: Path) -> None:
    one = case(tmp_path)
    assert list(described_volumes(part({}), [one])) == [one]
    assert list(framed(part({}), [one])) == [one]


def frames_of(folder: Path, fields: dict[str, str], **options: Any) -> list[Case | Reject]:
    one = case(folder)
    return list(framed(part({}, **options), [Case(one.key, folder, one.files, fields)]))


def test_each_labelled_frame_is_a_case(tmp_path: Path) -> None:
    found = frames_of(tmp_path, {"ed": "0", "es": "9.0"}, frames=["{ed}", "{es}"])
    assert [one.key for one in found if isinstance(one, Case)] == ["A1.5#0", "A1.5#9"]
    given = part({}, frames=["{ed}", "{es}"], max_slices=3)
    options = [with_frame(given, one).options for one in found if isinstance(one, Case)]
    assert [(o["index"], o["label_index"], o["max_slices"]) for o in options] == [(0, 0, 3), (9, 9, 3)]
    assert with_frame(part({}, index=4), case(tmp_path)).options == {"index": 4}


def test_a_frame_named_twice_is_one_and_counting_may_begin_at_one(tmp_path: Path) -> None:
    found = frames_of(tmp_path, {"ed": "1", "es": "1"}, frames=["{ed}", "{es}"], first_frame=1)
    assert [one.fields["frame"] for one in found if isinstance(one, Case)] == ["0"]


@pytest.mark.parametrize("text", ["", "nan", "4.5", "-2", "end"])
def test_a_frame_that_is_no_number_is_rejected(text: str, tmp_path: Path) -> None:
    found = frames_of(tmp_path, {"ed": "3", "es": text}, frames=["{ed}", "{es}"])
    assert [one.reason if isinstance(one, Reject) else one.key for one in found] == ["A1.5#3", "missing_field"]


CODES = {"case": "public_id", "is": "Rib{case}", "value": "label_id", "label": "label_code"}


def test_codes_are_those_of_the_case(tmp_path: Path) -> None:
    table(tmp_path, "public_id,label_id,label_code\nRibA1.5,0,0\nRibA1.5,1,-1\nRibB,1,4\nribA1.5,2.0,3.0\n", "codes.csv")
    given = part({"codes": "codes.csv"}, codes=CODES)
    assert codes_of(given, case(tmp_path, codes="codes.csv")) == {"0": "0", "1": "-1", "2": "3"}
    assert codes_of(part({}), case(tmp_path)) is None


def test_codes_need_their_table_and_their_columns(tmp_path: Path) -> None:
    given = part({"codes": "codes.csv"}, codes=CODES)
    with pytest.raises(Refused, match=r"no table 'codes\.csv'"):
        codes_of(given, case(tmp_path))
    with pytest.raises(SourceError, match=r"option codes of 'p' lacks 'value'"):
        codes_of(part({"codes": "codes.csv"}, codes={"case": "a", "is": "b"}), case(tmp_path))
