import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip.records.licences import allows_derived_weights, verdict_on

OPEN = ("CC-BY-4.0", "CC BY 4.0", "CC-BY-3.0", "CC BY", "cc-by-2.5", "CC0-1.0", "CC0", "MIT", "mit", "BSD-2-Clause",
        "BSD-3-Clause", "0BSD", "Apache-2.0", "Apache License 2.0")  # fmt: skip
CLOSED = ("CC-BY-NC-4.0", "CC BY-NC", "CC BY-NC -SA 4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-SA-4.0",
          "CC BY SA 3.0", "ODbL-1.0", "GPL-3.0-only", "PhysioNet Credentialed Health Data License", "free for research",
          "Terms of the X challenge; read them on its page", "see the page", "", "   ", "unknown", "public domain")  # fmt: skip


@pytest.mark.parametrize("licence", OPEN)
def test_open_licences_pass(licence):
    assert allows_derived_weights(licence)


@pytest.mark.parametrize("licence", CLOSED)
def test_others_do_not_and_the_reason_is_said(licence):
    allowed, reason = verdict_on(licence)
    assert not allowed
    assert reason


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC0-1.0 or CC-BY-NC-4.0, image by image", "forbids commercial use"),
        ("CC-BY-NC-ND-4.0", "forbids commercial use"),
        ("CC-BY-ND-4.0", "forbids changed copies"),
        ("CC-BY-4.0 (as its card says; others say CC BY-SA 4.0)", "binds changed copies"),
        ("CC-BY-4.0 (from memory)", "nobody has checked it"),
        ("CC-BY-4.0 for the boxes; every image keeps the terms of the set that it is from", "differs from image to image"),
        ("CC-BY-4.0 as part of HyperKvasir; the data page says free for research and education", "is for some uses only"),
        ("terms of FLARE22; the script is Apache-2.0", "has terms of its own"),
        ("CC-BY-4.0 AND GPL-3.0", "is not one of"),
        ("no restriction on use, credit is asked for", "is not one of"),
    ],
)
def test_what_speaks_against_wins_over_an_open_name(licence, reason):
    allowed, said = verdict_on(licence)
    assert not allowed
    assert said.startswith(reason)


@pytest.mark.parametrize(
    "licence",
    [
        "CC0-1.0 on the data page, CC-BY-4.0 in the article",
        "CC-BY-4.0 (TCIA data usage policy)",
        "CC-BY-4.0 (AMOS, TotalSegmentator); the repository Apache-2.0",
        "MIT OR Apache-2.0",
    ],
)
def test_several_open_licences_and_who_says_so_pass(licence):
    assert allows_derived_weights(licence)


@pytest.mark.parametrize("name", ["MITRE", "MIT-like", "CC-BY-4.0-ish", "cc-by-4.05", "BSD-3-Clause-No-Nuclear-License",
                                  "Apache-2.01", "NOT MIT", "almost CC-BY-4.0"])  # fmt: skip
def test_a_name_that_only_begins_or_ends_like_one_is_unknown(name):
    assert not allows_derived_weights(name)


@given(st.sampled_from(OPEN), st.sampled_from(CLOSED[:8]), st.sampled_from(["; ", ", ", " or ", " and ", " (", " "]))
def test_an_open_licence_beside_a_closed_one_never_passes(one, other, between):
    assert not allows_derived_weights(one + between + other)
    assert not allows_derived_weights(other + between + one)


@given(st.text(max_size=40))
def test_any_text_is_decided_and_words_of_ones_own_do_not_pass(text):
    if allows_derived_weights(text):
        assert any(name in text.lower() for name in ("cc", "mit", "bsd", "apache"))
