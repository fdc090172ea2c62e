"""A Kubernetes node that runs pods as plain local processes, for tests: no containers, no images, no isolation.

It is no kubelet and says so on its Node (`whimbrel.dev/node-agent=processes-not-containers`). What differs from a node:

- The image is ignored; a container must name its `command`. The Python that runs this agent comes first on PATH.
- There is no mount namespace: each volume is a folder, and every occurrence of a `mountPath` (or of the
  `terminationMessagePath`) as a path in command, args and environment values is replaced by that folder. A path written
  into a program is not seen. `readOnly`, `workingDir`, users, security contexts and resource limits have no effect.
- There is no network namespace: each pod has a loopback address of its own, and `0.0.0.0` in command, args and
  environment values is replaced by it, so that two pods may listen on one port.
- Processes end with the agent, however it ends. For the API server that is a node without power: a pod that ran is
  found ended with exit code 137 (`ContainerStatusUnknown`) when the agent starts again.
- Not here: persistent volumes, hostPath, sidecar containers (init containers that restart), ephemeral containers, exec,
  attach and port-forward, hooks, gRPC probes, eviction, resource accounting.
"""
