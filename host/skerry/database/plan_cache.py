"""Plans by the text of their queries: a function asks the same few questions, mostly with another value each time.

A text is looked up whole. Where that fails and the text has exactly one `"value":`, it is looked up without what stands
behind it: a query that differs from a known one only in the value of its single equality gets that one's plan with
another key range, and need not be parsed, checked and resolved. Only scalars are taken this way, as the JSON parser
reads them, and only from texts without escapes, so that what looks like the member `value` is it.

A plan belongs to the catalog it was made for; an older one is made anew.
"""

from typing import Any, Final

import orjson

from skerry.database.catalog import Catalog
from skerry.database.query import Plan, compile_query, equality_value, parse_query_argument
from skerry.limits import PLAN_CACHE_ENTRIES_MAX, PLAN_CACHE_TEXT_BYTES_MAX
from skerry.value.kinds import FLOAT_INTEGER_MAX

_VALUE: Final = b'"value":'
_MARK: Final = b"\0"
"""Stands where the value was; no JSON text has it."""
_SCALARS: Final = frozenset((str, float, bool, type(None)))


class PlanCache:
    """The plans of one deployment. Limits: `PLAN_CACHE_ENTRIES_MAX`, and texts of `PLAN_CACHE_TEXT_BYTES_MAX`."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def plan(self, text: bytes, catalog: Catalog) -> Plan:
        """The plan of the query in an operation's argument. Raises: DeveloperError of `compile_query`."""
        plan = self._plans.get(text)
        if plan is not None and plan.catalog is catalog:
            return plan
        if len(text) > PLAN_CACHE_TEXT_BYTES_MAX:
            return compile_query(parse_query_argument(text), catalog)
        shape, value = _shape_and_value(text)
        if shape is None:
            plan = compile_query(parse_query_argument(text), catalog)
            self._remember(text, plan)
            return plan
        plan = self._plans.get(shape)
        if plan is not None and plan.catalog is catalog:
            return plan.rebound(value)
        query = parse_query_argument(text)
        plan = compile_query(query, catalog)
        is_equality = equality_value(query) == value and (plan.index is None or plan.index.range_fields != ("_id",))
        self._remember(shape if is_equality and plan.table is not None else text, plan)
        return plan

    def _remember(self, key: bytes, plan: Plan) -> None:
        """Keeps a plan, and forgets the oldest where there are too many. The words of a search seldom come again."""
        if plan.search is not None:
            return
        plans = self._plans
        if len(plans) >= PLAN_CACHE_ENTRIES_MAX and key not in plans:
            del plans[next(iter(plans))]
        plans[key] = plan


def _shape_and_value(text: bytes) -> tuple[bytes | None, Any]:
    """A text without the scalar behind its only `"value":`, and that scalar; or None where there is no such thing."""
    head, found, tail = text.partition(_VALUE)
    if not found or _VALUE in tail or b"\\" in text:
        return None, None
    scalar, brace, rest = tail.partition(b"}")
    if not brace:
        return None, None
    try:
        value: Any = orjson.loads(scalar)
    except orjson.JSONDecodeError:
        return None, None
    if type(value) is int:
        if not -FLOAT_INTEGER_MAX < value < FLOAT_INTEGER_MAX:
            return None, None
    elif type(value) not in _SCALARS:
        return None, None
    return head + _MARK + rest, value
