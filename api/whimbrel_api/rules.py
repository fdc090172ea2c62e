"""Rules between fields, each once in CEL for the API server and once in Python for files. Bounds stand in the types.

They bind what a person hands in. A resource that is already there and breaks a newer rule can still be read, so that
the operator goes on reporting on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from whimbrel_api.cutover import Cutover, FreezeMethod, FreezePolicy, SourceFreeze
from whimbrel_api.durations import seconds
from whimbrel_api.endpoints import AuroraDSQLTarget, Dialect, DynamoDBSource, DynamoDBTarget
from whimbrel_api.hooks import EnvSource, EnvVar, Hook, Hooks, ServiceSwitch, SwitchStep
from whimbrel_api.migration import MigrationSpec, Mode, SchemaMode
from whimbrel_api.reverse_sync import ReverseSyncSpec
from whimbrel_api.validation import ValidationSpec

FROZEN: Final = ("mode", "source", "target", "tables", "schema")
"""The fields of a Migration's spec that are held in place once the work has begun."""

CHANGEABLE: Final = ("credentialsSecretRef", "tls")
"""What may change in a source or target nevertheless."""

WAYS_BACK: Final[frozenset[tuple[str, str]]] = frozenset({("dynamodb", "dynamodb")})
"""The kinds of source and target, as manifests name them, between which changes can flow back."""

_DSQL_DOMAIN: Final = ".on.aws"


@dataclass(frozen=True)
class Rule:
    """`holds` takes an `owner` and says the same of it as `cel`. `field`: where a breach is shown, in dots."""

    owner: type[BaseModel]
    field: str
    cel: str
    message: str
    holds: Callable[[Any], bool]


def _has_way_back(spec: MigrationSpec) -> bool:
    return not spec.reverse_sync.enabled or (spec.source.kind, spec.target.kind) in WAYS_BACK


def _way_back_cel() -> str:
    pairs = [f"(has(self.source.{source}) && has(self.target.{target}))" for source, target in sorted(WAYS_BACK)]
    return " || ".join(["!self.reverseSync.enabled", *pairs])


def _names_the_server(spec: MigrationSpec) -> bool:
    return not spec.reverse_sync.enabled or spec.reverse_sync.polardb is not None


def _switches(spec: MigrationSpec) -> bool:
    return not spec.reverse_sync.enabled or spec.mode is Mode.SNAPSHOT_AND_STREAM


def _same_kind(spec: MigrationSpec) -> bool:
    return (spec.source.dynamodb is None) == (spec.target.dynamodb is None)


def _compared_kind(spec: ValidationSpec) -> bool:
    if spec.source is None or spec.target is None:
        return True
    return (spec.source.dynamodb is None) == (spec.target.dynamodb is None)


def _has_endpoint(target: DynamoDBTarget) -> bool:
    return target.dialect is not Dialect.POLARDB or target.endpoint is not None


def _has_account(target: DynamoDBTarget) -> bool:
    return target.dialect is not Dialect.POLARDB or target.credentials_secret_ref is not None


def _forward_source(spec: MigrationSpec) -> bool:
    return spec.source.polardb is None


def _compared_source(spec: ValidationSpec) -> bool:
    return spec.source is None or spec.source.polardb is None


def _shared_log(spec: MigrationSpec) -> bool:
    return spec.stream.workers == 1 or spec.source.dynamodb is not None


def _spoolable(spec: MigrationSpec) -> bool:
    return spec.stream.spool is None or spec.source.dynamodb is not None


def _one_long_log(spec: MigrationSpec) -> bool:
    return spec.stream.spool is None or spec.source.dynamodb is None or not spec.source.dynamodb.kinesis_streams


def _recreate_named(spec: MigrationSpec) -> bool:
    recreates = spec.schema_.mode is SchemaMode.RECREATE
    return recreates == bool(spec.schema_.recreate) and (not recreates or spec.target.dynamodb is not None)


def _own_method(spec: MigrationSpec) -> bool:
    denies = spec.cutover.freeze.method is FreezeMethod.DENY_POLICY
    return spec.cutover.source_freeze is not SourceFreeze.OPERATOR or denies == (spec.source.dynamodb is not None)


def _excepts_by_policy(policy: FreezePolicy) -> bool:
    return not policy.except_principals or policy.method is FreezeMethod.DENY_POLICY


def _reachable_lag(spec: MigrationSpec) -> bool:
    waits = seconds(spec.stream.flush_interval) > seconds(spec.thresholds.lag)
    return spec.mode is Mode.SNAPSHOT_ONLY or not waits


def _own_region(target: AuroraDSQLTarget) -> bool:
    foreign = target.endpoint.endswith(_DSQL_DOMAIN)
    return not foreign or target.endpoint.endswith(f".{target.region}{_DSQL_DOMAIN}")


def _own_kinesis(source: DynamoDBSource) -> bool:
    return all(
        not each.stream.startswith("arn:") or f":kinesis:{source.region}:" in each.stream
        for each in source.kinesis_streams
    )


def _no_idle_overrides(spec: ValidationSpec) -> bool:
    return spec.migration_ref is None or not spec.tables.overrides


def _samples_items(spec: ValidationSpec) -> bool:
    return spec.mode != "Sample" or spec.source is None or spec.source.dynamodb is not None


def _named_publication(spec: ReverseSyncSpec) -> bool:
    return spec.create_publication or bool(spec.publication_name)


def _one_switch(switch: SwitchStep) -> bool:
    return [switch.config_map, switch.secret, switch.service].count(None) == 2


def _other_secret(switch: SwitchStep) -> bool:
    secret = switch.secret
    return secret is None or (secret.name, secret.key) != (secret.from_.name, secret.from_.key)


def _one_way(service: ServiceSwitch) -> bool:
    return bool(service.selector) != (service.external_name is not None)


def _one_value(variable: EnvVar) -> bool:
    return not variable.value or variable.value_from is None


def _one_env_source(source: EnvSource) -> bool:
    return (source.secret_key_ref is None) != (source.config_map_key_ref is None)


def _cuts_over(spec: MigrationSpec) -> bool:
    return spec.mode is not Mode.SNAPSHOT_ONLY or not (spec.cutover.hooks.any or spec.cutover.switch)


def _unlike_in(field: str) -> Callable[[Hooks | Cutover], bool]:
    def unlike(owner: Hooks | Cutover) -> bool:
        entries: Sequence[Hook | SwitchStep] = getattr(owner, field)
        return len({each.name for each in entries}) == len(entries)

    return unlike


def _unlike_cel(field: str) -> str:
    return f"!has(self.{field}) || self.{field}.all(a, self.{field}.exists_one(b, b.name == a.name))"


_LISTS: Final = {"beforeFreeze": "before_freeze", "afterDrain": "after_drain", "afterSwitch": "after_switch"}
_TWICE: Final = "a name stands twice in it; each names a Job"

HOOK_RULES: Final = (
    Rule(
        SwitchStep, "name", "[has(self.configMap), has(self.secret), has(self.service)].exists_one(given, given)",
        "name exactly one: configMap, secret, service", _one_switch,
    ),
    Rule(
        SwitchStep, "secret",
        "!has(self.secret) || self.secret.name != self.secret.from.name || self.secret.key != self.secret.from.key",
        "it takes its own value; name another Secret or key in from", _other_secret,
    ),
    Rule(
        ServiceSwitch, "name", "(has(self.selector) && size(self.selector) > 0) != has(self.externalName)",
        "name exactly one: selector, externalName", _one_way,
    ),
    Rule(
        EnvVar, "name", "!has(self.valueFrom) || !has(self.value) || size(self.value) == 0",
        "give value or valueFrom, not both", _one_value,
    ),
    Rule(
        EnvSource, "secretKeyRef", "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        "name exactly one: secretKeyRef, configMapKeyRef", _one_env_source,
    ),
    *(Rule(Hooks, alias, _unlike_cel(alias), _TWICE, _unlike_in(name)) for alias, name in _LISTS.items()),
    Rule(Cutover, "switch", _unlike_cel("switch"), _TWICE, _unlike_in("switch")),
    Rule(
        MigrationSpec, "cutover.hooks",
        "self.mode != 'SnapshotOnly' || (size(self.cutover.switch) == 0 && size(self.cutover.hooks.beforeFreeze) == 0"
        " && size(self.cutover.hooks.afterDrain) == 0 && size(self.cutover.hooks.afterSwitch) == 0)",
        "a copy without a stream has no cutover; leave hooks and switch out", _cuts_over,
    ),
)  # fmt: skip

RULES: Final = (
    *HOOK_RULES,
    Rule(
        MigrationSpec, "reverseSync.enabled", _way_back_cel(),
        "there is no way back from this kind of target to this kind of source; set it to false", _has_way_back,
    ),
    Rule(
        MigrationSpec, "reverseSync.polardb", "!self.reverseSync.enabled || has(self.reverseSync.polardb)",
        "the way back reads PolarDB's own log: name its server with host, database and credentialsSecretRef",
        _names_the_server,
    ),
    Rule(
        MigrationSpec, "reverseSync.enabled", "!self.reverseSync.enabled || self.mode == 'SnapshotAndStream'",
        "a way back begins with a cutover, and a copy without a stream has none; set it to false", _switches,
    ),
    Rule(
        MigrationSpec, "source", "!has(self.source.polardb)",
        "PolarDB is read on the way back only: make a ReverseSync", _forward_source,
    ),
    Rule(
        ValidationSpec, "source", "!has(self.source) || !has(self.source.polardb)",
        "name PolarDB's DynamoDB endpoint as the dynamodb target instead", _compared_source,
    ),
    Rule(
        DynamoDBTarget, "endpoint", "self.dialect != 'PolarDB' || has(self.endpoint)",
        "PolarDB's endpoint must be named", _has_endpoint,
    ),
    Rule(
        DynamoDBTarget, "credentialsSecretRef", "self.dialect != 'PolarDB' || has(self.credentialsSecretRef)",
        "PolarDB asks for an account: name its Secret", _has_account,
    ),
    Rule(
        MigrationSpec, "target", "has(self.source.dynamodb) == has(self.target.dynamodb)",
        "rows and items do not mix: a dynamodb source goes to a dynamodb target, and no other source does", _same_kind,
    ),
    Rule(
        MigrationSpec, "stream.workers", "self.stream.workers == 1 || has(self.source.dynamodb)",
        "this source's log is read by one worker; leave it at 1", _shared_log,
    ),
    Rule(
        MigrationSpec, "stream.spool", "!has(self.stream.spool) || has(self.source.dynamodb)",
        "this source keeps its own log for as long as it is set to; leave it out", _spoolable,
    ),
    Rule(
        MigrationSpec, "stream.spool",
        "!has(self.stream.spool) || !has(self.source.dynamodb) || size(self.source.dynamodb.kinesisStreams) == 0",
        "not together with source.dynamodb.kinesisStreams, which keep changes themselves; raise their retention,"
        " or move the other tables in a migration of their own",
        _one_long_log,
    ),
    Rule(
        MigrationSpec, "schema.recreate",
        "(self.schema.mode == 'Recreate') == (size(self.schema.recreate) > 0)"
        " && (self.schema.mode != 'Recreate' || has(self.target.dynamodb))",
        "name the tables to drop and make anew together with mode Recreate, on a dynamodb target only", _recreate_named,
    ),
    Rule(
        MigrationSpec, "cutover.freeze.method",
        "self.cutover.sourceFreeze != 'Operator'"
        " || (self.cutover.freeze.method == 'DenyPolicy') == has(self.source.dynamodb)",
        "a dynamodb source is frozen by DenyPolicy and no other source is; or set cutover.sourceFreeze to User",
        _own_method,
    ),
    Rule(
        FreezePolicy, "exceptPrincipals",
        "!has(self.exceptPrincipals) || size(self.exceptPrincipals) == 0 || self.method == 'DenyPolicy'",
        "only a deny policy excepts principals; leave it out", _excepts_by_policy,
    ),
    Rule(
        MigrationSpec, "thresholds.lag",
        "self.mode == 'SnapshotOnly' || duration(self.stream.flushInterval) <= duration(self.thresholds.lag)",
        "a lag shorter than stream.flushInterval is never reached; raise it or shorten stream.flushInterval",
        _reachable_lag,
    ),
    Rule(
        AuroraDSQLTarget, "region",
        f"!self.endpoint.endsWith('{_DSQL_DOMAIN}') || self.endpoint.endsWith('.' + self.region + '{_DSQL_DOMAIN}')",
        "not the region in the endpoint's name; give the cluster's own", _own_region,
    ),
    Rule(
        DynamoDBSource, "kinesisStreams",
        "self.kinesisStreams.all(each, !each.stream.startsWith('arn:')"
        " || each.stream.contains(':kinesis:' + self.region + ':'))",
        "a table's Kinesis data stream lies in the table's own region; correct the ARN or the region", _own_kinesis,
    ),
    Rule(
        ValidationSpec, "tables.overrides",
        "!has(self.migrationRef) || size(self.tables.overrides) == 0",
        "not together with migrationRef, whose Migration has its own; leave them out", _no_idle_overrides,
    ),
    Rule(
        ValidationSpec, "target",
        "!has(self.source) || !has(self.target) || has(self.source.dynamodb) == has(self.target.dynamodb)",
        "rows and items do not mix: a dynamodb source is compared with a dynamodb target", _compared_kind,
    ),
    Rule(
        ValidationSpec, "mode",
        "self.mode != 'Sample' || !has(self.source) || has(self.source.dynamodb)",
        "a sample is taken of a dynamodb source's items only; leave it at Full", _samples_items,
    ),
    Rule(
        ReverseSyncSpec, "publicationName",
        "self.createPublication || size(self.publicationName) > 0",
        "name the publication, as createPublication is false", _named_publication,
    ),
)  # fmt: skip


def breaches(model: BaseModel) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The rules that the model or anything in it breaks: where, as a manifest names it, and what is wrong."""
    for rule in RULES:
        if isinstance(model, rule.owner) and not rule.holds(model):
            yield tuple(rule.field.split(".")), rule.message
    for name, info in type(model).model_fields.items():
        for inner, value in _models_in(getattr(model, name)):
            for location, message in breaches(value):
                yield (info.alias or name, *inner, *location), message


def _models_in(value: object) -> Iterator[tuple[tuple[str | int, ...], BaseModel]]:
    """The value itself, or the members of a list, where they are models."""
    if isinstance(value, BaseModel):
        yield (), value
    elif isinstance(value, list):
        yield from (((index,), each) for index, each in enumerate(value) if isinstance(each, BaseModel))
