"""The figures: what is drawn is what was handed in."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scnn import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_training_curves_show_the_mean_and_a_band_from_lowest_to_highest():
    columns = ["accuracy", "loss", "held_out_accuracy", "held_out_loss"]
    runs = [pd.DataFrame({"epoch": [1, 2]} | {name: [low, 0.9] for name in columns}) for low in (0.2, 0.6)]
    accuracy = plots.training_curves({"B": runs}, {"B": 98.4}).axes[0]
    _, held_out, paper = accuracy.get_lines()
    assert np.allclose(held_out.get_ydata(), [40, 90]) and np.allclose(paper.get_ydata(), 98.4)
    band = accuracy.collections[1].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.min(), 20) and np.isclose(band.max(), 90)


def test_only_confusions_are_coloured():
    axes = plots.confusion(np.array([[5, 2], [0, 7]]), "01").axes[0]
    assert axes.images[0].get_array().filled(0).tolist() == [[0, 2], [0, 0]]
    assert sorted(text.get_text() for text in axes.texts) == ["2", "5", "7"]


def test_accuracy_of_one_seed_has_no_deviation_and_is_drawn():
    row = {"macs": 741_080, "parameters": 692_678, "mean": 97.0, "deviation": np.nan, "paper": 98.4}
    axes = plots.accuracy_against_cost(pd.DataFrame([row], index=["B"])).axes[0]
    low, high = axes.get_ylim()
    assert low < 97.0 and high > 98.4


def test_origins_are_stacked_to_the_whole():
    names = list(plots.ORIGINS)
    table = pd.DataFrame([[0.5, 0.2, 0.1, 0.15, 0.05], [0, 0.6, 0.1, 0.3, 0]], ["6C3", "10FC"], names)
    (axes,) = plots.zero_origins({"B": table}).axes
    ends = np.array([[bar.get_x() + bar.get_width() for bar in bars] for bars in axes.containers])
    assert np.allclose(ends.T, 100 * table.cumsum(axis=1))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["6C3", "10FC"]


def test_channels_show_the_spikes_of_the_steps_asked_for():
    spikes = np.random.default_rng(0).integers(0, 2, (4, 2, 5, 3))
    figure = plots.channel_steps(np.ones((2, 3, 3)), spikes[0], spikes - 0.5, spikes, [1, 4])
    shown = np.array(
        [axes.images[0].get_array() for axes in figure.axes if "spikes" in axes.get_title("center")]
    )
    assert np.array_equal(shown, spikes[[0, 3], 0])
    assert np.array_equal(figure.axes[9].images[0].get_array(), spikes[3, 1])


def test_layers_over_time_show_medians_and_every_spike():
    spreads = {"6C3": pd.DataFrame(np.arange(10.0).reshape(2, 5), [1, 2], [0, 0.25, 0.5, 0.75, 1])}
    spikes = np.array([[1, 0, 1], [1, 0, 0]])
    current, membrane, fired = plots.layer_steps(spreads, spreads, {"6C3": spikes}, 1.0).axes
    assert (
        current.get_lines()[0].get_ydata().tolist() == [2, 7] and membrane.get_lines()[1].get_ydata()[0] == 1
    )
    assert fired.images[0].get_array().tolist() == spikes.T.tolist()
