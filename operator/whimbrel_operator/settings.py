"""The operator process's settings, read from environment variables. No secret stands among them."""

import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, get_args

from whimbrel_api.durations import seconds
from whimbrel_api.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, USUAL_FORMAT, USUAL_LEVEL, LogFormat, LogLevel
from whimbrel_operator.errors import SettingsError
from whimbrel_operator.specs import pods_form
from whimbrel_operator.specs.settings import PodSettings, PullPolicy

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PORT: Final = 8080
_T = TypeVar("_T")


@dataclass(frozen=True)
class LeaseTimes:
    """In seconds: how long a Lease holds, how long its holder tries to renew it, how long between two tries."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


@dataclass(frozen=True)
class Settings:
    """All that the process is told from outside.

    `namespaces`: those watched, all when empty. `namespace`: its own, where the Lease stands. `kubeconfig` None: the
    service account's folder is used. `passes`: how many resources are reconciled at a time. `stalled_after`: seconds a
    pass may be overdue before the process calls itself dead. `pass_timeout`: seconds that one pass may take.
    """

    pods: PodSettings
    namespace: str
    namespaces: tuple[str, ...] = ()
    listen: tuple[str, int] = ("0.0.0.0", PORT)  # noqa: S104 - probes and scrapes come from other machines
    service_account: Path = SERVICE_ACCOUNT
    kubeconfig: Path | None = None
    lease: LeaseTimes = LeaseTimes()
    identity: str = "whimbrel-operator"
    passes: int = 16
    stalled_after: float = 90.0
    pass_timeout: float = 30.0
    log_format: LogFormat = USUAL_FORMAT
    log_level: LogLevel = USUAL_LEVEL

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings of an environment. Raises SettingsError: which variable, what is wrong, an example."""
        read = _Reader(environ)
        kubeconfig, account = way_in(environ)
        log_format: LogFormat = read.choice(FORMAT_VARIABLE, LogFormat, USUAL_FORMAT)
        log_level: LogLevel = read.choice(LEVEL_VARIABLE, LogLevel, USUAL_LEVEL)
        pods = read.pods().settings(
            read.required("WHIMBREL_WORKER_IMAGE", "registry.example.com/whimbrel:0.1.0"),
            read.choice("WHIMBREL_IMAGE_PULL_POLICY", PullPolicy, "IfNotPresent"),
        )
        return cls(
            pods=replace(pods, log_format=log_format, log_level=log_level),
            namespace=_own_namespace(read, account, inside=kubeconfig is None),
            namespaces=read.names("WHIMBREL_NAMESPACES"),
            listen=read.parsed("WHIMBREL_LISTEN", _address, f"0.0.0.0:{PORT}"),
            service_account=account,
            kubeconfig=kubeconfig,
            lease=_lease(read),
            identity=f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}",
            passes=read.parsed("WHIMBREL_CONCURRENT_PASSES", _count, "16"),
            stalled_after=read.parsed("WHIMBREL_STALLED_AFTER", _duration, "90s"),
            pass_timeout=read.parsed("WHIMBREL_PASS_TIMEOUT", _duration, "30s"),
            log_format=log_format,
            log_level=log_level,
        )


@dataclass(frozen=True)
class _Reader:
    environ: Mapping[str, str]

    def text(self, name: str, usual: str) -> str:
        return self.environ.get(name, "").strip() or usual

    def required(self, name: str, example: str) -> str:
        value = self.text(name, "")
        if not value:
            raise SettingsError(f"{name} is not set", todo=f"set it, for example {name}={example}")
        return value

    def choice(self, name: str, choices: object, usual: str) -> _T:  # type: ignore[type-var]
        value, allowed = self.text(name, usual), get_args(choices)
        if value not in allowed:
            raise SettingsError(f"{name}={value!r} is not known", todo=f"set one of {', '.join(allowed)}")
        return value  # type: ignore[return-value]

    def names(self, name: str) -> tuple[str, ...]:
        found = sorted({each.strip() for each in self.text(name, "").split(",") if each.strip()})
        for each in found:
            if not each.replace("-", "").isalnum() or each != each.lower():
                raise SettingsError(f"{name} holds {each!r}, no namespace", todo=f"write {name}=shop,billing")
        return tuple(found)

    def pods(self) -> pods_form.PodsForm:
        try:
            return pods_form.parse(self.text("WHIMBREL_PODS", "{}"))
        except ValueError as error:
            raise SettingsError(
                "WHIMBREL_PODS cannot be",
                why=str(error),
                todo="with the chart it comes from `workers` in values.yaml; by hand for example "
                """WHIMBREL_PODS='{"resources": {"snapshot": {"limits": {"memory": "2Gi"}}}}'""",
            ) from error

    def parsed(self, name: str, parse: Callable[[str], _T], usual: str) -> _T:
        value = self.text(name, usual)
        try:
            return parse(value)
        except ValueError as error:
            raise SettingsError(f"{name}={value!r}: {error}", todo=f"for example {name}={usual}") from error


def _address(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - an empty host means every interface


def _count(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 1000:
        raise ValueError("it must be a whole number from 1 to 1000")
    return int(value)


def _duration(value: str) -> float:
    found = seconds(value)
    if found <= 0:
        raise ValueError("it must be longer than nothing")
    return found


def _lease(read: _Reader) -> LeaseTimes:
    times = LeaseTimes(
        duration=read.parsed("WHIMBREL_LEASE_DURATION", _duration, "15s"),
        renew_deadline=read.parsed("WHIMBREL_LEASE_RENEW_DEADLINE", _duration, "10s"),
        retry_period=read.parsed("WHIMBREL_LEASE_RETRY_PERIOD", _duration, "2s"),
    )
    if times.duration != int(times.duration):
        raise SettingsError("WHIMBREL_LEASE_DURATION must be whole seconds", todo="for example 15s")
    if not times.retry_period < times.renew_deadline < times.duration:
        raise SettingsError(
            "the Lease's times do not fit together",
            why="a holder must give up before another may take over",
            todo="keep WHIMBREL_LEASE_RETRY_PERIOD < WHIMBREL_LEASE_RENEW_DEADLINE < WHIMBREL_LEASE_DURATION, "
            "for example 2s, 10s and 15s",
        )
    return times


def way_in(environ: Mapping[str, str]) -> tuple[Path | None, Path]:
    """A kubeconfig, None where there is none, and the folder of a pod's own account. Raises SettingsError."""
    return _kubeconfig(environ), Path(_Reader(environ).text("WHIMBREL_SERVICE_ACCOUNT", str(SERVICE_ACCOUNT)))


def _kubeconfig(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("KUBECONFIG", "").strip()
    if given:
        path = Path(given)
        if not path.is_file():
            raise SettingsError(f"KUBECONFIG={given}: there is no such file", todo="name one kubeconfig file")
        return path
    if not environ.get("KUBERNETES_SERVICE_HOST"):
        raise SettingsError(
            "no cluster is named",
            why="neither KUBECONFIG nor KUBERNETES_SERVICE_HOST is set",
            todo="outside a cluster set KUBECONFIG to a kubeconfig file; in a pod Kubernetes sets the other",
        )
    return None


def _own_namespace(read: _Reader, account: Path, *, inside: bool) -> str:
    given = read.text("WHIMBREL_NAMESPACE", "")
    if given or not inside:
        return given or "default"
    try:
        return (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            "the operator's own namespace is not known", why=str(error), todo="set WHIMBREL_NAMESPACE=whimbrel-system"
        ) from error
