"""What a station's OPC UA server and client share: certificates, and a log without tracebacks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from supersimplenet.errors import ConfigError
from supersimplenet.utils.formatting import first_line

APPLICATION_URI = "urn:supersimplenet:application"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and its private key, as DER.

    Attributes:
        certificate: the certificate.
        key: the key.
        uri: what the certificate says the application is called; others refuse one that calls itself differently.
    """

    certificate: bytes
    key: bytes
    uri: str


def quiet() -> None:
    """Keep back what asyncua logs: each error reaches the station as an exception, too."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)


def read_identity(certificate: Path, key: Path) -> Identity:
    """Read a certificate and its private key, each as PEM or DER.

    Raises:
        ConfigError: they cannot be read, or are not of each other.
    """
    own = _certificate(certificate)
    try:
        content = key.read_bytes()
        private = load_pem_private_key(content, None) if _is_pem(content) else load_der_private_key(content, None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"key: {key}: no private key ({first_line(error)}); wanted PEM or DER") from error
    if not isinstance(private, RSAPrivateKey) or private.public_key() != own.public_key():
        raise ConfigError(f"key: {key}: not the RSA key of the certificate {certificate}")
    return Identity(
        certificate=own.public_bytes(Encoding.DER),
        key=private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        uri=_uri_of(own),
    )


def read_certificate(path: Path) -> bytes:
    """Return the certificate in a file, PEM or DER, as DER.

    Raises:
        ConfigError: it cannot be read, or is no certificate.
    """
    return _certificate(path).public_bytes(Encoding.DER)


def _certificate(path: Path) -> x509.Certificate:
    try:
        content = path.read_bytes()
        return x509.load_pem_x509_certificate(content) if _is_pem(content) else x509.load_der_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise ConfigError(f"certificate: {path}: no certificate ({first_line(error)}); wanted PEM or DER") from error


def _is_pem(content: bytes) -> bool:
    return content.lstrip().startswith(b"-----BEGIN")


def _uri_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return APPLICATION_URI
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), APPLICATION_URI)
