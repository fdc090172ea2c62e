"""Figures for Prometheus: which there are, what they say of a resource, the table and the dashboard made from them."""
