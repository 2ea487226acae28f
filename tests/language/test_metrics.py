import pytest
from language_world import EFFUSION, KIDNEY_TUMOR, LIVER, NODULE, SPLEEN, noisy, record, region, world

from medglip.language.bands import Bands
from medglip.language.metrics import (
    Statement,
    exact_match,
    normalised,
    score_report,
    score_reports,
    statements_of_report,
    statements_of_text,
    token_f1,
)
from medglip.language.report import report
from medglip.language.scene import scene_of_record


def test_a_word_inside_another_is_no_match():
    assert not exact_match("The image looks normal", "no")
    assert exact_match("The left lung.", "left lung")
    assert normalised("  A  Left-sided, mass! ") == "left sided mass"


@pytest.mark.parametrize(
    ("given", "truth", "f1"),
    [("left lobe", "left lower lobe", 0.8), ("left left left left lung", "left lower lobe", 0.25), ("", "", 1), ("", "x", 0)],
)
def test_token_f1_does_not_reward_repetition(given, truth, f1):
    assert token_f1(given, truth) == pytest.approx(f1)


def rates(statements, truth):
    return score_report(statements, truth).rates()


TRUTH = record([region(NODULE, (10, 10, 20, 20), "left"), region(LIVER, (0, 0, 9, 9))], absent=[EFFUSION, f"{NODULE}@right"])


def test_report_of_the_truth_is_perfect():
    for truth in world(20):
        made = score_report(statements_of_report(report(scene_of_record(truth))), truth).rates()
        assert made["report_precision"] in (1.0, None)
        assert made["report_recall"] in (1.0, None)
        assert made["report_denial_precision"] in (1.0, None)
        assert made["report_box_precision"] in (1.0, None)


def test_negation_turns_the_score():
    right = rates([Statement(f"{NODULE}@left", "present", ((10, 10, 20, 20),)), Statement(EFFUSION, "absent")], TRUTH)
    assert (right["report_f1"], right["report_denial_precision"], right["report_box_precision"]) == (1.0, 1.0, 1.0)
    wrong = rates([Statement(f"{NODULE}@left", "absent"), Statement(EFFUSION, "present")], TRUTH)
    assert (wrong["report_f1"], wrong["report_denial_precision"]) == (0.0, 0.0)


def test_wrong_side_is_invented_and_a_general_statement_is_right():
    assert rates([Statement(f"{NODULE}@right", "present")], TRUTH)["report_precision"] == 0.0
    assert rates([Statement(NODULE, "present")], TRUTH)["report_precision"] == 1.0
    assert rates([Statement(NODULE, "absent")], TRUTH)["report_denial_precision"] == 0.0


def test_what_the_truth_does_not_know_counts_neither_way():
    made = score_report([Statement(KIDNEY_TUMOR, "present"), Statement("thorax.pleura.pneumothorax", "absent")], TRUTH)
    assert (made.right, made.invented, made.denied_right, made.denied_wrong) == (0, 0, 0, 0)
    assert made.missed == 1


def test_hedging_is_neither_told_nor_missed():
    made = score_report([Statement(NODULE, "uncertain")], TRUTH)
    assert (made.told, made.hedged, made.missed) == (0, 1, 0)


def test_anatomy_counts_only_when_asked():
    assert score_report([Statement(LIVER, "present")], TRUTH).right == 0
    assert score_report([Statement(LIVER, "present")], TRUTH, findings_only=False).right == 1
    assert score_report([Statement(SPLEEN, "absent")], record(absent=[SPLEEN]), findings_only=False).denied_right == 1


def test_cited_box_must_lie_on_the_finding():
    off = rates([Statement(NODULE, "present", ((40, 40, 50, 50),))], TRUTH)
    assert (off["report_precision"], off["report_box_precision"]) == (1.0, 0.0)


def test_free_text_is_scored_by_what_it_states():
    text = "There is a left lung nodule. No pleural effusion."
    assert rates(statements_of_text(text), TRUTH)["report_f1"] == 1.0


def test_a_worse_grounder_writes_worse_reports():
    truth, bands = world(80), Bands(present=0.6, absent=0.2, place=0.3)
    scores = [
        score_reports((report(noisy(t, miss=miss).scene(bands)), t) for t in truth)["report_recall"] for miss in (0.0, 0.5)
    ]
    assert scores[0] > 0.95 > 0.7 > scores[1]
