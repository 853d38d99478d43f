"""A WSGI application that says which version it is. gunicorn "application:create('v1')" serves it."""

import json
import time
from urllib.parse import parse_qs


def create(version):
    body = json.dumps({"version": version}).encode()

    def application(environ, start_response):
        query = parse_qs(environ.get("QUERY_STRING", ""))
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application
