"""Validators: what they accept, the exact texts of what they do not, and what a hostile validator or value may cost."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import (
    VALIDATION_MESSAGE_PART_CHARS_MAX,
    VALIDATOR_NESTING_MAX,
    VALIDATOR_NODES_MAX,
    VALIDATOR_STEPS_MAX,
    VALUE_OBJECT_FIELDS_MAX,
)
from skerry.value import (
    Int64,
    Mismatch,
    argument_error,
    compile_validator,
    encode_document_id,
    render_value,
    returns_error,
    stored_document_error,
    write_error,
)
from tests.value.strategies import field_names, values

STRING = {"type": "string"}
NUMBER = {"type": "number"}
ANY = {"type": "any"}
TABLES = {10001: "rooms", 10002: "users", 512: "_storage"}.get
ROOM = encode_document_id(10001, bytes(16))
USER = encode_document_id(10002, bytes(16))
FILE = encode_document_id(512, bytes(16))
NOWHERE = encode_document_id(10003, bytes(16))


def field(validator, optional=False):
    return {"fieldType": validator, "optional": optional}


def obj(**fields):
    return {
        "type": "object",
        "value": {name: spec if "fieldType" in spec else field(spec) for name, spec in fields.items()},
    }


def arr(element):
    return {"type": "array", "value": element}


def union(*members):
    return {"type": "union", "value": list(members)}


def literal(value):
    return {"type": "literal", "value": value}


def ident(table):
    return {"type": "id", "tableName": table}


def record(keys, item):
    return {"type": "record", "keys": keys, "values": field(item)}


def accepts(validator, value):
    try:
        compile_validator(validator).check(value, TABLES)
    except Mismatch:
        return False
    return True


def text_of(validator, value):
    with pytest.raises(Mismatch) as caught:
        compile_validator(validator).check(value, TABLES)
    return str(caught.value)


SAMPLES = {
    "null": None,
    "number": 1.5,
    "bigint": Int64(1),
    "boolean": True,
    "string": "x",
    "bytes": b"x",
    "array": [],
    "object": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["null", "number", "bigint", "boolean", "string", "bytes"])
def test_simple_types_accept_their_own_and_nothing_else(kind):
    for sample, value in SAMPLES.items():
        assert accepts({"type": kind}, value) is (sample == kind), sample
    assert accepts(NUMBER, 3)
    assert accepts({"type": "commitTs"}, Int64(1))
    assert all(accepts(ANY, value) for value in SAMPLES.values())


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ("x", ["x"], ["y", 1, None]),
        (1, [1, 1.0], [2, Int64(1), True, "1"]),
        (True, [True], [False, 1, "true"]),
        ({"$integer": "AQAAAAAAAAA="}, [Int64(1)], [1, Int64(2)]),
    ],
)
def test_literals(spec, good, bad):
    assert all(accepts(literal(spec), value) for value in good)
    assert not any(accepts(literal(spec), value) for value in bad)


def test_containers():
    assert accepts(arr(STRING), ["a", "b"])
    assert not accepts(arr(STRING), ["a", 1])
    assert accepts(arr(arr(NUMBER)), [[1], []])
    assert accepts(record(STRING, NUMBER), {"a": 1, "b c": 2})
    assert not accepts(record(STRING, NUMBER), {"a": "x"})
    assert accepts(record(ident("rooms"), ANY), {ROOM: 1})
    assert not accepts(record(ident("rooms"), ANY), {USER: 1})
    shape = obj(a=STRING, b=field(NUMBER, True))
    assert accepts(shape, {"a": "x"})
    assert accepts(shape, {"a": "x", "b": 1})
    assert not accepts(shape, {"b": 1})
    assert not accepts(shape, {"a": "x", "b": None})
    assert not accepts(shape, {"a": "x", "c": 1})
    assert not accepts(obj(a=STRING, b=STRING), {"a": "x", "c": "y"})
    assert accepts(union(STRING, obj(a=NUMBER), literal(5)), {"a": 1})
    assert accepts(union(STRING, {"type": "null"}), None)
    assert not accepts(union(STRING, {"type": "null"}), 1)
    assert not accepts(union(), None)
    assert accepts(ident("rooms"), ROOM)
    assert accepts(ident("_storage"), FILE)


MISSING = (
    "Object is missing the required field `b`. Consider wrapping the field validator in `v.optional(...)` "
    "if this is expected."
)

TEXTS = [
    (obj(b=STRING), {}, f"{MISSING}\n\nObject: {{}}\nValidator: v.object({{b: v.string()}})"),
    (
        obj(a=arr(obj(b=STRING))),
        {"a": [{"b": "x"}, {"c": 1}]},
        f"{MISSING}\nPath: .a[1]\n\nObject: {{c: 1.0}}\nValidator: v.object({{b: v.string()}})",
    ),
    (
        obj(b=field(union(literal("x"), {"type": "bigint"}), True), a=record(STRING, ident("t"))),
        {"a": {}, "z z": -0.0},
        (
            'Object contains extra field `z z` that is not in the validator.\n\nObject: {a: {}, "z z": -0.0}\n'
            "Validator: "
            'v.object({a: v.record(v.string(), v.id("t")), b: v.optional(v.union(v.literal("x"), v.int64()))})'
        ),
    ),
    (STRING, 1, "Value does not match validator.\nValue: 1.0\nValidator: v.string()"),
    (obj(n=NUMBER), {"n": Int64(5)}, "Value does not match validator.\nPath: .n\nValue: 5n\nValidator: v.float64()"),
    (
        obj(n=union(STRING, NUMBER)),
        {"n": None},
        "Value does not match validator.\nPath: .n\nValue: null\nValidator: v.union(v.string(), v.float64())",
    ),
    (union(STRING), [True], "Value does not match validator.\nValue: [true]\nValidator: v.string()"),
    (union(), "a\n", 'Value does not match validator.\nValue: "a\\n"\nValidator: v.union()'),
    (
        record(ident("rooms"), ANY),
        {"x": 1},
        'Value does not match validator.\nPath: .keys()\nValue: "x"\nValidator: v.id("rooms")',
    ),
    (
        record(STRING, NUMBER),
        {"x": ""},
        'Value does not match validator.\nPath: .values()\nValue: ""\nValidator: v.float64()',
    ),
    (literal("y"), "x", '`"x"` does not match literal validator `v.literal("y")`.'),
    (obj(a=literal(1)), {"a": False}, "`false` does not match literal validator `v.literal(1.0)`.Path: .a"),
    (
        obj(r=ident("rooms")),
        {"r": USER},
        (
            f'Found ID "{USER}" from table `users`, which does not match the table name in validator `v.id("rooms")`.\n'
            "Path: .r"
        ),
    ),
    (
        ident("rooms"),
        FILE,
        f'Found ID "{FILE}" from a system table, which does not match the table name in validator `v.id("rooms")`.',
    ),
    (ident("rooms"), NOWHERE, f'Value does not match validator.\nValue: "{NOWHERE}"\nValidator: v.id("rooms")'),
    (ident("rooms"), "zz", 'Value does not match validator.\nValue: "zz"\nValidator: v.id("rooms")'),
    (arr(ident("rooms")), [None], 'Value does not match validator.\nPath: [0]\nValue: null\nValidator: v.id("rooms")'),
]


@pytest.mark.parametrize(("validator", "value", "text"), TEXTS)
def test_texts(validator, value, text):
    assert text_of(validator, value) == text


def test_prefixes():
    mismatch = Mismatch("M")
    assert argument_error(mismatch).message == "ArgumentValidationError: M"
    assert returns_error(mismatch).message == "ReturnsValidationError: M"
    assert write_error("t", mismatch).message == (
        'Failed to insert or update a document in table "t" because it does not match the schema: M'
    )
    assert write_error("t", mismatch).code == "SchemaEnforcementError"
    assert stored_document_error("i", "t", mismatch).message == (
        'Document with ID "i" in table "t" does not match the schema: M'
    )


INVALID = [
    None,
    1,
    "string",
    [],
    {},
    {"type": 1},
    {"type": "str"},
    {"type": "string", "x": 1},
    {"type": ["string"]},
    {"type": "array"},
    {"type": "array", "value": None},
    arr([]),
    {"type": "union"},
    {"type": "union", "value": {}},
    union(None),
    {"type": "object", "value": []},
    {"type": "object", "value": {"a": STRING}},
    {"type": "object", "value": {"a": {"fieldType": STRING}}},
    {"type": "object", "value": {"a": {"fieldType": STRING, "optional": 0}}},
    {"type": "object", "value": {"1a": field(STRING)}},
    {"type": "object", "value": {"__": field(STRING)}},
    {"type": "object", "value": {"$a": field(STRING)}},
    {"type": "id"},
    ident(1),
    ident(""),
    ident("a b"),
    ident("x" * 65),
    {"type": "record", "keys": STRING, "values": STRING},
    {"type": "record", "keys": STRING, "values": field(STRING, True)},
    {"type": "literal"},
    literal(None),
    literal([]),
    literal({}),
    literal({"a": 1}),
    literal({"$bytes": "AAH/"}),
    literal({"$integer": "A"}),
    literal({"$integer": {"a": 1}}),
    literal([[[]]]),
]


@pytest.mark.parametrize("validator", INVALID)
def test_invalid_validators(validator):
    with pytest.raises(DeveloperError) as caught:
        compile_validator(validator)
    assert caught.value.code == "InvalidValidator"


def test_invalid_validator_says_where():
    with pytest.raises(DeveloperError, match=r"there is no validator of type \"str\"\.\nPath: \.a\[\]\.b"):
        compile_validator(obj(a=arr(obj(b={"type": "str"}))))


def wrapped(validator, levels):
    for _ in range(levels):
        validator = arr(validator)
    return validator


def test_validator_bounds():
    compile_validator(wrapped(STRING, VALIDATOR_NESTING_MAX - 1))
    compile_validator(union(*[STRING] * (VALIDATOR_NODES_MAX - 1)))
    compile_validator(obj(**{f"f{i}": STRING for i in range(VALUE_OBJECT_FIELDS_MAX)}))
    for past in [
        wrapped(STRING, VALIDATOR_NESTING_MAX),
        wrapped(STRING, 100_000),
        literal(wrapped(STRING, 100_000)),
        union(*[STRING] * VALIDATOR_NODES_MAX),
        obj(**{f"f{i}": STRING for i in range(VALUE_OBJECT_FIELDS_MAX + 1)}),
    ]:
        with pytest.raises(DeveloperError) as caught:
            compile_validator(past)
        assert caught.value.code == "InvalidValidator"


def test_steps_at_the_bound_and_one_past():
    validator = compile_validator(arr(STRING))
    validator.check(["x"] * 9, TABLES, steps_max=10)
    with pytest.raises(DeveloperError) as caught:
        validator.check(["x"] * 10, TABLES, steps_max=10)
    assert caught.value.code == "ValidationTooExpensive"
    validator.check(["x"] * (VALIDATOR_STEPS_MAX - 1), TABLES)
    with pytest.raises(DeveloperError):
        validator.check(["x"] * VALIDATOR_STEPS_MAX, TABLES)


def test_unions_of_unions_over_arrays_run_out_of_steps():
    hostile = literal("never")
    for _ in range(10):
        hostile = union(arr(hostile), arr(hostile))
    value = "x"
    for _ in range(10):
        value = [value] * 2
    with pytest.raises(DeveloperError) as caught:
        compile_validator(hostile).check(value, TABLES, steps_max=2_000)
    assert caught.value.code == "ValidationTooExpensive"


def test_messages_are_bounded():
    parts = VALIDATION_MESSAGE_PART_CHARS_MAX
    wide = obj(**{f"field_{i}": STRING for i in range(1000)})
    giants = [
        "x" * 10**6,
        ["\0" * 10**6],
        {"k" * 10**6: 1},
        {f"k{i}": "é" * 999 for i in range(1000)},
        b"x" * 10**6,
        [[]] * 10**5,
    ]
    for giant in giants:
        for validator in [wide, obj(a=NUMBER), literal("y" * 10**6), arr(NUMBER), record(NUMBER, NUMBER), NUMBER]:
            if not accepts(validator, giant):
                assert len(text_of(validator, giant)) <= 3 * parts + 400
    assert len(render_value("x" * (parts - 2))) == parts
    assert "…" not in render_value("x" * (parts - 2))
    assert len(render_value("x" * (parts - 1))) == parts
    assert render_value("x" * (parts - 1)).endswith("…")


leaves = st.one_of(
    st.sampled_from(
        [{"type": kind} for kind in ("null", "number", "bigint", "boolean", "string", "bytes", "any", "commitTs")]
    ),
    st.sampled_from([literal("a"), literal(1), literal(True), ident("rooms")]),
)
names = st.sampled_from(["a", "b", "c1"])
validators = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(arr),
        st.lists(inner, max_size=3).map(lambda members: union(*members)),
        st.dictionaries(names, st.tuples(inner, st.booleans()), max_size=3).map(
            lambda fields: obj(**{name: field(*spec) for name, spec in fields.items()})
        ),
        st.tuples(inner, inner).map(lambda pair: record(*pair)),
    ),
    max_leaves=8,
)


def model(validator, value) -> bool:
    """The semantics once more, in the plainest words."""
    kind = validator["type"]
    if kind == "any":
        return True
    if kind == "literal":
        return (
            type(validator["value"]) in ((int, float) if type(value) is float else (type(value),))
            and value == validator["value"]
        )
    if kind == "id":
        return value == ROOM
    if kind == "union":
        return any(model(member, value) for member in validator["value"])
    if kind == "array":
        return isinstance(value, list) and all(model(validator["value"], element) for element in value)
    if kind == "record":
        return isinstance(value, dict) and all(
            model(validator["keys"], name) and model(validator["values"]["fieldType"], item)
            for name, item in value.items()
        )
    if kind == "object":
        fields = validator["value"]
        return (
            isinstance(value, dict)
            and all(name in fields and model(fields[name]["fieldType"], item) for name, item in value.items())
            and all(name in value or spec["optional"] for name, spec in fields.items())
        )
    python = {"null": [type(None)], "number": [int, float], "boolean": [bool], "string": [str], "bytes": [bytes]}
    return type(value) in python.get(kind, [Int64])


model_values = st.recursive(
    st.sampled_from([None, True, 1, 1.0, 2.5, Int64(1), "a", "x", ROOM, USER, b""]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)


@given(validators, model_values)
@settings(deadline=None, max_examples=600)
def test_accepts_what_the_model_accepts(validator, value):
    assert accepts(validator, value) is model(validator, value)


@given(validators, values)
@settings(deadline=None, max_examples=200)
def test_check_raises_only_a_mismatch(validator, value):
    accepts(validator, value)
    assert orjson.loads(orjson.dumps(validator)) == compile_validator(validator).json


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.sampled_from(["type", "array", "object", "string", "union"])
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.one_of(st.sampled_from(["type", "value", "keys", "values", "fieldType", "optional"]), field_names),
                inner,
                max_size=3,
            ),
        ),
    )
)
@settings(deadline=None, max_examples=300)
def test_any_json_compiles_or_is_invalid(json):
    try:
        compile_validator(json)
    except DeveloperError as error:
        assert error.code == "InvalidValidator"
