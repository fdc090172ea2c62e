"""The only code of the operator that touches the world: files and processes here, a cluster elsewhere."""
