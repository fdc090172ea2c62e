"""`python -m whimbrel_worker TASKFILE`."""

import sys

from whimbrel_worker.runner import main

sys.exit(main(sys.argv[1:]))
