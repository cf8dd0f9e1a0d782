"""The functions a module offers, as its `describe` export says: hostile input, checked, compiled once at activation."""

from typing import Any, Final, cast

from skerry import limits
from skerry.errors import ClientError, DeveloperError
from skerry.schedule.crons import parse_crons
from skerry.value import Validator, check_function_name, check_module_path, compile_validator, parse_json

ABI_VERSION: Final = 1
_KINDS: Final = frozenset(("query", "mutation", "action", "httpAction"))
_VISIBILITIES: Final = frozenset(("public", "internal"))

KIND_NUMBERS: Final[dict[str, int]] = {"query": 0, "mutation": 1, "action": 2, "httpAction": 3}


class FunctionSpec:
    """One function. Shape: `args` and `returns` are compiled validators, None where any value will do.

    `slowness` counts how often the function recently outran an inline slice; what follows from it is the lane's to say.
    """

    __slots__ = ("args", "is_public", "kind", "name", "name_bytes", "returns", "slowness")

    def __init__(
        self, name: str, kind: str, is_public: bool, args: Validator | None, returns: Validator | None
    ) -> None:
        self.name = name
        self.name_bytes = name.encode()
        self.kind = kind
        self.is_public = is_public
        self.args = args
        self.returns = returns
        self.slowness = 0


class Description:
    """A module's own description.

    Shape: `functions` by name (`module:function`), `schema` as exported or None, `auth` the app's auth config as a
    template or None (`skerry.identity.providers` judges it), `features` declared, `crons`
    by name.
    """

    __slots__ = ("auth", "crons", "features", "functions", "language", "listed", "schema")

    def __init__(self, raw: bytes) -> None:
        """Raises: ClientError `DescriptionInvalid`."""
        try:
            parsed = parse_json(
                raw, depth_max=4 * limits.VALUE_JSON_NESTING_MAX, bytes_max=limits.DESCRIPTION_BYTES_MAX
            )
            if not isinstance(parsed, dict):
                raise _invalid("it must be an object")
            fields = cast("dict[str, Any]", parsed)
            if fields.get("abi") != ABI_VERSION:
                raise _invalid(f"it names ABI {fields.get('abi')!r:.40}, and this host serves {ABI_VERSION}")
            self.language = str(fields.get("language", "unknown"))[: limits.IDENTIFIER_CHARS_MAX]
            self.listed = _list(fields, "functions", limits.FUNCTIONS_MAX)
            self.functions = {spec.name: spec for spec in map(_function, self.listed)}
            if len(self.functions) != len(self.listed):
                raise _invalid("a function is there twice")
            self.schema: Any = fields.get("schema")
            kinds = {name: spec.kind for name, spec in self.functions.items()}
            self.crons = parse_crons(fields.get("crons"), kinds)
            self.auth: Any = fields.get("auth")
            features = _list(fields, "features", limits.APP_ENTRY_MODULES_MAX)
            self.features = [str(item)[: limits.FIELD_NAME_CHARS_MAX] for item in features]
        except DeveloperError as error:
            raise ClientError(
                "DescriptionInvalid", f"The module's description is not valid: {error.message}"
            ) from error


def _list(fields: dict[str, Any], name: str, length_max: int) -> list[Any]:
    items = fields.get(name, [])
    if not isinstance(items, list) or len(cast("list[Any]", items)) > length_max:
        raise _invalid(f"{name} must be a list of at most {length_max} entries")
    return cast("list[Any]", items)


def _function(entry: Any) -> FunctionSpec:
    if not isinstance(entry, dict):
        raise _invalid("each function must be an object")
    fields = cast("dict[str, Any]", entry)
    name, kind, visibility = fields.get("name"), fields.get("kind"), fields.get("visibility")
    if not isinstance(name, str) or kind not in _KINDS or visibility not in _VISIBILITIES:
        raise _invalid("each function needs a name, a kind and a visibility")
    module, _, function = name.rpartition(":")
    check_module_path(module)
    check_function_name(function)
    return FunctionSpec(
        name, str(kind), visibility == "public", _validator(fields.get("args")), _validator(fields.get("returns"))
    )


def _validator(json: Any) -> Validator | None:
    if json is None or json == {"type": "any"}:
        return None
    return compile_validator(json)


def _invalid(why: str) -> ClientError:
    return ClientError("DescriptionInvalid", f"The module's description is not valid: {why}.")


def normalise_path(path: str) -> str | None:
    """The canonical `module:function` of a function path as callers write it, None where it is none."""
    module, colon, function = path.rpartition(":")
    if not colon:
        module, function = path, "default"
    module = module.removesuffix(".js")
    try:
        check_module_path(module)
        check_function_name(function)
    except DeveloperError:
        return None
    return f"{module}:{function}"
