"""Filters of searches: comparisons, and their combination with `and` and `or`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Union

from feast._definition import shown

_COMPARISONS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")
_COMBINATIONS = ("and", "or")


class ComparisonFilter:
    """A feature compared with a value; `type` is one of eq, ne, gt, gte, lt, lte, in, nin."""

    def __init__(self, *, type: str, key: str, value: Any) -> None:
        if type not in _COMPARISONS:
            raise ValueError(f"`{type}` is no comparison; use one of {', '.join(_COMPARISONS)}")
        self.type = type
        self.key = key
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComparisonFilter) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class CompoundFilter:
    """Several filters of which all (`and`) or any (`or`) must hold."""

    def __init__(self, *, type: str, filters: list[Filter]) -> None:
        if type not in _COMBINATIONS:
            raise ValueError(f"`{type}` combines no filters; use `and` or `or`")
        self.type = type
        self.filters = filters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompoundFilter) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


Filter = Union[ComparisonFilter, CompoundFilter]
FilterType = Union[ComparisonFilter, CompoundFilter, None]


class FilterTranslator(ABC):
    """Base of translators of filters into the language of a store."""

    @abstractmethod
    def translate(self, filters: FilterType) -> Any:
        """The whole filter in the language of the store."""

    @abstractmethod
    def translate_comparison(self, f: ComparisonFilter) -> Any:
        """One comparison."""

    @abstractmethod
    def translate_compound(self, f: CompoundFilter) -> Any:
        """A combination."""

    def _dispatch(self, filter_obj: Filter) -> Any:
        if isinstance(filter_obj, ComparisonFilter):
            return self.translate_comparison(filter_obj)
        if isinstance(filter_obj, CompoundFilter):
            return self.translate_compound(filter_obj)
        raise ValueError(f"a {type(filter_obj).__name__} is no filter")


def filters_contain_numeric_comparison(filter_obj: Filter) -> bool:
    """Whether any comparison is with a number (truth values are none)."""
    if isinstance(filter_obj, CompoundFilter):
        return any(filters_contain_numeric_comparison(one) for one in filter_obj.filters)
    value = filter_obj.value
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def convert_dict_to_filter(filter_dict: dict[str, Any]) -> Filter:
    """The filter that a dictionary (for instance from JSON) describes."""
    missing = {"type"} - filter_dict.keys()
    compound = filter_dict.get("type") in _COMBINATIONS
    missing |= ({"filters"} if compound else {"key", "value"}) - filter_dict.keys()
    if missing:
        raise ValueError(f"the filter {filter_dict} lacks {', '.join(sorted(missing))}")
    if compound:
        inner = [convert_dict_to_filter(one) for one in filter_dict["filters"]]
        return CompoundFilter(type=filter_dict["type"], filters=inner)
    return ComparisonFilter(
        type=filter_dict["type"], key=filter_dict["key"], value=filter_dict["value"]
    )
