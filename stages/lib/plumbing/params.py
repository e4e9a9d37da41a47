"""`params.yaml` as types: checked as a whole, unknown keys refused, before any work is done.

Every field's description says which values it takes; the error line for a wrong value quotes it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.items import Distilled, Documents, Model, Reviews, Section, Text, distinct
from stages.lib.plumbing.params_errors import explain
from stages.lib.pruning.methods import METHODS, method_named, resolve_scope
from stages.lib.recipes.choosing import pattern_of
from stages.lib.recovery.schedule import TRAINING_WINDOW
from stages.lib.shrinking.variants import NAMES, parse_variant

PARAMS = Path("params.yaml")
RESAMPLES_PER_COMPARISON = 40
"""From here on, the smallest sampled p-value, 2 / (resamples + 1), is below 0.05 after Holm's correction."""
PATTERN_TOLERANCE = 1e-4
"""The largest difference between `prune.sparsity` and the share that N:M prunes, since a third has no last digit."""

if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Literal[tuple(method.name for method in METHODS)]

_METHODS = ", ".join(method.name for method in METHODS)


class Compute(Section):
    """The one place for device and dtype."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="auto, cpu, cuda or mps")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="float32, bfloat16 or float16")
    threads: int = Field(ge=0, description="a whole number; 0 for as many as there are cores")


class Prune(Section):
    method: MethodName = Field(description=" or ".join(_METHODS.rsplit(", ", 1)))
    scope: str = Field(
        description="auto (the method's own), global, layer, row, or N:M: of each M consecutive weights N stay"
    )
    budget: Literal["uniform", "owl", "sensitivity", "curvature"] = Field(
        description="uniform, owl, sensitivity or curvature: how pruned weights are shared among blocks, or with "
        "curvature among matrices (scope layer or row)"
    )
    update: Literal["none", "outputs"] = Field(
        description="none, or outputs: the remaining weights of each matrix are set to what keeps its outputs closest"
    )
    shots: int = Field(
        ge=1, description="a whole number from 1: how often kfac and surgeon estimate the curvature and prune"
    )
    sparsity: float = Field(
        ge=0, lt=1, description="a number from 0 to below 1: the share of the prunable weights to set to zero"
    )
    calibration_tokens: int = Field(
        ge=1,
        description="a whole number of tokens from 1 (methods that read text, budgets but uniform, and update outputs)",
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
                raise ValueError(f"scope {scope} has only uniform")
            if budget == "curvature" and not method_named(info.data["method"]).reads_text:
                raise ValueError("curvature is only for methods that read text")
        return budget

    @field_validator("shots")
    @classmethod
    def _several_over_all(cls, shots: int, info: ValidationInfo) -> int:
        if shots > 1 and "method" in info.data and "scope" in info.data:
            scope = resolve_scope(info.data["method"], info.data["scope"])
            several = [method.name for method in METHODS if method.on_gradients]
            if info.data["method"] not in several or scope != "global":
                raise ValueError(f"more than 1 only for {' and '.join(several)}, in scope global")
        return shots

    @field_validator("sparsity")
    @classmethod
    def _patterns_have_one(cls, sparsity: float, info: ValidationInfo) -> float:
        pattern = pattern_of(info.data.get("scope", ""))
        if pattern and abs(sparsity - (1 - pattern[0] / pattern[1])) > PATTERN_TOLERANCE:
            raise ValueError(f"{info.data['scope']} prunes {1 - pattern[0] / pattern[1]:.6g} of them")
        return sparsity


class Recover(Section):
    steps: int = Field(ge=0, description="a whole number from 0 (off)")
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        description="auto (by the distance from the original, for distill) or a number above 0: the highest rate"
    )
    blocks_learning_rate: float = Field(gt=0, description="a number above 0: the peak of the schedule for blocks")
    tokens_per_step: int = Field(
        ge=2, description=f"a whole number of tokens from 2; above {TRAINING_WINDOW}, a multiple of {TRAINING_WINDOW}"
    )
    objective: Literal["distill", "blocks", "blocks+distill", "lm"] = Field(
        description="distill (towards the predictions of the original), blocks (each block towards the output of the "
        "original's), blocks+distill (one after the other, with all steps each) or lm (towards the text)"
    )
    weights: Literal["all", "blocks", "norms"] = Field(
        description="all, blocks (those of the blocks) or norms (those of one axis, norms and biases): what is trained"
    )

    @field_validator("objective")
    @classmethod
    def _has_a_distance(cls, objective: str, info: ValidationInfo) -> str:
        if objective == "lm" and info.data.get("learning_rate") == "auto":
            raise ValueError("lm needs a number as recover.learning_rate")
        return objective

    @field_validator("tokens_per_step")
    @classmethod
    def _whole_windows(cls, tokens: int) -> int:
        if tokens > TRAINING_WINDOW and tokens % TRAINING_WINDOW:
            raise ValueError(f"not a multiple of {TRAINING_WINDOW}")
        return tokens


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
    prompt: Literal["auto", "chat", "cue"] = Field(
        description="auto (chat if the model's tokenizer has a chat template, otherwise cue), chat or cue"
    )
    instruction: str = Field(
        description="a text with one {document} in it, which asks for the document's summary (prompt chat)"
    )
    cue: str = Field(
        min_length=1, description="the text that follows the document and asks for its summary (prompt cue)"
    )
    max_new_tokens: int = Field(ge=1, description="a whole number of tokens from 1")
    num_beams: int = Field(ge=1, description="a whole number from 1")
    no_repeat_ngram_size: int = Field(ge=0, description="a whole number from 0 (off)")
    batch_size: int = Field(ge=1, description="a whole number of documents from 1")

    @field_validator("instruction")
    @classmethod
    def _has_one_place(cls, instruction: str) -> str:
        if (found := instruction.count("{document}")) != 1:
            raise ValueError(f"{{document}} occurs {found} times")
        return instruction


def _distinct_variants(names: list[str]) -> list[str]:
    for name in names:
        parse_variant(name)
    return distinct(names)


class Compare(Section):
    variants: Annotated[list[str], AfterValidator(_distinct_variants)] = Field(
        description=f"a list of distinct names: {NAMES}"
    )
    calibration_tokens: int = Field(ge=2, description="a whole number of tokens from 2 (merged_n)")
    tied_head_sparsity: float = Field(ge=0, lt=1, description="a number from 0 to below 1 (pruned-tied-head)")


def _ascending(sparsities: list[float]) -> list[float]:
    if sparsities != sorted(set(sparsities)):
        raise ValueError("not in ascending order, or one is repeated")
    return sparsities


Sparsities: TypeAlias = Annotated[
    list[Annotated[float, Field(ge=0, lt=1)]],
    Field(min_length=1, description="a list of numbers from 0 to below 1, in ascending order"),
    AfterValidator(_ascending),
]


class Sensitivity(Section):
    sparsities: Sparsities
    alone: float = Field(gt=0, lt=1, description="a number above 0 and below 1: the sparsity of each part alone")
    tokens: int = Field(ge=2, description="a whole number of tokens from 2: the first ones of the scored text")


class Frontier(Section):
    methods: Annotated[list[MethodName], AfterValidator(distinct)] = Field(
        description=f"a list of {_METHODS}, each once; empty for none"
    )
    sparsities: Sparsities
    steps: int = Field(ge=0, description="a whole number from 0 (no recovery)")


def _original_first(models: list[str]) -> list[str]:
    if models and models[0] != "original":
        raise ValueError("the other models are compared with the original")
    return distinct(models)


class Harness(Section):
    models: Annotated[list[str], AfterValidator(_original_first)] = Field(
        description="a list of distinct names: original first, then any of pruned and compare.variants; empty for none"
    )
    tasks: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]], AfterValidator(distinct)
    ] = Field(
        description="a list of distinct names of tasks, of letters, digits and _ . -, at least one if there are models"
    )
    path: str = Field(min_length=1, description="the path of a folder of your own task files; data/none for none")
    shots: int = Field(ge=0, description="a whole number from 0: the solved examples before each document")
    limit: int = Field(ge=0, description="a whole number from 0: the documents per task, 0 for all")
    batch_size: int = Field(ge=1, description="a whole number of sequences from 1")

    @field_validator("tasks")
    @classmethod
    def _models_have_tasks(cls, tasks: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("models") and not tasks:
            raise ValueError("there are models and no task")
        return tasks


class Statistics(Section):
    resamples: int = Field(
        ge=100,
        description="a whole number from 100, at least 40 per model other than the original: resamples per figure",
    )


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
    harness: Harness
    statistics: Statistics


def load_params(path: Path = PARAMS) -> Params:
    """Read and check the whole file. Raises ParamsError, which names key, value, and the values that the key takes."""
    return parse_params(read_params(path), path)


def read_params(path: Path) -> str:
    """The file's text, line ends as they are. Raises ParamsError if there is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the top of the repository") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None


def parse_params(text: str, path: Path) -> Params:
    """Check the text of a file, which error lines name. Raises as `load_params` does."""
    try:
        # YAML 1.2 as DVC reads it: 2e-5 is a number, and a key given twice is an error.
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, content, Params)}") from None
    # Read from the content, since a test checks which sections of `params` a stage reads against dvc.yaml.
    if "distilled" in content["compare"]["variants"] and content["distilled"]["source"] == "none":
        raise ParamsError(f"{path}: compare.variants: got 'distilled', but distilled.source is none; name a checkpoint")
    known = ["original", "pruned", *content["compare"]["variants"]]
    for model in content["harness"]["models"]:
        if model not in known:
            raise ParamsError(f"{path}: harness.models: got {model!r}, takes {', '.join(known)}")
    comparisons, resamples = 1 + len(content["compare"]["variants"]), content["statistics"]["resamples"]
    least = RESAMPLES_PER_COMPARISON * comparisons
    if resamples < least:
        raise ParamsError(
            f"{path}: statistics.resamples: got {resamples}, takes at least {least} for {comparisons} comparisons: "
            "with fewer, no sampled p-value is below 0.05 after Holm's correction"
        )
    if content["sensitivity"]["tokens"] < content["perplexity"]["context"]:
        raise ParamsError(
            f"{path}: sensitivity.tokens: got {content['sensitivity']['tokens']}, takes at least "
            f"perplexity.context, which is {content['perplexity']['context']}"
        )
    return params
