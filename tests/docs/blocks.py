"""The code blocks of a page of documentation, and what is to be done with each."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from markdown_it import MarkdownIt

_NOTE = re.compile(r"<!--\s*not run:\s*(.*?)\s*-->", re.DOTALL)
_TITLE = re.compile(r'title="([^"/]+)"')
# What the pages call things, and a test calls otherwise.
_KAFKA = re.compile(r"(?:localhost|127\.0\.0\.1):9092/experiences")
_SERVICE = re.compile(
    r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|index\.example\.org):(5\d{4}|8080|9464)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        kind: `python` and `sh` are run, `file` is saved under its name, `other` is only shown.
        text: what it holds.
        line: of the page, where the text begins.
        name: of a file, from `title="NAME"` behind the language.
        why_not: the reason given before it, `<!-- not run: REASON -->`; empty if it is to be run.
    """

    kind: str
    text: str
    line: int
    name: str = ""
    why_not: str = ""

    def as_json(self) -> dict[str, object]:
        """For the session that runs it."""
        return asdict(self)


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    why_not = ""
    for token in MarkdownIt().parse(text):
        if token.type == "html_block" and (note := _NOTE.search(token.content)):
            why_not = note[1]
        elif token.type == "fence":
            language = token.info.split(" ", 1)[0].strip("{}")
            title = _TITLE.search(token.info)
            kind = language if language in ("python", "sh") else "other"
            assert token.map is not None
            name = title[1] if title else ""
            line = token.map[0] + 2
            found.append(Block("file" if name else kind, token.content, line, name, why_not))
            why_not = ""
        elif token.level == 0 and token.nesting >= 0:
            why_not = ""
    return found


def needs_kafka(text: str) -> bool:
    """Whether a page's blocks talk to a broker."""
    return any(_KAFKA.search(block.text) for block in blocks_of(text) if not block.why_not)


def service_ports(text: str) -> list[str]:
    """The ports that a page gives to services."""
    return sorted(set(_SERVICE.findall(text)))


def localised(text: str, kafka: str, ports: dict[str, int]) -> str:
    """A block with a test's broker and topic, and with free ports of this machine."""
    text = _KAFKA.sub(kafka, text)
    return _SERVICE.sub(lambda place: f"127.0.0.1:{ports[place[1]]}", text)
