"""What the commands have in common: what they print is safe to print, and may be read in part alone."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scnn.text import printable

CLOSED = 141  # the exit status that a shell gives a program stopped by a closed pipe


def until_closed(command: Callable[[], int]) -> int:
    """Run a command and return its exit status; it ends in silence where its reader is gone (`| head`).

    What the terminal cannot show (a name, where it knows ASCII alone) is printed as an escape.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with _plain_warnings():
                return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would write what is left when it exits, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED


def plain(text: object) -> str:
    """The text with its line breaks and no other control character."""
    return "\n".join(map(printable, str(text).split("\n")))


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show a warning of ours as an error is shown, without the place in the code."""
    usual = warnings.formatwarning

    def show(message, category, *where, **line) -> str:
        if category is UserWarning:
            return f"scnn: {plain(message)}\n"
        return usual(message, category, *where, **line)

    warnings.formatwarning = show
    try:
        yield
    finally:
        warnings.formatwarning = usual
