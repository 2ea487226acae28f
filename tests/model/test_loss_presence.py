import math

import pytest
import torch

from medglip.model.losses.presence import expected_logit, presence_loss

SURE = -torch.inf


def test_expected_logit_by_hand():
    """Variance 8/pi: 1 + pi/8 * 8/pi = 2, so the logit is divided by the root of 2."""
    assert torch.isclose(expected_logit(torch.tensor(3.0), torch.tensor(math.log(8 / math.pi))), torch.tensor(3 / math.sqrt(2)))
    assert expected_logit(torch.tensor(3.0), torch.tensor(SURE)) == 3


def test_expected_logit_is_near_the_true_expectation():
    x = torch.linspace(-60, 60, 200001, dtype=torch.float64)
    for mean, variance in ((0.5, 0.5), (2.0, 1.0), (-3.0, 4.0)):
        density = torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        true = torch.trapezoid(density * x.sigmoid(), x).item()
        said = expected_logit(torch.tensor(mean), torch.tensor(math.log(variance))).sigmoid().item()
        assert abs(said - true) < 0.02


def test_it_is_what_the_head_reports():
    head = pytest.importorskip("medglip.model.head")
    logit, log_variance = torch.randn(50) * 4, torch.randn(50) * 2
    assert torch.allclose(expected_logit(logit, log_variance).sigmoid(), head.expected_sigmoid(logit, log_variance), atol=1e-6)


def test_presence_by_hand():
    """Logits 0 and ln 3 (3/4), both sure, of there and not there; the third is not known: (ln 2 + ln 4) / 2."""
    logit, presence = torch.tensor([[0.0, math.log(3), 9.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    assert torch.isclose(presence_loss(logit, torch.full((1, 3), SURE), presence), torch.tensor(1.5 * math.log(2)))
    unsure = torch.tensor([[0.0, 0.0, 0.0]])
    shrunk = math.log(3) / math.sqrt(1 + math.pi / 8)
    expected = (math.log(2) + math.log1p(math.exp(shrunk))) / 2
    assert torch.isclose(presence_loss(logit, unsure, presence), torch.tensor(expected))


def test_sure_is_the_plain_cross_entropy():
    logit, presence = torch.randn(4, 5), torch.randint(0, 2, (4, 5)).float()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit, presence)
    assert torch.isclose(presence_loss(logit, torch.full((4, 5), SURE), presence), plain)


def test_the_variance_grows_where_the_answer_is_wrong_and_shrinks_where_it_is_right():
    log_variance = torch.zeros(1, 2, requires_grad=True)
    presence_loss(torch.tensor([[3.0, 3.0]]), log_variance, torch.tensor([[1.0, 0.0]])).backward()
    right, wrong = log_variance.grad[0]
    assert right > 0 > wrong


def test_nothing_known_costs_nothing_and_has_a_gradient():
    logit, log_variance = torch.randn(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    loss = presence_loss(logit, log_variance, torch.full((2, 3), -1.0))
    loss.backward()
    assert loss == 0
    assert (logit.grad == 0).all()
    assert (log_variance.grad == 0).all()


@pytest.mark.parametrize("log_variance", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extremes_are_finite(logit, log_variance):
    mean, spread = torch.full((1, 2), logit, requires_grad=True), torch.full((1, 2), log_variance, requires_grad=True)
    loss = presence_loss(mean, spread, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(spread.grad).all()
