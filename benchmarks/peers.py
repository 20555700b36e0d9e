"""The same networks in four other libraries, each in its fastest documented form for CPUs.

Libraries that are not installed are left out. All run layer by layer or in one compiled scan, and compute the
first layer's constant current once. README.md lists how their neurons differ from snnTorch's.
"""

import importlib.util
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from benchmarks.networks import LEARNING_RATE, LayerByLayer, Step, infer, train
from scnn.models import Network


class _SpikingJelly(nn.Module):
    """SpikingJelly's multi-step node, which runs forward and backward over all steps."""

    def __init__(self, network: Network, last: bool):
        from spikingjelly.activation_based import neuron, surrogate

        super().__init__()
        self.num_steps, own = network.num_steps, network.neuron
        self.node = neuron.LIFNode(
            tau=1 / (1 - own.beta),
            decay_input=False,
            v_threshold=own.threshold,
            v_reset=None,
            surrogate_function=surrogate.SoftSign(alpha=own.slope),
            detach_reset=True,
            step_mode="m",
            store_v_seq=last,
        )

    def forward(self, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.node.reset()
        spikes = self.node(current.expand(self.num_steps, *current.shape[1:]))
        return spikes, self.node.v_seq


class _Norse(nn.Module):
    """Norse's boxed cell (no synaptic filter), over all steps; its time constant also scales the current."""

    def __init__(self, network: Network, last: bool):
        from norse.torch.functional.lif_box import (
            LIFBoxFeedForwardState,
            LIFBoxParameters,
            lif_box_feed_forward_step,
        )
        from norse.torch.functional.reset import reset_subtract
        from norse.torch.module.snn import SNN

        super().__init__()
        self.num_steps, own = network.num_steps, network.neuron
        self.share = 1 - own.beta
        parameters = LIFBoxParameters(
            tau_mem_inv=torch.tensor(self.share),
            v_th=torch.tensor(own.threshold * self.share),
            alpha=torch.tensor(own.slope),
            reset_method=reset_subtract,
        )
        self.layer = SNN(
            lif_box_feed_forward_step,
            lambda current: LIFBoxFeedForwardState(v=torch.zeros_like(current[0])),
            parameters,
            dt=1.0,
            record_states=last,
        )

    def forward(self, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        spikes, state = self.layer(current.expand(self.num_steps, *current.shape[1:]))
        return spikes, state.v / self.share if self.layer.record_states else None


class _Sinabs(nn.Module):
    """sinabs' layer over all steps; its first dimension is the batch, not time."""

    def __init__(self, network: Network, last: bool):
        from sinabs.activation import MembraneSubtract, SingleExponential, SingleSpike
        from sinabs.layers import LIF

        super().__init__()
        self.num_steps, own = network.num_steps, network.neuron
        self.layer = LIF(
            tau_mem=-1 / np.log(own.beta),
            spike_threshold=torch.tensor(own.threshold),
            spike_fn=SingleSpike,
            reset_fn=MembraneSubtract(),
            surrogate_grad_fn=SingleExponential(),
            norm_input=False,
            record_states=last,
        ).requires_grad_(False)

    def forward(self, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.layer.reset_states()
        spikes = self.layer(current.expand(self.num_steps, *current.shape[1:]).transpose(0, 1))
        membrane = self.layer.recordings.get("v_mem")
        return spikes.transpose(0, 1), None if membrane is None else membrane.transpose(0, 1)


def _in_torch(layer: type[nn.Module]) -> Callable[[Network, str], Step]:
    def make(network: Network, task: str) -> Step:
        layers = [layer(network, last=each is network.layers[-1]) for each in network.layers]
        other = LayerByLayer(network, layers)
        return train(other) if task == "train" else infer(other)

    return make


def _spyx(network: Network, task: str) -> Step:
    """spyx: one compiled scan over the steps, and a compiled training step with optax's Adam."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from spyx import axn
    from spyx import nn as spyx_nn
    from spyx.optimize import make_eval_step, make_train_step

    own, (channels, *size), rngs = network.neuron, network.input_shape, nnx.Rngs(0)
    stages, maps = [], True
    for layer, module in zip(network.layers, network.weights, strict=True):
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        if layer.kernel:  # [O, C, h, w] becomes [h, w, C, O]: channels are last in JAX
            padding = [(layer.padding, layer.padding)] * 2
            synapse = nnx.Conv(
                channels, layer.units, (layer.kernel,) * 2, layer.stride, padding=padding, rngs=rngs
            )
            weight = weight.transpose(2, 3, 1, 0)
            size = layer.pooled(layer.convolved(size))
        else:
            if maps:
                stages.append(spyx_nn.Flatten())
                weight = weight.reshape(layer.units, channels, *size).transpose(2, 3, 1, 0)
                maps, size = False, []
            weight = weight.reshape(-1, layer.units) if weight.ndim == 4 else weight.T
            synapse = nnx.Linear(*weight.shape, rngs=rngs)
        synapse.kernel[...], synapse.bias[...] = jnp.array(weight), jnp.array(bias)
        stages.append(synapse)
        if layer.pool:
            window, strides = (layer.pool,) * 2, (layer.pool_stride,) * 2
            stages.append(lambda x, window=window, strides=strides: nnx.max_pool(x, window, strides))
        channels = layer.units
        stages.append(
            spyx_nn.LIF((*size, channels), own.beta, own.threshold, axn.superspike(own.slope), rngs=rngs)
        )

    class Model(nnx.Module):
        def __init__(self):
            first = 2 if network.layers[0].pool or not network.layers[0].kernel else 1
            self.current = nnx.Sequential(*stages[:first])
            self.rest = spyx_nn.Sequential(*stages[first:])

        def __call__(self, images):
            current = self.current(images)

            def one_step(states, _):
                spikes, states = self.rest(current, states)
                return states, (spikes, states[-1])  # the output's membrane potential is its state

            states = self.rest.initial_state(len(images))
            return jax.lax.scan(one_step, states, length=network.num_steps)[1]

    def loss(model, images, labels):
        membrane = model(images)[1]
        each = optax.softmax_cross_entropy_with_integer_labels(
            membrane, labels[None].repeat(len(membrane), 0)
        )
        return each.mean(axis=1).sum()

    def classes(model, images):
        return model(images)[0].sum(axis=0).argmax(axis=1)

    model = Model()
    if task == "infer":
        evaluate = make_eval_step(classes)
        return lambda images, labels: evaluate(model, _to_jax(images)).block_until_ready()
    optimizer, update = nnx.Optimizer(model, optax.adam(LEARNING_RATE), wrt=nnx.Param), make_train_step(loss)
    return lambda images, labels: float(update(model, optimizer, _to_jax(images), labels.numpy()))


def _to_jax(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


_MAKERS = {
    "spikingjelly": _in_torch(_SpikingJelly),
    "norse": _in_torch(_Norse),
    "sinabs": _in_torch(_Sinabs),
    "spyx": _spyx,
}


def installed() -> dict[str, Callable[[Network, str], Step]]:
    """The installed peers, in the form of `benchmarks.networks.VARIANTS`."""
    return {name: make for name, make in _MAKERS.items() if importlib.util.find_spec(name)}


def versions() -> dict[str, str]:
    """Versions of the installed peers."""
    return {name: version(name) for name in installed()}


def missing() -> list[str]:
    """The peers that are not installed."""
    return [name for name in _MAKERS if name not in installed()]
