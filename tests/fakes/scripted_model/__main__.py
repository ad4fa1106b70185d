"""The scripted model as a process: python -m tests.fakes.scripted_model PORT."""

import sys

import uvloop

from tests.fakes.scripted_model.app import create_app
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.server import CuttableProtocol
from workers.demo_model.server import serve_until_stopped

# As fast as the demo model answers by default.
model = ScriptedModel(delay_to_first_s=0.2, delay_between_s=0.015)
uvloop.run(
    serve_until_stopped(
        create_app(model), host="127.0.0.1", port=int(sys.argv[1]), protocol=CuttableProtocol
    )
)
