# SPDX-License-Identifier: Apache-2.0
"""nginx on loopback, serving a folder in all the ways a label set may be served."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

CONFIG = """
daemon off; pid {root}/nginx.pid; error_log {root}/error.log; worker_processes 1; {user}
events {{}}
http {{
  log_format fetched '$uri $status $body_bytes_sent $http_range';
  access_log {root}/access.log fetched;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
    root {root}/www;
    location /noranges/ {{ alias {root}/www/; max_ranges 0; }}
    location ~ ^/slow/(.*fkp)$ {{ alias {root}/www/share/$1; limit_rate 100; }}
    location /slow/ {{ alias {root}/www/share/; }}
    location /unhurried/ {{ alias {root}/www/; limit_rate 200k; }}
    location /once/ {{ alias {root}/www/; keepalive_timeout 0; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /share/$1 redirect; }}
    location /cycle/ {{ rewrite ^/cycle/(.*)$ /cycle/$1 redirect; }}
    location /broken/ {{ return 503; }}
    location /asked- {{ return 204; }}
  }}
}}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """nginx, and what it sent."""

    def __init__(self, root):
        self.root, self.www, self.port, self.tls = root, root / "www", free_port(), free_port()
        self.www.mkdir()
        root.chmod(0o755)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", root / "key.pem", "-out", root / "cert.pem"],
                       check=True, capture_output=True)
        (root / "nginx.conf").write_text(CONFIG.format(root=root, port=self.port, tls=self.tls, user="user root;" if os.geteuid() == 0 else ""))
        self.process = subprocess.Popen([NGINX, "-p", root, "-c", root / "nginx.conf"], stderr=subprocess.PIPE)
        until = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            assert self.process.poll() is None and time.monotonic() < until, self.process.communicate()
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def sent(self):
        """Each request since the last call: (path, status, bytes, range)."""
        # What was asked last is in the log last; it is written after the client has its bytes.
        last = f"/asked-{time.monotonic_ns()}"
        with urllib.request.urlopen(f"{self.url}{last}") as answer:
            assert answer.status == 204
        path, until = self.root / "access.log", time.monotonic() + 10
        while last not in path.read_text():
            assert time.monotonic() < until
            time.sleep(0.01)
        lines = path.read_text().splitlines()[:-1]
        path.write_text("")  # nginx appends
        return [(uri, int(status), int(size), part) for uri, status, size, part in (line.split(" ", 3) for line in lines)]

    def shard_bytes(self):
        return sum(size for uri, status, size, _ in self.sent() if uri.endswith(".fkp") and status in (200, 206))
