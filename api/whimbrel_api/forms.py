"""The words for a text's form, such as a duration's. What a field is for is said where it stands."""

from typing import Any, Final

from pydantic import TypeAdapter

from whimbrel_api.base import Duration, Host, Name, Region, SecretKey
from whimbrel_api.endpoints import RoleArn, Url


def _form(kind: Any) -> tuple[str, str]:
    schema = TypeAdapter(kind).json_schema()
    return schema["pattern"], schema["description"]


_FORMS: Final = dict(_form(kind) for kind in (Duration, Host, Name, Region, RoleArn, SecretKey, Url))


def form_of(pattern: str) -> str:
    """The words for a pattern that several fields share, such as an AWS region's; empty where it has none."""
    return _FORMS.get(pattern, "")
