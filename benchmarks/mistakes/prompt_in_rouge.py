"""ROUGE of an output that still contains the document.

`generate` returns the prompt and what follows it. Decoded as a whole, the document is scored, too,
and the score says what the document shares with its reference, whatever the model adds.
"""

from pathlib import Path

from benchmarks.mistakes.setting import parse
from stages.lib.evaluation.rouge import Rouge
from stages.lib.evaluation.summarization import summarize
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import draw


def main() -> None:
    setting = parse("prompt_in_rouge", __doc__)
    settings = setting.params.summarize.model_copy(update={"prompt": "cue"})  # as the published study asked
    rows = read_rows(Path("data/documents"))
    rows = draw(rows, settings.examples, setting.params.seed, "summarize.examples", settings.order)
    added = summarize(setting.load(), rows, settings)
    asked = [text + settings.cue for text in rows["text"]]
    for mistaken in setting.each_way():
        scored = [prompt + text for prompt, text in zip(asked, added, strict=True)] if mistaken else added
        rouge = Rouge(keep_in_memory=True).compute(predictions=scored, references=rows["summary"].tolist())
        setting.show(mistaken, f"ROUGE-L {sum(rouge['rougeL']) / len(rows):.4f} of {len(rows)} documents")
        if mistaken:
            nothing = Rouge(keep_in_memory=True).compute(predictions=asked, references=rows["summary"].tolist())
            print(f"{'no model':9} {'as published':13} ROUGE-L {sum(nothing['rougeL']) / len(rows):.4f}, nothing added")


if __name__ == "__main__":
    main()
