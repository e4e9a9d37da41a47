"""`params.yaml` as types: checked as a whole, unknown keys refused, before any work is done.

Every field's description says what it takes; the error line for a wrong value quotes it.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.mistakes import explain
from stages.lib.pruning.scopes import PruningMethod, pattern_of, resolve_scope
from stages.lib.shrinking.variants import NAMES, parse_variant

PARAMS = Path("params.yaml")
PATTERN_TOLERANCE = 1e-4
"""How far `prune.sparsity` may be from what N:M prunes: a third has no last digit."""
TRAINING_WINDOW = 512
"""The most tokens that recovery reads together; a larger step takes several windows."""
UNUSED_PATH = "data/none"
"""What `path` holds where nothing local is read: an empty file, so that DVC has something to watch."""


def _relative_inside(path: str) -> str:
    """Paths from params never leave the folder that they are joined to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError("not a relative path")
    return path


Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="64 hexadecimal digits, lower case")]
InnerPath: TypeAlias = Annotated[
    str, AfterValidator(_relative_inside), Field(description="a relative path, with / and without ..")
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# Sources: where an item comes from.


class Pypi(Section):
    """A file out of a package on the index that pip is set up to use."""

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
            raise ValueError("that one is for items that are not local")
        return path


# Items: what is read, and from where.


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
    test_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="the share of the documents that is scored, above 0 and at most 1 (unused where files are split)",
    )


class _TextFormat(_Shares):
    format: Literal["plain", "hutto-editorials", "table"] = Field(
        default="plain", description="plain, hutto-editorials or table"
    )
    columns: TextColumns = Field(default=TextColumns(text="text"), description="text: the name of a column")


class _ReviewFormat(_Shares):
    test_share: float = Field(default=0.5, gt=0, lt=1, description=_Shares.model_fields["test_share"].description)
    format: Literal["hutto-reviews", "table"] = Field(default="table", description="hutto-reviews or table")
    columns: ReviewColumns = Field(
        default=ReviewColumns(text="text", label="label"), description="text and label: the names of columns"
    )
    classes: list[str] = Field(
        default=["negative", "positive"],
        min_length=2,
        description="the names of two or more classes, in the order of their numbers",
    )


class _DocumentFormat(Section):
    format: Literal["docstrings", "table"] = Field(default="table", description="docstrings or table")
    columns: DocumentColumns = Field(
        default=DocumentColumns(text="text", summary="summary"),
        description="text and summary: the names of columns",
    )
    min_words: int = Field(default=1, ge=1, description="a whole number from 1: shorter documents are left out")


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


# Work: what is done with them.


class Compute(Section):
    """The one place for device and dtype."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="auto, cpu, cuda or mps")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="float32, bfloat16 or float16")
    threads: int = Field(ge=0, description="a whole number; 0 for as many as there are cores")


class Prune(Section):
    method: PruningMethod = Field(description="magnitude, wanda, sparsegpt or random")
    scope: str = Field(
        description="auto (the method's own), global, layer, row, or N:M, where of M weights beside each other N stay"
    )
    budget: Literal["uniform", "owl", "sensitivity"] = Field(
        description="uniform, owl or sensitivity: how blocks share the weights to prune (scope layer or row)"
    )
    sparsity: float = Field(
        ge=0, lt=1, description="a number from 0 to below 1: the share of the prunable weights to set to zero"
    )
    calibration_tokens: int = Field(
        ge=1, description="a whole number of tokens from 1 (wanda, sparsegpt, and budgets that are not uniform)"
    )

    @field_validator("scope")
    @classmethod
    def _method_has_it(cls, scope: str, info: ValidationInfo) -> str:
        if "method" in info.data:
            resolve_scope(info.data["method"], scope)
        return scope

    @field_validator("budget")
    @classmethod
    def _blocks_have_budgets(cls, budget: str, info: ValidationInfo) -> str:
        if budget != "uniform" and "method" in info.data and "scope" in info.data:
            scope = resolve_scope(info.data["method"], info.data["scope"])
            if scope not in ("layer", "row"):
                raise ValueError(f"with scope {scope} it is uniform")
        return budget

    @field_validator("sparsity")
    @classmethod
    def _patterns_have_one(cls, sparsity: float, info: ValidationInfo) -> float:
        pattern = pattern_of(info.data.get("scope", ""))
        if pattern and abs(sparsity - (1 - pattern[0] / pattern[1])) > PATTERN_TOLERANCE:
            raise ValueError(f"{info.data['scope']} prunes {1 - pattern[0] / pattern[1]:.6g} of them")
        return sparsity

    def pruned_of(self, prunable: int) -> int:
        """How many of the prunable weights go."""
        pattern = pattern_of(self.scope)
        return prunable * (pattern[1] - pattern[0]) // pattern[1] if pattern else round(self.sparsity * prunable)


class Recover(Section):
    steps: int = Field(ge=0, description="a whole number from 0 (off)")
    learning_rate: float = Field(gt=0, description="a number above 0: the highest of the schedule")
    tokens_per_step: int = Field(
        ge=2, description=f"a whole number of tokens from 2; above {TRAINING_WINDOW}, a multiple of {TRAINING_WINDOW}"
    )
    objective: Literal["distill", "lm"] = Field(
        description="distill (towards what the original predicts) or lm (towards the text)"
    )

    @field_validator("tokens_per_step")
    @classmethod
    def _whole_windows(cls, tokens: int) -> int:
        if tokens > TRAINING_WINDOW and tokens % TRAINING_WINDOW:
            raise ValueError(f"not a multiple of {TRAINING_WINDOW}")
        return tokens

    @property
    def window(self) -> int:
        """Tokens in a window of training text."""
        return min(TRAINING_WINDOW, self.tokens_per_step)

    @property
    def windows_per_step(self) -> int:
        return self.tokens_per_step // self.window


class Perplexity(Section):
    context: int = Field(ge=2, description="a whole number of tokens from 2 to the model's context length")
    stride: int = Field(ge=1, description="a whole number of tokens from 1 to perplexity.context")
    batch_size: int = Field(ge=1, description="a whole number of windows from 1")

    @field_validator("stride")
    @classmethod
    def _windows_touch(cls, stride: int, info: ValidationInfo) -> int:
        if stride > info.data.get("context", stride):
            raise ValueError("a larger stride would skip tokens")
        return stride


class Classify(Section):
    mode: Literal["head", "all"] = Field(description="head (frozen body) or all (fine-tuned)")
    train_examples: int = Field(ge=2, description="a whole number from 2")
    test_examples: int = Field(ge=1, description="a whole number from 1")
    max_tokens: int = Field(ge=1, description="a whole number of tokens from 1")
    batch_size: int = Field(ge=1, description="a whole number of examples from 1")
    regularization: float = Field(
        gt=0, description="a number above 0: C of the logistic regression, smaller is stronger (mode head)"
    )
    learning_rate: float = Field(gt=0, description="a number above 0 (mode all)")
    epochs: int = Field(ge=1, description="a whole number from 1 (mode all)")


class Summarize(Section):
    examples: int = Field(ge=1, description="a whole number from 1")
    order: Literal["shuffled", "first"] = Field(description="shuffled (by the seed) or first")
    cue: str = Field(min_length=1, description="the text that follows the document and asks for its summary")
    max_new_tokens: int = Field(ge=1, description="a whole number of tokens from 1")
    num_beams: int = Field(ge=1, description="a whole number from 1")
    no_repeat_ngram_size: int = Field(ge=0, description="a whole number from 0 (off)")
    batch_size: int = Field(ge=1, description="a whole number of documents from 1")


def _distinct(names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
    return names


def _distinct_variants(names: list[str]) -> list[str]:
    for name in names:
        parse_variant(name)
    return _distinct(names)


class Compare(Section):
    variants: Annotated[list[str], AfterValidator(_distinct_variants)] = Field(
        description=f"a list of distinct names: {NAMES}"
    )
    calibration_tokens: int = Field(ge=2, description="a whole number of tokens from 2 (merged_n)")
    tied_head_sparsity: float = Field(ge=0, lt=1, description="a number from 0 to below 1 (pruned-tied-head)")


def _ascending(sparsities: list[float]) -> list[float]:
    if sparsities != sorted(set(sparsities)):
        raise ValueError("not in ascending order, or one is there twice")
    return sparsities


class Sensitivity(Section):
    sparsities: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1), AfterValidator(_ascending)
    ] = Field(description="a list of numbers from 0 to below 1, in ascending order")
    alone: float = Field(gt=0, lt=1, description="a number above 0 and below 1: the sparsity of each part alone")
    tokens: int = Field(ge=2, description="a whole number of tokens from 2: the first ones of the scored text")


class Frontier(Section):
    methods: Annotated[list[PruningMethod], AfterValidator(_distinct)] = Field(
        description="a list of magnitude, wanda, sparsegpt, random, each once; empty for none"
    )
    sparsities: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1), AfterValidator(_ascending)
    ] = Field(description="a list of numbers from 0 to below 1, in ascending order")
    steps: int = Field(ge=0, description="a whole number from 0 (no recovery)")


class Statistics(Section):
    resamples: int = Field(ge=100, description="a whole number from 100: bootstrap resamples behind each interval")


class Params(Section):
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
    compute: Compute
    model: Model
    text: Text
    reviews: Reviews
    documents: Documents
    distilled: Distilled
    prune: Prune
    recover: Recover
    perplexity: Perplexity
    classify: Classify
    summarize: Summarize
    compare: Compare
    sensitivity: Sensitivity
    frontier: Frontier
    statistics: Statistics


def load_params(path: Path = PARAMS) -> Params:
    """Read and check the whole file.

    Raises ParamsError, with one line that names the key, what it got and what it takes.
    """
    try:
        # YAML 1.2 as DVC reads it: 2e-5 is a number, and a key given twice is an error.
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the top of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, content, Params)}") from None
    # Asked of the content: the tests hold what a stage reads of `params` against what dvc.yaml lists for it.
    if "distilled" in content["compare"]["variants"] and content["distilled"]["source"] == "none":
        raise ParamsError(f"{path}: compare.variants: got 'distilled', and distilled.source is none; give a checkpoint")
    return params
