"""The demo model: a loopback server that speaks the Messages API and follows rules or scripts.

It owns no intelligence: without a script it answers by a few rules and says so.
"""
