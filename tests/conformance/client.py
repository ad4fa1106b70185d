"""The command that the conformance suite runs as "the client", with a server's URL.

It passes the URL on to the test, which has the real client open already, and waits for its verdict:
to start that client for each scenario would take a minute.
"""

import json
import os
import socket
import sys

port, url = sys.argv[1:]
task = {
    "url": url,
    "scenario": os.environ["MCP_CONFORMANCE_SCENARIO"],
    "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")),
}
with socket.create_connection(("127.0.0.1", int(port))) as test:
    test.sendall(json.dumps(task).encode() + b"\n")
    problem = test.makefile().read()
sys.exit(problem)
