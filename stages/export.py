"""Write a model as an ordinary Hugging Face folder, zeros in place, with a card of what was measured."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.params import load_params

DATA = Path("data")
MODEL = DATA / "model"


def main(arguments: argparse.Namespace) -> None:
    load_params()
    from stages.lib.artifacts import new_folder
    from stages.lib.errors import UserError
    from stages.lib.exporting import export
    from stages.lib.model_card import read_metrics, render

    target = Path(arguments.folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; give a folder")
    if target.is_dir() and any(target.iterdir()) and not arguments.overwrite:
        raise UserError(f"{target}: is not empty; give another folder, or --overwrite to replace all of it")
    if target.resolve() in (Path.cwd(), *Path.cwd().parents) or Path.cwd() / "data" in target.resolve().parents:
        raise UserError(f"{target}: belongs to the pipeline; give a folder outside of data/")
    card = render(arguments.model, read_metrics(arguments.model))
    with new_folder(target) as folder:
        export(MODEL, DATA / arguments.model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{target}: written; load it with AutoModelForCausalLM.from_pretrained({str(target)!r})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("folder", help="where to; it has to be new or empty")
    parser.add_argument("--model", default="pruned", choices=["original", "pruned"], help="which one (default: pruned)")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is not empty")
    command.run("export", main, parser)
