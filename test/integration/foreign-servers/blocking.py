"""http.server on descriptor 3 with a blocking accept(2), a thread for each connection.

The signal's handler only sets a flag: an exception raised from it could hit between accept and the first use of the
connection, which would be lost. Nothing but a connection would then wake the accept, so SO_RCVTIMEO ends it from time to
time (with EAGAIN). shutdown(2) would wake it too, but for every process that has the listener.
"""
import json
import signal
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
        body = json.dumps({"version": sys.argv[1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingMixIn, HTTPServer):
    pass


if sys.argv[1] == "broken":
    raise RuntimeError("no database to speak to")

stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
server = Server(("", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
while not stopping:
    try:
        connection, client = server.get_request()
    except BlockingIOError:
        continue
    server.process_request(connection, client)
server.server_close()
