"""Text for calibration and training: documents that are not scored."""

from pathlib import Path

from stages.lib.corpora.rows import read_rows
from stages.lib.files.errors import UserError

LONG = 200
"""Equal documents of at least this many characters are taken for the same one; short headings may repeat."""


def unscored_documents(folder: Path) -> list[str]:
    """The documents of a text's train split. Raises UserError if there are none, or one of them is scored as well."""
    documents: list[str] = read_rows(folder, "train")["text"].tolist()
    scored = {text for text in read_rows(folder, "test")["text"] if len(text) >= LONG}
    for text in documents:
        if text in scored:
            raise UserError(
                f"the text has a document under train that is scored as well ({text[:40]!r}…); "
                "remove it from one of them, or name other files in params.yaml"
            )
    return documents
