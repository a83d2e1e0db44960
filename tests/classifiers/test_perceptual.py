"""Distances of timm features as a term."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from classifiers import Perceptual
from guided.guidance import guide
from guided.types import Prediction

torch.manual_seed(0)
A, B = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))


@pytest.fixture(scope="module")
def eye():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Perceptual("test_resnet", layers=(0, 1, 2))


def test_distance(eye):
    assert (eye.distance(A, A).abs() < 1e-9).all() and (eye.distance(A, B) > 0.01).all()
    torch.testing.assert_close(eye.distance(A, B), eye.distance(B, A))
    near = eye.distance(A, A + 0.05 * torch.randn_like(A))
    assert (near < eye.distance(A, B)).all()
    torch.testing.assert_close(eye.distance(A, B)[1:], eye.distance(A[1:], B[1:]))


def test_gradient_is_the_derivative(eye):
    eye.net.double()
    x0, h = A.double(), 1e-6
    direction = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    term = eye.term(B[:1], 2.0)
    D = lambda x, sigma: Prediction(0.5 * x)  # noqa: E731
    grad = guide(D, term)(x0, torch.tensor(0.5, dtype=torch.float64)).grad
    wanted = [2.0 * term.log_prob(x0, None, 0.5 * x0 + sign * h * direction) for sign in (1, -1)]
    jacobian = 0.25 / (0.25 + 0.25)
    found = (grad * direction).flatten(1).sum(1)
    torch.testing.assert_close(found, jacobian * (wanted[0] - wanted[1]) / (2 * h), rtol=1e-4, atol=1e-8)
    eye.net.float()


def test_weights_from_a_file(tmp_path):
    whole = timm.create_model("test_resnet", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    eye = Perceptual("test_resnet", tmp_path / "w.safetensors", layers=(1,))
    pixels = (A / 2 + 0.5 - eye.net.conv1[0].weight.new_tensor(eye.mean).reshape(1, 3, 1, 1)) / torch.tensor(
        eye.std
    ).reshape(1, 3, 1, 1)
    whole = whole.eval()
    wanted = whole.forward_intermediates(pixels, indices=[1], intermediates_only=True)[0]
    torch.testing.assert_close(eye.net(pixels)[0], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet1"}, "timm has no model 'resnet1'"),
        ({"name": "test_resnet", "layers": (1, 9)}, "has no feature maps \\(1, 9\\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Perceptual(**arguments)


def test_weights_of_another_network(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="for timm's test_resnet, does not fit the network"):
        Perceptual("test_resnet", tmp_path / "w.safetensors")
