import pytest

from medglip.records import label_tree
from medglip.records.mentions import Lexicon

TREE = label_tree()
LEXICON = Lexicon([label.id for label in TREE], TREE)


def found(text):
    return [(mention.concepts[0], mention.polarity) for mention in LEXICON.mentions(text)]


@pytest.mark.parametrize(
    "text", ["Is there a left kidney?", "kidney on the left side", "the kidney on the left", "LEFT KIDNEYS"]
)
def test_side_is_read_before_and_after(text):
    assert found(text) == [("abdomen.kidney@left", "present")]


def test_longest_name_wins():
    assert found("any kidney tumour") == [("abdomen.kidney.tumor", "present")]


def test_negation_ends_with_its_clause():
    assert found("No pneumothorax, but a pleural effusion.") == [
        ("thorax.pleura.pneumothorax", "absent"), ("thorax.pleura.effusion", "present"),
    ]  # fmt: skip
    assert found("Pleural effusion is absent") == [("thorax.pleura.effusion", "absent")]
    assert found("Possible pneumothorax") == [("thorax.pleura.pneumothorax", "uncertain")]


def test_normal_is_not_no():
    assert found("normal liver") == [("abdomen.liver", "present")]


def test_words_of_no_label_are_no_mention():
    assert found("How old is the patient?") == []


def test_every_name_is_found():
    for label in TREE:
        names = {concept for mention in LEXICON.mentions(label.name) for concept in mention.concepts}
        assert any(TREE.covers(concept, label.id) or concept.partition("@")[0] == label.id for concept in names), label.id
