"""Words in a continuous stream, in integers: the same bits as the C of `scnn export`.

`scnn.listen.Gate` cuts the words out, and `scnn.deploy.reference` answers them. If the confidence is too low,
the answer is "not sure". The confidence, in units of 2^-15, is the answer's share in the softmax of the
output membranes, averaged over the time steps, like that of `scnn.training.answer` in floating point::

    e[c] = (membrane[c] gain[c]) >> shift          exponent to the base 2, in 2^-10
    w[c] = 2^((e[c] - max e) / 1024)               in 2^-15, interpolated between 33 powers
    share = (w[answer] << 15) // sum of w
"""

import math
from typing import NamedTuple

import numpy as np

from scnn.deploy import reference
from scnn.deploy.frontend import pcm
from scnn.deploy.quantize import Program
from scnn.listen import LONGEST, Gate, Segment

CONFIDENCE = 1 << 15  # full confidence
STEP = 1024  # the increase of an exponent for a doubling
POWERS = np.rint(CONFIDENCE * 2 ** (-np.arange(33) / 32)).astype(np.int64)


class Word(NamedTuple):
    """A word heard in a stream.

    Attributes:
        start: samples before it.
        length: in samples.
        answer: its class.
        confidence: in 2^-15.
        sure: whether the confidence reaches the network's `refuse`.
    """

    start: int
    length: int
    answer: int
    confidence: int
    sure: bool


class Stream:
    """Recognises the words in a stream of samples with `program`.

    Args:
        longest: as in `Gate`; corresponds to SCNN_LONGEST in the C.
    """

    def __init__(self, program: Program, longest: int = LONGEST) -> None:
        self.program = program
        self._gate = Gate(program.front_end.sample_rate, longest)

    def feed(self, samples: np.ndarray) -> list[Word]:
        """Process further samples, int16 [n] or float in [-1, 1], and return the words they complete."""
        return [self._heard(segment) for segment in self._gate.feed(samples)]

    def flush(self) -> list[Word]:
        """End the stream, and return the word that this completes, if any."""
        return [self._heard(segment) for segment in self._gate.flush()]

    def _heard(self, segment: Segment) -> Word:
        start = round(segment.start * self._gate.sample_rate)
        samples = pcm(segment.samples)
        found = reference.recognise(self.program, [samples])
        answer = int(found.answers[0])
        share = confidence(self.program, found.membranes[0], answer)
        return Word(start, len(samples), answer, share, share >= least(self.program))


def least(program: Program) -> int:
    """The lowest confidence, in 2^-15, of a sure answer."""
    return math.ceil(program.refuse * CONFIDENCE)


def gains(program: Program) -> tuple[list[int], int]:
    """The gain of each output and the common shift that turn membranes into exponents."""
    exponents = program.layers[-1].scale * math.log2(math.e) * STEP
    shift = min(62, 30 - math.ceil(math.log2(exponents.max())))
    if shift < 0:
        raise ValueError("the unit of the outputs is too coarse for an integer confidence")
    return [round(value * 2**shift) for value in exponents], shift


def confidence(program: Program, membranes: np.ndarray, answer: int) -> int:
    """Confidence in `answer`, in 2^-15, from the outputs' `membranes`, int64 [T, classes]."""
    gain, shift = gains(program)
    shares = 0
    for exponents in membranes * np.array(gain) >> shift:
        weights = _power(exponents.max() - exponents)
        shares += int(weights[answer] << 15) // int(weights.sum())
    return shares // len(membranes)


def _power(below: np.ndarray) -> np.ndarray:
    """2^-x in units of 2^-15, for x >= 0 in units of 2^-10, int64."""
    piece, rest = below % STEP >> 5, below & 31
    between = POWERS[piece] - ((POWERS[piece] - POWERS[piece + 1]) * rest >> 5)
    return between >> np.minimum(below // STEP, 31)
