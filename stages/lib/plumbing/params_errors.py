"""One line for the first mistake in `params.yaml`: the key, its value, and the values that it takes."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

Schema: TypeAlias = type[BaseModel]
Location: TypeAlias = tuple[int | str, ...]


def explain(error: ValidationError, content: Any, schema: Schema) -> str:
    """Describe the most helpful mistake in content that was validated against a schema, and count the others."""
    errors = error.errors(include_url=False)
    # A misspelt key is both unknown and missing: the unknown one is more helpful.
    first = min(errors, key=lambda item: item["type"] != "extra_forbidden")
    key, got, owner = _locate(first["loc"], content, schema)
    mistaken = {_locate(each["loc"], content, schema)[0] for each in errors}
    more = f" (and {len(mistaken) - 1} more)" if len(mistaken) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(owner.model_fields) if owner else ""
        return f"{key}: unknown key with value {got!r}, takes only {known}{more}"
    if first["type"].startswith("union_tag"):
        found = got.get("source", "nothing") if isinstance(got, Mapping) else got
        return f"{key}.source: got {found!r}, takes {', '.join(_variants(schema, key))}{more}"
    takes = _takes(first["loc"], owner, schema)
    if first["type"] == "value_error":
        takes = f"{takes} ({first['ctx']['error']})"
    if first["type"] == "missing":
        return f"{key}: missing, takes {takes}{more}"
    return f"{key}: got {got!r}, takes {takes}{more}"


def _locate(location: Location, content: Any, schema: Schema) -> tuple[str, Any, Schema | None]:
    """The dotted key, the value found there, and the model that the key belongs to."""
    owner: Schema | None = schema
    keys: list[str] = []
    got = content
    for depth, part in enumerate(location):
        variants = _variants(schema, str(location[0])) if depth == 1 else {}
        if part in variants and not (isinstance(got, Mapping) and part in got):
            owner = variants[str(part)]  # pydantic's tag of the union, not a key
            continue
        if keys and not isinstance(got, Mapping | list):
            break  # what follows is a type that the value might have had
        keys.append(str(part))
        if isinstance(got, Mapping):
            got = got.get(part)
        elif isinstance(got, list) and isinstance(part, int):
            got = got[part]
        if depth < len(location) - 1 and owner is not None and part in owner.model_fields:
            inner = owner.model_fields[str(part)].annotation
            owner = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else owner
    return ".".join(keys) or "the file", got, owner


def _variants(schema: Schema, item: str) -> dict[str, Schema]:
    """The models of an item that comes from several kinds of source, by its `source`."""
    field = schema.model_fields.get(item)
    if field is None or field.discriminator != "source":
        return {}
    models: tuple[Schema, ...] = getattr(field.annotation, "__args__", ())
    return {tag: model for model in models for tag in getattr(model.model_fields["source"].annotation, "__args__", ())}


def _takes(location: Location, owner: Schema | None, schema: Schema) -> str:
    """The values that the innermost documented field of a location takes."""
    for part in reversed(location):
        field = owner.model_fields.get(str(part)) if owner else None
        if field is None:
            continue
        if field.description:
            return field.description
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            return f"a section with the keys {', '.join(field.annotation.model_fields)}"
        return f"a section with the key source ({', '.join(_variants(schema, str(part)))}) and its own keys"
    return f"a map with the keys {', '.join(schema.model_fields)}"
