"""The authorities that this machine trusts, as a file that libpq can read. Certificates of one's own come from Secrets.

psycopg's binary wheels carry an OpenSSL whose built-in directory is not the machine's, so libpq's `sslrootcert=system`
finds nothing there; Python's own ssl module knows where the machine keeps them.
"""

import ssl
from functools import cache
from pathlib import Path

_KNOWN = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@cache
def system_authorities() -> str:
    """A bundle of certificates, or libpq's word `system` where none is found."""
    candidates = (ssl.get_default_verify_paths().cafile, *_KNOWN)
    return next((path for path in candidates if path and Path(path).is_file()), "system")
