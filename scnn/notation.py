"""The paper's notation for networks, such as `"6C3-P2-128FC-10FC"`.

This stands for a convolution with 6 channels and a 3 x 3 kernel, 2 x 2 max pooling of its current, and fully
connected layers of 128 and 10 units. `6C3s2p1` adds a stride and a padding, `P3s2` a stride. Every layer is
followed (after its pooling) by leaky spiking units, or in a ReLU network by ReLUs, except at the output.
"""

import re
from dataclasses import dataclass

ALEXNET = "64C3s2p1-P2-192C3p1-P2-384C3p1-256C3p1-256C3p1-P2-4096FC-4096FC-10FC"
ZOO = {  # name: (architecture, spiking)
    "A": ("6C3-16C3-128FC-64FC-10FC", True),
    "B": ("6C3-128FC-10FC", True),
    "C": ("6C3-P2-128FC-10FC", True),
    "CNN": ("6C3-P2-16C3-P2-128FC-64FC-10FC", False),  # the paper's control
    "LeNet": ("6C5-P2-16C5-P2-120FC-84FC-10FC", False),
    "AlexNet": (ALEXNET, False),
    "SpikingAlexNet": (ALEXNET, True),
    "R": ("16C3s2p1-32C3s2p1-48C3s2p1-52C3s2p1-10FC", True),  # the packaged network; its teacher follows
    "RTeacher": ("24C3s2p1-48C3s2p1-64C3s2p1-128FC-10FC", False),
}
MOST_LAYERS = 64
TOKEN = re.compile(
    r"(?P<channels>\d+)C(?P<kernel>\d+)(?:s(?P<stride>\d+))?(?:p(?P<padding>\d+))?"
    r"|P(?P<pool>\d+)(?:s(?P<pool_stride>\d+))?"
    r"|(?P<units>\d+)FC"
)


@dataclass(frozen=True)
class Layer:
    """A layer of the notation: a convolution (`kernel` > 0) with its pooling, or a fully connected layer.

    Attributes:
        name: in the notation, such as "6C3" or "128FC".
        units: number of output channels or output units.
        kernel: side of the kernel, in pixels; 0 for a fully connected layer.
        stride: stride of the kernel.
        padding: zeros on each side of the map.
        pool: side of the max-pooling window; 0 for no pooling.
        pool_stride: stride of the pooling.
    """

    name: str
    units: int
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    pool: int = 0
    pool_stride: int = 0

    def convolved(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a map of `size` after the convolution."""
        height, width = ((length + 2 * self.padding - self.kernel) // self.stride + 1 for length in size)
        return height, width

    def pooled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a map of `size` after the pooling."""
        if not self.pool:
            return size
        height, width = ((length - self.pool) // self.pool_stride + 1 for length in size)
        return height, width


def parse(architecture: str) -> tuple[Layer, ...]:
    """The layers of `architecture`.

    Raises:
        ValueError: a token cannot be read or is out of place; the message names it.

    >>> [(layer.name, layer.units) for layer in parse("6C3-P2-128FC-10FC")]
    [('6C3-P2', 6), ('128FC', 128), ('10FC', 10)]
    """
    if not isinstance(architecture, str) or len(architecture) > 32 * MOST_LAYERS:
        raise ValueError(f"architecture must be text, of at most {MOST_LAYERS} layers")
    layers: list[Layer] = []
    for token in architecture.split("-"):
        match = TOKEN.fullmatch(token)
        if match is None:
            raise ValueError(
                f"{token!r} in architecture {architecture!r} is not a layer: write "
                "6C3 (channels C kernel, optionally s stride and p padding), P2 (pooling, optionally s "
                f"stride) or 128FC; or use one of {', '.join(ZOO)}"
            )
        sizes = {key: int(value) for key, value in match.groupdict().items() if value is not None}
        if any(value == 0 for key, value in sizes.items() if key != "padding"):
            raise ValueError(f"{token!r} in architecture {architecture!r} has a size of 0")
        if "channels" in sizes:
            if layers and not layers[-1].kernel:
                raise ValueError(
                    f"{token!r} in architecture {architecture!r} follows a fully connected layer"
                )
            stride, padding = sizes.get("stride", 1), sizes.get("padding", 0)
            layers.append(Layer(token, sizes["channels"], sizes["kernel"], stride, padding))
        elif "pool" in sizes:
            if not layers or not layers[-1].kernel or layers[-1].pool:
                raise ValueError(f"{token!r} in architecture {architecture!r} must follow a convolution")
            last, size = layers.pop(), sizes["pool"]
            stride = sizes.get("pool_stride", size)
            layers.append(
                Layer(
                    f"{last.name}-{token}", last.units, last.kernel, last.stride, last.padding, size, stride
                )
            )
        else:
            layers.append(Layer(token, sizes["units"]))
    if layers[-1].kernel:
        raise ValueError(
            f"architecture {architecture!r} must end with a fully connected layer, one unit per class"
        )
    return tuple(layers)


def ending_in(architecture: str, classes: int) -> str:
    """The notation with its number of outputs replaced by `classes`."""
    return re.sub(r"\d+FC$", f"{classes}FC", architecture)
