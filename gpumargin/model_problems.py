"""What is wrong with a model file, in words: the key, the value that stands there, and what may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpumargin.errors import suggestion
from gpumargin.schema import TABLES

if TYPE_CHECKING:
    from gpumargin.modelfile import Provenance

_LONGEST = 60  # characters of a value that are shown
_OWN_WORDS = {"value_error", "assertion_error"}
_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_UPPER = {"less_than", "less_than_equal"}
_WORDS = {"number": "a number", "string": "a text", "boolean": "true or false", "integer": "a whole number"}
Schema = Mapping[str, Any]
_Path = tuple[str, ...]


def problems(errors: Sequence[Any], raw: Mapping[str, Any], schema: Schema) -> list[str]:
    """Lines such as `kinds.0: must be one of 'option', 'future', found 'swap'`, one for each place of the file.

    Args:
      errors: what pydantic found (`ValidationError.errors()`).
      raw: the file's contents.
      schema: its JSON schema.
    """
    placed = [(_path(error, raw), error) for error in errors]
    told = [(path, error) for path, error in placed if not _is_beside(path, error, placed)]
    return list(dict.fromkeys(_line(path, error, raw, schema) for path, error in told))


def _is_beside(path: _Path, error: Any, others: Sequence[tuple[_Path, Any]]) -> bool:
    """Whether an error only says that the value is not of a form which, by another error, nobody meant."""
    deeper = any(len(other) > len(path) and other[: len(path)] == path for other, _ in others)
    precise = any(other == path and e["type"] in _BOUNDS for other, e in others)
    return bool(path) and (deeper or (precise and error["type"] not in _BOUNDS))


def _path(error: Mapping[str, Any], raw: object) -> _Path:
    """Keys that stand in the file; names of alternatives of the schema are no keys."""
    path: list[str] = []
    value: Any = raw
    for part in error["loc"]:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif part == "[key]" or error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    return (*path, "kind") if error["type"].startswith("union_tag") and "discriminator" in error["ctx"] else tuple(path)


def _line(path: _Path, error: Mapping[str, Any], raw: Mapping[str, Any], schema: Schema) -> str:
    text = _text(path, error, raw, schema)
    return f"{'.'.join(path)}: {text}" if path else text


def _text(path: _Path, error: Mapping[str, Any], raw: Mapping[str, Any], schema: Schema) -> str:
    kind, found = error["type"], _shown(error["input"])
    if kind in _OWN_WORDS:
        return str(error["ctx"]["error"])
    if kind == "missing":
        return f"is missing: {_expected(_nodes(path, raw, schema), schema)}"
    if kind == "extra_forbidden":
        return _unknown_key(path, raw, schema)
    if kind == "union_tag_invalid":
        return _not_among(error["ctx"]["tag"], error["ctx"]["expected_tags"].replace("'", "").split(", "))
    if kind == "union_tag_not_found":
        return f"is missing: one of {', '.join(_kinds(path[:-1], raw, schema))}"
    if kind in _BOUNDS:
        (bound,) = error["ctx"].values()
        return f"must be {_BOUNDS[kind]} {bound:g}{_hint(path, kind, raw, schema)}, found {found}"
    if kind == "string_pattern_mismatch":
        return f"must match {error['ctx']['pattern']} (letters, digits, no spaces), found {found}"
    if kind == "finite_number":
        return f"must be a finite number, found {found}"
    return f"must be {_expected(_nodes(path, raw, schema), schema)}, found {found}"


def _hint(path: _Path, kind: str, raw: Mapping[str, Any], schema: Schema) -> str:
    """How a share is written, where somebody may have written per cent."""
    nodes = [node for end in (path, path[:-1]) for node in _nodes(end, raw, schema)]
    said = [node["description"] for node in nodes if "description" in node and "properties" not in node]
    if said:
        return f" ({said[0]})"
    return " (a decimal: 30 % is 0.3)" if kind in _UPPER else ""


def _unknown_key(path: _Path, raw: Mapping[str, Any], schema: Schema) -> str:
    known = sorted({key for node in _nodes(path[:-1], raw, schema) for key in node.get("properties", {})})
    return f"unknown key; known here: {', '.join(known)}{suggestion(path[-1], known)}"


def _not_among(word: str, known: Sequence[str]) -> str:
    return f"must be one of {', '.join(map(repr, known))}, found {word!r}{suggestion(word, known)}"


def _shown(value: Any) -> str:
    """A value as TOML writes it, a long one cut."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, (str, int, float, list, dict, tuple)) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _alternatives(node: Schema, root: Schema, kind: object = None) -> Iterator[Schema]:
    """The plain forms behind a node of the schema; of several kinds that of `kind`, if it is one."""
    if "$ref" in node:
        yield from _alternatives(root["$defs"][node["$ref"].rsplit("/", 1)[1]], root, kind)
        return
    choices = node.get("anyOf") or node.get("oneOf")
    if choices is None:
        yield node
        return
    mapping = node.get("discriminator", {}).get("mapping", {})
    for choice in [{"$ref": mapping[kind]}] if kind in mapping else choices:
        yield from _alternatives(choice, root, kind)
    if "description" in node:
        yield {"description": node["description"]}


def _unfolded(path: _Path, raw: Mapping[str, Any], schema: Schema) -> list[Schema]:
    """Nodes of the schema that describe a place of the file, references and alternatives not yet followed."""
    nodes: list[Schema] = [schema]
    for depth, key in enumerate(path):
        value = _at(raw, path[:depth])
        forms = [form for node in nodes for form in _alternatives(node, schema, _kind(value))]
        children = _members if isinstance(value, Mapping) else _items
        nodes = [child for form in forms for child in children(form, key)]
    return nodes


def _members(form: Schema, key: str) -> list[Schema]:
    """Nodes of a table's entry."""
    if key in form.get("properties", {}):
        return [form["properties"][key]]
    inner = form.get("additionalProperties")
    return [*([inner] if isinstance(inner, Mapping) else []), *form.get("patternProperties", {}).values()]


def _items(form: Schema, key: str) -> list[Schema]:
    """Nodes of a list's entry."""
    columns = form.get("prefixItems", [])
    if key.isdigit() and int(key) < len(columns):
        return [columns[int(key)]]
    return [form["items"]] if "items" in form else []


def _kind(value: object) -> object:
    return value.get("kind") if isinstance(value, Mapping) else None


def _kinds(path: _Path, raw: Mapping[str, Any], schema: Schema) -> list[str]:
    return [kind for node in _unfolded(path, raw, schema) for kind in node.get("discriminator", {}).get("mapping", {})]


def _nodes(path: _Path, raw: Mapping[str, Any], schema: Schema) -> list[Schema]:
    kind = _kind(_at(raw, path))
    return [form for node in _unfolded(path, raw, schema) for form in _alternatives(node, schema, kind)]


def _expected(nodes: Sequence[Schema], schema: Schema) -> str:
    words = [word for node in nodes for word in _words(node, schema)]
    return " or ".join(dict.fromkeys(words)) or "something else"


def _words(node: Schema, schema: Schema) -> Iterator[str]:
    """What may stand at a node, for people."""
    if "enum" in node or "const" in node:
        yield f"one of {', '.join(_shown(v) for v in node.get('enum', [node.get('const')]))}"
    elif "prefixItems" in node:
        yield f"a list of {len(node['prefixItems'])} numbers"
    elif node.get("type") == "array":
        yield f"a list, each {_expected(list(_alternatives(node['items'], schema)), schema)}"
    elif "properties" in node:
        yield f"a table with keys of {', '.join(node['properties'])}"
    elif node.get("type") == "object":
        are_numbers = [inner.get("type") == "number" for inner in _members(node, "")]
        yield "a table of numbers by name" if all(are_numbers) else "a table by name"
    elif node.get("format") == "date":
        yield "a date such as 2026-01-31"
    elif node.get("type") in _WORDS:
        yield _WORDS[node["type"]]


def _item(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(key)
    is_place = isinstance(value, Sequence) and not isinstance(value, str) and key.isdigit() and int(key) < len(value)
    return value[int(key)] if is_place else None


def _at(raw: Any, path: Sequence[str]) -> Any:
    """The value at a place of the file, None where there is none."""
    for key in path:
        raw = _item(raw, key)
    return raw


def unknown_paths(provenance: Provenance, raw: Mapping[str, Any]) -> list[str]:
    """Graded paths at which the file has nothing: a grade with a misspelt path would grade nothing."""
    found: list[str] = []
    for grade, paths in provenance:
        for path in paths if isinstance(paths, list) else ():
            keys = path.split(".")
            depth = next((n for n in range(len(keys)) if _at(raw, keys[: n + 1]) is None), None)
            if depth is not None:
                there = _there(raw, keys[:depth], keys[depth])
                found.append(f"provenance.{grade}: {path!r} is no place of the file{there}")
    return found


def _there(raw: Mapping[str, Any], path: list[str], key: str) -> str:
    table = _at(raw, path)
    known = sorted(table) if isinstance(table, Mapping) else []
    return f"; {'.'.join(path) or 'the file'} has {', '.join(known)}{suggestion(key, known)}" if known else ""


def unknown_columns(requires: Sequence[str]) -> list[str]:
    """Required tables and columns that no book can have."""
    found: list[str] = []
    for path in requires:
        table, _, column = path.partition(".")
        columns = [each.name for each in TABLES[table].columns] if table in TABLES else []
        if not columns:
            found.append(f"requires: a book has no table {table!r}; it may have {', '.join(TABLES)}")
        elif column and column not in columns:
            found.append(f"requires: {table} has no column {column!r}; it may have {', '.join(columns)}")
    return found
