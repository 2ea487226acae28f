import pytest
import torch

from medglip.errors import ModelError
from medglip.model.encoders import HashedText
from medglip.model.prompt import make_prompt


def test_equal_phrases_are_read_once_and_found_by_index():
    prompt = make_prompt([["left lung", "heart"], ["heart"]], HashedText().tokenize)
    assert prompt.texts == ("left lung", "heart")
    assert prompt.place.tolist() == [[0, 1], [1, 0]]
    assert prompt.phrase_is_asked.tolist() == [[True, True], [True, False]]
    assert prompt.token_is_word.tolist() == [[True, True], [True, False]]


def test_case_makes_no_difference_to_the_tokens():
    text = HashedText()
    assert torch.equal(text.tokenize(["Left LUNG"])[0], text.tokenize(["left lung"])[0])


@pytest.mark.parametrize("phrases", [[[]], [["lung", " "]]])
def test_a_prompt_without_words_is_refused(phrases):
    with pytest.raises(ModelError, match="at least one phrase"):
        make_prompt(phrases, HashedText().tokenize)
