"""Terminal output shared by all commands: it is safe to print, and its reader may stop early."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scnn.text import printable

CLOSED = 141  # exit status that a shell reports for a program stopped by a closed pipe


def until_closed(command: Callable[[], int]) -> int:
    """Run a command and return its exit status; end silently when its reader has gone (`| head`).

    Characters that the terminal cannot encode are printed as escapes.
    """
    if hasattr(sys.stdout, "reconfigure"):  # missing in notebooks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with _plain_warnings():
                return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would flush the rest on exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED


def plain(text: object) -> str:
    """The text with every control character escaped except line breaks."""
    return "\n".join(map(printable, str(text).split("\n")))


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print this package's warnings like its errors, without the source location."""
    original = warnings.formatwarning

    def show(message, category, *where, **line) -> str:
        if category is UserWarning:
            return f"scnn: {plain(message)}\n"
        return original(message, category, *where, **line)

    warnings.formatwarning = show
    try:
        yield
    finally:
        warnings.formatwarning = original
