"""Print the section of params.yaml for a model or data set of the Hugging Face hub, pinned to its current commit."""

import argparse
from typing import TYPE_CHECKING

from stages.lib.files.errors import ParamsError
from stages.lib.files.places import DATA_ITEMS, MODEL_ITEMS
from stages.lib.plumbing import command

if TYPE_CHECKING:
    from stages.lib.sources.pinning import Pin

EXAMPLES = """\
examples:
  python -m stages.pin openai-community/gpt2 --write
  python -m stages.pin stanfordnlp/imdb --as reviews
  python -m stages.pin abisee/cnn_dailymail --as documents --config 3.0.0
  python -m stages.pin owner/name --as reviews --columns text=body,label=kind --classes question,praise
"""


def _pairs(option: str, keys: tuple[str, ...], given: str | None) -> dict[str, str]:
    """The pairs of an option such as `text=body,label=kind`. Raises ParamsError for other keys."""
    pairs = {}
    for part in given.split(",") if given else ():
        key, _, value = part.partition("=")
        if key not in keys or not value:
            raise ParamsError(f"{option}: got {part!r}, takes {' and '.join(f'{key}=…' for key in keys)}")
        pairs[key] = value
    return pairs


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise ParamsError for an option that the item does not have."""
    takes = {
        "config": DATA_ITEMS,
        "files": DATA_ITEMS,
        "columns": DATA_ITEMS,
        "classes": ("reviews",),
        "format": ("text",),
    }
    for option, items in takes.items():
        if getattr(arguments, option) is not None and arguments.item not in items:
            raise ParamsError(f"--{option}: goes with --as {' or '.join(items)}, not with {arguments.item}")
    if arguments.config is not None and arguments.files is not None:
        raise ParamsError("--config: --files names the files already; give one of the two")


def _pin(arguments: argparse.Namespace) -> "Pin":
    _check_options(arguments)
    from stages.lib.sources.data_files import COLUMNS
    from stages.lib.sources.pinning import Choice, pin_data, pin_model

    if arguments.item in MODEL_ITEMS:
        return pin_model(arguments.repo, arguments.revision)
    choice = Choice(
        config=arguments.config,
        files=_pairs("--files", ("train", "test"), arguments.files),
        columns=_pairs("--columns", COLUMNS[arguments.item], arguments.columns),
        classes=[name.strip() for name in arguments.classes.split(",")] if arguments.classes else (),
        format=arguments.format or "table",
    )
    return pin_data(arguments.item, arguments.repo, arguments.revision, choice)


def main(arguments: argparse.Namespace) -> None:
    pin = _pin(arguments)
    from stages.lib.plumbing.sections import replace_section, section_as_yaml

    section = section_as_yaml(arguments.item, pin)
    if arguments.write:
        replace_section(arguments.item, section)
        print(f"params.yaml: {arguments.item} is {pin['repo']} at {pin['revision']}; `dvc repro` runs what reads it")
    else:
        print(section, end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m stages.pin",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("repo", metavar="owner/name", help="the repository's name on the hub, or on HF_ENDPOINT")
    parser.add_argument(
        "--as", dest="item", choices=(*MODEL_ITEMS, *DATA_ITEMS), default="model", help="the section (default: model)"
    )
    parser.add_argument("--revision", default="main", help="a branch, tag or commit (default: main)")
    parser.add_argument("--write", action="store_true", help="replace the section in params.yaml; nothing else changes")
    data = parser.add_argument_group("data sets")
    data.add_argument(
        "--config", help="one of several configurations: the folder, or the part of the name, of its files"
    )
    data.add_argument(
        "--files", metavar="train=PATTERN,test=PATTERN", help="the files, if their names do not show their splits"
    )
    data.add_argument("--columns", metavar="text=NAME,…", help="the columns behind text, label and summary")
    data.add_argument("--classes", metavar="NAME,NAME", help="reviews: the names of the classes, in their order")
    data.add_argument("--format", choices=("table", "wikitext"), help="text: a row per document (table), or per line")
    command.run("pin", main, parser)
