"""Words in a running stream, in whole numbers: what the C of `scnn export` hears, bit by bit.

`scnn.listen.Gate` cuts the words out, `scnn.deploy.reference` answers, and an answer of too little confidence
is "not sure". The confidence is, in 2^-15, the answer's share in the softmax of the output membranes,
averaged over the time steps, as `scnn.training.answer` has it in floating point::

    e[c] = (membrane[c] gain[c]) >> shift          its exponent to the base 2, in 2^-10
    w[c] = 2^((e[c] - max e) / 1024)               in 2^-15, from lines between 33 powers
    share = (w[answer] << 15) // sum of w
"""

import math
from typing import NamedTuple

import numpy as np

from scnn.deploy import reference
from scnn.deploy.frontend import pcm
from scnn.deploy.quantize import Program
from scnn.listen import LONGEST, Gate, Segment

CONFIDENCE = 1 << 15  # what certainty is
STEP = 1024  # of an exponent: what a doubling is
POWERS = np.rint(CONFIDENCE * 2 ** (-np.arange(33) / 32)).astype(np.int64)


class Word(NamedTuple):
    """A word that was heard.

    Attributes:
        start: samples before it.
        length: samples.
        answer: its class.
        confidence: in 2^-15.
        sure: whether the confidence reaches what the network was saved with.
    """

    start: int
    length: int
    answer: int
    confidence: int
    sure: bool


class Stream:
    """The words in a stream of samples, as `program` hears them.

    Args:
        longest: as of `Gate`; for the C it is another value of SCNN_LONGEST.
    """

    def __init__(self, program: Program, longest: int = LONGEST) -> None:
        self.program = program
        self._gate = Gate(program.front_end.sample_rate, longest)

    def feed(self, samples: np.ndarray) -> list[Word]:
        """The words that these further samples complete, int16 [samples] or float in [-1, 1]."""
        return [self._heard(segment) for segment in self._gate.feed(samples)]

    def flush(self) -> list[Word]:
        """The word that the end of the stream completes, if there is one."""
        return [self._heard(segment) for segment in self._gate.flush()]

    def _heard(self, segment: Segment) -> Word:
        start = round(segment.start * self._gate.sample_rate)
        samples = pcm(segment.samples)
        found = reference.recognise(self.program, [samples])
        answer = int(found.answers[0])
        share = confidence(self.program, found.membranes[0], answer)
        return Word(start, len(samples), answer, share, share >= least(self.program))


def least(program: Program) -> int:
    """The confidence, in 2^-15, that an answer needs."""
    return math.ceil(program.refuse * CONFIDENCE)


def gains(program: Program) -> tuple[list[int], int]:
    """Gain of each output and their shift, which make exponents of membranes."""
    exponents = program.layers[-1].scale * math.log2(math.e) * STEP
    shift = min(62, 30 - math.ceil(math.log2(exponents.max())))
    if shift < 0:
        raise ValueError("the outputs' unit is too coarse for a confidence in integers")
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
    """2^-x in 2^-15, of x >= 0 in 2^-10, int64."""
    piece, rest = below % STEP >> 5, below & 31
    between = POWERS[piece] - ((POWERS[piece] - POWERS[piece + 1]) * rest >> 5)
    return between >> np.minimum(below // STEP, 31)
