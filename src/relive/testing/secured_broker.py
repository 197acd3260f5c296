"""A second listener of a test's broker: TLS, passwords, and rights by ACL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MECHANISMS = ("PLAIN", "SCRAM-SHA-512")

_LISTENER = "listener.name.sasl_ssl"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True)
class Secured:
    """How a broker protects its second address.

    Attributes:
        address: HOST:PORT of the protected listener.
        certificate: file (PEM) with its key (PKCS #8), then its certificate.
        users: names and passwords, by PLAIN and by SCRAM-SHA-512.
    """

    address: str
    certificate: Path
    users: Mapping[str, str]

    def added_to(self, settings: Mapping[str, str]) -> dict[str, str]:
        """A broker's settings with this listener. Who comes by the open one may do everything."""
        names = "listeners", "advertised.listeners"
        known = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        return {
            **settings,
            **{name: f"{settings[name]},SASL_SSL://{self.address}" for name in names},
            "listener.security.protocol.map": (
                f"{settings['listener.security.protocol.map']},SASL_SSL:SASL_SSL"
            ),
            f"{_LISTENER}.ssl.keystore.type": "PEM",
            f"{_LISTENER}.ssl.keystore.location": str(self.certificate),
            f"{_LISTENER}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"{_LISTENER}.plain.sasl.jaas.config": f"{_PLAIN} required {known};",
            f"{_LISTENER}.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def format_options(self) -> Sequence[str]:
        """What the tool that formats a data folder has to know: SCRAM's users."""
        return [
            option
            for name, password in self.users.items()
            for option in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
        ]
