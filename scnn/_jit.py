"""numba's `njit` with a cache on disk, whose entries are checked before they are used."""

import contextlib
import functools
import hashlib
import pickle
import warnings

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps


def njit(**options):
    """Compile a function for the CPU with `numba.njit`, and cache the machine code beside the source.

    If the installation is read-only, numba caches in NUMBA_CACHE_DIR or the user's cache folder. If no folder
    is writable, each process compiles the function again, with a warning. A damaged cache entry is replaced.
    """

    def compiled(function):
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError:  # numba found no writable cache folder
            _warn()
        return dispatcher

    return compiled


@functools.cache  # one warning, not one per function
def _warn() -> None:
    warnings.warn(
        "compiled code cannot be cached, so each process compiles it again, which takes seconds: set "
        "NUMBA_CACHE_DIR to a writable folder",
        stacklevel=3,
    )


class _Checked(CompileResultCacheImpl):
    """A compiled function stored with its checksum: damaged machine code could do anything."""

    def reduce(self, data):
        content = dumps(super().reduce(data))
        return hashlib.sha256(content).digest(), content

    def rebuild(self, target_context, payload):
        digest, content = payload
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("the cached machine code is damaged: its checksum differs")
        return super().rebuild(target_context, pickle.loads(content))


class _Cache(FunctionCache):
    _impl_class = _Checked

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise anything
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(OSError):  # full disk: this process has the code, the next one recompiles
            super().save_overload(sig, data)
