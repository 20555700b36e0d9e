"""Checks for numbers from a user or a file: whole, finite, within bounds. Errors name the parameter."""

import math

import numpy as np


def whole(name: str, value: int, least: int, most: int) -> int:
    """Check that `value` is a whole number in `least`..`most`, and return it as an `int`.

    Raises:
        ValueError: it is not; the message names the parameter.

    >>> whole("num_steps", 0, 1, 1000)
    Traceback (most recent call last):
        ...
    ValueError: num_steps must be a whole number of at least 1, not 0
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")
    return int(value)


def number(name: str, value: float) -> float:
    """Return `value` if it is a number; else `ValueError`, which names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return value


def finite(name: str, value: float) -> float:
    """Return `value` if it is a finite number; else `ValueError`, which names the parameter."""
    if not abs(number(name, value)) < math.inf:
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    return value
