"""The parts of a compiled validator: each can say whether it accepts a value, and why not.

A part whose answer depends on the value's type alone names its `kinds`, so that its parent asks without a call. Paths
are linked pairs that become text only in an error.
"""

# ruff: noqa: SIM110 - plain loops: a generator per object or array costs more than the loop it hides

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from skerry.errors import DeveloperError
from skerry.limits import FIELD_NAME_CHARS_MAX, VALIDATION_MESSAGE_PART_CHARS_MAX, VALIDATION_STEPS_PER_LOOK
from skerry.value.ids import try_decode_document_id
from skerry.value.kinds import Int64, kind_of
from skerry.value.order import compare
from skerry.value.render import BoundedText, render_value

ResolveTable: TypeAlias = Callable[[int], "str | None"]
Path: TypeAlias = "tuple[Path, str | int] | None"

_ID_STEPS: Final = 4  # decoding an id takes as long as this many fields


class Mismatch(Exception):
    """A value its validator does not accept; the text is the protocol's, without a prefix."""


class Run:
    """What one check carries along: how to name tables, and the steps that are left."""

    __slots__ = ("resolve_table", "steps", "steps_max")

    def __init__(self, resolve_table: ResolveTable, steps_max: int) -> None:
        self.resolve_table = resolve_table
        self.steps = steps_max
        self.steps_max = steps_max

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise DeveloperError(
                "ValidationTooExpensive",
                f"Checking the value against its validator takes more than {self.steps_max} steps; "
                "simplify nested unions or send smaller values.",
            )


class LookingRun(Run):
    """A check that is long: `look` is called every VALIDATION_STEPS_PER_LOOK steps, and may raise to end it."""

    __slots__ = ("look", "look_at")

    def __init__(self, resolve_table: ResolveTable, steps_max: int, look: Callable[[], None]) -> None:
        super().__init__(resolve_table, steps_max)
        self.look = look
        self.look_at = steps_max - VALIDATION_STEPS_PER_LOOK

    def spend(self, steps: int) -> None:
        super().spend(steps)
        if self.steps < self.look_at:
            self.look_at = self.steps - VALIDATION_STEPS_PER_LOOK
            self.look()


class Node:
    """One part of a validator that looks at the type of a value and nothing else; the base of the others."""

    __slots__ = ("kinds", "name")

    def __init__(self, name: str, kinds: frozenset[type] | None) -> None:
        self.name = name
        self.kinds: Final = kinds  # where not None, the type alone decides

    def accepts(self, value: Any, run: Run) -> bool:
        return self.kinds is not None and kind_of(value) in self.kinds

    def explain(self, value: Any, path: Path, run: Run) -> None:
        """Raises Mismatch if the value is not accepted."""
        if not self.accepts(value, run):
            raise _plain_mismatch(self, value, path)

    def write(self, out: BoundedText) -> None:
        out.add(self.name)

    def text(self) -> str:
        out = BoundedText(VALIDATION_MESSAGE_PART_CHARS_MAX)
        self.write(out)
        return str(out)


class AnyNode(Node):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("v.any()", None)

    def accepts(self, value: Any, run: Run) -> bool:
        return True


class LiteralNode(Node):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        super().__init__("literal", None)
        self.value = value

    def accepts(self, value: Any, run: Run) -> bool:
        kind = kind_of(value)
        if kind is str or kind is bool:
            return kind is kind_of(self.value) and value == self.value
        return (kind is int or kind is float or kind is Int64) and compare(value, self.value) == 0

    def explain(self, value: Any, path: Path, run: Run) -> None:
        if not self.accepts(value, run):
            where = path_line(path).lstrip("\n")
            raise Mismatch(f"`{render_value(value)}` does not match literal validator `{self.text()}`.{where}")

    def write(self, out: BoundedText) -> None:
        out.add("v.literal(")
        out.add(render_value(self.value, chars_max=max(out.room, 1)))
        out.add(")")


class IdNode(Node):
    __slots__ = ("table",)

    def __init__(self, table: str) -> None:
        super().__init__(f'v.id("{table}")', None)
        self.table = table

    def accepts(self, value: Any, run: Run) -> bool:
        if kind_of(value) is not str:
            return False
        run.spend(_ID_STEPS)
        decoded = try_decode_document_id(value)
        return decoded is not None and run.resolve_table(decoded[0]) == self.table

    def explain(self, value: Any, path: Path, run: Run) -> None:
        decoded = try_decode_document_id(value) if kind_of(value) is str else None
        found = None if decoded is None else run.resolve_table(decoded[0])
        if found is None:
            raise _plain_mismatch(self, value, path)
        if found != self.table:
            source = "a system table" if found[:1] == "_" else f"table `{found}`"
            raise Mismatch(
                f'Found ID "{value}" from {source}, which does not match the table name in validator `{self.text()}`.'
                + path_line(path)
            )


class ArrayNode(Node):
    __slots__ = ("element",)

    def __init__(self, element: Node) -> None:
        super().__init__("array", None)
        self.element = element

    def accepts(self, value: Any, run: Run) -> bool:
        if kind_of(value) is not list:
            return False
        elements: list[Any] = value
        run.spend(len(elements) + 1)
        kinds = self.element.kinds
        if kinds is not None:
            return kinds.issuperset(map(kind_of, elements))
        accepts = self.element.accepts
        for element in elements:
            if not accepts(element, run):
                return False
        return True

    def explain(self, value: Any, path: Path, run: Run) -> None:
        if kind_of(value) is not list:
            raise _plain_mismatch(self, value, path)
        elements: list[Any] = value
        run.spend(len(elements) + 1)
        for position, element in enumerate(elements):
            self.element.explain(element, (path, position), run)

    def write(self, out: BoundedText) -> None:
        out.add("v.array(")
        self.element.write(out)
        out.add(")")


class RecordNode(Node):
    __slots__ = ("key", "value")

    def __init__(self, key: Node, value: Node) -> None:
        super().__init__("record", None)
        self.key = key
        self.value = value

    def accepts(self, value: Any, run: Run) -> bool:
        if kind_of(value) is not dict:
            return False
        fields: dict[str, Any] = value
        run.spend(len(fields) + 1)
        accepts_key, accepts_value = self.key.accepts, self.value.accepts
        for name, field in fields.items():
            if not accepts_key(name, run) or not accepts_value(field, run):
                return False
        return True

    def explain(self, value: Any, path: Path, run: Run) -> None:
        if kind_of(value) is not dict:
            raise _plain_mismatch(self, value, path)
        fields: dict[str, Any] = value
        run.spend(len(fields) + 1)
        for name, field in fields.items():
            self.key.explain(name, (path, ".keys()"), run)
            self.value.explain(field, (path, ".values()"), run)

    def write(self, out: BoundedText) -> None:
        out.add("v.record(")
        self.key.write(out)
        out.add(", ")
        self.value.write(out)
        out.add(")")


class ObjectNode(Node):
    __slots__ = ("_checks", "fields", "optional", "required")

    def __init__(self, fields: dict[str, Node], optional: frozenset[str]) -> None:
        super().__init__("object", None)
        self.fields = fields
        self.optional = optional
        self.required = tuple(name for name in fields if name not in optional)
        self._checks = {name: (node.kinds, node.accepts) for name, node in fields.items()}

    def accepts(self, value: Any, run: Run) -> bool:
        if kind_of(value) is not dict:
            return False
        fields: dict[str, Any] = value
        run.spend(len(fields) + 1)
        get = self._checks.get
        for name, field in fields.items():
            check = get(name)
            if check is None:
                return False
            kinds, accepts = check
            if kinds is None:
                if not accepts(field, run):
                    return False
            elif kind_of(field) not in kinds:
                return False
        if len(fields) == len(self.fields):
            return True
        for name in self.required:
            if name not in fields:
                return False
        return True

    def explain(self, value: Any, path: Path, run: Run) -> None:
        if kind_of(value) is not dict:
            raise _plain_mismatch(self, value, path)
        fields: dict[str, Any] = value
        run.spend(len(fields) + 1)
        for name, node in self.fields.items():
            if name in fields:
                node.explain(fields[name], (path, "." + name), run)
            elif name not in self.optional:
                self._raise_object(
                    f"Object is missing the required field `{name}`. Consider wrapping the field validator in "
                    "`v.optional(...)` if this is expected.",
                    fields,
                    path,
                )
        for name in fields:
            if name not in self.fields:
                self._raise_object(
                    f"Object contains extra field `{name[:FIELD_NAME_CHARS_MAX]}` that is not in the validator.",
                    fields,
                    path,
                )

    def _raise_object(self, what: str, value: dict[str, Any], path: Path) -> None:
        raise Mismatch(f"{what}{path_line(path)}\n\nObject: {render_value(value)}\nValidator: {self.text()}")

    def write(self, out: BoundedText) -> None:
        out.add("v.object({")
        for position, name in enumerate(sorted(self.fields)):
            if not out.add((", " if position else "") + name + ": "):
                return
            optional = name in self.optional
            out.add("v.optional(" if optional else "")
            self.fields[name].write(out)
            out.add(")" if optional else "")
        out.add("})")


class UnionNode(Node):
    __slots__ = ("members",)

    def __init__(self, members: tuple[Node, ...]) -> None:
        super().__init__("union", _joined_kinds(members))
        self.members = members

    def accepts(self, value: Any, run: Run) -> bool:
        if self.kinds is not None:
            return kind_of(value) in self.kinds
        for member in self.members:
            run.spend(1)
            if member.accepts(value, run):
                return True
        return False

    def explain(self, value: Any, path: Path, run: Run) -> None:
        if len(self.members) == 1:
            self.members[0].explain(value, path, run)
        else:
            super().explain(value, path, run)

    def write(self, out: BoundedText) -> None:
        out.add("v.union(")
        for position, member in enumerate(self.members):
            if not out.add(", " if position else ""):
                return
            member.write(out)
        out.add(")")


def _joined_kinds(members: tuple[Node, ...]) -> frozenset[type] | None:
    kinds: set[type] = set()
    for member in members:
        if member.kinds is None:
            return None
        kinds |= member.kinds
    return frozenset(kinds)


def path_line(path: Path) -> str:
    """The line of an error text that says where in the value, after a line break; empty at the outermost level."""
    pieces: list[str] = []
    while path is not None:
        path, piece = path
        pieces.append(piece if isinstance(piece, str) else f"[{piece}]")
    out = BoundedText(VALIDATION_MESSAGE_PART_CHARS_MAX)
    for piece in reversed(pieces):
        out.add(piece)
    return f"\nPath: {out}" if pieces else ""


def _plain_mismatch(node: Node, value: Any, path: Path) -> Mismatch:
    return Mismatch(
        f"Value does not match validator.{path_line(path)}\nValue: {render_value(value)}\nValidator: {node.text()}"
    )
