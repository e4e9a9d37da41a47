"""What the five scripts share: which model, which of the two ways, and one line for each."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from stages.lib.files.places import MODEL, recipe_folder
from stages.lib.inference.device import set_up
from stages.lib.inference.loading import Loaded, ready
from stages.lib.plumbing.params import Params, load_params
from stages.lib.recipes.recipe import materialize
from stages.lib.weights.checkpoint import Checkpoint

WAYS = {"right": "as here", "mistaken": "as published"}


@dataclass(frozen=True)
class Setting:
    params: Params
    model: str
    ways: tuple[str, ...]

    def load(self, for_training: bool = False) -> Loaded:
        """The model afresh; with its masks, if it is for training."""
        device = set_up(self.params.compute, self.params.seed)
        made = materialize(Checkpoint(MODEL), recipe_folder(self.model))
        return ready(made, device.for_training() if for_training else device, keep_masks=for_training)

    def each_way(self) -> Iterator[bool]:
        """Whether to make the mistake, for each way that was asked for."""
        return (way == "mistaken" for way in self.ways)

    def show(self, mistaken: bool, what: str) -> None:
        print(f"{self.model:9} {WAYS['mistaken' if mistaken else 'right']:13} {what}", flush=True)


def parse(name: str, description: str | None, model: str = "original") -> Setting:
    """Read the command line of the script `name`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.mistakes.{name}", description=description)
    parser.add_argument("--model", default=model, choices=["original", "pruned"], help=f"default: {model}")
    parser.add_argument("--way", default="both", choices=[*WAYS, "both"], help="with the mistake, without, or both")
    arguments = parser.parse_args()
    ways = tuple(WAYS) if arguments.way == "both" else (arguments.way,)
    return Setting(load_params(), arguments.model, ways)
