"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = _builder(self.name, self.name, self.key.public_key(), ca=True).sign(
            self.key, hashes.SHA256()
        )  # fmt: skip

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, host: str = "localhost", days: tuple[int, int] = (0, 1)) -> tuple[bytes, bytes]:
        """(certificate, key), PEM, good for a host from so many days on from now to so many."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _builder(subject, self.name, key.public_key(), ca=False, host=host, days=days).sign(
            self.key, hashes.SHA256()
        )
        return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool, host: str = "localhost",
    days: tuple[int, int] = (0, 1),
) -> x509.CertificateBuilder:  # fmt: skip
    an_hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    local = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if host == "localhost" else []
    names = [x509.DNSName(host), *local]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(an_hour_ago + datetime.timedelta(days=days[0]))
        .not_valid_after(an_hour_ago + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def write(folder: Path, issued: tuple[bytes, bytes]) -> tuple[str, str]:
    """Paths of certificate and key; both are replaced, as tools that renew them do."""
    paths = (folder / "cert.pem", folder / "key.pem")
    for path, data in zip(paths, issued, strict=True):
        path.with_suffix(".new").write_bytes(data)
    for path in paths:
        path.with_suffix(".new").replace(path)
    return str(paths[0]), str(paths[1])
