"""Score instructions and cues for summaries on documents that the study does not score.

python -m benchmarks.prompts [--documents N]

Needs `data/model` and `data/documents` (`dvc repro download`). The documents are those that follow the scored ones in
the order drawn by the seed, so the choice of a prompt has not seen what it is scored on. Everything else is as in
params.yaml. Prints the table of docs/protocol.md; instructions are skipped for a tokenizer without a chat template.
"""

import argparse
import json

import pandas as pd

from stages.lib.evaluation.prompts import uses_chat
from stages.lib.evaluation.summarization import predict_summaries
from stages.lib.figures.definitions import figures_of
from stages.lib.files.places import DOCUMENTS, MODEL
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import draw
from stages.lib.inference.device import set_up
from stages.lib.inference.loading import Loaded, load_original
from stages.lib.plumbing.params import Params, load_params
from stages.lib.weights.checkpoint import Checkpoint

INSTRUCTIONS = (
    "Summarize in one sentence:\n\n{document}",
    "{document}\n\nSummarize the text above in one sentence.",
    "Summarize the following text in one short sentence of at most 12 words.\n\n{document}",
    "Write a title for this text:\n\n{document}",
    "What is this text about? Answer in one short sentence.\n\n{document}",
    "Reply with nothing but a one-sentence summary of this text:\n\n{document}",
)
CUES = (
    "\n\nTL;DR:",
    "\n\nSummary:",
    "\n\nIn one sentence:",
    "\n\nTitle:",
    "\n\nTo summarize in one sentence,",
    "\n\nIn short, this is about",
)


def unscored(params: Params, documents: int) -> pd.DataFrame:
    """The documents that follow the scored ones; all that there are, if they are fewer."""
    rows, settings = read_rows(DOCUMENTS), params.summarize
    scored = draw(rows, settings.examples, params.seed, "summarize.examples", settings.order)["document"]
    others = rows[~rows["document"].isin(scored)]
    return draw(others, min(documents, len(others)), params.seed, "--documents", settings.order)


def figures(loaded: Loaded, params: Params, rows: pd.DataFrame, **prompt: str) -> dict[str, float]:
    """The figures of a model's summaries by one prompt."""
    settings = params.summarize.model_copy(update={**prompt, "examples": len(rows)})
    table = predict_summaries(loaded, rows, settings, params.seed, may_be_empty=True)
    return figures_of("summarize", table, params.statistics.resamples, params.seed)


def row(prompt: str, found: dict[str, float]) -> str:
    ends = f" [{found['rougeL_low']:.3f}, {found['rougeL_high']:.3f}]" if "rougeL_low" in found else ""
    shares = f"{found['empty']:.0%} | {found['repeating']:.0%}"
    return f"| `{json.dumps(prompt)}` | {found['rougeL']:.3f}{ends} | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompts", description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=64, help="documents to summarize (default: 64)")
    arguments = parser.parse_args()
    params = load_params()
    loaded = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
    rows = unscored(params, arguments.documents)
    candidates = [{"prompt": "cue", "cue": cue} for cue in CUES]
    if uses_chat(loaded, params.summarize.model_copy(update={"prompt": "auto"})):
        candidates = [{"prompt": "chat", "instruction": instruction} for instruction in INSTRUCTIONS] + candidates
    print("| instruction or cue | ROUGE-L | empty | repeating |\n|---|---:|---:|---:|")
    generation = loaded.model.generation_config
    for candidate in candidates:
        loaded.model.generation_config = generation  # without what ends the replies of the candidate before
        found = figures(loaded, params, rows, **candidate)
        print(row(list(candidate.values())[1], found), flush=True)
    print(f"| first sentence | {found['lead_rougeL']:.3f} | | |")


if __name__ == "__main__":
    main()
