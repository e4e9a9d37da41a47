"""Which files of a data set are its splits, and which of their columns are read, by their names or as the user says.

A choice that names do not settle is not guessed: the error line lists the choices and the option that decides.
"""

import csv
import fnmatch
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stages.lib.files.errors import ParamsError, UserError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
"""Files that are read as tables; of the same splits in several formats, the first is taken, which keeps the types."""

COLUMNS = {"text": ("text",), "reviews": ("text", "label"), "documents": ("text", "summary")}
"""The columns that each item reads."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")
_COMMON = {
    "text": ("text", "content", "document", "article", "sentence", "review"),
    "label": ("label", "labels"),
    "summary": ("summary", "highlights"),
}
_LISTED = 12
"""The most choices that an error line lists."""


class _Place(NamedTuple):
    """What the name of a file says: its configuration, its split and its format."""

    config: str
    split: str
    suffix: str


def listed(names: Iterable[object]) -> str:
    """Names for an error line, cut short if there are many."""
    every = [str(name) for name in names]
    rest = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + rest


def split_by_names(names: Sequence[str], config: str | None) -> tuple[dict[str, list[str]], list[str]]:
    """The files of one configuration under train, test or both, and remarks on the choice.

    Raises UserError if no file is a table, ParamsError if the names leave a choice.
    """
    tables = _tables(names)
    found: dict[str, dict[_Place, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in tables:
        if place := _place(name):
            found[place.config][place].append(name)
    if not found:
        raise ParamsError(
            f"no file has the name of a split ({listed(tables)}); name the files with --files "
            "train=PATTERN,test=PATTERN"
        )
    chosen = [name for name in found if config is None or name == config]
    chosen = chosen or [name for name in found if name.startswith(f"{config}/")]
    if len(chosen) != 1:
        problem = "there are several configurations" if chosen else f"there is no configuration {config!r}"
        raise ParamsError(f"{problem}; choose with --config: {listed(sorted(chosen or found))}")
    return _in_one_format(found[chosen[0]])


def split_by_patterns(names: Sequence[str], patterns: Mapping[str, str]) -> dict[str, list[str]]:
    """The files that match the pattern of each split. Raises ParamsError for a pattern without any."""
    tables = _tables(names)
    files = {split: sorted(fnmatch.filter(tables, pattern)) for split, pattern in patterns.items()}
    for split, pattern in patterns.items():
        if not files[split]:
            raise ParamsError(f"--files: no file matches {split}={pattern}; there are {listed(tables)}")
    return files


def _tables(names: Sequence[str]) -> list[str]:
    tables = sorted(name for name in names if PurePosixPath(name).suffix in SUFFIXES)
    if not tables:
        kinds = listed(sorted({PurePosixPath(name).suffix for name in names} - {""}))
        raise UserError(
            f"the data set has no Parquet, JSON Lines or CSV file but {kinds or 'nothing'}; try the hub's own "
            "conversion with --revision refs/convert/parquet, or convert the files and use source: local"
        )
    return tables


def _place(name: str) -> _Place | None:
    """Read a name such as `plain_text/train-00000-of-00001.parquet`, `en/test/0000.parquet` or `data/train_sft.csv`."""
    path = PurePosixPath(name)
    folders = list(path.parent.parts)
    words = re.split(r"[^A-Za-z0-9]+", _SHARD.sub("", path.stem))
    for position, word in enumerate(words):
        if split := _SPLITS.get(word.lower()):
            rest = words[position + 1 :]
            while rest and rest[-1].isdigit():  # the number of a part
                rest.pop()
            series = "-".join(filter(None, [*words[:position], *rest]))
            return _Place("/".join(filter(None, [*folders, series])) or ".", split, path.suffix)
    for depth in reversed(range(len(folders))):
        if split := _SPLITS.get(folders[depth].lower()):
            return _Place("/".join(folders[:depth] + folders[depth + 1 :]) or ".", split, path.suffix)
    return None


def _in_one_format(places: Mapping[_Place, Sequence[str]]) -> tuple[dict[str, list[str]], list[str]]:
    counts = Counter(place.suffix for place in places)
    suffixes = [suffix for suffix in SUFFIXES if suffix in counts]
    taken = max(suffixes, key=lambda suffix: counts[suffix])  # the one with most splits; the first of equals
    remarks = [f"there are files in {', '.join(suffixes)}; those in {taken} are taken"] if len(suffixes) > 1 else []
    files = {place.split: sorted(names) for place, names in places.items() if place.suffix == taken}
    if "validation" in files and "test" not in files:
        remarks.append("there is no test split, so the validation split is scored")
        files["test"] = files["validation"]
    return {split: files[split] for split in ("train", "test") if split in files}, remarks


def check_splits(item: str, files: Mapping[str, list[str]]) -> None:
    """Raise ParamsError if a split that an item needs has no files."""
    needed = {"text": {"test"}, "reviews": {"train", "test"}, "documents": set()}[item]
    if missing := sorted(needed - files.keys()):
        raise ParamsError(
            f"no file has the name of the split {missing[0]}, which {item} needs; name the files with --files "
            f"train=PATTERN,test=PATTERN: {listed(chain.from_iterable(files.values()))}"
        )


def choose_columns(item: str, there: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column behind each of ours. Raises ParamsError if there is none, or several, and none is given."""
    chosen = {}
    for ours in COLUMNS[item]:
        option = f"name it with --columns {ours}=COLUMN"
        common = [name for name in _COMMON[ours] if name in there]
        if ours in given:
            if given[ours] not in there:
                raise ParamsError(f"--columns: there is no column {given[ours]!r} but {listed(there)}")
            common = [given[ours]]
        elif ours in common:
            common = [ours]
        if not common:
            raise ParamsError(f"no column is known as the {ours}; {option}, one of {listed(there)}")
        if len(common) > 1:
            raise ParamsError(f"several columns may be the {ours}; {option}, one of {listed(common)}")
        chosen[ours] = common[0]
    return chosen


def columns_in(path: Path) -> list[str]:
    """The columns of a table, from its schema or first row. Raises UserError if it is not readable."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return next(csv.reader(file))
            return list(_first_object(file))
    except (ValueError, AttributeError, StopIteration, TypeError, csv.Error) as error:
        raise UserError(f"{path.name}: not readable as {path.suffix[1:]} ({error}); name others with --files") from None


def _first_object(file: Iterable[str]) -> Any:
    """The first row of JSON Lines, or of a list of rows."""
    lines = iter(file)
    first = next(line for line in lines if line.strip())
    try:
        row = json.loads(first)
    except ValueError:
        row = json.loads("".join([first, *lines]))
    row = row[0] if isinstance(row, list) and row else row
    if not isinstance(row, dict):
        raise TypeError("its rows are no objects")
    return row


def class_names_in(path: Path, column: str) -> list[str] | None:
    """The names of a column's classes, where a Parquet file written by `datasets` holds them."""
    if path.suffix != ".parquet":
        return None
    from pyarrow import parquet

    described = (parquet.read_schema(path).metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(described)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):  # another writer's, or a column that is not a ClassLabel
        return None
    return [str(name) for name in names]
