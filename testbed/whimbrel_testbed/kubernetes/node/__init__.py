"""A real node: kubelet, containerd, runc and kube-proxy in namespaces of their own, where the machine allows it.

Kept apart from the machine by a network, a mount and a process namespace: what the node makes (bridge, packet filter,
mounts, containers) goes with the namespaces. In the machine itself are, while it runs, one end of a veth pair with two
routes, and a control group in each hierarchy.
"""
