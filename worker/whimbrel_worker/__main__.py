"""`python -m whimbrel_worker TASKFILE`."""

import sys

from whimbrel_worker import logs
from whimbrel_worker.runner import main

logs.catch_what_nobody_catches()
sys.exit(main(sys.argv[1:]))
