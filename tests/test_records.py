"""The committed trainings behind the pages: complete, consistent, and reproducible."""

import dataclasses
import json
import random
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from scnn.augment import Augmentation
from scnn.experiment import COLUMNS, Experiment, run
from scnn.features import Features

ROOT = Path(__file__).parents[1]
RECORDS = pd.read_csv(ROOT / "book" / "runs" / "records.csv")
MEASURED = ["accuracy", "accuracy_membrane", "sparsity_first", "sparsity_all", "synops", "seconds"]


def experiment(row) -> Experiment:
    """The experiment of `row`."""
    fields = {each.name for each in dataclasses.fields(Experiment)} - {"features"}
    chosen = {name: value for name, value in row.items() if name in fields}
    features = {"kind": row["features"], "normalization": row["normalization"]}
    if isinstance(row["beyond"], str):
        beyond = json.loads(row["beyond"])
        features |= beyond.pop("features", {})
        if "augmentation" in beyond:
            beyond["augmentation"] = Augmentation(**beyond["augmentation"])
        chosen |= beyond
    return Experiment(**chosen, features=Features(**features))


def rows(page: str | None = None) -> list[dict]:
    """Rows as plain Python values, for JSON."""
    chosen = RECORDS if page is None else RECORDS[RECORDS["page"] == page]
    return chosen.astype(object).to_dict("records")


def test_every_page_that_trains_has_its_rows():
    pages = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        pages |= {
            path.stem for cell in cells if cell.cell_type == "code" and "book.save_trainings(" in cell.source
        }
    assert set(RECORDS["page"]) == pages
    assert list(RECORDS.columns) == ["page", *COLUMNS]
    assert not RECORDS.duplicated(["page", "digest"]).any()


def test_pages_that_share_a_training_have_the_same_numbers():
    measured = RECORDS.groupby("digest")[MEASURED].nunique()
    assert (measured <= 1).all(axis=None)
    assert RECORDS["digest"].duplicated().any()


def test_numbers_are_in_their_range():
    shares = RECORDS[["accuracy", "accuracy_membrane", "sparsity_first", "sparsity_all"]]
    assert shares.stack().between(0, 1).all()
    assert (RECORDS[["parameters", "packed_bytes", "macs", "synops", "seconds"]] > 0).all(axis=None)
    assert set(RECORDS["corpus"]) <= {"fsdd-1.0.8", "fsdd"}


@pytest.mark.parametrize(("page", "seeds"), [("04_quantization", 5), ("08_table", 10)])
def test_a_mean_is_over_enough_seeds(page, seeds):
    varied = ["model", "num_steps", "precision", "pretrained", "normalization", "schedule", "batch_size"]
    assert RECORDS[RECORDS["page"] == page].groupby(varied)["seed"].nunique().min() >= seeds


def test_the_rows_say_which_experiments_they_were(fsdd):
    for row in random.sample(rows(), 20):
        assert experiment(row).digest == row["digest"], row


def test_two_trainings_chosen_at_random_come_out_the_same_again(fsdd, tmp_path, monkeypatch):
    monkeypatch.setenv("SCNN_HOME", str(tmp_path))
    cheap = [
        row
        for row in rows()
        if row["seconds"] < 25 and not row["pretrained"] and row["beyond"] != row["beyond"]
    ]
    assert len(cheap) > 50
    for row in random.sample(cheap, 2):
        same = RECORDS.drop_duplicates("digest")
        for name in ("model", "num_steps", "beta", "threshold", "precision", "normalization", "batch_size"):
            same = same[same[name] == row[name]]
        metrics = run(experiment(row)).metrics
        for name, least in (("accuracy", 1 / 300), ("sparsity_first", 0.003)):
            spread = 4 * max(same[name].std(), least) if len(same) > 1 else 4 * least
            assert abs(metrics[name] - row[name]) <= spread, (name, row)
