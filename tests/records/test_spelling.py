"""Spelling: raw labels that mean the same have one key."""

import pytest

from medglip.records.spelling import british, key_of_words, plural_of, side_parsed_off, words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Breast tumour", "breast_tumors"),
        ("haemorrhage", "Hemorrhages"),
        ("oesophagus", "esophagus"),
        ("RenalArteries", "renal artery"),
        ("masses", "mass"),
        ("cortices of the kidney", "cortices kidney"),
        ("metastases", "metastasis"),
        ("stenoses", "stenosis"),
        ("nuclei", "nucleus"),
        ("soft-tissue", "Soft Tissues"),
        ("Ménière", "Meniere"),
        ("Bowen's disease", "bowens disease"),
        ("disk", "disc"),
    ],
)
def test_same_key(one, other):
    assert key_of_words(words_of(one)) == key_of_words(words_of(other))


@pytest.mark.parametrize(("one", "other"), [("lobule 4 5", "lobule 45"), ("rib 1", "rib 11"), ("T1", "T11")])
def test_different_key(one, other):
    assert key_of_words(words_of(one)) != key_of_words(words_of(other))


@pytest.mark.parametrize("name", ["pelvis", "corpus", "pons", "gas", "thymus", "lens", "biceps"])
def test_singular_words_that_end_in_s_do_not_clash(name):
    assert key_of_words(words_of(name)) == key_of_words(words_of(name.upper()))


@pytest.mark.parametrize(
    ("raw", "side", "rest"),
    [
        ("kidney left", "left", ["kidney"]),
        ("R kidney", "right", ["kidney"]),
        ("kidney on the right side", "right", ["kidney"]),
        ("both kidneys", "bilateral", ["kidney"]),
        ("vertebra L5", None, ["vertebra", "l5"]),
        ("left to right shunt", None, ["left", "to", "right", "shunt"]),
        ("area L one", None, ["area", "l", "one"]),
        ("", None, []),
    ],
)
def test_side_parsed_off(raw, side, rest):
    assert side_parsed_off(words_of(raw)) == (side, rest)


def test_british_and_plural():
    assert british("esophageal tumor of the gray matter") == "oesophageal tumour of the grey matter"
    assert british("kidney") == "kidney"
    assert british("hemisphere") == "hemisphere"
    assert [plural_of(name) for name in ("biopsy", "kidney", "lobe of the lung", "pelvis")] == [
        "biopsies", "kidneys", "lobes of the lung", "pelvises"]  # fmt: skip
