"""The `whimbrel` command, also `kubectl whimbrel`: reads manifests, runs them locally, shows and steers them."""
