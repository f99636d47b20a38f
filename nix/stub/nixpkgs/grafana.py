#!/usr/bin/env python3
"""A place-holder for Grafana, for the check where there is none: it takes the same command and variables, wants its provisioning to be there, and says
that it is healthy. Of dashboards it knows nothing."""

import argparse
import glob
import http.server
import os
import sys


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"database":"ok"}'
        self.send_response(200 if self.path == "/api/health" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


arguments = argparse.ArgumentParser(prog="grafana", allow_abbrev=False)
arguments.add_argument("command", choices=["server"])
arguments.add_argument("--homepath", required=True)
home = arguments.parse_args().homepath
wanted = [home, *(os.path.join(os.environ["GF_PATHS_PROVISIONING"], kind, "*.yaml") for kind in ("datasources", "dashboards"))]
for pattern in wanted:
    if not glob.glob(pattern):
        sys.exit(f"grafana: nothing at {pattern}")
address = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
http.server.ThreadingHTTPServer(address, Health).serve_forever()
