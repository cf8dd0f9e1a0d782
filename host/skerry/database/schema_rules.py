"""The rules a schema must keep before it is applied, and the validators it asks for.

Source: protocol reference 4.10 (the export's shape), 5.7 (rules and codes).
"""

from typing import Any

from skerry.database.catalog import Validator
from skerry.value import compile_validator


def validators_of(schema: dict[str, Any] | None) -> dict[str, Validator]:
    """The validators to enforce, by table; none where the schema does not ask for validation."""
    if schema is None or not schema.get("schemaValidation", False):
        return {}
    return {
        table["tableName"]: compile_validator(table["documentType"])
        for table in schema["tables"]
        if table.get("documentType") is not None
    }
