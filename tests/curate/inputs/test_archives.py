"""Archives as inputs: their tree, whatever packs it; what is refused, and what is told as lost."""

import io
import os
import re
import struct
import tarfile
import unicodedata
import zipfile

import pytest

from medglip.curate.inputs import Limits, LostWarning, beginning, opened_input
from medglip.errors import InputError


def nfc(files):
    return {unicodedata.normalize("NFC", name): content for name, content in files.items()}


def tar(path, files, mode="w:gz", members=()):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in members:
            archive.addfile(info)
    return path


def test_a_folder_is_itself(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.nii.gz").write_bytes(b"\x1f\x8bnot an archive")
    with opened_input(tmp_path / "in", tmp_path / "scratch") as folder:
        assert folder == tmp_path / "in"
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_its_tree_whatever_its_name(tmp_path, files, zipped, tree_of, mode):
    debris = {"__MACOSX/set/._a": b"x", "set/._a_1.png": b"x", "set/.DS_Store": b"x"}
    path = zipped("download", debris.items()) if mode == "zip" else tar(tmp_path / "download", files | debris, mode)
    with opened_input(path) as folder:
        assert tree_of(folder) == nfc(files)
    assert not folder.exists()


def test_a_kept_scratch_is_used_again_and_places_do_not_matter(tmp_path, files, zipped, tree_of, monkeypatch):
    path, scratch = zipped(), tmp_path / "scratch"
    with opened_input(path, scratch) as first:
        trees = [tree_of(first)]
    monkeypatch.setattr("medglip.curate.inputs.unpack", None)  # a second unpacking would fail
    with opened_input(path, scratch) as second:
        trees.append(tree_of(second))
    assert first == second
    assert trees == [nfc(files)] * 2


def test_a_half_unpacked_scratch_is_not_taken_for_whole(tmp_path, files, zipped, tree_of):
    path, scratch = zipped(), tmp_path / "scratch"

    def stop(done, total, note):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened_input(path, scratch, stop):
        pass
    assert not [entry for entry in scratch.iterdir() if entry.is_dir()]
    with opened_input(path, scratch) as folder:
        assert tree_of(folder) == nfc(files)


def test_progress_is_told_with_the_place(tmp_path, zipped):
    steps = []
    with opened_input(zipped(), tmp_path / "scratch", lambda *step: steps.append(step)):
        pass
    assert str(tmp_path / "scratch") in steps[0][2]
    assert steps[-1][0] == steps[-1][1] > 0
    assert [step[0] for step in steps] == sorted(step[0] for step in steps)


@pytest.mark.parametrize("name", ["../out.txt", "set/../../out.txt", "/tmp/out.txt", "C:/out.txt", "..\\out.txt", "c:out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_is_refused(tmp_path, files, zipped, name, kind):
    path = zipped(extra=[(name, b"x")]) if kind == "zip" else tar(tmp_path / "x.tgz", files | {name: b"x"})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="which leads out of it") as caught, opened_input(path, tmp_path / "scratch"):
        pass
    assert repr(name) in str(caught.value)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "scratch"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, files, kind):
    info = tarfile.TarInfo("set/odd")
    info.type, info.linkname = kind, "/etc/passwd"
    path = tar(tmp_path / "x.tar", files, "w", [info])
    with pytest.raises(InputError, match="'set/odd', which is a link or a device"), opened_input(path):
        pass


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("odd")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'odd', which is a link"), opened_input(tmp_path / "x.zip"):
        pass


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(ratio=100, ratio_from_bytes=1 << 20), "made to fill a disk"),
        (Limits(total_bytes=1 << 20), "are allowed or free"),
    ],
)
def test_too_much_is_refused(tmp_path, kind, limits, message):
    bomb = {"zeros.bin": bytes(8 << 20)}
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros.bin", bomb["zeros.bin"])
    else:
        tar(tmp_path / "x", bomb)
    with pytest.raises(InputError, match=message), opened_input(tmp_path / "x", tmp_path / "scratch", limits=limits):
        pass
    assert not [entry for entry in (tmp_path / "scratch").iterdir() if entry.is_dir()]


def test_a_bomb_in_layers_is_refused(tmp_path):
    content = bytes(1 << 20)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"{number}.bin", content)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.zip", inner.getvalue())
    with (
        pytest.raises(InputError, match="becomes more than"),
        opened_input(tmp_path / "x.zip", limits=Limits(ratio=1, ratio_from_bytes=16 << 20)),
    ):
        pass


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_cut_off_archive_is_refused(tmp_path, mode, share):
    content = {f"{number}.bin": os.urandom(5000) for number in range(10)}
    if mode == "zip":
        with zipfile.ZipFile(tmp_path / "x", "w") as archive:
            for name, value in content.items():
                archive.writestr(name, value)
    else:
        tar(tmp_path / "x", content, mode)
    whole = (tmp_path / "x").read_bytes()
    stop = int(len(whole) * share)
    if mode == "w":  # the worst place: between two members, where nothing is broken
        stop -= stop % 512
        stop = min(stop, whole.rindex(b"9.bin\0"))
    (tmp_path / "x").write_bytes(whole[:stop])
    with pytest.raises(InputError, match="cut off or broken"), opened_input(tmp_path / "x"):
        pass


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    path = tar(tmp_path / "x.tar", {"a.txt": bytes(range(200)) * 3, "b.txt": b"b"}, "w")
    path.write_bytes(path.read_bytes()[:1536])
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.txt"]  # tarfile itself is content
    with pytest.raises(InputError, match="its end mark is missing"), opened_input(path):
        pass


def test_a_broken_member_is_told_and_the_others_are_kept(zipped, tree_of, files, tmp_path):
    path = zipped()
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + 2] ^= 0xFF
    path.write_bytes(content)
    for _ in range(2):  # unpacked, and found unpacked
        lost = []
        with opened_input(path, tmp_path / "scratch", on_lost=lost.append) as folder:
            assert set(tree_of(folder)) == set(nfc(files)) - {"set/images/a_1.png"}
        assert [(entry.file, entry.reason) for entry in lost] == [("set/images/a_1.png", "broken_member")]


def encrypted(path, names):
    """Mark members as encrypted, in both places that say so."""
    content = bytearray(path.read_bytes())
    for mark, flags, name_length, name_at in ((b"PK\x03\x04", 6, 26, 30), (b"PK\x01\x02", 8, 28, 46)):
        for match in re.finditer(re.escape(mark), bytes(content)):
            at = match.start()
            length = struct.unpack_from("<H", content, at + name_length)[0]
            if content[at + name_at : at + name_at + length].decode() in names:
                content[at + flags] |= 1
    path.write_bytes(content)


def test_a_password_is_told(zipped, files, tree_of):
    path = zipped()
    encrypted(path, ["set/table.csv"])
    with pytest.warns(LostWarning, match=r"set/table.csv: It is protected by a password"), opened_input(path) as folder:
        assert "set/table.csv" not in tree_of(folder)
    encrypted(path, list(files))
    with pytest.raises(InputError, match="protected by a password"), opened_input(path):
        pass


def test_one_name_twice_the_later_counts(tmp_path, tree_of):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for content in (b"old and long", b"new"):
            info = tarfile.TarInfo("a.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with opened_input(tmp_path / "x.tar") as folder:
        assert tree_of(folder) == {"a.txt": b"new"}


def test_names_in_utf8_that_do_not_say_so_are_read(tmp_path, tree_of):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("Brücke.txt", b"x")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        content[content.index(mark) + flags] &= 0xF7
    (tmp_path / "x.zip").write_bytes(content)
    with opened_input(tmp_path / "x.zip") as folder:
        assert list(tree_of(folder)) == ["Brücke.txt"]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_an_empty_archive_is_refused(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    if ending == "zip":
        zipfile.ZipFile(path, "w").close()
    else:
        tar(path, {}, "w:gz" if ending == "tar.gz" else "w")
    with pytest.raises(InputError, match="holds no file"), opened_input(path):
        pass


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"<html>Not found</html>", "neither a ZIP or TAR archive"),
        ("x.tar.gz", b"", "neither a ZIP or TAR archive"),
        ("x.nii.gz", b"\x1f\x8b\x08\x00broken", "cut off or broken"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c rest", "7z x"),
        ("x.rar", b"Rar!\x1a\x07\x01\x00", "unrar x"),
        ("x.zip.001", b"PK\x03\x04", "split archive"),
        ("x.z01", b"PK\x07\x08PK\x03\x04", "split archive"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "single file"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message), opened_input(tmp_path / name):
        pass


def test_the_last_part_of_a_split_archive_is_known_by_its_neighbour(tmp_path, zipped):
    path = zipped()
    path.with_suffix(".z01").write_bytes(b"part")
    with pytest.raises(InputError, match="split archive"), opened_input(path):
        pass


@pytest.mark.parametrize(("given", "message"), [("nowhere", "is not there"), ("ftp://host/x.zip", "of an unknown kind")])
def test_what_is_not_there_is_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message), opened_input(given):
        pass


def test_archives_in_an_archive_are_unpacked_where_they_lie(tmp_path, files, zipped, tree_of):
    inner = zipped("part1.zip")
    deeper = tar(tmp_path / "deeper.tgz", {"b.txt": b"b"})
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "data/part1.zip")
        archive.writestr("data/table.xlsx", inner.read_bytes())  # a ZIP too, and a file of its own kind
        archive.writestr("more.tar", tar(tmp_path / "m.tar", {"sub/deeper.tgz": deeper.read_bytes()}, "w").read_bytes())
    expected = {f"data/{name}": content for name, content in nfc(files).items()}
    with opened_input(outer) as folder:
        assert tree_of(folder) == expected | {"data/table.xlsx": inner.read_bytes(), "sub/b.txt": b"b"}


def test_archives_beside_a_table_are_unpacked_without_touching_the_folder(tmp_path, files, zipped, tree_of):
    home = tmp_path / "download"
    home.mkdir()
    (home / "labels.csv").write_bytes(b"id\n")
    zipped("images.zip").rename(home / "images.zip")
    before = tree_of(home)
    with opened_input(home) as folder:
        assert tree_of(folder) == {"labels.csv": b"id\n"} | nfc(files)
    assert tree_of(home) == before


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize("kind", ["images.zip", "images.tar.gz"])
def test_an_archive_that_is_unpacked_already_is_passed_over(tmp_path, zipped, files, kind, below):
    home = tmp_path / "download"
    home.mkdir()
    path = zipped(kind) if kind == "images.zip" else tar(tmp_path / kind, files)
    path.rename(home / kind)
    for name, content in nfc(files).items():
        place = home / below / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with opened_input(home) as folder:
        assert folder == home
    place.unlink()
    with opened_input(home) as folder:
        assert folder != home


def test_a_broken_archive_in_a_folder_is_told_and_the_rest_is_there(tmp_path, zipped, tree_of):
    home = tmp_path / "download"
    home.mkdir()
    (home / "a.txt").write_bytes(b"a")
    (home / "b.zip").write_bytes(zipped().read_bytes()[:200])
    lost = []
    with opened_input(home, on_lost=lost.append) as folder:
        assert tree_of(folder) == {"a.txt": b"a"}
    assert [(entry.file, entry.reason) for entry in lost] == [("b.zip", "unreadable_archive")]


def test_two_archives_with_one_name_for_two_files_are_told(tmp_path, zipped, tree_of):
    home = tmp_path / "download"
    home.mkdir()
    for name, content in (("1.zip", b"one"), ("2.zip", b"two")):
        with zipfile.ZipFile(home / name, "w") as archive:
            archive.writestr("images/1.png", content)
            archive.writestr("same.txt", b"same")
    lost = []
    with opened_input(home, on_lost=lost.append) as folder:
        assert tree_of(folder) == {"images/1.png": b"one", "same.txt": b"same"}
    assert [(entry.file, entry.reason) for entry in lost] == [("images/1.png", "name_taken")]


def test_the_beginning_is_below_folders_at_the_top(tmp_path, zipped):
    with opened_input(zipped()) as folder:
        assert beginning(folder, ["images/{case}.png"]) == folder / "set"
        assert beginning(folder, ["set/images/{case}.png"]) == folder
        assert beginning(folder, ["nothing/{case}.png"]) == folder
        assert beginning(folder, ["**/{case}.png"]) == folder
        assert beginning(folder, ["**/{case}.png"], packed=True).parent == folder
        assert beginning(folder, ["set/**/{case}.png"], packed=True) == folder


def test_a_scratch_that_cannot_be_is_refused(tmp_path, zipped):
    path = zipped()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be made"), opened_input(path, tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="lies in the input"), opened_input(tmp_path, tmp_path / "scratch"):
        pass
