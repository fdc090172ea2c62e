"""PyMySQL's errors to the worker's own, with what to do next. The one place that knows MySQL's error numbers.

Numbers: MySQL Server Error Reference. No message here can hold a password: MySQL's own say only whether one was used.
"""

import socket
import ssl

import pymysql

from whimbrel_worker.errors import ConfigurationError, Incompatible, Transient, WorkerError

_SIGN_IN = {1045, 1698, 1862, 3118, 3955}
_HOST_REFUSED = {1129, 1130}
_PRIVILEGE = {1044, 1142, 1143, 1227, 1370}
_CHANGED_TABLE = {1054, 1146, 1412}
_PASSING = {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1317, 2006, 2013, 2014, 2055, 3024, 3169, 4031}
_NAME_MISMATCH = {62, 64}
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
GRANT_ADVICE = "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the account of the migration"


def translate_sign_in(error: Exception, where: str, secret: str) -> WorkerError:
    """The worker's error for a failed connection; `secret` is the Secret's name."""
    cause = getattr(error, "original_exception", None) or error
    if isinstance(cause, ssl.SSLError):
        return _tls(cause, where)
    if isinstance(cause, socket.gaierror):
        return _unknown_host(cause, where)
    code, message = code_and_message(error)
    if code in _SIGN_IN:
        return ConfigurationError(
            "the source refused the sign-in",
            where=where,
            why=message,
            todo=f"check username and password in the Secret {secret}, and that the account is not locked or expired",
        )
    if code in _HOST_REFUSED:
        return ConfigurationError(
            "the source takes no connections from this host",
            where=where,
            why=message,
            todo="create the account for this host as well, such as 'whimbrel'@'%', or FLUSH HOSTS where it is blocked",
        )
    if isinstance(cause, OSError):
        return _unreachable(cause, where)
    return _without_tls(error, where) or translate(error, where)


def translate(error: Exception, where: str) -> WorkerError:
    """The worker's error for a failed statement. `where` names the server or the table."""
    code, message = code_and_message(error)
    if code in _PRIVILEGE:
        return ConfigurationError(
            "a privilege is missing on the source",
            where=where,
            why=message,
            todo=f"as an administrator: {GRANT_ADVICE}",
        )
    if code in _CHANGED_TABLE:
        return Incompatible(
            "the table is no longer what it was when the migration began",
            where=where,
            why=message,
            todo="undo the change, or exclude the table and move it with a migration of its own",
        )
    if code in _PASSING or isinstance(error, OSError | pymysql.err.InterfaceError):
        return Transient("the source is not available just now", where=where, why=message)
    return ConfigurationError(
        "the source refused a statement", where=where, why=f"{message} ({code})", todo="see the source's own error log"
    )


def code_and_message(error: Exception) -> tuple[int, str]:
    """MySQL's number (0 where there is none) and text."""
    if isinstance(error, pymysql.err.MySQLError) and error.args:
        code = error.args[0] if isinstance(error.args[0], int) else 0
        return code, " ".join(str(error.args[-1]).split())[:500]
    return 0, " ".join(str(error).split())[:500] or type(error).__name__


def _tls(cause: ssl.SSLError, where: str) -> WorkerError:
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _NAME_MISMATCH:
        return ConfigurationError(
            "the source's certificate is for another host name",
            where=where,
            why=cause.verify_message,
            todo="use the name in the certificate as spec.source.mysql.host, or have a certificate made for this name",
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(
            "the source's certificate cannot be trusted",
            where=where,
            why=cause.verify_message,
            todo="put the authority that signed it into the Secret that tls.caSecretRef names",
        )
    return Transient(
        "the encrypted connection to the source broke off",
        where=where,
        why=cause.reason or type(cause).__name__,
        todo="check that the port is MySQL's own and that the server has TLS; it is tried again",
    )


def _unknown_host(cause: socket.gaierror, where: str) -> WorkerError:
    if cause.errno == socket.EAI_AGAIN:
        return Transient("the source's name cannot be resolved just now", where=where, why=str(cause.strerror))
    return ConfigurationError(
        "the source's host name is not known",
        where=where,
        why=str(cause.strerror),
        todo="correct spec.source.mysql.host; from inside a cluster a service is <name>.<namespace>.svc",
    )


def _unreachable(cause: OSError, where: str) -> WorkerError:
    return Transient(
        "the source cannot be reached",
        where=where,
        why=cause.strerror or str(cause) or type(cause).__name__,
        todo="check host, port, network policy and whether the server is up; it is tried again",
    )


def _without_tls(error: Exception, where: str) -> WorkerError | None:
    code, message = code_and_message(error)
    if code == 3159:
        return ConfigurationError(
            "the source takes encrypted connections only",
            where=where,
            why=message,
            todo="set tls.mode to VerifyFull and name its authority in tls.caSecretRef",
        )
    if "SSL" not in message:
        return None
    return ConfigurationError(
        "the source offers no encrypted connection",
        where=where,
        why=message,
        todo="switch TLS on at the server, or set tls.mode to Disabled where the network is trusted",
    )
