"""Training a network: loss, read-out, epochs, and checkpoints from which training goes on after a kill."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional
from tqdm import tqdm

from scnn.files import atomic_write
from scnn.models import Network
from scnn.neurons import Neuron, Output
from scnn.quantization import Recipe

FORMAT = "scnn network 1"
READOUTS = ("spikes", "membrane")
SCHEDULES = ("constant", "cosine")
SEEDS = 2**63  # what PyTorch's generators can be seeded with
_EVALUATION_BATCH = 50


class StateError(ValueError):
    """A training state that cannot be gone on from: damaged, or of another training."""


@dataclass(frozen=True)
class Training:
    """How a network is trained; the defaults are the paper's. Raises `ValueError` naming the parameter."""

    epochs: int = 20
    batch_size: int = 16  # recordings
    learning_rate: float = 1.0e-3  # Adam's
    schedule: str = "constant"  # of the learning rate: one of SCHEDULES; cosine falls to 0 over the epochs
    seed: int = 0  # of the order of the recordings

    def __post_init__(self):
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.seed >= SEEDS:
            raise ValueError(f"seed must be a whole number below 2**63, not {self.seed}")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be a positive number, not {self.learning_rate!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")

    def rate(self, epoch: int) -> float:
        """The learning rate of `epoch`, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def loss(output: Output, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the output membranes, summed over the time steps and averaged over the recordings.

    `labels` are int64 `[N]`. For a ReLU network it is the cross-entropy of the logits.
    """
    steps = output.membrane.shape[0]
    return steps * functional.cross_entropy(output.membrane.flatten(0, 1), labels.repeat(steps))


def scores(output: Output, readout: str = "spikes") -> torch.Tensor:
    """Evidence for each class, `[N, classes]`: spikes counted over time, or the membrane's sum over time.

    Raises `ValueError` for a readout not in `READOUTS`. A ReLU network has its logits in either case.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout must be one of {', '.join(READOUTS)}, not {readout!r}")
    return (output.membrane if readout == "membrane" or output.spikes is None else output.spikes).sum(dim=0)


def predict(network: Network, images: torch.Tensor, readout: str = "spikes") -> torch.Tensor:
    """The class of each image, int64 `[N]`: that of most evidence, the first of several equal ones."""
    with torch.no_grad():
        return torch.cat(
            [scores(network(part), readout).argmax(dim=1) for part in images.split(_EVALUATION_BATCH)]
        )


def evaluate(network: Network, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Loss, and accuracy in 0..1 by spike count and by membrane, over all of `images`."""
    sums = {"loss": 0.0, "accuracy": 0, "accuracy_membrane": 0}
    with torch.no_grad():
        for part, target in zip(
            images.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True
        ):
            output = network(part)
            sums["loss"] += loss(output, target).item() * len(part)
            sums["accuracy"] += (scores(output).argmax(dim=1) == target).sum().item()
            sums["accuracy_membrane"] += (scores(output, "membrane").argmax(dim=1) == target).sum().item()
    return {name: value / len(images) for name, value in sums.items()}


def step(
    network: Network, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, int]:
    """One update of the weights by a batch; its loss, and how many of its recordings were right before it."""
    output = network(images)
    value = loss(output, labels)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item(), (scores(output).argmax(dim=1) == labels).sum().item()


def adam(network: Network, learning_rate: float) -> torch.optim.Adam:
    """Adam as `fit` uses it: all weights updated in one pass over the memory."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)


def fit(
    network: Network,
    images: torch.Tensor,
    labels: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor],
    training: Training = Training(),
    state: Path | None = None,
    progress: str = "training",
    on_epoch: Callable[[Network, list[dict[str, float]]], None] | None = None,
) -> list[dict[str, float]]:
    """Train `network` in place on `images` `[N, C, H, W]` and `labels` `[N]`; the history, a row an epoch.

    After each epoch the network is evaluated on `held_out` (images, labels), and everything needed to go on
    is written to the file `state`. If that file exists, training goes on behind its last epoch, and ends
    with the weights that it would have had without a break. A progress bar labelled `progress` is shown on
    a terminal. `on_epoch` is called with the network and the history so far, after each epoch and where
    training goes on.
    """
    optimizer = adam(network, training.learning_rate)
    history = _resume(state, network, optimizer, training) if state is not None and state.exists() else []
    if history and on_epoch is not None:
        on_epoch(network.eval(), history)
    bar = tqdm(
        range(training.epochs), desc=progress, initial=len(history), unit="epoch", disable=None, leave=False
    )
    for epoch in range(len(history), training.epochs):
        start = time.perf_counter()
        optimizer.param_groups[0]["lr"] = training.rate(epoch)
        network.train()
        order = torch.from_numpy(np.random.default_rng([training.seed, epoch]).permutation(len(images)))
        total, right = 0.0, 0
        for batch in order.split(training.batch_size):
            value, correct = step(network, optimizer, images[batch], labels[batch])
            total += value * len(batch)
            right += correct
        network.eval()
        tested = {f"held_out_{name}": number for name, number in evaluate(network, *held_out).items()}
        seconds = time.perf_counter() - start
        row = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "loss": total / len(images),
            "accuracy": right / len(images),
        }
        history.append(row | tested)
        if state is not None:
            _suspend(state, network, optimizer, training, history)
        if on_epoch is not None:
            on_epoch(network, history)
        bar.update()
        bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", accuracy=f"{history[-1]['held_out_accuracy']:.3f}")
    bar.close()
    return history


def save_network(network: Network, path: Path | str, about: dict[str, Any] | None = None) -> None:
    """Write weights and description to a safetensors file; `about` is any JSON to keep beside them.

    The file's header is plain JSON text, and holds all that `load_network` needs.
    """
    header = {
        "format": FORMAT,
        "network": json.dumps(_description(network)),
        "about": json.dumps(about or {}),
    }
    with atomic_write(Path(path)) as file:
        save_file({name: weight.contiguous() for name, weight in network.state_dict().items()}, file, header)


def load_network(path: Path | str) -> tuple[Network, dict[str, Any]]:
    """The network of `save_network`, in evaluation mode, and what was kept beside it.

    Nothing in the file is ever executed.

    Raises `FileNotFoundError`, and `ValueError` with the reason for a file that is damaged, was not written
    by `save_network`, or whose weights do not fit its description.
    """
    header, weights = read_tensors(Path(path), FORMAT)
    try:
        saved = json.loads(header["network"])
        neuron, recipe = Neuron(**saved.pop("neuron")), Recipe(**saved.pop("recipe", {}))
        with torch.device("meta"):  # shapes alone: a forged header must not make us fill the memory
            network = Network(neuron=neuron, recipe=recipe, **saved)
        about = json.loads(header["about"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path}: the description of the network in its header cannot be used ({error})"
        ) from error
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if expected != found or any(weight.dtype != torch.float32 for weight in weights.values()):
        raise ValueError(
            f"{path}: its weights do not fit {network.architecture}: {found} instead of {expected}"
        )
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(True)
    return network.eval(), about


def read_tensors(path: Path, form: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Header and tensors of a safetensors file of the format `form`; errors as `load_network`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
    if header.get("format") != form:
        raise ValueError(f"{path}: its header says format {header.get('format')!r}; this reads {form!r}")
    return header, tensors


def _description(network: Network) -> dict[str, Any]:
    return {
        "architecture": network.architecture,
        "num_steps": network.num_steps,
        "neuron": asdict(network.neuron),
        "recipe": asdict(network.recipe),
        "input_shape": list(network.input_shape),
        "spiking": network.spiking,
    }


_STATE = "scnn training state 1"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of each weight


def _suspend(state, network, optimizer, training, history) -> None:
    tensors = {f"weight/{name}": weight for name, weight in network.state_dict().items()}
    for (name, _), moments in zip(
        network.named_parameters(), optimizer.state_dict()["state"].values(), strict=True
    ):
        tensors |= {f"{moment}/{name}": value for moment, value in moments.items()}
    about = {
        "training": asdict(training),
        "network": _description(network),
        "history": history,
        "checksum": _checksum(tensors),
    }
    with atomic_write(state) as file:
        save_file(tensors, file, {"format": _STATE, "about": json.dumps(about)})


def _checksum(tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _resume(state, network, optimizer, training) -> list[dict[str, float]]:
    try:
        header, tensors = read_tensors(state, _STATE)
    except ValueError as error:
        raise StateError(str(error)) from error
    try:
        about = json.loads(header["about"])
        history, own = about["history"], {"training": asdict(training), "network": _description(network)}
        belongs, checksum = all(about[name] == value for name, value in own.items()), about["checksum"]
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{state}: its header cannot be used ({error})") from error
    if not belongs:
        raise StateError(f"{state}: belongs to another training; remove it, or choose another file")
    weights = dict(network.named_parameters())
    if checksum != _checksum(tensors):
        raise StateError(f"{state}: its contents are not those that were written")
    network.load_state_dict({name: tensors[f"weight/{name}"] for name in weights})
    moments = {i: {kind: tensors[f"{kind}/{name}"] for kind in _MOMENTS} for i, name in enumerate(weights)}
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": settings})
    return history
