"""The Secret of Kubernetes, as far as manifests of a local run carry it. Its values are shown nowhere."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from whimbrel_api.base import Model, ObjectMeta, SecretKey


def _decodable(value: SecretStr) -> SecretStr:
    try:
        base64.b64decode(value.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("data holds base64; write plain text under stringData") from None
    return value


def _encodable(value: SecretStr) -> SecretStr:
    if any("\ud800" <= char <= "\udfff" for char in value.get_secret_value()):
        raise ValueError("the value is no valid Unicode text")
    return value


class SecretManifest(Model):
    """A Secret: `stringData` as plain text, `data` in base64; `stringData` wins, as in Kubernetes."""

    model_config = ConfigDict(hide_input_in_errors=True)

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    metadata: ObjectMeta
    type: str = "Opaque"
    immutable: bool = False
    string_data: dict[SecretKey, Annotated[SecretStr, AfterValidator(_encodable)]] = Field(default={}, repr=False)
    data: dict[SecretKey, Annotated[SecretStr, AfterValidator(_decodable)]] = Field(default={}, repr=False)

    def contents(self) -> dict[str, bytes]:
        """The bytes of every key. Keep them out of logs, status and arguments."""
        decoded = {key: base64.b64decode(value.get_secret_value(), validate=True) for key, value in self.data.items()}
        return decoded | {key: value.get_secret_value().encode() for key, value in self.string_data.items()}
