"""Metrics of networks whose spikes are all known."""

import numpy as np
import pandas as pd
import pytest
import torch

from scnn.metrics import (
    activity,
    calibration,
    confusion,
    layer_costs,
    macs,
    pareto,
    sparsity,
    summary,
    window_of,
    with_deviation,
)
from scnn.models import Network, build
from scnn.neurons import Output


def known_network(**parameters) -> Network:
    """A network in which a pixel of 1 spikes at each of four steps, 0.5 at the last two, and 0 never.

    The membrane for 0.5 is 0.5, 0.75, 0.875, 0.9375. The second channel and the second output unit are
    silent; the first output unit always spikes.
    """
    settings = {"num_steps": 4, "beta": 0.5, "threshold": 0.75, "reset": "none", "input_shape": (1, 3, 3)}
    network = build("2C1-2FC", **(settings | parameters))
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.weights[0].weight[0] = 1
        network.weights[1].bias[0] = 1
    return network


def known_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and their windows; all images have a pixel of 1, and every other one also a pixel of 0.5."""
    images = torch.zeros(count, 1, 3, 3)
    images[:, 0, 0, 0] = 1
    images[::2, 0, 1, 2] = 0.5
    window = images[:, 0] > 0
    window[:, 2, 2] = True  # data that happens to be zero
    return images, window


def test_activity_of_known_spikes():
    table = activity(known_network(), *known_images(50))  # more images than are traced at once
    assert table.index.tolist() == ["2C1", "2FC", "window"]
    assert table["neurons"].tolist() == [18, 2, 5]  # in the window: 2 channels, 3 or 2 pixels
    layer, output, window = table.itertuples(index=False)
    assert layer.rate == pytest.approx((4 + 1) / 4 / 18)
    assert layer.sparsity == pytest.approx(1 - 5 / 72)
    assert (layer.silent, layer.always, layer.changing) == pytest.approx((16.5 / 18, 1 / 18, 0.5 / 18))
    assert (output.rate, output.silent, output.always, output.changing) == (0.5, 0.5, 0.5, 0)
    assert window.rate == pytest.approx((4 + 1) / 4 / 5)
    assert (window.silent, window.always, window.changing) == pytest.approx((3.5 / 5, 1 / 5, 0.5 / 5))


def test_activity_without_a_window():
    images, window = known_images(3)
    with_window = activity(known_network(), images, window)
    assert activity(known_network(), images).equals(with_window.drop(index="window"))


def test_activity_of_a_relu_network_counts_values_above_zero():
    network = known_network(spiking=False)
    table = activity(network, *known_images(2))
    assert table["rate"].tolist() == pytest.approx([1.5 / 18, 0.5, 1.5 / 5])
    assert table.loc["2C1", "changing"] == pytest.approx(0)


def test_sparsity_weighs_the_layers_by_their_neurons():
    images, window = known_images(2)
    wanted = 1 - (18 * 5 / 72 + 2 * 0.5) / 20
    assert sparsity(activity(known_network(), images, window)) == pytest.approx(wanted)
    assert sparsity(activity(known_network(), images)) == pytest.approx(wanted)


def test_confusion_has_a_row_for_the_true_and_a_column_for_the_predicted_class():
    predicted = torch.tensor([1, 1, 2, 0, 2])
    labels = torch.tensor([0, 1, 2, 0, 1])

    def network(images: torch.Tensor) -> Output:
        evidence = torch.nn.functional.one_hot(predicted[images.long()], 4)[None].float()
        return Output(evidence, evidence)

    matrix = confusion(network, torch.arange(5), labels, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_costs_of_each_layer():
    costs = layer_costs(build("CNN"))
    assert costs.index.tolist() == ["6C3-P2", "16C3-P2", "128FC", "64FC", "10FC"]
    assert costs["parameters"].tolist() == [60, 880, 73_856, 8_256, 650]
    assert costs["macs"].tolist() == [6 * 9 * 30 * 30, 16 * 6 * 9 * 13 * 13, 73_728, 8_192, 640]
    assert costs["shape"].tolist() == [(6, 15, 15), (16, 6, 6), (128,), (64,), (10,)]


def test_a_spiking_network_pays_every_layer_at_every_step():
    assert macs(build("B", num_steps=7)) == 7 * 741_080
    assert macs(build("B", num_steps=7, spiking=False)) == 741_080


def seen_by_hand(network: Network, window: np.ndarray) -> np.ndarray:
    """Whether the receptive field of each neuron in the first layer touches the window."""
    layer = network.layers[0]
    height, width = layer.pooled(layer.convolved(window.shape))

    def touches(row: int, column: int) -> bool:
        pools = range(layer.pool or 1)
        for pool_row in pools:
            for pool_column in pools:
                top = (row * (layer.pool_stride or 1) + pool_row) * layer.stride - layer.padding
                left = (column * (layer.pool_stride or 1) + pool_column) * layer.stride - layer.padding
                rows = slice(max(top, 0), max(top + layer.kernel, 0))
                if window[rows, max(left, 0) : max(left + layer.kernel, 0)].any():
                    return True
        return False

    return np.array([[touches(row, column) for column in range(width)] for row in range(height)])


@pytest.mark.parametrize(
    "architecture",
    ["2C3-2FC", "2C3-P2-2FC", "2C3s2-2FC", "2C2s3-2FC", "2C3p1-P2-2FC", "2C5s2p3-P3s2-2FC", "2C4s2-P2s3-2FC"],
)
def test_window_of_the_first_layer(architecture):
    network = build(architecture, input_shape=(1, 17, 15))
    windows = np.zeros((6, 17, 15), dtype=bool)
    windows[0, 6:11, 5:8] = True
    windows[1, :2, :1] = True
    windows[2, -1:, -2:] = True
    windows[3] = np.random.default_rng(0).random((17, 15)) < 0.03
    windows[4] = True  # and the last is empty
    found = window_of(network, torch.from_numpy(windows)).numpy()
    expected = np.array([seen_by_hand(network, window) for window in windows])
    assert expected[0].any() and not expected[0].all()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("architecture", ["2C3-3C3-2FC", "2C3-P2-3C3-2FC", "2C3p1-P2-3C3s2p2-P2s1-2FC"])
def test_window_of_a_deeper_layer_is_where_an_image_of_data_can_change_it(architecture):
    network = build(architecture, input_shape=(1, 17, 15), spiking=False)
    windows = torch.zeros(3, 17, 15, dtype=torch.bool)
    windows[0, 6:11, 5:8] = windows[1, :2, :1] = True  # and the last is empty
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(1.0)
            if weight.dim() == 1:
                weight.zero_()
    for depth, trace in enumerate(network.trace(windows[:, None].float())[:2]):
        assert torch.equal(window_of(network, windows, depth), trace.spikes[0].sum(dim=1) > 0)


def test_window_needs_a_first_layer_with_a_map():
    with pytest.raises(ValueError, match="'5FC' of 5FC-2FC is not a convolution: it has no map"):
        window_of(build("5FC-2FC"), torch.ones(1, 32, 32, dtype=torch.bool))


def test_synaptic_operations_count_every_connection_of_every_input_that_is_not_zero():
    images = torch.zeros(2, 1, 8, 9)
    network = build("2C3-3C2s2p1-5FC", num_steps=4, input_shape=(1, 8, 9), seed=1)
    images[:, :, 2:5, 3:6] = 20 * torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    spikes = [images[None], *(trace.spikes for trace in network.trace(images))]
    counted = []
    for layer, weight, inputs in zip(network.layers, network.weights, spikes, strict=False):
        ones = torch.ones_like(weight.weight)
        used = (inputs != 0).float().flatten(0, 1)
        if layer.kernel:
            reached = torch.nn.functional.conv2d(used, ones, None, layer.stride, layer.padding)
        else:
            reached = used.flatten(1) @ ones.T
        counted.append(reached.sum().item() / len(images))
    assert activity(network, images)["synops"].tolist() == counted
    assert min(counted) > 0


def test_a_summary_has_mean_deviation_and_interval_of_each_group():
    rows = pd.DataFrame({"model": ["B", "A", "B", "B"], "accuracy": [0.9, 0.5, 1.0, 0.8]})
    found = summary(rows, ["model"], ["accuracy"])
    assert found.index.tolist() == ["B", "A"]
    assert found["n"].tolist() == [3, 1]
    assert found.loc["B", "accuracy"] == pytest.approx(0.9)
    assert found.loc["B", "accuracy_sd"] == pytest.approx(0.1)
    assert found.loc["B", "accuracy_ci"] == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert np.isnan(found.loc["A", "accuracy_sd"])


def test_calibration_compares_confidence_and_accuracy():
    confidences = np.array([0.05, 0.85, 0.82, 0.88, 0.81, 1.0])
    right = np.array([False, True, True, True, False, True])
    rows, error = calibration(confidences, right)
    assert rows.index.tolist() == [0, 8, 9] and rows["answers"].tolist() == [1, 4, 1]
    assert rows["accuracy"].tolist() == [0.0, 0.75, 1.0]
    assert rows["confidence"].tolist() == pytest.approx([0.05, 0.84, 1.0])
    assert error == pytest.approx((0.05 + 4 * 0.09 + 0) / 6)


def test_cells_leave_out_what_is_not_known():
    mean, deviation = pd.Series([98.73, 97.3, np.nan]), pd.Series([0.492, np.nan, np.nan])
    assert with_deviation(mean, deviation, more=1).tolist() == ["98.7 ± 0.49", "97.3", "–"]
    assert with_deviation(mean, deviation, digits=0).tolist() == ["99 ± 0", "97", "–"]


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nobody_beats(seed):
    """In random rows with many ties, the front beats every other row, and no row beats the front."""
    drawn = np.random.default_rng(seed).integers(0, 6, (40, 3))
    table = pd.DataFrame(drawn, columns=["accuracy", "work", "bytes"], index=range(100, 140))
    front = pareto(table, ["accuracy"], ["work", "bytes"])

    def beats(one, other):
        no_worse = one.accuracy >= other.accuracy and one.work <= other.work and one.bytes <= other.bytes
        return no_worse and tuple(one) != tuple(other)

    inside = [row for row in table[front].itertuples(index=False)]
    for index, row in zip(table.index, table.itertuples(index=False), strict=True):
        assert front[index] != any(beats(one, row) for one in inside)
        assert not front[index] or not any(beats(one, row) for one in table.itertuples(index=False))


def test_the_front_of_one_column_are_its_best_rows():
    table = pd.DataFrame({"accuracy": [0.5, 0.9, 0.9, 0.1]})
    assert pareto(table, ["accuracy"], []).tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="accuracy: a row with NaN"):
        pareto(pd.DataFrame({"accuracy": [0.5, np.nan]}), ["accuracy"], [])
