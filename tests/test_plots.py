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
