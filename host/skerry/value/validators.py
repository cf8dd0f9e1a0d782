"""Validators: what a function's arguments, its result or a table's documents must look like.

A validator arrives as JSON from a bundle, that is from a stranger. `compile_validator` refuses everything that is not
exactly of the documented shape and bounds its depth and number of parts; the result is a tree of small objects, made
once per deploy.

A check runs in two passes. `accepts` only answers yes or no and is what an ordinary call pays for. Where it says no,
`explain` walks again along the failing path and words the error: it never descends into unions of more than one
member, so it costs no more than the first pass. Every object field, array element and union member tried costs a step;
a check whose steps run out ends as `ValidationTooExpensive`, so nested unions over large arrays cannot hold the
thread.

Source: protocol reference 1.9; prefixes of the error texts there.
"""

from collections.abc import Callable
from typing import Any, Final

from skerry.errors import DeveloperError
from skerry.limits import VALIDATOR_NESTING_MAX, VALIDATOR_NODES_MAX, VALIDATOR_STEPS_MAX, VALUE_OBJECT_FIELDS_MAX
from skerry.value.codec import decode
from skerry.value.kinds import CommitTs, Int64, kind_of
from skerry.value.names import is_identifier
from skerry.value.render import quote
from skerry.value.validator_nodes import (
    AnyNode,
    ArrayNode,
    IdNode,
    LiteralNode,
    LookingRun,
    Mismatch,
    Node,
    ObjectNode,
    RecordNode,
    ResolveTable,
    Run,
    UnionNode,
    path_line,
)


class Validator:
    """A compiled validator. Immutable; may be shared between threads.

    Shape: `json` is the validator's JSON as it came.
    """

    __slots__ = ("_root", "json")

    def __init__(self, json: Any, root: Node) -> None:
        self.json = json
        self._root = root

    def check(
        self,
        value: Any,
        resolve_table: ResolveTable,
        *,
        steps_max: int = VALIDATOR_STEPS_MAX,
        look: Callable[[], None] | None = None,
    ) -> None:
        """Returns if a decoded value is accepted. `resolve_table` gives the name of a table by its number, or None.

        Raises: Mismatch with the text of the protocol; DeveloperError `ValidationTooExpensive`.
        Limits: `VALIDATOR_STEPS_MAX`, `VALIDATION_MESSAGE_PART_CHARS_MAX`.
        """
        run = Run(resolve_table, steps_max) if look is None else LookingRun(resolve_table, steps_max, look)
        if not self._root.accepts(value, run):
            run.steps = steps_max
            self._root.explain(value, None, run)

    def __str__(self) -> str:
        return self._root.text()


def argument_error(mismatch: Mismatch) -> DeveloperError:
    """The error of a call whose arguments do not match."""
    return DeveloperError("ArgumentValidationError", f"ArgumentValidationError: {mismatch}")


def returns_error(mismatch: Mismatch) -> DeveloperError:
    """The error of a function whose result does not match."""
    return DeveloperError("ReturnsValidationError", f"ReturnsValidationError: {mismatch}")


def write_error(table: str, mismatch: Mismatch) -> DeveloperError:
    """The error of a write that does not match the schema."""
    return DeveloperError(
        "SchemaEnforcementError",
        f'Failed to insert or update a document in table "{table}" because it does not match the schema: {mismatch}',
    )


def stored_document_error(document_id: str, table: str, mismatch: Mismatch) -> DeveloperError:
    """The error of a schema that a stored document does not match."""
    return DeveloperError(
        "SchemaEnforcementError",
        f'Document with ID "{document_id}" in table "{table}" does not match the schema: {mismatch}',
    )


# -- compiling -------------------------------------------------------------------------------------------------------

_TYPES: Final[dict[str, Node]] = {
    "null": Node("v.null()", frozenset({type(None)})),
    "number": Node("v.float64()", frozenset({int, float})),
    "bigint": Node("v.int64()", frozenset({Int64})),
    "boolean": Node("v.boolean()", frozenset({bool})),
    "string": Node("v.string()", frozenset({str})),
    "bytes": Node("v.bytes()", frozenset({bytes})),
    "any": AnyNode(),
    "commitTs": Node("v.commitTs()", frozenset({Int64, CommitTs})),
}


def compile_validator(json: Any) -> Validator:
    """The validator a parsed JSON text describes.

    Raises: DeveloperError `InvalidValidator`, saying where. Limits: `VALIDATOR_NESTING_MAX`, `VALIDATOR_NODES_MAX`.
    """
    return Validator(json, _Compiler().compile(json, "", VALIDATOR_NESTING_MAX))


class _Compiler:
    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes = 0

    def compile(self, json: Any, path: str, room: int) -> Node:
        self._nodes += 1
        if self._nodes > VALIDATOR_NODES_MAX:
            raise _invalid(path, f"it has more than {VALIDATOR_NODES_MAX} parts")
        if not room:
            raise _invalid(path, f"it is nested more than {VALIDATOR_NESTING_MAX} levels deep")
        if kind_of(json) is not dict:
            raise _invalid(path, "a validator must be an object with a `type`")
        spec: dict[str, Any] = json
        kind: Any = spec.get("type")
        if kind_of(kind) is not str:
            raise _invalid(path, "a validator must be an object with a `type`")
        leaf = _TYPES.get(kind)
        if leaf is not None:
            _expect_keys(spec, {"type"}, path)
            return leaf
        build = _BUILDERS.get(kind)
        if build is None:
            raise _invalid(path, f"there is no validator of type {quote(kind, 64)}")
        return build(self, spec, path, room - 1)

    def literal(self, spec: dict[str, Any], path: str, _room: int) -> Node:
        _expect_keys(spec, {"type", "value"}, path)
        json: Any = spec["value"]
        if kind_of(json) is list or (kind_of(json) is dict and kind_of(json.get("$integer")) is not str):
            raise _invalid(path, "a literal must be a string, number, boolean or int64")
        try:
            value = decode(json)
        except DeveloperError as error:
            raise _invalid(path, f"its literal is not a value: {error.message}") from None
        if kind_of(value) not in (str, int, float, bool, Int64):
            raise _invalid(path, "a literal must be a string, number, boolean or int64")
        return LiteralNode(value)

    def id(self, spec: dict[str, Any], path: str, _room: int) -> Node:
        _expect_keys(spec, {"type", "tableName"}, path)
        table = spec["tableName"]
        if kind_of(table) is not str or not is_identifier(table):
            raise _invalid(path, "`tableName` must be a table's name")
        return IdNode(table)

    def array(self, spec: dict[str, Any], path: str, room: int) -> Node:
        _expect_keys(spec, {"type", "value"}, path)
        return ArrayNode(self.compile(spec["value"], f"{path}[]", room))

    def record(self, spec: dict[str, Any], path: str, room: int) -> Node:
        _expect_keys(spec, {"type", "keys", "values"}, path)
        values, optional = _field_spec(spec["values"], path)
        if optional:
            raise _invalid(path, "the values of a record cannot be optional")
        keys = self.compile(spec["keys"], f"{path}.keys()", room)
        return RecordNode(keys, self.compile(values, f"{path}.values()", room))

    def object(self, spec: dict[str, Any], path: str, room: int) -> Node:
        _expect_keys(spec, {"type", "value"}, path)
        if kind_of(spec["value"]) is not dict:
            raise _invalid(path, "`value` must be an object of fields")
        specs: dict[str, Any] = spec["value"]
        if len(specs) > VALUE_OBJECT_FIELDS_MAX:
            raise _invalid(path, f"it has more than {VALUE_OBJECT_FIELDS_MAX} fields")
        fields: dict[str, Node] = {}
        optional: set[str] = set()
        for name, field_spec in specs.items():
            if not is_identifier(name):
                raise _invalid(path, f"{quote(name, 64)} is not a field name")
            inner = f"{path}.{name}"
            field, is_optional = _field_spec(field_spec, inner)
            fields[name] = self.compile(field, inner, room)
            if is_optional:
                optional.add(name)
        return ObjectNode(fields, frozenset(optional))

    def union(self, spec: dict[str, Any], path: str, room: int) -> Node:
        _expect_keys(spec, {"type", "value"}, path)
        if kind_of(spec["value"]) is not list:
            raise _invalid(path, "`value` must be an array of validators")
        members: list[Any] = spec["value"]
        return UnionNode(tuple([self.compile(member, path, room) for member in members]))


_BUILDERS: Final[dict[str, Callable[[_Compiler, dict[str, Any], str, int], Node]]] = {
    "literal": _Compiler.literal,
    "id": _Compiler.id,
    "array": _Compiler.array,
    "record": _Compiler.record,
    "object": _Compiler.object,
    "union": _Compiler.union,
}


def _field_spec(json: Any, path: str) -> tuple[Any, bool]:
    if kind_of(json) is not dict:
        raise _invalid(path, "a field must be an object with `fieldType` and `optional`")
    spec: dict[str, Any] = json
    _expect_keys(spec, {"fieldType", "optional"}, path)
    if kind_of(spec["optional"]) is not bool:
        raise _invalid(path, "`optional` must be true or false")
    return spec["fieldType"], spec["optional"]


def _expect_keys(spec: dict[str, Any], keys: set[str], path: str) -> None:
    if spec.keys() != keys:
        raise _invalid(path, "it must have exactly the keys " + ", ".join(f"`{key}`" for key in sorted(keys)))


def _invalid(path: str, why: str) -> DeveloperError:
    return DeveloperError("InvalidValidator", f"Invalid validator: {why}.{path_line((None, path) if path else None)}")
