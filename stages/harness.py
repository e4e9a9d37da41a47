"""Run a task of lm-evaluation-harness on a model."""

import argparse

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    command.check_model(arguments.item, ("original", "pruned"))
    if arguments.task not in params.harness.tasks:
        raise ParamsError(
            f"task: got {arguments.task!r}, takes one of harness.tasks, {', '.join(params.harness.tasks)}"
        )
    from stages.lib.evaluation.harness import run_task

    run_task(arguments.item, arguments.task, params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.harness", description=__doc__)
    parser.add_argument("task", help="one of harness.tasks in params.yaml")
    parser.add_argument("item", metavar="model", help="one of harness.models in params.yaml")
    command.run("harness", main, parser)
