"""Tools that a model can call.

definition       what a tool takes and returns
local_tools      the tools of this process, by name
catalogue        all tools of every kind, with the administrators' settings
permission       which of them an audience may use, and how
service          the list of tools for users
administration   the list for administrators, and changes of settings
executor         a tool call, from its name and input to its bounded outcome
validation       inputs checked by JSON schemas
ledger           the costs of calls
trials           single runs for administrators
secrets          encryption of the secrets of MCP servers and webhooks

Every other module or package is one built-in tool; `workers/composition` creates them.
"""
