"""FLOPs and memory of known layers, against closed forms."""

import pytest
import torch
from torch import nn

from rae_bench.counting import counted

B = 7


def _flops(layer, x):
    """Forward alone, and with gradients of weights and of an input that needs one."""
    forward = counted(lambda: layer(x.detach()).sum()).flops
    return forward, counted(lambda: layer(x.requires_grad_()).sum().backward()).flops


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_dense_layer(device):
    layer = nn.Linear(30, 40, device=device)
    expected = 2 * B * 30 * 40
    assert _flops(layer, torch.zeros(B, 30, device=device)) == (expected, 3 * expected)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_convolution(device):
    layer = nn.Conv2d(3, 5, 4, stride=2, padding=1, device=device)
    expected = 2 * B * 5 * 3 * 4 * 4 * 8 * 8  # every output pixel sees a 4x4 window of every input channel
    assert _flops(layer, torch.zeros(B, 3, 16, 16, device=device)) == (expected, 3 * expected)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_transposed_convolution(device):
    layer = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, device=device)
    expected = 2 * B * 5 * 3 * 4 * 4 * 8 * 8  # every input pixel spreads over a 4x4 window of every output channel
    assert _flops(layer, torch.zeros(B, 3, 8, 8, device=device)) == (expected, 3 * expected)


def test_a_forward_derivative_is_seen():
    layer, x, u = nn.Linear(30, 40, bias=False), torch.rand(B, 30), torch.rand(B, 30)

    def derivative():
        with torch.autograd.forward_ad.dual_level():
            layer(torch.autograd.forward_ad.make_dual(x, u))

    # the value, its derivative along u, and a product with the weights' tangent, which is zero but multiplied by
    assert counted(derivative).flops == 3 * (2 * B * 30 * 40)


def test_a_double_backward_is_seen():
    """‖∂ Σ a (Wx)² / ∂x‖² differentiated by W: Wx, then Wᵀ of its gradient, then back through both."""
    weight = nn.Parameter(torch.rand(40, 30))
    x = torch.rand(B, 30, requires_grad=True)

    def penalty():
        (gradient,) = torch.autograd.grad((x @ weight.T).square().sum(), x, create_graph=True)
        gradient.square().sum().backward(inputs=[weight])

    # forward 1, its gradient by x 1; backward: of that product by W and by its other factor 2, through Wx by W 1
    assert counted(penalty).flops == 5 * (2 * B * 30 * 40)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_peak_is_of_what_lives_at_once(device):
    x = torch.zeros(1000, device=device)

    def chain():
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old y is freed when the new one is there

    assert counted(chain, [x]).peak_bytes == 2 * 4 * 1000


def test_views_and_held_tensors_are_no_new_memory():
    x = torch.zeros(10, 100, device="meta")
    assert counted(lambda: x.T[:5], [x]).peak_bytes == 0


def test_activations_are_held_until_backward():
    """Sigmoid keeps its output for backward: three are there when a second gradient joins two others."""
    x = torch.zeros(1000, device="meta", requires_grad=True)

    def run():
        x.sigmoid().sigmoid().sigmoid().backward(torch.empty(1000, device="meta"))

    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        x.sigmoid().sigmoid().sigmoid()
    assert sum(saved) == 3 * 4000
    assert counted(run, [x]).peak_bytes == sum(saved) + 3 * 4000
