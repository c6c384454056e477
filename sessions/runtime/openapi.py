"""The OpenAPI document: what FastAPI makes of the routes, with our problems and the hot routes it does not see."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from sessions.runtime.problems import MEDIA_TYPE, Problem

PathItems = Mapping[str, Mapping[str, Any]]


def install(app: FastAPI, extra_paths: PathItems) -> None:
    """Serve one document that is true of all routes.

    `extra_paths` describes the ASGI routes: path to method to operation.
    """
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        schema = generate()
        for path, operations in extra_paths.items():
            schema["paths"].setdefault(path, {}).update(operations)
        components = schema.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        schemas["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                _mend(operation, secured=path.startswith("/api/"))
        return schema

    app.openapi = document  # type: ignore[method-assign]


def _mend(operation: dict[str, Any], *, secured: bool) -> None:
    answers = operation["responses"]
    answers.pop("422", None)  # ours is a 400 with a problem body
    problem = {
        "description": "a problem",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if secured:
        operation["security"] = [{"token": []}]
        for status in ("400", "401", "403", "413", "429", "503"):
            answers.setdefault(status, problem)
