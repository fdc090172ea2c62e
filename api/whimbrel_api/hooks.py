"""What a cutover does for the application: hooks, which are Jobs of the user's, and switches of where it connects.

Both run under a service account that the user names. When they run and what their end leads to stands elsewhere.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from whimbrel_api.base import Duration, Host, Model, Moment, Name, SecretKey, Within

MOST: Final = 10
"""How many hooks a list may hold, and how many switches."""
LONGEST_NAME: Final = 30
"""How many characters the name of a hook or switch may have."""

HookName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_NAME,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="A short name, once in its list: lower-case letters, digits and dashes.",
    ),
]
Argument = Annotated[str, Field(max_length=4096, description="One word, handed over as it is.")]
Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        description="An amount as Kubernetes writes it, such as 250m, 2 or 1Gi.",
    ),
]
Account = Annotated[
    Name,
    Field(description="The ServiceAccount of this namespace that it runs as, with the rights that you have given it."),
]
LabelValue = Annotated[str, Field(max_length=63)]


class HookPoint(StrEnum):
    """When in a cutover something is done for the application."""

    BEFORE_FREEZE = "BeforeFreeze"
    AFTER_DRAIN = "AfterDrain"
    SWITCH = "Switch"
    AFTER_SWITCH = "AfterSwitch"
    PUT_BACK = "PutBack"


class KeyRef(Model):
    """One key of a Secret or ConfigMap in the resource's own namespace."""

    name: Name = Field(description="Its name, in this namespace.")
    key: SecretKey = Field(description="Which of its keys.")


class EnvSource(Model):
    """Where the value of an environment variable comes from: one of these."""

    secret_key_ref: KeyRef | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeyRef | None = Field(default=None, description="A key of a ConfigMap.")


class EnvVar(Model):
    """One environment variable. What is secret comes from a Secret, never as `value`."""

    name: str = Field(
        min_length=1, max_length=255, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", description="As Kubernetes takes it."
    )
    value: str = Field(default="", max_length=4096, description="Anybody who may read the resource sees it.")
    value_from: EnvSource | None = None


class HookResources(Model):
    """What the hook's container asks for and may have."""

    requests: dict[str, Quantity] = Field(default={}, max_length=10, description="Such as cpu and memory.")
    limits: dict[str, Quantity] = Field(default={}, max_length=10, description="Such as memory.")


class PodSecurity(StrEnum):
    """`Restricted` is the pod security standard of that name; `Unset` leaves all to the namespace and the image."""

    RESTRICTED = "Restricted"
    UNSET = "Unset"


class Hook(Model):
    """A Job that runs once in a cutover, whose end is awaited. It must bear being run again after a failure."""

    name: HookName
    service_account_name: Account
    image: str = Field(min_length=1, max_length=512, pattern=r"^\S+$", description="The image of its one container.")
    command: list[Argument] = Field(default=[], max_length=64, description="The image's own when empty.")
    args: list[Argument] = Field(default=[], max_length=64, description="The image's own when empty.")
    env: list[EnvVar] = Field(default=[], max_length=64, description="Environment variables.")
    resources: HookResources = HookResources()
    automount_service_account_token: bool = Field(
        default=False, description="Whether the pod finds the account's token, for hooks that call the API server."
    )
    pod_security: PodSecurity = Field(
        default=PodSecurity.RESTRICTED,
        description="Restricted: as the standard of that name asks. Unset: as namespace and image have it.",
    )
    run_as_user: int = Field(default=65532, ge=1, le=2147483647, description="The user id, where it is Restricted.")
    timeout: Annotated[Duration, Within("1s", "24h")] = Field(
        default="5m", description="How long it may run; then it has failed."
    )
    backoff_limit: int = Field(default=0, ge=0, le=10, description="How often a failed pod is replaced.")


class Hooks(Model):
    """The hooks of a cutover, each list in its order, one after the other."""

    before_freeze: list[Hook] = Field(
        default=[], max_length=MOST, description="Before the source is frozen; a failure gives the cutover up."
    )
    after_drain: list[Hook] = Field(
        default=[], max_length=MOST, description="When the target has everything; a failure gives the cutover up."
    )
    after_switch: list[Hook] = Field(
        default=[], max_length=MOST, description="When the applications have been switched; nothing is taken back."
    )

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.before_freeze or self.after_drain or self.after_switch)


class ConfigMapSwitch(Model):
    """A key of a ConfigMap and its new value."""

    name: Name = Field(description="The ConfigMap.")
    key: SecretKey = Field(description="Which of its keys.")
    value: str = Field(max_length=16384, description="The new value; what is secret belongs into a Secret.")


class SecretSwitch(Model):
    """A key of a Secret that takes the value of a key of another Secret."""

    name: Name = Field(description="The Secret.")
    key: SecretKey = Field(description="Which of its keys.")
    from_: KeyRef = Field(alias="from", description="The Secret and key whose value it takes.")


class ServiceSwitch(Model):
    """A Service that leads elsewhere: by another selector, or by another external name where it is of that type."""

    name: Name = Field(description="The Service.")
    selector: dict[str, LabelValue] = Field(
        default={}, max_length=20, description="The whole new selector; the old one is replaced, not added to."
    )
    external_name: Host | None = Field(
        default=None, description="The new host name, for a Service of type ExternalName."
    )


class SwitchStep(Model):
    """One thing by which applications find their database, changed after the fence: exactly one of the three."""

    name: HookName
    service_account_name: Account
    config_map: ConfigMapSwitch | None = None
    secret: SecretSwitch | None = None
    service: ServiceSwitch | None = None
    timeout: Annotated[Duration, Within("1s", "24h")] = Field(
        default="5m", description="How long it may take; then it has failed."
    )

    @property
    def place(self) -> str:
        """What is changed, as kubectl names it."""
        if self.config_map is not None:
            return f"configmap/{self.config_map.name}"
        if self.secret is not None:
            return f"secret/{self.secret.name}"
        return f"service/{self.service.name}" if self.service is not None else ""


class SwitchOrder(Model):
    """What the Job of a switch is told, in its environment; nothing secret stands in here.

    `owner` is the Migration's kind, name and uid. With `back` the value is put back that was there before.
    """

    namespace: Name
    owner_kind: str
    owner_name: Name
    owner_uid: str
    switch: SwitchStep
    back: bool = False
    access: str = Field(description="A folder with the files token and ca.crt, read anew at every use.")


class HookState(StrEnum):
    """How far a hook or a switch is. `Lost`: its Job was taken away before its end was seen."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LOST = "Lost"


class HookStatus(Model):
    """One hook or switch of a cutover. `id` tells those of different attempts apart; `job` is its Job's name."""

    id: str = Field(max_length=63, description="Its id, another one at each attempt.")
    point: HookPoint = Field(description="When in the cutover it runs.")
    name: str = Field(max_length=LONGEST_NAME, description="Its name, as in the spec.")
    state: HookState = Field(description="How far it is; Lost: its Job was deleted before its end was seen.")
    job: str = Field(default="", max_length=63, description="Its Job: `kubectl logs job/…`.")
    started_at: Moment | None = Field(default=None, description="When it began.")
    finished_at: Moment | None = Field(default=None, description="When it ended.")
    message: str = Field(default="", max_length=2048, description="How it failed, and what to do.")
