"""Analyses of networks whose spikes are all known."""

import numpy as np
import pandas as pd
import pytest
import torch

from scnn import analysis, metrics
from scnn.models import build
from scnn.training import predict


def known() -> tuple:
    """A network of `2C1-2FC` on 50 images of 3 x 3, and which of its neurons spike when.

    Only the first channel spikes: for a pixel of 1 at each of four steps, for a pixel of 0.5 at the last two.
    Every other image has a pixel of 0.5; the window contains one more pixel, which is zero.
    """
    network = build("2C1-2FC", num_steps=4, beta=0.5, threshold=0.75, reset="none", input_shape=(1, 3, 3))
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.weights[0].weight[0] = 1
        network.weights[1].bias[0] = 1
    images = torch.zeros(50, 1, 3, 3)
    images[:, 0, 0, 0] = 1
    images[::2, 0, 1, 2] = 0.5
    window = images[:, 0] > 0
    window[:, 2, 2] = True
    return network, images, window


def noisy(architecture: str, **parameters) -> tuple:
    """An untrained network, and images with different windows; neurons in the padding spike too."""
    network = build(architecture, input_shape=(1, 17, 15), seed=1, **parameters)
    with torch.no_grad():
        network.weights[0].bias[0] = 2.0  # spikes where it sees only padding
    generator = torch.Generator().manual_seed(0)
    window = torch.zeros(23, 17, 15, dtype=torch.bool)
    for row, one in enumerate(window):
        one[4:9, 5 : 7 + row % 5] = True
    images = 3 * torch.randn(23, 1, 17, 15, generator=generator) * window[:, None]
    return network, images, window


NETWORKS = [("3C3-P2-4C3-8FC-3FC", {}), ("3C3p1-5FC", {"num_steps": 3}), ("3C3-P2-4FC", {"spiking": False})]


def test_zero_origins_of_known_zeros():
    table = analysis.zero_origins(*known())
    layer, output = table.itertuples()
    assert table["neurons"].tolist() == [18, 2]
    # Two channels; 3 and 2 places in the window in turn. One neuron always spikes, one half the time.
    assert layer.padding == pytest.approx(2 * 6.5 / 18)
    assert layer.silent == pytest.approx((5 - 1.5) / 18)
    assert layer.sparse == pytest.approx(0.5 * 0.5 / 18)
    assert layer.spikes == pytest.approx((1 + 0.5 * 0.5) / 18)
    assert layer.spikes_padding == 0
    assert layer.unchanged == pytest.approx(17.5 / 18)
    assert layer.unchanged_inside == pytest.approx(4.5 / 5)
    assert (output.padding, output.silent, output.sparse, output.spikes) == (0, 0.5, 0, 0.5)


@pytest.mark.parametrize(("architecture", "parameters"), NETWORKS)
def test_shares_sum_to_one_and_are_those_of_the_metrics(architecture, parameters):
    network, images, window = noisy(architecture, **parameters)
    table, active = analysis.zero_origins(network, images, window), metrics.activity(network, images, window)
    shares = table[["padding", "silent", "sparse", "spikes", "spikes_padding"]]
    assert np.allclose(shares.sum(axis=1), 1)
    assert table["spikes_padding"].iloc[0] > 0
    layers = active.drop(index="window")
    assert np.allclose(table[["padding", "silent", "sparse"]].sum(axis=1), layers["sparsity"])
    assert np.allclose(table["unchanged"], layers["silent"] + layers["always"])
    seeing = 1 - shares["padding"].iloc[0] - shares["spikes_padding"].iloc[0]
    assert np.isclose(seeing * active["neurons"].iloc[0], active.loc["window", "neurons"])
    assert np.isclose(table["spikes"].iloc[0] / seeing, active.loc["window", "rate"])


@pytest.mark.parametrize(("architecture", "parameters"), NETWORKS)
def test_the_mean_of_the_timeline_is_the_sparsity(architecture, parameters):
    network, images, window = noisy(architecture, **parameters)
    line, active = (
        analysis.timeline(network, images, window),
        metrics.activity(network, images, window),
    )
    mean = line.groupby(level="layer", sort=False).mean()
    assert np.allclose(mean["sparsity"], active["sparsity"].drop("window"))
    assert np.isclose(mean["inside"].iloc[0], active.loc["window", "sparsity"])
    assert mean["outside"].isna().iloc[-1] and mean["outside"].iloc[0] < 1


def test_timeline_of_known_spikes():
    line = analysis.timeline(*known()).loc["2C1"]
    assert line.index.tolist() == [1, 2, 3, 4]
    assert line["sparsity"].tolist() == pytest.approx([1 - 1 / 18, 1 - 1 / 18, 1 - 1.5 / 18, 1 - 1.5 / 18])
    assert line["outside"].tolist() == [1, 1, 1, 1]
    assert line["inside"].tolist() == pytest.approx([1 - 1 / 5, 1 - 1 / 5, 1 - 1.5 / 5, 1 - 1.5 / 5])


def test_constancy_of_known_neurons():
    network, images, window = known()
    with torch.no_grad():
        network.weights[1].weight[1, 5] = 1  # the output spikes late where the pixel of 0.5 is, else never
    table = analysis.constancy(network, images, window)
    assert table.loc["2C1"].tolist() == pytest.approx([16 / 18, 1 / 18, 0, 1 / 18])
    assert table.loc["2FC"].tolist() == [0, 0.5, 0, 0.5]
    images[:, 0, 1, 2] = (torch.arange(50) % 2).float()
    assert analysis.constancy(network, images, window).loc["2C1"].tolist() == pytest.approx(
        [16 / 18, 1 / 18, 1 / 18, 0]
    )


def test_a_place_sees_data_where_a_pixel_of_the_window_reaches_it():
    network, _, window = noisy("3C3-P2-4C3-8FC-3FC")
    first, second, *connected = analysis.sees_data(network, window)
    assert first.shape == (23, 3, 7, 6) and second.shape == (23, 4, 5, 4)
    assert not first.all() and torch.equal(first[:, 0], metrics.window_of(network, window))
    assert [part.shape for part in connected] == [(23, 8), (23, 3)] and all(map(torch.all, connected))


def test_spread_takes_the_neurons_that_count():
    values = torch.tensor([[[0.0, 1, 2, 3, 4, 100]], [[0, 10, 20, 30, 40, 100]]])
    table = analysis.spread(values, torch.tensor([[True] * 5 + [False]]))
    assert table.to_numpy().tolist() == [[0, 1, 2, 3, 4], [0, 10, 20, 30, 40]]
    assert table.index.tolist() == [1, 2]


def test_the_race_ends_with_the_answer():
    network, images, _ = noisy("3C3-P2-8FC-4FC")
    one = analysis.race(network, images[:1], "abcd")
    trace = network.trace(images[:1])[-1]
    assert one["spikes"].columns.tolist() == ["a", "b", "c", "d"]
    assert one["spikes"].iloc[-1].tolist() == trace.spikes.sum(dim=0)[0].tolist()
    assert np.allclose(one["membrane"], trace.membrane[:, 0])
    assert one["spikes"].iloc[-1].to_numpy().argmax() == predict(network, images[:1])


def test_a_decision_stands_from_where_the_leader_stays():
    order = [[0, 0, 1, 1], [1, 0, 1, 0], [2, 2, 2, 2], [1, 1, 1, 0]]  # the leader at each of four steps
    counts = torch.nn.functional.one_hot(torch.tensor(order).T, 3)
    assert analysis.settling_step(counts).tolist() == [3, 4, 1, 4]
    tie = torch.tensor([[[0, 1]], [[1, 1]]])
    assert analysis.settling_step(tie).tolist() == [2]  # the first of equal ones leads


def test_decisions_end_with_the_accuracy():
    network, images, _ = noisy("3C3-P2-8FC-4FC")
    labels = torch.arange(23) % 4
    table = analysis.answers_over_time(network, images, labels)
    assert table.index.tolist() == list(range(1, 11))
    assert table["accuracy"].iloc[-1] == (predict(network, images) == labels).double().mean()
    assert table["settled"].is_monotonic_increasing and table["settled"].iloc[-1] == 1
    first = network(images).spikes[0]
    assert table["tied"].iloc[0] == pd.Series((first.sum(dim=1) != 1).numpy()).mean()


def test_a_relu_network_has_no_race():
    network, images, _ = noisy("3C3-4FC", spiking=False)
    with pytest.raises(ValueError, match="3C3-4FC is a ReLU network"):
        analysis.race(network, images[:1], "abcd")
