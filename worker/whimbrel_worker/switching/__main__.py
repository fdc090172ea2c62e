"""`python -m whimbrel_worker.switching`: the order stands in the environment variable WHIMBREL_SWITCH."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from whimbrel_api.hooks import SwitchOrder
from whimbrel_api.tasks import ExitCode
from whimbrel_worker import logs
from whimbrel_worker.errors import ConfigurationError, WorkerError
from whimbrel_worker.reporting.apiserver import address
from whimbrel_worker.switching.objects import Objects
from whimbrel_worker.switching.switcher import carry_out

ORDER: Final = "WHIMBREL_SWITCH"
_log = logging.getLogger(__name__)


def main(environment: Mapping[str, str]) -> int:
    """Carry out the order. Returns the exit code: 0 done, 1 may be tried again, 2 a person must act."""
    logs.configure(environment)
    try:
        order = _order(environment)
        carry_out(order, Objects(address(environment), Path(order.access), order.namespace))
    except WorkerError as error:
        _log.error("%s", error)
        return int(error.exit_code)
    return int(ExitCode.DONE)


def _order(environment: Mapping[str, str]) -> SwitchOrder:
    try:
        return SwitchOrder.model_validate_json(environment.get(ORDER, ""))
    except ValidationError as error:
        places = ", ".join(".".join(map(str, each["loc"])) or "all of it" for each in error.errors())
        raise ConfigurationError(
            "the order cannot be read", where=f"environment variable {ORDER}", why=f"wrong: {places}"
        ) from None


if __name__ == "__main__":
    sys.exit(main(os.environ))
