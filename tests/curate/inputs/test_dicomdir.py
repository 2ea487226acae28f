"""Media with a DICOMDIR: the files it names, those that are missing, and damage."""

import shutil

import pytest
from pydicom.fileset import FileSet

from medglip.curate.inputs import opened_input
from medglip.errors import InputError


@pytest.fixture
def medium(tmp_path, make_slice):
    """A medium as pydicom writes it: four slices of two series, and a viewer that no record names."""
    made = FileSet()
    for series in ("one", "two"):
        for number in range(2):
            made.add(make_slice("study", series, number))
    made.write(tmp_path / "medium")
    (tmp_path / "medium/VIEWER.EXE").write_bytes(b"MZ")
    return tmp_path / "medium"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_dicomdir_becomes_the_files_that_it_names(medium, tmp_path):
    lost = []
    with opened_input(medium / "DICOMDIR", tmp_path / "scratch", on_lost=lost.append) as folder:
        assert names(folder) == [name for name in names(medium) if name not in ("DICOMDIR", "VIEWER.EXE")]
        assert len(names(folder)) == 4
        assert (folder / names(folder)[0]).read_bytes() == (medium / names(folder)[0]).read_bytes()
    assert lost == []


def test_a_renamed_dicomdir_is_known_by_its_content(medium):
    (medium / "DICOMDIR").rename(medium / "index.dcm")
    with opened_input(medium / "index.dcm") as folder:
        assert len(names(folder)) == 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_missing_file_is_told_with_its_path(medium, whole):
    gone = names(medium)[1]
    (medium / gone).unlink()
    lost = []
    with opened_input(medium if whole else medium / "DICOMDIR", on_lost=lost.append) as folder:
        assert (folder == medium) is whole
        assert gone not in names(folder)
    assert [(entry.file, entry.reason) for entry in lost] == [(gone, "missing_file")]


def test_small_letters_and_version_marks_are_found(medium):
    for path in sorted(medium.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower() + (";1" if path.is_file() else "")))
    lost = []
    with opened_input(medium / "DICOMDIR", on_lost=lost.append) as folder:
        assert len(names(folder)) == 4
    assert lost == []


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", "half"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_dicomdir_falls_back_to_content(medium, content, whole):
    path = medium / "DICOMDIR"
    path.write_bytes(path.read_bytes()[:400] if content == "half" else content)
    lost = []
    with opened_input(medium if whole else path, on_lost=lost.append) as folder:
        assert len([name for name in names(folder) if name not in ("DICOMDIR", "VIEWER.EXE")]) == 4
    assert [(entry.file, entry.reason) for entry in lost] == [("DICOMDIR", "damaged_dicomdir")]


def test_a_name_that_leads_out_is_not_followed(medium, tmp_path, make_slice):
    (tmp_path / "SECRET").write_bytes(b"x")
    content = (medium / "DICOMDIR").read_bytes()
    name = names(medium)[1].replace("/", "\\").encode()
    assert name in content
    (medium / "DICOMDIR").write_bytes(content.replace(name, b"..\\SECRET".ljust(len(name)), 1))
    lost = []
    with opened_input(medium / "DICOMDIR", on_lost=lost.append) as folder:
        assert len(names(folder)) == 3
    assert [entry.reason for entry in lost] == ["unsafe_name"]


def test_a_medium_in_an_archive_is_checked(medium, tmp_path):
    gone = names(medium)[1]
    (medium / gone).unlink()
    path = shutil.make_archive(str(tmp_path / "cd"), "zip", tmp_path, "medium")
    lost = []
    with opened_input(path, on_lost=lost.append) as folder:
        assert len(names(folder)) == 5
    assert [(entry.file, entry.reason) for entry in lost] == [(f"medium/{gone}", "missing_file")]


def test_a_dicomdir_without_files_is_refused(medium):
    for path in medium.rglob("*"):
        if path.is_file() and path.name != "DICOMDIR":
            path.unlink()
    with (
        pytest.raises(InputError, match="none of its files is there"),
        opened_input(medium / "DICOMDIR", on_lost=lambda lost: None),
    ):
        pass
