"""Tokens for OAUTHBEARER: from a file, from a command, or from an OIDC token endpoint by client credentials.

A token is a secret: no error names one, nor what a file, a command or an endpoint answered in its place.
"""

import base64
import binascii
import json
import shlex
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from kafka.net.sasl.oauth import AbstractTokenProvider
from typing_extensions import override

from worker.errors import BrokerUnavailable, SettingsError
from worker.texts import rfc3339

TIMEOUT_S: Final = 10.0  # for one token; the client waits for it on the thread that also sends its heartbeats
REFRESH_AT: Final = 0.8  # of a token's life: the next login gets a new one
UNKNOWN_LIFETIME_S: Final = 60.0  # of a token that doesn't say when it expires
MAX_BYTES: Final = 1 << 20
_NOT_NOW: Final = (408, 425, 429)  # what an endpoint answers that would have a token later


class Token(NamedTuple):
    """A token with the seconds for which it is good; None = it doesn't say. reusable: for more than one login."""

    text: str
    lifetime_s: float | None
    reusable: bool = True


Fetch = Callable[[], Token]


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python ships no types
    """The token for the next login, a new one before the last one expires. Any thread may ask.

    fetch        gets a new one; raises BrokerUnavailable where it may get one later, SettingsError where it can't
    extensions   what is sent along with each
    clock        seconds, monotonic
    """

    def __init__(
        self, fetch: Fetch, extensions: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._extensions = dict(extensions or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._fetched_at = 0.0

    @override
    def token(self) -> str:
        with self._lock:
            token, age_s = self._token, self._clock() - self._fetched_at
            lifetime_s = UNKNOWN_LIFETIME_S if token is None or token.lifetime_s is None else token.lifetime_s
            if token is not None and token.reusable and age_s < lifetime_s * REFRESH_AT:
                return token.text
            try:
                self._token = token = self._fetch()
            except BrokerUnavailable:
                if token is None or not token.reusable or age_s >= lifetime_s:
                    raise
                return token.text  # still good
            self._fetched_at = self._clock()
            return token.text

    @override
    def extensions(self) -> Mapping[str, str]:
        return self._extensions


def token_from_file(path: str) -> Token:
    """The token in a file. It is read for each login: whoever writes it knows when it expires.

    Raises BrokerUnavailable where the token has expired, SettingsError where there is none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"[oauth.token_file] = {path!r}: no token can be read: {reason}") from error
    return _checked(Token(text, _lifetime_s(text), reusable=False), f"[oauth.token_file] = {path!r}")


def token_from_command(command: str) -> Token:
    """The token that a command prints, as it is or in a JSON object with `access_token` and `expires_in` (seconds).

    Raises BrokerUnavailable where the command fails, SettingsError where there is no such command or it prints none.
    """
    source = "[oauth.token_command]"
    try:
        words = shlex.split(command)
        done = subprocess.run(  # noqa: S603  # the command is the operator's own setting
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{source}: the command can't be run: {reason}") from error
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailable(f"{source}: no token from the command within {TIMEOUT_S:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:200]
        raise BrokerUnavailable(f"{source}: the command ended with exit code {done.returncode}: {last}")
    text = done.stdout.strip()
    if text.startswith("{"):
        return _token_of(text, source)
    return _checked(Token(text, _lifetime_s(text)), source)


def token_from_endpoint(
    url: str, *, client_id: str, client_secret: str, scope: str | None = None, ca_file: str | None = None
) -> Token:
    """A token by client credentials (RFC 6749, 4.4), the client known by HTTP Basic authentication.

    scope     what to ask for; None = what the endpoint gives by default
    ca_file   authorities of the endpoint's certificate; None = the system's

    Raises BrokerUnavailable where the endpoint is away, SettingsError where it refuses, in its words.
    """
    source = f"the token endpoint {url}"
    form = {"grant_type": "client_credentials", **({} if scope is None else {"scope": scope})}
    pair = ":".join(urllib.parse.quote_plus(part) for part in (client_id, client_secret))
    headers = {
        "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310  # checked
    try:
        with web_opener(ca_file).open(request, timeout=TIMEOUT_S) as response:
            text = response.read(MAX_BYTES).decode(errors="replace")
    except urllib.error.HTTPError as error:
        refusal = f"{source} refuses: HTTP {error.code} {_reason(error)}"
        if error.code >= 500 or error.code in _NOT_NOW:
            raise BrokerUnavailable(refusal) from error
        raise SettingsError(f"{refusal}; check [oauth.client_id], [oauth.client_secret] and [oauth.scope]") from error
    except OSError as error:  # urllib's own errors are of this kind, too
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = f"its certificate is refused: {cause.verify_message}; check [oauth.ca_file]"
            raise SettingsError(f"{source}: {words}") from error
        raise BrokerUnavailable(f"{source} does not answer: {cause}") from error
    return _token_of(text, source)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would hand the client's secret on to somebody else."""

    @override
    def redirect_request(self, *_: Any) -> None:
        return None


def web_opener(ca_file: str | None, setting: str = "[oauth.ca_file]") -> urllib.request.OpenerDirector:
    """Opens URLs, redirects not followed; SettingsError, naming the setting, where the authorities can't be read."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsError(f"{setting} = {ca_file!r} can't be used: {error.strerror or error}") from error
    return urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))


def _reason(error: urllib.error.HTTPError) -> str:
    """`error` and `error_description` (RFC 6749, 5.2) where they are, and nothing else of the answer."""
    try:
        answer = json.loads(error.read(MAX_BYTES))
        words = [str(answer[name])[:200] for name in ("error", "error_description") if name in answer]
    except (OSError, ValueError, TypeError):
        words = []
    return ": ".join(words) or str(error.reason)


def _token_of(text: str, source: str) -> Token:
    """The token of an endpoint's answer."""
    try:
        answer = json.loads(text)
        token, lifetime = str(answer["access_token"]), answer.get("expires_in")
        lifetime_s = _lifetime_s(token) if lifetime is None else float(lifetime)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise SettingsError(f"{source}: the answer is no JSON object with an access_token") from error
    return _checked(Token(token, lifetime_s), source)


def _checked(token: Token, source: str) -> Token:
    if not token.text:
        raise SettingsError(f"{source}: there is no token in it")
    if not token.text.isascii() or any(letter.isspace() or not letter.isprintable() for letter in token.text):
        raise SettingsError(f"{source}: what is in it is no token: a token is one word")
    if token.lifetime_s is not None and token.lifetime_s <= 0:
        expired_at = rfc3339(round(time.time() + token.lifetime_s) * 1000)
        raise BrokerUnavailable(f"{source}: the token expired at {expired_at}; it needs a new one")
    return token


def _lifetime_s(text: str) -> float | None:
    """Seconds until a JSON Web Token expires, by its `exp`; None where it doesn't say, or is no such token."""
    try:
        claims = text.split(".")[1]
        expires_at = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(expires_at) - time.time()
    except (binascii.Error, ValueError, TypeError, LookupError, UnicodeDecodeError):
        return None
