"""What the model can call: how a tool is described, the registry, and the tools that run here."""
