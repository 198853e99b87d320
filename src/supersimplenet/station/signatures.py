"""Signatures of files: Ed25519 (RFC 8032) over a file's bytes, as 64 bytes in a file beside it, as OpenSSL reads it."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.formatting import first_line

_PRIVATE = "openssl genpkey -algorithm ed25519 -out key.pem"
_PUBLIC = "openssl pkey -in key.pem -pubout -out public.pem"


def signature_of(file: Path) -> Path:
    """Return the path of a file's signature."""
    return file.with_name(f"{file.name}.sig")


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key, PEM without a password.

    Raises:
        ConfigError: there is none of Ed25519.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, f"no private key in PEM without a password ({first_line(error)})", _PRIVATE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "not a key of Ed25519", _PRIVATE)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key, PEM.

    Raises:
        ConfigError: there is none of Ed25519.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, f"no public key in PEM ({first_line(error)})", _PUBLIC) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "not a key of Ed25519", _PUBLIC)
    return key


def sign(file: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a file beside it; return its path."""
    signature = signature_of(file)
    with whole_file(signature) as temporary:
        temporary.write_bytes(key.sign(file.read_bytes()))
    return signature


def is_signed(file: Path, key: Ed25519PublicKey) -> bool:
    """Return whether the signature beside a file is that of its bytes by a key's owner.

    Raises:
        DataError: the file, or its signature, cannot be read.
    """
    try:
        signature, content = signature_of(file).read_bytes(), file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); keep a file and its .sig together"
        ) from error
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _no_key(path: Path, found: str, command: str) -> ConfigError:
    return ConfigError(f"{path}: {found}; make one with {command}")
