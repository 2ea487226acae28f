from pathlib import Path

import numpy as np
import pytest

from medglip.curate.cases import Case
from medglip.curate.source import Named, Part
from medglip.curate.volumes import structure_of, volume_cases
from medglip.records import Reject


def part(**files: str) -> Part:
    return Part("p", "label_volumes", "ct", "tiny", "CC0-1.0", "human", files, {})


@pytest.mark.parametrize("seed", range(5))
def test_a_structure_keeps_its_bits(seed: int) -> None:
    draw = np.random.default_rng(seed)
    mask = np.zeros((7, 9, 11), bool)
    mask[2:6, 1:8, 3:10] = draw.random((4, 7, 7)) > 0.6
    whole = structure_of(Named("abdomen.liver"), mask)
    k0, j0, i0, k1, j1, i1 = whole.box_kji
    assert np.array_equal(whole.mask, mask[k0:k1, j0:j1, i0:i1])
    assert whole.mask.sum() == mask.sum()
    for axis in range(3):
        assert np.array_equal(whole.profiles[axis], mask.sum(axis=tuple({0, 1, 2} - {axis})))
    piece = structure_of(Named("abdomen.liver"), mask[2:, 1:8], (2, 1, 0), mask.shape)
    assert piece.box_kji == whole.box_kji
    assert np.array_equal(piece.bits, whole.bits)
    assert all(np.array_equal(a, b) for a, b in zip(piece.profiles, whole.profiles, strict=True))


def test_an_empty_structure_was_searched_for() -> None:
    empty = structure_of(Named("abdomen.liver"), np.zeros((2, 3, 4), bool))
    assert empty.box_kji is None
    assert empty.mask.size == 0
    assert [profile.sum() for profile in empty.profiles] == [0, 0, 0]


def test_a_folder_of_dicom_files_is_one_case(tmp_path: Path) -> None:
    for name in ("p1/ct/CT.1.2.3", "p1/ct/CT.1.2.4", "p2/ct/CT.1.2.3", "p1_seg.nii.gz", "p3_seg.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(volume_cases(part(series="{case}/ct/{slice}", labels="{case}_seg.nii.gz"), tmp_path))
    first, second = (item for item in found if isinstance(item, Case))
    assert first.files == {"series": ("p1/ct/CT.1.2.3", "p1/ct/CT.1.2.4"), "labels": ("p1_seg.nii.gz",)}
    assert first.fields == {"case": "p1"}
    assert second.files["labels"] == ()
    assert [(r.file, r.reason) for r in found if isinstance(r, Reject)] == [("p3_seg.nii.gz", "orphan")]
