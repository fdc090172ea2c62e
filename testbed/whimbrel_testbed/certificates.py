"""A certificate authority for one test server, so that clients can verify it fully; nothing here is for production."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from whimbrel_testbed.processes import HOST, LOOPBACK

SERVER_NAMES = tuple(dict.fromkeys((HOST, LOOPBACK, "localhost")))
_VALID = datetime.timedelta(days=30)
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True)
class Authority:
    """A certificate authority of one's own; `ca_file` is what a client trusts (PEM)."""

    directory: Path
    ca_file: Path
    _certificate: x509.Certificate = field(repr=False)
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def server_certificate(self, names: Sequence[str] = SERVER_NAMES) -> tuple[Path, Path]:
        """Make a server certificate for host names and addresses; return the certificate's and the key's file (PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = _builder(_subject(names[0]), self._certificate.subject, key)
        builder = builder.add_extension(alternatives, critical=False)
        return self._leaf(f"server-{names[0]}", builder, key, ExtendedKeyUsageOID.SERVER_AUTH)

    def client_certificate(self, common_name: str, organization: str | None = None) -> tuple[Path, Path]:
        """Make a client's certificate for this subject; return the certificate's and the key's file (PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(common_name, organization), self._certificate.subject, key)
        return self._leaf(f"client-{common_name.replace(':', '-')}", builder, key, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _leaf(
        self, stem: str, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, use: x509.ObjectIdentifier
    ) -> tuple[Path, Path]:
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(_authority_key(self._key), critical=False)
        )
        certificate = _write(self.directory / f"{stem}.crt", _pem(builder.sign(self._key, hashes.SHA256())))
        return certificate, _write_key(self.directory / f"{stem}.key", key)


def make_authority(directory: Path) -> Authority:
    """Make a new authority; its certificate is written to `ca.crt` in the directory, its key is kept in memory only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("Whimbrel test bed")
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return Authority(directory, _write(directory / "ca.crt", _pem(certificate)), certificate, key)


def make_signing_key(directory: Path, stem: str) -> tuple[Path, Path]:
    """Make a key that signs tokens; return the files of its private and of its public half (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _write_key(directory / f"{stem}.key", key), _write(directory / f"{stem}.pub", public)


def _subject(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o644)
    return path


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
    return path
