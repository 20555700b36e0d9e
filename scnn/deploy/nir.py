"""Export a spiking network to NIR, which other simulators and neuromorphic chips read, and import one.

NIR, the Neuromorphic Intermediate Representation (Pedersen et al., Nature Communications 15, 2024), defines
neurons in continuous time. Its leaky integrate-and-fire neuron, `LIF`, is::

    tau dv/dt = -v + r I,    z = 1 if v > v_threshold else 0,    v = 0 after a spike

and a forward Euler step of length dt is v = (1 - dt / tau) v + (r dt / tau) I. This equals
`scnn.neurons.leaky` with reset "zero" for::

    tau = dt / (1 - beta),    r = tau / dt

so the spikes are equal. So are the membrane potentials, except in a step with a spike: NIR resets within the
step, `scnn` at the start of the next. With reset "none", a neuron becomes two nodes, the leaky integrator
`LI` and a `Threshold`. With beta = 1 there is no leak: `IF` and `I` replace `LIF` and `LI`, with r = 1 / dt.

A graph contains neither the features nor the number of time steps. To run it, feed it the same image
[C, H, W], a constant current, in each of `num_steps` steps of `DT`. Nodes keep their membrane potentials from
one step to the next, each node receives the output of its predecessor in the same step, and the output spikes
are counted. The graph's metadata hold `num_steps`, `dt`, and `about`: JSON that describes how images are
computed and what the outputs are called. There is no batch dimension: `Flatten` starts at dimension 0.

NIR has no reset by subtraction delayed by one step, no max pooling, no quantised membranes and no ReLU.
Networks that use them are refused.
"""

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import torch

from scnn.files import LARGEST_FILE, atomic_write, canonical, parse_json, read_whole
from scnn.models import Network
from scnn.neurons import Neuron
from scnn.quantization import weight_of
from scnn.training import check_about

DT = 1e-4  # seconds per time step in the graph; the only value that snnTorch reads
# What h5py and nir raise for a file they cannot read.
_DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError)


def graph(network: Network, about: dict[str, Any] | None = None) -> nir.NIRGraph:
    """The graph of `network`: a chain from the node `input` to the node `output`.

    Every layer has a node of weights (`conv_1`, `affine_2`, ...) and one or two of neurons (`lif_1`, ...).
    Quantised weights are written with their rounded values.

    Args:
        about: stored in the metadata.

    Raises:
        ValueError: as `check`.
    """
    check(network)
    shape: tuple[int, ...] = network.input_shape
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array(shape))}
    for number, (layer, (weight, bias)) in enumerate(zip(network.layers, _arrays(network), strict=True), 1):
        if layer.kernel:
            sizes = shape[1:], weight, layer.stride, layer.padding
            nodes[f"conv_{number}"] = nir.Conv2d(*sizes, dilation=1, groups=1, bias=bias)
            shape = (layer.units, *layer.convolved((shape[1], shape[2])))
        else:
            if len(shape) > 1:
                nodes["flatten"] = nir.Flatten(np.array(shape), start_dim=0)
            nodes[f"affine_{number}"] = nir.Affine(weight, bias)
            shape = (layer.units,)
        for node in _units(network.neuron, shape):
            nodes[f"{type(node).__name__.lower()}_{number}"] = node
    nodes["output"] = nir.Output(np.array(shape))
    about = about or {}
    metadata = {"num_steps": network.num_steps, "dt": DT, "about": json.dumps(about)}
    metadata["checksum"] = _checksum(network, about)
    return nir.NIRGraph(nodes, list(pairwise(nodes)), metadata)


def write(network: Network, path: Path | str, about: dict[str, Any] | None = None) -> None:
    """Write `graph` to an HDF5 file, atomically. Equal networks give equal files.

    Raises:
        ValueError: as `check`.
    """
    content = io.BytesIO()
    nir.write(content, graph(network, about))
    with atomic_write(Path(path)) as file:
        file.write_bytes(content.getvalue())


def read(path: Path | str, num_steps: int | None = None) -> tuple[Network, dict[str, Any]]:
    """Read a file from `write`: the network, in evaluation mode, and its `about`.

    Files from other programs can be read too, if their graph is a chain like those of `graph`. Nothing in the
    file is ever executed.

    Args:
        num_steps: required if the file does not contain it, as those of other programs do not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or altered, or its graph is not such a chain; the message names the
            node.
    """
    path = Path(path)
    found = _parsed(path)
    try:
        metadata = found.metadata
        steps = metadata.get("num_steps", num_steps)
        if steps is None:
            raise ValueError("it does not contain num_steps; pass num_steps")
        network = _network(found, int(steps))
        about = parse_json(metadata["about"], path) if "about" in metadata else {}
        check_about(about, network)
        if "checksum" in metadata and metadata["checksum"] != _checksum(network, about):
            raise ValueError("its contents were changed after writing: the checksum differs")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error
    return network, about


def check(network: Network) -> None:
    """Raise `ValueError`, naming the layer and a remedy, for a network that NIR cannot express."""
    if not network.spiking:
        raise ValueError("NIR has no ReLU, so only spiking networks can be written")
    if len(network.norms):
        raise ValueError("the network has batch normalisation; remove it with scnn.models.fold")
    for layer in network.layers:
        neuron = network.output_neuron if layer is network.layers[-1] else network.neuron
        if neuron.reset == "subtract":
            raise ValueError(
                f"{layer.name}: a spike subtracts the threshold from the membrane one step later, which NIR "
                "cannot express; train the network with reset 'zero' (scnn train --reset zero)"
            )
        if layer.pool:
            raise ValueError(
                f"{layer.name}: NIR has no max pooling; use a stride instead, such as "
                f"{layer.units}C{layer.kernel}s{layer.stride * layer.pool_stride}"
            )
        if neuron.membrane_bits:
            raise ValueError(
                f"{layer.name}: NIR has no membranes of {neuron.membrane_bits} bits; train with a precision "
                "that rounds only the weights, such as int8-weights"
            )


def _arrays(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer, float32, as used in the computation."""
    arrays = []
    for layer, module in zip(network.layers, network.weights, strict=True):
        added = torch.zeros(layer.units) if module.bias is None else module.bias
        weight, bias = (each.detach().float().cpu().numpy() for each in (weight_of(module), added))
        arrays.append((weight, bias))
    return arrays


def _units(neuron: Neuron, shape: tuple[int, ...]) -> list[nir.NIRNode]:
    """The nodes of a layer's neurons. Parameters are float64, so that beta can be recovered exactly."""
    leaks = neuron.beta < 1
    kept = {"r": np.full(shape, 1 / (1 - neuron.beta) if leaks else 1 / DT)}
    if leaks:
        kept |= {"tau": np.full(shape, DT / (1 - neuron.beta)), "v_leak": np.zeros(shape)}
    threshold = np.full(shape, float(neuron.threshold))
    if neuron.reset == "none":
        return [(nir.LI if leaks else nir.I)(**kept), nir.Threshold(threshold)]
    return [(nir.LIF if leaks else nir.IF)(**kept, v_threshold=threshold, v_reset=np.zeros(shape))]


def _checksum(network: Network, about: dict[str, Any]) -> str:
    """SHA-256 over everything that determines the network's output, and `about`."""
    neuron = network.neuron
    constants = [float(np.float32(value)) for value in (neuron.beta, neuron.threshold)]
    known = [network.architecture, network.num_steps, constants, neuron.reset, network.input_shape, about]
    digest = hashlib.sha256(canonical(known).encode())
    for array in sum(_arrays(network), ()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _parsed(path: Path) -> nir.NIRGraph:
    """The graph in a file that may be anything; nir checks its shapes."""
    content = io.BytesIO(read_whole(path))
    try:
        if (unpacked := _unpacked(content)) > LARGEST_FILE:
            raise ValueError(f"its arrays take {unpacked} bytes; the limit is {LARGEST_FILE}")
        return nir.read(content)
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a NIR graph, or a damaged one ({error})") from error


def _unpacked(content: io.BytesIO) -> int:
    """Uncompressed size of all arrays in an HDF5 file, in bytes."""
    sizes = []
    with h5py.File(content, "r") as file:
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def _network(found: nir.NIRGraph, num_steps: int) -> Network:
    """The network of a graph; `ValueError` names the node if one does not fit."""
    chain = _chain(found)
    _, image = chain.pop(0)
    tokens: list[str] = []
    weights: dict[str, np.ndarray] = {}
    neuron: Neuron | None = None
    while len(chain) > 1:
        if isinstance(chain[0][1], nir.Flatten):  # `Network` flattens by itself
            chain.pop(0)
            continue
        name, node = chain.pop(0)
        layer = f"weights.{len(tokens)}"
        tokens.append(_token(name, node))
        weights[f"{layer}.weight"] = node.weight
        weights[f"{layer}.bias"] = getattr(node, "bias", np.zeros(len(node.weight)))
        units = chain[0][0]
        other = _neuron(chain)
        if neuron not in (None, other):
            raise ValueError(f"node {units!r}: its units differ from those of the layers before it")
        neuron = other
    if neuron is None:
        raise ValueError("the graph has no layers")
    sizes = [int(length) for length in image.output_type["output"]]
    channels, height, width = [1] * (3 - len(sizes)) + sizes
    with torch.device("meta"):  # skips the initialisation of weights
        network = Network("-".join(tokens), num_steps, neuron, (channels, height, width), True)
    tensors = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} contains values that are not finite")
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(True)
    return network.eval()


def _chain(found: nir.NIRGraph) -> list[tuple[str, nir.NIRNode]]:
    """Names and nodes in order, from the input to the output."""
    following: dict[str, str] = {}
    for before, after in found.edges:
        if before in following:
            raise ValueError(f"node {before!r}: it leads to two nodes, {following[before]!r} and {after!r}")
        following[before] = after
    names = list(found.inputs)[:1]
    while names and names[-1] in following:
        names.append(following.pop(names[-1]))
    for name in found.nodes:
        if name not in names:
            raise ValueError(f"node {name!r}: it is not on the path from the input to the output")
    return [(name, found.nodes[name]) for name in names]


def _token(name: str, node: nir.NIRNode) -> str:
    """The notation of a node of weights."""
    if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim == 2:
        return f"{len(node.weight)}FC"
    if not isinstance(node, nir.Conv2d):
        raise ValueError(f"node {name!r}: expected Conv2d, Affine or Linear, found {type(node).__name__}")
    sizes = node.weight.shape[2:], node.stride, node.padding
    sides = [{*map(int, np.ravel(size))} for size in sizes]  # one element if height and width are equal
    if {*map(len, sides)} != {1} or node.groups != 1 or {*np.ravel(node.dilation)} != {1}:
        raise ValueError(
            f"node {name!r}: a convolution must be the same in both directions, without groups or dilation"
        )
    (kernel,), (stride,), (padding,) = sides
    return f"{len(node.weight)}C{kernel}s{stride}p{padding}".replace("s1p", "p").removesuffix("p0")


def _neuron(chain: list[tuple[str, nir.NIRNode]]) -> Neuron:
    """The neuron at the start of `chain`; its nodes are removed from the chain."""
    name, node = chain.pop(0)
    if isinstance(node, nir.LIF | nir.IF):
        reset, threshold = "zero", _value(name, node, "v_threshold")
        _expect(name, node, "v_reset", 0.0)
    elif isinstance(node, nir.LI | nir.I):
        after, second = chain.pop(0)
        if not isinstance(second, nir.Threshold):
            raise ValueError(f"node {after!r}: expected Threshold, found {type(second).__name__}")
        reset, threshold = "none", _value(after, second, "threshold")
    else:
        raise ValueError(f"node {name!r}: expected LIF, IF, LI or I, found {type(node).__name__}")
    if isinstance(node, nir.IF | nir.I):
        _expect(name, node, "r", 1 / DT)
        return Neuron(1.0, threshold, reset)
    tau = _value(name, node, "tau")
    if not tau >= (1 - 1e-9) * DT:
        raise ValueError(f"node {name!r}: tau is {tau}, shorter than a time step of {DT} s")
    _expect(name, node, "r", tau / DT)
    _expect(name, node, "v_leak", 0.0)
    beta = float(str(np.float32(1 - DT / tau)))  # the shortest decimal, such as 0.9
    return Neuron(beta, threshold, reset)


def _value(name: str, node: nir.NIRNode, field: str) -> float:
    """The value of `field`, which must be the same for all units of the node."""
    values = np.unique(getattr(node, field))
    if values.size != 1:
        raise ValueError(f"node {name!r}: {field} must be the same for all units")
    return float(values[0])


def _expect(name: str, node: nir.NIRNode, field: str, wanted: float) -> None:
    value = _value(name, node, field)
    if not np.isclose(value, wanted, rtol=1e-6):
        raise ValueError(f"node {name!r}: {field} must be {wanted:g}, not {value:g}")
