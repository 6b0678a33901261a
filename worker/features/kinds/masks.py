"""What differs from one text to the next of the same sort: times, addresses, paths, numbers, masked by their form."""

import re

MAX_TEXT = 2048  # characters that are looked at; what a sort of text is shows in its beginning
MAX_TEMPLATE = 512  # characters; a vocabulary of templates must stay small

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)\.?"
)
_WEEKDAY = (
    r"(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?"
    r"|MON|TUE|WED|THU|FRI|SAT|SUN)\b"
)
_NAMED = (  # months and weekdays that are no other words
    r"(?:January|February|April|June|July|August|September|October|November|December"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b"
)
_ZONE = r"(?:\ ?(?:Z\b|(?:UTC|GMT)(?:[+-]\d{1,2})?\b|(?:(?:CE|EE|WE)S?T|[ECMP][SD]T|JST|MSK)\b|[+-]\d\d:?\d\d\b))?"
_CLOCK = rf"\d{{1,2}}:\d\d(?::\d\d(?:[.,:]\d{{1,9}})?)?(?:\ ?[AaPp][Mm]\b)?{_ZONE}(?![\d:])"
_YEAR = r"(?:19|20)\d\d\b"
_DAY = r"[0-3]?\d(?:st|nd|rd|th)?\b"
_DATE_WITH_NAME = (
    rf"(?:{_WEEKDAY},?\s{{1,3}})?(?:{_MONTH}[\s-]{{1,3}}{_DAY}(?!:)|{_DAY}(?:\ of)?[\s/-]{{1,3}}{_MONTH}(?![A-Za-z]))"
    rf"(?:,?[\s/-]{{1,2}}{_YEAR}|[/-]\d\d\b)?(?:(?::|,?\s{{1,3}})(?:at\ )?{_CLOCK})?(?:\s{_YEAR})?"
)
_DATE = (
    rf"(?:{_WEEKDAY},?\s{{1,3}})?(?:\d{{4}}(?:-\d\d?-|/\d\d?/|\.\d\d?\.)\d\d?|\d\d?(?:/\d\d?/(?:\d{{4}}|\d\d)"
    r"|-\d\d?-(?:19|20)\d\d|\.\d\d?\.(?:19|20)\d\d)|(?:19|20)\d\d(?:0\d|1[0-2])(?:[0-2]\d|3[01]))"
    rf"(?:(?:[T_-]|,?\s{{1,2}})(?:\d\d?[.:]\d\d(?:[.:]\d\d(?:[.,:]\d{{1,9}})?)?|\d{{6}}(?:\.\d{{1,9}})?){_ZONE})?(?!\d)"
)
_OTHER_TIME = (
    rf"(?:{_WEEKDAY},?|\d\d[.-]\d\d)\s{{1,3}}{_CLOCK}|{_CLOCK}|{_MONTH}\s{_YEAR}|{_NAMED}"
    r"|\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\s(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?![\w.])"
    r"|1[4-9]\d{8}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?(?![\d.])"  # a Unix time
)
_TIME = rf"(?=[0-9JFMASONDTWjfmasondtw])(?:{_DATE_WITH_NAME}|{_DATE}|{_OTHER_TIME})"
_HEX = "[0-9a-fA-F]"
DOMAINS = (
    "com|net|org|edu|gov|mil|info|biz|io|ai|dev|app|cloud|local|localdomain|internal|lan|corp|arpa"
    "|de|fr|uk|us|eu|nl|ru|cn|hk|jp|kr|tw|sg|br|mx|es|pt|se|no|dk|fi|cz|ch|at|be|au|nz|za|ca"
)
_UNITS = r"\ ?(?:[KMGTPkmgt]i?[Bb](?:ps|/s)?|bytes|[mun]s|µs|secs?|seconds?|minutes?|hours?)\b|[KMGTBsmhd%](?![\w%])"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d++(?:\.\d++)?(?:[eE][-+]\d++)?(?![\w.]))"
_OPENING = r"(?<![^\s=(\[{,:])(?<!\bmsg=)(?<!\bmessage=)(?<!\berror=)(?<!\berr=)"  # a quoted message is the text
_NO_WORD = r"(?=[A-Za-z]*+(?:[0-9@._+%~/\\-]|:[:0-9a-fA-F/\\]))"  # most words are letters alone
_VERBS = "GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE|PROPFIND"

# Every repetition is bounded or can't start again inside of itself, so that no text takes more than linear time.
_VARIABLE = re.compile(
    rf"""(?P<quoted>(?=["']){_OPENING}(?:"(?!(?:{_VERBS})\ )[^"\s]++\s[^"]*+"|'[^'\s]++\s[^']*+'(?![A-Za-z0-9])))
      | (?P<list>\[(?!{_TIME})[^\[\],]{{1,99}},[^\[\]]*+\] | \{{[^{{}},]{{1,99}},[^{{}}]*+\}})
      | (?<=\[)(?P<index>\ *(?!1[4-9]\d{{8}})\d++(?:\.\d++)?)(?=\])
      | (?<![A-Za-z0-9])(?:
            (?P<time>{_TIME})
          | {_NO_WORD}(?:
                (?P<uuid>{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}\b)
              | (?P<mac>{_HEX}{{2}}(?:(?::{_HEX}{{2}}){{5}}|(?:-{_HEX}{{2}}){{5}})\b)
              | (?P<ip>\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?![\w.]*\.\d) | (?=[0-9a-fA-F]{{0,4}}:[0-9a-fA-F:]{{0,40}}\d)(?:
                    (?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}
                  | (?:{_HEX}{{1,4}}:){{1,6}}(?::{_HEX}{{1,4}}){{1,6}} | ::(?:{_HEX}{{1,4}}:){{0,6}}{_HEX}{{1,4}}
                )(?:[.:][0-9.]{{3,12}})?\b)
              | (?P<url>[A-Za-z][A-Za-z0-9+.-]{{1,15}}+://[^\s"'<>)\]]++)
              | (?P<email>[A-Za-z0-9._%+-]{{1,64}}+@(?:[A-Za-z0-9-]{{1,63}}+\.){{1,8}}[A-Za-z]{{2,18}}\b)
              | (?P<path>(?:(?<![\w.>\]])~?/(?!{_HEX}{{1,4}}[:.])[^\s"'<>()\[\]{{}},;|]++ | [A-Za-z]:\\[^\s"'<>|,;]*+))
              | (?P<host>(?:[A-Za-z0-9_-]{{1,63}}+\.){{1,8}}(?:{DOMAINS})\b(?![.\w-]))
              | (?P<hex>0[xX]{_HEX}++ | (?=\d*+[a-fA-F])(?=[a-fA-F]*+\d){_HEX}{{6,}}+\b)
              | (?P<id>(?=(?:[A-Za-z_-]*+\d){{4}})(?=[\d_-]*+[A-Za-z])[A-Za-z0-9_-]{{16,}}+(?![A-Za-z0-9.])
                  | (?=[A-Za-z]{{0,20}}\d{{1,20}}[A-Za-z]{{1,20}}\d)[A-Za-z0-9]{{5,}}+(?!\w))
              | (?P<version>[vV]\d++(?:\.\d++)*+(?:-[A-Za-z0-9.]++)?\b
                  | \d++(?:\.\d++){{2,}}+(?:-[A-Za-z][A-Za-z0-9.]*+)?)
            )
        )
      | (?=[-+\d])(?:
            (?P<size>(?<![\w.])[-+]?\d++(?:\.\d++)?(?:{_UNITS})) | (?P<num>(?<![\w.)\]>])[-+]?{_NUMBER}|\d++)
        )""",
    re.VERBOSE,
)
_ID_LIKE = frozenset({"time", "uuid", "hex", "id", "index", "version"})  # what no two months share
_SHOWN = {"index": "num"}  # a number alone in brackets: a process, a place in a list, the seconds since a start


def template(text: str) -> str:
    """A message with its variable parts masked, so that messages of one sort become one category; at most 512
    characters.

    Masked are, by their form alone: dates and times in the usual spellings with their names of months and weekdays,
    UUIDs, IP and MAC addresses, URLs, e-mail addresses, host names, paths, quotations and lists of several words,
    hexadecimal words, long words with digits in them, versions, sizes with their unit, numbers. Nothing is learned, so
    a mask never changes with the data or the month. What the form doesn't show, such as a user's name, is found by
    comparing texts: see `learn_templates`.

    >>> template("Mar  1 06:25:43 web-1 sshd[4711]: login of alice from 10.0.0.7 port 22")
    '<time> web-<num> sshd[<num>]: login of alice from <ip> port <num>'
    >>> template("wrote /var/tmp/a.txt, 12.5 MB in 3 ms")
    'wrote <path>, <size> in <size>'
    """
    return masked(text)[0]


def masked(text: str) -> tuple[str, list[str]]:
    """The template of a text, and what stands at each of its placeholders, in their order: empty where the form alone
    says that it hardly repeats, or changes with the time.
    """
    values: list[str] = []

    def mask(match: re.Match[str]) -> str:
        name = match.lastgroup or ""
        values.append("" if name in _ID_LIKE else match[0])
        return f"<{_SHOWN.get(name, name)}>"

    return _VARIABLE.sub(mask, text[:MAX_TEXT])[:MAX_TEMPLATE], values
