"""The entry point: settings, logs, the process; and exit codes. Exits with 0 when told to stop, 1 when it must be
started again (the Lease was lost, kopf failed), 2 when a person must change its settings."""

import asyncio
import os
import sys

from whimbrel_api.logs import catch_what_nobody_catches
from whimbrel_operator.errors import NoCluster, SettingsError
from whimbrel_operator.logs import configure
from whimbrel_operator.process import Process
from whimbrel_operator.settings import Settings

_SETTINGS = 2


async def _run(settings: Settings) -> int:
    return await Process(settings).run()


def main() -> int:
    """Run the operator until it is told to stop; the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
        configure(settings.log_format, settings.log_level)
        catch_what_nobody_catches()
        return asyncio.run(_run(settings))
    except (SettingsError, NoCluster) as error:
        sys.stderr.write(f"whimbrel-operator: {error}\n")
        return _SETTINGS


if __name__ == "__main__":
    sys.exit(main())
