"""ROUGE of an output that still contains the prompt.

`generate` returns the prompt and what follows it. Decoded as a whole, the document is scored, too,
and the score says what the document shares with its reference, whatever the model adds.
"""

from pathlib import Path

from benchmarks.mistakes.setting import parse
from stages.lib.evaluation.prompts import prompts
from stages.lib.evaluation.rouge import Rouge
from stages.lib.evaluation.summarization import summarize
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import draw


def main() -> None:
    setting = parse("prompt_in_rouge", __doc__)
    params = setting.params
    rows = read_rows(Path("data/documents"))
    rows = draw(rows, params.summarize.examples, params.seed, "summarize.examples", params.summarize.order)
    loaded = setting.load()
    added = summarize(loaded, rows, params.summarize)
    asked = loaded.tokenizer.batch_decode(prompts(loaded, rows, params.summarize), skip_special_tokens=True)
    for mistaken in setting.each_way():
        scored = [prompt + text for prompt, text in zip(asked, added, strict=True)] if mistaken else added
        rouge = Rouge(keep_in_memory=True).compute(predictions=scored, references=rows["summary"].tolist())
        setting.show(mistaken, f"ROUGE-L {sum(rouge['rougeL']) / len(rows):.4f} of {len(rows)} documents")
        if mistaken:
            nothing = Rouge(keep_in_memory=True).compute(predictions=asked, references=rows["summary"].tolist())
            print(f"{'no model':9} {'as published':13} ROUGE-L {sum(nothing['rougeL']) / len(rows):.4f}, nothing added")


if __name__ == "__main__":
    main()
