"""The volumes of one pod on disk: made when the pod begins, and kept as the API server has them."""

from __future__ import annotations

from pathlib import Path

from whimbrel_testbed.kubernetes.agent import volumes
from whimbrel_testbed.kubernetes.agent.bell import Bell
from whimbrel_testbed.kubernetes.agent.client import Api
from whimbrel_testbed.kubernetes.agent.files import write_atomically
from whimbrel_testbed.kubernetes.agent.shapes import Json, Reference
from whimbrel_testbed.kubernetes.agent.sources import Sources, TokenJar


class PodVolumes:
    """Folders under `folder`, one a volume."""

    def __init__(self, api: Api, sources: Sources, folder: Path, pod: Json, bell: Bell) -> None:
        self._sources, self._folder, self._bell = sources, folder, bell
        self._namespace = pod["metadata"]["namespace"]
        self._references, self._wishes = volumes.references(pod), volumes.token_wishes(pod)
        self._jar = TokenJar(api, pod)
        self._scratch = {v["name"] for v in pod["spec"].get("volumes") or [] if volumes.is_scratch(v)}
        self._written: dict[str, dict[str, volumes.File]] = {}

    async def hold(self) -> None:
        """Begin to watch what the pod uses."""
        await self._sources.hold(self._namespace, self._references, self._bell)

    def release(self) -> None:
        """Watch no longer."""
        self._sources.release(self._bell)

    def lookup(self, reference: Reference) -> Json | None:
        """Return a Secret or ConfigMap of the pod as it is now."""
        return self._sources.find(self._namespace, reference)

    async def refresh(self, pod: Json, pod_ip: str) -> None:
        """Write every volume whose content changed.

        Raises NotYet, Unsupported, ApiError or one of client.AWAY; then nothing was written.
        """
        await self._jar.renew(self._wishes)
        view = volumes.View(pod, pod_ip, self.lookup, self._jar.tokens)
        declared: list[Json] = pod["spec"].get("volumes") or []
        contents = {v["name"]: volumes.files(v, view) for v in declared if v["name"] not in self._scratch}
        for volume in declared:
            self.folder_of(volume["name"]).mkdir(parents=True, exist_ok=True)
        for name, files in contents.items():
            if self._written.get(name) != files:
                write_atomically(self.folder_of(name), files)
                self._written[name] = files

    def seconds_left(self) -> float | None:
        """Return the time until a token must be renewed, None where there is none."""
        return self._jar.seconds_left()

    def folder_of(self, volume: str) -> Path:
        """Return the folder of a volume."""
        return self._folder / volume

    def folders(self, container: Json) -> dict[str, str]:
        """Return the folder (or file) behind each mount path of a container.

        They lie to each other as the mount paths do, so that a relative path from one to another leads there too.
        """
        mounts = sorted(container.get("volumeMounts") or [], key=lambda mount: len(mount["mountPath"]))
        return {mount["mountPath"]: str(self._place(container["name"], mount)) for mount in mounts}

    def _place(self, container: str, mount: Json) -> Path:
        place = self._folder.parent / "mounts" / container / str(mount["mountPath"]).strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(self._behind(mount))
        return place

    def _behind(self, mount: Json) -> Path:
        path = self.folder_of(mount["name"]) / str(mount.get("subPath", ""))
        if mount["name"] in self._scratch:
            path.mkdir(parents=True, exist_ok=True)
        return path
