"""Settings of pruning and recovery side by side, on documents that they neither calibrate nor train on.

python -m benchmarks.methods ["prune.method=kfac" "prune.method=surgeon recover.steps=40" ...]

Each argument is one setting: changes to `params.yaml`, separated by spaces; without arguments, each method alone. The
last tenth of the text's train split is scored, up to `--tokens`, and the rest takes the place of the train split: the
choices in docs/protocol.md were made so. Settings that differ only in recovery start from one pruned model. Needs
`data/model` and `data/text`, which `dvc repro download` brings.
"""

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ruamel.yaml import YAML

from stages.lib.evaluation.perplexity import score_text
from stages.lib.files.errors import ParamsError
from stages.lib.files.places import MODEL, TEXT
from stages.lib.files.rows import read_rows, unscored_documents, write_rows
from stages.lib.inference.device import set_up
from stages.lib.inference.likelihood import TokenizedText, tokenize
from stages.lib.inference.loading import Loaded, load_original, ready
from stages.lib.plumbing.params import PARAMS, Params, load_params, parse_params, read_params
from stages.lib.pruning.methods import METHODS
from stages.lib.pruning.prune import prune
from stages.lib.recipes.recipe import materialize, size_of
from stages.lib.recovery.recover import recover
from stages.lib.weights.checkpoint import Checkpoint

HELD_OUT = 0.1
"""The share of the train split's documents that is scored, the last ones."""


@contextmanager
def held_out() -> Iterator[None]:
    """Work in a folder with the same model, and a text whose train split is split again."""
    documents, model, before = unscored_documents(TEXT), MODEL.absolute(), Path.cwd()
    first_scored = min(round(len(documents) * (1 - HELD_OUT)), len(documents) - 1)
    rows = [
        {"document": str(number), "split": "test" if number >= first_scored else "train", "text": text}
        for number, text in enumerate(documents)
    ]
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            MODEL.parent.mkdir()
            MODEL.symlink_to(model)
            TEXT.mkdir()
            write_rows(rows, TEXT)
            yield
        finally:
            os.chdir(before)


def changed(content: dict[str, dict[str, object]], setting: str) -> Params:
    """The params with the changes of a setting. Raises ParamsError for a mistake in it."""
    sections = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for change in setting.split():
        parts = re.fullmatch(r"(\w+)\.(\w+)=(.+)", change)
        if parts is None or not isinstance(sections.get(parts[1]), dict):
            raise ParamsError(f"got {change!r}, takes changes such as prune.method=kfac")
        sections[parts[1]][parts[2]] = YAML(typ="safe", pure=True).load(parts[3])
    return parse_params(json.dumps(sections), PARAMS)


def perplexity(loaded: Loaded, text: TokenizedText, params: Params) -> float:
    return float(np.exp(score_text(loaded, text, params.perplexity)["nll"].mean()))


def rows(settings: dict[str, Params], text: TokenizedText, dense: float) -> Iterator[Sequence[object]]:
    """By setting: perplexity as a multiple of the original's, effective parameters, bytes, and both seconds."""
    checkpoint = Checkpoint(MODEL)
    checkpoint.sha256  # noqa: B018  # hashed once, outside the time
    pruned: dict[str, tuple[Path, float]] = {}
    for setting, params in settings.items():
        key = f"{params.prune} {params.compute}"
        if key not in pruned:
            folder, started = Path(f"pruned-{len(pruned)}"), time.monotonic()
            folder.mkdir()
            prune(checkpoint, params, folder)
            pruned[key] = folder, time.monotonic() - started
        source, pruning = pruned[key]
        with TemporaryDirectory() as copy:
            folder = Path(shutil.copytree(source, copy, dirs_exist_ok=True))
            started = time.monotonic()
            if params.recover.steps:
                recover("benchmark", params, folder)
            recovery = time.monotonic() - started
            made = materialize(checkpoint, folder)
            size = size_of(made, folder)
            loaded = ready(made, set_up(params.compute, params.seed))
            ratio = perplexity(loaded, text, params) / dense
        counts = (f"{size[name]:,}" for name in ("effective_parameters", "stored_bytes"))
        yield f"`{setting}`", f"{ratio:.4f}", *counts, f"{pruning:.0f}", f"{recovery:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    each = [f"prune.method={method.name}" for method in METHODS]
    parser.add_argument("settings", nargs="*", default=each, help="changes to params.yaml, separated by spaces")
    parser.add_argument("--tokens", type=int, default=6144, help="how many tokens are scored")
    arguments = parser.parse_args()
    try:  # mistakes first
        params = load_params()
        content = YAML(typ="safe", pure=True).load(read_params(PARAMS))
        settings = {setting: changed(content, setting) for setting in arguments.settings}
    except ParamsError as error:
        parser.error(str(error))
    with held_out():
        loaded = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
        text = tokenize(loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist()).head(arguments.tokens)
        dense = perplexity(loaded, text, params)
        del loaded
        print(f"original: {dense:.3f} on {len(text.tokens):,} held-out tokens\n")
        print("| setting | × original | effective | bytes | pruning, s | recovery, s |\n|---|---:|---:|---:|---:|---:|")
        for row in rows(settings, text, dense):
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
