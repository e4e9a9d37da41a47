"""Write a model as an ordinary Hugging Face folder, zeros in place, with a card of its figures."""

import argparse
from pathlib import Path

from stages.lib.files.errors import ParamsError, UserError
from stages.lib.files.places import DATA, METRICS, MODEL, REPORT, recipe_folder
from stages.lib.plumbing import command


def _check_target(target: Path, overwrite: bool) -> None:
    """Raise UserError for a folder whose content a user may miss: only an earlier export is replaced."""
    place = target.resolve()
    own = {folder.resolve() for folder in (DATA, METRICS, REPORT)}
    if place in (Path.cwd(), *Path.cwd().parents) or own & {place, *place.parents}:
        raise UserError(f"{target}: belongs to the pipeline; give another folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; give a folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{target}: is not empty; give another folder, or --overwrite to replace an earlier export")
    if not (target / "config.json").is_file():
        raise UserError(f"{target}: holds something other than a model; give another folder")


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    models = ["original", "pruned", *params.compare.variants]
    if arguments.model not in models:
        raise ParamsError(f"--model: got {arguments.model!r}, takes {', '.join(models)}")
    from stages.lib.files.writing import new_folder
    from stages.lib.reporting.exporting import export, read_metrics, render

    target = Path(arguments.folder)
    _check_target(target, arguments.overwrite)
    card = render(arguments.model, params, read_metrics(arguments.model))
    with new_folder(target) as folder:
        export(MODEL, recipe_folder(arguments.model), folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{target}: written; load it with AutoModelForCausalLM.from_pretrained({str(target)!r})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("folder", help="where to; it has to be new or empty")
    parser.add_argument(
        "--model", default="pruned", help="original, pruned (the default) or one of compare.variants in params.yaml"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    command.run("export", main, parser)
