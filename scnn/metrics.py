"""What a network achieves and what it costs: numbers for a layer or for the whole, as a table reports them.

How right and how sure its answers are, its parameters and operations, how sparse its layers are, and means
over seeds. What happens inside, over the time steps, is in `scnn.analysis`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix

from scnn.models import Network
from scnn.training import predict

_BATCH = 20  # recordings traced at once: a trace keeps every layer's whole maps over time


def confusion(network: Network, images: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    """How often class i was taken for class j: int64 `[classes, classes]`, rows true, columns predicted."""
    return confusion_matrix(labels, predict(network, images), labels=range(classes))


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Does an answer of confidence 0.8 hold in 80 % of the cases?

    Args:
        confidences: of each answer, float in 0..1, `[N]`.
        right: whether it is right, bool `[N]`.
        bins: equal parts of 0..1.

    Returns:
        A row for each of the parts that has answers (their number, mean `confidence` and `accuracy`), and the
        expected calibration error, `|accuracy - confidence|` averaged over all answers (Guo et al., ICML
        2017).
    """
    of = np.minimum((confidences * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": of, "confidence": confidences, "accuracy": right.astype(float)}).groupby(
        "bin"
    )
    rows = table.agg(
        answers=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    gaps = (rows["accuracy"] - rows["confidence"]).abs()
    return rows, float((gaps * rows["answers"]).sum() / len(confidences))


def layer_costs(network: Network) -> pd.DataFrame:
    """Each layer's shape, parameters and dense multiply-accumulates (MACs), indexed by layer.

    `shape` is that of its neurons: (C, H, W), after the pooling, or (units,). `macs` are those of one time
    step and one recording. The paper's count for a network multiplies their sum by the time steps, although
    the first layer's current is constant under direct encoding and needs computing once only.
    """
    rows, size = [], network.input_shape[1:]
    for layer, weight in zip(network.layers, network.weights, strict=True):
        size = layer.convolved(size) if layer.kernel else (1, 1)
        parameters = sum(parameter.numel() for parameter in weight.parameters())
        operations = weight.weight.numel() * size[0] * size[1]
        size = layer.pooled(size)
        shape = (layer.units, *size) if layer.kernel else (layer.units,)
        rows.append((layer.name, shape, parameters, operations))
    return pd.DataFrame(rows, columns=["layer", "shape", "parameters", "macs"]).set_index("layer")


def macs(network: Network) -> int:
    """Dense multiply-accumulates of one recording, as the paper counts: every layer at every time step.

    >>> from scnn.models import build
    >>> macs(build("A", num_steps=10))
    23404400
    """
    return int(layer_costs(network)["macs"].sum()) * (network.num_steps if network.spiking else 1)


def window_of(network: Network, window: torch.Tensor, depth: int = 0) -> torch.Tensor:
    """Which places of a convolution's map see data, not padding alone: bool `[N, height, width]`.

    Args:
        window: bool `[N, H, W]`, where the image holds data (`scnn.features.Images.window`).
        depth: the layer's, 0 for the first one; a deeper layer sees what the layers before it see.

    Raises:
        ValueError: the layer is fully connected.
    """
    seen = window[:, None].float()
    for layer in network.layers[: depth + 1]:
        if not layer.kernel:
            raise ValueError(f"{layer.name!r} of {network.architecture} is not a convolution: it has no map")
        seen = torch.nn.functional.pad(seen, [layer.padding] * 4)
        seen = torch.nn.functional.max_pool2d(seen, layer.kernel, layer.stride)
        if layer.pool:
            seen = torch.nn.functional.max_pool2d(seen, layer.pool, layer.pool_stride)
    return seen[:, 0] > 0


def activity(network: Network, images: torch.Tensor, window: torch.Tensor | None = None) -> pd.DataFrame:
    """What each layer's neurons did over some images, indexed by layer.

    Columns: `neurons` per recording; and as shares in 0..1: `rate` of spikes per neuron and time step (for
    a ReLU network, of values above zero); `sparsity` = 1 - rate; of neurons, averaged over the recordings:
    `silent` at every step, `always` spiking at every step, and `changing` in between. The paper's sparsity
    figure is the first layer's (there accumulated over training and test). `synops` are the synaptic
    operations that bring a recording's activity into the layer: a connection counts whenever its input is
    not zero. For the first layer these are multiply-accumulates, once per recording, as the image is the same
    at each step; behind spikes they are additions, at each step.

    Args:
        images: `[N, C, H, W]`.
        window: where the images hold data, bool `[N, H, W]`; with it the row "window" gives the first layer's
            neurons that see any data.
    """
    names = [layer.name for layer in network.layers]
    if window is not None:
        names.append("window")
    sums, operations = np.zeros((len(names), 4)), np.zeros(len(names))
    fans = [_fan_out(network, depth) for depth in range(len(network.layers))]
    for start in range(0, len(images), _BATCH):
        inputs = images[start : start + _BATCH][None]
        traces = network.trace(inputs[0])
        for row, (trace, fan) in enumerate(zip(traces, fans, strict=True)):
            sums[row] += _count(trace.spikes.flatten(1))
            used = (inputs != 0).sum(dim=(0, 1))
            operations[row] += (used * fan).sum().item()
            inputs = trace.spikes
        if window is not None:
            inside = window_of(network, window[start : start + _BATCH])
            sums[-1] += _count(traces[0].spikes.movedim(2, -1)[:, inside].flatten(1))
    rate, silent, always = (sums[:, :3] / sums[:, 3:]).T
    shares = {
        "rate": rate,
        "sparsity": 1 - rate,
        "silent": silent,
        "always": always,
        "changing": 1 - silent - always,
    }
    if window is not None:
        operations[-1] = np.nan  # they are in the first layer's
    columns = {"neurons": sums[:, 3] / len(images)} | shares | {"synops": operations / len(images)}
    return pd.DataFrame(columns, index=pd.Index(names, name="layer"))


def _fan_out(network: Network, depth: int) -> torch.Tensor | int:
    """Connections from each input of a layer: a number, or `[H, W]` where it depends on the place."""
    layer = network.layers[depth]
    if not layer.kernel:
        return layer.units
    size = network.input_shape[1:]
    for before in network.layers[:depth]:
        size = before.pooled(before.convolved(size))
    reads = torch.ones(1, 1, *size, requires_grad=True)
    kernel = torch.ones(1, 1, layer.kernel, layer.kernel)
    torch.nn.functional.conv2d(reads, kernel, None, layer.stride, layer.padding).sum().backward()
    assert reads.grad is not None  # of the line above
    return reads.grad[0, 0].long() * layer.units


def sparsity(table: pd.DataFrame) -> float:
    """Share of zeros among all layers' spikes: the mean of `activity`'s rows, by their neurons."""
    layers = table[table.index != "window"]
    return float(np.average(layers["sparsity"], weights=layers["neurons"]))


def summary(table: pd.DataFrame, by: list[str], of: list[str]) -> pd.DataFrame:
    """Mean and spread of the columns `of` over the rows (seeds) of each group `by`, in order of appearance.

    Returns:
        A table indexed by `by`, in which `n` counts the rows, each column is the mean, NAME_sd the standard
        deviation between rows and NAME_ci half the width of the mean's 95 % confidence interval (Student's
        t); both are NaN for n = 1.
    """
    groups = table.groupby(by, sort=False, dropna=False)[of]
    n, sd = groups.size(), groups.std()
    half = sd.mul(stats.t.ppf(0.975, n - 1) / np.sqrt(n), axis=0)
    parts = [n.rename("n"), groups.mean(), sd.add_suffix("_sd"), half.add_suffix("_ci")]
    order = [name + suffix for name in of for suffix in ("", "_sd", "_ci")]
    return pd.concat(parts, axis=1)[["n", *order]]


def with_deviation(mean: pd.Series, deviation: pd.Series, digits: int = 1, more: int = 0) -> pd.Series:
    """Cells such as "98.7 ± 0.49": `digits` decimals of the mean, `more` than these of the deviation.

    A deviation that is NaN is left out, as of a single training; a mean that is NaN gives "–".
    """
    texts = mean.map(f"{{:.{digits}f}}".format) + deviation.map(f" ± {{:.{digits + more}f}}".format)
    return texts.str.replace(" ± nan", "").where(mean.notna(), "–")


def pareto(table: pd.DataFrame, most: Sequence[str], least: Sequence[str]) -> pd.Series:
    """Which rows no other one beats.

    A row beats another if it is at least as good in every column and better in one. So of equal rows all
    stay.

    Args:
        most: columns of which a larger value is better.
        least: columns of which a smaller value is better.

    Returns:
        bool, as `table` is indexed.

    Raises:
        ValueError: a value is NaN.
    """
    values = np.concatenate([-table[list(most)].to_numpy(float), table[list(least)].to_numpy(float)], axis=1)
    if np.isnan(values).any():
        raise ValueError(f"{', '.join([*most, *least])}: a row with NaN cannot be compared")
    as_good = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    return pd.Series(~(as_good & better).any(axis=0), index=table.index)


def _count(spikes: torch.Tensor) -> tuple[float, float, float, int]:
    """Of spikes [T, neurons]: their sum per time step, neurons never and always spiking, and neurons."""
    counts = (spikes > 0).sum(dim=0)
    steps = len(spikes)
    return (
        counts.sum().item() / steps,
        (counts == 0).sum().item(),
        (counts == steps).sum().item(),
        counts.numel(),
    )
