"""A Ray session that prints nothing: the one that is running, or one that ends with the search."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints its settings even where it is to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a corpus may be a relative path
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is to reach the caller
}
_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # in Ray's temporary folder
_LONGEST = 103  # bytes in the path of a socket, on macOS; Linux allows four more
_OBJECT_STORE = 80 * 2**20  # bytes; nothing large travels through it


@contextmanager
def session(address: str | None) -> Iterator[None]:
    """The Ray session that is running, or else one at `address` (None: on this machine), which ends with us.

    Raises:
        OSError: naming the temporary folder, where its path is too long for Ray.
    """
    if ray.is_initialized():
        yield
        return
    before = dict(os.environ)
    os.environ.update({name: value for name, value in QUIET.items() if name not in before})
    here: dict[str, Any] = {"include_dashboard": False, "num_gpus": 0, "object_store_memory": _OBJECT_STORE}
    try:
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else here | _short_folder()),
        )
        yield
    finally:
        ray.shutdown()
        for name in QUIET.keys() - before.keys():
            del os.environ[name]


def _short_folder() -> dict[str, str]:
    """Where Ray is to keep its sockets, if the path of the temporary folder is too long for them."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    most = _LONGEST - len(_SOCKET)
    if sys.platform == "win32" or len(os.fsencode(folder)) <= most:
        return {}
    if "RAY_TMPDIR" not in os.environ and os.access("/tmp", os.W_OK):
        return {"_temp_dir": "/tmp/ray"}  # Ray's own choice where TMPDIR is not set
    raise OSError(
        f"the temporary folder {folder} has too long a path for Ray's sockets: set RAY_TMPDIR to a folder "
        f"whose path has at most {most} bytes"
    )
