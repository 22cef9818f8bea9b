"""A page in one's own browser to talk to a run's models, served to this machine alone.

In: a `Talk`. Out: a server on a loopback address, and its address with a random token in it. What keeps other sites and
other users out: every request must have the token in its path, and a Host of this server (against a name that is made
to point here); a message must come as JSON with this page's Origin. A page of ours may load nothing from anywhere else
(Content-Security-Policy), and model text gets into it as text alone (page.js sets textContent).
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.untrusted import json_text, whole_number
from steer_heal_love.talk import WHO, Dials, Talk

HERE, LOOPBACK = Path(__file__).parent, "127.0.0.1"
FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
LARGEST = 100_000
"""bytes of a request's body"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """The server of one `Talk`, whose page begins with these dials and this message. `address` is what to open."""

    daemon_threads = True

    def __init__(self, talk: Talk, dials: Dials, message: str = "", port: int = 0) -> None:
        self.talk, self.token = talk, secrets.token_urlsafe(32)
        self.about = talk.about(dials, message)
        try:
            super().__init__((LOOPBACK, port), Handler)
        except (OSError, OverflowError) as e:
            raise UserError(
                f"--port {port}: cannot be listened on: {e}. Leave it out to take a free one."
            ) from e
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class Handler(BaseHTTPRequestHandler):
    """One request: refused unless it comes from the page of this server."""

    server: Server
    server_version, sys_version = "shl", ""
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: an address holds the token."""

    def do_GET(self) -> None:
        if (name := self.asked()) is None:
            return
        if name == "about":
            self.send_data(HTTPStatus.OK, self.server.about)
        elif name in FILES:
            file, kind = FILES[name]
            self.send_body(HTTPStatus.OK, (HERE / file).read_bytes(), kind)
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        name = self.asked()
        if name is None:
            return
        origin, kind = self.headers.get("Origin", ""), self.headers.get_content_type()
        length = self.headers.get("Content-Length", "")
        if origin.removeprefix("http://") not in self.server.hosts or not origin.startswith("http://"):
            self.refuse(HTTPStatus.FORBIDDEN, "this message does not come from the page of this server")
        elif name != "answer":
            self.refuse(HTTPStatus.NOT_FOUND, "no such page")
        elif kind != "application/json":
            self.refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        elif not length.isdecimal() or not 0 < int(length) <= LARGEST:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected 1 to {LARGEST} bytes")
        else:
            self.reply(self.rfile.read(int(length)))

    def reply(self, body: bytes) -> None:
        try:
            asked = request(body)
            text = self.server.talk.answer(*asked)
        except UserError as e:
            self.refuse(HTTPStatus.BAD_REQUEST, str(e))
            return
        self.send_data(HTTPStatus.OK, {"text": text})

    def asked(self) -> str | None:
        """What of the page is asked for; None after a refusal."""
        _, token, *rest = [*self.path.split("?")[0].split("/"), ""][:3]
        if self.headers.get("Host", "") not in self.server.hosts:
            self.refuse(HTTPStatus.FORBIDDEN, "another host's name leads here")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self.refuse(HTTPStatus.FORBIDDEN, "the address lacks the token that `shl try --web` printed")
        else:
            return "".join(rest)
        return None

    def refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self.send_data(status, {"error": why})

    def send_data(self, status: HTTPStatus, data: Mapping[str, Any]) -> None:
        self.send_body(status, json.dumps(data).encode(), "application/json")

    def send_body(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def request(body: bytes) -> tuple[Any, str, Dials]:
    """Who is asked, the message, the dials. Raises `UserError` for anything else than those."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError("expected UTF-8.") from e
    found = json_text(text, "message").data
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    fine = (
        isinstance(found, dict)
        and found.keys() == {"who", "message", "strength", "dose", "seed"}
        and found["who"] in WHO
        and isinstance(found["message"], str)
        and number(found["strength"])
        and number(found["dose"])
        and whole_number(found["seed"])
    )
    if not fine:
        raise UserError("expected who, message, strength, dose and seed.")
    return (
        found["who"],
        found["message"],
        Dials(float(found["strength"]), float(found["dose"]), found["seed"]),
    )
