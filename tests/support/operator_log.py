"""The operator's log as it is set up, into memory. For tests."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from whimbrel_api.logs import LogFormat
from whimbrel_operator.logs import configure


@contextmanager
def logging_to(form: LogFormat) -> Iterator[io.StringIO]:
    """Whatever is logged within, from INFO on."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    configure(form, "INFO", stream)
    try:
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(False)
