"""What is the same for every pair of systems: copy, apply, compare, checkpoint, fence, throttle, retry, report."""
