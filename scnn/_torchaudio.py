"""Import torchaudio even next to a torch build that its compiled extension does not match.

torchaudio's PyPI wheel contains an extension linked against CUDA. Next to a CPU build of torch this extension
cannot be loaded, and `import torchaudio` fails. This package uses only torchaudio's Python code, which runs
without the extension, as it does when torchaudio is built without one.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


def import_torchaudio() -> ModuleType:
    """Import torchaudio, without its compiled extension only if that cannot be loaded.

    Raises:
        ModuleNotFoundError: torchaudio is not installed.
        Exception: the import fails for any reason other than one of torchaudio's own libraries.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError as error:
        # This submodule, which looks for the libraries, stays fully imported after the failure.
        loader: Any = sys.modules.get("torchaudio._extension.utils")
        # torch's message gives the resolved path of the library that failed to load.
        if loader is None or str(loader._LIB_DIR.resolve()) not in str(error):
            raise
    # torchaudio finds no extension in a missing folder, and continues without it.
    loader._LIB_DIR = loader._LIB_DIR / "left-out"
    return importlib.import_module("torchaudio")


torchaudio = import_torchaudio()
