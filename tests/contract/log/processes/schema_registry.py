"""A schema registry over HTTP, as far as Relive asks one: endpoints, status and error codes.

    python schema_registry.py PORT FILE [USER:PASSWORD] [CERTIFICATE KEY]

Keeps what is registered in FILE, so that it knows it again after a restart. Prints its port.
Written after the API reference of Confluent's registry; compatibility is BACKWARD, of flat records.
"""

import base64
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

CONTENT = "application/vnd.schemaregistry.v1+json"


class Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        self.status = status
        self.said = {"error_code": code, "message": message}


class Registry:
    """Schemas by id, from 1, and subjects with the ids of their versions."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        kept = json.loads(file.read_text()) if file.exists() else {}
        self.schemas: list[str] = kept.get("schemas", [])
        self.subjects: dict[str, list[int]] = kept.get("subjects", {})

    def register(self, subject: str, schema: str) -> dict[str, Any]:
        with self._lock:
            if not self._fits(subject, schema):
                raise Refused(409, 409, f"Schema being registered is incompatible: {subject}")
            if schema not in self.schemas:
                self.schemas.append(schema)
            schema_id = self.schemas.index(schema) + 1
            versions = self.subjects.setdefault(subject, [])
            if schema_id not in versions:
                versions.append(schema_id)
            self._file.write_text(json.dumps({"schemas": self.schemas, "subjects": self.subjects}))
            return {"id": schema_id}

    def find(self, subject: str, schema: str) -> dict[str, Any]:
        if subject not in self.subjects:
            raise Refused(404, 40401, f"Subject '{subject}' not found.")
        for version, schema_id in enumerate(self.subjects[subject], 1):
            if self.schemas[schema_id - 1] == schema:
                return {"subject": subject, "id": schema_id, "version": version, "schema": schema}
        raise Refused(404, 40403, "Schema not found")

    def compatible(self, subject: str, schema: str) -> dict[str, Any]:
        if subject not in self.subjects:
            raise Refused(404, 40401, f"Subject '{subject}' not found.")
        return {"is_compatible": self._fits(subject, schema)}

    def schema(self, schema_id: int) -> dict[str, Any]:
        if not 1 <= schema_id <= len(self.schemas):
            raise Refused(404, 40403, f"Schema {schema_id} not found")
        return {"schema": self.schemas[schema_id - 1]}

    def _fits(self, subject: str, schema: str) -> bool:
        """Whether a reader with this schema understands what the latest one wrote."""
        versions = self.subjects.get(subject)
        if not versions:
            return True
        before, after = (json.loads(text) for text in (self.schemas[versions[-1] - 1], schema))
        known = {field["name"] for field in before["fields"]}
        return before["name"] == after["name"] and all(
            field["name"] in known or "default" in field for field in after["fields"]
        )


class Handler(BaseHTTPRequestHandler):
    registry: Registry
    authorization: str | None = None
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(lambda path: self._get(path))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self._answer(lambda path: self._post(path, body))

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _get(self, path: list[str]) -> dict[str, Any]:
        match path:
            case ["schemas", "ids", number] if number.isdigit():
                return self.registry.schema(int(number))
        raise Refused(404, 404, "HTTP 404 Not Found")

    def _post(self, path: list[str], body: bytes) -> dict[str, Any]:
        if self.headers["Content-Type"] != CONTENT:
            raise Refused(415, 415, "HTTP 415 Unsupported Media Type")
        schema = self._schema(body)
        match path:
            case ["subjects", subject]:
                return self.registry.find(unquote(subject), schema)
            case ["subjects", subject, "versions"]:
                return self.registry.register(unquote(subject), schema)
            case ["compatibility", "subjects", subject, "versions", "latest"]:
                return self.registry.compatible(unquote(subject), schema)
        raise Refused(404, 404, "HTTP 404 Not Found")

    @staticmethod
    def _schema(body: bytes) -> str:
        try:
            schema = json.loads(body)["schema"]
            assert json.loads(schema)["type"] == "record"
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise Refused(422, 42201, f"Invalid schema: {error!r}") from error
        return str(schema)

    def _answer(self, ask: Any) -> None:
        try:
            if self.authorization not in (None, self.headers["Authorization"]):
                raise Refused(401, 401, "Unauthorized")
            status, said = 200, ask(self.path.strip("/").split("/"))
        except Refused as refused:
            status, said = refused.status, refused.said
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(port: str, file: str, user_info: str = "", *tls: str) -> None:
    Handler.registry = Registry(Path(file))
    if user_info:
        Handler.authorization = "Basic " + base64.b64encode(user_info.encode()).decode()
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
