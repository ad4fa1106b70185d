"""Workflow tools: tools that are webhooks, registered by administrators and called by workers.

- `service.py`: registration, and the webhook behind a tool.
- `calls.py`: the signed request. `answers.py`: what its response means for the model.
- `callbacks.py`: answers that come later.
"""
