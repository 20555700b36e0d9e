"""What the commands have in common: standard output may be closed before all is written."""

import os
import sys
from collections.abc import Callable

CLOSED = 141  # the exit status that a shell gives a program stopped by a closed pipe


def until_closed(command: Callable[[], int]) -> int:
    """Run a command and return its exit status; it ends in silence where its reader is gone (`| head`)."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would write what is left when it exits, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
