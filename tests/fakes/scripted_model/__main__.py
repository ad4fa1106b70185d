"""The scripted model as a process.

python -m tests.fakes.scripted_model PORT [DELAY_TO_FIRST_S DELAY_BETWEEN_S]
"""

import sys

import uvloop

from tests.fakes.scripted_model.app import create_app
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.server import CuttableProtocol
from workers.demo_model.server import serve_until_stopped

# As fast as the demo model answers by default.
first_s, between_s = map(float, sys.argv[2:] or ("0.2", "0.015"))
model = ScriptedModel(delay_to_first_s=first_s, delay_between_s=between_s)
uvloop.run(
    serve_until_stopped(
        create_app(model), host="127.0.0.1", port=int(sys.argv[1]), protocol=CuttableProtocol
    )
)
