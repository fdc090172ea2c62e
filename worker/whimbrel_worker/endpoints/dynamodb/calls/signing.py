"""AWS Signature Version 4 for the one shape of request that AWS's JSON services take: POST / with a JSON body.
botocore signs.
"""

from dataclasses import dataclass, field

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials


@dataclass(frozen=True, slots=True)
class Service:
    """A service of AWS's JSON protocol: what is signed for, what stands before an operation's name, and which JSON.

    `name` is also the prefix of its IAM actions; `lister` an operation that lists a little for the asking.
    """

    name: str
    prefix: str
    lister: str
    json_version: str = "1.0"


TABLES = Service("dynamodb", "DynamoDB_20120810", "ListTables")
STREAMS = Service("dynamodb", "DynamoDBStreams_20120810", "ListStreams")
KINESIS = Service("kinesis", "Kinesis_20131202", "ListStreams", "1.1")


@dataclass(slots=True)
class Signer:
    """Makes the headers of signed requests to one endpoint with one set of keys. Safe for many threads."""

    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    service: Service = TABLES
    _auth: SigV4Auth = field(init=False, repr=False)

    def __post_init__(self) -> None:
        keys = ReadOnlyCredentials(self.access_key, self.secret_key, self.token)
        self._auth = SigV4Auth(keys, self.service.name, self.region)

    def headers(self, target: str, body: bytes) -> dict[str, str]:
        """All headers of the request. `target`: what X-Amz-Target says."""
        content_type = f"application/x-amz-json-{self.service.json_version}"
        told = {"X-Amz-Target": target, "Content-Type": content_type, "Accept-Encoding": "identity"}
        request = AWSRequest("POST", f"{self.endpoint}/", headers=told, data=body)
        self._auth.add_auth(request)
        return dict(request.headers.items())
