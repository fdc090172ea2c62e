"""A Kubernetes of the test bed: the real control plane as child processes, and a node that runs pods as processes."""
