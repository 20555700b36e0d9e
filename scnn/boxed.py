"""A fully connected layer for maps that are uniform outside a box and hardly change over time.

The weights inside the box are multiplied with the maps; those outside are summed first, and multiplied with
the background once. Under a constant input most neurons of the first layer repeat their first time step. So
one matrix product computes the first step, and each neuron that changes adds its weights at the steps where
it differs from the first. The gradient of the weights is computed in the same way. If more neurons change, as
they do after a second convolution, every step gets its own matrix product.

Below, K is the number of neurons of a recording inside the box, and J the number of neurons over all
recordings that change over time.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from scnn._jit import njit

Box = tuple[int, int, int, int]  # part of a map: top, bottom, left, right (bottom and right excluded)
Size = tuple[int, int]  # height and width of a map

SPARSE = 1 / 12  # share of changing neurons above which a product per step is about as fast as adding weights
BLOCK = 64  # neurons whose weights are summed before the sum is added to the total


class Changes(NamedTuple):
    """The J neurons that change over time, and their differences from the first time step."""

    neurons: np.ndarray  # [J, 2], int32: recording and place, sorted
    differences: np.ndarray  # [J, T], float32


def find_changes(values: torch.Tensor) -> Changes | None:
    """The neurons of `values` `[T, N, K]` that change over time, or None if more than `SPARSE` of them do."""
    steps, count, size = values.shape
    if steps == 1 or values.device.type != "cpu" or values.dtype != torch.float32:
        return None
    neurons, differences, all_found = _find(values.detach().numpy(), int(SPARSE * count * size))
    return Changes(neurons, differences) if all_found else None


@njit(nogil=True, error_model="numpy")
def _find(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """The `Changes` of `values` [T, N, K], up to `limit` neurons, and whether these are all."""
    steps, count, size = values.shape
    neurons = np.empty((limit, 2), np.int32)
    differences = np.zeros((limit, steps), np.float32)
    changes = np.empty(size, np.bool_)
    filled = 0
    for recording in range(count):
        first = values[0, recording]
        changes[:] = False
        for step in range(1, steps):
            now = values[step, recording]
            for i in range(size):
                changes[i] |= now[i] != first[i]
        for i in range(size):
            if changes[i]:
                if filled == limit:
                    return neurons, differences, False
                neurons[filled] = recording, i
                for step in range(1, steps):
                    differences[filled, step] = values[step, recording, i] - first[i]
                filled += 1
    return neurons[:filled], differences[:filled], True


@njit(nogil=True, error_model="numpy")
def _add_weights(
    neurons: np.ndarray, differences: np.ndarray, weight: np.ndarray, current: np.ndarray
) -> None:
    """Add the changes' contribution to `current` [T, N, O], with the neurons' weights [K, O]."""
    steps, _, units = current.shape
    sums = np.zeros((steps, units), np.float32)
    for j in range(len(neurons)):
        recording, place = neurons[j]
        row = weight[place]
        for step in range(1, steps):
            difference = differences[j, step]
            if difference != 0:
                to = sums[step]
                for i in range(units):
                    to[i] += difference * row[i]
        # Summing in blocks has smaller rounding errors than one long sum.
        if j % BLOCK == BLOCK - 1 or j == len(neurons) - 1 or neurons[j + 1, 0] != recording:
            for step in range(1, steps):
                for i in range(units):
                    current[step, recording, i] += sums[step, i]
            sums[:] = 0


@njit(nogil=True, error_model="numpy")
def _add_gradients(
    neurons: np.ndarray, differences: np.ndarray, grad: np.ndarray, grad_weight: np.ndarray
) -> None:
    """Add the changes' contribution to `grad_weight` [K, O], with the gradient [T, N, O] of the current."""
    for j in range(len(neurons)):
        recording, place = neurons[j]
        to = grad_weight[place]
        for step in range(1, len(grad)):
            difference = differences[j, step]
            if difference != 0:
                row = grad[step, recording]
                for i in range(to.size):
                    to[i] += difference * row[i]


class _BoxedLinear(torch.autograd.Function):
    """`boxed_linear` with gradients for its values, background, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        background: torch.Tensor,
        box: Box,
        size: Size,
        weight: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        inside, maps = values.flatten(2), weight.view(len(weight), -1, *size)
        changes = find_changes(inside)
        boxed, current = _product(inside, changes, _inside(maps, box))
        outside = _outside(maps, boxed)
        ctx.save_for_backward(inside if changes is None else inside[:1], background, boxed, outside)
        ctx.changes, ctx.box, ctx.shape, ctx.maps = changes, box, values.shape, maps.shape
        return current.add_(torch.addmm(bias, background, outside)[:, None])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the arguments from that of the current, [T, N, O]."""
        inside, background, boxed, outside = ctx.saved_tensors
        per_step = grad.sum(dim=1)
        grad_values = (grad.flatten(0, 1) @ boxed.T).view(ctx.shape) if ctx.needs_input_grad[0] else None
        if ctx.changes is None:
            grad_boxed = (grad.flatten(0, 1).T @ inside.flatten(0, 1)).T
        else:
            grad_boxed = inside[0].T @ grad.sum(dim=0)
            _add_gradients(*ctx.changes, grad.contiguous().numpy(), grad_boxed.numpy())
        grad_maps = grad.new_empty(ctx.maps)
        grad_maps.copy_((per_step.T @ background)[:, :, None, None].expand(ctx.maps))
        _inside(grad_maps, ctx.box).copy_(grad_boxed.T.unflatten(1, ctx.shape[2:]))
        return grad_values, per_step @ outside.T, None, None, grad_maps.flatten(1), per_step.sum(dim=0)


def _product(
    inside: torch.Tensor, changes: Changes | None, window: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`window` [O, C, h, w] as a matrix [K, O], and its product [T, N, O] with `inside` [T, N, K]."""
    if changes is None:
        boxed = window.flatten(1).T
        return boxed, inside @ boxed
    boxed = window.permute(1, 2, 3, 0).flatten(0, 2)  # a neuron's weights are contiguous
    current = (inside[0] @ boxed).repeat(len(inside), 1, 1)
    _add_weights(*changes, boxed.numpy(), current.numpy())
    return boxed, current


def _inside(maps: torch.Tensor, box: Box) -> torch.Tensor:
    """The part of `maps` [O, C, H, W] inside `box`: a view [O, C, h, w]."""
    return maps[:, :, box[0] : box[1], box[2] : box[3]]


def _outside(maps: torch.Tensor, boxed: torch.Tensor) -> torch.Tensor:
    """Sum of `maps` [O, C, H, W] over the positions outside the box, whose part is `boxed` [K, O]: [C, O]."""
    return (maps.flatten(2).sum(dim=2) - boxed.T.unflatten(1, (maps.shape[1], -1)).sum(dim=2)).T


def _infer(
    values: torch.Tensor,
    background: torch.Tensor,
    box: Box,
    size: Size,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """`boxed_linear` without gradients; a silent background, as is common, costs nothing."""
    inside, maps = values.flatten(2), weight.view(len(weight), -1, *size)
    silent, changes = not background.any(), find_changes(inside)
    if silent and changes is not None and values.shape[1] == 1:
        current = values.new_empty(len(values), 1, len(weight))
        first = inside.detach().numpy()[0, 0].reshape(values.shape[2:])
        arrays = (tensor.detach().numpy() for tensor in (weight, bias, current[:, 0]))
        _one_recording(first, *changes, box[::2], size, *arrays)
        return current
    boxed, current = _product(inside, changes, _inside(maps, box))
    if not silent:
        bias = torch.addmm(bias, background, _outside(maps, boxed))[:, None]
    return current.add_(bias)


@njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _one_recording(
    first: np.ndarray,
    neurons: np.ndarray,
    differences: np.ndarray,
    corner: tuple[int, int],
    size: Size,
    weight: np.ndarray,
    bias: np.ndarray,
    current: np.ndarray,
) -> None:
    """Compute `current` `[T, O]` for one recording with maps silent outside a box at `corner` (top, left).

    Inside the box, `first` `[C, h, w]` is the first time step. The weights `[O, C * height * width]` are read
    in place, and only for neurons that spike: copying those of the box takes longer.
    """
    places = np.empty(first.size, np.int64)  # positions of the box within a row of the weights
    active, values = np.empty(first.size, np.int64), np.empty(first.size, np.float32)
    filled = 0
    for i, (channel, row, column) in enumerate(np.ndindex(first.shape)):
        places[i] = (channel * size[0] + corner[0] + row) * size[1] + corner[1] + column
        if first[channel, row, column] != 0:
            active[filled], values[filled] = places[i], first[channel, row, column]
            filled += 1
    changing = places[neurons[:, 1]]
    picked = np.empty((len(changing), len(weight)), np.float32)
    for unit in range(len(weight)):
        row, total = weight[unit], np.float32(0)
        for i in range(filled):
            total += values[i] * row[active[i]]
        current[:, unit] = total + bias[unit]
        for j in range(changing.size):
            picked[j, unit] = row[changing[j]]
    for j in range(changing.size):
        for step in range(1, len(current)):
            if differences[j, step] != 0:
                for unit in range(len(weight)):
                    current[step, unit] += differences[j, step] * picked[j, unit]


def boxed_linear(
    values: torch.Tensor,
    background: torch.Tensor,
    box: Box,
    size: Size,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """A fully connected layer for maps that are uniform outside a box.

    Args:
        values: `[T, N, C, h, w]`, the maps inside the box.
        background: `[T, C]`, the maps' value at every position outside it.
        box: top, bottom, left, right.
        size: height and width of the whole maps.
        weight: `[O, C * height * width]`.
        bias: `[O]`.

    Returns:
        The current `[T, N, O]`. It and its gradients equal those of the whole maps up to the order of sums.

    >>> values, background = torch.ones(1, 1, 1, 2, 2), torch.zeros(1, 1)
    >>> boxed_linear(values, background, (3, 5, 3, 5), (8, 8), torch.ones(1, 64), torch.zeros(1))
    tensor([[[4.]]])
    """
    compute = _BoxedLinear.apply if torch.is_grad_enabled() else _infer
    return compute(values, background, box, size, weight, bias)
