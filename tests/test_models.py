"""Networks: the notation, and trained networks compared with a plain loop of snnTorch's neurons."""

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
import snntorch
import torch
from snntorch import surrogate
from torch.nn import functional

from scnn import training
from scnn.data import load_corpus
from scnn.features import Features, extract, normalize, statistics
from scnn.metrics import macs
from scnn.models import ZOO, Network, build, data_box, fold, parse
from scnn.neurons import RESETS
from scnn.training import Training, fit

ORIGINAL_ALEXNET = "64C11s4p2-P3s2-192C5p2-P3s2-384C3p1-256C3p1-256C3p1-P3s2-4096FC-4096FC-1000FC"


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [("CNN", 83_702), ("A", 1_615_606), ("B", 692_678), ("C", 174_278), ("LeNet", 61_706)],
)
def test_parameters_of_the_zoo(architecture, parameters):
    assert build(architecture).num_parameters == parameters


def test_parameters_of_the_original_alexnet():
    with torch.device("meta"):  # 61 million weights; only the shapes matter
        network = build(ORIGINAL_ALEXNET, input_shape=(3, 224, 224), spiking=False)
    assert network.num_parameters == 61_100_840  # as torchvision's


@pytest.mark.parametrize("architecture", ZOO)
def test_networks_of_the_zoo_classify_an_image(architecture):
    network = build(architecture, num_steps=2)
    output = network(torch.ones(1, 1, 32, 32))
    assert output.membrane.shape == ((2, 1, 10) if network.spiking else (1, 1, 10))
    assert network.spiking == (architecture in ("A", "B", "C", "SpikingAlexNet", "R"))


@pytest.mark.parametrize(("architecture", "count"), [("A", 23_404_400), ("B", 7_410_800), ("CNN", 277_176)])
def test_multiply_accumulates_of_a_recording(architecture, count):
    assert macs(build(architecture)) == count


def test_notation_reads_strides_paddings_and_poolings():
    first, second, third = parse("6C5s2p1-P3s2-16C3-10FC")
    assert (first.units, first.kernel, first.stride, first.padding) == (6, 5, 2, 1)
    assert (first.pool, first.pool_stride) == (3, 2)
    assert (second.units, second.kernel, second.stride, second.padding, second.pool) == (16, 3, 1, 0, 0)
    assert (third.units, third.kernel) == (10, 0)
    assert parse("6C3-P2-10FC")[0].pool_stride == 2  # a pooling's stride is its size
    assert [layer.name for layer in parse("6C3-P2-10FC")] == ["6C3-P2", "10FC"]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("D", r"'D' in architecture 'D' is not a layer.*or use one of A, B, C, CNN, LeNet, AlexNet"),
        ("", "'' in architecture '' is not a layer"),
        ("6C3--10FC", "'' in architecture '6C3--10FC' is not a layer"),
        ("6c3-10FC", "'6c3' in architecture '6c3-10FC' is not a layer"),
        ("6C3p1s2-10FC", "'6C3p1s2' in architecture '6C3p1s2-10FC' is not a layer"),
        ("0C3-10FC", "'0C3' in architecture '0C3-10FC' has a size of 0"),
        ("6C3s0-10FC", "'6C3s0' in architecture '6C3s0-10FC' has a size of 0"),
        ("6C3-P2s0-10FC", "'P2s0' in architecture '6C3-P2s0-10FC' has a size of 0"),
        ("10FC-6C3-10FC", "'6C3' in architecture '10FC-6C3-10FC' follows a fully connected layer"),
        ("P2-10FC", "'P2' in architecture 'P2-10FC' must follow a convolution"),
        ("6C3-P2-P2-10FC", "'P2' in architecture '6C3-P2-P2-10FC' must follow a convolution"),
        ("16FC-P2-10FC", "'P2' in architecture '16FC-P2-10FC' must follow a convolution"),
        ("6C3-16C3", "architecture '6C3-16C3' must end with a fully connected layer"),
        ("6C33-10FC", r"input_shape \(1, 32, 32\) is too small for '6C33' in '6C33-10FC'"),
        ("6C3-P31-10FC", r"input_shape \(1, 32, 32\) is too small for '6C3-P31' in '6C3-P31-10FC'"),
    ],
)
def test_notation_that_cannot_be_used_is_refused(architecture, message):
    with pytest.raises(ValueError, match=message):
        build(architecture)


@pytest.mark.parametrize("architecture", ZOO)
def test_a_network_of_the_zoo_takes_the_number_of_classes(architecture):
    network = build(architecture, num_steps=1, classes=3)
    assert network.architecture == ZOO[architecture][0].removesuffix("10FC") + "3FC"
    assert network.spiking == ZOO[architecture][1]
    same = build(architecture, num_steps=1, classes=10).state_dict()
    assert all(weight.equal(same[name]) for name, weight in build(architecture).state_dict().items())


def test_a_notation_must_say_the_number_of_classes():
    assert build("8FC-3FC", classes=3).layers[-1].units == 3
    with pytest.raises(ValueError, match="'8FC-9FC' ends with 9FC, but there are 3 classes; write 8FC-3FC"):
        build("8FC-9FC", classes=3)


@pytest.mark.parametrize("architecture", ["B", "A", "CNN"])
@pytest.mark.parametrize(
    ("precision", "dtype", "rounding"),
    [
        ("fp32", torch.float64, 1e-6),
        ("int8", torch.float64, 1e-6),
        ("fp32", torch.float16, 5e-3),
        ("fp32", torch.bfloat16, 4e-2),
        ("int8", torch.bfloat16, 4e-2),
    ],
)
def test_a_network_computes_in_other_types(architecture, precision, dtype, rounding):
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 8:24, 10:20] = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    network = build(architecture, num_steps=2, precision=precision)
    expected = network(image).membrane
    with pytest.raises(ValueError, match=f"dtype of the network's weights, torch.float32, not {dtype}"):
        network(image.to(dtype))
    output = network.to(dtype)(image.to(dtype))
    training.loss(output, torch.tensor([1])).backward()
    assert all(each is None or each.dtype == dtype for each in output)
    assert relative(output.membrane.float(), expected) < rounding
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_rounded_weights_in_float16_are_refused():
    with pytest.raises(ValueError, match="quantised weights do not work in float16"):
        build("B", precision="int8").half()(torch.zeros(1, 1, 32, 32).half())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, not 0"),
        ({"num_steps": 2.0}, "num_steps must be a whole number of at least 1, not 2.0"),
        ({"num_steps": True}, "num_steps must be a whole number of at least 1, not True"),
        ({"beta": 1.1}, "beta must lie in 0..1, not 1.1"),
        ({"threshold": -1}, r"threshold must be a number from 0 to 1e\+30, not -1"),
        ({"reset": "rest"}, "reset must be one of subtract, zero, none, not 'rest'"),
        ({"slope": 0}, r"slope must be a number above 0, up to 1e\+30, not 0"),
        ({"input_shape": (32, 32)}, r"input_shape must be .*channels, height and width.*not \(32, 32\)"),
        ({"input_shape": (0, 32, 32)}, r"input_shape must be .*not \(0, 32, 32\)"),
        ({"input_shape": (1, 32.0, 32)}, r"input_shape must be .*not \(1, 32.0, 32\)"),
    ],
)
def test_parameter_out_of_range_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        build("B", **wrong)


@pytest.mark.parametrize("shape", [(2, 1, 32, 31), (2, 3, 32, 32), (1, 32, 32)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \[N, 1, 32, 32\], not \[" + str(shape[0])):
        build("B")(torch.zeros(shape))


def test_spiking_can_be_chosen():
    assert build("CNN", spiking=True).spiking and not build("B", spiking=False).spiking
    assert build("6C3-10FC").spiking
    assert not build("B", spiking=0).spiking


def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = build("C", seed=7), build("C", seed=7), build("C", seed=8)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert not torch.equal(weight, other.state_dict()[name])


def test_data_box_holds_all_that_is_not_zero():
    images = torch.zeros(3, 2, 8, 9)
    assert data_box(images) == (0, 1, 0, 1)
    images[0, 1, 3, 4] = -1
    images[2, 0, 5, 8] = 1
    assert data_box(images) == (3, 6, 4, 9)


def random_network(draw: random.Random) -> Network:
    """A network of one to three convolutions and one to three dense layers, with random options."""
    while True:
        tokens = []
        for _ in range(draw.randrange(4)):
            stride, padding = draw.choice(["", "s2", "s3"]), draw.choice(["", "", "", "p1", "p2"])
            pool = draw.choice(["", "", "-P2", "-P3s2", "-P2s3"])
            tokens.append(f"{draw.randint(1, 5)}C{draw.randint(1, 4)}{stride}{padding}{pool}")
        tokens += [f"{draw.randint(5, 9)}FC" for _ in range(draw.randint(1, 3))]
        try:
            return build(
                "-".join(tokens),
                num_steps=draw.randint(1, 6),
                beta=draw.choice([0.0, 0.25, 0.5, 1.0]),
                threshold=draw.choice([0.25, 0.5, 1.0]),
                reset=draw.choice(RESETS),
                input_shape=(draw.randint(1, 2), draw.randint(8, 16), draw.randint(8, 16)),
                spiking=draw.random() < 0.8,
                precision=draw.choice(["fp32", "fp32", "int8", "int8-paper", "int4-weights"]),
                seed=draw.randrange(1000),
            )
        except ValueError:  # a map is too small for its layer
            continue


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_path_computes_what_the_plain_one_does(seed):
    """With few binary digits in weights and images, no sum is rounded: the spikes must be bit-identical.

    Rounded weights, and the products of a ReLU network, have more digits, so these cases use float64.
    """
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    network = random_network(draw)
    exact = network.spiking and not network.recipe.weight_bits
    images = torch.zeros(draw.randint(1, 5), *network.input_shape)
    top, left = (draw.randrange(length) for length in images.shape[2:])
    part = images[..., top : top + draw.randint(1, 9), left : left + draw.randint(1, 9)]
    part.copy_(torch.randint(-24, 25, part.shape, generator=generator) / 8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter * 2**7).round() / 2**6)
    if not exact:
        network, images = network.double(), images.double()
    plain, fast = network.plain(images), network(images)
    with torch.no_grad():
        inferred = network(images)
    tolerance = 0 if exact else 1e-9
    for each in (fast, inferred):
        assert (each.spikes is None) == (plain.spikes is None)
        for found, wanted in zip(each, plain, strict=True):
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    for found, wanted in zip(gradients(network, fast), gradients(network, plain), strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * max(wanted.abs().max(), 1e-3)


# The following tests need networks in which every layer spikes, because silent, untrained ones prove nothing.
# Each is trained for a few epochs on the packaged corpus, standardised like Features with
# normalization="train" (in one case raw, with currents of hundreds of thresholds).


class Trained(NamedTuple):
    network: Network
    images: torch.Tensor  # [N, 1, 32, 32], not used in training


ODD = "6C4s2-P3s2-12C2-32FC-10FC"  # neither pooling nor strides divide the maps
SPARSE = "6C2s3-32FC-10FC"  # a stride larger than the kernel: some pixels are never seen
RECIPES = {  # name: (architecture, parameters, epochs, standardised)
    "A": ("A", {}, 5, True),
    "B": ("B", {}, 3, True),
    "B raw": ("B", {}, 2, False),
    "C": ("C", {}, 4, True),
    "CNN": ("CNN", {}, 2, True),
    "odd": (ODD, {"threshold": 0.1, "beta": 0.8}, 4, True),
    "sparse": (SPARSE, {"threshold": 0.2}, 3, True),
    "padded": ("4C3p1-P2-8C3s2p2-32FC-10FC", {"threshold": 0.3}, 4, True),
}


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Trained]:
    corpus = load_corpus("espeak")
    images, labels = extract(corpus, Features(), cache=False), torch.from_numpy(corpus.labels)
    standardised = normalize(images, *statistics(images, range(len(corpus))))
    done: dict[str, Trained] = {}

    def train(name: str) -> Trained:
        if name not in done:
            architecture, parameters, epochs, is_standardised = RECIPES[name]
            values = (standardised if is_standardised else images).values
            network = build(architecture, **parameters)
            fit(network, values[::4], labels[::4], (values[1:40], labels[1:40]), Training(epochs=epochs))
            done[name] = Trained(network, values[1::40])
        return done[name]

    return train


def with_parameters(network: Network, **parameters) -> Network:
    """The same weights with other neurons or time steps."""
    neuron = network.neuron
    same = {"num_steps": network.num_steps, "beta": neuron.beta, "threshold": neuron.threshold}
    other = build(network.architecture, spiking=network.spiking, **(same | parameters))
    other.load_state_dict(network.state_dict())
    return other


class Reference(NamedTuple):
    spikes: list[torch.Tensor]  # of each layer, [T, N, ...]; the activations of a ReLU network
    membranes: list[torch.Tensor]  # likewise; the currents of a ReLU network

    def output(self, network: Network) -> training.Output:
        return training.Output(self.spikes[-1] if network.spiking else None, self.membranes[-1])


def reference(network: Network, images: torch.Tensor) -> Reference:
    """The same weights in a loop over the time steps, on whole maps, with snnTorch's neurons."""
    neuron, last = network.neuron, len(network.layers) - 1
    settings = {"beta": neuron.beta, "threshold": neuron.threshold, "reset_mechanism": neuron.reset}
    units = [
        snntorch.Leaky(**settings, spike_grad=surrogate.fast_sigmoid(slope=neuron.slope))
        for _ in network.layers
    ]
    membranes = [unit.reset_mem() for unit in units]
    every_spikes, every_membrane = ([[] for _ in units] for _ in range(2))
    for _ in range(network.num_steps if network.spiking else 1):
        values = images
        for i, (layer, weight) in enumerate(zip(network.layers, network.weights, strict=True)):
            if layer.kernel:
                values = functional.conv2d(values, weight.weight, weight.bias, layer.stride, layer.padding)
                if layer.pool:
                    values = functional.max_pool2d(values, layer.pool, layer.pool_stride)
            else:
                values = functional.linear(values.flatten(1), weight.weight, weight.bias)
            if network.spiking:
                values, membranes[i] = units[i](values, membranes[i])
                values = values.to(images.dtype)  # snnTorch's spikes are always float32
            else:
                membranes[i], values = values, values if i == last else functional.relu(values)
            every_spikes[i].append(values)
            every_membrane[i].append(membranes[i])
    return Reference(*([torch.stack(each) for each in both] for both in (every_spikes, every_membrane)))


def away_from_threshold(network: Network, images: torch.Tensor) -> torch.Tensor:
    """The images for which the order of summation cannot change a spike.

    If a membrane is within rounding error of the threshold, its spike depends on the order of summation, and
    so on the machine. Measured errors of float32 membranes are at most 6e-7 of the layer's largest. So an
    image is kept if all membranes, in float64, are further than 2e-6 from the threshold. (None of 24 images
    gave a different spike with A, B or C.)
    """
    if not network.spiking:
        return images
    exact = with_parameters(network, reset=network.neuron.reset).double()
    with torch.no_grad():
        membranes = reference(exact, images.double()).membranes
    margins = [
        ((membrane - network.neuron.threshold).abs() / membrane.abs().max())
        .transpose(0, 1)
        .flatten(1)
        .amin(1)
        for membrane in membranes
    ]
    return images[torch.stack(margins).amin(0) > 2e-6]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def gradients(network: Network, output: training.Output) -> list[torch.Tensor]:
    labels = torch.arange(output.membrane.shape[1]) % 10
    return torch.autograd.grad(training.loss(output, labels), list(network.parameters()))


def check_equals_reference(
    network: Network, images: torch.Tensor, at_least: int, silent: bool = False
) -> None:
    """Compare spikes exactly, and membranes and gradients to 1e-5 of the largest, with the reference.

    Gradients are compared with those in float64. The tolerance also includes the reference's own error,
    because the rounding of float32 sums depends on the processor for both.

    A minimum number of images must be away from the threshold. Unless `silent`, every layer must spike for
    them, but not always.
    """
    images = away_from_threshold(network, images)
    assert len(images) >= at_least
    expected, output, traces = reference(network, images), network(images), network.trace(images)
    for layer, spikes, membrane, trace in zip(network.layers, *expected, traces, strict=True):
        assert trace.name == layer.name
        if network.spiking:
            assert torch.equal(trace.spikes, spikes), layer.name
            assert relative(trace.membrane, membrane) < 1e-5, layer.name
            assert silent or 0 < spikes.mean() < 1, layer.name
        else:
            assert relative(trace.spikes, spikes) < 1e-5, layer.name
            assert silent or 0 < (spikes > 0).float().mean() < 1, layer.name
    assert output.membrane.requires_grad
    with torch.no_grad():
        inferred = [output, network.train()(images), network.eval()(images)]
    for each in inferred:  # without gradients, other kernels are used
        assert not network.spiking or torch.equal(each.spikes, expected.spikes[-1])
        assert relative(each.membrane, expected.membranes[-1]) < 1e-5
    wanted = gradients(network, expected.output(network))
    exact_network = with_parameters(network, reset=network.neuron.reset).double()
    exact = gradients(exact_network, reference(exact_network, images.double()).output(exact_network))
    for (name, _), found, gradient, true in zip(
        network.named_parameters(), gradients(network, output), wanted, exact, strict=True
    ):
        assert silent or gradient.abs().max() > 0, name
        # A gradient below 1e-4 is the remainder of sums that cancel, so its error is that of the sums.
        rounding = (gradient - true).abs().max()
        assert (found - true).abs().max() <= 1e-5 * max(gradient.abs().max(), 1e-4) + rounding, name


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", ["A", "B", "B raw", "C"])
def test_trained_network_equals_snntorch(trained, name, reset):
    network, images = trained(name)
    # With raw features, membranes reach hundreds of thresholds, so more are within rounding error.
    check_equals_reference(
        with_parameters(network, reset=reset), images, at_least=3 if name == "B raw" else 10
    )


# Positions to move the image's data to, about a ninth of it; the network only computes inside its box.
WINDOWS = {
    "centre": lambda images: images,
    "top left": lambda images: moved(images, (0, 0)),
    "bottom right": lambda images: moved(images, (1, 1)),
    "bottom": lambda images: moved(images, (1, 0.5)),
    "right": lambda images: moved(images, (0.3, 1)),
    "one by one": lambda images: images * (torch.arange(32) == 17) * (torch.arange(32)[:, None] == 15),
    "full": lambda images: images.flatten(2).roll(7).unflatten(2, (32, 32)) + images.transpose(2, 3) + 0.5,
}


def moved(images: torch.Tensor, place: tuple[float, float]) -> torch.Tensor:
    """The images with their data box moved to a corner: (0, 0) is the top left, (1, 1) the bottom right."""
    top, bottom, left, right = data_box(images)
    height, width = bottom - top, right - left
    to_top, to_left = round(place[0] * (32 - height)), round(place[1] * (32 - width))
    result = torch.zeros_like(images)
    result[..., to_top : to_top + height, to_left : to_left + width] = images[..., top:bottom, left:right]
    return result


@pytest.mark.parametrize("num_steps", [1, 10])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["B", "C", "CNN", "odd", "sparse", "padded"])
def test_computing_inside_the_window_equals_computing_everything(trained, name, window, num_steps):
    network, images = trained(name)
    images = WINDOWS[window](images)
    box = data_box(images)
    assert (box == (0, 32, 0, 32)) == (window == "full")
    network = with_parameters(network, num_steps=num_steps)
    # With one step, or with data where training never had any, a silent layer is correct.
    check_equals_reference(network, images, at_least=8, silent=num_steps == 1 or window != "centre")


@pytest.mark.parametrize("name", ["B", "CNN", "odd"])
def test_empty_images_see_the_biases_alone(trained, name):
    network, _ = trained(name)
    check_equals_reference(network, torch.zeros(2, 1, 32, 32), at_least=2, silent=True)


def test_box_is_that_of_all_images_together(trained):
    network, images = trained("B")
    mixed = torch.cat([images[:6], moved(images[6:12], (0, 1)), torch.zeros(1, 1, 32, 32)])
    check_equals_reference(network, mixed, at_least=8)


def test_every_place_of_a_small_window_gives_the_same_as_everything():
    # Strides larger than the kernel skip pixels: the sums must be right wherever the data is.
    for architecture in ("3C2s3-5FC", "3C3s2-P2s3-5FC", "3C3-P3s2-2C2s2-5FC"):
        network = build(architecture, input_shape=(1, 13, 11), spiking=False)
        for top in range(12):
            for left in range(10):
                images = torch.zeros(1, 1, 13, 11)
                images[..., top : top + 2, left : left + 2] = 1
                expected = reference(network, images).membranes[-1]
                assert relative(network(images).membrane, expected) < 1e-5, (architecture, top, left)


def test_gradient_of_the_image_is_complete(trained):
    network, images = trained("B")
    leaf = images[:2].clone().requires_grad_()
    (found,) = torch.autograd.grad(network(leaf).membrane.sum(), leaf)
    (wanted,) = torch.autograd.grad(reference(network, leaf).membranes[-1].sum(), leaf)
    assert wanted[..., 0, 0].abs().max() > 0  # a pixel of the padding
    assert relative(found, wanted) < 1e-5


CHANGES = {  # ways to give a network other weights
    "load": lambda network, other: network.load_state_dict(other.state_dict()),
    "assign": lambda network, other: network.load_state_dict(other.state_dict(), assign=True),
    "replace": lambda network, other: setattr(network, "weights", other.weights),
    "data": lambda network, other: [
        setattr(weight, "data", new.detach().clone())
        for weight, new in zip(network.parameters(), other.parameters(), strict=True)
    ],
    "type": lambda network, other: network.load_state_dict(other.state_dict()) and network.double().float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_weights_count_from_the_next_evaluation(change):
    # With few spikes in the first layer, evaluation mode adds up weights cached in another order.
    images = torch.zeros(4, 1, 32, 32)
    images[..., 10:20, 12:16] = torch.randn(4, 1, 10, 4, generator=torch.Generator().manual_seed(0))
    network, other = (build("B", seed=seed, threshold=1.0).eval() for seed in (0, 1))

    def current(network: Network) -> torch.Tensor:
        return network.trace(images)[1].current

    expected = current(other)
    assert not torch.equal(current(network), expected)
    CHANGES[change](network, other)
    assert torch.equal(current(network), expected)


def test_network_computes_in_float64():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    network = build("CNN").eval()
    with torch.no_grad():
        single = network(images).membrane
        double = network.double()(images.double()).membrane
    assert double.dtype == torch.float64
    assert 0 < relative(double.float(), single) < 1e-5


@pytest.mark.parametrize("spiking", [True, False])
def test_folding_takes_the_normalisation_out_and_changes_nothing(spiking):
    settings = {"num_steps": 4, "input_shape": (1, 16, 20), "spiking": spiking, "batch_norm": True}
    network = build("6C3s2p1-P2-8C3p1-12FC-10FC", **settings)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # running statistics of their own
        network.train()(torch.randn(8, 1, 16, 20, generator=generator))
    with torch.no_grad():
        for norm in network.norms:
            norm.weight.uniform_(-0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
    images = torch.randn(30, 1, 16, 20, generator=generator)
    with torch.no_grad():
        wanted, found = network.eval()(images), fold(network)(images)
    if spiking:
        assert (wanted.spikes == found.spikes).float().mean() > 0.999
        assert (wanted.membrane - found.membrane).abs().median() < 1e-5
    else:
        torch.testing.assert_close(wanted.membrane, found.membrane, atol=1e-4, rtol=1e-4)
    assert not len(fold(network).norms)


def test_batch_norm_needs_full_precision():
    with pytest.raises(ValueError, match="batch_norm works in full precision only"):
        build("B", precision="int8", batch_norm=True)
