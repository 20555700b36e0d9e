"""Low precision: weights as Brevitas rounds them, membranes as snnTorch does, and recipes that train."""

import numpy as np
import pytest
import snntorch
import torch
from snntorch import surrogate
from snntorch.functional import quant

from scnn import analysis, kernels, neurons, quantization, training
from scnn.models import build
from scnn.neurons import Neuron
from scnn.quantization import RECIPES, Recipe, static_ptq

LAYERS = {"definition": neurons.leaky, "kernel": kernels.leaky}


def snntorch_leaky(current, neuron):
    """snnTorch's own layer, step by step, with its membrane quantised by `state_quant`."""
    rounded = quant.state_quant(num_bits=neuron.membrane_bits, threshold=neuron.threshold)
    layer = snntorch.Leaky(
        beta=neuron.beta,
        threshold=neuron.threshold,
        spike_grad=surrogate.fast_sigmoid(neuron.slope),
        state_quant=rounded,
    )
    membrane, spikes, membranes = layer.init_leaky(), [], []
    for now in current:
        fired, membrane = layer(now, membrane)
        spikes.append(fired)
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)


def currents(steps=6):
    """Currents: most within the range of the levels, some far outside."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.3, 1.0, 3.0, 300.0]).repeat(150)
    return torch.randn(steps, 600, generator=generator) * scale


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_quantised_membranes_and_spikes_equal_those_of_snntorch_exactly(layer, threshold):
    neuron = Neuron(threshold=threshold, membrane_bits=8, clip_gradient="straight")
    spikes, membrane = LAYERS[layer](currents(), neuron)
    expected_spikes, expected_membrane = snntorch_leaky(currents(), neuron)
    assert torch.equal(membrane, expected_membrane)
    assert torch.equal(spikes, expected_spikes)
    assert 0.1 < spikes.mean() < 0.9


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("clip_gradient", neurons.CLIP_GRADIENTS)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("reset", neurons.RESETS)
def test_the_kernel_equals_the_definition(bits, clip_gradient, constant, reset):
    neuron = Neuron(membrane_bits=bits, clip_gradient=clip_gradient, reset=reset)
    current, steps = (currents(1), 6) if constant else (currents(), None)
    found = []
    for layer in LAYERS.values():
        leaf = current.clone().requires_grad_()
        spikes, membrane = layer(leaf, neuron, steps)
        weights = torch.randn(2, *spikes.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad((weights[0] * spikes + weights[1] * membrane).sum(), leaf)
        found.append((spikes, membrane, gradient))
    (spikes, membrane, gradient), (other_spikes, other_membrane, other_gradient) = found
    assert torch.equal(spikes, other_spikes)
    assert torch.equal(membrane, other_membrane)
    assert len(membrane.unique()) <= 2**bits
    assert (gradient - other_gradient).abs().max() <= 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_straight_gradient_is_that_of_snntorch(layer):
    neuron = Neuron(membrane_bits=8, clip_gradient="straight")
    gradients = []
    for compute in (snntorch_leaky, LAYERS[layer]):
        leaf = currents().requires_grad_()
        spikes, membrane = compute(leaf, neuron)
        gradients.append(torch.autograd.grad(spikes.sum() + membrane.sum(), leaf)[0])
    expected, found = gradients
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("layer", LAYERS)
def test_beyond_the_levels_the_masked_gradient_is_zero_and_the_straight_one_is_not(layer):
    current = torch.tensor([[-50.0, -1.5, -1.0, 0.3, 1.25, 300.0]])
    found = {}
    for name in neurons.CLIP_GRADIENTS:
        leaf = current.clone().requires_grad_()
        LAYERS[layer](leaf, Neuron(membrane_bits=8, clip_gradient=name))[1].sum().backward()
        found[name] = leaf.grad[0].tolist()
    assert found == {"masked": [0, 0, 1, 1, 0, 0], "straight": [1, 1, 1, 1, 1, 1]}


def test_a_membrane_that_is_no_number_stays_within_the_levels():
    _, membrane = kernels.leaky(
        torch.tensor([[float("nan"), float("inf"), -float("inf")]]), Neuron(membrane_bits=8)
    )
    assert set(membrane.flatten().tolist()) <= set(Neuron(membrane_bits=8).levels().tolist())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"membrane_bits": 17}, "membrane_bits must be a whole number in 0..16, not 17"),
        ({"membrane_bits": True}, "membrane_bits must be"),
        ({"clip_gradient": "none"}, "clip_gradient must be one of masked, straight, not 'none'"),
        ({"membrane_bits": 8, "threshold": 0.0}, "threshold must be above 0"),
    ],
)
def test_a_neuron_names_the_wrong_parameter(wrong, message):
    with pytest.raises(ValueError, match=message):
        Neuron(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight_bits": 1}, "weight_bits must be 0 or a whole number in 2..8, not 1"),
        ({"per_channel": 1}, "per_channel must be True or False, not 1"),
        ({"bias": None}, "bias must be True or False"),
    ],
)
def test_a_recipe_names_the_wrong_field(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


def test_an_unknown_precision_lists_the_names():
    with pytest.raises(
        ValueError, match=r"precision must be one of fp32, int8-paper, .*, int8, .*, not 'int9'"
    ):
        build("B", precision="int9")


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.weight_bits])
def test_weights_are_whole_multiples_of_their_scale(name):
    network, recipe = build("6C3-8FC-10FC", precision=name), RECIPES[name]
    top = 2 ** (recipe.weight_bits - 1) - 1
    for layer in network.weights:
        weight = layer.weight.detach().flatten(1)
        scale = (weight.abs().amax(dim=1, keepdim=True) if recipe.per_channel else weight.abs().max()) / top
        whole = quantization.weight_of(layer).detach().flatten(1) / scale
        assert (whole - (weight / scale).round()).abs().max() < 1e-3
        assert whole.abs().max() <= top + 1e-3
        assert (layer.bias is not None) == recipe.bias


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.weight_bits])
@pytest.mark.parametrize("magnitude", [1.0, 1e-12, 0.0])
def test_the_fused_rounding_equals_that_of_brevitas(name, magnitude):
    for layer in build("6C3-8FC-10FC", precision=name).weights:
        layer.weight.data.normal_(generator=torch.Generator().manual_seed(1)).mul_(magnitude)  # all different
        rounded, expected = quantization.weight_of(layer), layer.quant_weight().value
        assert torch.equal(rounded, expected)
        weights = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
        (wanted,) = torch.autograd.grad((expected * weights).sum(), layer.weight)
        (found,) = torch.autograd.grad((rounded * weights).sum(), layer.weight)
        if magnitude == 1.0:
            assert (found != weights).sum() == (len(weights) if RECIPES[name].per_channel else 1)
            assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_bytes_of_packed_weights():
    # 6 * 9 + 5,400 * 10 weights, 16 biases
    sizes = {name: quantization.packed_bytes(build("6C3-10FC", precision=name)) for name in RECIPES}
    assert sizes["fp32"] == (54_054 + 16) * 4
    assert sizes["int8"] == sizes["int8-m16"] == 54_054 + 2 * 4 + 16 * 4
    assert sizes["int8-paper"] == 54_054 + 2 * 4
    assert sizes["int4-channel"] == 54_054 // 2 + 16 * 4 + 16 * 4
    assert sizes["int2"] == -(-54 // 4) + 54_000 // 4 + 2 * 4 + 16 * 4


def test_the_output_keeps_its_membranes_unless_the_recipe_rounds_them():
    images = 50 * torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, whole in (("int8", True), ("int8-output", False), ("int8-paper", False)):
        *hidden, last = build("6C3-16FC-10FC", precision=name).trace(images)
        levels = set(Neuron(membrane_bits=8).levels().tolist())
        assert all(set(trace.membrane.unique().tolist()) <= levels for trace in hidden), name
        assert (not set(last.membrane.unique().tolist()) <= levels) == whole, name


@pytest.mark.parametrize("precision", ["int8", "int8-paper", "int2-channel"])
@pytest.mark.parametrize("model", ["6C3-16C3-16FC-10FC", "6C3-P2-16FC-10FC"])
def test_a_quantised_network_computes_the_same_in_the_window_as_on_whole_maps(model, precision):
    network = build(model, precision=precision)
    images = torch.zeros(4, 1, 32, 32)
    images[:, :, 8:24, 12:19] = 50 * torch.randn(4, 1, 16, 7, generator=torch.Generator().manual_seed(0))
    whole = network.trace(images)[-1]
    output = network(images)
    assert (output.membrane - whole.membrane).abs().max() <= 0.02
    assert (output.spikes != whole.spikes).float().mean() <= 0.02


@pytest.mark.parametrize("precision", ["int8", "int8-paper"])
def test_a_quantised_network_is_saved_and_read_again(tmp_path, precision):
    network = build("6C3-16FC-10FC", precision=precision).eval()
    training.save_network(network, tmp_path / "network.safetensors")
    again, _ = training.load_network(tmp_path / "network.safetensors")
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert again.recipe == RECIPES[precision]
    assert again.neuron == network.neuron
    with torch.no_grad():
        assert torch.equal(again(images).membrane, network(images).membrane)


def relu_network():
    """A ReLU network and images that it can classify: class i is a bright square at position i."""
    network = build("6C3-P2-8C3-P2-16FC-10FC", spiking=False)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    images = torch.randn(200, 1, 32, 32, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 12 * (label // 5) :, 6 * (label % 5) :][:, :6, :6] += 3
    held_out = images[100:], labels[100:]
    training.fit(network, images[:100], labels[:100], held_out, training.Training(10, learning_rate=5e-3))
    return network, images, labels


def test_static_quantisation_at_8_bits_keeps_the_answers_and_at_2_bits_does_not():
    network, images, labels = relu_network()
    float_accuracy = training.evaluate(network, images[100:], labels[100:])["accuracy"]
    assert float_accuracy >= 0.9
    found = {bits: static_ptq(network, images[:100], bits) for bits in (8, 2)}
    accuracy = {
        bits: training.evaluate(each, images[100:], labels[100:])["accuracy"] for bits, each in found.items()
    }
    assert accuracy[8] >= float_accuracy - 0.02 and accuracy[2] < accuracy[8] - 0.1
    with torch.no_grad():
        error = (found[8](images).membrane - network(images).membrane).abs().max()
        assert 0 < error < 0.1 * network(images).membrane.abs().max()


def test_static_quantisation_rounds_every_layers_input_to_levels_fixed_by_the_calibration():
    network, images, _ = relu_network()
    quantised, seen = static_ptq(network, images[:100]), []
    for layer in quantised.weights:
        layer.register_forward_pre_hook(lambda _, values: seen.append(values[0]))
    quantised(1000 * images[100:])
    scales = [each.act_quant.scale() for each in quantised.inputs]
    for number, (values, scale) in enumerate(zip(seen, scales, strict=True)):
        whole = values / scale
        assert (whole - whole.round()).abs().max() < 1e-3
        low, high = (-128, 127) if number == 0 else (0, 255)
        assert low <= whole.round().min() and whole.round().max() == high
    assert quantization.packed_bytes(quantised) == quantization.packed_bytes(
        build("6C3-P2-8C3-P2-16FC-10FC", spiking=False, precision="int8")
    )


@pytest.mark.parametrize(
    ("network", "bits", "message"),
    [
        ({"spiking": True}, 8, "network must be a ReLU network in full precision, not .*num_steps"),
        ({"spiking": False, "precision": "int8"}, 8, "network must be a ReLU network in full precision"),
        ({"spiking": False}, 9, "weight_bits must be 0 or a whole number in 2..8, not 9"),
        ({"spiking": False}, 0, "bits must be a whole number in 2..8, not 0"),
    ],
)
def test_static_quantisation_names_what_it_cannot_take(network, bits, message):
    with pytest.raises(ValueError, match=message):
        static_ptq(build("6C3-10FC", **network), torch.zeros(1, 1, 32, 32), bits)


def test_membranes_before_rounding_are_those_that_round_to_the_ones_traced():
    network = build("6C3-16FC-10FC", precision="int8-output")
    images = 50 * torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = analysis.unrounded(network, images, torch.ones(3, 32, 32, dtype=torch.bool))
    levels = network.neuron.levels()
    for trace in network.trace(images):
        before = found[trace.name].clamp(levels[0], levels[-1])
        assert (before - trace.membrane.flatten()).abs().max() <= 0.51 * (levels[1] - levels[0])
    assert found["6C3"].abs().max() > 10
    with pytest.raises(ValueError, match="must be subtract, not 'zero'"):
        analysis.unrounded(build("6C3-10FC", reset="zero"), images, None)


def test_gradients_differ_only_in_layers_behind_which_membranes_are_clipped():
    network = build("6C3-16FC-10FC", precision="int8-output")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (20,), generator=generator)
    weights = [parameter.clone() for parameter in network.parameters()]
    images = 0.1 * torch.rand(20, 1, 32, 32, generator=generator)
    small = analysis.clip_gradients(network, images, labels, rate=0.02)
    assert list(small.index) == ["6C3", "16FC", "10FC"]
    assert np.allclose(small[["ratio", "cosine"]], 1) and (small["masked"] < 0).any()
    assert (small["masked"] == small["straight"]).all()
    large = analysis.clip_gradients(network, 3000 * (images - 0.05), labels)
    assert large.loc["6C3", "ratio"] > 1.2 and large.loc["6C3", "cosine"] < 0.9
    assert large.loc["10FC", "cosine"] > large.loc["6C3", "cosine"]
    assert all(map(torch.equal, weights, network.parameters()))
    assert network.neuron.clip_gradient == network.output_neuron.clip_gradient == "masked"
