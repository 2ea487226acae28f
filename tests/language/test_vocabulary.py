import pytest
from language_world import KIDNEY, KIDNEY_TUMOR, LIVER, LUNG, NODULE, SPLEEN, record, region

from medglip.errors import ModelError
from medglip.language.vocabulary import Vocabulary, vocabulary_of
from medglip.records import label_tree

TREE = label_tree()
BRAIN, HEMORRHAGE = "head_neck.brain", "head_neck.brain.hemorrhage"
VOCABULARY = Vocabulary({"ct": ((LIVER, KIDNEY, KIDNEY_TUMOR), (BRAIN,), (HEMORRHAGE,), (NODULE,))})


def test_groups_are_what_is_searched_for_together():
    records = [
        record([region(LIVER, (0, 0, 5, 5))], absent=[SPLEEN]),
        record(absent=[SPLEEN, KIDNEY]),
        record([region(LUNG, (0, 0, 5, 5))]),
        record([region(LUNG, (0, 0, 5, 5))], modality="xray"),
    ]
    vocabulary = vocabulary_of(records)
    assert vocabulary.groups == {"ct": ((KIDNEY, LIVER, SPLEEN), (LUNG,)), "xray": ((LUNG,),)}
    assert vocabulary.of("xray") == (LUNG,)
    assert vocabulary.of(None) == vocabulary.of("oct") == tuple(sorted((LIVER, SPLEEN, KIDNEY, LUNG)))


def fitting(*regions):
    return VOCABULARY.fitting("ct", [region(label, (0, 0, 9, 9), score=score) for label, score in regions], TREE)


def test_the_group_of_the_surest_anatomy_fits_and_findings_go_with_their_body_region():
    assert fitting((LIVER, 0.9), (BRAIN, 0.5)) == {LIVER, KIDNEY, KIDNEY_TUMOR}
    assert fitting((LIVER, 0.5), (BRAIN, 0.9)) == {BRAIN, HEMORRHAGE}
    assert fitting((LIVER, 0.85), (BRAIN, 0.9)) == {LIVER, KIDNEY, KIDNEY_TUMOR, BRAIN, HEMORRHAGE}


def test_a_group_of_the_whole_body_vouches_only_for_the_regions_that_are_seen():
    whole = Vocabulary({"ct": ((LIVER, BRAIN), (HEMORRHAGE,), (NODULE,))})
    faint, seen = ([region(LIVER, (0, 0, 9, 9), score=0.9), region(BRAIN, (0, 0, 9, 9), score=score)] for score in (0.2, 0.8))
    assert whole.fitting("ct", faint, TREE) == {LIVER, BRAIN}
    assert whole.fitting("ct", seen, TREE) == {LIVER, BRAIN, HEMORRHAGE}


def test_a_finding_that_is_plainly_there_is_kept():
    assert NODULE in fitting((LIVER, 0.9), (NODULE, 0.6))


def test_where_nothing_is_found_only_findings_without_anatomy_are_kept():
    assert fitting() == {HEMORRHAGE, NODULE}


def test_a_single_group_always_fits():
    assert Vocabulary({"ct": ((LIVER, KIDNEY),)}).fitting("ct", [], TREE) == {LIVER, KIDNEY}


def test_save_and_load(tmp_path):
    VOCABULARY.save(tmp_path)
    assert Vocabulary.load(tmp_path) == VOCABULARY
    (tmp_path / "vocabulary.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"vocabulary\.json"):
        Vocabulary.load(tmp_path)
