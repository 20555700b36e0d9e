"""numba's `njit`: compiled code is kept where that is possible, and believed only if it is whole."""

import contextlib
import functools
import hashlib
import pickle
import warnings

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps


def njit(**options):
    """Compile a function for the CPU: `numba.njit`, which keeps the machine code beside the source.

    Where the installation cannot be written to numba has the user's cache folder, or NUMBA_CACHE_DIR. Where
    neither can, the function is compiled anew by each process, with a warning. Kept code that is damaged is
    compiled again.
    """

    def compiled(function):
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError:  # there is no folder for it
            _warn()
        return dispatcher

    return compiled


@functools.cache  # once, and not for each function
def _warn() -> None:
    warnings.warn(
        "compiled code cannot be kept, so each process compiles it anew, which takes seconds: set "
        "NUMBA_CACHE_DIR to a folder that can be written to",
        stacklevel=3,
    )


class _Checked(CompileResultCacheImpl):
    """What is kept of a function, with its checksum: damaged machine code could do anything."""

    def reduce(self, data):
        content = dumps(super().reduce(data))
        return hashlib.sha256(content).digest(), content

    def rebuild(self, target_context, payload):
        digest, content = payload
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("the compiled code is not what was written")
        return super().rebuild(target_context, pickle.loads(content))


class _Cache(FunctionCache):
    _impl_class = _Checked

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise any
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(
            OSError
        ):  # a full disk: the code is there, and the next process compiles anew
            super().save_overload(sig, data)
