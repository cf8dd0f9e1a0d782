"""Random values for the property tests, with the corners of the model more likely than chance would have them."""

import struct

from hypothesis import strategies as st

from skerry.value import UNDEFINED, Int64

float_bits = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0])
special_floats = st.sampled_from(
    [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 2.0**53, 2.0**53 - 1, 1e16, 0.05]
)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.integers(-3, 3), float_bits, special_floats)
int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 0, -1])).map(Int64)
strings = st.one_of(
    st.text(st.sampled_from("\0\x01aé\uffff😀"), max_size=6),
    st.text(max_size=8).filter(lambda text: text.isprintable()),
)
blobs = st.one_of(st.lists(st.sampled_from([0, 1, 255]), max_size=5).map(bytes), st.binary(max_size=8))
field_names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=4).filter(
    lambda name: not name.startswith("$")
)
scalars = st.one_of(st.none(), st.booleans(), numbers, int64s, strings, blobs)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(field_names, inner, max_size=4)),
    max_leaves=12,
)
ordered = st.one_of(values, st.just(UNDEFINED))


def same(left, right) -> bool:
    """Bitwise equality of decoded values: NaN equals itself, -0 is not 0, an int equals the float it stands for."""
    if isinstance(left, bool) or isinstance(right, bool) or left is None or right is None:
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left == right
