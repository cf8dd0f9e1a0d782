"""Encoded JSON, canonical text, the two output formats: the protocol's vectors, the rejections and the roundtrips."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.value import (
    COMMIT_TS,
    UNDEFINED,
    Int64,
    UndefinedAt,
    check_value,
    compare,
    decode,
    dumps,
    dumps_clean,
    dumps_export,
    dumps_undefined,
    encode,
    is_plain,
    key_of,
    loads,
    normalize_number,
    size_of,
)
from tests.value.strategies import same, values

VECTORS = [
    (Int64(0), '{"$integer":"AAAAAAAAAAA="}'),
    (Int64(1), '{"$integer":"AQAAAAAAAAA="}'),
    (Int64(-1), '{"$integer":"//////////8="}'),
    (Int64(-(2**63)), '{"$integer":"AAAAAAAAAIA="}'),
    (Int64(2**63 - 1), '{"$integer":"/////////38="}'),
    (Int64(9007199254740993), '{"$integer":"AQAAAAAAIAA="}'),
    (-0.0, '{"$float":"AAAAAAAAAIA="}'),
    (float("nan"), '{"$float":"AAAAAAAA+H8="}'),
    (float("inf"), '{"$float":"AAAAAAAA8H8="}'),
    (float("-inf"), '{"$float":"AAAAAAAA8P8="}'),
    (b"\x00\x01\xff", '{"$bytes":"AAH/"}'),
    ({"b": 1, "a": 2, "_c": [{}]}, '{"_c":[{}],"a":2,"b":1}'),
    (None, "null"),
    (True, "true"),
    (1.0, "1"),
    (-5.0, "-5"),
    (0.5, "0.5"),
    (2.0**53 - 1, "9007199254740991"),
    (2**53, "9007199254740992.0"),
    ([None, 1.0, "x"], '[null,1,"x"]'),
    ({"": "$5.0"}, '{"":"$5.0"}'),
]


@pytest.mark.parametrize(("value", "text"), VECTORS)
def test_vectors(value, text):
    assert dumps(value) == text.encode()
    assert same(loads(text.encode()), value)
    assert same(decode(encode(value)), value)


REFUSED = [
    ({"$integer": "AAAAAAAAAAA=", "a": 1}, "only one"),
    ({"a": 1, "$integer": "AAAAAAAAAAA="}, "only one"),
    ({"$integer": "AAAAAAAAAA=="}, "exactly 8 bytes"),
    ({"$integer": 1}, "base64 string"),
    ({"$integer": None}, "base64 string"),
    ({"$float": "AAAAAAAA8D8="}, "must hold -0, NaN"),
    ({"$float": "AAA="}, "exactly 8 bytes"),
    ({"$bytes": "AAH"}, "valid base64"),
    ({"$bytes": "AA H/"}, "valid base64"),
    ({"$bytes": "AAH/\n"}, "valid base64"),
    ({"$bytes": "AAH_"}, "valid base64"),
    ({"$bytes": "AB=="}, "canonical"),
    ({"$bytes": "é"}, "valid base64"),
    ({"$set": []}, "no longer supported"),
    ({"$map": []}, "no longer supported"),
    ({"$commitTs": None}, "inside a mutation"),
    ({"$undefined": None}, "undefined is not"),
    ({"$other": 1}, "starts with '\\$'"),
    ({"$": 1}, "starts with '\\$'"),
    ([{"a": {"$x": 1}}], "starts with '\\$'"),
]


@pytest.mark.parametrize(("encoded", "fragment"), REFUSED)
def test_refused_encodings(encoded, fragment):
    with pytest.raises(DeveloperError, match=fragment) as caught:
        loads(orjson.dumps(encoded))
    assert caught.value.code == "InvalidValue"


def test_escaped_dollar_is_still_a_tag():
    raw = b'{"\\u0024integer":"AQAAAAAAAAA="}'
    assert not is_plain(raw)
    assert loads(raw) == Int64(1)


def test_positive_zero_float_tag_is_accepted():
    assert same(loads(b'{"$float":"AAAAAAAAAAA="}'), 0)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nul", b"NaN", b'"\\ud800"', b'"\xff"', b"1e999", b"[1,]", b"1 2", b'{"a"}']
)
def test_text_that_is_not_json(raw):
    with pytest.raises(DeveloperError) as caught:
        loads(raw)
    assert caught.value.code == "InvalidJson"


def test_repeated_key_means_its_last_value():
    assert loads(b'{"a":1,"a":2}') == {"a": 2}


def test_undefined_only_where_it_is_named():
    raw = b'{"a":{"$undefined":null},"b":1}'
    assert loads(raw, undefined=UndefinedAt.TOP_FIELDS) == {"a": UNDEFINED, "b": 1}
    assert loads(b'{"$undefined":null}', undefined=UndefinedAt.ROOT) is UNDEFINED
    for text, where in [
        (raw, UndefinedAt.NOWHERE),
        (raw, UndefinedAt.ROOT),
        (b'{"$undefined":null}', UndefinedAt.TOP_FIELDS),
        (b'{"a":{"b":{"$undefined":null}}}', UndefinedAt.TOP_FIELDS),
        (b'{"$undefined":1}', UndefinedAt.ROOT),
        (b'{"$x":1,"a":{"$undefined":null}}', UndefinedAt.TOP_FIELDS),
    ]:
        with pytest.raises(DeveloperError):
            loads(text, undefined=where)
    with pytest.raises(DeveloperError, match="undefined is not a valid"):
        dumps([UNDEFINED])
    assert dumps_undefined(UNDEFINED) == b'{"$undefined":null}'


@pytest.mark.parametrize("value", [{"$a": 1}, {1: 2}, object(), "\ud800", ["\ud800"], {"\ud800": 1}])
def test_dumps_refuses_what_is_no_value(value):
    with pytest.raises(DeveloperError) as caught:
        dumps(value)
    assert caught.value.code == "InvalidValue"


def test_large_integers_become_floats():
    assert loads(b"9007199254740993") == 9007199254740992.0
    assert type(loads(b'{"a":[18446744073709551615]}')["a"][0]) is float
    assert type(loads(b"9007199254740991")) is int
    assert same(normalize_number(-0.0), -0.0)
    assert type(normalize_number(2**53)) is float
    assert type(normalize_number(float(2**53 - 1))) is int
    with pytest.raises(DeveloperError):
        normalize_number(10**400)


def test_clean_format():
    value = {
        "i": Int64(-5),
        "n": float("nan"),
        "p": float("inf"),
        "m": float("-inf"),
        "b": b"\x00\x01\xff",
        "z": -0.0,
        "f": 2.0,
    }
    assert dumps_clean(value) == (b'{"b":"AAH/","f":2,"i":"-5","m":"-Infinity","n":"NaN","p":"Infinity","z":-0.0}')


def test_export_format():
    value = {"i": Int64(-5), "n": float("inf"), "b": b"\x00\x01\xff", "f": 2, "l": [1e21, 0.5]}
    assert dumps_export(value) == (
        b'{"b":{"$bytes":"AAH/"},"f":2.0,"i":-5,"l":[1e+21,0.5],"n":{"$float":"AAAAAAAA8H8="}}'
    )


@given(values)
@settings(deadline=None)
def test_roundtrip(value):
    raw = dumps(value)
    assert same(loads(raw), value)
    assert dumps(loads(raw)) == raw
    assert same(decode(encode(value)), value)


@given(values)
@settings(deadline=None)
def test_output_formats_are_json(value):
    orjson.loads(dumps_clean(value))
    orjson.loads(dumps_export(value))


@given(st.one_of(st.binary(max_size=40), st.text('[]{}",:\\$u0024integer1e-', max_size=40).map(str.encode)))
@settings(deadline=None, max_examples=300)
def test_random_text_never_raises_anything_else(raw):
    try:
        value = loads(raw)
    except DeveloperError:
        return
    assert same(loads(orjson.dumps(encode(value))), value)


def test_a_commit_timestamp_is_a_value_within_a_mutation() -> None:
    raw = b'{"a":[{"$commitTs":null}],"b":{"$commitTs":null}}'
    decoded = decode(orjson.loads(raw), commit_ts=True)
    assert decoded == {"a": [COMMIT_TS], "b": COMMIT_TS} == loads(raw, commit_ts=True)
    assert (
        dumps(decoded) == raw and size_of(COMMIT_TS) == size_of(Int64(0)) and check_value(decoded) == size_of(decoded)
    )
    assert decode({"at": {"$commitTs": None}}, undefined=UndefinedAt.TOP_FIELDS, commit_ts=True) == {"at": COMMIT_TS}
    for bad in ({"$commitTs": 1}, {"$commitTs": None, "a": 1}):
        with pytest.raises(DeveloperError):
            decode(bad, commit_ts=True)


def test_a_commit_timestamp_sorts_as_the_largest_int64() -> None:
    largest, below = Int64(2**63 - 1), Int64(2**63 - 2)
    assert key_of(COMMIT_TS) == key_of(largest)
    assert compare(COMMIT_TS, largest) == compare(largest, COMMIT_TS) == compare(COMMIT_TS, COMMIT_TS) == 0
    assert compare(COMMIT_TS, below) == 1 and compare(below, COMMIT_TS) == -1 and compare(COMMIT_TS, -1.0) == -1
