"""Passwords in text: masked wherever a URL, or a setting that has one, is shown or kept."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_SECRET = re.compile(r"(?i)pass|pwd|secret|token|key|auth|cred|sig")
# Bounded, or the time that it takes would grow with the square of a text.
_URL = re.compile(
    r"[A-Za-z][\w+.-]{0,40}:/{0,2}"
    r"(?:(?<=//)|(?=[^\s/@:'\"]{0,200}:[^\s'\"]{0,400}@))[^\s'\"<>]+"
)
_WORD = re.compile(
    r"(?i)(password|passwd|passphrase|pwd)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s;&,)'\"]+)"
)
# What was found in a URL, to be found again where only a part of the URL is shown.
_known: dict[str, None] = {}
_MOST_KNOWN = 64
_SHORTEST_KNOWN = 6


def masked(text: str) -> str:
    """A text without the passwords of the URLs in it, and without those that were masked before."""
    if not text:
        return text
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _URL.sub(lambda found: masked_url(found[0]), text)
    return _WORD.sub(lambda found: f"{found[1]}{found[2]}{MASK}", text)


def masked_url(url: str) -> str:
    """A URL without the password in it, be it before the host or in the query.

    Where it is not clear where a password ends, as it has an ``@``, a ``/`` or a ``?`` that is not
    percent-encoded, more than the password is masked.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, separator, rest = url.partition(":")
        if "@" not in rest:
            return url
    base, mark, query = rest.partition("?")
    if base.startswith("/") and scheme in ("sqlite", "journal", "file"):
        return f"{scheme}{separator}{base}{mark}{_masked_query(query)}"
    if "@" not in base and "@" in query and ":" in base:
        # a password with a question mark, or a port before a query: not to be told apart
        user, _, secret = rest.partition(":")
        _remember(secret)
        return f"{scheme}{separator}{user}:{MASK}"
    if "@" in base:
        who, _, where = base.rpartition("@")
        user, colon, secret = who.partition(":")
        if colon:
            _remember(secret)
            base = f"{user}:{MASK}@{where}"
    elif scheme not in ("sqlite", "journal"):
        # what stands after a colon is a port, or a password whose host was forgotten
        user, colon, secret = base.partition(":")
        port = base.partition("/")[0].rpartition(":")[2]
        if colon and not port.isdigit() and not user.startswith("["):
            _remember(secret)
            base = f"{user}:{MASK}"
    if "@" in query and "@" in base:
        _remember(query)
        query = MASK
    return f"{scheme}{separator}{base}{mark}{_masked_query(query)}"


def _masked_query(query: str) -> str:
    pieces = re.split(r"([&;])", query)
    return "".join(_masked_setting(piece) for piece in pieces)


def _masked_setting(setting: str) -> str:
    key, equals, value = setting.partition("=")
    if not equals or not (_SECRET.search(unquote(key)) or _SECRET.search(unquote(value))):
        return setting
    if value:
        _remember(value)
    return f"{key}={MASK}"


def _remember(secret: str) -> None:
    """A driver's message may show a secret alone, decoded, or up to a letter with a meaning."""
    for each in (secret, unquote(secret), *re.split(r"[@/?#:]", unquote(secret))):
        if len(each) >= _SHORTEST_KNOWN and each != MASK:
            _known[each] = None
    while len(_known) > _MOST_KNOWN:
        del _known[next(iter(_known))]
