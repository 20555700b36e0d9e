"""A network's inner workings: activity over time, how the answer forms, and where the zeros come from.

For a network with quantised membranes, also what the rounding clips, and the direction of its gradients.
Summary numbers (accuracy, cost), per layer or for the whole network, are in `scnn.metrics`.

A neuron-step is one neuron at one time step of one recording; sparsity is the share of neuron-steps without a
spike. A neuron sees data if a pixel of the data window reaches it through the preceding layers; the other
neurons of a convolution see only padding. `images` are `[N, C, H, W]`, and `window` is bool `[N, H, W]`, as
in `scnn.features.Images`. A ReLU network has one time step, and a value above zero counts as a spike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch.nn import functional

from scnn.metrics import window_of
from scnn.models import Network, Trace
from scnn.neurons import CLIP_GRADIENTS
from scnn.training import loss

_BATCH = 20  # recordings traced at once: a trace stores every layer's full maps over time
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def sees_data(network: Network, window: torch.Tensor) -> list[torch.Tensor]:
    """Which neurons of each layer see data: bool `[N, C, H, W]`, or all-True `[N, units]` if fully connected.

    >>> from scnn.models import build
    >>> window = torch.zeros(1, 32, 32, dtype=torch.bool)
    >>> window[:, 16, 16] = True  # one pixel, seen by nine neurons of each channel
    >>> [int(each.sum()) for each in sees_data(build("B"), window)]
    [54, 128, 10]
    """
    seen = []
    for depth, layer in enumerate(network.layers):
        if layer.kernel:
            seen.append(window_of(network, window, depth)[:, None].expand(-1, layer.units, -1, -1))
        else:
            seen.append(torch.ones(len(window), layer.units, dtype=torch.bool))
    return seen


def spread(values: torch.Tensor, seen: torch.Tensor) -> pd.DataFrame:
    """Quantiles of currents or membrane potentials over the neurons: a row per time step, a column each.

    Args:
        values: `[T, N, ...]`, from a `Trace`.
        seen: bool `[N, ...]`, the neurons to include (`sees_data`).
    """
    chosen = values[:, seen].double()
    quantiles = torch.quantile(chosen, torch.tensor(QUANTILES, dtype=torch.float64), dim=1)
    return pd.DataFrame(quantiles.T.numpy(), columns=QUANTILES, index=_steps(len(values)))


def timeline(network: Network, images: torch.Tensor, window: torch.Tensor) -> pd.DataFrame:
    """Sparsity of each layer at each time step, over all recordings, indexed by `layer` and `step` (from 1).

    Returns:
        The columns `sparsity` (of all neurons), `inside` (of those that see data) and `outside` (of those
        that see only padding; NaN if there are none).
    """
    sums: list[list[torch.Tensor]] = [[] for _ in network.layers]
    for traces, seen in _batches(network, images, window):
        for parts, trace, sees in zip(sums, traces, seen, strict=True):
            zeros = (trace.spikes <= 0).flatten(1)
            inside = sees.flatten()
            neurons = torch.tensor([[inside.sum(), (~inside).sum()]]).expand(len(zeros), 2)
            counts = torch.stack([zeros[:, inside].sum(dim=1), zeros[:, ~inside].sum(dim=1)], dim=1)
            parts.append(torch.cat([counts, neurons], dim=1))
    tables = []
    for parts in sums:
        inside, outside, seeing, blind = torch.stack(parts).sum(dim=0).double().T
        shares = {
            "sparsity": (inside + outside) / (seeing + blind),
            "inside": inside / seeing,
            "outside": outside / blind,
        }
        tables.append(pd.DataFrame({name: share.numpy() for name, share in shares.items()}))
        tables[-1].index = _steps(len(inside))
    return pd.concat(tables, keys=[layer.name for layer in network.layers], names=["layer", "step"])


def zero_origins(network: Network, images: torch.Tensor, window: torch.Tensor) -> pd.DataFrame:
    """Where each layer's zeros come from, over all recordings, indexed by `layer`.

    Returns:
        The number of `neurons`, and five shares of the neuron-steps, which add up to one.

        - `padding`: zeros of neurons that see only padding in that recording;
        - `silent`: zeros of neurons that see data but never spike in that recording;
        - `sparse`: zeros of neurons that see data and spike at other steps;
        - `spikes`: spikes of neurons that see data;
        - `spikes_padding`: spikes of neurons that see only padding.

        The first three add up to the sparsity. Two more columns are shares of neurons, averaged over the
        recordings: `unchanged` (spiking at every time step, or at none) and `unchanged_inside` (the same
        among those that see data).
    """
    sums = torch.zeros(len(network.layers), 8, dtype=torch.float64)
    for traces, seen in _batches(network, images, window):
        for row, trace, sees in zip(sums, traces, seen, strict=True):
            steps, spikes = len(trace.spikes), (trace.spikes > 0).sum(dim=0)
            inside, outside = spikes[sees], spikes[~sees]
            fired = inside[inside > 0]
            same = (spikes == 0) | (spikes == steps)
            counts = [
                (steps - outside).sum() / steps,
                len(inside) - len(fired),
                (steps - fired).sum() / steps,
                fired.sum() / steps,
                outside.sum() / steps,
                same.sum(),
                same[sees].sum(),
                sees.sum(),
            ]
            row += torch.tensor(counts, dtype=torch.float64)
    neurons = sums[:, :5].sum(dim=1, keepdim=True)  # summed over all recordings
    names = ["padding", "silent", "sparse", "spikes", "spikes_padding", "unchanged"]
    table = pd.DataFrame((sums[:, :6] / neurons).numpy(), columns=names)
    table["unchanged_inside"] = (sums[:, 6] / sums[:, 7]).numpy()
    table.insert(0, "neurons", (neurons[:, 0] / len(images)).round().long().numpy())
    table.index = pd.Index([layer.name for layer in network.layers], name="layer")
    return table


def constancy(network: Network, images: torch.Tensor, window: torch.Tensor) -> pd.DataFrame:
    """How constant each neuron's output is over all recordings, as shares of a layer's neurons.

    Returns:
        A table indexed by `layer`, with four columns that add up to one.

        - `never`: neurons that never spike;
        - `always`: neurons that spike at every step of every recording;
        - `constant`: neurons that spike at all steps of some recordings and at none of the others;
        - `changing`: neurons whose output changes over the steps of at least one recording.
    """
    kept: list[list[torch.Tensor]] = [[] for _ in network.layers]
    for traces, _ in _batches(network, images, window):
        for parts, trace in zip(kept, traces, strict=True):
            spikes = (trace.spikes > 0).sum(dim=0).flatten(1)
            silent, full = spikes == 0, spikes == len(trace.spikes)
            parts.append(torch.stack([silent.all(dim=0), full.all(dim=0), (silent | full).all(dim=0)]))
    shares = [torch.stack(parts).all(dim=0).double().mean(dim=1) for parts in kept]
    never, always, same = torch.stack(shares, dim=1).numpy()
    return pd.DataFrame(
        {"never": never, "always": always, "constant": same - never - always, "changing": 1 - same},
        index=pd.Index([layer.name for layer in network.layers], name="layer"),
    )


def race(network: Network, image: torch.Tensor, classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The output neurons over time for one image `[1, C, H, W]`: a row per step (from 1), a column per class.

    Returns:
        `spikes`, the number of spikes up to each step, and `membrane`, the membrane potential at each step.

    Raises:
        ValueError: for a ReLU network, which has no time steps.
    """
    output = _outputs(network, image)
    counted = {"spikes": output.spikes.cumsum(dim=0).long(), "membrane": output.membrane}
    return {
        name: pd.DataFrame(values[:, 0].numpy(), columns=list(classes), index=_steps(len(values)))
        for name, values in counted.items()
    }


def settling_step(counts: torch.Tensor) -> torch.Tensor:
    """The step from which the leading class no longer changes: int64 `[N]`, from 1 to T.

    The leader is the class with the most spikes; on a tie, the first one, as in `scnn.training.predict`.

    Args:
        counts: `[T, N, classes]`, number of spikes up to each step.
    """
    leaders = counts.argmax(dim=2)
    differs = (leaders != leaders[-1]).long()
    return len(leaders) - differs.flip(0).cumsum(dim=0).eq(0).sum(dim=0) + 1


def answers_over_time(network: Network, images: torch.Tensor, labels: torch.Tensor) -> pd.DataFrame:
    """How the answers form over time: a row per time step, indexed by `step` (from 1).

    Args:
        labels: int64 `[N]`, the correct classes.

    Returns:
        Three columns, all shares of recordings. `accuracy` is that of an answer at this step; `settled`,
        where the leading class no longer changes; `tied`, where several classes lead.

    Raises:
        ValueError: for a ReLU network, which has no time steps.
    """
    with torch.no_grad():
        counts = torch.cat([_outputs(network, part).spikes.cumsum(dim=0) for part in images.split(50)], dim=1)
    steps = torch.arange(1, len(counts) + 1)
    shares = {
        "accuracy": counts.argmax(dim=2) == labels,
        "settled": settling_step(counts) <= steps[:, None],
        "tied": (counts == counts.amax(dim=2, keepdim=True)).sum(dim=2) > 1,
    }
    columns = {name: share.double().mean(dim=1).numpy() for name, share in shares.items()}
    return pd.DataFrame(columns, index=_steps(len(counts)))


def unrounded(network: Network, images: torch.Tensor, window: torch.Tensor) -> dict[str, torch.Tensor]:
    """Membrane potentials before rounding, of each layer's neurons that see data: one flat tensor per layer.

    For membranes in full precision these are the membrane potentials themselves.

    Raises:
        ValueError: the neurons' reset is not "subtract".
    """
    neuron, potentials = network.neuron, {}
    if neuron.reset != "subtract":
        raise ValueError(f"the reset of the network's neurons must be subtract, not {neuron.reset!r}")
    for trace, seen in zip(network.trace(images), sees_data(network, window), strict=True):
        assert trace.membrane is not None  # the network spikes
        before = torch.cat([torch.zeros_like(trace.membrane[:1]), trace.membrane[:-1]])
        potential = neuron.beta * before + trace.current - neuron.threshold * (before > neuron.threshold)
        potentials[trace.name] = potential[:, seen].flatten()
    return potentials


def clip_gradients(
    network: Network, images: torch.Tensor, labels: torch.Tensor, rate: float = 1.0e-3
) -> pd.DataFrame:
    """Compare the straight with the masked gradient of a network with quantised membranes: a row per layer.

    The network is left unchanged.

    Args:
        labels: int64 `[N]`, the correct classes.
        rate: how far the trial step moves each parameter.

    Returns:
        `ratio` is the norm of the straight gradient of the layer's parameters over that of the masked one,
        and `cosine` the cosine of the angle between them. `masked` and `straight` are the changes in the loss
        per time step after a trial step of this layer alone, which moves each parameter by `rate` against the
        sign of its gradient (Adam's first step). A useful gradient lowers the loss.
    """
    units, pair, rows = (network.neuron, network.output_neuron), {}, []
    for name in CLIP_GRADIENTS:
        network.neuron, network.output_neuron = (replace(unit, clip_gradient=name) for unit in units)
        value = loss(network(images), labels)
        pair[name] = [
            torch.autograd.grad(value, [*layer.parameters()], retain_graph=True) for layer in network.weights
        ]
    network.neuron, network.output_neuron = units
    for depth, layer in enumerate(network.weights):
        flat = {name: torch.cat([part.flatten() for part in grads[depth]]) for name, grads in pair.items()}
        length = {name: part.norm().item() for name, part in flat.items()}
        row = {"ratio": length["straight"] / length["masked"] if length["masked"] else float("nan")}
        row["cosine"] = functional.cosine_similarity(flat["straight"], flat["masked"], dim=0).item()
        for name, grads in pair.items():
            trial = [rate * grad.sign() for grad in grads[depth]]
            after = _loss_after(network, layer, trial, images, labels)
            row[name] = (after - value.item()) / network.num_steps
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index([layer.name for layer in network.layers], name="layer"))


@torch.no_grad()
def _loss_after(network, layer, step, images, labels) -> float:
    kept = [parameter.clone() for parameter in layer.parameters()]
    for parameter, part in zip(layer.parameters(), step, strict=True):
        parameter -= part
    after = loss(network(images), labels).item()
    for parameter, value in zip(layer.parameters(), kept, strict=True):
        parameter.copy_(value)
    return after


def _outputs(network: Network, images: torch.Tensor):
    if not network.spiking:
        raise ValueError(f"{network.architecture} is a ReLU network: it has no time steps to decide over")
    with torch.no_grad():
        return network(images)


def _steps(count: int) -> pd.RangeIndex:
    return pd.RangeIndex(1, count + 1, name="step")


def _batches(
    network: Network, images: torch.Tensor, window: torch.Tensor
) -> Iterator[tuple[list[Trace], list[torch.Tensor]]]:
    for part, seen in zip(images.split(_BATCH), window.split(_BATCH), strict=True):
        yield network.trace(part), sees_data(network, seen)
