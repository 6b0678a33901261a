"""Apache Kafka with TLS, logins and rights: listeners for SCRAM-SHA-256, mutual TLS and OAUTHBEARER, and an authorizer.

Certificates are made on the spot. What has no access control list is open to everyone.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from devtools.brokers import ApacheBroker, eventually, free_ports
from worker.broker.client import Connection, admin_client

USER, PASSWORD = "app", "correct-horse-battery"
KEY_PASSWORD = "staple-of-the-key"
UNSIGNED = (
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
)


class Certificates:
    """An authority, a server certificate for this machine and a client certificate, as PEM files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.ca, self.client, self.client_key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self.keystore = folder / "server-keystore.pem"
        subject = ["-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.pem"]
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)
        self._sign("server", ["-nodes"])
        self._sign("client", ["-passout", f"pass:{KEY_PASSWORD}"])
        self.keystore.write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())

    def _sign(self, name: str, key_options: list[str]) -> None:
        (self.folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        request = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        self._openssl("req", "-newkey", "rsa:2048", *key_options, *request)
        authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", *authority, "-extfile", f"{name}.ext", "-out", f"{name}.pem"
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


class SecureBroker(ApacheBroker):
    """`scram`, `mutual` and `token` are the addresses of its listeners; tests set up on the plaintext one.

    The listener for tokens takes any unsigned JSON Web Token that has not expired. It and that for SCRAM want a login
    every 5 seconds.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.scram, self.mutual, self.token = (f"127.0.0.1:{port}" for port in free_ports(3))
        self.certificates = Certificates(folder / "tls")
        super().__init__(home, folder / "broker")
        self.set_password(PASSWORD)

    def set_password(self, password: str, user: str = USER) -> None:
        """The user's password for SCRAM from now on."""
        credential = UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_256, password)
        with admin_client(Connection(self.bootstrap_servers)) as admin:
            admin.alter_user_scram_credentials([credential])

    def scram_options(self, password: str = PASSWORD, user: str = USER) -> Mapping[str, Any]:
        """Options of a client for the SCRAM listener, in clear text."""
        return {
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.certificates.ca),
            "sasl_mechanism": "SCRAM-SHA-256",
            "sasl_plain_username": user,
            "sasl_plain_password": password,
            "session_timeout_ms": 6000,
        }

    def deny(self, name: str, *operations: str, kind: str = "TOPIC", user: str = USER) -> None:
        """Takes these rights on a topic, group or transactional id away from the user, and nothing else."""
        pattern = ResourcePattern(ResourceType[kind], name)
        denied = [(operation, ACLPermissionType.DENY) for operation in operations]
        rights = [*denied, ("ALL", ACLPermissionType.ALLOW)]
        rules = [ACL(f"User:{user}", "*", ACLOperation[right], verdict, pattern) for right, verdict in rights]
        known = ACLFilter(f"User:{user}", "*", ACLOperation.ANY, ACLPermissionType.ANY, pattern)
        with admin_client(Connection(self.bootstrap_servers)) as admin:
            admin.create_acls(rules)
            # The controller answers before the broker that asks for rights knows of them.
            eventually(lambda: len(admin.describe_acls(known)[0]) == len(rules), 30.0, "rights that are known")

    def _properties(self) -> dict[str, object]:
        plain = super()._properties()
        scram_login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        token_login = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
        protocols = "SCRAM:SASL_SSL,MUTUAL:SSL,TOKEN:SASL_PLAINTEXT"
        return {
            **plain,
            "listeners": f"{plain['listeners']},SCRAM://{self.scram},MUTUAL://{self.mutual},TOKEN://{self.token}",
            "listener.security.protocol.map": f"{plain['listener.security.protocol.map']},{protocols}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
            "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.token.oauthbearer.sasl.jaas.config": token_login,
            "listener.name.token.oauthbearer.sasl.server.callback.handler.class": UNSIGNED,
            "listener.name.token.oauthbearer.connections.max.reauth.ms": 5000,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificates.keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificates.ca,
            "listener.name.mutual.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.scram.scram-sha-256.sasl.jaas.config": scram_login,
            "listener.name.scram.scram-sha-256.connections.max.reauth.ms": 5000,
            "group.max.size": 2,
        }

    def scram_settings(self, folder: Path, password: str = PASSWORD, **options: object) -> Mapping[str, str]:
        """Settings of the worker for the SCRAM listener, the password in a file."""
        secret = folder / "password"
        secret.write_text(password + "\n")
        return self._settings(
            self.scram,
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-256",
                "sasl_plain_username": USER,
                "sasl_plain_password": {"file": str(secret)},
                **options,
            },
        )

    def mounted_settings(self, folder: Path) -> Mapping[str, str]:
        """Settings of the worker for the SCRAM listener, user and password in a directory as platforms mount it."""
        mounted = folder / "mounted"
        (mounted / "..data").mkdir(parents=True)
        for option, value in (("sasl_plain_username", USER), ("sasl_plain_password", PASSWORD)):
            name = f"WORKER_KAFKA__OPTIONS__{option.upper()}"
            (mounted / "..data" / name).write_text(value + "\n")
            (mounted / name).symlink_to(Path("..data") / name)
        options = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256"}
        return {**self._settings(self.scram, options), "WORKER_SECRETS_DIR": str(mounted)}

    def mutual_settings(self, folder: Path, **options: object) -> Mapping[str, str]:
        """Settings of the worker for the listener that wants a client certificate; its key is encrypted."""
        secret = folder / "key-password"
        secret.write_text(KEY_PASSWORD)
        certificate = {
            "ssl_certfile": str(self.certificates.client),
            "ssl_keyfile": str(self.certificates.client_key),
            "ssl_password": {"file": str(secret)},
        }
        return self._settings(self.mutual, {"security_protocol": "SSL", **certificate, **options})

    def token_settings(self, **settings: str) -> Mapping[str, str]:
        """Settings of the worker for the listener that wants tokens, which come from where these say."""
        options = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
        return {**self._settings(self.token, options), **settings}

    def _settings(self, address: str, options: Mapping[str, object]) -> Mapping[str, str]:
        options = {"ssl_cafile": str(self.certificates.ca), "session_timeout_ms": 6000, **options}
        return {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": address,
            "WORKER_KAFKA__OPTIONS": json.dumps({key: value for key, value in options.items() if value is not None}),
        }
