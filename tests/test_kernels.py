"""The leaky layer, compared with snnTorch and with a trace worked out by hand."""

import pytest
import snntorch
import torch
from snntorch import surrogate

from scnn import kernels, neurons
from scnn.neurons import RESETS, Neuron

LAYERS = {"definition": neurons.leaky, "kernel": kernels.leaky}


def reference(current, neuron, num_steps=None):
    """`snntorch.Leaky` in a loop over the time steps."""
    unit = snntorch.Leaky(
        beta=neuron.beta,
        threshold=neuron.threshold,
        reset_mechanism=neuron.reset,
        spike_grad=surrogate.fast_sigmoid(slope=neuron.slope),
    )
    if num_steps is not None:
        current = current.expand(num_steps, *current.shape[1:])
    membrane, outputs = unit.reset_mem(), []
    for now in current:
        spikes, membrane = unit(now, membrane)
        outputs.append((spikes, membrane))
    return tuple(torch.stack(each) for each in zip(*outputs, strict=True))


def random_current(steps, seed=0):
    # 550 units exceed one block of the kernel; the drift makes them cross the threshold often.
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + torch.randn(steps, 5, 110, generator=generator)


CASES = [
    pytest.mark.parametrize("constant", [False, True]),
    pytest.mark.parametrize("steps", [1, 10, 100]),
    pytest.mark.parametrize("beta", [0.0, 0.5, 1.0]),
    pytest.mark.parametrize("reset", RESETS),
]


def each_case(test):
    for case in CASES:
        test = case(test)
    return test


@each_case
def test_spikes_and_membranes_equal_those_of_snntorch_exactly(constant, steps, beta, reset):
    neuron = Neuron(beta=beta, threshold=0.7, reset=reset)
    current, num_steps = random_current(1 if constant else steps), steps if constant else None
    expected_spikes, expected_membrane = reference(current, neuron, num_steps)
    assert 0 < expected_spikes.mean() < 1
    for name, layer in LAYERS.items():
        spikes, membrane = layer(current, neuron, num_steps)
        assert torch.equal(spikes, expected_spikes), name
        assert torch.equal(membrane, expected_membrane), name


@each_case
def test_gradients_equal_those_of_snntorch(constant, steps, beta, reset):
    neuron = Neuron(beta=beta, reset=reset)
    current, num_steps = random_current(1 if constant else steps), steps if constant else None
    weights = torch.randn(2, steps, *current.shape[1:], generator=torch.Generator().manual_seed(1))

    def gradients(layer):
        """Gradients of the spikes, of the membranes and of both, with random weights."""
        leaf = current.clone().requires_grad_()
        spikes, membrane = layer(leaf, neuron, num_steps)
        of_spikes, of_membrane = (spikes * weights[0]).sum(), (membrane * weights[1]).sum()
        losses = of_spikes, of_membrane, of_spikes + of_membrane
        return [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses]

    expected = gradients(reference)
    for name, layer in LAYERS.items():
        for gradient, wanted in zip(gradients(layer), expected, strict=True):
            assert wanted.abs().max() > 0.1
            assert (gradient - wanted).abs().max() <= 1e-5 * wanted.abs().max(), name


# beta 0.5, threshold 1, worked out by hand with beta U + I - R threshold; every number is exact in binary.
# With beta (U - R threshold) + I, as in some releases of snnTorch, the second step would spike.
GOLDEN_CURRENT = [1.5, 1.0, 0.5, 0.625, 2.0, 1.0]
GOLDEN = {  # reset: (membrane, spikes)
    "subtract": ([1.5, 0.75, 0.875, 1.0625, 1.53125, 0.765625], [1, 0, 0, 1, 1, 0]),
    "zero": ([1.5, 1.0, 1.0, 1.125, 2.0, 1.0], [1, 0, 0, 1, 1, 0]),  # a membrane at the threshold is silent
    "none": ([1.5, 1.75, 1.375, 1.3125, 2.65625, 2.328125], [1, 1, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("layer", [*LAYERS, "snntorch"])
@pytest.mark.parametrize("reset", GOLDEN)
def test_golden_trace(layer, reset):
    leaky = LAYERS.get(layer, reference)
    spikes, membrane = leaky(torch.tensor(GOLDEN_CURRENT)[:, None], Neuron(0.5, 1.0, reset))
    expected_membrane, expected_spikes = GOLDEN[reset]
    assert membrane[:, 0].tolist() == expected_membrane
    assert spikes[:, 0].tolist() == expected_spikes


def test_constant_current_equals_the_same_current_repeated():
    current = random_current(1)
    once = kernels.leaky(current, num_steps=12)
    repeated = kernels.leaky(current.expand(12, -1, -1))
    assert all(torch.equal(*pair) for pair in zip(once, repeated, strict=True))


def test_kernel_leaves_the_membrane_out_on_request():
    current = random_current(10)
    spikes, membrane = kernels.leaky(current, membrane=False)
    assert membrane is None
    assert torch.equal(spikes, kernels.leaky(current)[0])


def test_kernel_takes_a_current_that_is_not_contiguous():
    current = random_current(10)
    spikes, membrane = kernels.leaky(current.transpose(1, 2))
    expected = kernels.leaky(current)
    assert torch.equal(spikes, expected[0].transpose(1, 2))
    assert torch.equal(membrane, expected[1].transpose(1, 2))


def test_kernel_computes_float64_too():
    current = random_current(10).double()
    spikes, membrane = kernels.leaky(current)
    expected = reference(current, Neuron())  # its spikes are always float32
    assert torch.equal(spikes, expected[0].double()) and torch.equal(membrane, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_spikes_and_membranes_are_of_the_current_s_type(dtype):
    current = random_current(4).to(dtype).requires_grad_()
    spikes, membrane = kernels.leaky(current)
    assert spikes.dtype == membrane.dtype == dtype
    (spikes.sum() + membrane.sum()).backward()
    assert current.grad.dtype == dtype and current.grad.isfinite().all()
    alone, nothing = kernels.leaky(current, membrane=False)
    assert nothing is None and torch.equal(alone, spikes)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("num_steps", [0, 5])
def test_time_steps_that_do_not_fit_the_current_are_refused(layer, num_steps):
    with pytest.raises(ValueError, match=f"num_steps is {num_steps}, but the current has 3 time steps"):
        LAYERS[layer](torch.zeros(3, 2), num_steps=num_steps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 1.5}, "beta must lie in 0..1, not 1.5"),
        ({"beta": float("nan")}, "beta must lie in 0..1, not nan"),
        ({"threshold": -1.0}, r"threshold must be a number from 0 to 1e\+30, not -1.0"),
        ({"threshold": float("inf")}, r"threshold must be a number from 0 to 1e\+30, not inf"),
        ({"reset": "rest"}, "reset must be one of subtract, zero, none, not 'rest'"),
        ({"slope": 0.0}, r"slope must be a number above 0, up to 1e\+30, not 0.0"),
    ],
)
def test_neuron_names_the_wrong_parameter(wrong, message):
    with pytest.raises(ValueError, match=message):
        Neuron(**wrong)
