"""The dense layer inside a box equals the one on whole maps, with few, many or no changes over time."""

import pytest
import torch
from torch.nn import functional

from scnn import boxed
from scnn.models import build

BOXES = {
    "inside": (2, 5, 3, 7),
    "corner": (0, 4, 0, 3),
    "full width": (3, 6, 0, 9),
    "one position": (7, 8, 8, 9),
    "everything": (0, 8, 0, 9),
}


# Neurons that change over time: (share of them, whether they are added up one by one)
ACTIVITIES = {"constant": (0.0, True), "few change": (0.06, True), "many change": (0.5, False)}
SIZE = (8, 9)


def whole(values, background, box):
    """Maps [T, N, C, H, W] with `values` inside `box`."""
    steps, count, channels = values.shape[:3]
    maps = background[:, None, :, None, None].expand(steps, count, channels, *SIZE).clone()
    maps[..., box[0] : box[1], box[2] : box[3]] = values
    return maps


def spikes(generator, share, *shape):
    """Spikes [T, ...] in which a share of the neurons changes over time."""
    at_random = (torch.rand(shape, generator=generator, dtype=torch.float64) < 0.4).double()
    changing = torch.rand(shape[1:], generator=generator) < share
    return torch.where(changing, at_random, at_random[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clips", [1, 5])
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("activity", ACTIVITIES)
def test_boxed_linear_equals_a_linear_layer_on_the_whole_maps(activity, box, steps, clips, dtype):
    top, bottom, left, right = BOXES[box]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values = spikes(generator, ACTIVITIES[activity][0], steps, clips, 2, bottom - top, right - left)
    upstream = draw(steps, clips, 6)
    leaves = [values, draw(steps, 2), draw(6, 2 * 8 * 9), draw(6)]
    exact = [leaf.clone().requires_grad_() for leaf in leaves]
    expected = functional.linear(whole(*exact[:2], BOXES[box]).flatten(2), *exact[2:])
    wanted = torch.autograd.grad((expected * upstream).sum(), exact)

    values, background, weight, bias = (leaf.to(dtype).requires_grad_() for leaf in leaves)
    current = boxed.boxed_linear(values, background, BOXES[box], SIZE, weight, bias)
    found = torch.autograd.grad((current * upstream.to(dtype)).sum(), (values, background, weight, bias))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for one, other in zip((current, *found), (expected, *wanted), strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("clips", [1, 12])
@pytest.mark.parametrize("background", [0.0, 0.5], ids=["silent background", "spiking background"])
@pytest.mark.parametrize("activity", ACTIVITIES)
def test_boxed_linear_is_the_same_without_a_gradient(activity, background, clips):
    generator = torch.Generator().manual_seed(1)
    values = spikes(generator, ACTIVITIES[activity][0], 12, clips, 2, 3, 4).float()
    outside = (torch.rand(12, 2, generator=generator) < background).float()
    weight = torch.randn(6, 2 * 8 * 9, generator=generator).requires_grad_()
    arguments = values, outside, BOXES["inside"], SIZE, weight, torch.randn(6, generator=generator)
    with torch.no_grad():
        inferred = boxed.boxed_linear(*arguments)
    torch.testing.assert_close(inferred, boxed.boxed_linear(*arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_neurons_that_change_are_found(activity):
    share, few = ACTIVITIES[activity]
    values = spikes(torch.Generator().manual_seed(2), share, 6, 5, 100).float()
    changes = boxed.find_changes(values)
    assert (changes is not None) == few
    if few:
        neurons, differences = changes
        assert neurons.tolist() == (values != values[0]).any(dim=0).nonzero().tolist()
        difference = (values - values[0])[:, neurons[:, 0], neurons[:, 1]]
        assert torch.equal(torch.from_numpy(differences).T, difference)


def test_the_same_sums_give_the_same_bits():
    generator = torch.Generator().manual_seed(3)
    values = spikes(generator, 0.06, 10, 5, 2, 3, 4).float()
    weight = torch.randn(6, 2 * 8 * 9, generator=generator).requires_grad_()
    arguments = values, torch.zeros(10, 2), BOXES["inside"], SIZE, weight, torch.randn(6, generator=generator)
    first, again = (boxed.boxed_linear(*arguments) for _ in range(2))
    assert torch.equal(first, again)
    gradients = [torch.autograd.grad(each.square().sum(), weight)[0] for each in (first, again)]
    assert torch.equal(*gradients)


def test_evaluation_sees_the_weights_of_the_last_step():
    """A fused optimizer changes weights without raising PyTorch's version count, so no cache may use it."""
    network = build("4C3-20FC-3FC", num_steps=12, input_shape=(1, 10, 10), seed=3)
    images = torch.zeros(2, 1, 10, 10)
    images[:, :, 2:6, 3:7] = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 9
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05, fused=True)
    for _ in range(8):
        network.eval()
        with torch.no_grad():
            seen = network(images).membrane
        whole = network.trace(images)
        torch.testing.assert_close(seen, whole[-1].membrane)
        network(images).membrane.square().sum().backward()
        optimizer.step()
