"""Spiking convolutional networks for audio classification at the edge.

The most used names can be imported from here. Each is loaded on first use.

>>> import scnn
>>> scnn.build("B", num_steps=10).num_parameters
692678
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # editors and type checkers cannot see through `__getattr__`
    from scnn.data import load_corpus
    from scnn.experiment import Experiment, run
    from scnn.features import Features, extract, image
    from scnn.models import Network, build
    from scnn.training import load_network, predict

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Features",
    "Network",
    "build",
    "extract",
    "image",
    "load_corpus",
    "load_network",
    "predict",
    "run",
]
_HOMES = {
    "data": ("load_corpus",),
    "features": ("Features", "extract", "image"),
    "models": ("Network", "build"),
    "training": ("load_network", "predict"),
    "experiment": ("Experiment", "run"),
}


def __getattr__(name: str) -> Any:
    """Import `name` from its module on first use: importing every module takes seconds."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"scnn.{home}"), name)
    raise AttributeError(f"module 'scnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
