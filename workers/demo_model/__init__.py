"""The demo model: a loopback server that speaks the Messages API and answers by rules.

It has no intelligence: it quotes what the prompt holds, calls tools for what it recognises, and
says that it is a demo.
"""
