import numpy as np

from medglip.imaging.components import box_of_voxels, components_of


def test_objects_come_largest_first_with_their_boxes() -> None:
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 1  # touch by a corner
    mask[2:4, 3:6, 4:8] = 5
    numbers, found = components_of(mask)
    assert [(c.number, c.voxels) for c in found] == [(1, 24), (2, 2)]
    assert found[0].box_kji == (2, 3, 4, 4, 6, 8)
    assert numbers[1, 1, 1] == 2
    assert len(components_of(mask, 6)[1]) == 3
    assert all(box_of_voxels(numbers == c.number) == c.box_kji for c in found)


def test_an_empty_mask_has_no_object() -> None:
    numbers, found = components_of(np.zeros((2, 2, 2)))
    assert found == []
    assert not numbers.any()
    assert box_of_voxels(np.zeros((2, 2, 2))) is None
