"""A scripted model: the wire of the demo model, with answers, faults and gates that tests decide.

It checks requests as strictly as the Messages API, keeps a log of them, and falls back to the demo
model's rules for a request without a script.
"""
