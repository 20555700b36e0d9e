"""The figures show the data that they are given."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer
from PIL import Image

from scnn import plots
from scnn.plots.common import crisp_png


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("drawing", ["lines", "map"])
def test_a_figure_is_kept_crisp_in_few_colours_and_told_how_wide_to_show(drawing):
    figure, axes = plt.subplots(figsize=(4, 3))
    if drawing == "lines":
        axes.plot([0, 1], [0, 1], color="tab:red")
    else:
        axes.imshow(np.random.default_rng(0).random((40, 40)))
    written, shown = crisp_png(figure)
    exact = io.BytesIO()
    figure.savefig(exact, dpi=200, facecolor="white", bbox_inches="tight")
    picture, full = Image.open(io.BytesIO(written)), Image.open(exact).convert("RGB")
    assert picture.size == full.size
    assert shown == {"width": picture.width // 2, "height": picture.height // 2}
    assert len(picture.getcolors()) <= (32 if drawing == "lines" else 64)
    change = np.subtract(picture.convert("RGB"), full, dtype=float)
    assert np.abs(change).mean() < 2


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
    names = list(plots.ZERO_ORIGINS)
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


def swept(model, measures):
    index = pd.MultiIndex.from_tuples([(model, "beta", 0.0), (model, "beta", 1.0)])
    return pd.DataFrame(measures, index=index.set_names(["model", "parameter", "value"]))


def test_sweeps_draw_the_mean_its_deviation_and_the_papers_points_at_their_values():
    ours = swept("B", {"n": [5, 5], "accuracy": [98.0, 40.0], "accuracy_sd": [0.5, 2.0]})
    paper = swept("B", {"accuracy": [97.0, 41.0]}).rename({1.0: 0.5}, level="value")
    axes = plots.sweeps(ours, paper, {"accuracy": "spikes"}, {"beta": "leak"}, accuracy=True).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.5", "1"]
    (mean, _, (bars,)) = axes.containers[0]
    assert mean.get_xydata().tolist() == [[0, 98.0], [2, 40.0]]
    assert [part[:, 1].tolist() for part in bars.get_segments()] == [[97.5, 98.5], [38.0, 42.0]]
    (printed,) = [line for line in axes.get_lines() if line.get_label() == "paper"]
    assert printed.get_ydata().tolist() == [97.0, 41.0] and np.round(printed.get_xdata()).tolist() == [0, 1]


def test_a_stretched_axis_keeps_the_order_and_gives_the_top_more_room():
    axes = plt.figure().subplots()
    plots.stretch_accuracy(axes)
    heights = axes.transData.transform([(0, value) for value in (0, 50, 98, 100)])[:, 1]
    low, middle, high = np.diff(heights)
    assert low > 0 and middle > 0 and high > low and axes.get_ylim()[1] > 100


def test_accuracy_rows_show_every_seed_its_mean_and_the_papers_value():
    ours = pd.DataFrame({"model": "A", "arm": ["fp32", "int8", "int8"], "accuracy": [98.0, 90.0, 94.0]})
    (axes,) = plots.accuracy_rows(ours, {("A", "fp32"): 98.7}).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["fp32", "int8"]
    points = [line.get_xydata().tolist() for line in axes.get_lines() if len(line.get_xdata())]
    assert points == [[[98, 0]], [[98, 0]], [[98.7, 0]], [[90, 1], [94, 1]], [[92, 1]]]
    assert axes.get_xscale() == "function"


def test_recipe_histories_show_means_and_the_floor():
    runs = [
        pd.DataFrame({"epoch": [1, 2], "loss": [2.0, low], "held_out_accuracy": [0.5, low]})
        for low in (0.8, 1)
    ]
    loss, accuracy = plots.recipe_histories({"B": {"fp32": runs}}, floor=0.69).axes
    mean, floor = loss.get_lines()
    assert mean.get_ydata().tolist() == [2.0, 0.9] and set(floor.get_ydata()) == {0.69}
    assert np.allclose(accuracy.get_lines()[0].get_ydata(), [50, 90])


def test_membranes_beyond_the_levels_are_coloured_and_their_share_named():
    values = np.array([-50.0, -0.5, 0.0, 1.0, 300.0])
    (axes,) = plots.membrane_ranges({"int8": {"6C3": values}}, (-1.0, 1.2)).axes
    assert axes.get_title(plt.rcParams["axes.titlelocation"]) == "6C3: 40 %"
    bars = [bar for bar in axes.patches if bar.get_height() and bar.get_y() == 0 and bar.get_alpha() is None]
    colors = {bar.get_facecolor() for bar in bars if not -1 <= bar.get_x() < 1.2}
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert np.isclose(sum(heights), 100) and len(colors) == 1


def test_gradient_checks_draw_a_bar_for_each_layer():
    table = pd.DataFrame(
        {"ratio": [60.0, 2.0], "cosine": [0.0, 0.9], "masked": [-0.1, -0.2], "straight": [0.1, -0.1]},
        ["6C3", "10FC"],
    )
    axes = plots.gradient_checks({"B": table.join(0.1 * table.abs().add_suffix("_sd"))}).axes
    bars = [one for each in axes for one in each.containers if isinstance(one, BarContainer)]
    widths = [[bar.get_width() for bar in each] for each in bars]
    assert np.allclose(widths, [[60, 2], [0, 0.9], [-0.1, -0.2], [0.1, -0.1]])


def test_clipped_gradients_draw_each_way_in_each_panel():
    names = "rounded", "gradient", "spike"
    curves = pd.DataFrame({way: {name: np.full(3, way) for name in names} for way in (1, 2, 3)}).T
    for axes in plots.clipped_gradients(np.arange(3), curves, (-1.0, 1.2)).axes:
        assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[1] * 3, [2] * 3, [3] * 3]


def test_footprints_name_every_point():
    row = {"model": "B", "label": "int4", "bytes": 2048, "accuracy": 97.0, "accuracy_sd": np.nan}
    (axes,) = plots.footprints(pd.DataFrame([row])).axes
    assert [text.get_text() for text in axes.texts] == ["int4"]
    assert axes.get_lines()[0].get_xydata().tolist() == [[2.0, 97.0]]


def test_the_names_of_equal_footprints_do_not_overlap():
    rows = [("B", f"int4 {way}", 2048, 97.0 + way / 100, 0.5) for way in range(4)]
    columns = ["model", "label", "bytes", "accuracy", "accuracy_sd"]
    figure = plots.footprints(pd.DataFrame(rows, columns=columns))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    tops, bottoms = sorted(box.y1 for box in boxes), sorted(box.y0 for box in boxes)
    assert all(low > high - 3 for low, high in zip(bottoms[1:], tops[:-1], strict=True))  # pixels


def trials() -> pd.DataFrame:
    columns = ["model", "kind", "status", "beta", "num_steps", "threshold", "accuracy", "sparsity_all"]
    rows = [
        ("B", "random", "finished", 0.5, 10, 1.0, 0.98, 0.9),
        ("B", "random", "stopped", 0.1, 2, 4.0, 0.1, 0.95),
    ]
    return pd.DataFrame([*rows, ("B", "tpe", "finished", 0.9, 17, 4.6, 0.99, 0.8)], columns=columns)


def test_search_space_has_a_cube_for_each_search():
    random, tpe, _ = plots.search_space(trials()).axes
    assert random.get_title() == "Model B, random" and tpe.get_title() == "Model B, tpe"
    assert np.allclose(random.collections[0].get_array(), [98, 10])
    assert np.allclose(tpe.collections[0]._offsets3d, [[0.9], [17], [4.6]])


def test_search_projections_show_stopped_trials_hollow():
    axes = plots.search_projections(trials()).axes
    assert [one.get_xlabel() for one in axes[3:]] == ["beta", "time steps $T$", "threshold"]
    finished, stopped, tpe = axes[0].collections
    assert np.allclose(finished.get_offsets(), [[0.5, 98]]) and np.allclose(tpe.get_offsets(), [[0.9, 99]])
    assert len(stopped.get_facecolor()) == 0 < len(finished.get_facecolor())


def test_new_voices_are_drawn_one_by_one_and_as_their_mean():
    rows = [
        (name, count, low + 10 * count + draw, 90 - count)
        for name, low in (("a", 50), ("b", 70))
        for count in (0, 1, 5)
        for draw in (0, 2)
    ]
    found = pd.DataFrame(rows, columns=["speaker", "examples", "stranger", "known"])
    new, known = plots.new_voices(found).axes
    lines = {name: line for line, name in zip(*new.get_legend_handles_labels(), strict=True)}
    assert list(lines) == ["mean", "a", "b"]
    assert lines["a"][0].get_ydata().tolist() == [51, 61, 101]
    assert lines["mean"].get_ydata().tolist() == [61, 71, 111]
    assert [text.get_text() for text in known.get_xticklabels()] == ["0", "1", "5"]


def test_a_word_on_a_device_shows_the_image_and_every_layer():
    layers = {"2C3": np.full((4, 6, 2), 3), "5FC": np.arange(5).reshape(1, 1, 5)}
    image, maps, units = plots.word_on_device(np.eye(3), layers).axes
    assert np.array_equal(image.images[0].get_array(), np.eye(3)) and image.images[0].origin == "lower"
    assert maps.images[0].get_array().shape == (4, 6) and (maps.images[0].get_array() == 3).all()
    assert units.images[0].get_array().tolist() == [[0, 1, 2, 3, 4]]


def test_the_gain_of_spikes_shrinks_as_more_is_counted():
    times = pd.DataFrame({"twin": [6.0, 2.0], "CNN": [3.0, 0.9]}, index=["arithmetic", "all"])
    _, axes = plt.subplots()
    plots.shrinking_gain(axes, times)
    assert [bar.get_height() for bar in axes.patches] == [6.0, 2.0, 3.0, 0.9]
    assert [text.get_text() for text in axes.texts] == ["6.0×", "2.0×", "3.0×", "0.9×"]
    assert axes.patches[0].get_x() < 0 < axes.patches[2].get_x() + axes.patches[2].get_width()


def test_break_even_lines_end_at_the_dense_layer():
    points = pd.DataFrame({"layer": "2C3", "active": [0.1, 0.3], "instructions": [30, 70]})
    lines = pd.DataFrame({"slope": [2.0], "base": [0.1], "active": [0.45]}, index=["2C3"])
    _, axes = plt.subplots()
    plots.break_even(axes, points, lines, {"2C3": 100})
    drawn, line, _ = axes.get_lines()
    assert np.allclose(drawn.get_xydata(), [[10, 0.3], [30, 0.7]])
    assert np.allclose(line.get_xydata(), [[0, 0.1], [45, 1.0]])


def points(**columns) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([("spiking", 1), ("ReLU", 1), ("ReLU", 2)])
    return pd.DataFrame(columns, index=index)


def test_fronts_join_what_no_cheaper_network_reaches():
    table = points(
        accuracy=[70.0, 80.0, 75.0],
        accuracy_sd=[1.0, 2.0, np.nan],
        network=[10.0, 30.0, 40.0],
        word=[500.0, 300.0, 200.0],
    )
    alone, whole = plots.fronts(table).axes
    for axes, joined in ((alone, [(10, 70), (30, 80)]), (whole, [(200, 75), (300, 80)])):
        assert [tuple(point) for point in axes.lines[-1].get_xydata()] == joined
        assert axes.get_xscale() == "log"
    assert {text.get_text() for text in alone.figure.legends[0].get_texts()} == {"spiking", "ReLU"}


def test_trials_are_filled_on_their_own_front():
    table = pd.DataFrame({"accuracy": [0.5, 0.7], "instructions": [2e5, 1e5], "packed_bytes": [9e3, 8e3]})
    beaten, best = plots.trials({"ReLU": table}, {"ReLU": table[1:]}).axes[0].collections
    assert beaten.get_offsets().tolist() == [[200, 50]] and best.get_offsets().tolist() == [[100, 70]]
    assert len(beaten.get_facecolor()) == 0 and len(best.get_facecolor()) == 1
