"""The servers that `everturn dev` brings along, and the supervisor that keeps them running."""
