"""Prompts for summaries: a document and a cue, or a user's turn in the tokenizer's chat template."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.lib.files.errors import UserError, out_of_memory, reason_of
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import tokenize_each

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Summarize

_QUESTION, _REPLY = "How many?", "Twenty-seven."
_TODAY = datetime(2024, 7, 26)  # the date that Llama 3.1's template has where it is not told another
_DIRECTIVES = [*"aAbBcdDeFHIjmMpRSTuUVwWxXyYzZ", *("-d", "-e", "-H", "-I", "-j", "-m", "-M", "-S"), "%"]
# Functions cannot be passed to a template, but a macro takes precedence over a function of the same name. The line end
# is the macro's, which Jinja drops, so that the template still begins a line.
_SAME_DAY = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f"|replace('%{each}', '{_TODAY.strftime(f'%{each}')}')" for each in _DIRECTIVES)
    + " -}}{%- endmacro %}\n"
)


def prompts(loaded: Loaded, documents: pd.DataFrame, settings: "Summarize") -> list[list[int]]:
    """Each document's prompt as tokens, the document truncated at its end so that prompt and summary fit the context.

    Columns: document, text. Raises UserError if no room is left for a document, and if a chat template fails.
    """
    if not uses_chat(loaded, settings):
        return _with_cue(loaded, documents["text"].tolist(), settings)
    return [
        _chat(loaded, settings, str(name), text)
        for name, text in zip(documents["document"], documents["text"], strict=True)
    ]


def uses_chat(loaded: Loaded, settings: "Summarize") -> bool:
    """Whether prompts are chats, and not document and cue. Raises UserError if they cannot be as the settings say."""
    template = loaded.tokenizer.chat_template
    has_template = bool(template.get("default") if isinstance(template, Mapping) else template)
    if settings.prompt == "chat" and not has_template:
        raise UserError(
            "summarize.prompt is chat, and the model's tokenizer has no chat template; set it to auto or cue in "
            "params.yaml"
        )
    return has_template and settings.prompt != "cue"


def end_tokens(loaded: Loaded, settings: "Summarize") -> list[int]:
    """The tokens that end a summary: the model's end of text and, in a chat, those that end a reply.

    Raises UserError if the chat template fails.
    """
    tokenizer, end = loaded.tokenizer, loaded.model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id] if end is None else end if isinstance(end, list) else [end]
    if uses_chat(loaded, settings):
        ends = [*ends, tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return list(dict.fromkeys(token for token in ends if token is not None))


def end_of_turn(tokenizer: Any) -> int | None:
    """The special token that a chat template puts after a reply; None if it puts only text there.

    Raises UserError if the template fails, or does not contain the turns.
    """
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _REPLY}]
    text = _render(tokenizer, turns, "a question and a reply", "set", tokenize=False)
    if _QUESTION not in text or _REPLY not in text:
        raise UserError(
            "the chat template leaves out the text of a question or a reply; set summarize.prompt to cue in params.yaml"
        )
    after = tokenizer(text.rpartition(_REPLY)[2], add_special_tokens=False, verbose=False)["input_ids"]
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return next((token for token in after if token in special), None)


def _with_cue(loaded: Loaded, documents: Sequence[str], settings: "Summarize") -> list[list[int]]:
    cue = loaded.tokenizer(settings.cue, add_special_tokens=False)["input_ids"]
    room, first = loaded.context_length - len(cue) - settings.max_new_tokens, len(loaded.first_tokens)
    if room <= first:
        special = "special tokens, " if first else ""
        raise UserError(
            f"{special}cue and summarize.max_new_tokens take {first + len(cue) + settings.max_new_tokens} tokens, "
            f"the model {loaded.context_length}; shorten summarize.cue, or lower summarize.max_new_tokens in "
            "params.yaml"
        )
    return [tokens + cue for tokens in tokenize_each(loaded.tokenizer, documents, room)]


def _chat(loaded: Loaded, settings: "Summarize", name: str, document: str) -> list[int]:
    """The prompt of one document, with as many of its first tokens as fit.

    Those tokens are text again in the template, where they may become others, so each cut is rendered and counted.
    """
    ask = partial(_ask, loaded.tokenizer, settings.instruction, name)
    room, tokens = loaded.context_length - settings.max_new_tokens, ask(document)
    if len(tokens) <= room:
        return tokens
    encoded = loaded.tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"]]
    kept = len(ends)
    while (excess := len(tokens) - room) > 0:
        if excess >= kept:
            raise UserError(
                "chat template, summarize.instruction and summarize.max_new_tokens take "
                f"{len(tokens) - kept + settings.max_new_tokens} tokens, the model {loaded.context_length}; shorten "
                "summarize.instruction, or lower summarize.max_new_tokens in params.yaml"
            )
        kept -= excess
        tokens = ask(document[: ends[kept - 1]])
    return tokens


def _ask(tokenizer: Any, instruction: str, name: str, document: str) -> list[int]:
    turns = [{"role": "user", "content": instruction.replace("{document}", document)}]
    tokens: list[int] = _render(
        tokenizer,
        turns,
        f"document {name!r}",
        "remove the document, or set",
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=True,  # a document that spells the end of a turn does not end it
        tokenizer_kwargs={"verbose": False},
    )
    return tokens


def _render(tokenizer: Any, turns: list[dict[str, str]], which: str, remedy: str, **how: Any) -> Any:
    template = tokenizer.get_chat_template()
    try:
        return tokenizer.apply_chat_template(
            turns,
            chat_template=_SAME_DAY + template if "strftime_now" in template else template,
            enable_thinking=False,
            **how,
        )
    except Exception as error:  # a template is a program, which may fail in any way
        if out_of_memory(error):
            raise
        raise UserError(
            f"the chat template fails on {which} ({reason_of(error)}); {remedy} summarize.prompt to cue in params.yaml"
        ) from None
