"""Run the notebooks with papermill: each with its parameters, and only if something has changed."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from filelock import FileLock
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

import scnn
from scnn import data
from scnn.book import ROWS, parameters
from scnn.files import atomic_write

_START = 600  # seconds allowed for a kernel to start, even on a busy machine


@dataclass(frozen=True)
class Job:
    """A notebook to execute, the path of its run, and its parameters."""

    source: Path
    target: Path
    parameters: dict[str, Any]


def run(jobs: Iterable[Job], scratch: Path) -> list[str]:
    """Execute notebooks, printing a line for each; if one fails, the others still run.

    A notebook is skipped if the run at its target has the same cells, parameters, corpus and package. A run
    is moved to its target only when complete, so an interruption keeps all finished runs.

    Args:
        jobs: the notebooks.
        scratch: folder for running notebooks. Each has its own sub-folder, so that concurrent commands do not
            collide; those of failed notebooks are kept.

    Returns:
        A message for each failed notebook, with the notebook, the cell and the error.
    """
    # Without ipywidgets, which no page uses, tqdm would print this warning in the first cell of each page.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    jobs, failures, watched = list(jobs), [], sys.stderr.isatty()
    package = _package_digest()
    for number, job in enumerate(jobs, start=1):
        line = f"[{number}/{len(jobs)}] {job.source.stem}"
        started = time.monotonic()
        source = nbformat.read(job.source, as_version=4)
        in_place = job.target == job.source
        digest = None if in_place else _digest(source, job.parameters, package)
        if digest and job.target.exists():
            if nbformat.read(job.target, as_version=4).metadata.get("scnn") == digest:
                print(f"{line}: unchanged", flush=True)
                continue
        if not watched:
            print(f"{line}: running", flush=True)
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{job.source.stem}-", dir=scratch))
        partial, rows = folder / job.source.name, folder / "records.csv"
        os.environ[ROWS] = str(rows.absolute())
        failure = None
        try:
            execute_notebook(
                job.source,
                partial,
                job.parameters,
                start_timeout=_START,
                progress_bar={"desc": line, "leave": False} if watched else False,
                extra_arguments=[
                    "--log-level=ERROR"
                ],  # hides the kernel's warning about plain TCP, which is harmless on a local machine
            )
        except PapermillExecutionError as error:
            first_line = error.source.strip().partition("\n")[0]
            failure = f"cell [{error.exec_count}] ({first_line}): {error.ename}: {error.evalue}"
        except DeadKernelError as error:
            failure = f"the kernel died: {error}"
        except RuntimeError as error:  # the kernel did not start
            failure = f"no kernel: {error}"
        finally:
            os.environ.pop(ROWS, None)  # so that notebooks run by other means do not write there
        print(f"{line}: {'failed' if failure else 'ok'}, {time.monotonic() - started:.1f} s", flush=True)
        if failure:
            failures.append(f"{job.source}, {failure}\n    The run up to there: {partial}")
            continue
        executed = nbformat.read(partial, as_version=4)
        _tidy(executed, source)
        if digest:
            executed.metadata["scnn"] = digest
        nbformat.write(executed, partial)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if not in_place:
            with FileLock(scratch / "records.lock"):
                _merge(rows, job.target)
        os.replace(partial, job.target)
        shutil.rmtree(folder)
    return failures


def _merge(rows: Path, target: Path) -> None:
    """Replace a page's earlier trainings in `records.csv`, next to the page, by its new ones."""
    records, parts = target.with_name("records.csv"), []
    if records.exists():
        earlier = pd.read_csv(records)
        parts.append(earlier[earlier["page"] != target.stem])
    if rows.exists():
        new = pd.read_csv(rows)
        new.insert(0, "page", target.stem)
        parts.append(new)
    parts = [part for part in parts if len(part)]
    if parts:
        with atomic_write(records) as file:
            pd.concat(parts).sort_values("page", kind="stable").to_csv(file, index=False)


def _tidy(executed: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Remove everything from a run that depends on the machine or the time."""
    metadata = {cell["id"]: cell["metadata"] for cell in source["cells"]}
    for cell in executed["cells"]:
        if cell["id"] in metadata:
            cell["metadata"] = metadata[cell["id"]]
        else:
            cell["id"] = "injected-parameters"
            cell["metadata"] = {"tags": ["injected-parameters"]}
        cell.update(_joined(cell))
    executed["metadata"].clear()
    executed["metadata"].update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )


def _joined(cell: Mapping[str, Any]) -> dict[str, list]:
    """The outputs of a cell, with printed text joined: a busy machine delivers it in several pieces."""
    joined: list[dict[str, Any]] = []
    for one in cell.get("outputs", []):
        if joined and one.get("name") and one.get("name") == joined[-1].get("name"):
            joined[-1]["text"] += one["text"]
        else:
            joined.append(one)
    return {"outputs": joined} if joined else {}


def _package_digest() -> str:
    """Digest of the package's files: a run depends on them as much as on its notebook."""
    package = Path(scnn.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest(notebook: Mapping[str, Any], wanted: Mapping[str, Any], package: str) -> str:
    values = parameters(notebook) | wanted
    corpus = values.get("corpus")
    basis = {
        "cells": [
            [cell["id"], cell["cell_type"], cell["source"], cell["metadata"]] for cell in notebook["cells"]
        ],
        "parameters": values,
        "corpus": data.fingerprint(corpus) if corpus else None,
        "package": package,
    }
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()
