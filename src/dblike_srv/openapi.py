"""The interface as OpenAPI 3.1, made from the routes, the views' descriptions and the messages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from dblike_delta import messages
from dblike_delta.messages import MSGPACK_TYPE, PROTOCOL
from dblike_srv.api.operation import Operation

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_SCHEMA: Final = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
_VERBS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")

_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}

PATH_PARAMETERS: Final = {
    "folder_id": "The id of a folder, hex digits.",
    "folder_name": "A folder's name or its id in hex.",
    "path": "A path in the folder; slashes stand for themselves, all other bytes may be escaped.",
    "upload": "32 hex digits that the device chose.",
    "device": "A device's id in hex.",
}


def describe(app: Flask) -> bytes:
    """The whole description, as JSON."""
    return _describe(app)


@lru_cache(maxsize=4)
def _describe(app: Flask) -> bytes:
    kinds: set[type] = {messages.Problem}
    paths: dict[str, dict[str, Any]] = {}
    for rule, verb, view in _routes(app):
        found: Operation | None = getattr(view, "operation", None)
        if found is None:
            continue
        kinds.update(kind for kind in (*found.takes, *found.gives) if isinstance(kind, type))
        path = _PARAMETER.sub(r"{\1}", rule.rule)
        paths.setdefault(path, {})[verb.lower()] = _operation(rule, verb, view, found)
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template=_SCHEMA
    )
    return msgspec.json.encode(_document(paths, components))


def _document(paths: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DBLike",
            "version": _version(),
            "description": f"Protocol {PROTOCOL}. Messages travel as JSON or MessagePack.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(components),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _version() -> str:
    try:
        return version("dblike")
    except PackageNotFoundError:
        return "0"


def _routes(app: Flask) -> Iterator[tuple[Rule, str, Any]]:
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        for verb in _VERBS:
            if verb in (rule.methods or ()):
                yield rule, verb, app.view_functions[rule.endpoint]


def _operation(rule: Rule, verb: str, view: Any, found: Operation) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(view) or "").partition("\n\n")
    described: dict[str, Any] = {
        "operationId": f"{rule.endpoint}.{verb.lower()}",
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": summary.replace("\n", " "),
        "parameters": list(_parameters(rule, found)),
        "responses": _responses(verb, found),
    }
    if rest:
        described["description"] = rest
    if found.takes and verb not in ("GET", "HEAD"):
        described["requestBody"] = {"required": True, "content": _content(found.takes)}
    if found.public:
        described["security"] = []
    return described


def _parameters(rule: Rule, found: Operation) -> Iterator[dict[str, Any]]:
    for name in _PARAMETER.findall(rule.rule):
        text = {"type": "string", "minLength": 1}
        yield {
            "name": name, "in": "path", "required": True, "schema": text,
            "description": PATH_PARAMETERS[name],
        }  # fmt: skip
    for place, parameters in (("query", found.query), ("header", found.headers)):
        for name, schema in parameters.items():
            yield {"name": name, "in": place, "schema": dict(schema)}


def _responses(verb: str, found: Operation) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if found.gives and verb != "HEAD":
        done["content"] = _content(found.gives)
    responses = {str(found.status): done}
    for status in found.also:
        responses[str(status)] = {"description": "See the verb's description."}
    problem: dict[str, Any] = {"description": "Refused; nothing was changed."}
    if verb != "HEAD":
        problem["content"] = {PROBLEM: {"schema": _reference(messages.Problem)}}
    return {**responses, "4XX": problem, "5XX": problem}


def _content(kinds: tuple[type | str, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for kind in kinds:
        if isinstance(kind, str):
            content[kind] = {"schema": {}} if kind == JSON else _BYTES
        else:
            known = content.get(JSON, {}).get("schema")
            schema = {"anyOf": [known, _reference(kind)]} if known else _reference(kind)
            content[JSON] = {"schema": schema}
            content[MSGPACK_TYPE] = _BYTES
    return content


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=kind.__name__)}
