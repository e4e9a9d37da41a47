"""The sections of `params.yaml` that say where the model and the data come from.

A field that may be left out has no default here: the code that reads the data decides.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from stages.lib.files.places import NO_FILE

UNUSED_PATH = NO_FILE.as_posix()
"""The value of `path` for an item that is not local."""


class Section(BaseModel):
    """A section of `params.yaml`; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _relative_inside(path: str) -> str:
    """Paths from params never leave the folder that they are joined to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError("not a relative path")
    return path


def distinct(names: list[str]) -> list[str]:
    """The names themselves. Raises ValueError if one is repeated."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is repeated")
    return names


Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="64 hexadecimal digits, lower case")]
InnerPath: TypeAlias = Annotated[
    str, AfterValidator(_relative_inside), Field(description="a relative path, with / and without ..")
]


class Pypi(Section):
    """A file from a package on the index that pip is configured to use."""

    source: Literal["pypi"]
    path: Literal["data/none"] = Field(description=f"{UNUSED_PATH}, since nothing local is read")
    file: str = Field(
        pattern=r"^[A-Za-z0-9._+-]+(\.whl|\.tar\.gz)$",
        description="the file name of one wheel or sdist (.whl, .tar.gz) of a package",
    )
    sha256: Sha256
    member: list[InnerPath] = Field(
        description="a list of paths, each inside the file before it; empty for the file itself"
    )


class Hub(Section):
    """Files of one repository on the Hugging Face hub, at one commit."""

    source: Literal["hub"]
    path: Literal["data/none"] = Field(description=f"{UNUSED_PATH}, since nothing local is read")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: str = Field(pattern="^[0-9a-f]{40}$", description="a commit, 40 hexadecimal digits")
    sha256: dict[InnerPath, Sha256] = Field(description="a map from file to its SHA-256")


class Local(Section):
    """A file or folder of the user's own; DVC hashes its content."""

    source: Literal["local"]
    path: str = Field(min_length=1, description="the path of a file or folder of your own")

    @field_validator("path")
    @classmethod
    def _names_something(cls, path: str) -> str:
        if path == UNUSED_PATH:
            raise ValueError("this path is for items that are not local")
        return path


class PypiModel(Pypi):
    """A GGUF file inside a package."""

    member_sha256: Sha256


Model: TypeAlias = Annotated[PypiModel | Hub | Local, Field(discriminator="source")]


class Absent(Section):
    """There is no such checkpoint; the report says why."""

    source: Literal["none"]
    path: Literal["data/none"] = Field(description=f"{UNUSED_PATH}, since nothing local is read")
    reason: str = Field(min_length=1, description="why there is none, in a sentence for the report")


Distilled: TypeAlias = Annotated[Absent | Hub | Local, Field(discriminator="source")]


Split: TypeAlias = Literal["train", "test"]


class HubFiles(Hub):
    files: dict[Split, list[InnerPath]] = Field(min_length=1, description="lists of files under train, test or both")


class TextColumns(Section):
    text: str = Field(description="the name of a column")


class ReviewColumns(TextColumns):
    label: str = Field(description="the name of a column")


class DocumentColumns(TextColumns):
    summary: str = Field(description="the name of a column")


class _Shares(Section):
    test_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="the share of the documents that is scored, above 0 and at most 1 (unused if the files are split)",
    )


class _TextFormat(_Shares):
    format: Literal["plain", "hutto-editorials", "table", "wikitext"] | None = Field(
        default=None, description="plain (the default), hutto-editorials, table or wikitext"
    )
    columns: TextColumns | None = Field(default=None, description="text: the name of a column")


class _ReviewFormat(_Shares):
    test_share: float | None = Field(
        default=None, gt=0, lt=1, description=_Shares.model_fields["test_share"].description
    )
    format: Literal["hutto-reviews", "table"] | None = Field(
        default=None, description="hutto-reviews or table (the default)"
    )
    columns: ReviewColumns | None = Field(default=None, description="text and label: the names of columns")
    classes: Annotated[list[str], AfterValidator(distinct)] | None = Field(
        default=None, min_length=2, description="the names of two or more classes, in the order of their numbers"
    )


class _DocumentFormat(Section):
    format: Literal["docstrings", "table"] | None = Field(default=None, description="docstrings or table (the default)")
    columns: DocumentColumns | None = Field(default=None, description="text and summary: the names of columns")
    min_words: int | None = Field(
        default=None, ge=1, description="a whole number from 1: shorter documents are left out"
    )


class PypiText(_TextFormat, Pypi): ...


class HubText(_TextFormat, HubFiles): ...


class LocalText(_TextFormat, Local): ...


class PypiReviews(_ReviewFormat, Pypi): ...


class HubReviews(_ReviewFormat, HubFiles): ...


class LocalReviews(_ReviewFormat, Local): ...


class PypiDocuments(_DocumentFormat, Pypi): ...


class HubDocuments(_DocumentFormat, HubFiles): ...


class LocalDocuments(_DocumentFormat, Local): ...


Text: TypeAlias = Annotated[PypiText | HubText | LocalText, Field(discriminator="source")]
Reviews: TypeAlias = Annotated[PypiReviews | HubReviews | LocalReviews, Field(discriminator="source")]
Documents: TypeAlias = Annotated[PypiDocuments | HubDocuments | LocalDocuments, Field(discriminator="source")]
