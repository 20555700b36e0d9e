"""From PCM samples to the digit in integers alone: one definition, and the C written from it.

`quantize` turns a trained network and its features into a `Program` of integers, and `reference` says in
numpy what every bit of it is.
"""

from scnn.deploy.quantize import Program, convert, load_program, report, tuned

__all__ = ["Program", "convert", "load_program", "report", "tuned"]
