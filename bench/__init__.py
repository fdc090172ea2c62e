"""Speed beside its peers, in one run on one machine: CPU seconds and ratios. Nothing here is asserted in a test."""
