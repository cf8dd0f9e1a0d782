"""Document ids: the protocol's vectors, one spelling each, and every near miss refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import (
    DOCUMENT_ID_CACHE_ENTRIES_MAX,
    DOCUMENT_ID_SHOWN_CHARS_MAX,
    TABLE_NUMBER_CACHE_ENTRIES_MAX,
    TABLE_NUMBER_MAX,
)
from skerry.value import decode_document_id, encode_document_id, ids, normalize_id, try_decode_document_id

LOW = bytes(range(16))
VECTORS = [
    (1, bytes(16), "0400000000000000000000000000248"),
    (512, LOW, "g02000820c20a1g7104gm2rc1m70zz7c"),
    (10001, LOW, "j57000820c20a1g7104gm2rc1m70ynr8"),
    (10001, b"\xff" * 16, "j57fzzzzzzzzzzzzzzzzzzzzzzzzzkyr"),
    (10002, bytes(range(16, 32)), "j971048j2ca1a5gq30chm6rw3mf1yp4t"),
    (16384, bytes(16), "g2002000000000000000000000000001j4"),
    (4294967295, b"\xff" * 16, "zzzzzzrfzzzzzzzzzzzzzzzzzzzzzzzzzzxjj"),
]
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
internal_ids = st.binary(min_size=16, max_size=16)
table_numbers = st.one_of(
    st.integers(1, TABLE_NUMBER_MAX),
    st.sampled_from([1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, TABLE_NUMBER_MAX]),
)


@pytest.mark.parametrize(("table", "internal", "text"), VECTORS)
def test_vectors(table, internal, text):
    assert encode_document_id(table, internal) == text
    assert decode_document_id(text) == (table, internal)


def test_ids_from_the_field():
    assert decode_document_id("k570e9j5cj1t5gf0zwf3tq3vkawxhqr0")[0] == 10009
    assert decode_document_id("m57068j1c1zsxfewzcd3jp3qjttx99vg")[0] == 10017


@given(table_numbers, internal_ids)
@settings(deadline=None)
def test_roundtrip(table, internal):
    text = encode_document_id(table, internal)
    assert set(text) <= set(ALPHABET)
    assert decode_document_id(text) == (table, internal)


@given(table_numbers, internal_ids, st.data())
@settings(deadline=None)
def test_another_spelling_is_another_id_or_none(table, internal, data):
    text = encode_document_id(table, internal)
    place = data.draw(st.integers(0, len(text) - 1))
    other = text[:place] + data.draw(st.sampled_from(ALPHABET)) + text[place + 1 :]
    decoded = try_decode_document_id(other)
    assert decoded is None or encode_document_id(*decoded) == other
    assert try_decode_document_id(text.upper()) is None or text.isdigit()


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "j57000820c20a1g7104gm2rc1m70ynr9",
        "j57000820c20a1g7104gm2rc1m70ynr", "J57000820c20a1g7104gm2rc1m70ynr8",
        "j57000820c20a1g7104gm2rc1m70ynr8 ", " 57000820c20a1g7104gm2rc1m70ynr8", "+57000820c20a1g7104gm2rc1m70ynr8",
        "j5_000820c20a1g7104gm2rc1m70ynr8", "l57000820c20a1g7104gm2rc1m70ynr8", "é57000820c20a1g7104gm2rc1m70ynr8",
        "0400000000000000000000000000249", "\ud8005700820c20a1g7104gm2rc1m70ynr8",
        "0" * 31, "0" * 32, "z" * 37,
    ],
)  # fmt: skip
def test_refused(text):
    assert try_decode_document_id(text) is None
    with pytest.raises(DeveloperError, match="Unable to decode ID") as caught:
        decode_document_id(text)
    assert caught.value.code == "InvalidDocumentId"


def encode_by_hand(body: bytes) -> str:
    low = high = 0
    for byte in body:
        low = (low + byte) % 256
        high = (high + low) % 256
    data = body + bytes((low, high))
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return "".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def test_table_numbers_at_the_bounds_and_past_them():
    assert try_decode_document_id(encode_by_hand(b"\x01" + LOW)) == (1, LOW)
    assert try_decode_document_id(encode_by_hand(b"\xff\xff\xff\xff\x0f" + LOW)) == (TABLE_NUMBER_MAX, LOW)
    for varint in [
        b"\x00",
        b"\x80\x00",
        b"\x81\x00",
        b"\x80\x80\x80\x80\x10",
        b"\x80",
        b"\x01\x01",
        b"\xff\xff\xff\xff\x8f",
    ]:
        assert try_decode_document_id(encode_by_hand(varint + LOW)) is None, varint


def test_error_shows_a_bounded_part():
    for length in (DOCUMENT_ID_SHOWN_CHARS_MAX, DOCUMENT_ID_SHOWN_CHARS_MAX + 1, 10_000):
        with pytest.raises(DeveloperError) as caught:
            decode_document_id("é" * length)
        assert caught.value.message.count("é") == DOCUMENT_ID_SHOWN_CHARS_MAX


def test_table_number_caches_are_bounded():
    for number in range(1, TABLE_NUMBER_CACHE_ENTRIES_MAX + 2):
        assert decode_document_id(encode_document_id(number, LOW)) == (number, LOW)
    assert ids._varint.cache_info().currsize == TABLE_NUMBER_CACHE_ENTRIES_MAX
    assert ids._varint_value.cache_info().currsize == TABLE_NUMBER_CACHE_ENTRIES_MAX


def test_normalize_id():
    names = {10001: "rooms"}.get
    text = encode_document_id(10001, LOW)
    assert normalize_id("rooms", text, names) == text
    assert normalize_id("users", text, names) is None
    assert normalize_id("rooms", text[:-1], names) is None
    assert normalize_id("rooms", encode_document_id(10002, LOW), names) is None


@given(st.text(max_size=40))
@settings(deadline=None)
def test_random_strings_are_only_refused(text):
    decoded = try_decode_document_id(text)
    assert decoded is None or encode_document_id(*decoded) == text


def test_the_cache_of_decoded_ids_is_bounded():
    for number in range(DOCUMENT_ID_CACHE_ENTRIES_MAX + 1):
        text = encode_document_id(1, number.to_bytes(16, "big"))
        assert try_decode_document_id(text) == (1, number.to_bytes(16, "big"))
    assert ids._decoded.cache_info().currsize == DOCUMENT_ID_CACHE_ENTRIES_MAX
