"""Integer-only inference from PCM samples to the answer: one definition, and C generated from it.

`quantize` turns a trained network and its features into a `Program` of integers. `reference` runs it in
numpy, and defines every bit of the result.
"""

from scnn.deploy.quantize import Program, convert, load_program, report, tuned

__all__ = ["Program", "convert", "load_program", "report", "tuned"]
