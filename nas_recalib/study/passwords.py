"""Storage URLs without their passwords, and what is said about a storage without them too."""

import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_FILE = re.compile(r"(sqlite[\w+]*|journal):(?!//[^/])")
_USER = re.compile(r"(?<=://)([^:@/?#]*):([^@/?#]*)@")
_QUERY = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token)[^=&#]*)=([^&#]*)", re.IGNORECASE)
_LOOSE = re.compile(r"://[^:/]*:(.*)@", re.DOTALL)  # in a URL whose password should have been encoded
_HIDDEN = "***"
_UNSHOWN = "the given URL"
_SHORT = 4  # letters; a shorter password is part of too many words


def ambiguous(url: str) -> bool:
    """Whether a server's URL has an '@' that may as well be its password's as the end of it."""
    rest = url.partition("://")[2]
    signs = rest.count("@")
    return not _FILE.match(url) and signs > 0 and (signs > 1 or "@" not in re.split("[/?#]", rest)[0])


def hide_password(url: str) -> str:
    """A storage's URL to show, or 'the given URL' where its password cannot be told from the rest."""
    if _FILE.match(url):
        return url
    if ambiguous(url):
        return _UNSHOWN
    return _QUERY.sub(rf"\1={_HIDDEN}", _USER.sub(rf"\1:{_HIDDEN}@", url))


def lacks_password(shown: str) -> bool:
    """Return whether `hide_password` left out what a URL needs."""
    return shown == _UNSHOWN or ("://" in shown and _HIDDEN in shown)


def scrub(text: str, url: str) -> str:
    """A text with a URL's passwords as ***, in each form that a library might write them in.

    A password of fewer than four characters is replaced only where it stands as a value (`:a@`,
    `password=a`, `"a"`): every other word holds it too.
    """
    forms = {form for password in _passwords(url) for form in _forms(password)}
    patterns = [
        re.escape(form) if len(form) >= _SHORT else rf"(?<=[:='\"`]){re.escape(form)}(?=[@&;'\"`\s]|$)"
        for form in sorted(forms, key=len, reverse=True)
    ]
    return re.sub("|".join(patterns), _HIDDEN, text) if patterns else text


def _passwords(url: str) -> set[str]:
    if _FILE.match(url):
        return set()
    loose = [match[1] for match in _LOOSE.finditer(url)] if ambiguous(url) else []
    return {match[2] for pattern in (_USER, _QUERY) for match in pattern.finditer(url)}.union(loose) - {""}


def _forms(password: str) -> set[str]:
    plain = {password, unquote(password), unquote_plus(password)}
    encoded = {encode for text in plain for encode in (text, quote(text, safe=""), quote_plus(text))}
    return encoded | {repr(text)[1:-1] for text in encoded}
