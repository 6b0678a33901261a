"""A token endpoint as identity providers have one, over a real socket, and unsigned JSON Web Tokens."""

import base64
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

CLIENT, SECRET = "worker", "s3cret+with/signs"


def unsigned_token(lifetime_s: float = 600.0, subject: str = "app") -> str:
    """A JSON Web Token that says who it is for and when it expires, and that anybody could have made."""

    def part(claims: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now - 1, 'exp': now + lifetime_s})}."


class TokenEndpoint:
    """Gives tokens to one client. Change its attributes while it runs.

    lifetime_s   of each token
    status       HTTP status of a refusal that it answers with instead; None = it gives tokens
    answer       what it answers instead of JSON with a token
    tokens       that it has given so far
    scopes       what was asked for, each time
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.lifetime_s = 600.0
        self.status: int | None = None
        self.answer: bytes | None = None
        self.tokens: list[str] = []
        self.scopes: list[str | None] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http://", "https://")
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, body = endpoint.respond(form, self.headers.get("Authorization", ""))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler

    def respond(self, form: Mapping[str, list[str]], authorization: str) -> tuple[int, bytes]:
        """Status and body for a request."""
        pair = ":".join(urllib.parse.quote_plus(part) for part in (CLIENT, SECRET))
        if self.status is not None:
            return self.status, b'{"error": "not_now", "error_description": "come back later"}'
        if authorization != "Basic " + base64.b64encode(pair.encode()).decode():
            return 401, b'{"error": "invalid_client", "error_description": "no such client or secret"}'
        if form["grant_type"] != ["client_credentials"]:
            return 400, b'{"error": "unsupported_grant_type"}'
        if self.answer is not None:
            return 200, self.answer
        self.scopes.append(form.get("scope", [None])[0])
        self.tokens.append(unsigned_token(self.lifetime_s))
        answer = {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.lifetime_s}
        return 200, json.dumps(answer).encode()

    def close(self) -> None:
        """No connection any more."""
        self._server.shutdown()
        self._server.server_close()
