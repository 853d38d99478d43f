"""The smallest WSGI application: it says its version."""

import json
import os

BODY = json.dumps({"version": os.environ["VERSION"]}).encode()


def application(environ, start_response):
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]
    start_response("200 OK", headers)
    return [BODY]
