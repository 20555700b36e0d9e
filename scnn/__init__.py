"""Spiking convolutional networks for audio classification at the edge: from recordings to every number."""

__version__ = "0.1.0"
