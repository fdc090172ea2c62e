"""`python -m whimbrel_worker TASKFILE`."""

import sys

from whimbrel_api.logs import catch_what_nobody_catches
from whimbrel_worker.runner import main

catch_what_nobody_catches()
sys.exit(main(sys.argv[1:]))
