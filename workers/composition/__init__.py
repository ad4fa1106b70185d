"""The composition root: from settings to services, one module for each kind of process.

They are apart so that a process imports what it runs, and no more: the model provider's package
alone takes half a second.
"""
