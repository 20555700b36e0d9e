"""Summary numbers of a network, per layer or for the whole, as reported in tables.

Accuracy and calibration, parameters and operations, sparsity, and means over seeds. The network's inner
workings over the time steps are in `scnn.analysis`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix

from scnn.models import Network
from scnn.training import predict

_BATCH = 20  # recordings traced at once: a trace stores every layer's full maps over time


def confusion(network: Network, images: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    """Confusion matrix, int64 `[classes, classes]`: rows are true classes, columns predicted ones."""
    return confusion_matrix(labels, predict(network, images), labels=range(classes))


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Calibration: are answers with confidence 0.8 correct in 80 % of the cases?

    Args:
        confidences: confidence of each answer, float in 0..1, `[N]`.
        right: whether each answer is correct, bool `[N]`.
        bins: number of equal bins of the confidence.

    Returns:
        A row for each bin with answers (their number `answers`, mean `confidence` and `accuracy`), and the
        expected calibration error, `|accuracy - confidence|` averaged over all answers (Guo et al., ICML
        2017).
    """
    bin_of = np.minimum((confidences * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": bin_of, "confidence": confidences, "accuracy": right.astype(float)})
    rows = table.groupby("bin").agg(
        answers=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    gaps = (rows["accuracy"] - rows["confidence"]).abs()
    return rows, float((gaps * rows["answers"]).sum() / len(confidences))


def layer_costs(network: Network) -> pd.DataFrame:
    """Each layer's shape, parameters and dense multiply-accumulates (MACs), indexed by layer.

    `shape` is that of its neurons: (C, H, W) after the pooling, or (units,). `macs` are per time step and
    recording. The paper multiplies their sum by the number of time steps, although with direct encoding the
    first layer's current is constant and needs to be computed only once.
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
    """Dense multiply-accumulates per recording, counted as in the paper: every layer at every time step.

    >>> from scnn.models import build
    >>> macs(build("A", num_steps=10))
    23404400
    """
    return int(layer_costs(network)["macs"].sum()) * (network.num_steps if network.spiking else 1)


def window_of(network: Network, window: torch.Tensor, depth: int = 0) -> torch.Tensor:
    """Which positions of a convolution's map see data, not only padding: bool `[N, height, width]`.

    Args:
        window: bool `[N, H, W]`, where the images hold data (`scnn.features.Images.window`).
        depth: index of the layer, 0 for the first; deeper layers see data through those before them.

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
    """Activity and synaptic operations of each layer over some images, indexed by layer.

    The columns are:

    - `neurons`: neurons per recording;
    - `rate`: spikes per neuron and time step (in a ReLU network, the share of values above zero);
    - `sparsity`: 1 - rate. The paper's sparsity is that of the first layer (over training and test);
    - `silent`, `always`, `changing`: shares of neurons, averaged over the recordings, that spike at no step,
      at every step, or at some;
    - `synops`: synaptic operations per recording. A connection counts whenever its input is not zero. In the
      first layer these are multiply-accumulates, once per recording, as the image is the same at each step;
      in later layers they are additions, at each step.

    Args:
        images: `[N, C, H, W]`.
        window: where the images hold data, bool `[N, H, W]`. If given, the row "window" describes those
            neurons of the first layer that see data.
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
        operations[-1] = np.nan  # included in the first layer's
    columns = {"neurons": sums[:, 3] / len(images)} | shares | {"synops": operations / len(images)}
    return pd.DataFrame(columns, index=pd.Index(names, name="layer"))


def _fan_out(network: Network, depth: int) -> torch.Tensor | int:
    """Connections per input of a layer: a number, or `[H, W]` if it depends on the position."""
    layer = network.layers[depth]
    if not layer.kernel:
        return layer.units
    size = network.input_shape[1:]
    for before in network.layers[:depth]:
        size = before.pooled(before.convolved(size))
    reads = torch.ones(1, 1, *size, requires_grad=True)
    kernel = torch.ones(1, 1, layer.kernel, layer.kernel)
    torch.nn.functional.conv2d(reads, kernel, None, layer.stride, layer.padding).sum().backward()
    assert reads.grad is not None
    return reads.grad[0, 0].long() * layer.units


def sparsity(table: pd.DataFrame) -> float:
    """Share of zeros over all layers: the mean of `activity`'s `sparsity`, weighted by `neurons`."""
    layers = table[table.index != "window"]
    return float(np.average(layers["sparsity"], weights=layers["neurons"]))


def summary(table: pd.DataFrame, by: list[str], of: list[str]) -> pd.DataFrame:
    """Mean and spread of the columns `of` over the rows (seeds) of each group `by`, in order of appearance.

    Returns:
        A table indexed by `by`. `n` is the number of rows, NAME the mean, NAME_sd the standard deviation over
        the rows, and NAME_ci half the width of the mean's 95 % confidence interval (Student's t). Both are
        NaN for n = 1.
    """
    groups = table.groupby(by, sort=False, dropna=False)[of]
    n, sd = groups.size(), groups.std()
    half = sd.mul(stats.t.ppf(0.975, n - 1) / np.sqrt(n), axis=0)
    parts = [n.rename("n"), groups.mean(), sd.add_suffix("_sd"), half.add_suffix("_ci")]
    order = [name + suffix for name in of for suffix in ("", "_sd", "_ci")]
    return pd.concat(parts, axis=1)[["n", *order]]


def with_deviation(mean: pd.Series, deviation: pd.Series, digits: int = 1, more: int = 0) -> pd.Series:
    """Table cells such as "98.7 ± 0.49": the mean with `digits` decimals, the deviation with `more` extra.

    A NaN deviation, as of a single training, is left out; a NaN mean gives "–".
    """
    texts = mean.map(f"{{:.{digits}f}}".format) + deviation.map(f" ± {{:.{digits + more}f}}".format)
    return texts.str.replace(" ± nan", "").where(mean.notna(), "–")


def pareto(table: pd.DataFrame, most: Sequence[str], least: Sequence[str]) -> pd.Series:
    """The Pareto front: which rows are not beaten by any other.

    A row beats another if it is at least as good in every column and better in one, so equal rows all stay.

    Args:
        most: columns where larger is better.
        least: columns where smaller is better.

    Returns:
        bool, with the index of `table`.

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
    """Counts for spikes [T, neurons]: spikes per step, neurons that never and always spike, all neurons."""
    counts = (spikes > 0).sum(dim=0)
    steps = len(spikes)
    return (
        counts.sum().item() / steps,
        (counts == 0).sum().item(),
        (counts == steps).sum().item(),
        counts.numel(),
    )
