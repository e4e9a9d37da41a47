"""The settings, hashes and versions behind a report's figures."""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Absent, Hub, Local, Pypi
    from stages.lib.plumbing.params import Params

WORK = (
    *("prune", "recover", "perplexity", "classify", "summarize"),
    *("compare", "sensitivity", "frontier", "harness", "statistics", "compute"),
)
"""The sections that say what is done, in the report's order."""
PACKAGES = ("torch", "transformers", "datasets", "evaluate", "rouge-score", "scikit-learn", "pandas", "numpy")


def provenance(params: "Params", base_sha256: str, mask_sha256: str) -> dict[str, str]:
    """The rows of the report's last table."""
    sources = {item: _pins(getattr(params, item)) for item in ("model", "distilled", "text", "reviews", "documents")}
    settings = {section: ", ".join(f"{key} {value!r}" for key, value in getattr(params, section)) for section in WORK}
    return {
        **sources,
        "base sha256": f"`{base_sha256}`",
        "mask sha256": f"`{mask_sha256}`",
        **settings,
        "seed": str(params.seed),
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _pins(source: "Pypi | Hub | Local | Absent") -> str:
    """The origin of an item, and its pins."""
    if source.source == "none":
        return source.reason
    if source.source == "local":
        return f"local {source.path}"
    if source.source == "pypi":
        name, digests = source.file, [source.sha256]
    else:
        name, digests = f"{source.repo} at {source.revision}", [*source.sha256.values()]
    return " ".join([source.source, name, *(f"sha256 `{digest[:12]}…`" for digest in digests)])
