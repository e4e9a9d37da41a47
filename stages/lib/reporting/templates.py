"""The templates of the report, its page and the model card."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent


def rendered(name: str, **values: object) -> str:
    """A template of this folder with its values; in HTML, text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "markdown": _markdown}
    return environment.get_template(f"{name}.j2").render(values)


def _code(text: str) -> Markup:
    """Text between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _markdown(text: str) -> str:
    """Text for a table or a list: in one line, without the signs that would end a cell or start emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
