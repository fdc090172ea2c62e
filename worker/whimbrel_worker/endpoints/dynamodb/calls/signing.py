"""AWS Signature Version 4 for the one shape of request that DynamoDB takes: POST / with a JSON body. botocore signs."""

from dataclasses import dataclass, field

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

SERVICE = "dynamodb"
_CONTENT_TYPE = "application/x-amz-json-1.0"


@dataclass(slots=True)
class Signer:
    """Makes the headers of signed requests to one endpoint with one set of keys. Safe for many threads."""

    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    _auth: SigV4Auth = field(init=False, repr=False)

    def __post_init__(self) -> None:
        keys = ReadOnlyCredentials(self.access_key, self.secret_key, self.token)
        self._auth = SigV4Auth(keys, SERVICE, self.region)

    def headers(self, target: str, body: bytes) -> dict[str, str]:
        """All headers of the request. `target`: what X-Amz-Target says."""
        told = {"X-Amz-Target": target, "Content-Type": _CONTENT_TYPE, "Accept-Encoding": "identity"}
        request = AWSRequest("POST", f"{self.endpoint}/", headers=told, data=body)
        self._auth.add_auth(request)
        return dict(request.headers.items())
