import pytest

from medglip.language.grammar import indefinite, is_are, listed, sentence, subject
from medglip.records import label_tree

TREE = label_tree()


@pytest.mark.parametrize(
    ("concept", "count", "said"),
    [
        ("abdomen.kidney@left", 1, "the left kidney is"),
        ("abdomen.kidney.tumor@right", 1, "a right kidney tumor is"),
        ("abdomen.kidney.tumor@right", 3, "three right kidney tumors are"),
        ("thorax.pleura.effusion@left", 1, "left pleural effusion is"),
        ("thorax.pleura.effusion", 2, "pleural effusion is"),
        ("head_neck.eye.retina.drusen", 1, "drusen are"),
        ("head_neck.brain.basal_ganglia", 1, "the basal ganglia are"),
        ("systemic.blood.platelet", 12, "12 platelets are"),
    ],
)
def test_subject_and_verb_agree(concept, count, said):
    assert f"{subject(concept, TREE, count)} {is_are(concept, TREE, count)}" == said


@pytest.mark.parametrize("words", ["ulcer", "opacity", "X-ray marker", "L1 vertebra", "MS lesion"])
def test_an(words):
    assert indefinite(words) == f"an {words}"


@pytest.mark.parametrize("words", ["ureter", "uterus", "nodule", "T12 vertebra", "unilateral cyst"])
def test_a(words):
    assert indefinite(words) == f"a {words}"


def test_lists_and_sentences():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"], "or") == "a or b"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert sentence(" the liver is seen.") == "The liver is seen."


def test_every_label_of_the_tree_can_be_a_subject():
    for label in TREE:
        for count in (1, 2):
            words = subject(label.id, TREE, count)
            assert words
            assert "  " not in words
