"""Spiking convolutional networks for audio classification at the edge: from recordings to every number.

The names that you need first can be taken from here. Each is loaded when it is asked for.

>>> import scnn
>>> scnn.build("B", num_steps=10).num_parameters
692678
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` gives, for editors and type checkers
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
    """The name from its module, which is imported here: all of them together take seconds."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"scnn.{home}"), name)
    raise AttributeError(f"module 'scnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
