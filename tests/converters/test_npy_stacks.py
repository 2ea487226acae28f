import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import savemat
from small_sources import boxes, noise, save

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.errors import InputError, SourceError
from medglip.imaging.arrays import PickledError, read_array, read_sparse_layers, shape_in
from medglip.records import Picture, Reject, VolumeRecord

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "npy_stacks"
modality = "histopathology"
exhaustive = "all"
{files}
options = {{ {options} }}
{more}
[part.labels]
"0" = "nucleus"
"1" = "epithelial nucleus"
"2" = "lymphocyte nucleus"
"3" = "skip"
"""
NUCLEUS, EPITHELIAL, LYMPHOCYTE = "systemic.nucleus", "systemic.nucleus.epithelial", "systemic.nucleus.lymphocyte"
STACK = 'files = { image = "images.npy", mask = "masks.npy" }'
SINGLE = "files = { image = '{case}.png', mask = '{case}.{ending:npy|npz|mat}' }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def read(folder: Path, options: str, files: str = STACK, more: str = "") -> tuple[list, list[Reject]]:
    toml = folder.parent / "tiny.toml"
    toml.write_text(TOML.format(options=options, files=files, more=more))
    tasks, rejects = found_tasks(load_source(toml), folder)
    items = [item for task in tasks for item in run(task)]
    records = [item for item in items if not isinstance(item, Reject)]
    return records, [*rejects, *(item for item in items if isinstance(item, Reject))]


def reasons(rejects: list[Reject]) -> list[str]:
    return sorted(reject.reason for reject in rejects)


def stack(count: int = 3, height: int = 24, width: int = 30) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3)).astype(float)


def layered(count: int = 3, height: int = 24, width: int = 30) -> np.ndarray:
    """Two epithelial nuclei that touch, and a lymphocyte, in the first picture; the background is the last layer."""
    masks = np.zeros((count, height, width, 4))
    masks[0, 4:10, 5:12, 1] = 7
    masks[0, 4:10, 12:20, 1] = 9
    masks[0, 15:20, 3:9, 2] = 7
    masks[..., 3] = (masks[..., :3] == 0).all(axis=-1)
    return masks


TOUCHING = [(EPITHELIAL, (5, 4, 12, 10)), (EPITHELIAL, (12, 4, 20, 10)), (LYMPHOCYTE, (3, 15, 9, 20))]


@pytest.mark.parametrize(("axes", "order"), [("nhwc", (0, 1, 2, 3)), ("nchw", (0, 3, 1, 2)), ("hwcn", (1, 2, 3, 0))])
def test_every_picture_of_a_stack_is_a_case_in_any_order_of_axes(folder: Path, axes: str, order: tuple) -> None:
    images = stack()
    np.save(folder / "images.npy", images.transpose(order))
    np.save(folder / "masks.npy", layered().transpose(order))
    found, rejects = read(folder, f'axes = "{axes}", mask_axes = "{axes}", kind = "instance_layers"')
    assert rejects == []
    assert [item.record.origin.frame for item in found] == [0, 1, 2]
    assert sorted(boxes(found[0].record)) == sorted(TOUCHING)
    assert all(np.array_equal(item.pixels, images[n].astype(np.uint8)) for n, item in enumerate(found))
    assert not found[1].record.regions
    assert found[1].record.absent == (NUCLEUS, EPITHELIAL, LYMPHOCYTE)


def test_layers_without_numbers_are_parted_by_touch(folder: Path) -> None:
    np.save(folder / "images.npy", stack())
    np.save(folder / "masks.npy", layered())
    found, _ = read(folder, 'axes = "nhwc", mask_axes = "nhwc", kind = "layers"')
    assert sorted(boxes(found[0].record)) == sorted([(EPITHELIAL, (5, 4, 20, 10)), (LYMPHOCYTE, (3, 15, 9, 20))])


def test_numbers_as_classes_and_one_that_is_not_known(folder: Path) -> None:
    masks = np.zeros((3, 24, 30), np.uint8)
    masks[0, 2:9, 3:8], masks[0, 12:18, 5:9], masks[1, 1:9, 1:9] = 1, 3, 8
    np.save(folder / "images.npy", stack()[..., 0])
    np.save(folder / "masks.npy", masks)
    found, (reject,) = read(folder, 'axes = "nhw", mask_axes = "nhw"')
    assert [boxes(item.record) for item in found] == [[(EPITHELIAL, (3, 2, 8, 9))], [], []]
    assert (reject.reason, reject.case) == ("unknown_label", "images#000001")
    assert found[1].record.exhaustive == ()


def test_what_files_beside_a_stack_say_of_each_picture(folder: Path) -> None:
    np.save(folder / "images.npy", stack())
    np.save(folder / "types.npy", np.array(["Breast", "Colon", "Bile-duct"]))
    (folder / "rows.csv").write_text("Patient ID,grade\np1,3\np1,2\np2,1\n")
    files = 'files = { image = "images.npy", types = "types.npy", rows = "rows.csv" }'
    more = 'patient = "{patient_id}"\ndetail = { tissue = "{type}", grade = "{grade}", number = "{index}" }'
    found, rejects = read(folder, 'axes = "nhwc"', files, more)
    assert rejects == []
    details = [item.record.modality_detail for item in found]
    assert [tuple(detail.values()) for detail in details] == [
        ("Breast", "3", "0"),
        ("Colon", "2", "1"),
        ("Bile-duct", "1", "2"),
    ]
    groups = [item.record.group for item in found]
    assert groups[0] == groups[1] != groups[2]
    assert all(item.record.absent == () for item in found)  # no mask: unlabelled
    np.save(folder / "types.npy", np.array(["Breast", "Colon"]))
    assert reasons(read(folder, 'axes = "nhwc"', files, more)[1]) == ["size_mismatch"]


def test_a_stack_is_read_picture_by_picture(folder: Path) -> None:
    shape = (40_000, 32, 32, 3)  # 1 GB, of which nothing is on the disk
    for name, values in (("images.npy", np.arange(32 * 32 * 3.0).reshape(shape[1:]) % 250), ("masks.npy", 1.0)):
        array = np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float64, shape=shape)
        array[17] = values
        del array
    (folder.parent / "tiny.toml").write_text(
        TOML.format(options='axes = "nhwc", mask_axes = "nhwc", kind = "layers"', files=STACK, more="")
    )
    tasks, _ = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    assert len(tasks) == shape[0]
    tracemalloc.start()
    (item,) = run(tasks[17])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(item, Picture)
    assert peak < 30e6


def test_python_objects_are_never_loaded(folder: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "sprung",)

    for name in ("images.npy", "images.npz"):
        objects = np.array([Trap(), Trap()], dtype=object)
        (np.save if name.endswith("npy") else np.savez)(folder / name, objects, allow_pickle=True)
        with pytest.raises(PickledError, match="any program"):
            read_array(folder / name)
    with pytest.raises(InputError):
        read(folder, 'axes = "nhwc"', 'files = { image = "nothing.npy" }')
    found, rejects = read(folder, 'axes = "nhwc"', 'files = { image = "images.npy" }')
    assert (found, reasons(rejects)) == ([], ["pickled_array"])
    assert not (folder / "sprung").exists()


def test_files_that_are_broken_or_of_another_size(folder: Path) -> None:
    np.save(folder / "images.npy", stack())
    np.save(folder / "masks.npy", layered(2))
    assert reasons(read(folder, 'axes = "nhwc", mask_axes = "nhwc", kind = "layers"')[1]) == ["size_mismatch"]
    np.save(folder / "masks.npy", layered(height=23))
    assert reasons(read(folder, 'axes = "nhwc", mask_axes = "nhwc", kind = "layers"')[1]) == ["size_mismatch"] * 3
    np.save(folder / "masks.npy", layered() / 2)
    assert "non_integer_labels" in reasons(read(folder, 'axes = "nhwc", mask_axes = "nhwc", kind = "layers"')[1])
    (folder / "masks.npy").write_bytes((folder / "masks.npy").read_bytes()[:-9])
    assert reasons(read(folder, 'axes = "nhwc", mask_axes = "nhwc", kind = "layers"')[1]) == ["unreadable_file"] * 3
    (folder / "images.npy").write_bytes(b"")
    assert reasons(read(folder, 'axes = "nhwc"', 'files = { image = "images.npy" }')[1]) == ["unreadable_file"]


def test_colours_that_are_no_bytes_need_to_be_told(folder: Path) -> None:
    np.save(folder / "images.npy", stack() / 255)
    files = 'files = { image = "images.npy" }'
    assert reasons(read(folder, 'axes = "nhwc"', files)[1]) == ["bad_pixels"] * 3
    found, _ = read(folder, 'axes = "nhwc", window = [0, 1]', files)
    assert np.array_equal(found[2].pixels, stack()[2].astype(np.uint8))
    np.save(folder / "images.npy", np.full((1, 24, 30, 3), 9))
    assert reasons(read(folder, 'axes = "nhwc"', files)[1]) == ["constant_image"]
    np.save(folder / "images.npy", np.zeros((1, 24, 30, 2)))
    assert reasons(read(folder, 'axes = "nhwc"', files)[1]) == ["bad_pixels"]


@pytest.mark.parametrize("option", ["class_map_key", "class_key", "label"])
def test_maps_of_objects_in_matlab_files(folder: Path, option: str) -> None:
    save(folder, "a.png", noise(24, 30))
    numbers = np.zeros((24, 30))
    numbers[2:8, 3:9], numbers[10:16, 4:12], numbers[2:8, 9:15] = 5, 2, 40
    classes = np.select([numbers == 5, numbers == 2, numbers == 40], [1, 2, 1]).astype(float)
    classes[2, 3] = 2  # a pixel at the edge of another class
    savemat(folder / "a.mat", {"inst_map": numbers, "type_map": classes, "id": [[40], [5], [2]], "class": [[1], [1], [2]]})
    more = {"class_map_key": '"type_map"', "class_key": '"class", id_key = "id"', "label": '"1"'}[option]
    found, rejects = read(folder, f'kind = "instances", mask_key = "inst_map", {option} = {more}', SINGLE)
    assert rejects == []
    lymphocyte = EPITHELIAL if option == "label" else LYMPHOCYTE
    assert sorted(boxes(found[0].record)) == sorted([
        (EPITHELIAL, (3, 2, 9, 8)), (lymphocyte, (4, 10, 12, 16)), (EPITHELIAL, (9, 2, 15, 8)),
    ])  # fmt: skip


def test_matlab_files_that_cannot_be_used(folder: Path) -> None:
    save(folder, "a.png", noise(24, 30))
    savemat(folder / "a.mat", {"other": np.zeros((24, 30))})
    assert "'other'" in read(folder, 'kind = "instances", mask_key = "inst_map", label = "1"', SINGLE)[1][0].detail
    savemat(folder / "a.mat", {"inst_map": np.array([{"a": 1}], dtype=object)})
    assert reasons(read(folder, 'kind = "instances", mask_key = "inst_map", label = "1"', SINGLE)[1]) == ["unreadable_file"]
    (folder / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM\x89HDF")
    assert reasons(read(folder, 'kind = "instances", mask_key = "inst_map", label = "1"', SINGLE)[1]) == ["unreadable_file"]
    savemat(folder / "a.mat", {"inst_map": np.eye(24, 30), "class": [[1], [2]]})
    told = 'kind = "instances", mask_key = "inst_map", class_key = "class"'
    assert reasons(read(folder, told, SINGLE)[1]) == ["size_mismatch"]


SPARSE = "files = { image = 'image/{case}.png', mask = 'label/{case}.{shape:\\([0-9, ]+\\)}.npz', names = 'dataset.json' }"


def write_sparse(folder: Path, layers: np.ndarray, name: str = "", rows: int = 0) -> None:
    save(folder, "image/x_1.png", noise(*layers.shape[1:]))
    (folder / "label").mkdir(exist_ok=True)
    flat = sparse.csr_matrix(layers.reshape(rows or layers.shape[0], -1))
    sparse.save_npz(folder / f"label/x_1.{name or (*layers.shape, 1)}.npz", flat)
    names = {"0": "background", "1": "epithelial_nucleus", "2": "nucleus"}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "modality": {"0": "Microscopy"}}))


def test_sparse_layers_take_their_shape_from_the_name_and_their_labels_from_a_list(folder: Path) -> None:
    layers = np.zeros((2, 24, 30), np.uint8)
    layers[0, 3:9, 4:12], layers[1, 2:20, 2:25] = 1, 1
    for rows in (2, 1, 48):
        write_sparse(folder, layers, rows=rows)
        found, rejects = read(folder, 'sparse = true, first_label = 1, only = ["microscopy"]', SPARSE,
                              "labels_by_name = { enabled = true }")  # fmt: skip
        assert rejects == []
        assert sorted(boxes(found[0].record)) == [(NUCLEUS, (2, 2, 25, 20)), (EPITHELIAL, (4, 3, 12, 9))]
    with pytest.raises(InputError, match="nothing of the source"):
        read(folder, 'sparse = true, first_label = 1, only = ["ct"]', SPARSE)


@pytest.mark.parametrize("name", ["(2, 24, 31, 1)", "(2, 24)", "(3, 24, 30, 1)", "(2, 720)"])
def test_a_name_that_says_another_shape_is_refused(folder: Path, name: str) -> None:
    write_sparse(folder, np.ones((2, 24, 30), np.uint8), name)
    found, rejects = read(folder, "sparse = true, first_label = 1", SPARSE, "labels_by_name = { enabled = true }")
    assert reasons(rejects) == ["size_mismatch" if name[1] == "2" else "unreadable_file"]
    assert not found


def test_a_sparse_file_cannot_ask_for_memory(tmp_path: Path) -> None:
    huge = sparse.csr_matrix(([1], ([0], [5])), shape=(200_000, 200_000), dtype=np.uint8)
    sparse.save_npz(tmp_path / "a.npz", huge)
    with pytest.raises(InputError, match="200000 x 200000 cells"):
        read_sparse_layers(tmp_path / "a.npz", (2, 24, 30))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.randoms(use_true_random=False))
def test_sparse_layers_are_those_that_were_written(tmp_path_factory, layers: int, height: int, width: int, random) -> None:
    masks = np.array([random.random() < 0.3 for _ in range(layers * height * width)]).reshape(layers, height, width)
    path = tmp_path_factory.mktemp("s") / "a.npz"
    sparse.save_npz(path, sparse.csr_matrix(masks.reshape(layers, -1)))
    found = read_sparse_layers(path, masks.shape)
    again = np.stack([found.get(n, np.zeros((height, width), bool)) for n in range(layers)])
    assert np.array_equal(again, masks)


@pytest.mark.parametrize("text", ["(2, 24, 30", "2,24,30,", "( 2,24 , 30 )"])
def test_shapes_as_they_are_written(text: str) -> None:
    assert shape_in(text) == (2, 24, 30)


@pytest.mark.parametrize("text", ["(2, 24, x)", "__import__('os')", "", "(2, -1)", "(9999999999, 1)"])
def test_what_is_no_shape_is_not_evaluated(text: str) -> None:
    with pytest.raises(InputError, match="no shape"):
        shape_in(text)


def test_a_volume_in_one_file_has_its_spacing_as_x_y_z(folder: Path) -> None:
    numbers = np.zeros((6, 24, 30), np.uint8)
    numbers[1:4, 5:12, 6:20] = 1
    values = np.random.default_rng(1).integers(0, 255, numbers.shape).astype(np.uint8)
    np.savez(folder / "CT_1.npz", imgs=values, gts=numbers, spacing=(0.7, 0.8, 2.5))
    keys = 'volume = true, image_key = "imgs", mask_key = "gts", spacing_key = "spacing"'
    found, rejects = read(folder, keys, "files = { image = '{case}.npz' }")
    assert rejects == []
    (volume,) = [item for item in found if isinstance(item, VolumeRecord)]
    assert volume.spacing_kji_mm == (2.5, 0.8, 0.7)
    pictures = [item for item in found if isinstance(item, Picture)]
    assert [item.record.origin.slice for item in pictures] == [1, 2, 3]
    assert {(*boxes(item.record)[0], item.record.spacing_mm) for item in pictures} == {
        (EPITHELIAL, (6, 5, 20, 12), (0.8, 0.7)),
    }  # fmt: skip
    assert np.array_equal(pictures[0].pixels, values[1])
    assert "orientation_unknown" in pictures[0].record.flags
    np.savez(folder / "CT_1.npz", imgs=values, gts=numbers[1:], spacing=(0.7, 0.8, 2.5))
    assert reasons(read(folder, keys, "files = { image = '{case}.npz' }")[1]) == ["size_mismatch"]
    np.savez(folder / "CT_1.npz", imgs=values, spacing=(0.7, 0.8, 2.5))
    assert "'gts'" in read(folder, keys, "files = { image = '{case}.npz' }")[1][0].detail


def test_options_that_are_not_known(folder: Path) -> None:
    np.save(folder / "images.npy", stack())
    with pytest.raises(SourceError, match="allowed: indexed"):
        read(folder, 'kind = "colours"')
    for axes in ("nhwx", "nhh", "nc"):
        with pytest.raises(SourceError, match="option axes"):
            read(folder, f'axes = "{axes}"')
